"""M-FAC against its recursion written out, and against Fisher matrices inverted in float64."""

from __future__ import annotations

import pytest
import torch
from calibrating import encoder_targets, make_calibration, make_model
from fakes import FakeTarget, make_targets
from torch import Tensor

from prunebench.sparsity.criteria import CRITERIA, Criterion
from prunebench.sparsity.patterns import PATTERNS
from prunebench.sparsity.scopes import SCOPES
from prunebench.sparsity.sparsifier import Axes, Sparsifier
from prunebench.sparsity.updates import OptimalBrainSurgeon

DAMP = 1e-3


class Recursion:
    """v_i = g_i / damp - sum_(j<i) (v_j . g_i / d_j) v_j and d_i = m + g_i . v_i, of gradients (m, d)."""

    def __init__(self, gradients: Tensor, damp: float) -> None:
        self.damp, self.vectors, self.denominators = damp, [], []
        for gradient in gradients:
            vector = gradient / damp
            for earlier, denominator in zip(self.vectors, self.denominators, strict=True):
                vector = vector - (earlier @ gradient) / denominator * earlier
            self.vectors.append(vector)
            self.denominators.append(len(gradients) + gradient @ vector)

    def solve(self, values: Tensor) -> Tensor:
        pairs = zip(self.vectors, self.denominators, strict=True)
        return values / self.damp - sum((vector @ values) / denominator * vector for vector, denominator in pairs)

    def diagonal(self) -> Tensor:
        pairs = zip(self.vectors, self.denominators, strict=True)
        return 1 / self.damp - sum(vector**2 / denominator for vector, denominator in pairs)


def flat(values: Tensor) -> Tensor:
    return values.reshape(-1).double()


def make_gradients(targets: list[FakeTarget], count: int) -> list[list[Tensor]]:
    """For each target `count` gradients, zero where the weight is."""
    generator = torch.Generator().manual_seed(3)
    return [
        [torch.randn(target.matrix.shape, generator=generator) * (target.matrix != 0) for _ in range(count)]
        for target in targets
    ]


def observed(criterion: Criterion, targets: list[FakeTarget], gradients: list[list[Tensor]]) -> dict[str, object]:
    stats = {target.name: criterion.stat(target) for target in targets}
    for target, seen in zip(targets, gradients, strict=True):
        for gradient in seen:
            stats[target.name].observe_gradient(gradient)
    criterion.prepare({target.name: target for target in targets}, stats)
    return stats


def sparse_targets(share: float) -> list[FakeTarget]:
    targets = make_targets()
    generator = torch.Generator().manual_seed(5)
    for target in targets:
        target.weight.data[torch.rand(target.weight.shape, generator=generator) < share] = 0
    return targets


def masks_of(targets: list[FakeTarget]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(6)
    return {
        target.name: (torch.rand(target.matrix.shape, generator=generator) < 0.6) & (target.matrix != 0)
        for target in targets
    }


def test_the_recursion_inverts_the_fisher_matrix() -> None:
    gradients = torch.randn(5, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fisher = DAMP * torch.eye(9, dtype=torch.float64) + gradients.T @ gradients / 5
    inverse, recursion = torch.linalg.inv(fisher), Recursion(gradients, DAMP)
    values = torch.arange(9.0, dtype=torch.float64)
    torch.testing.assert_close(recursion.diagonal(), inverse.diagonal(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(recursion.solve(values), inverse @ values, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("count", [1, 2, 7, 20])
def test_blocks_of_the_weights_that_are_left(count: int, share: float) -> None:
    """More and fewer gradients than weights in a block; with all weights, and with half of them pruned."""
    targets, size = sparse_targets(share), 12
    gradients, masks = make_gradients(targets, count), masks_of(targets)
    criterion = CRITERIA.build("mfac", {"block_size": size, "damp": DAMP})
    stats = observed(criterion, targets, gradients)
    criterion.prepare_update({target.name: target for target in targets}, masks, stats)
    for target, seen in zip(targets, gradients, strict=True):
        weights, alive = flat(target.matrix), flat(target.matrix) != 0
        left, mask = weights[alive], masks[target.name].reshape(-1)[alive]
        rows = torch.stack([flat(gradient)[alive] for gradient in seen])
        score, change = torch.zeros_like(left), torch.zeros_like(left)
        for start in range(0, len(left), size):
            block = slice(start, start + size)
            recursion = Recursion(rows[:, block], DAMP)
            score[block] = left[block] ** 2 / (2 * recursion.diagonal())
            change[block] = -recursion.solve(left[block] * ~mask[block] / recursion.diagonal())
        found = flat(criterion.score(target, stats[target.name]))
        torch.testing.assert_close(found[alive], score, rtol=1e-4, atol=0)
        criterion.compensate(target, masks[target.name], stats[target.name])
        after = flat(target.matrix)
        torch.testing.assert_close(after[alive][mask], (left + change)[mask], rtol=1e-3, atol=1e-3)
        assert not after[~alive].any() and torch.equal(after[alive][~mask], left[~mask])


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_one_fisher_matrix_of_all_targets(count: int, share: float) -> None:
    targets = sparse_targets(share)
    gradients, masks = make_gradients(targets, count), masks_of(targets)
    named = {target.name: target for target in targets}
    criterion = CRITERIA.build("mfac", {"block_size": None, "damp": DAMP})
    stats = observed(criterion, targets, gradients)
    weights = torch.cat([flat(target.matrix) for target in targets])
    rows = torch.stack([torch.cat([flat(seen[i]) for seen in gradients]) for i in range(count)])
    recursion = Recursion(rows, DAMP)
    score = torch.cat([flat(criterion.score(target, stats[target.name])) for target in targets])
    torch.testing.assert_close(score, weights**2 / (2 * recursion.diagonal()), rtol=1e-4, atol=0)
    mask = torch.cat([masks[target.name].reshape(-1) for target in targets])
    criterion.prepare_update(named, masks, stats)
    for target in targets:
        criterion.compensate(target, masks[target.name], stats[target.name])
    after = torch.cat([flat(target.matrix) for target in targets])
    expected = weights - recursion.solve(weights * ~mask / recursion.diagonal())
    torch.testing.assert_close(after[mask], expected[mask], rtol=1e-3, atol=1e-3)
    assert torch.equal(after[~mask], weights[~mask]) and not after[weights == 0].any()


@pytest.mark.parametrize("block_size", [12, None])
def test_a_target_may_be_pruned_completely(block_size: int | None) -> None:
    targets = make_targets()
    targets[1].weight.data.zero_()
    criterion = CRITERIA.build("mfac", {"block_size": block_size})
    stats = observed(criterion, targets, make_gradients(targets, 3))
    masks = masks_of(targets)
    assert not criterion.score(targets[1], stats[targets[1].name]).any()
    for target in targets:
        criterion.score(target, stats[target.name])
    criterion.prepare_update({target.name: target for target in targets}, masks, stats)
    for target in targets:
        criterion.compensate(target, masks[target.name], stats[target.name])
    assert not targets[1].matrix.any()


def make_sparsifier(seed: int, **params: object) -> tuple[Sparsifier, torch.nn.Module]:
    model = make_model(seed)
    criterion = CRITERIA.build("mfac", params)
    axes = Axes(criterion, SCOPES.build("global"), PATTERNS.build("unstructured"), update=OptimalBrainSurgeon())
    return Sparsifier(encoder_targets(model), axes), model


@pytest.mark.parametrize("block_size", [128, None])
def test_two_prunings_of_a_bert_in_several_parts(block_size: int | None) -> None:
    sparsifier, model = make_sparsifier(0, block_size=block_size, recomputations=4)
    calibration = make_calibration(model)
    total = sum(target.weight.numel() for target in sparsifier.targets)
    before: dict[str, Tensor] = {}
    for sparsity in (0.3, 0.55):
        sparsifier.update(sparsity, calibration)
        zeros = sum(int((target.weight == 0).sum()) for target in sparsifier.targets)
        assert zeros == sum(int((~mask).sum()) for mask in sparsifier.masks.values()) == round(sparsity * total)
        assert not any((mask & ~before[name]).any() for name, mask in sparsifier.masks.items() if before)
        before = dict(sparsifier.masks)


def test_a_full_pruning_of_a_bert_is_what_the_equations_say() -> None:
    sparsifier, model = make_sparsifier(1, block_size=None, damp=DAMP, recomputations=1)
    calibration = make_calibration(model)
    gradients = list(calibration.gradients(sparsifier.targets))
    recursion = Recursion(torch.stack([torch.cat([flat(part) for part in each]) for each in gradients]), DAMP)
    weights = torch.cat([flat(target.matrix) for target in sparsifier.targets])
    score = weights**2 / (2 * recursion.diagonal())
    keep = score >= score.sort().values[round(0.4 * len(score))]
    sparsifier.update(0.4, calibration)
    after = torch.cat([flat(target.matrix) for target in sparsifier.targets])
    expected = (weights - recursion.solve(weights * ~keep / recursion.diagonal())) * keep
    torch.testing.assert_close(after, expected, rtol=1e-3, atol=1e-5)


def test_densities_fall_geometrically_over_sixteen_parts() -> None:
    criterion = CRITERIA.build("mfac")
    assert criterion.recomputations == 16 and criterion.recomputation_curve == "geometric"
    sparsifier, _ = make_sparsifier(0)
    levels = [1 - level for level in sparsifier._levels(0.5)]
    assert levels == pytest.approx([0.5 ** (part / 16) for part in range(1, 17)])
