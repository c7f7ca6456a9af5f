from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prunebench.errors import UsageError
from prunebench.sparsity import layer_budgets
from prunebench.sparsity.counts import share
from prunebench.sparsity.layer_budgets import effective_number, lamp_scores
from prunebench.sparsity.scopes import SCOPES, PerMatrix

NEW = ("lamp", "global_mp", "pq_index")


def random_scores(seed: int, shapes: list[tuple[int, int]], gone: float = 0.0, decimals: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = []
    for number, shape in enumerate(shapes):
        score = torch.randn(shape, generator=generator).abs() * (1 + number) + 0.01
        score = score.round(decimals=decimals)
        score[torch.rand(shape, generator=generator) < gone] = -math.inf
        scores.append(score)
    return scores


def counts_of(masks: list[Tensor]) -> list[int]:
    return [int(mask.sum()) for mask in masks]


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Tensor], int, float]:
    shapes = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6))
    gone, decimals = draw(st.sampled_from([0.0, 0.4])), draw(st.sampled_from([1, 6]))
    scores = random_scores(draw(st.integers(0, 10_000)), shapes, gone, decimals)
    return scores, draw(st.integers(0, sum(score.numel() for score in scores))), draw(st.sampled_from([0.0, 0.1]))


@pytest.mark.parametrize("name", NEW)
@given(problem=problems(), share_of_all=st.sampled_from([0.0, 0.02, 0.2]))
@settings(max_examples=150, deadline=None)
def test_counts_are_exact_and_within_bounds(
    name: str, problem: tuple[list[Tensor], int, float], share_of_all: float
) -> None:
    scores, keep, floor = problem
    params = {"min_threshold": share_of_all} if name == "global_mp" else {}
    scope = SCOPES.build(name, params, floor=floor)
    alive = [int((score > -math.inf).sum()) for score in scores]
    try:
        masks = scope.masks(scores, keep)
    except UsageError:
        assert floor or params
        return
    assert sum(counts_of(masks)) == min(keep, sum(alive))
    for mask, score, left in zip(masks, scores, alive, strict=True):
        assert not mask[score == -math.inf].any()
        assert int(mask.sum()) >= min(left, math.ceil(floor * score.numel()))
        ranked = sorted((-value, i) for i, value in enumerate(score.flatten().tolist()))
        expected = {i for _, i in ranked[: int(mask.sum())]}
        assert set(mask.flatten().nonzero().flatten().tolist()) == expected


def test_none_decides_before_looking_at_scores() -> None:
    assert not any(isinstance(SCOPES.build(name), PerMatrix) for name in NEW)


# --- LAMP ---


def lamp_literally(score: Tensor) -> list[float]:
    """The definition, in float64: weights in ascending order, each squared over the sum from it onwards."""
    values = score.double().flatten().tolist()
    order = sorted((i for i in range(len(values)) if values[i] > -math.inf), key=lambda i: (values[i], -i))
    result = [-math.inf] * len(values)
    for rank, i in enumerate(order):
        below_zero = [max(values[j], 0.0) for j in order[rank:]]
        total = math.fsum(value**2 for value in below_zero)
        result[i] = below_zero[0] ** 2 / total if total else 0.0
    return result


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("decimals", [1, 6])
@pytest.mark.parametrize(("gone", "shift"), [(0.0, 0.0), (0.3, 0.0), (0.3, 1.0)])
def test_lamp_is_the_definition(seed: int, decimals: int, gone: float, shift: float) -> None:
    scores = [score - shift for score in random_scores(seed, [(5, 7), (9, 4), (3, 3)], gone, decimals)]
    literal = [lamp_literally(score) for score in scores]
    ranked = sorted(((u, -m, -i) for m, matrix in enumerate(literal) for i, u in enumerate(matrix)), reverse=True)
    alive = sum(u > -math.inf for u, _, _ in ranked)
    for keep in range(0, alive + 1, 3):
        found = counts_of(SCOPES.build("lamp").masks(scores, keep))
        assert found == [sum(-m == matrix for _, m, _ in ranked[:keep]) for matrix in range(3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_lamp_scores_in_slices(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(layer_budgets, "CHUNK", 7)
    score = random_scores(1, [(10, 9)], gone=0.2)[0].to(dtype).t()
    score[0, :3] = score[1, 1]
    alive = int((score > -math.inf).sum())
    expected = sorted(lamp_literally(score), reverse=True)[:alive]
    found = lamp_scores(score, alive)
    assert found.double().square().tolist() == pytest.approx(expected, rel=1e-6)
    assert found[0] == 1 and (found.diff() <= 0).all()


def test_lamp_does_not_depend_on_the_scale_of_a_matrix() -> None:
    scores = random_scores(2, [(8, 8), (8, 8), (4, 16)])
    expected = SCOPES.build("lamp").masks(scores, 70)
    for scale in (1e-18, 1e18):
        scaled = [scores[0] * scale, *scores[1:]]
        assert all(torch.equal(a, b) for a, b in zip(SCOPES.build("lamp").masks(scaled, 70), expected, strict=True))


def test_every_matrix_keeps_one_under_lamp() -> None:
    scores = [torch.full((3, 3), 2.0), torch.rand(4, 4), torch.full((2, 2), 1e-30)]
    assert counts_of(SCOPES.build("lamp").masks(scores, 3)) == [1, 1, 1]


@pytest.mark.parametrize("name", ["lamp", "pq_index"])
def test_scores_that_say_nothing(name: str) -> None:
    scores = [torch.zeros(3, 4), torch.full((2, 4), -1.0), torch.tensor([[math.inf, 1.0, -3.0, -math.inf]])]
    masks = SCOPES.build(name).masks(scores, 15)
    assert sum(counts_of(masks)) == 15 and masks[2].tolist()[0][0]
    assert counts_of(SCOPES.build(name).masks(scores, 24)) == [12, 8, 3]


# --- Global MP ---


def global_mp_literally(scores: list[Tensor], keep: int, min_threshold: float) -> list[float]:
    """The second step of prune_withMT.py with its loop, in float64; the real numbers of weights kept."""
    sizes = [score.numel() for score in scores]
    total, gone = sum(sizes), sum(sizes) - keep
    minimum = int(total * min_threshold)
    threshold = torch.cat([score.flatten() for score in scores]).sort().values[gone - 1]
    sparsities = [0.0 if n < minimum else int((s <= threshold).sum()) / n for s, n in zip(scores, sizes, strict=True)]
    for _ in range(10_000):
        reached = sum(s * n for s, n in zip(sparsities, sizes, strict=True)) / total
        if abs(reached - gone / total) < 1e-13:
            break
        sparsities = [s / reached * gone / total for s in sparsities]
        sparsities = [
            1 - minimum / n if n > minimum and (1 - s) * n < minimum else s
            for s, n in zip(sparsities, sizes, strict=True)
        ]
    return [(1 - s) * n for s, n in zip(sparsities, sizes, strict=True)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("keep", [180, 250, 400])
@pytest.mark.parametrize("min_threshold", [0.0, 0.009, 0.02])
def test_global_mp_is_the_limit_of_the_reference(seed: int, keep: int, min_threshold: float) -> None:
    scores = random_scores(seed, [(20, 20), (30, 20), (3, 4), (10, 10), (20, 15), (15, 10)])
    scores[0] *= 0.02
    scores[3] *= 0.1
    found = counts_of(SCOPES.build("global_mp", {"min_threshold": min_threshold}).masks(scores, keep))
    expected = global_mp_literally(scores, keep, min_threshold)
    assert sum(expected) == pytest.approx(keep) and sum(found) == keep
    assert found == [pytest.approx(real, abs=1) for real in expected]
    minimum = int(min_threshold * sum(score.numel() for score in scores))
    assert min(found[i] for i in range(6) if i != 2) >= minimum and (found[2] == 12 or minimum < 12)


def test_global_mp_without_a_threshold_is_global() -> None:
    scores = random_scores(3, [(9, 9), (20, 5), (3, 40)])
    masks = [SCOPES.build(name, params).masks(scores, 60) for name, params in
             (("global", {}), ("global_mp", {"min_threshold": 0.0}))]  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(*masks, strict=True))


def test_a_minimum_threshold_is_refused_where_it_cannot_be_kept() -> None:
    scores = random_scores(4, [(10, 10)] * 5)
    with pytest.raises(UsageError, match=r"min_threshold=0\.02 needs 50 weights, but only 49 are to be left"):
        SCOPES.build("global_mp", {"min_threshold": 0.02}).masks(scores, 49)
    with pytest.raises(UsageError, match=r"min_threshold=1\.5 is no share"):
        SCOPES.build("global_mp", {"min_threshold": 1.5})


# --- PQ Index ---


def retained_literally(score: Tensor, p: float, q: float, eta: float = 0.0) -> float:
    """The paper's lower bound m from its index I."""
    values = [value for value in score.double().flatten().tolist() if value > -math.inf]
    d = len(values)
    norm_p, norm_q = (math.fsum(value**power for value in values) ** (1 / power) for power in (p, q))
    index = 1 - d ** (1 / q - 1 / p) * norm_p / norm_q
    return d * (1 + eta) ** (-q / (q - p)) * (1 - index) ** (p * q / (q - p))


@pytest.mark.parametrize(("p", "q"), [(0.5, 1.0), (1.0, 2.0), (0.2, 1.0), (1.0, 1.2), (1.9, 2.0)])
@pytest.mark.parametrize("gone", [0.0, 0.3])
def test_the_lower_bound_of_the_paper(monkeypatch: pytest.MonkeyPatch, p: float, q: float, gone: float) -> None:
    monkeypatch.setattr(layer_budgets, "CHUNK", 11)
    for score in random_scores(5, [(8, 9), (1, 1), (30, 4)], gone):
        alive = int((score > -math.inf).sum())
        if alive:
            expected = retained_literally(score, p, q)
            assert effective_number(score, alive, p, q) == pytest.approx(expected, rel=1e-6)
            assert effective_number(score.t() * 1e-20, alive, p, q) == pytest.approx(expected, rel=1e-5)


def test_equal_scores_need_their_number() -> None:
    score = torch.tensor([[0.0, 3.0, 3.0, -math.inf], [3.0, 0.0, 3.0, 3.0]])
    assert effective_number(score, 7, 0.5, 1.0) == pytest.approx(5)
    assert effective_number(torch.zeros(4, 3), 12, 0.5, 1.0) == 12 and effective_number(torch.zeros(0), 0, 1, 2) == 0


@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("keep", [10, 60, 150])
def test_matrices_share_in_proportion_to_the_lower_bound(keep: int, eta: float) -> None:
    scores = random_scores(6, [(8, 9), (10, 10), (30, 4)])
    scores[1] = scores[1] ** 3
    bounds = [retained_literally(score, 0.5, 1.0, eta) for score in scores]
    found = counts_of(SCOPES.build("pq_index").masks(scores, keep))
    assert found == [pytest.approx(keep * bound / sum(bounds), abs=1) for bound in bounds]


def test_a_pq_index_is_refused_where_there_is_none() -> None:
    for p, q in ((1.0, 1.0), (2.0, 1.0), (0.0, 1.0), (1.0, math.inf)):
        with pytest.raises(UsageError, match="make no PQ Index: choose 0 < p < q"):
            SCOPES.build("pq_index", {"p": p, "q": q})


# --- counts ---


def test_weights_of_zero_share_what_others_cannot_take() -> None:
    assert share(30, [5, 0, 0], [0, 0, 0], [10, 30, 10]) == [10, 15, 5]
    assert share(5, [5, 0, 0], [0, 0, 0], [10, 30, 10]) == [5, 0, 0]
    assert share(8, [5, 0, 0], [0, 1, 2], [10, 30, 10]) == [5, 1, 2]


@given(
    entries=st.lists(st.tuples(st.sampled_from([0, 0, 1, 7, 100]), st.integers(0, 9), st.integers(0, 30)), min_size=1),
    where=st.floats(0, 1),
)
def test_shares_sum_up_whatever_the_weights(entries: list[tuple[int, int, int]], where: float) -> None:
    weights, low, more = (list(column) for column in zip(*entries, strict=True))
    high = [least + extra for least, extra in zip(low, more, strict=True)]
    total = sum(low) + round(where * sum(more))
    found = share(total, weights, low, high)
    assert sum(found) == total
    assert all(least <= count <= most for least, count, most in zip(low, found, high, strict=True))
