"""Device and precision: resolved once, so that a run's identity can name what was really used."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from prunebench.errors import RunError, UsageError
from prunebench.paths import locked
from prunebench.progress import say

NO_MEMORY = (  # what torch says in errors of no type of their own
    "DefaultCPUAllocator: can't", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)  # fmt: skip
LONGEST_WAIT = timedelta(days=7)  # for a teacher that another run trains; torch's own limit is 10 or 30 minutes
DEFAULT_THREADS = torch.get_num_threads()


def resolve_precision(precision: str, device: str) -> str:
    """fp32, bf16 or fp16. "auto" is bf16 on GPUs that have it and fp32 elsewhere, where it can be bit-reproducible."""
    if device in ("cuda", "mps") and not _has(device):
        raise UsageError(f"trainer.device={device}: torch sees none here (prunebench doctor tells); use auto or cpu")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if precision == "auto":
        return "bf16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if precision == "fp16" and not on_gpu:
        raise UsageError("trainer.precision=fp16 needs a GPU: use bf16 or fp32")
    return precision


def make_accelerator(precision: str, device: str, threads: int | None = None) -> Accelerator:
    """An Accelerator for this run. Its process-wide state is made anew: members of a sweep differ in precision.

    `threads` of the CPU: None is torch's own choice.
    """
    torch.set_num_threads(threads or DEFAULT_THREADS)
    if processes() == 1:
        AcceleratorState._reset_state(reset_partial_state=True)
    mixed = "no" if precision == "fp32" else precision
    return Accelerator(mixed_precision=mixed, cpu=device == "cpu", step_scheduler_with_optimizer=False)


def _has(device: str) -> bool:
    return torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()


def memory_of(device: str) -> int:
    """Bytes of memory in the device that `trainer.device` means; of the machine where that is a CPU."""
    if device != "cpu" and torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def processes() -> int:
    """How many processes torchrun (or accelerate's launcher) started for this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the only or the first one."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def exclusive(path: Path, device: str) -> Iterator[None]:
    """`paths.locked` for a run of one process or of many: the main one holds the lock, the others wait for it."""
    held = locked(path, on_wait=lambda: say(f"waiting for another process that works on {path.name}"))
    if processes() == 1:
        with held:
            yield
        return
    state = PartialState(cpu=device == "cpu", timeout=LONGEST_WAIT)
    with held if state.is_main_process else nullcontext():
        state.wait_for_everyone()
        yield
        state.wait_for_everyone()


def plain_attention_is_faster(device: torch.device, precision: str, max_length: int) -> bool:
    """Whether matrix products beat torch's fused attention, whose backward pass in bf16 is slow on CPUs.

    Measured with scripts/bench_shapes.py: a training step of MiniLM on SST-2 takes 1.3 to 1.5 times as long fused;
    at 384 tokens plain attention is the slower one, at 128 still the faster.
    """
    return device.type == "cpu" and precision == "bf16" and max_length <= 128


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the GPU's memory, or the machine's, was too small. torch has no type of its own for the latter."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(part in str(error) for part in NO_MEMORY)


@contextmanager
def memory_advice(advice: str) -> Iterator[None]:
    """Turns running out of memory into a RunError that ends in what to do about it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(f"out of memory {advice}") from error


def describe_device(device: torch.device) -> str:
    """The GPU's name, or the processor's kind."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"
