"""Exact selection of the highest scores, over one or many tensors. Masks are bool tensors, True = keep.

Exactly as many are kept as asked for; of equal scores those of earlier tensors, then of lower flat index in the
(out, in) layout, are kept first. -0.0 equals 0.0. Nothing here touches the global random state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import eq, ge, gt
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prunebench.errors import RunError

FEW = 2**13  # so many scores are selected among at once; a sample is no smaller
CHUNK = 2**18  # scores worked on at once: what is computed from them stays in the processor's cache

Relation = Callable[[Any, Any], Any]  # operator.gt, ge or eq


@dataclass(frozen=True)
class Threshold:
    """Keep every score above `value`, and the first `kept` of the `equal` scores that equal it."""

    value: float
    kept: int
    equal: int


def global_masks(scores: Sequence[Tensor], keep: int) -> list[Tensor]:
    """Masks, shaped like `scores`, of the `keep` highest scores of all tensors together.

    Scores may differ in dtype and need not be contiguous. Extra memory, masks included, peaks at about the scores' own
    size (measured: 0.3 times it over 72 float32 matrices; the most, 1.1 times, for a single float16 tensor).

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
    random, dtype = np.random.default_rng(0), _wide(_common(scores))
    while left - passed > max(FEW, size // 32):
        sample = _between([_sample(scores, size, random, dtype)], below, above, dtype).values
        if not sample.numel():
            continue
        low, high = _guess(sample, (keep - passed) / (left - passed))
        found = _between(scores, low, high, dtype)
        if found.from_high < keep <= found.above_low:
            return _exact(found.values, keep, found.from_high)
        if keep > found.above_low:
            from_low = found.above_low + sum(count(_compare(piece, eq, low)) for piece in _pieces(scores, dtype))
            if keep <= from_low:
                return Threshold(low, keep - found.above_low, from_low - found.above_low)
            above, passed = low, from_low
        else:
            above_high = sum(count(_compare(piece, gt, high)) for piece in _pieces(scores, dtype))
            if keep > above_high:
                return Threshold(high, keep - above_high, found.from_high - above_high)
            below, left = high, above_high
    return _exact(_between(scores, below, above, dtype).values, keep, passed)


@torch.no_grad()
def apply_threshold(scores: Sequence[Tensor], threshold: Threshold) -> list[Tensor]:
    """Masks of the scores that `threshold` keeps; together they are as many as it was found for."""
    dtype = _common(scores)
    if threshold.kept == threshold.equal:
        return [_compare(score.detach().to(dtype), ge, threshold.value) for score in scores]
    masks, left = [], threshold.kept
    for score in scores:
        score = score.detach().to(dtype)
        if not left:
            masks.append(_compare(score, gt, threshold.value))
            continue
        ties = _compare(score, eq, threshold.value)
        tied = count(ties)
        mask = _compare(score, ge if tied <= left else gt, threshold.value)
        masks.append(mask if tied <= left else _add_first(mask, ties, left))
        left -= min(tied, left)
    return masks


def has_nan(score: Tensor) -> bool:
    """Whether any entry is NaN, which a maximum passes on."""
    if score.is_cpu:
        return any(np.isnan(piece.numpy().max()) for piece in _pieces([score], _wide(score.dtype)))
    return bool(score.numel()) and bool(score.amax().isnan())


def count_above(score: Tensor, bound: float) -> int:
    """How many entries are greater than `bound`."""
    return sum(count(_compare(piece, gt, bound)) for piece in _pieces([score], _wide(score.dtype)))


def clear(values: Tensor, mask: Tensor) -> None:
    """Sets `values[~mask]` to zero in place, whatever is there.

    As bits: five times as fast on CPU as masked_fill_ or where, which are not vectorised, and unlike a product it
    leaves no NaN of an infinity and no negative zero.
    """
    bits = values.detach().view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()])
    bits.bitwise_and_(mask.view(torch.int8).neg())  # 1 becomes -1, all bits of which are set


def exclude(score: Tensor, mask: Tensor) -> None:
    """Sets `score[~mask]`, where it is not NaN, to -inf in place. Vectorised, see `clear`."""
    limit = mask.view(torch.uint8).to(score.dtype).sub_(0.5).mul_(math.inf)
    torch.minimum(score, limit, out=score)


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
    columns, counts = score.shape[1], counts.unsqueeze(1)
    at = (columns - counts).clamp(max=columns - 1)
    threshold = _sorted_rows(score).gather(1, at).masked_fill_(counts == 0, math.inf)
    reached = score >= threshold
    if bool((reached.sum(1, keepdim=True) == counts).all()):
        return reached
    above = score > threshold
    ties, left = reached & ~above, counts - above.sum(1, keepdim=True)
    return above | (ties & (ties.cumsum(1, dtype=torch.int32) <= left))


def _sorted_rows(score: Tensor) -> Tensor:
    """Every row in ascending order."""
    return torch.from_numpy(np.sort(score.numpy(), axis=1)) if _as_numpy(score) else score.sort(dim=1).values


def _check(scores: Sequence[Tensor], keep: int) -> int:
    """The number of scores, after refusing what no selection can be made from."""
    size = sum(score.numel() for score in scores)
    if not 0 <= keep <= size:
        raise ValueError(f"cannot keep {keep} of {size} weights")
    for index, score in enumerate(scores):
        if has_nan(score):
            raise RunError(f"score {index + 1} of {len(scores)}, shape {tuple(score.shape)}, contains NaN")
    return size


def _common(scores: Sequence[Tensor]) -> torch.dtype:
    """The dtype that holds every score exactly; a comparison in a narrower one would round the threshold."""
    return reduce(torch.promote_types, (score.dtype for score in scores), torch.bool)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """float32, or float64 for what needs it: the types in which numpy works on scores."""
    return torch.promote_types(dtype, torch.float32)


def _pieces(scores: Sequence[Tensor], dtype: torch.dtype) -> Iterator[Tensor]:
    """All scores as `dtype`, rows of a large tensor piece by piece, so that what is computed from one stays small."""
    for score in scores:
        if score.numel():
            rows = max(1, CHUNK * len(score) // score.numel())
            yield from (_converted(score[start : start + rows], dtype) for start in range(0, len(score), rows))


# On CPU numpy does each of these several times as fast as torch 2.13, and without threads: those wait for each other
# where cores are shared, which was seen to cost 8 ms a call.


def _converted(score: Tensor, dtype: torch.dtype) -> Tensor:
    if score.is_cpu and (score.dtype, dtype) == (torch.bfloat16, torch.float32):  # its bits are the upper half
        return torch.from_numpy((score.detach().view(torch.int16).numpy().astype(np.int32) << 16).view(np.float32))
    return score.detach().to(dtype)


def _as_numpy(score: Tensor) -> bool:
    return score.is_cpu and score.dtype in (torch.float32, torch.float64)


def _compare(score: Tensor, relation: Relation, bound: float) -> Tensor:
    """`relation(score, bound)`, entry by entry. `bound` is of their dtype: numpy would round it."""
    if _as_numpy(score):
        return torch.from_numpy(relation(score.numpy(), bound))
    if score.is_cpu and score.numel():
        result, start = np.empty(score.shape, bool), 0
        for piece in _pieces([score], _wide(score.dtype)):
            result[start : start + len(piece)] = relation(piece.numpy(), bound)
            start += len(piece)
        return torch.from_numpy(result)
    return relation(score, bound)  # type: ignore[no-any-return]


def count(mask: Tensor) -> int:
    """How many entries of a bool tensor are True."""
    return int(np.count_nonzero(mask.numpy())) if mask.is_cpu else int(mask.count_nonzero())


def _pick(score: Tensor, mask: Tensor, without: Tensor) -> Tensor:
    """`score[mask & ~without]`, 1-D."""
    if _as_numpy(score):
        return torch.from_numpy(score.numpy()[mask.numpy() > without.numpy()])
    return score[mask > without]


def _sample(scores: Sequence[Tensor], size: int, random: np.random.Generator, dtype: torch.dtype) -> Tensor:
    """Some scores at random, each as likely as any other; drawn on the CPU to be the same on every device.

    The time to draw n of N grows as n, that to select between the guesses as N / sqrt(n): n = N^(2/3) balances them.
    """
    wanted, parts = max(FEW, size ** (2 / 3)), []
    for score in scores:
        if score.numel():
            at = random.integers(score.numel(), size=math.ceil(wanted * score.numel() / size))
            parts.append(_converted(_at(score, at), dtype))
    return torch.cat(parts)


def _at(score: Tensor, at: np.ndarray) -> Tensor:
    """The entries at the flat indices `at`, 1-D."""
    if score.is_cpu:
        bits = score.view(torch.int16) if score.element_size() == 2 else score  # numpy knows no bfloat16
        return torch.from_numpy(bits.numpy()[np.unravel_index(at, score.shape)]).view(score.dtype)
    return score.take(torch.from_numpy(at).to(score.device))


def _guess(sample: Tensor, share: float) -> tuple[float, float]:
    """Two sampled scores, in ascending order, between which the `share` highest very likely end."""
    size = sample.numel()
    margin = 4 * math.sqrt(size * share * (1 - share)) + 2  # four standard deviations of a rank in a random sample
    low, high = (min(max(1, round(share * size + offset)), size) for offset in (margin, -margin))
    ordered = _sorted(sample)
    return float(ordered[size - low]), float(ordered[size - high])


def _sorted(values: Tensor) -> Tensor:
    """1-D `values` in ascending order. numpy's sort takes no longer than its partition where there are many ties."""
    return torch.from_numpy(np.sort(values.numpy())) if _as_numpy(values) else values.sort().values


class _Between(NamedTuple):
    above_low: int  # scores > low
    from_high: int  # scores >= high
    values: Tensor  # those strictly between, 1-D


def _between(scores: Sequence[Tensor], low: float | None, high: float | None, dtype: torch.dtype) -> _Between:
    """Counts and the scores between the bounds, in one pass. None: no bound on that side."""
    above_low, from_high, values = 0, 0, []
    for piece in _pieces(scores, dtype):
        above = _compare(piece, gt, low) if low is not None else torch.ones_like(piece, dtype=torch.bool)
        reached = _compare(piece, ge, high) if high is not None else torch.zeros_like(above)
        above_low += count(above)
        from_high += count(reached)
        values.append(_pick(piece, above, reached))
    return _Between(above_low, from_high, torch.cat(values))


def _exact(values: Tensor, keep: int, passed: int) -> Threshold:
    """The threshold is among `values`, above which `passed` more scores lie."""
    value = float(_sorted(values)[values.numel() - (keep - passed)])
    above = count(_compare(values, gt, value))
    return Threshold(value, keep - passed - above, count(_compare(values, ge, value)) - above)


def _add_first(mask: Tensor, ties: Tensor, wanted: int) -> Tensor:
    """`mask` with the first `wanted` entries of `ties`, in flat order, added in place.

    Halving finds them without an index for each.
    """
    flat = ties.flatten()  # a view where `ties` is contiguous, so that is overwritten
    start, stop, left = 0, flat.numel(), wanted
    while stop - start > CHUNK:
        middle = (start + stop) // 2
        found = count(flat[start:middle])
        if found >= left:
            stop = middle
        else:
            start, left = middle, left - found
    if not mask.is_cpu:
        flat[start + int(flat[start:stop].nonzero()[left - 1]) + 1 :] = False
        return mask.logical_or_(flat.view(mask.shape))
    array = flat.numpy()
    array[start + np.flatnonzero(array[start:stop])[left - 1] + 1 :] = False
    np.logical_or(mask.numpy(), array.reshape(mask.shape), out=mask.numpy())
    return mask
