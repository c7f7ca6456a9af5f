"""Which training examples a pruning looks at, and how the model is run on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import numpy as np
from accelerate import Accelerator
from torch import Tensor, nn

from prunebench.config import CalibrationConfig
from prunebench.progress import counting
from prunebench.sparsity.calibration import Calibration
from prunebench.sparsity.criteria import Sample
from prunebench.tasks.base import Encoded, Task


def looked_at(settings: CalibrationConfig, sample: Sample, available: int) -> tuple[int, int]:
    """How many examples are looked at, and how many at once."""
    examples = min(settings.examples or sample.examples, available)
    return examples, min(settings.batch_size or sample.batch_size, examples)


def make_calibration(
    model: nn.Module,
    task: Task,
    data: Encoded,
    accelerator: Accelerator,
    settings: CalibrationConfig,
    sample: Sample,
    *,
    seed: int,
    step: int,
    on_batch: Callable[[], None],
) -> Calibration:
    """The examples for the pruning at `step`: a random sample that depends on (seed, step) alone.

    `on_batch` is called after every batch and may raise, to stop.
    Every process looks at all of them, so that all choose alike. fp16 is not used: its gradients would underflow.
    """
    examples, batch_size = looked_at(settings, sample, len(data))
    indices = np.random.default_rng([seed, step, len(data)]).permutation(len(data))[:examples]
    autocast = nullcontext if accelerator.mixed_precision == "fp16" else accelerator.autocast

    def batch_of(chosen: np.ndarray) -> Mapping[str, Tensor]:
        batch = task.batch(data, chosen, (seed, step))
        return {name: tensor.to(accelerator.device, non_blocking=True) for name, tensor in batch.items()}

    def loss_of(batch: Mapping[str, Tensor]) -> Tensor:
        batch = dict(batch)
        with autocast():
            outputs = model(**task.inputs(batch))
        return task.loss(task.heads(outputs, batch), batch)

    @contextmanager
    def shown(title: str, total: int) -> Iterator[Callable[[int], None]]:
        with counting(title, total) as count:

            def counted(done: int) -> None:
                count(done)
                on_batch()

            yield counted

    return Calibration(model, indices, data.lengths[indices], batch_size, batch_of, loss_of, autocast, shown)
