"""What every criterion promises with every scope and pattern, or is refused for, on a real (tiny) BERT with data."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from calibrating import encoder_targets, make_calibration, make_model

from prunebench.config import AxisConfig
from prunebench.sparsity.axes import AxisChoice, check_axes
from prunebench.sparsity.counts import zeros_at
from prunebench.sparsity.criteria import CRITERIA
from prunebench.sparsity.dynamics import Dynamics
from prunebench.sparsity.patterns import PATTERNS
from prunebench.sparsity.scopes import SCOPES
from prunebench.sparsity.sparsifier import Sparsifier, build_sparsifier

SETTINGS: dict[str, dict[str, int]] = {"n_m": {"n": 2, "m": 4}, "block": {"m": 4}, "unstructured": {}}
PARAMS: dict[str, dict[str, Any]] = {
    "obert": {"block_size": 16}, "woodfisher": {"block_size": 16},
    "mfac": {"recomputations": 2}, "mfac_full": {"recomputations": 2}, "random_search": {"trials": 3},
}  # fmt: skip
SCORED = [name for name in CRITERIA.names() if not issubclass(CRITERIA.check(name, seed=0), Dynamics)]
UPDATES = ("obs", "least_squares")


def choice(criterion: str, scope: str, pattern: str, **more: Any) -> AxisChoice:
    return AxisChoice(criterion=criterion, scope=scope, pattern=pattern, sparsity=0.5, **SETTINGS[pattern], **more)


COMBINATIONS = [
    names for names in itertools.product(SCORED, SCOPES.names(), PATTERNS.names()) if not check_axes(choice(*names))
]  # what is refused: tests/test_methods.py
UPDATED = [
    (criterion, update)
    for criterion, update in itertools.product(SCORED, UPDATES)
    if not check_axes(choice(criterion, "uniform", "unstructured", update=update))
]


def build(model: torch.nn.Module, criterion: str, scope: str, pattern: str, **more: Any) -> Sparsifier:
    params = PARAMS.get(criterion)
    targets = encoder_targets(model)
    return build_sparsifier(
        targets, criterion=criterion, params=params, scope=scope, scope_params=PARAMS.get(scope), pattern=pattern,
        **SETTINGS[pattern], **more,
    )  # fmt: skip


@pytest.mark.parametrize(("criterion", "scope", "pattern"), COMBINATIONS)
def test_exact_density_no_revival_no_nan(criterion: str, scope: str, pattern: str) -> None:
    model = make_model()
    sparsifier = build(model, criterion, scope, pattern)
    calibration = make_calibration(model)
    total = sum(target.weight.numel() for target in sparsifier.targets)
    others = {name: p.clone() for name, p in model.named_parameters() if name not in names(sparsifier)}
    before: dict[str, torch.Tensor] = {}
    for level in (0.25, 0.5):
        update = sparsifier.update(level, calibration)
        zeros = sum(int((~mask).sum()) for mask in sparsifier.masks.values())
        assert zeros == sparsifier.pattern.zeros(level, total)
        assert pattern != "unstructured" or zeros == zeros_at(level, total)
        assert update.achieved == zeros / total == sparsifier.sparsity()
        for target in sparsifier.targets:
            mask = sparsifier.masks[target.name]
            assert target.weight.isfinite().all() and target.weight.dtype == torch.float32
            assert not target.weight[~mask].any()
            assert target.name not in before or not (mask & ~before[target.name]).any()
        before = dict(sparsifier.masks)
    assert all(sparsifier.pattern.holds(mask) for mask in sparsifier.masks.values())
    assert all(torch.equal(dict(model.named_parameters())[name], value) for name, value in others.items())
    assert not model.training and all(p.grad is None for p in model.parameters())


def names(sparsifier: Sparsifier) -> set[str]:
    return {target.name for target in sparsifier.targets}


@pytest.mark.parametrize("criterion", SCORED)
def test_the_same_data_give_the_same_weights(criterion: str) -> None:
    found = []
    for _ in range(2):
        model = make_model()
        build(model, criterion, "uniform", "unstructured").update(0.5, make_calibration(model))
        found.append([p.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(("criterion", "update"), UPDATED)
def test_updates_change_survivors_only(criterion: str, update: str) -> None:
    model = make_model()
    dense = {target.name: target.weight.detach().clone() for target in encoder_targets(model)}
    sparsifier = build(model, criterion, "uniform", "unstructured", update=AxisConfig(update))
    sparsifier.update(0.5, make_calibration(model))
    moved = 0
    for target in sparsifier.targets:
        mask = sparsifier.masks[target.name]
        assert target.weight.isfinite().all() and not target.weight[~mask].any()
        moved += int((target.weight != dense[target.name])[mask].sum())
    assert sparsifier.sparsity() == 0.5
    assert moved > 0 or criterion == "diagonal_fisher"  # of a diagonal Fisher the update is nothing


@pytest.mark.parametrize("pattern", ["unstructured", "n_m"])
def test_refinements_keep_count_and_pattern(pattern: str) -> None:
    plain, refined = make_model(), make_model()
    build(plain, "magnitude", "uniform", pattern).update(0.5, make_calibration(plain))
    sparsifier = build(refined, "magnitude", "uniform", pattern, refinement=AxisConfig("dsnot", {"skip": "none"}))
    sparsifier.update(0.5, make_calibration(refined))
    assert sparsifier.sparsity() == 0.5 and all(sparsifier.pattern.holds(mask) for mask in sparsifier.masks.values())
    theirs = dict(plain.named_parameters())
    assert any(not torch.equal(mask, theirs[name] != 0) for name, mask in sparsifier.masks.items())
