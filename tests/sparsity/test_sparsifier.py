from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from fakes import FakeTarget, make_targets
from safetensors.torch import load_file, save_file
from torch import nn

from prunebench.errors import RunError, UsageError
from prunebench.sparsity.criteria import Criterion
from prunebench.sparsity.patterns import PATTERNS
from prunebench.sparsity.scopes import SCOPES, Scope
from prunebench.sparsity.sparsifier import Axes, Sparsifier, build_sparsifier

TOTAL = 480
SETTINGS = {"n_m": {"n": 2, "m": 4}, "block": {"m": 4}}  # of the patterns that need some
CRITERIA_OF_WEIGHTS = ("magnitude", "random")  # the others look at data: test_every_combination.py
SCOPES_OF_WEIGHTS = [name for name in SCOPES.names() if SCOPES.check(name).sample is None]
AXES = list(itertools.product(CRITERIA_OF_WEIGHTS, SCOPES_OF_WEIGHTS, PATTERNS.names()))


def build(targets: list[FakeTarget], criterion: str, scope: str, pattern: str) -> Sparsifier:
    return build_sparsifier(targets, criterion=criterion, scope=scope, pattern=pattern, **SETTINGS.get(pattern, {}))


@pytest.mark.parametrize(("criterion", "scope", "pattern"), AXES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_every_combination_promises(criterion: str, scope: str, pattern: str, dtype: torch.dtype) -> None:
    targets = make_targets(dtype=dtype, decimals=1)
    sparsifier = build(targets, criterion, scope, pattern)
    before: dict[str, torch.Tensor] = {}
    for sparsity in (0.0, 0.1, 0.3, 0.301, 0.303, 0.4417, 0.5):
        update = sparsifier.update(sparsity)
        zeros = sum(int((~mask).sum()) for mask in sparsifier.masks.values())
        if pattern == "unstructured":
            assert zeros == math.floor(sparsity * TOTAL + 0.5)
        assert update.achieved == zeros / TOTAL == sparsifier.sparsity()
        for target in targets:
            mask = sparsifier.masks[target.name]
            assert mask.shape == target.weight.shape and mask.is_contiguous()
            assert target.weight.dtype == dtype and not target.weight.isnan().any()
            assert not target.weight[~mask].any()
            assert name_is_nested(before.get(target.name), mask)
        before = dict(sparsifier.masks)
    again = sparsifier.update(0.5)
    assert again.churn == 0 and all(torch.equal(before[name], mask) for name, mask in sparsifier.masks.items())
    assert again.achieved == 0.5


def name_is_nested(before: torch.Tensor | None, after: torch.Tensor) -> bool:
    return before is None or not bool((after & ~before).any())


@pytest.mark.parametrize(("criterion", "scope", "pattern"), AXES)
def test_two_of_the_same_agree(criterion: str, scope: str, pattern: str) -> None:
    first, second = (build(make_targets(), criterion, scope, pattern) for _ in range(2))
    assert first.update(0.5) == second.update(0.5)
    assert all(torch.equal(mask, second.masks[name]) for name, mask in first.masks.items())


def test_a_table_written_by_hand() -> None:
    weight = torch.tensor([[0.1, -0.9, 0.3, -0.4], [0.5, 0.5, -0.5, 0.2], [-1.0, 0.0, 0.7, 0.6], [0.8, -0.2, 0.4, 0.3]])
    stored = torch.tensor([[1.0, -2.0], [3.0, 0.5]])  # (in, out)
    targets = [FakeTarget("a", nn.Parameter(weight)), FakeTarget("b", nn.Parameter(stored), transposed=True)]
    sparsifier = build_sparsifier(targets)
    update = sparsifier.update(0.5)
    # 10 of 20 left: 3 2 1 1 .9 .8 .7 .6 are clear; of the four 0.5, the two of lowest index.
    kept_weight = [[0.0, -0.9, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [-1.0, 0.0, 0.7, 0.6], [0.8, 0.0, 0.0, 0.0]]
    assert weight.tolist() == [[pytest.approx(value) for value in row] for row in kept_weight]
    assert stored.tolist() == [[1.0, -2.0], [3.0, 0.0]]
    assert sparsifier.masks["b"].tolist() == [[True, True], [True, False]]
    assert sparsifier.per_layer() == {"a": 9 / 16, "b": 1 / 4}
    assert (update.asked, update.achieved, update.churn, update.collapsed) == (0.5, 0.5, 0.5, ())
    assert update.density == {"a": 7 / 16, "b": 3 / 4}


def test_before_the_first_update_all_is_dense() -> None:
    targets = make_targets()
    sparsifier = build_sparsifier(targets)
    before = [target.weight.detach().clone() for target in targets]
    targets[0].weight.grad = torch.ones_like(targets[0].weight)
    sparsifier.mask_gradients()
    sparsifier.apply()
    assert sparsifier.masks == sparsifier.state_dict() == {} and sparsifier.sparsity() == 0
    assert targets[0].weight.grad.all()
    assert all(torch.equal(target.weight, old) for target, old in zip(targets, before, strict=True))


@pytest.mark.parametrize("amsgrad", [False, True])
def test_adamw_leaves_pruned_weights_exactly_zero(amsgrad: bool) -> None:
    targets = make_targets()
    sparsifier = build_sparsifier(targets)
    parameters = [target.weight for target in targets]
    optimizer = torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.1, amsgrad=amsgrad)
    generator = torch.Generator().manual_seed(0)
    for step in range(50):
        if step in (5, 20, 35):
            sparsifier.update(0.3 + step / 100)
            sparsifier.zero_moments(optimizer)
        before = [parameter.detach().clone() for parameter in parameters]
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        sparsifier.mask_gradients()
        survivors = sum(int((parameter.grad != 0).sum()) for parameter in parameters)
        assert survivors == sum(int(mask.sum()) for mask in sparsifier.masks.values()) or not sparsifier.masks
        optimizer.step()
        for parameter, old, mask in zip(parameters, before, sparsifier.masks.values(), strict=False):
            assert not parameter[~mask].any()
            assert (parameter != old)[mask].all()
    assert sparsifier.sparsity() == round(0.65 * TOTAL) / TOTAL


def test_gradients_may_be_missing() -> None:
    targets = make_targets()
    sparsifier = build_sparsifier(targets)
    sparsifier.update(0.5)
    sparsifier.mask_gradients()
    assert all(target.weight.grad is None for target in targets)


def test_state_survives_a_file(tmp_path: Path) -> None:
    first, fresh = make_targets(), make_targets()
    sparsifier, loaded = build_sparsifier(first), build_sparsifier(fresh)
    sparsifier.update(0.7)
    save_file(sparsifier.state_dict(), tmp_path / "masks.safetensors")
    loaded.load_state_dict(load_file(tmp_path / "masks.safetensors"))
    assert loaded.sparsity() < 0.1  # counted from the weights, which are still dense
    loaded.apply()
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(first, fresh, strict=True))
    assert loaded.sparsity() == sparsifier.sparsity() == 0.7
    assert sparsifier.update(0.8) == loaded.update(0.8)
    loaded.load_state_dict({})
    assert loaded.masks == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("layer.1.weight"), "layer.1.weight is in only one"),
        (lambda state: state.update(other=torch.ones(2, dtype=torch.bool)), "other is in only one"),
        (lambda state: state.update({"layer.0.weight": torch.ones(3, 3, dtype=torch.bool)}), r"\(3, 3\)"),
        (lambda state: state.update({"layer.0.weight": torch.ones(8, 16)}), "float32"),
    ],
)
def test_masks_of_another_model_are_refused(change: object, words: str) -> None:
    sparsifier = build_sparsifier(make_targets())
    sparsifier.update(0.5)
    state = sparsifier.state_dict()
    change(state)  # type: ignore[operator]
    with pytest.raises(RunError, match=words):
        sparsifier.load_state_dict(state)


@pytest.mark.parametrize("scope", SCOPES_OF_WEIGHTS)
def test_starting_from_a_sparse_model(scope: str) -> None:
    targets = make_targets()
    targets[0].weight.data[targets[0].weight < 1.2] = 0  # a good part of the first matrix only
    zeros = [target.weight == 0 for target in targets]
    sparsifier = build_sparsifier(targets, scope=scope, from_zeros=True)
    start = sparsifier.sparsity()
    assert start == sum(int(zero.sum()) for zero in zeros) / TOTAL > 0.2
    assert sparsifier.update(0.1).achieved == start
    assert sparsifier.update(0.5).achieved == 0.5
    assert not any(target.weight[zero].any() for target, zero in zip(targets, zeros, strict=True))


def test_n_m_from_a_sparse_model_revives_nothing() -> None:
    targets = make_targets()
    targets[0].weight.data[:, 1:] = 0
    update = build_sparsifier(targets, pattern="n_m", n=2, m=4, from_zeros=True).update(0.5)
    assert update.density["layer.0.weight"] == 1 / 16


def test_an_emptied_matrix_is_reported() -> None:
    targets = make_targets()
    targets[1].weight.data *= 1e-9
    assert build_sparsifier(targets).update(0.5).collapsed == ("layer.1.weight",)
    assert build_sparsifier(targets, floor=0.1).update(0.5).collapsed == ()


def test_a_shared_parameter_is_refused() -> None:
    (first, *_) = make_targets()
    with pytest.raises(ValueError, match="share a parameter"):
        build_sparsifier([first, FakeTarget("tied", first.weight)])


def test_bad_input_is_refused_by_name() -> None:
    targets = make_targets()
    with pytest.raises(UsageError, match=r"layer\.0\.weight has 16"):
        build_sparsifier(targets, pattern="n_m", n=2, m=5)
    with pytest.raises(UsageError, match=r"sparsity=1\.5"):
        build_sparsifier(targets).update(1.5)
    targets[2].weight.data[0, 0] = math.nan
    with pytest.raises(RunError, match=r"layer\.2\.weight contains NaN"):
        build_sparsifier(targets).update(0.5)


class OnlyOneRow(Criterion):
    """Excludes all but the first row from survival."""

    def score(self, target: FakeTarget, stat: None) -> torch.Tensor:  # type: ignore[override]
        score = torch.full(target.matrix.shape, -math.inf)
        score[0] = target.matrix[0].abs()
        return score


@pytest.mark.parametrize("scope", SCOPES_OF_WEIGHTS)
def test_minus_infinity_is_pruned_first_and_counts_stay_exact(scope: str) -> None:
    made: Scope = SCOPES.build(scope)
    sparsifier = Sparsifier(make_targets(), Axes(OnlyOneRow(), made, PATTERNS.build("unstructured")))
    assert [sparsifier.update(sparsity).achieved for sparsity in (0.2, 0.5, 0.9)] == [0.2, 0.5, 0.9]
    if scope == "global":
        assert all(
            not (mask.t() if name == "layer.3.weight" else mask)[1:].any() for name, mask in sparsifier.masks.items()
        )


def test_a_score_of_the_wrong_shape_is_refused() -> None:
    class Sum(Criterion):
        def score(self, target: FakeTarget, stat: None) -> torch.Tensor:  # type: ignore[override]
            return target.matrix.sum(1)

    with pytest.raises(RunError, match=r"the score of layer\.0\.weight"):
        Sparsifier(make_targets(), Axes(Sum(), SCOPES.build("global"), PATTERNS.build("unstructured"))).update(0.5)
