"""How many weights to keep, in exact integer arithmetic. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction


def as_written(share: float) -> Fraction:
    """The decimal number that a float prints as: 0.9 is 9/10, not the binary number next to it."""
    return Fraction(repr(float(share)))


def round_half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def zeros_at(sparsity: float, total: int) -> int:
    """Weights to prune of `total` for a sparsity in [0, 1], rounded half up."""
    return round_half_up(as_written(sparsity) * total)


def kept_per_group(sparsity: float, n: int, m: int) -> int:
    """Weights that every group of `m` keeps on the way to n:m, max(n, (1 - sparsity) * m rounded half up)."""
    return max(n, round_half_up((1 - as_written(sparsity)) * m))


def share(total: int, weights: Sequence[int], low: Sequence[int], high: Sequence[int]) -> list[int]:
    """Integers that sum to `total`, in proportion to `weights`, each between its `low` and `high`.

    Entries that proportion would push over a bound are fixed there and the others share the rest, until none is
    pushed; then largest remainders, ties to the lower index. Without lower bounds this is the iterative capping of
    Erdős–Rényi-Kernel (Evci et al. 2020); with both kinds of bounds, the kind that is violated more is fixed first,
    as flexible lengths are resolved in CSS (section 9.7), so that the order of fixing never makes the sum impossible.
    Where all entries left have weight zero, they share in proportion to their `high`.

    Raises:
        ValueError: `total` is not between the sums of the bounds.
    """
    if not sum(low) <= total <= sum(high):
        raise ValueError(f"{total} cannot be shared within bounds that sum to {sum(low)} and {sum(high)}")
    result: dict[int, int] = {}
    while True:
        free = [i for i in range(len(weights)) if i not in result]
        rest = total - sum(result.values())
        parts = weights if any(weights[i] for i in free) else high
        pushed = _pushed_over_a_bound(rest, free, parts, low, high)
        if not pushed:
            result |= _largest_remainders(rest, free, parts)
            return [result[i] for i in range(len(weights))]
        result |= pushed


def _pushed_over_a_bound(
    rest: int, free: Sequence[int], weights: Sequence[int], low: Sequence[int], high: Sequence[int]
) -> dict[int, int]:
    """Index -> bound of the entries to fix now. Everything is times the sum of weights, which keeps it in integers."""
    weight = sum(weights[i] for i in free)
    short = {i: low[i] * weight - rest * weights[i] for i in free if low[i] * weight > rest * weights[i]}
    over = {i: rest * weights[i] - high[i] * weight for i in free if high[i] * weight < rest * weights[i]}
    excess = sum(short.values()) - sum(over.values())
    pushed = {i: low[i] for i in short} if excess >= 0 else {}
    return pushed | {i: high[i] for i in over} if excess <= 0 else pushed


def _largest_remainders(rest: int, free: Sequence[int], weights: Sequence[int]) -> dict[int, int]:
    weight = sum(weights[i] for i in free) or 1
    parts = {i: divmod(rest * weights[i], weight) for i in free}
    missing = rest - sum(part for part, _ in parts.values())
    up = set(sorted(free, key=lambda i: (-parts[i][1], i))[:missing])
    return {i: part + (i in up) for i, (part, _) in parts.items()}
