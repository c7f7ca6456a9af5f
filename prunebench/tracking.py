"""Where metrics go: always metrics.jsonl, which is the truth, and if asked Weights & Biases, which mirrors it."""

from __future__ import annotations

import json
import netrc
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

from prunebench.config import TrackerConfig
from prunebench.paths import write_text
from prunebench.progress import say, warn

Metrics = Mapping[str, Any]


class Tracker(Protocol):
    """`step` counts finished updates for evaluations, and is the update's own number for losses."""

    def log(self, step: int, metrics: Metrics) -> None: ...

    def finish(self, result: Mapping[str, Any]) -> None: ...


class LocalTracker:
    """Appends to metrics.jsonl. What a stopped run had logged beyond its checkpoint is taken back first."""

    def __init__(self, path: Path, resume_at: int) -> None:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        steps = [(step, line) for line in lines if (step := _step(line)) is not None]
        self.logged_until = max((step for step, _ in steps), default=-1)
        write_text(path, "".join(f"{line}\n" for step, line in steps if step < resume_at))
        self._file = path.open("a", encoding="utf-8")

    def log(self, step: int, metrics: Metrics) -> None:
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()

    def finish(self, result: Mapping[str, Any]) -> None:
        self._file.close()


def _step(line: str) -> int | None:
    """None for a line that was cut off when the run was killed."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


class WandbTracker:
    """Weights & Biases. Offline without a key. Whatever goes wrong there is said once and never ends the run."""

    def __init__(self, settings: TrackerConfig, *, name: str, digest: str, config: Metrics, folder: Path, sent: int):
        self._sent = sent  # steps that an earlier session sent; the run is deterministic, so they need no repeat
        self._run: Any = None
        self._failed = False
        self._guarded(lambda: self._start(settings, name, digest, config, folder))

    def _start(self, settings: TrackerConfig, name: str, digest: str, config: Metrics, folder: Path) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
        if mode == "offline":
            say("wandb: no key found, logging offline (wandb login, or WANDB_API_KEY, to log online)")
        self._run = wandb.init(
            project=settings.project,
            entity=settings.entity,
            group=settings.group or name,
            name=f"{name}-seed{config['seed']}",
            id=digest,
            resume="allow",
            tags=[*settings.tags, f"sparsity-{config['sparsity']:g}", config["dataset"]["name"]],
            config=dict(config),
            dir=str(folder),
            mode=mode,
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, step: int, metrics: Metrics) -> None:
        if step > self._sent:
            self._guarded(lambda: self._run.log(flatten(metrics), step=step))

    def finish(self, result: Mapping[str, Any]) -> None:
        self._guarded(lambda: self._finish(result))

    def _finish(self, result: Mapping[str, Any]) -> None:
        summary = {key: result[key] for key in ("metric", "metrics", "dense", "recovery", "sparsity", "seconds")}
        self._run.summary.update(flatten(summary))
        self._run.finish()

    def where(self) -> str | None:
        """The run's address, or the command that sends an offline run."""
        if self._run is None:
            return None
        return self._run.url or f"wandb sync {Path(self._run.dir).parent}"

    def _guarded(self, call: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            call()
        except Exception as error:
            self._failed = True
            reason = (str(error).splitlines() or [""])[0]
            warn(f"wandb: {type(error).__name__}: {reason}; going on without it, metrics.jsonl has everything")


def has_key() -> bool:
    """Whether wandb could log in: a key in the environment or in netrc. The key itself goes nowhere."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def flatten(metrics: Metrics, prefix: str = "") -> dict[str, Any]:
    """{"eval": {"accuracy": 0.9}} -> {"eval/accuracy": 0.9}"""
    flat: dict[str, Any] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}/")
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat
