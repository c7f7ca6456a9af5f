"""The best values of the weights that stay, for the outputs of one layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from prunebench.errors import RunError, UsageError
from prunebench.sparsity.criteria import Criterion
from prunebench.sparsity.stats import Gram, Sample
from prunebench.sparsity.updates import UPDATES, WeightUpdate

if TYPE_CHECKING:
    from prunebench.targets import Target

ENTRIES = 2**24  # of the systems that are solved at once


@UPDATES.register("least_squares")
class LeastSquares(WeightUpdate[Gram]):
    """Every output gets the v that minimises |(w - v) X|^2 + d |w - v|^2 among those that are zero where it is pruned.

    On the weights S that stay, with H = X X^T + d I: v_S = (H_SS)^-1 H_S: w. Where fewer go than stay, the same comes
    from those that go, P: v = w - H^-1_:P (H^-1_PP)^-1 w_P (Hassibi & Stork 1993), with smaller systems to solve.

    Args:
        damp: d, as a share of the mean of the diagonal of X X^T; 0.01 as in SparseGPT, and so the number of examples.
    """

    sample: ClassVar[Sample | None] = Sample(examples=1024, batch_size=32)
    layer_by_layer: ClassVar[bool] = True

    def __init__(self, damp: float = 0.01) -> None:
        if damp < 0:
            raise UsageError(f"pruning.update.params.damp={damp:g}: choose at least 0")
        self.damp = damp

    def stat(self, target: Target) -> Gram:
        return Gram(target)

    def apply(self, target: Target, mask: Tensor, stat: Gram, criterion: Criterion[Any], criterion_stat: Any) -> None:
        """Raises RunError where H is singular, which damp > 0 prevents."""
        mean = stat.matrix.diagonal().mean()
        lost = target.matrix.float() * ~mask
        if not bool(mean > 0) or not bool(lost.any()):
            return
        hessian = stat.matrix.clone()
        hessian.diagonal().add_(self.damp * mean)
        try:
            change = _change(hessian, mask, lost)
        except _SingularError as error:
            raise RunError(f"X X^T of {target.name} is singular: raise pruning.update.params.damp") from error
        target.matrix.add_((change * mask).to(target.matrix.dtype))


def _change(hessian: Tensor, mask: Tensor, lost: Tensor) -> Tensor:
    """(out, in): v - w where `mask` keeps; `lost` is w where it does not, else zero."""
    if 2 * int(mask.sum()) <= mask.numel():
        return _solve(hessian, mask, lost @ hessian)
    inverse = torch.cholesky_inverse(_cholesky(hessian.double())).float()
    return -_solve(inverse, ~mask, lost) @ inverse


def _solve(matrix: Tensor, support: Tensor, right: Tensor) -> Tensor:
    """For every row i the x with matrix_SS x_S = right_iS, S being row i of `support`; zero outside S.

    Args:
        matrix: (in, in), symmetric and positive definite.
        support, right: (out, in).
    """
    solution, sizes = torch.zeros_like(right), support.sum(1)
    for rows in _batches(sizes):
        size = sizes[rows]
        columns = support[rows].to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, : int(size.max())]
        padding = torch.arange(columns.shape[1], device=size.device) >= size.unsqueeze(1)
        system = matrix[columns.unsqueeze(2), columns.unsqueeze(1)]
        if bool(padding.any()):  # the equations x = 0
            system.masked_fill_(padding.unsqueeze(2) | padding.unsqueeze(1), 0)
            system.diagonal(dim1=1, dim2=2).masked_fill_(padding, 1)
        at = (rows.unsqueeze(1), columns)
        known = right[at].masked_fill_(padding, 0).unsqueeze(2)
        solution[at] = torch.cholesky_solve(known, _cholesky(system)).squeeze(2)
    return solution


class _SingularError(Exception):
    pass


def _cholesky(matrices: Tensor) -> Tensor:
    result: tuple[Tensor, Tensor] = torch.linalg.cholesky_ex(matrices)
    factor, failed = result
    if bool(failed.any()):
        raise _SingularError
    return factor


def _batches(sizes: Tensor) -> Iterator[Tensor]:
    """Rows in groups of similar size, the largest first, as many as fit; none of size zero."""
    order = sizes.argsort(descending=True)
    start, stop = 0, int((sizes > 0).sum())
    while start < stop:
        end = min(stop, start + max(1, ENTRIES // int(sizes[order[start]]) ** 2))
        yield order[start:end]
        start = end
