"""SparseGPT against optimal brain surgery on the columns that are left, with explicit inverses in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from calibrating import encoder_targets, make_calibration, make_model
from fakes import FakeTarget
from torch import Tensor, nn

from prunebench.errors import RunError, UsageError
from prunebench.sparsity.criteria import CRITERIA
from prunebench.sparsity.criteria.sparsegpt import SparseGPT
from prunebench.sparsity.masks import top_mask
from prunebench.sparsity.patterns import Budget
from prunebench.sparsity.sparsifier import build_sparsifier
from prunebench.sparsity.stats import Gram

DAMP = 0.01


@dataclass
class Problem:
    target: FakeTarget
    stat: Gram
    inputs: Tensor  # (tokens, in)

    @property
    def hessian(self) -> Tensor:
        """Damped, float64; written down for inputs none of which is always zero."""
        gram = self.inputs.double().T @ self.inputs.double()
        return gram + DAMP * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)

    def error(self, dense: Tensor, mask: Tensor) -> float:
        """|(W - W') X|^2 without damping."""
        change = dense.double() - self.target.matrix.double() * mask
        return float((self.inputs.double() @ change.T).square().sum())


def make_problem(rows: int = 6, columns: int = 20, seed: int = 0, transposed: bool = False) -> Problem:
    """Correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator) / 4 + torch.eye(columns)
    inputs = torch.randn(3 * columns, columns, generator=generator) @ mixing
    weight = torch.randn(rows, columns, generator=generator)
    stored = weight.T.contiguous() if transposed else weight.clone()
    target = FakeTarget("layer.weight", nn.Parameter(stored, requires_grad=False), transposed)
    stat = Gram(target)  # type: ignore[arg-type]
    for batch in inputs.split(7):
        stat.observe_inputs(batch, 1)
    return Problem(target, stat, inputs)


def inverse_from(hessian: Tensor, column: int) -> Tensor:
    """The inverse Hessian of the columns from `column` on, those before being fixed."""
    return torch.linalg.inv(hessian[column:, column:])


def saliency(weight: Tensor, hessian: Tensor, start: int, stop: int) -> Tensor:
    """w_Q^T ([H^-1]_QQ)^-1 w_Q / 2 is what pruning Q costs; twice that, (rows,)."""
    block = torch.linalg.inv(inverse_from(hessian, start)[: stop - start, : stop - start])
    part = weight[:, start:stop]
    return torch.einsum("ri,ij,rj->r", part, block, part)


def prune_column(weight: Tensor, hessian: Tensor, column: int, pruned: Tensor) -> None:
    inverse = inverse_from(hessian, column)
    for row in pruned.nonzero().flatten().tolist():
        weight[row, column:] -= weight[row, column] / inverse[0, 0] * inverse[0]


def literal(
    dense: Tensor, hessian: Tensor, alive: Tensor, block: int, keeps: list[int], size: int = 1
) -> tuple[Tensor, Tensor]:
    """Weights and mask: blocks of columns, of which each keeps so many units of `size` columns."""
    weight, mask = dense.double().clone(), torch.zeros_like(alive)
    starts = range(0, dense.shape[1], block)
    for start, keep in zip(starts, keeps, strict=True):
        stop = min(start + block, dense.shape[1])
        units = [
            (float(cost), row, first)
            for first in range(start, stop, size)
            for row, cost in enumerate(saliency(weight, hessian, first, first + size))
            if alive[row, first]
        ]
        for _, row, first in sorted(units)[len(units) - keep :]:
            mask[row, first : first + size] = True
        for column in range(start, stop):
            prune_column(weight, hessian, column, ~mask[:, column])
    return weight * mask, mask


def literal_groups(dense: Tensor, hessian: Tensor, alive: Tensor, keep: int, size: int) -> tuple[Tensor, Tensor]:
    weight, mask = dense.double().clone(), torch.zeros_like(alive)
    for start in range(0, dense.shape[1], size):
        costs = torch.stack([saliency(weight, hessian, at, at + 1) for at in range(start, start + size)], dim=1)
        for row, cost in enumerate(costs.masked_fill(~alive[:, start : start + size], -math.inf)):
            for best in sorted(range(size), key=lambda at: -float(cost[at]))[:keep]:
                mask[row, start + best] = alive[row, start + best]
        for column in range(start, start + size):
            prune_column(weight, hessian, column, ~mask[:, column])
    return weight * mask, mask


def solve(problem: Problem, budget: Budget, alive: Tensor | None = None, block: int = 128) -> Tensor:
    target = problem.target
    alive = torch.ones_like(target.matrix, dtype=torch.bool) if alive is None else alive
    return SparseGPT(block=block).solve(target, alive, budget, problem.stat)  # type: ignore[arg-type]


def everything(problem: Problem) -> Tensor:
    return torch.ones_like(problem.target.matrix, dtype=torch.bool)


def check(problem: Problem, mask: Tensor, expected: tuple[Tensor, Tensor]) -> None:
    weight, wanted = expected
    assert torch.equal(mask, wanted)
    torch.testing.assert_close((problem.target.matrix * mask).double(), weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("block", "keeps"), [(128, [50]), (20, [60]), (8, [16, 16, 8]), (5, [23] * 4), (1, [3] * 20)])
def test_every_block_keeps_what_costs_most(block: int, keeps: list[int], transposed: bool) -> None:
    problem = make_problem(transposed=transposed)
    dense = problem.target.matrix.clone()
    mask = solve(problem, Budget(sum(keeps)), block=block)
    check(problem, mask, literal(dense, problem.hessian, everything(problem), block, keeps))


def test_columns_beyond_a_leaf_and_a_block_of_the_default_width() -> None:
    problem = make_problem(rows=4, columns=150)
    dense = problem.target.matrix.clone()
    mask = solve(problem, Budget(300))
    check(problem, mask, literal(dense, problem.hessian, everything(problem), 128, [256, 44]))


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (2, 5), (5, 10), (4, 20)])
@pytest.mark.parametrize("block", [128, 8])
def test_n_of_m(n: int, m: int, block: int) -> None:
    problem = make_problem()
    dense = problem.target.matrix.clone()
    mask = solve(problem, Budget(0, n=n, m=m), block=block)
    assert (mask.reshape(-1, m).sum(1) == n).all()
    check(problem, mask, literal_groups(dense, problem.hessian, everything(problem), n, m))


@pytest.mark.parametrize("block", [128, 8, 10])
def test_blocks_of_weights_go_by_what_a_whole_block_costs(block: int) -> None:
    problem = make_problem()
    dense = problem.target.matrix.clone()
    keeps = {128: [17], 8: [7, 7, 3], 10: [7, 7, 3]}[block]  # of 6 rows with 5 blocks of 4 columns
    mask = solve(problem, Budget(17, size=4), block=block)
    check(problem, mask, literal(dense, problem.hessian, everything(problem), {128: 20}.get(block, 8), keeps, size=4))


# --- what is pruned already ---


def test_what_is_pruned_stays_so_and_is_made_up_for() -> None:
    problem = make_problem()
    alive = torch.rand(6, 20, generator=torch.Generator().manual_seed(5)) < 0.7
    problem.target.matrix.mul_(alive)
    dense = problem.target.matrix.clone()
    mask = solve(problem, Budget(40), alive, block=10)
    left = alive[:, :10].sum().item(), alive[:, 10:].sum().item()
    assert min(left) >= 20
    check(problem, mask, literal(dense, problem.hessian, alive, 10, [20, 20]))


def test_a_block_that_has_too_few_left_leaves_its_share_to_the_others() -> None:
    problem = make_problem()
    alive = everything(problem)
    alive[:, :10] = False
    alive[0, :4] = True
    problem.target.matrix.mul_(alive)
    dense = problem.target.matrix.clone()
    mask = solve(problem, Budget(40), alive, block=10)
    check(problem, mask, literal(dense, problem.hessian, alive, 10, [4, 36]))


@pytest.mark.parametrize("density", [0.4, 0.75])
def test_n_of_m_where_some_are_gone(density: float) -> None:
    problem = make_problem()
    alive = torch.rand(6, 20, generator=torch.Generator().manual_seed(6)) < density
    problem.target.matrix.mul_(alive)
    problem.target.matrix[:, 8:] /= 1000  # less than what pruned weights before them owe to those that are gone
    dense = problem.target.matrix.clone()
    mask = solve(problem, Budget(0, n=2, m=4), alive)
    left = alive.reshape(-1, 4).sum(1)
    assert (left < 2).any() and (left == 3).any()
    check(problem, mask, literal_groups(dense, problem.hessian, alive, 2, 4))


# --- special inputs ---


def test_inputs_that_are_always_zero_go_first_and_change_nothing_else() -> None:
    problem, smaller = make_problem(), make_problem()
    dead = torch.tensor([2, 9, 17])
    live = torch.tensor([j for j in range(20) if j not in dead])
    problem.stat.matrix[dead] = 0
    problem.stat.matrix[:, dead] = 0
    smaller.target.weight.data = smaller.target.weight[:, live].clone()
    smaller.stat.matrix = smaller.stat.matrix[live][:, live].clone()
    mask, expected = solve(problem, Budget(50)), solve(smaller, Budget(50))
    assert not mask[:, dead].any()
    assert torch.equal(mask[:, live], expected)
    torch.testing.assert_close(problem.target.matrix[:, live] * expected, smaller.target.matrix * expected)


def test_blocks_of_inputs_that_are_always_zero_go_first() -> None:
    problem = make_problem()
    problem.stat.matrix[4:8] = 0
    problem.stat.matrix[:, 4:8] = 0
    problem.target.matrix[:, 4:8] *= 100
    mask = solve(problem, Budget(24, size=4))
    assert torch.equal(mask.all(0), torch.tensor([not 4 <= j < 8 for j in range(20)]))


def test_no_input_at_all() -> None:
    problem = make_problem()
    dense = problem.target.matrix.clone()
    problem.stat.matrix.zero_()
    mask = solve(problem, Budget(50))
    assert int(mask.sum()) == 50
    torch.testing.assert_close(problem.target.matrix * mask, dense * mask)


def test_a_singular_hessian_is_refused() -> None:
    problem = make_problem()
    problem.stat.matrix = -problem.stat.matrix
    problem.stat.matrix.diagonal().abs_()
    with pytest.raises(RunError, match=r"X X\^T of layer\.weight is singular: raise pruning\.criterion\.params\.damp"):
        solve(problem, Budget(50))


@pytest.mark.parametrize("budget", [Budget(50), Budget(0, n=2, m=4)])
def test_weights_that_are_nan_are_refused(budget: Budget) -> None:
    problem = make_problem()
    problem.target.matrix[2, 3] = math.nan
    with pytest.raises(RunError, match=r"the weights of layer\.weight contain NaN"):
        solve(problem, budget)


@pytest.mark.parametrize("params", [{"damp": -0.1}, {"block": 0}])
def test_settings_are_checked(params: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="choose damp of at least 0, block of at least 1"):
        CRITERIA.build("sparsegpt", params)


# --- what it is good for ---


def test_without_damping_the_costs_sum_up_to_the_error() -> None:
    """Each column's cost is exact given the columns before it, so that the outputs change by their sum."""
    problem = make_problem()
    dense = problem.target.matrix.clone()
    gram = problem.inputs.double().T @ problem.inputs.double()
    mask = SparseGPT(damp=0.0).solve(  # type: ignore[arg-type]
        problem.target, everything(problem), Budget(60), problem.stat
    )
    weight, costs = dense.double(), 0.0
    for column in range(20):
        pruned = ~mask[:, column]
        costs += float(saliency(weight, gram, column, column + 1)[pruned].sum())
        prune_column(weight, gram, column, pruned)
    assert problem.error(dense, mask) == pytest.approx(costs, rel=1e-4)


@pytest.mark.parametrize("sparsity", [0.3, 0.5])
def test_outputs_change_less_than_with_magnitude_or_wanda(sparsity: float) -> None:
    problem = make_problem(rows=16, columns=48)
    dense = problem.target.matrix.clone()
    keep = round(dense.numel() * (1 - sparsity))
    error = problem.error(dense, solve(problem, Budget(keep)))
    problem.target.matrix.copy_(dense)
    for norm in (torch.ones(48), problem.inputs.norm(dim=0)):
        assert error < problem.error(dense, top_mask(dense.abs() * norm, keep))


def test_bfloat16_weights_are_worked_on_in_float32() -> None:
    problem, half = make_problem(), make_problem()
    half.target.weight.data = half.target.weight.bfloat16()
    problem.target.matrix.copy_(half.target.matrix)
    mask = solve(half, Budget(50))
    assert torch.equal(mask, solve(problem, Budget(50)))
    assert half.target.weight.dtype == torch.bfloat16
    torch.testing.assert_close(half.target.matrix, problem.target.matrix.bfloat16(), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("scope", ["uniform", "erk"])
def test_gradual_pruning_of_a_model(scope: str) -> None:
    model = make_model()
    sparsifier = build_sparsifier(encoder_targets(model), criterion="sparsegpt", scope=scope)
    before: dict[str, Tensor] = {}
    for level in (0.2, 0.5, 0.7):
        update = sparsifier.update(level, make_calibration(model))
        assert update.achieved == pytest.approx(level, abs=1e-3)
        for name, mask in sparsifier.masks.items():
            assert name not in before or not (mask & ~before[name]).any()
        before = dict(sparsifier.masks)
    dense = dict(make_model().named_parameters())
    for target in sparsifier.targets:
        assert (target.weight != dense[target.name])[sparsifier.masks[target.name]].any()
