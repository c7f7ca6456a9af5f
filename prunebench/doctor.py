"""`prunebench doctor`: what this machine has, and what to do about what it lacks."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlparse

from prunebench.report import size

PACKAGES = (
    "prunebench", "torch", "transformers", "accelerate", "datasets", "evaluate", "tokenizers", "safetensors",
    "huggingface-hub", "hydra-core", "omegaconf", "scikit-learn", "scipy", "numpy", "rich", "wandb",
)  # fmt: skip
LITTLE_MEMORY, LITTLE_DISK = 8e9, 10e9  # bytes
REACH_SECONDS = 2.0


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, "ok" or "warn", what was found, and what to do about a warning."""

    what: str
    status: str
    found: str
    advice: str = ""


def examine(outputs: str) -> list[Finding]:
    """All findings. A check that fails itself is a warning, not an error."""
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("python", _python),
        ("packages", _packages),
        ("cores and memory", _machine),
        ("devices", _devices),
        ("hub cache", _hub_cache),
        ("hub", _hub),
        ("wandb", _wandb),
        ("outputs", lambda: _outputs(Path(outputs))),
    ]
    return [finding for what, look in checks for finding in _guarded(what, look)]


def _guarded(what: str, look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(look())
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return [Finding(what, "warn", f"could not be examined: {reason}", "the rest is not affected")]


def _python() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")


def _packages() -> Iterator[Finding]:
    for package in PACKAGES:
        try:
            yield Finding(package, "ok", metadata.version(package))
        except metadata.PackageNotFoundError:
            yield Finding(package, "warn", "not installed", f"pip install {package}")


def _machine() -> Iterator[Finding]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("cores", "ok", f"{usable} usable of {os.cpu_count()}")
    total = _memory()
    if total is not None:
        scarce = total < LITTLE_MEMORY
        advice = "BERT-base needs about 4 GB while training: lower trainer.batch_size, or raise accumulation"
        yield Finding("memory", "warn" if scarce else "ok", size(total), advice if scarce else "")


def _memory() -> int | None:
    """Bytes; what the container allows, where it allows less than the machine has."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text().strip() if limit.is_file() else "max"
    return min(total, int(allowed)) if allowed.isdecimal() else total


def _devices() -> Iterator[Finding]:
    import torch

    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: trainer.precision=auto computes in fp32"
        yield Finding(f"cuda:{index}", "ok", f"{properties.name}, {size(properties.total_memory)}, {bf16}")
    if torch.backends.mps.is_available():
        yield Finding("mps", "ok", "Apple GPU")
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        yield Finding(
            "gpu", "warn", "none: BERT-base takes hours to days", "quickstart needs none; see also dataset.limit"
        )
    capability = torch.backends.cpu.get_cpu_capability()
    yield Finding("cpu", "ok", f"{capability}, {torch.get_num_threads()} threads, {_cpu_bf16()}")


def _cpu_bf16() -> str:
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.is_file() else ""
    fast = "avx512_bf16" in flags or "amx_bf16" in flags
    return "fast bf16 (trainer.precision=bf16)" if fast else "no fast bf16"


def _hub_cache() -> Iterator[Finding]:
    from huggingface_hub import constants, scan_cache_dir

    folder = Path(constants.HF_HUB_CACHE)
    if not folder.is_dir():
        yield Finding("hub cache", "ok", f"{folder} is empty")
        return
    info = scan_cache_dir(folder)
    yield Finding("hub cache", "ok", f"{folder}: {len(info.repos)} models and datasets, {size(info.size_on_disk)}")


def _hub() -> Iterator[Finding]:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        yield Finding("hub", "ok", "offline, as HF_HUB_OFFLINE asks: models and data come from the cache or from files")
    elif _reachable(constants.ENDPOINT):
        yield Finding("hub", "ok", f"{constants.ENDPOINT} can be reached")
    else:
        advice = "use local files and folders, or what is cached; HF_HUB_OFFLINE=1 spares the waiting"
        yield Finding("hub", "warn", f"{constants.ENDPOINT} cannot be reached", advice)


def _reachable(address: str) -> bool:
    """Whether a connection opens (through the proxy, where one is set) within two seconds."""
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    url = urlparse(proxy or address)
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        with socket.create_connection((url.hostname or "", port), timeout=REACH_SECONDS):
            return True
    except OSError:
        return False


def _wandb() -> Iterator[Finding]:
    from prunebench.tracking import has_key

    if has_key():
        yield Finding("wandb login", "ok", "found (used with tracker=wandb)")
    else:
        yield Finding("wandb login", "ok", "none: tracker=wandb would log offline (wandb login)")


def _outputs(folder: Path) -> Iterator[Finding]:
    there = next(place for place in [folder.absolute(), *folder.absolute().parents] if place.exists())
    if not os.access(there, os.W_OK | os.X_OK) or not there.is_dir():
        yield Finding(
            "outputs", "warn", f"{folder.absolute()} cannot be written to", "choose another: outputs=<folder>"
        )
        return
    free = shutil.disk_usage(there).free
    scarce = free < LITTLE_DISK
    advice = "prunebench clean lists what may go; a BERT-base run takes up to 6 GB" if scarce else ""
    yield Finding("outputs", "warn" if scarce else "ok", f"{folder.absolute()}, {size(free)} free", advice)
