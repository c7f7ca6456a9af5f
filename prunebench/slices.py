"""Sums over the rows of tensors too large to be worked on at once: logits over a vocabulary."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

MOST = 2**24  # numbers in a slice: 64 MB in float32, of which a loss makes several copies


def in_slices(function: Callable[..., Tensor], *tensors: Tensor) -> list[Tensor]:
    """What `function` gives for some rows of all `tensors` at a time; the first decides how many.

    Nothing that it computes is kept for the gradient: it is computed again, slice by slice. Few rows are taken as they
    are, as if this were not here.
    """
    rows = max(1, MOST // max(1, tensors[0][0].numel() if len(tensors[0]) else 1))
    if len(tensors[0]) <= rows:
        return [function(*tensors)]
    parts = zip(*(torch.split(tensor, rows) for tensor in tensors), strict=True)
    if not torch.is_grad_enabled():
        return [function(*part) for part in parts]
    return [_checkpointed(function, part) for part in parts]


def _checkpointed(function: Callable[..., Tensor], part: tuple[Tensor, ...]) -> Tensor:
    result: Tensor = checkpoint(function, *part, use_reentrant=False, preserve_rng_state=False)
    return result
