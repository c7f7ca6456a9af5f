from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from calibrating import encoder_targets, make_calibration, make_model
from fakes import FakeTarget, make_targets
from torch import Tensor, nn

from prunebench.errors import RunError, UsageError
from prunebench.sparsity.criteria import CRITERIA
from prunebench.sparsity.patterns import PATTERNS
from prunebench.sparsity.regrowth import REGROWTHS
from prunebench.sparsity.scopes import SCOPES
from prunebench.sparsity.sparsifier import Axes, Sparsifier


def literally(weight: Tensor, mask: Tensor, gradient: Tensor, dropped: int) -> set[int]:
    """Flat indices that are kept: the two sorts of the references, ties to the lower index."""
    weights, gradients = weight.abs().flatten().tolist(), gradient.abs().flatten().tolist()
    kept = [i for i, alive in enumerate(mask.flatten().tolist()) if alive]
    stay = set(sorted(kept, key=lambda i: (-weights[i], i))[: len(kept) - dropped])
    others = [i for i in range(len(weights)) if i not in stay]
    return stay | set(sorted(others, key=lambda i: (-gradients[i], i))[:dropped])


def rigl_drops(kept: int, passed: float, fraction: float = 0.3, end: float = 0.75) -> int:
    return int(fraction / 2 * (1 + math.cos(passed * math.pi / end)) * kept) if passed <= end else 0


def granet_drops(kept: int, passed: float) -> int:
    return math.ceil((0.005 + (0.5 - 0.005) * (1 + math.cos(math.pi * passed)) / 2) * kept)


DROPS = {"rigl": rigl_drops, "granet": granet_drops}


@pytest.mark.parametrize("name", DROPS)
@pytest.mark.parametrize("passed", [0.0, 0.2, 0.5, 0.75, 0.76, 1.0])
@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 0.97, 1.0])
def test_a_literal_exchange(name: str, passed: float, density: float) -> None:
    generator = torch.Generator().manual_seed(round(100 * passed + 7 * density))
    for target in make_targets(decimals=1):
        mask = torch.rand(target.matrix.shape, generator=generator) < density
        gradient = (10 * torch.randn(target.matrix.shape, generator=generator)).round()  # with ties
        target.matrix.mul_(mask)
        before = target.weight.detach().clone()
        found = REGROWTHS.build(name).exchange(target, mask, gradient, passed)  # type: ignore[arg-type]
        dropped = DROPS[name](int(mask.sum()), passed)
        assert set(found.flatten().nonzero().flatten().tolist()) == literally(target.matrix, mask, gradient, dropped)
        assert found.shape == mask.shape and found.dtype == torch.bool and int(found.sum()) == int(mask.sum())
        assert torch.equal(target.weight, before)


def test_the_share_falls_by_a_cosine() -> None:
    rigl, granet = REGROWTHS.build("rigl"), REGROWTHS.build("granet")
    kept = 1_000_000
    assert [rigl.dropped(kept, passed) for passed in (0, 0.375, 0.75, 0.8)] == [300_000, 150_000, 0, 0]  # type: ignore[attr-defined]
    assert [granet.dropped(kept, passed) for passed in (0, 0.5, 1)] == [500_000, 252_500, 5_000]  # type: ignore[attr-defined]
    assert REGROWTHS.build("rigl", {"end": 0.0}).dropped(kept, 0.0) == 0  # type: ignore[attr-defined]


def test_what_is_dropped_may_be_grown_at_once() -> None:
    target = FakeTarget("a", nn.Parameter(torch.tensor([[1.0, 2.0, 3.0, 4.0, 0.0, 0.0]])))
    mask = target.matrix != 0
    gradient = torch.tensor([[9.0, 0.0, 0.0, 0.0, 8.0, 1.0]])
    found = REGROWTHS.build("rigl", {"drop_fraction": 0.5}).exchange(target, mask, gradient, 0.0)  # type: ignore[arg-type]
    assert found.tolist() == [[True, False, True, True, True, False]]  # 1 and 2 are dropped, 1 comes back


@pytest.mark.parametrize(
    ("name", "params"),
    [("rigl", {"drop_fraction": 1.1}), ("rigl", {"end": -0.1}), ("granet", {"final_drop_fraction": 2})],
)
def test_settings_outside_their_range_are_refused(name: str, params: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=rf"pruning\.regrowth\.params\.{next(iter(params))}="):
        REGROWTHS.build(name, params)


def test_a_gradient_with_nan_is_refused() -> None:
    target = make_targets()[0]
    gradient = torch.full(target.matrix.shape, math.nan)
    with pytest.raises(RunError, match=r"layer\.0\.weight contains NaN"):
        REGROWTHS.build("rigl").exchange(target, torch.ones_like(gradient, dtype=torch.bool), gradient, 0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", DROPS)
def test_masks_move_at_constant_sparsity(name: str) -> None:
    model = make_model()
    targets, calibration = encoder_targets(model), make_calibration(model)
    axes = Axes(CRITERIA.build("magnitude"), SCOPES.build("uniform"), PATTERNS.build("unstructured"))
    plain = Sparsifier(targets, axes)
    plain.update(0.8)
    first = {target.name: (plain.masks[target.name], target.weight.detach().clone()) for target in targets}
    sparsifier = Sparsifier.from_zeros(
        targets, Axes(axes.criterion, axes.scope, axes.pattern, regrowth=REGROWTHS.build(name))
    )
    update = sparsifier.update(0.8, calibration, passed=0.25)
    assert update.achieved == pytest.approx(0.8, abs=1e-3) and update.churn > 0.01
    for target in targets:
        (before, weights), mask = first[target.name], sparsifier.masks[target.name]
        grown = mask & ~before
        most = DROPS[name](int(before.sum()), 0.25)
        assert int(mask.sum()) == int(before.sum()) and 0 < int(grown.sum()) <= most
        assert not target.weight[grown].any() and not target.weight[~mask].any()
        assert torch.equal(target.weight[mask & before], weights[mask & before])
        assert weights[before & ~mask].abs().max() <= weights[before & mask].abs().max()
    moved = dict(sparsifier.masks)
    for target in targets:  # as a step of training would
        target.weight.data[moved[target.name] & (target.weight == 0)] = 0.3
    assert sparsifier.update(0.8, calibration, passed=0.5).achieved == update.achieved
    assert any(not torch.equal(moved[name], mask) for name, mask in sparsifier.masks.items())
