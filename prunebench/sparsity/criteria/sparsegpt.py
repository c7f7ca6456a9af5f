"""SparseGPT (Frantar & Alistarh 2023): one sweep over the inputs, choosing what goes and mending what stays.

The equations are those of algorithm 1 of the paper and of github.com/IST-DASLab/sparsegpt (sparsegpt.py): with
H = X X^T + d I and the upper triangular U of H^-1 = U^T U, pruning column j of the weights costs w_j^2 / U_jj^2, and
err_j = w_j / U_jj times row j of U is then taken from the columns after it.

Here the whole U is never formed. H = R R^T with R = U^-1, upper triangular, and with D, what pruning has taken so far
from the weights W in the columns before a block B, the weights there are W_B + D R_B (R_BB)^-1. That is one Cholesky
factor instead of two and an inverse. In a block, halving makes most of the work products of matrices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prunebench.errors import RunError, UsageError
from prunebench.sparsity.counts import share
from prunebench.sparsity.criteria.base import CRITERIA, Solver
from prunebench.sparsity.masks import count, exclude, has_nan, top_mask
from prunebench.sparsity.stats import Gram, Sample

if TYPE_CHECKING:
    from prunebench.sparsity.patterns import Budget
    from prunebench.targets import Target

LEAF = 8  # columns that are gone through one by one


@CRITERIA.register("sparsegpt")
class SparseGPT(Solver[Gram]):
    """Minimises the change of a layer's outputs, column by column.

    The mask is chosen block by block of columns, over all outputs together: every block keeps its share of the budget,
    to the weight. n:m: at every group's first column, the n best of each output. Blocks of weights Q: by what pruning
    a whole block costs, |(U_QQ)^-T w_Q|^2, of which w_j^2 / U_jj^2 is the case of one weight.

    Weights of an input that is always zero go first. What is pruned already counts as pruned from the start.

    1,024 examples where the reference has 128 sequences of 2,048 tokens: for MiniLM's layers and sentences of SST-2 (14
    tokens), the error of other sentences' outputs was within 10 % of that with 8,192 examples, but up to 75 % above it
    with 128, too few tokens for a matrix of 1,536 inputs. Longer texts can do with fewer (`pruning.calibration`).

    Args:
        damp: d, as a share of the mean of the diagonal of X X^T (without inputs that are always zero).
        block: columns that are chosen among at once.
    """

    sample = Sample(examples=1024, batch_size=32)
    layer_by_layer = True

    def __init__(self, damp: float = 0.01, block: int = 128) -> None:
        if damp < 0 or block < 1:
            raise UsageError(
                f"pruning.criterion.params.damp={damp:g}, block={block}: choose damp of at least 0, block of at least 1"
            )
        self.damp, self.block = damp, block

    def stat(self, target: Target) -> Gram:
        return Gram(target)

    def solve(self, target: Target, alive: Tensor, budget: Budget, stat: Gram) -> Tensor:
        """Raises RunError where weights are NaN, and where H is singular, which damp > 0 prevents."""
        if has_nan(target.matrix):
            raise RunError(f"the weights of {target.name} contain NaN: did training diverge?")
        factor = _factor(stat.matrix, self.damp)
        if factor is None:
            raise RunError(f"X X^T of {target.name} is singular: raise pruning.criterion.params.damp")
        sweep = _Sweep(target.matrix, factor, stat.matrix.diagonal() > 0, alive, budget)
        sweep.run(max(1, self.block // sweep.unit) * sweep.unit)
        target.matrix.copy_((sweep.weight - sweep.change).t())
        return sweep.mask.t().contiguous()


def _factor(gram: Tensor, damp: float) -> Tensor | None:
    """R (in, in), upper triangular, of the damped H = R R^T; None where H is singular.

    An input that is always zero gets the mean of the others on the diagonal: any number does, and this one leaves d.
    """
    hessian, diagonal = gram.clone(), gram.diagonal()
    live = diagonal > 0
    mean = diagonal[live].mean() if bool(live.any()) else diagonal.new_ones(())
    hessian.diagonal().copy_(torch.where(live, diagonal, mean) + damp * mean)
    lower, failed = torch.linalg.cholesky_ex(hessian.flip(0, 1))  # the order reversed, so that lower becomes upper
    return None if bool(failed) else lower.flip(0, 1)


class _Sweep:
    """One matrix. Everything is (in, out), so that columns, which are gone through one by one, are contiguous."""

    def __init__(self, matrix: Tensor, factor: Tensor, live: Tensor, alive: Tensor, budget: Budget) -> None:
        self.weight = matrix.t().float().contiguous()
        self.change = torch.empty_like(self.weight)  # D
        self.mask = torch.empty_like(self.weight, dtype=torch.bool)
        self.unit = budget.m or budget.size
        self._alive, self._live = alive.t(), live.unsqueeze(1)
        self._factor, self._budget = factor, budget

    def run(self, width: int) -> None:
        """Goes through all blocks of `width` columns."""
        columns, rows = self.weight.shape
        blocks = [slice(start, min(start + width, columns)) for start in range(0, columns, width)]
        if self._budget.n is not None:
            kept = [0] * len(blocks)
        else:
            left = [count(self._alive[block].contiguous()) // self.unit for block in blocks]
            sizes = [(block.stop - block.start) // self.unit * rows for block in blocks]
            kept = share(self._budget.keep, sizes, [0] * len(blocks), left)
        for block, keep in zip(blocks, kept, strict=True):
            self._prune(block, keep)

    def _prune(self, at: slice, keep: int) -> None:
        """Prunes the columns `at`, all before them being done."""
        identity = torch.eye(at.stop - at.start, device=self.weight.device)
        upper = torch.linalg.solve_triangular(self._factor[at, at], identity, upper=True)
        owed = self._factor[: at.start, at].t() @ self.change[: at.start]
        block = _Block(torch.addmm(self.weight[at], upper.t(), owed), upper, self._alive[at], self._live[at])
        if self._budget.n is None:
            block.choose(0, len(upper), self.unit, keep)
            block.eliminate(0, len(upper))
        else:
            block.eliminate_groups(0, len(upper), self.unit, self._budget.n)
        self.mask[at] = block.mask
        torch.sub(self.weight[at], block.weight * block.mask, out=self.change[at])


class _Block:
    """Some columns of a matrix: `weight`, `mask` and `alive` are (columns, out), `upper` is U_BB."""

    def __init__(self, weight: Tensor, upper: Tensor, alive: Tensor, live: Tensor) -> None:
        self.weight, self.mask = weight, torch.empty_like(alive)
        self._upper, self._alive, self._live = upper, alive, live.to(weight.dtype)
        self._diagonal = upper.diagonal().unsqueeze(1)
        self._some_dead = not bool(alive.all())
        self._error = torch.empty_like(weight)
        self._share = torch.empty_like(weight)  # of its weight that becomes a column's error: 1 / U_jj where pruned

    def choose(self, start: int, stop: int, size: int, keep: int) -> None:
        """The mask of some columns: the best `keep` units of `size` columns of an output."""
        at = slice(start, stop)
        alive = self._alive[start:stop:size]
        saliency = self._saliency(at, size)
        if self._some_dead:
            exclude(saliency, alive)
        self._settle(at, top_mask(saliency, keep).repeat_interleave(size, dim=0))

    def choose_group(self, start: int, stop: int, keep: int) -> None:
        """The mask of some columns: of every output the best `keep`."""
        at = slice(start, stop)
        saliency = self._saliency(at, 1)
        if self._some_dead:
            exclude(saliency, self._alive[at])
        self._settle(at, _top_of_each(saliency, keep))

    def _settle(self, at: slice, mask: Tensor) -> None:
        if self._some_dead:  # where fewer are left than may be kept
            mask = mask & self._alive[at]
        self.mask[at] = mask
        torch.div(~mask, self._diagonal[at], out=self._share[at])

    def _saliency(self, at: slice, size: int) -> Tensor:
        """(columns / size, out): what pruning a unit costs, zero for inputs that are always zero."""
        if size == 1:
            return (self.weight[at] * (self._live[at] / self._diagonal[at])).square_()
        weight = (self.weight[at] * self._live[at]).view(-1, size, self.weight.shape[1])
        starts = range(at.start, at.stop, size)
        lower = torch.stack([self._upper[start : start + size, start : start + size].t() for start in starts])
        errors: Tensor = torch.linalg.solve_triangular(lower, weight, upper=False)
        return errors.square_().sum(1)

    def eliminate(self, start: int, stop: int) -> None:
        """Goes through some columns whose mask is chosen, and which hold all that earlier ones owe them."""
        if stop - start <= LEAF:
            self._one_by_one(start, stop)
            return
        middle = (start + stop) // 2
        self.eliminate(start, middle)
        self._pass_on(start, middle, stop)
        self.eliminate(middle, stop)

    def eliminate_groups(self, start: int, stop: int, size: int, keep: int) -> None:
        """As `eliminate`, choosing at the first column of every `size`."""
        groups = (stop - start) // size
        if groups == 1:
            self.choose_group(start, stop, keep)
            self.eliminate(start, stop)
            return
        middle = start + groups // 2 * size
        self.eliminate_groups(start, middle, size, keep)
        self._pass_on(start, middle, stop)
        self.eliminate_groups(middle, stop, size, keep)

    def _pass_on(self, start: int, middle: int, stop: int) -> None:
        upper = self._upper[start:middle, middle:stop]
        self.weight[middle:stop].addmm_(upper.t(), self._error[start:middle], alpha=-1)

    def _one_by_one(self, start: int, stop: int) -> None:
        for column in range(start, stop):
            if column > start:
                errors, upper = self._error[start:column].t(), self._upper[start:column, column]
                self.weight[column].addmv_(errors, upper, alpha=-1)
            torch.mul(self.weight[column], self._share[column], out=self._error[column])


def _top_of_each(score: Tensor, keep: int) -> Tensor:
    """The mask of the `keep` highest scores of every column, ties to the lower row; meant for few rows."""
    values: Any = score.numpy() if score.is_cpu else score  # four times as fast on few values as torch
    rank = torch.zeros(score.shape, dtype=torch.int16, device=score.device)
    ranks: Any = rank.numpy() if score.is_cpu else rank
    for row in range(len(values)):
        ranks[row + 1 :] += values[row] >= values[row + 1 :]
        ranks[:row] += values[row] > values[:row]
    return rank < keep
