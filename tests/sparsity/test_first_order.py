from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from calibrating import encoder_targets, make_calibration, make_model
from torch import Tensor, nn

from prunebench.sparsity.calibration import Calibration
from prunebench.sparsity.criteria import CRITERIA
from prunebench.sparsity.patterns import PATTERNS
from prunebench.sparsity.scopes import SCOPES
from prunebench.sparsity.sparsifier import Axes, Sparsifier
from prunebench.targets import Target

Equation = Callable[[float, list[float]], float]
EQUATIONS: dict[str, Equation] = {
    "snip": lambda w, gradients: abs(sum(gradients) * w),
    "taylor": lambda w, gradients: sum((g * w) ** 2 for g in gradients),
    "gradient_magnitude": lambda w, gradients: sum(abs(g) for g in gradients),
}


def conv1d_target(seed: int) -> Target:
    """(3, 5), stored (5, 3)."""
    module = nn.Linear(3, 5)
    module.weight.data = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
    return Target("h.0.weight", module, "encoder", True)


def linear_target(seed: int) -> Target:
    module = nn.Linear(5, 3)
    module.weight.data = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed))
    return Target("layer.0.weight", module, "encoder", False)


@pytest.mark.parametrize("name", EQUATIONS)
@pytest.mark.parametrize("make", [linear_target, conv1d_target])
@pytest.mark.parametrize("seed", range(3))
def test_the_equation(name: str, make: Callable[[int], Target], seed: int) -> None:
    target, criterion = make(seed), CRITERIA.build(name)
    gradients = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(seed + 10))
    stat, before = criterion.stat(target), target.weight.detach().clone()
    for gradient in gradients:
        stat.observe_gradient(gradient)
    score = criterion.score(target, stat)
    assert score.shape == (3, 5) and torch.equal(target.weight, before)
    for row in range(3):
        for column in range(5):
            seen = [float(gradient[row, column]) for gradient in gradients]
            expected = EQUATIONS[name](float(target.matrix[row, column]), seen)
            assert float(score[row, column]) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_snip_in_parts_is_snip_of_one_batch() -> None:
    model = make_model()
    targets = encoder_targets(model)
    scores = []
    for batch_size in (24, 6):
        calibration, criterion = make_calibration(model, batch_size=batch_size), CRITERIA.build("snip")
        stats = [criterion.stat(target) for target in targets]
        for gradients in calibration.gradients(targets):
            for stat, gradient in zip(stats, gradients, strict=True):
                stat.observe_gradient(gradient)
        parts = 24 // batch_size
        scores.append([criterion.score(t, stat) / parts for t, stat in zip(targets, stats, strict=True)])
    for whole, parts_of_it in zip(*scores, strict=True):
        assert torch.allclose(whole, parts_of_it, rtol=1e-4, atol=1e-7)
        assert whole.max() > 1e-4


def test_default_samples_are_whole_batches() -> None:
    for name in (*EQUATIONS, "random_snip_ratios"):
        sample = CRITERIA.build(name).sample
        assert sample is not None and sample.examples % sample.batch_size == 0


# --- through a Sparsifier ---


def pruned(
    criterion: str, levels: tuple[float, ...], pattern: str = "unstructured", seed: int = 0
) -> tuple[Sparsifier, list[Target], Calibration]:
    model = make_model()
    targets, calibration = encoder_targets(model), make_calibration(model, batch_size=6)
    made = PATTERNS.build(pattern, {"m": 4} if pattern == "block" else {})
    sparsifier = Sparsifier(targets, Axes(CRITERIA.build(criterion, seed=seed), SCOPES.build("global"), made))
    for level in levels:
        sparsifier.update(level, calibration)
    return sparsifier, targets, calibration


def kept(sparsifier: Sparsifier) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in sparsifier.masks.items()}


def gradient_of(calibration: Calibration, target: Target) -> Tensor:
    """The gradient of the mean loss of all examples, by plain backward."""
    calibration.model.zero_grad()
    calibration.loss_of(calibration.batch_of(calibration.indices)).backward()
    assert target.weight.grad is not None
    return target.weight.grad.double()


def test_snip_with_one_threshold_on_bert() -> None:
    model = make_model()
    targets, calibration = encoder_targets(model), make_calibration(model)
    expected = {t.name: (gradient_of(calibration, t) * t.weight.data.double()).abs() for t in targets}
    sparsifier, _, _ = pruned("snip", (0.6,))
    total = sum(score.numel() for score in expected.values())
    assert sum(kept(sparsifier).values()) == total - math.floor(0.6 * total + 0.5)
    stay = torch.cat([expected[name][mask] for name, mask in sparsifier.masks.items()])
    gone = torch.cat([expected[name][~mask] for name, mask in sparsifier.masks.items()])
    assert stay.min() >= gone.max() * (1 - 1e-4)


@pytest.mark.parametrize("pattern", ["unstructured", "block"])
def test_random_snip_ratios_keeps_as_many_elsewhere(pattern: str) -> None:
    snip, _, _ = pruned("snip", (0.6,), pattern)
    shuffled, _, _ = pruned("random_snip_ratios", (0.6,), pattern)
    again, _, _ = pruned("random_snip_ratios", (0.6,), pattern)
    other, _, _ = pruned("random_snip_ratios", (0.6,), pattern, seed=1)
    assert kept(snip) == kept(shuffled) == kept(other) and len(set(kept(snip).values())) > 3
    assert all(torch.equal(mask, again.masks[name]) for name, mask in shuffled.masks.items())
    for name, mask in shuffled.masks.items():
        density = float(mask.float().mean())
        for elsewhere in (snip, other):
            common = float((mask & elsewhere.masks[name]).float().mean())
            assert abs(common - density**2) < 0.1  # as of independent masks
            assert not torch.equal(mask, elsewhere.masks[name])


def test_random_snip_ratios_keeps_as_many_at_every_step_of_a_gradual_run() -> None:
    shuffled, targets, calibration = pruned("random_snip_ratios", (0.3,))
    alive = dict(shuffled.masks)
    snip = Sparsifier.from_zeros(targets, Axes(CRITERIA.build("snip"), shuffled.axes.scope, shuffled.axes.pattern))
    weights = [target.weight.detach().clone() for target in targets]
    snip.update(0.7, calibration)
    for target, weight in zip(targets, weights, strict=True):
        target.weight.data.copy_(weight)
    shuffled.update(0.7, calibration)
    assert kept(snip) == kept(shuffled)
    assert not any((mask & ~alive[name]).any() for name, mask in shuffled.masks.items())


def test_the_order_depends_on_seed_and_name_alone() -> None:
    before = torch.random.get_rng_state()
    scores = []
    for name in ("a", "a", "b"):
        target = linear_target(0)
        target = Target(name, target.module, "encoder", False)
        criterion = CRITERIA.build("random_snip_ratios", seed=3)
        stat = criterion.stat(target)
        stat.observe_gradient(torch.arange(1.0, 16).view(3, 5))
        scores.append(criterion.score(target, stat))
        torch.manual_seed(len(scores))
    torch.random.set_rng_state(before)
    assert torch.equal(scores[0], scores[1]) and not torch.equal(scores[0], scores[2])
    assert torch.equal(scores[0].flatten().sort().values, scores[2].flatten().sort().values)
