"""Exact selection of the highest scores, over one or many tensors. Masks are bool tensors, True = keep.

Exactly as many are kept as asked for; of equal scores those of earlier tensors, then of lower flat index in the
(out, in) layout, are kept first. -0.0 equals 0.0. Nothing here touches the global random state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
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

    Scores may differ in dtype and need not be contiguous. Extra memory, masks included, peaks at about the scores' own
    size (measured: 0.3 times it over 72 float32 matrices; the most, 1.5 times, for a single bfloat16 tensor).

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

    Each round guesses from a random sample two scores, `low` and `high`, that very likely enclose the threshold, and
    counts the scores above them. If they do, the few scores between them decide. If one of them is the threshold
    (often a mass of ties, such as zeros), it is found without any sorting. Otherwise it bounds the next guess.
    Guesses are scores, and the counts exact: a misleading sample costs a round, never exactness.
    """
    size = _check(scores, keep)
    if keep in (0, size):
        return Threshold(-math.inf, 1, 1) if keep else Threshold(math.inf, 0, 1)
    below: float | None = None
    above: float | None = None  # the threshold lies strictly between `below` and `above`
    left, passed = size, 0  # scores > below, scores >= above
    generator, dtype = torch.Generator().manual_seed(0), torch.promote_types(_common(scores), torch.float32)
    while left - passed > max(SAMPLE, size // 32):
        sample = _between([_sample(scores, size, generator, dtype)], below, above, dtype).values
        if not sample.numel():
            continue
        low, high = _guess(sample, (keep - passed) / (left - passed))
        found = _between(scores, low, high, dtype)
        if found.from_high < keep <= found.above_low:
            return _exact(found.values, keep, found.from_high)
        if keep > found.above_low:
            from_low = sum(_count(_above(piece, low, equal=True)) for piece in _pieces(scores, dtype))
            if keep <= from_low:
                return Threshold(low, keep - found.above_low, from_low - found.above_low)
            above, passed = low, from_low
        else:
            above_high = sum(_count(_above(piece, high)) for piece in _pieces(scores, dtype))
            if keep > above_high:
                return Threshold(high, keep - above_high, found.from_high - above_high)
            below, left = high, above_high
    return _exact(_between(scores, below, above, dtype).values, keep, passed)


@torch.no_grad()
def apply_threshold(scores: Sequence[Tensor], threshold: Threshold) -> list[Tensor]:
    """Masks of the scores that `threshold` keeps; together they are as many as it was found for."""
    dtype = _common(scores)
    if threshold.kept == threshold.equal:
        return [_above(score.to(dtype), threshold.value, equal=True) for score in scores]
    masks, left = [], threshold.kept
    for score in scores:
        mask = _above(score.to(dtype), threshold.value)
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
    starts = range(0, score.shape[0], rows)
    parts = [_top_rows(score[start : start + rows], counts[start : start + rows]) for start in starts]
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
    return reduce(torch.promote_types, (score.dtype for score in scores), torch.bool)


def _pieces(scores: Sequence[Tensor], dtype: torch.dtype) -> Iterator[Tensor]:
    """All scores as `dtype`, rows of a large tensor piece by piece, so that what is computed from one stays small."""
    for score in scores:
        if score.numel():
            rows = max(1, CHUNK * len(score) // score.numel())
            yield from (score[start : start + rows].to(dtype) for start in range(0, len(score), rows))


# Three steps take nearly all of the time; on CPU numpy does each about six times as fast as torch 2.13.


def _above(score: Tensor, bound: float, *, equal: bool = False) -> Tensor:
    """`score > bound`, or `>=` with `equal`."""
    if score.is_cpu and score.dtype in (torch.float32, torch.float64):
        values = score.detach().numpy()
        return torch.from_numpy(values >= bound if equal else values > bound)
    return score >= bound if equal else score > bound


def _count(mask: Tensor) -> int:
    return int(np.count_nonzero(mask.numpy())) if mask.is_cpu else int(mask.count_nonzero())


def _pick(score: Tensor, mask: Tensor, without: Tensor) -> Tensor:
    """`score[mask & ~without]`, 1-D."""
    if score.is_cpu:
        return score.take(torch.from_numpy(np.flatnonzero(mask.numpy() > without.numpy())))
    return score[mask > without]


def _sample(scores: Sequence[Tensor], size: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """About SAMPLE scores at random, each as likely as any other; drawn on the CPU to be the same on every device."""
    parts = []
    for score in scores:
        if score.numel():
            at = torch.randint(score.numel(), (math.ceil(SAMPLE * score.numel() / size),), generator=generator)
            parts.append(score.take(at.to(score.device)).to(dtype))
    return torch.cat(parts)


def _guess(sample: Tensor, share: float) -> tuple[float, float]:
    """Two sampled scores, in ascending order, between which the `share` highest very likely end."""
    size = sample.numel()
    margin = 4 * math.sqrt(size * share * (1 - share)) + 2  # four standard deviations of a rank in a random sample
    low, high = (min(max(1, round(share * size + offset)), size) for offset in (margin, -margin))
    return _highest(sample, low), _highest(sample, high)


def _highest(values: Tensor, rank: int) -> float:
    """The `rank`-th highest of 1-D `values`, from 1."""
    return float(values.kthvalue(values.numel() - rank + 1).values)


class _Between(NamedTuple):
    above_low: int  # scores > low
    from_high: int  # scores >= high
    values: Tensor  # those strictly between, 1-D


def _between(scores: Sequence[Tensor], low: float | None, high: float | None, dtype: torch.dtype) -> _Between:
    """Counts and the scores between the bounds, in one pass. None: no bound on that side."""
    above_low, from_high, values = 0, 0, []
    for piece in _pieces(scores, dtype):
        above = _above(piece, low) if low is not None else torch.ones_like(piece, dtype=torch.bool)
        reached = _above(piece, high, equal=True) if high is not None else torch.zeros_like(above)
        above_low += _count(above)
        from_high += _count(reached)
        values.append(_pick(piece, above, reached))
    return _Between(above_low, from_high, torch.cat(values))


def _exact(values: Tensor, keep: int, passed: int) -> Threshold:
    """The threshold is among `values`, above which `passed` more scores lie."""
    value = _highest(values, keep - passed)
    return Threshold(value, keep - passed - _count(values > value), _count(values == value))


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
