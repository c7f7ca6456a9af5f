"""Wanda: a weight times the norm of its input (Sun et al. 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prunebench.sparsity.criteria.base import CRITERIA, Criterion
from prunebench.sparsity.stats import InputNorm, Sample

if TYPE_CHECKING:
    from prunebench.targets import Target


@CRITERIA.register("wanda")
class Wanda(Criterion[InputNorm]):
    """|W_ij| ||X_j||_2, X_j being input j over all tokens (equation 1); with scope=row the paper's method.

    Read: locuslab/wanda, lib/prune.py and lib/layerwrapper.py, which takes the root of the mean over sequences; that
    is the same order. No weight is changed. A row loses floor(columns * sparsity) weights there; here all rows
    together lose what the sparsity asks for.

    1,024 examples where the reference has 128 sequences of 2,048 tokens: see SparseGPT, whose default this is. Wanda
    itself needs fewer; with 128 sentences of 14 tokens the same error was at most 4 % above that with 8,192.
    """

    sample: ClassVar[Sample | None] = Sample(examples=1024, batch_size=32)
    layer_by_layer = True

    def stat(self, target: Target) -> InputNorm:
        return InputNorm(target)

    def score(self, target: Target, stat: InputNorm) -> Tensor:
        return target.matrix.abs() * stat.norm()


@CRITERIA.register("wanda_variant")
class WandaVariant(Wanda):
    """The share of its output's Wanda scores that lie at or below a weight's own (`use_variant`, the paper's appendix).

    The variant removes from every output the lowest scores that sum to a share alpha of the output's total, alpha
    being the same for all outputs of a matrix: that is what one threshold on these shares does. The reference bisects
    alpha, from 0.4 within [0, 0.8], until the sparsity is within 0.001 of what is asked; with scope=uniform the
    selection finds the alpha that gives it exactly, above 0.8 as well. scope=global has one alpha for all matrices;
    within an output the order is that of `wanda`, so that scope=row and n:m give the same masks as there. Of equal
    scores the lower index has the higher share, where the reference's threshold removes all.
    """

    def score(self, target: Target, stat: InputNorm) -> Tensor:
        ordered, order = super().score(target, stat).sort(dim=1, descending=True, stable=True)
        sums = ordered.flip(1).double().cumsum_(1).flip(1)
        sums /= sums[:, :1].clamp(min=torch.finfo(sums.dtype).tiny)
        return ordered.scatter_(1, order, sums.float())
