"""Device and precision: resolved once, so that a run's identity can name what was really used."""

from __future__ import annotations

import platform

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from prunebench.errors import UsageError


def resolve_precision(precision: str, device: str) -> str:
    """fp32, bf16 or fp16. "auto" is bf16 on GPUs that have it and fp32 elsewhere, where it can be bit-reproducible."""
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if precision == "auto":
        return "bf16" if on_gpu and torch.cuda.is_bf16_supported() else "fp32"
    if precision == "fp16" and not on_gpu:
        raise UsageError("trainer.precision=fp16 needs a GPU: use bf16 or fp32")
    return precision


def make_accelerator(precision: str, device: str) -> Accelerator:
    """An Accelerator for this run. Its process-wide state is made anew: members of a sweep differ in precision."""
    if device in ("cuda", "mps") and not _has(device):
        raise UsageError(f"trainer.device={device}: torch sees none here (prunebench doctor tells); use auto or cpu")
    if not _distributed():
        AcceleratorState._reset_state(reset_partial_state=True)
    mixed = "no" if precision == "fp32" else precision
    return Accelerator(mixed_precision=mixed, cpu=device == "cpu", step_scheduler_with_optimizer=False)


def _has(device: str) -> bool:
    return torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()


def _distributed() -> bool:
    return bool(PartialState._shared_state) and PartialState().num_processes > 1


def describe_device(device: torch.device) -> str:
    """The GPU's name, or the processor's kind."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"
