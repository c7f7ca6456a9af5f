"""GBLM-Pruner: Wanda's score plus a weight times the norm of its gradients (Das et al. 2023)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prunebench.errors import UsageError
from prunebench.sparsity.criteria.base import CRITERIA, Criterion
from prunebench.sparsity.stats import GradientStat, InputNorm, Sample

if TYPE_CHECKING:
    from prunebench.targets import Target


class NormsAndGradients(InputNorm, GradientStat):
    """The norm of every input, and the sum over batches of |gradient|^power for every weight, float32."""

    def __init__(self, target: Target, power: int) -> None:
        super().__init__(target)
        self.power = power
        self.sequences = 0
        self.powers = torch.zeros(target.matrix.shape, device=target.weight.device)

    def observe_inputs(self, inputs: Tensor, sequences: int) -> None:
        super().observe_inputs(inputs, sequences)
        self.sequences += sequences

    def observe_gradient(self, gradient: Tensor) -> None:
        if self.power == 2:
            self.powers.addcmul_(gradient, gradient)
        else:
            self.powers += gradient.abs()

    def norm_per_sequence(self) -> Tensor:
        """(in,): the root of the mean over sequences of their squared norms."""
        return self.norm() / math.sqrt(max(1, self.sequences))

    def gradient_norm(self) -> Tensor:
        """(out, in)."""
        return self.powers.sqrt() if self.power == 2 else self.powers


@CRITERIA.register("gblm")
class GBLM(Criterion[NormsAndGradients]):
    """|W_ij| (||X_j||_2 + factor ||g_ij||), with scope=row as in the paper.

    ||X_j||_2 is the root of the mean over sequences, and ||g_ij|| the L2 norm or L1 norm (`norm`) over the gradients
    of single sequences of the model before this pruning. `factor` weighs the two, which have different units: 100 is
    what the paper chose for LLaMA and sequences of 2,048 tokens, and with others it may need another value.

    Read: RocktimJyotiDas/GBLM-Pruner, gradient_computation.py (which keeps its sums in float16) and lib/prune.py.
    """

    sample: ClassVar[Sample | None] = Sample(examples=128, batch_size=1)
    layer_by_layer = True

    def __init__(self, factor: float = 100.0, norm: str = "l2") -> None:
        if norm not in ("l1", "l2"):
            raise UsageError(f"pruning.criterion.params.norm={norm} is no norm of gradients: choose l1 or l2")
        self.factor, self.power = factor, int(norm[1])

    def stat(self, target: Target) -> NormsAndGradients:
        return NormsAndGradients(target, self.power)

    def score(self, target: Target, stat: NormsAndGradients) -> Tensor:
        norms = self.factor * stat.gradient_norm() + stat.norm_per_sequence()
        return norms * target.matrix.abs()
