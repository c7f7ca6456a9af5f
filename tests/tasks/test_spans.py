"""Spans of characters to tokens and back, against searches that try everything."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prunebench.tasks.spans import best_span, token_span


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), min_size=1, max_size=8), st.data())
def test_the_tokens_that_cover_an_answer(gaps_and_sizes: list[tuple[int, int]], data: st.DataObject) -> None:
    """Context tokens with gaps between them, after two tokens of a question and before a separator."""
    offsets, at = [], 5
    for gap, size in gaps_and_sizes:
        offsets.append((at + gap, at + gap + size))
        at += gap + size
    start = data.draw(st.integers(0, at + 3))
    end = data.draw(st.integers(start + 1, at + 5))
    inside = offsets[0][0] <= start and end <= offsets[-1][1]
    expected = None
    if inside:
        first = max(i for i, (a, _) in enumerate(offsets) if a <= start)
        last = min(i for i, (_, b) in enumerate(offsets) if b >= end)
        expected = (first + 2, last + 2)
    in_context = np.array([False, False, *[True] * len(offsets), False])
    array = np.array([(-1, -1), (-1, -1), *offsets, (-1, -1)])
    assert token_span(array, in_context, start, end) == expected


def test_a_window_without_context() -> None:
    assert token_span(np.full((3, 2), -1), np.zeros(3, bool), 0, 1) is None


@given(st.integers(2, 9), st.integers(1, 9), st.integers(1, 6), st.integers(0, 10**6))
def test_the_best_span_among_the_n_best(length: int, n_best: int, max_length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    start, end = rng.integers(-4, 5, (2, length)).astype(np.float32)
    first = int(rng.integers(0, length))  # tokens before are the question's
    offset_start = np.array([-1 if i < first else 10 * i for i in range(length)])
    offset_end = np.array([-1 if i < first else 10 * i + 7 for i in range(length)])
    starts = sorted(range(length), key=lambda i: -start[i])[:n_best]
    ends = sorted(range(length), key=lambda i: -end[i])[:n_best]
    spans = [(float(start[i] + end[j]), i, j) for i in starts for j in ends if first <= i <= j < i + max_length]
    found = best_span(start, end, offset_start, offset_end, n_best, max_length)
    if not spans:
        assert found is None
    else:
        assert found is not None
        best = max(score for score, _, _ in spans)
        assert found in [(10 * i, 10 * j + 7, best) for score, i, j in spans if score == best]
