"""What a stopped run needs to go on: weights, moments, masks and the step, as safetensors and JSON.

Data order, dropout, learning rate and sparsity are functions of (seed, step), so there is nothing else to keep.
"""

from __future__ import annotations

import json
import shutil
import time
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from prunebench.errors import RunError
from prunebench.paths import remove, whole_file, whole_folder

KEPT = 2  # the newest and, should that one be damaged, the one before
COMPLETE = "checksums.json"  # written last: of every other file
SUFFIX = ".safetensors"
UNREADABLE = (OSError, ValueError, KeyError, SafetensorError)


@dataclass(frozen=True)
class Checkpoint:
    """`step` updates were made. `tensors` has one mapping a file: model, optimizer, masks."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    extra: Mapping[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes `folder/step-<n>/`, whole or not at all."""
    with whole_folder(_folder(folder, checkpoint.step)) as temporary:
        for name, tensors in checkpoint.tensors.items():
            path = temporary / f"{name}{SUFFIX}"
            save_file({key: tensor.detach().contiguous().cpu() for key, tensor in tensors.items()}, path)
        (temporary / "state.json").write_text(json.dumps({"step": checkpoint.step, "extra": dict(checkpoint.extra)}))
        sums = {path.name: _checksum(path) for path in temporary.iterdir()}
        (temporary / COMPLETE).write_text(json.dumps(sums))


def keep_newest(folder: Path) -> None:
    """Removes the checkpoints before the last two."""
    for old in _saved(folder)[:-KEPT]:
        shutil.rmtree(old)


def keep_only(folder: Path, steps: Collection[int]) -> None:
    """Removes the checkpoints of all other steps."""
    for path in set(_saved(folder)) - {_folder(folder, step) for step in steps}:
        shutil.rmtree(path)


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, tied ones once: safetensors refuses the same memory twice."""
    seen: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in state.items() if seen.setdefault(id(tensor), name) == name}


def load_model_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `model_tensors`.

    Raises:
        ValueError: they are of another model.
    """
    own = model_tensors(model)
    if own.keys() != tensors.keys():
        raise ValueError(f"the checkpoint is of another model: {sorted(own.keys() ^ tensors.keys())[0]}")
    for name, tensor in own.items():
        tensor.data.copy_(tensors[name])


def load_checkpoint_at(folder: Path, step: int) -> Checkpoint:
    """The checkpoint of exactly `step`.

    Raises:
        RunError: it is gone or damaged.
    """
    try:
        return _read(_folder(folder, step))
    except UNREADABLE as error:
        raise RunError(f"{_folder(folder, step)} cannot be read ({error}): run again with --force") from error


def load_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[Path], list[str]]:
    """The newest undamaged checkpoint, and for each damaged one that was passed over its folder and a line."""
    damaged: list[Path] = []
    lines: list[str] = []
    for path in reversed(_saved(folder)):
        try:
            return _read(path), damaged, lines
        except UNREADABLE as error:
            damaged.append(path)
            lines.append(f"checkpoint {path.name} is damaged ({error}): going on from the one before, or anew")
    return None, damaged, lines


class UnfinishedPruning:
    """The matrices that a pruning layer by layer has done, written every minute (`sparsity.sparsifier.Unfinished`).

    They depend on (seed, step) alone, so whichever checkpoint a run goes on from, they are what it would compute again.
    """

    def __init__(self, folder: Path, step: int, every: float = 60.0) -> None:
        """`folder` is that of all prunings; what it holds of other steps is removed. `every`: seconds."""
        self._folder, self._every = folder / f"step-{step:09d}", every
        for other in _saved(folder):
            if other != self._folder:
                remove(other)
        self._waiting: dict[str, Tensor] = {}
        self._level: float | None = None  # of what waits
        self._written = time.monotonic()

    def read(self, level: float) -> dict[str, tuple[Tensor, Tensor]]:
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for path in sorted(self._folder.glob(f"{level!r}-*{SUFFIX}")):
            try:
                tensors = load_file(path)
                names = {key.rpartition("/")[0] for key in tensors}
                found |= {name: (tensors[f"{name}/weight"], tensors[f"{name}/mask"]) for name in names}
            except UNREADABLE:
                remove(path)
        return found

    def add(self, level: float, done: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        if level != self._level:  # a pruning in parts has come to the next one
            self._waiting, self._level = {}, level
        for name, (weight, mask) in done.items():
            self._waiting |= {f"{name}/weight": weight.cpu().clone(), f"{name}/mask": mask.cpu()}
        if time.monotonic() - self._written >= self._every:
            number = len(list(self._folder.glob(f"*{SUFFIX}")))
            with whole_file(self._folder / f"{level!r}-{number:06d}{SUFFIX}") as temporary:
                save_file(self._waiting, temporary)
            self._waiting, self._written = {}, time.monotonic()


def _read(path: Path) -> Checkpoint:
    sums = json.loads((path / COMPLETE).read_text())
    if not isinstance(sums, dict) or "state.json" not in sums:
        raise ValueError(f"{COMPLETE} is not what was written")
    for name, checksum in sums.items():
        if _checksum(path / name) != checksum:
            raise ValueError(f"{name} does not have the checksum it was written with")
    state = json.loads((path / "state.json").read_text())
    tensors = {name.removesuffix(SUFFIX): load_file(path / name) for name in sums if name.endswith(SUFFIX)}
    return Checkpoint(state["step"], tensors, state["extra"])


def _folder(folder: Path, step: int) -> Path:
    return folder / f"step-{step:09d}"


def _saved(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while part := file.read(1 << 24):
            checksum = zlib.crc32(part, checksum)
    return checksum
