"""Exact selection of the highest scores, over one or many tensors. Masks are bool tensors, True = keep.

Exactly as many are kept as asked for; of equal scores those of earlier tensors, then of lower flat index in the
(out, in) layout, are kept first. -0.0 equals 0.0. Nothing here touches the global random state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from prunebench.errors import RunError

SAMPLE = 2**18  # scores looked at to guess where the threshold lies; about the size that costs least on 85 M scores
CHUNK = 2**20  # scores worked on at once where a step needs several bytes for each


@dataclass(frozen=True)
class Threshold:
    """Keep every score above `value`, and the first `kept` of the `equal` scores that equal it."""

    value: float
    kept: int
    equal: int


def global_masks(scores: Sequence[Tensor], keep: int) -> list[Tensor]:
    """Masks, shaped like `scores`, of the `keep` highest scores of all tensors together.

    Scores may differ in dtype and need not be contiguous. Beyond the masks, memory for about a fifth of the largest
    tensor and an eighth of all scores is used.

    Raises:
        RunError: a score is NaN.
        ValueError: `keep` is not between 0 and the number of scores.
    """
    return apply_threshold(scores, find_threshold(scores, keep))


def top_mask(score: Tensor, keep: int) -> Tensor:
    """The mask of the `keep` highest scores of one tensor. Errors as in `global_masks`."""
    return global_masks([score], keep)[0]


@torch.no_grad()
def find_threshold(scores: Sequence[Tensor], keep: int) -> Threshold:
    """The `keep`-th highest score, and how ties at it are to be broken. Errors as in `global_masks`.

    The threshold always lies strictly between `low` and `high`, which close in on it: each round guesses two pivots
    from a random sample and counts the scores above them. A pivot that is the threshold (often a mass of ties, such
    as zeros) ends the search without any sorting; otherwise the few scores that are left between the bounds decide.
    Pivots are scores from between the bounds, so a misleading sample costs a round, never exactness.
    """
    size = _check(scores, keep)
    if keep in (0, size):
        return Threshold(-math.inf, 1, 1) if keep else Threshold(math.inf, 0, 1)
    low, high = None, None
    above_low, from_high = size, 0  # scores > low, scores >= high
    generator, dtype = torch.Generator().manual_seed(0), _common(scores)
    while above_low - from_high > max(SAMPLE, size // 32):
        sample = _between(_sample(scores, size, generator, dtype), low, high)
        for pivot in _pivots(sample, (keep - from_high) / (above_low - from_high)):
            if (low is not None and pivot <= low) or (high is not None and pivot >= high):
                continue
            above = sum(_count(score.to(dtype) > pivot) for score in scores)
            if above >= keep:
                low, above_low = pivot, above
                continue
            reached = sum(_count(score.to(dtype) >= pivot) for score in scores)
            if reached >= keep:
                return Threshold(pivot, keep - above, reached - above)
            high, from_high = pivot, reached
    return _exact(torch.cat([_between(score.to(dtype), low, high) for score in scores]), keep - from_high)


@torch.no_grad()
def apply_threshold(scores: Sequence[Tensor], threshold: Threshold) -> list[Tensor]:
    """Masks of the scores that `threshold` keeps; together they are as many as it was found for."""
    dtype = _common(scores)
    if threshold.kept == threshold.equal:
        return [score.to(dtype) >= threshold.value for score in scores]
    masks, left = [], threshold.kept
    for score in scores:
        mask = score.to(dtype) > threshold.value
        if left:
            ties = score.to(dtype) == threshold.value
            count = _count(ties)
            mask |= ties if count <= left else _first(ties, left)
            left -= min(count, left)
        masks.append(mask)
    return masks


@torch.no_grad()
def top_per_row(score: Tensor, counts: int | Tensor) -> Tensor:
    """The mask of the highest scores of every row of `score` (rows, columns), ties to the lower column.

    `counts` is one number for all rows or (rows,) integers, each between 0 and the number of columns.

    Raises:
        RunError: a score is NaN.
    """
    _check([score], 0)
    counts = torch.as_tensor(counts, device=score.device).expand(score.shape[0])
    rows = max(1, CHUNK // max(1, score.shape[1]))
    parts = [_top_rows(part, count) for part, count in zip(score.split(rows), counts.split(rows), strict=True)]
    return torch.cat(parts) if parts else torch.zeros_like(score, dtype=torch.bool)


def _top_rows(score: Tensor, counts: Tensor) -> Tensor:
    most = int(counts.max()) if counts.numel() else 0
    if most == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    highest = score.topk(most, dim=1).values
    threshold = highest.gather(1, (counts - 1).clamp(min=0).unsqueeze(1))
    above, ties = score > threshold, score == threshold
    left = counts.unsqueeze(1) - above.sum(1, keepdim=True)
    return above | (ties & (ties.cumsum(1, dtype=torch.int32) <= left))


def _check(scores: Sequence[Tensor], keep: int) -> int:
    """The number of scores, after refusing what no selection can be made from."""
    size = sum(score.numel() for score in scores)
    if not 0 <= keep <= size:
        raise ValueError(f"cannot keep {keep} of {size} weights")
    for index, score in enumerate(scores):
        if score.numel() and bool(score.amax().isnan()):
            raise RunError(f"score {index + 1} of {len(scores)}, shape {tuple(score.shape)}, contains NaN")
    return size


def _common(scores: Sequence[Tensor]) -> torch.dtype:
    """The dtype that holds every score exactly; a comparison in a narrower one would round the threshold."""
    return reduce(torch.promote_types, (score.dtype for score in scores), torch.bfloat16)


def _count(mask: Tensor) -> int:
    return int(mask.count_nonzero())  # `sum` would copy the mask to int64 first, 8 bytes a weight


def _sample(scores: Sequence[Tensor], size: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """About SAMPLE scores at random, each as likely as any other; drawn on the CPU to be the same on every device."""
    parts = []
    for score in scores:
        if score.numel():
            at = torch.randint(score.numel(), (math.ceil(SAMPLE * score.numel() / size),), generator=generator)
            parts.append(score.take(at.to(score.device)).to(dtype))
    return torch.cat(parts)


def _pivots(sample: Tensor, share: float) -> list[float]:
    """Two sampled scores that very likely enclose the one below which all but the `share` highest lie, high first."""
    size = sample.numel()
    margin = 4 * math.sqrt(size * share * (1 - share)) + 2  # four standard deviations of the rank in a random sample
    ranks = (share * size - margin, share * size + margin)
    return [_highest(sample, min(max(1, round(rank)), size)) for rank in ranks] if size else []


def _highest(values: Tensor, rank: int) -> float:
    """The `rank`-th highest of 1-D `values`, from 1."""
    return float(values.kthvalue(values.numel() - rank + 1).values)


def _between(score: Tensor, low: float | None, high: float | None) -> Tensor:
    """The scores strictly between the bounds (None: no bound), 1-D."""
    if low is None and high is None:
        return score.flatten()
    mask = score < high if high is not None else score > low
    if low is not None and high is not None:
        mask &= score > low
    return score[mask]


def _exact(values: Tensor, keep: int) -> Threshold:
    value = _highest(values, keep)
    return Threshold(value, keep - _count(values > value), _count(values == value))


def _first(ties: Tensor, count: int) -> Tensor:
    """`ties` with only its first `count` True entries in flat order. Halving finds them without an index for each."""
    flat = ties.flatten()  # a view where `ties` is contiguous, so that is overwritten
    start, stop, left = 0, flat.numel(), count
    while stop - start > CHUNK:
        middle = (start + stop) // 2
        found = _count(flat[start:middle])
        if found >= left:
            stop = middle
        else:
            start, left = middle, left - found
    last = start + int(flat[start:stop].nonzero()[left - 1])
    flat[last + 1 :] = False
    return flat.view(ties.shape)
