"""Guideline 3, distillation of output heads: losses, the temperature, and the teacher's logits kept on disk.

L = (1 - h) * task + h * T^2 * KL(softmax(teacher / T) || softmax(student / T)), averaged over rows, then over heads,
as neuralmagic/sparseml does it (modifier_distillation_base.py; h is its `hardness`), after Hinton et al. 2015. Unlike
there, padding never contributes: heads come with padding at minus infinity.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prunebench.cache import made_once, save_array
from prunebench.slices import in_slices

SMALL = float(torch.finfo(torch.bfloat16).eps)  # the reference's: a layer of zeros divides nothing by zero
Heads = Mapping[str, Tensor]
Rows = Mapping[str, np.ndarray]


def distillation_loss(student: Heads, teacher: Heads, temperature: float, *, regression: bool = False) -> Tensor:
    """The distillation term, a float32 scalar, for heads of shape (rows, classes).

    For regression the squared error between the outputs: softmax over a single output is constant.
    """
    losses = [
        functional.mse_loss(student[head].float(), teacher[head].float())
        if regression
        else softened_kl(student[head], teacher[head], temperature)
        for head in student
    ]
    return torch.stack(losses).mean()


def softened_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), averaged over rows. Entries of -inf are left out."""

    def each(student: Tensor, teacher: Tensor) -> Tensor:
        log_student = functional.log_softmax(student.float() / temperature, dim=-1)
        log_teacher = functional.log_softmax(teacher.float() / temperature, dim=-1)
        absent = log_teacher.isneginf()
        difference = log_teacher.masked_fill(absent, 0) - log_student.masked_fill(absent, 0)
        return (log_teacher.exp() * difference).sum(-1)

    return temperature**2 * torch.cat(in_slices(each, student, teacher)).mean()


def hidden_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor, kind: str) -> Tensor:
    """What the layers' outputs, each (B, L, H), differ by, summed over layers, without tokens outside `mask` (B, L).

    mse: the mean squared error of a layer. squarehead: that over the teacher's mean square (Kurtic et al. 2023, Sparse
    fine-tuning for inference acceleration; IST-DASLab/SparseFinetuning, scripts/train/train_sparse.py, where the sum
    over layers leaves out the embeddings' output, as here). A float32 scalar.
    """
    tokens = mask.bool()
    total = torch.zeros((), device=mask.device)
    for ours, theirs in zip(student, teacher, strict=True):
        wanted = theirs[tokens].float()
        error = functional.mse_loss(ours[tokens].float(), wanted)
        total = total + (error / (wanted.square().mean() + SMALL) if kind == "squarehead" else error)
    return total


class LogitCache:
    """The teacher's logits of every training example, memory-mapped: example i has `widths[head][i]` numbers a head."""

    def __init__(self, folder: Path) -> None:
        header = json.loads((folder / "header.json").read_text())
        self.heads: list[str] = header["heads"]
        self._values = {head: np.load(folder / f"{head}.npy", mmap_mode="r") for head in self.heads}
        self._ends = {head: np.load(folder / f"{head}.ends.npy") for head in self.heads}

    def row(self, head: str, index: int) -> np.ndarray:
        ends = self._ends[head]
        row: np.ndarray = self._values[head][ends[index - 1] if index else 0 : ends[index]]
        return row

    def batch(self, indices: Sequence[int], like: Heads) -> dict[str, Tensor]:
        """Heads of the shapes and on the device of `like`, padded with -inf."""
        return {head: self._padded(head, indices, like[head]) for head in like}

    def _padded(self, head: str, indices: Sequence[int], like: Tensor) -> Tensor:
        padded = np.full(like.shape, -np.inf, dtype=np.float32)
        for position, index in enumerate(indices):
            row = self.row(head, int(index))
            padded[position, : len(row)] = row
        return torch.from_numpy(padded).to(like.device, non_blocking=True)


def cached_logits(folder: Path, rows: Callable[[], Iterable[Rows]]) -> LogitCache:
    """The cache in `folder`; `rows` gives a mapping from head to numbers for each example, where it has to be made."""
    return made_once(folder, lambda temporary: _write_logits(temporary, rows()), LogitCache)


def _write_logits(folder: Path, rows: Iterable[Rows]) -> None:
    collected = list(rows)
    heads = list(collected[0])
    for head in heads:
        save_array(folder / f"{head}.npy", np.concatenate([row[head] for row in collected]).astype(np.float32))
        save_array(folder / f"{head}.ends.npy", np.cumsum([len(row[head]) for row in collected]))
    (folder / "header.json").write_text(json.dumps({"heads": heads, "examples": len(collected)}))


def cache_key(*parts: str) -> str:
    """Names the logits of one teacher on one tokenised split at one precision."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def auto_temperature(rows: Iterable[Rows], share: float = 0.5, highest: float = 20.0) -> float:
    """The temperature at which the teacher is, on average, half as uncertain as it could be. Our idea.

    A confident teacher is almost one-hot at T = 1 and then says no more than the labels do; a very high T makes every
    answer equal. T is the one at which the mean entropy of softmax(logits / T), divided by the entropy of a uniform
    answer over the same classes, is `share`; found by bisection between 1 and `highest`, to 0.01.
    """
    logits = [np.asarray(row[head], dtype=np.float64) for row in rows for head in row if len(row[head]) > 1]
    if not logits:  # a regression: there is nothing to soften
        return 1.0
    low, high = 1.0, highest
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (low, middle) if _mean_uncertainty(logits, middle) >= share else (middle, high)
    return round(high, 2)


def _mean_uncertainty(logits: Sequence[np.ndarray], temperature: float) -> float:
    return float(np.mean([_entropy(row / temperature) / math.log(len(row)) for row in logits]))


def _entropy(logits: np.ndarray) -> float:
    shifted = logits - logits.max()
    log_p = shifted - np.log(np.exp(shifted).sum())
    return float(-(np.exp(log_p) * log_p).sum())
