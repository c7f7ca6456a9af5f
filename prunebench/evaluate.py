"""Run a model over a split, without gradients and in eval mode, and score it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from prunebench.devices import memory_advice
from prunebench.tasks.base import Encoded, Prediction, Row, Task

Autocast = Callable[[], AbstractContextManager[Any]]


def collect_rows(
    model: nn.Module,
    task: Task,
    data: Encoded,
    *,
    batch_size: int,
    device: torch.device,
    autocast: Autocast = nullcontext,
    indices: np.ndarray | None = None,
    on_batch: Callable[[int], None] = lambda examples: None,
) -> dict[int, Row]:
    """The heads of every example of `data` (or of `indices`), by index. The model's mode is restored afterwards."""
    was_training = model.training
    model.eval()
    rows: dict[int, Row] = {}
    smaller = f"add trainer.eval_batch_size={batch_size // 2}, and the run goes on"
    if batch_size == 1:
        smaller = "lower dataset.max_length, or choose a smaller model"
    advice = f"while scoring {batch_size} examples at once: {smaller}"
    for part in _by_length(data, batch_size, indices):
        with memory_advice(advice):
            batch = {name: tensor.to(device) for name, tensor in task.batch(data, part).items()}
            with torch.inference_mode(), autocast():
                answers = task.answer(model, batch)
            rows.update(zip(part.tolist(), answers, strict=True))
        on_batch(len(part))
    model.train(was_training)
    return rows


def _by_length(data: Encoded, batch_size: int, indices: np.ndarray | None) -> Iterator[np.ndarray]:
    """Batches of similar length need little padding; the longest first, so that memory runs out at once or never."""
    chosen = np.arange(len(data)) if indices is None else indices
    order = chosen[np.argsort(-data.lengths[chosen], kind="stable")]
    return (order[start : start + batch_size] for start in range(0, len(order), batch_size))


def score_splits(
    task: Task, rows_of: Callable[[str], Mapping[int, Row]], splits: Iterable[str]
) -> tuple[dict[str, float], list[Prediction]]:
    """All metrics of all splits, and one prediction an example, each with its split's name."""
    metrics: dict[str, float] = {}
    lines: list[Prediction] = []
    for split in splits:
        rows = rows_of(split)
        predictions = task.predictions(split, [rows[index] for index in range(len(rows))])
        metrics |= task.score(split, predictions)
        lines += [{"split": split, **prediction} for prediction in predictions]
    return metrics, lines
