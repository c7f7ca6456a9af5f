"""What several dynamics do at every step: look for the largest weights, and scale the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunebench.sparsity.patterns import Pattern, sum_units

if TYPE_CHECKING:
    from prunebench.sparsity.sparsifier import Sparsifier
    from prunebench.targets import Target


def magnitude_masks(sparsifier: Sparsifier, sparsity: float, pattern: Pattern | None = None) -> list[Tensor]:
    """For each target the mask (out, in) of its largest weights, chosen by the sparsifier's scope; nothing is pruned.

    `pattern`: instead of the sparsifier's own.
    """
    pattern = pattern or sparsifier.pattern
    scores = [sum_units(target.matrix.abs(), pattern.size) for target in sparsifier.targets]
    return pattern.masks(scores, sparsity, sparsifier.axes.scope)


def attenuate(target: Target, mask: Tensor, factor: float) -> None:
    """Multiplies what `mask` (out, in) does not keep by `factor`."""
    matrix = target.matrix
    matrix.copy_(torch.where(mask, matrix, matrix * factor))


def gradient_of(target: Target) -> Tensor | None:
    """(out, in) view of the weight's gradient; writing to it writes to the gradient."""
    gradient = target.weight.grad
    return None if gradient is None else target.oriented(gradient)
