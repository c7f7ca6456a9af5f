from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunebench.errors import RunError
from prunebench.sparsity import masks as module
from prunebench.sparsity.masks import (
    clear,
    count_above,
    exclude,
    find_threshold,
    global_masks,
    has_nan,
    top_mask,
    top_per_row,
)

VALUES = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, math.inf, -math.inf, 1e-30, -3.25])
DTYPES = [torch.float32, torch.bfloat16, torch.float64, torch.float16]


def oracle(scores: list[torch.Tensor], keep: int) -> list[list[bool]]:
    """A stable sort of (score, position) over everything, in Python floats."""
    flat = [value for score in scores for value in score.double().reshape(-1).tolist()]
    order = sorted(range(len(flat)), key=lambda i: (-flat[i], i))
    kept = set(order[:keep])
    result, start = [], 0
    for score in scores:
        result.append([start + i in kept for i in range(score.numel())])
        start += score.numel()
    return result


def as_lists(masks: list[torch.Tensor]) -> list[list[bool]]:
    return [mask.reshape(-1).tolist() for mask in masks]


@st.composite
def score_lists(draw: st.DrawFn) -> list[torch.Tensor]:
    scores = []
    for _ in range(draw(st.integers(1, 4))):
        rows, columns = draw(st.integers(0, 5)), draw(st.integers(0, 6))
        floats = VALUES | st.floats(allow_nan=False, width=16)
        values = draw(st.lists(floats, min_size=rows * columns, max_size=rows * columns))
        score = torch.tensor(values, dtype=torch.float64).view(rows, columns).to(draw(st.sampled_from(DTYPES)))
        scores.append(score.t() if draw(st.booleans()) else score)
    return scores


@settings(deadline=None, max_examples=300)
@given(score_lists(), st.floats(0, 1), st.sampled_from([1, 4, 2**18]))
def test_equals_a_full_stable_sort(scores: list[torch.Tensor], share: float, sample: int) -> None:
    keep = round(share * sum(score.numel() for score in scores))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FEW", sample)  # small samples: many rounds, misleading ones among them
        patch.setattr(module, "CHUNK", sample)
        result = global_masks(scores, keep)
    assert as_lists(result) == oracle(scores, keep)
    assert [mask.shape for mask in result] == [score.shape for score in scores]
    assert all(mask.dtype == torch.bool for mask in result)


def large(case: str, dtype: torch.dtype) -> list[torch.Tensor]:
    """600,000 scores: more than one sample."""
    generator = torch.Generator().manual_seed(1)
    scores = [torch.randn(shape, generator=generator) for shape in ((500, 800), (300, 400), (1, 80_000))]
    if case == "zeros":
        scores = [score * (torch.rand(score.shape, generator=generator) > 0.87) for score in scores]
    elif case == "sorted":
        scores = [score.flatten().sort().values.view(score.shape) for score in scores]
    elif case == "constant":
        scores = [torch.zeros_like(score) for score in scores]
    elif case == "infinite":
        scores = [score.masked_fill(score < 0.5, -math.inf).masked_fill(score > 1, math.inf) for score in scores]
    elif case == "transposed":
        scores = [score.t() for score in scores]
    return [score.to(dtype) for score in scores]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("case", ["normal", "zeros", "sorted", "constant", "infinite", "transposed"])
def test_large_input_equals_a_full_stable_sort(case: str, dtype: torch.dtype) -> None:
    scores = large(case, dtype)
    flat = torch.cat([score.reshape(-1) for score in scores])
    order = flat.sort(descending=True, stable=True).indices
    for keep in (1, 5, 60_000, 78_000, 300_000, 599_999):
        expected = torch.zeros(600_000, dtype=torch.bool).index_fill_(0, order[:keep], True)
        assert torch.equal(torch.cat([mask.reshape(-1) for mask in global_masks(scores, keep)]), expected)


def test_scores_of_different_dtypes_are_compared_exactly() -> None:
    # 1.001 in bfloat16 would be 1.0, so a threshold rounded to it would tie.
    narrow, wide = torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16), torch.tensor([[1.001, 0.5]])
    assert as_lists(global_masks([narrow, wide], 2)) == [[False, True], [True, False]]


@pytest.mark.parametrize("value", [0.0, -math.inf, math.inf])
def test_ties_go_to_the_earlier_tensor_then_the_lower_index(value: float) -> None:
    scores = [torch.full((2, 2), value), torch.full((2, 3), value)]
    assert as_lists(global_masks(scores, 6)) == [[True] * 4, [True, True, False, False, False, False]]
    assert as_lists([top_mask(torch.full((2, 3), value).t(), 2)]) == [[True, True, False, False, False, False]]


def test_threshold_counts_its_ties() -> None:
    threshold = find_threshold([torch.tensor([3.0, 1.0, 1.0, 1.0, 0.0])], 3)
    assert (threshold.value, threshold.kept, threshold.equal) == (1.0, 2, 3)


@pytest.mark.parametrize("keep", [-1, 5])
def test_refuses_to_keep_what_is_not_there(keep: int) -> None:
    with pytest.raises(ValueError, match="of 4 weights"):
        global_masks([torch.zeros(2, 2)], keep)


@pytest.mark.parametrize("keep", [0, 1, 4])
def test_refuses_nan(keep: int) -> None:
    with pytest.raises(RunError, match=r"score 2 of 2.*NaN"):
        global_masks([torch.zeros(2), torch.tensor([0.0, math.nan])], keep)
    with pytest.raises(RunError, match="NaN"):
        top_per_row(torch.tensor([[0.0, math.nan]]), 1)


def test_nothing_and_everything() -> None:
    assert global_masks([], 0) == []
    score = torch.tensor([[math.inf, -math.inf, 0.0]])
    assert as_lists([top_mask(score, 0), top_mask(score, 3)]) == [[False] * 3, [True] * 3]


def test_leaves_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    global_masks(large("normal", torch.float32), 1000)
    assert torch.equal(torch.random.get_rng_state(), before)


@settings(deadline=None)
@given(st.data(), st.integers(1, 5), st.integers(1, 6), st.sampled_from([1, 7, 2**20]))
def test_rows_equal_a_stable_sort_of_each(data: st.DataObject, rows: int, columns: int, chunk: int) -> None:
    values = data.draw(st.lists(VALUES, min_size=rows * columns, max_size=rows * columns))
    counts = data.draw(st.lists(st.integers(0, columns), min_size=rows, max_size=rows))
    score = torch.tensor(values).view(rows, columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        result = top_per_row(score, torch.tensor(counts))
    assert result.tolist() == [oracle([row], count)[0] for row, count in zip(score, counts, strict=True)]
    assert torch.equal(top_per_row(score, columns), torch.ones_like(score, dtype=torch.bool))


@settings(deadline=None)
@given(score_lists(), st.integers(0, 2**32 - 1))
def test_clear_and_exclude_equal_masked_fill(scores: list[torch.Tensor], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for score in scores:
        mask = torch.rand(score.shape, generator=generator) < 0.5
        cleared, excluded = score.clone(), score.clone()
        clear(cleared, mask)
        exclude(excluded, mask)
        assert torch.equal(cleared, score.masked_fill(~mask, 0.0))
        assert not torch.signbit(cleared[~mask]).any()
        assert torch.equal(excluded, score.masked_fill(~mask, -math.inf))
        assert count_above(excluded, -math.inf) == int((mask & (score > -math.inf)).sum())


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_is_seen_and_cleared(dtype: torch.dtype) -> None:
    score = torch.tensor([[1.0, math.nan], [math.inf, -math.inf]], dtype=dtype)
    assert has_nan(score) and has_nan(score.t()) and not has_nan(score[1:]) and not has_nan(score[:0])
    clear(score, torch.tensor([[True, False], [False, False]]))
    assert score.tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_a_threshold_is_not_rounded_to_a_narrower_score() -> None:
    """0.1 in float32 lies above 0.1 in float64."""
    wide = torch.full((200, 200), 0.1, dtype=torch.float64)
    narrow = torch.full((200, 200), 0.1, dtype=torch.float32)
    assert as_lists(global_masks([wide, narrow], 40_000)) == [[False] * 40_000, [True] * 40_000]
