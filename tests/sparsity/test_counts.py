from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunebench.sparsity.axes import AxisChoice, check_axes
from prunebench.sparsity.counts import kept_per_group, share, zeros_at


@pytest.mark.parametrize(
    ("sparsity", "total", "zeros"),
    [(0.9, 84_934_656, 76_441_190), (0.5, 3, 2), (0.5, 5, 3), (0, 7, 0), (1, 7, 7), (0.1, 15, 2), (0.3, 5, 2),
     (1e-9, 9, 0), (0.35, 10, 4), (0.45, 10, 5), (0.145, 100, 15)],  # the last ones lie just off a half in binary
)  # fmt: skip
def test_zeros_are_rounded_half_up_in_decimal(sparsity: float, total: int, zeros: int) -> None:
    assert zeros_at(sparsity, total) == zeros


@pytest.mark.parametrize(
    ("sparsity", "n", "m", "kept"),
    [(0.0, 2, 4, 4), (0.1, 2, 4, 4), (0.125, 2, 4, 4), (0.13, 2, 4, 3), (0.375, 2, 4, 3), (0.4, 2, 4, 2),
     (0.5, 2, 4, 2), (0.9, 2, 4, 2), (0.6667, 1, 3, 1), (0.7, 1, 10, 3)],
)  # fmt: skip
def test_groups_lose_weights_as_sparsity_rises(sparsity: float, n: int, m: int, kept: int) -> None:
    assert kept_per_group(sparsity, n, m) == kept


@st.composite
def problems(draw: st.DrawFn) -> tuple[int, list[int], list[int], list[int]]:
    size = draw(st.integers(1, 8))
    high = draw(st.lists(st.integers(0, 50), min_size=size, max_size=size))
    low = [draw(st.integers(0, limit)) for limit in high]
    weights = draw(st.lists(st.integers(1, 30), min_size=size, max_size=size))
    return draw(st.integers(sum(low), sum(high))), weights, low, high


@given(problems())
def test_shares_are_exact_bounded_and_proportional(problem: tuple[int, list[int], list[int], list[int]]) -> None:
    total, weights, low, high = problem
    counts = share(*problem)
    assert sum(counts) == total
    assert all(a <= count <= b for a, count, b in zip(low, counts, high, strict=True))
    # Between its bounds, an entry is within one of a common factor times its weight.
    factors = [
        (Fraction(c - 1, w) if c > a else None, Fraction(c + 1, w) if c < b else None)
        for c, w, a, b in zip(counts, weights, low, high, strict=True)
    ]
    least = max((f for f, _ in factors if f is not None), default=Fraction(0))
    most = min((f for _, f in factors if f is not None), default=least)
    assert least <= most


def test_largest_remainders_go_first_and_ties_to_the_lower_index() -> None:
    assert share(5, [1, 1, 1], [0] * 3, [9] * 3) == [2, 2, 1]
    assert share(10, [15, 25, 60], [0] * 3, [99] * 3) == [2, 2, 6]  # 1.5, 2.5, 6
    assert share(10, [14, 26, 60], [0] * 3, [99] * 3) == [1, 3, 6]  # 1.4, 2.6, 6


def test_shares_outside_the_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be shared"):
        share(5, [1, 1], [0, 0], [2, 2])


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        (("global", 0.0, "unstructured", None, None, 0.9), None),
        (("erk", 0.05, "unstructured", None, None, 0.9), None),
        (("uniform", 0.0, "n_m", 2, 4, 0.5), None),
        (("global", 0.0, "n_m", 1, 3, 0.6667), None),
        (("global", 0.0, "n_m", 2, 4, 0.0), None),
        (("global", 0.0, "n_m", 2, 4, 0.9), "pattern 2:4 keeps 50 % in every group: set sparsity=0.5"),
        (("global", 0.0, "n_m", 1, 4, 0.5), "pattern 1:4 keeps 25 % in every group: set sparsity=0.75"),
        (("global", 0.0, "n_m", None, 4, 0.5), "needs pruning.pattern.n"),
        (("global", 0.0, "n_m", 4, 4, 0.5), "choose 0 < n < m"),
        (("erk", 0.0, "n_m", 2, 4, 0.5), "scope erk"),
        (("row", 0.0, "n_m", 2, 4, 0.5), "scope row"),
        (("global", 0.1, "n_m", 2, 4, 0.5), "floor=0"),
        (("global", 0.2, "unstructured", None, None, 0.9), "less than the density 0.1"),
        (("global", 0.1, "unstructured", None, None, 0.9), "less than the density 0.1"),
        (("global", -0.1, "unstructured", None, None, 0.9), "in [0, 1)"),
        (("global", 0.0, "unstructured", 2, 4, 0.5), "mean nothing to pattern unstructured"),
    ],
)
def test_axes_that_contradict_each_other(axes: tuple[str, float, str, int, int, float], words: str | None) -> None:
    scope, floor, pattern, n, m, sparsity = axes
    found = check_axes(AxisChoice(scope=scope, floor=floor, pattern=pattern, n=n, m=m, sparsity=sparsity))
    assert len(found) == (0 if words is None else 1)
    if words:
        assert words in found[0]
        assert "\n" not in found[0]


def test_axes_are_checked_without_torch() -> None:
    code = "import sys, prunebench.sparsity.axes, prunebench.sparsity.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
