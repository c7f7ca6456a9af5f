"""Random pruning with the layer-wise ratios of another criterion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunebench.sparsity.criteria.base import CRITERIA
from prunebench.sparsity.criteria.first_order import GradientSum, Snip
from prunebench.sparsity.criteria.magnitude import generator_of
from prunebench.sparsity.patterns import sum_units

if TYPE_CHECKING:
    from prunebench.targets import Target


@CRITERIA.register("random_snip_ratios")
class RandomSnipRatios(Snip):
    """SNIP's scores, shuffled within each matrix (Liu et al. 2022, "random pruning with SNIP ratios").

    So scope global gives every matrix as many weights as SNIP would, at random places. The order depends on the seed
    and the target's name alone. Weights that are zero, as pruned ones are, have score zero in SNIP and keep it.

    Read: VITA-Group/Random_Pruning, CIFAR/sparselearning/{core,snip}.py. There the number of weights of a matrix is
    random too, with SNIP's as its mean, and SNIP looks at one batch of 128 with newly drawn weights.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def score(self, target: Target, stat: GradientSum) -> Tensor:
        return self._shuffled(target, super().score(target, stat), target.matrix != 0)

    def group_score(self, target: Target, stat: GradientSum, size: int) -> Tensor:
        """The groups are shuffled, not the weights: sums of shuffled scores would be closer together than SNIP's."""
        alive = (target.matrix != 0).reshape(len(target.matrix), -1, size).any(-1)
        return self._shuffled(target, sum_units(super().score(target, stat), size), alive)

    def _shuffled(self, target: Target, score: Tensor, alive: Tensor) -> Tensor:
        values = score[alive]
        order = torch.randperm(len(values), generator=generator_of(self.seed, target.name))
        score[alive] = values[order.to(values.device)]
        return score
