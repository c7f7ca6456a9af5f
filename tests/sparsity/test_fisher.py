"""Second-order criteria against Fisher matrices written out in full and inverted in float64."""

from __future__ import annotations

import math

import pytest
import torch
from calibrating import encoder_targets, make_calibration, make_model
from fakes import FakeTarget
from torch import Tensor, nn

from prunebench.errors import RunError, UsageError
from prunebench.sparsity.criteria import CRITERIA
from prunebench.sparsity.fisher import BlockFisher, DiagonalFisher, Fisher
from prunebench.sparsity.patterns import PATTERNS
from prunebench.sparsity.scopes import SCOPES
from prunebench.sparsity.sparsifier import Axes, Sparsifier
from prunebench.sparsity.updates import OptimalBrainSurgeon

DAMP = 1e-3
# Gradients, block size, gradients held: as gradients alone; as matrices; as sums and some gradients held besides.
FORMS = [(1, 5, 8), (4, 5, 8), (5, 5, 5), (9, 5, None), (3, 5, 1), (13, 5, 4), (6, 4, 3), (2, 100, 9), (30, 42, 10)]


def make_target(out: int = 6, inputs: int = 7, transposed: bool = False, seed: int = 0) -> FakeTarget:
    values = torch.randn(out, inputs, generator=torch.Generator().manual_seed(seed))
    return FakeTarget("w", nn.Parameter(values.t().contiguous() if transposed else values), transposed)


def make_gradients(target: FakeTarget, count: int, scale: float = 1.0, seed: int = 1) -> list[Tensor]:
    """Every second one depends on the one before, so that blocks are far from diagonal."""
    generator = torch.Generator().manual_seed(seed)
    found: list[Tensor] = []
    for number in range(count):
        fresh = torch.randn(target.matrix.shape, generator=generator) * scale
        found.append(found[-1] + 0.3 * fresh if number % 2 else fresh)
    return found


def observed(stat: Fisher, gradients: list[Tensor]) -> Fisher:
    for gradient in gradients:
        stat.observe_gradient(gradient)
    return stat


def dense_fisher(gradients: list[Tensor], size: int, damp: float) -> Tensor:
    """(d, d), float64, zero outside the blocks."""
    count = gradients[0].numel()
    fisher = torch.zeros(count, count, dtype=torch.float64)
    for gradient in gradients:
        flat = gradient.reshape(-1).double()
        for start in range(0, count, size):
            block = slice(start, start + size)
            fisher[block, block] += torch.outer(flat[block], flat[block]) / len(gradients)
    return fisher + damp * torch.eye(count, dtype=torch.float64)


def alone(inverse: Tensor, weights: Tensor, group: list[int]) -> tuple[float, Tensor]:
    """Loss and change of all weights (d,) when one group is pruned: with E, as Hassibi & Stork have it."""
    chosen = torch.eye(len(weights), dtype=torch.float64)[:, group]
    solved = torch.linalg.inv(chosen.T @ inverse @ chosen) @ chosen.T @ weights
    return float(0.5 * weights[group] @ solved), -inverse @ chosen @ solved


def groups_of(count: int, size: int) -> list[list[int]]:
    return [list(range(start, start + size)) for start in range(0, count, size)]


def flat(values: Tensor) -> Tensor:
    return values.reshape(-1).double()


def random_mask(shape: tuple[int, ...], size: int = 1) -> Tensor:
    groups = torch.rand(math.prod(shape) // size, generator=torch.Generator().manual_seed(7)) < 0.6
    return groups.repeat_interleave(size).view(shape)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("count", "size", "hold"), FORMS)
def test_the_score_of_single_weights(count: int, size: int, hold: int | None, transposed: bool) -> None:
    target = make_target(transposed=transposed)
    gradients = make_gradients(target, count)
    inverse = torch.linalg.inv(dense_fisher(gradients, size, DAMP))
    score = observed(BlockFisher(target, size, DAMP, hold=hold), gradients).score(target.matrix)
    weights = flat(target.matrix)
    expected = torch.stack([weights[j] ** 2 / (2 * inverse[j, j]) for j in range(len(weights))])
    assert score.shape == (6, 7) and score.dtype == torch.float32
    torch.testing.assert_close(flat(score), expected, rtol=2e-4, atol=0)


@pytest.mark.parametrize(("count", "hold"), [(1, 8), (6, 8), (20, 8), (20, None), (13, 4)])
@pytest.mark.parametrize("size", [2, 4, 8])
def test_the_score_of_groups(size: int, count: int, hold: int | None) -> None:
    target = make_target(5, 16)
    gradients = make_gradients(target, count)
    inverse, weights = torch.linalg.inv(dense_fisher(gradients, 8, DAMP)), flat(target.matrix)
    score = observed(BlockFisher(target, 8, DAMP, hold=hold), gradients).score(target.matrix, size)
    expected = torch.tensor([alone(inverse, weights, group)[0] for group in groups_of(80, size)], dtype=torch.float64)
    assert score.shape == (5, 16 // size)
    torch.testing.assert_close(flat(score), expected, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("count", "size", "hold"), FORMS)
def test_the_update_adds_up_what_each_pruned_weight_does_alone(
    count: int, size: int, hold: int | None, transposed: bool
) -> None:
    target = make_target(transposed=transposed)
    gradients, mask = make_gradients(target, count), random_mask((6, 7))
    inverse, weights = torch.linalg.inv(dense_fisher(gradients, size, DAMP)), flat(target.matrix)
    stat = observed(BlockFisher(target, size, DAMP, hold=hold), gradients)
    stat.score(target.matrix)
    change = stat.update(target.matrix, mask, exact=False)
    pruned = (~mask).flatten().nonzero().flatten().tolist()
    expected = torch.stack([alone(inverse, weights, [j])[1] for j in pruned]).sum(0) * mask.flatten()
    torch.testing.assert_close(flat(change), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize(("count", "hold"), [(2, 8), (20, None), (13, 4)])
def test_the_update_of_groups(count: int, hold: int | None) -> None:
    target = make_target(5, 16)
    gradients, mask = make_gradients(target, count), random_mask((5, 16), 4)
    inverse, weights = torch.linalg.inv(dense_fisher(gradients, 8, DAMP)), flat(target.matrix)
    stat = observed(BlockFisher(target, 8, DAMP, hold=hold), gradients)
    stat.score(target.matrix, 4)
    change = stat.update(target.matrix, mask, exact=False)
    pruned = [group for group in groups_of(80, 4) if not mask.flatten()[group[0]]]
    expected = torch.stack([alone(inverse, weights, group)[1] for group in pruned]).sum(0) * mask.flatten()
    torch.testing.assert_close(flat(change), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize(("count", "size", "hold"), FORMS)
def test_the_exact_update_takes_all_pruned_weights_together(count: int, size: int, hold: int | None) -> None:
    target = make_target()
    gradients, mask = make_gradients(target, count), random_mask((6, 7))
    inverse, weights = torch.linalg.inv(dense_fisher(gradients, size, DAMP)), flat(target.matrix)
    stat = observed(BlockFisher(target, size, DAMP, hold=hold), gradients)
    stat.score(target.matrix)
    change = stat.update(target.matrix, mask, exact=True)
    pruned = (~mask).flatten().nonzero().flatten().tolist()
    expected = alone(inverse, weights, pruned)[1]
    torch.testing.assert_close(expected[pruned], -weights[pruned], rtol=1e-6, atol=1e-8)  # E does what it should
    torch.testing.assert_close(flat(change), expected * mask.flatten(), rtol=1e-3, atol=1e-4)


def test_the_references_form_one_gradient_after_the_other() -> None:
    """F^-1 <- F^-1 - v v^T / (m + g^T v), v = F^-1 g, from I / damp, m known from the start."""
    target = make_target()
    gradients = make_gradients(target, 11)
    inverse = torch.eye(42, dtype=torch.float64) / DAMP
    for gradient in gradients:
        for start in range(0, 42, 5):
            block = slice(start, start + 5)
            part = flat(gradient)[block]
            solved = inverse[block, block] @ part
            inverse[block, block] -= torch.outer(solved, solved) / (len(gradients) + part @ solved)
    score = observed(BlockFisher(target, 5, DAMP, hold=3), gradients).score(target.matrix)
    expected = flat(target.matrix) ** 2 / (2 * inverse.diagonal())
    torch.testing.assert_close(flat(score), expected, rtol=2e-4, atol=0)


@pytest.mark.parametrize("scale", [1e-6, 1e-4, 1e-2])
def test_gradients_and_damping_as_small_as_in_bert(scale: float) -> None:
    target = make_target(20, 25)
    gradients = make_gradients(target, 64, scale)
    inverse = torch.linalg.inv(dense_fisher(gradients, 50, 1e-7))
    stat = CRITERIA.build("obert").stat(target)
    score = observed(stat, gradients).score(target.matrix)
    expected = flat(target.matrix) ** 2 / (2 * inverse.diagonal())
    torch.testing.assert_close(flat(score), expected, rtol=1e-4, atol=0)


def test_sums_that_rounding_leaves_indefinite() -> None:
    target = make_target(10, 10)
    gradients = [gradient * factor for factor in range(1, 40) for gradient in make_gradients(target, 1, 1e3)]
    stat = CRITERIA.build("obert").stat(target)
    score = observed(stat, gradients).score(target.matrix)
    gram = stat._gram.double() / 39 + 1e-7 * torch.eye(50, dtype=torch.float64)
    assert (torch.linalg.cholesky_ex(gram).info > 0).any()  # else this tests nothing
    assert score.isfinite().all() and (score >= target.matrix.square() * 1e-7 / 2 * 0.999).all()


def test_gradients_that_are_not_finite_are_refused() -> None:
    target = make_target(10, 10)
    for count in (3, 30):
        gradients = make_gradients(target, count)
        gradients[1][3, 4] = math.nan
        with pytest.raises(RunError, match="not finite"):
            observed(CRITERIA.build("obert").stat(target), gradients).score(target.matrix)


def test_diagonal_fisher_is_obert_with_blocks_of_one() -> None:
    target = make_target()
    gradients, mask = make_gradients(target, 11), random_mask((6, 7))
    squares = torch.stack([gradient.double() ** 2 for gradient in gradients]).mean(0)
    expected = target.matrix.double() ** 2 * (squares + DAMP) / 2
    blocks = observed(BlockFisher(target, 1, DAMP, hold=3), gradients)
    torch.testing.assert_close(blocks.score(target.matrix).double(), expected, rtol=1e-5, atol=0)
    assert blocks.update(target.matrix, mask, exact=False).abs().max() < 1e-5
    for criterion in (
        CRITERIA.build("diagonal_fisher", {"damp": DAMP}),
        CRITERIA.build("obert", {"block_size": 1, "damp": DAMP}),
    ):
        stat = criterion.stat(target)
        assert isinstance(stat, DiagonalFisher)
        observed(stat, gradients)
        torch.testing.assert_close(criterion.score(target, stat).double(), expected, rtol=1e-5, atol=0)
        assert criterion.group_score(target, stat, 7) is None
        before = target.matrix.clone()
        criterion.compensate(target, mask, stat)
        assert torch.equal(target.matrix, before)


@pytest.mark.parametrize("exact", [False, True])
def test_pruned_weights_neither_change_nor_count(exact: bool) -> None:
    target = make_target()
    dead = torch.rand(6, 7, generator=torch.Generator().manual_seed(3)) < 0.4
    target.matrix[dead] = 0
    gradients = [gradient * ~dead for gradient in make_gradients(target, 13)]
    criterion = CRITERIA.build("obert", {"block_size": 5, "damp": DAMP, "exact": exact})
    stat = observed(criterion.stat(target), gradients)
    criterion.score(target, stat)
    mask, before = ~dead & random_mask((6, 7)), target.matrix.clone()
    criterion.compensate(target, mask, stat)
    assert not target.matrix[dead].any() and torch.equal(target.matrix[~mask], before[~mask])
    assert (target.matrix != before).any()
    inverse = torch.linalg.inv(dense_fisher(gradients, 5, DAMP))
    going = (~dead & ~mask).flatten().nonzero().flatten().tolist()
    steps = [alone(inverse, flat(before), group)[1] for group in ([going] if exact else [[j] for j in going])]
    expected = (flat(before) + torch.stack(steps).sum(0)) * mask.flatten()
    torch.testing.assert_close(flat(target.matrix * mask), expected, rtol=1e-3, atol=1e-3)


def test_woodfisher_keeps_its_gradients_and_no_matrices() -> None:
    target = make_target(20, 200)
    gradients = make_gradients(target, 6)
    criterion = CRITERIA.build("woodfisher")
    stat = observed(criterion.stat(target), gradients)
    assert stat._gram is None
    inverse = torch.linalg.inv(dense_fisher(gradients, 2000, 1e-5))
    expected = flat(target.matrix) ** 2 / (2 * inverse.diagonal())
    torch.testing.assert_close(flat(criterion.score(target, stat)), expected, rtol=1e-5, atol=0)


def test_groups_must_fit_into_blocks() -> None:
    criterion = CRITERIA.build("obert")
    with pytest.raises(UsageError, match=r"params\.block_size to a multiple of 4"):
        Sparsifier([make_target(5, 16)], Axes(criterion, SCOPES.build("global"), PATTERNS.build("block", {"m": 4})))
    criterion.check(5)


@pytest.mark.parametrize("name", ["obert", "woodfisher", "diagonal_fisher", "mfac"])
@pytest.mark.parametrize("setting", ["damp", "block_size", "recomputations"])
def test_settings_must_be_above_zero(name: str, setting: str) -> None:
    if name == "diagonal_fisher" and setting == "block_size":
        return
    with pytest.raises(UsageError, match=rf"params\.{setting}=0 must be above zero"):
        CRITERIA.build(name, {setting: 0})


def make_sparsifier(seed: int, pattern: str, **params: object) -> tuple[Sparsifier, nn.Module]:
    model = make_model(seed)
    made = PATTERNS.build(pattern, {"m": 4} if pattern == "block" else {})
    axes = Axes(CRITERIA.build("obert", params), SCOPES.build("global"), made, update=OptimalBrainSurgeon())
    return Sparsifier(encoder_targets(model), axes), model


@pytest.mark.parametrize("recomputations", [1, 3])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("pattern", "block"), [("unstructured", 50), ("block", 32)])
def test_two_prunings_of_a_bert(pattern: str, block: int, exact: bool, recomputations: int) -> None:
    params = {"block_size": block, "exact": exact, "recomputations": recomputations}
    sparsifier, model = make_sparsifier(0, pattern, **params)
    calibration = make_calibration(model)
    units = sum(target.weight.numel() for target in sparsifier.targets) // sparsifier.pattern.size
    dense = {target.name: target.weight.detach().clone() for target in sparsifier.targets}
    before: dict[str, Tensor] = {}
    for sparsity in (0.3, 0.5):
        sparsifier.update(sparsity, calibration)
        zeros = sum(int((target.weight == 0).sum()) for target in sparsifier.targets)
        asked = round(sparsity * units) * sparsifier.pattern.size
        assert zeros == sum(int((~mask).sum()) for mask in sparsifier.masks.values()) == asked
        assert not any((mask & ~before[name]).any() for name, mask in sparsifier.masks.items() if before)
        before = dict(sparsifier.masks)
    changed = [(target.weight != dense[target.name])[before[target.name]].any() for target in sparsifier.targets]
    assert all(changed)


def test_a_pruning_of_a_bert_is_what_the_equations_say() -> None:
    """Scores, one threshold for all matrices, and update."""
    sparsifier, model = make_sparsifier(1, "unstructured", damp=1e-4)
    calibration = make_calibration(model)
    gradients = list(calibration.gradients(sparsifier.targets))
    scores, inverses = [], []
    weights = [flat(target.matrix).clone() for target in sparsifier.targets]
    for number, vector in enumerate(weights):
        inverses.append(torch.linalg.inv(dense_fisher([each[number] for each in gradients], 50, 1e-4)))
        scores.append(vector**2 / (2 * inverses[-1].diagonal()))
    threshold = torch.cat(scores).sort().values[len(torch.cat(scores)) * 4 // 10]
    sparsifier.update(0.4, calibration)
    for target, vector, inverse, score in zip(sparsifier.targets, weights, inverses, scores, strict=True):
        keep = score >= threshold
        expected = (vector - inverse @ (vector * ~keep / inverse.diagonal())) * keep
        torch.testing.assert_close(flat(target.matrix), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["obert", "woodfisher", "diagonal_fisher", "mfac"])
@pytest.mark.parametrize("gradients", [1, 9, 12, 24, 40])
def test_a_criterion_knows_its_memory(name: str, gradients: int) -> None:
    """The most that a statistic holds at once, against the tensors that are there after each gradient."""
    params = {} if name == "diagonal_fisher" else {"block_size": 48}
    criterion = CRITERIA.build(name, params)
    target = make_target(out=12, inputs=16)  # four blocks, none of them padded
    stat, most = criterion.stat(target), 0
    for gradient in make_gradients(target, gradients):
        stat.observe_gradient(gradient)
        tensors = [*getattr(stat, "_held", []), getattr(stat, "_gram", None), getattr(stat, "squares", None)]
        most = max(most, sum(tensor.nbytes for tensor in tensors if tensor is not None))
    assert criterion.bytes_per_weight(gradients) * target.weight.numel() == most
