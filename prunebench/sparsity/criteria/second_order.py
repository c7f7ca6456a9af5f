"""Criteria from the curvature of the loss: Optimal Brain Surgeon with an empirical Fisher matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from prunebench.errors import UsageError
from prunebench.sparsity.criteria.base import CRITERIA, Criterion
from prunebench.sparsity.fisher import BlockFisher, DiagonalFisher, Fisher
from prunebench.sparsity.stats import Sample

if TYPE_CHECKING:
    from prunebench.targets import Target


def positive(**settings: float) -> None:
    """Refuses (UsageError) a setting that is not above zero."""
    for name, value in settings.items():
        if not value > 0:
            raise UsageError(f"pruning.criterion.params.{name}={value:g} must be above zero")


class SecondOrder(Criterion[Fisher]):
    """Scores and updates as the Fisher matrix gives them."""

    exact = False  # whether an update makes up for all pruned weights of a block at once, see `Fisher.update`

    def score(self, target: Target, stat: Fisher) -> Tensor:
        return stat.score(target.matrix)

    def compensate(self, target: Target, mask: Tensor, stat: Fisher) -> None:
        target.matrix.add_(stat.update(target.matrix, mask, self.exact))


@CRITERIA.register("obert")
class OptimalBert(SecondOrder):
    """w^2 / (2 [F^-1]_jj) with a block-diagonal Fisher matrix (Kurtic et al. 2022, section 3).

    Read: neuralmagic/sparseml, pruning/modifier_pruning_obs.py; block size 50 and 1,024 gradients of 16 examples are
    those of its recipes and the paper's. There the number of gradients is a setting; here it is how many were seen. It
    adds 1.2e-7 to 2 [F^-1]_jj (to [F^-1]_jj in the update), we do not.

    block_size: weights in a block.
    damp: added to the diagonal of the Fisher matrix.
    recomputations: parts in which a pruning is made, gradients taken anew before each.
    exact: the update (pruning/update=obs) makes up for all pruned weights of a block at once, instead of adding up what
        each of them (each group, with pattern block) would do alone, which is what paper and reference do. Better where
        much is pruned: on SST-2, MiniLM pruned in one shot to 50, 70 and 80 % has a loss of 0.331, 0.360 and 0.458,
        against 0.330, 0.398 and 0.517 (128 gradients); the update alone takes some 1.5 times as long.
    """

    sample: ClassVar[Sample | None] = Sample(examples=1024 * 16, batch_size=16)

    def __init__(self, block_size: int = 50, damp: float = 1e-7, recomputations: int = 1, exact: bool = False) -> None:
        positive(block_size=block_size, damp=damp, recomputations=recomputations)
        self.block_size, self.damp, self.exact = block_size, damp, exact
        self.recomputations = recomputations

    def stat(self, target: Target) -> Fisher:
        if self.block_size == 1:
            return DiagonalFisher(target, self.damp)
        return BlockFisher(target, self.block_size, self.damp, hold=self._hold)

    @property
    def _hold(self) -> int:
        return max(8, self.block_size // 4)

    def bytes_per_weight(self, gradients: int) -> float:
        if self.block_size == 1:
            return 4.0
        matrices = self.block_size if gradients > self._hold else 0
        return 4.0 * (matrices + min(gradients, self._hold))

    def check(self, size: int) -> None:
        if self.block_size > 1 and self.block_size % size:
            raise UsageError(
                f"blocks of {size} weights do not fit Fisher blocks of {self.block_size}: "
                f"set pruning.criterion.params.block_size to a multiple of {size}"
            )

    def group_score(self, target: Target, stat: Fisher, size: int) -> Tensor | None:
        if self.block_size == 1:
            return None  # no weight is tied to another: the sum is exact
        return stat.score(target.matrix, size)


@CRITERIA.register("woodfisher")
class WoodFisher(OptimalBert):
    """As obert, with large blocks (Singh & Alistarh 2020).

    Read: IST-DASLab/WoodFisher, pruners/woodfisherblock.py and scripts/resnet50_woodfisher_sparsity-*.sh: blocks of
    2,000 weights, damp 1e-5, 400 gradients. Those are of 400 images each, ours of 16 examples (reconstruction). The
    update is that of all pruned weights, each as if alone. With up to block_size / 4 gradients only these are kept,
    4 bytes a weight and gradient, and no matrices.
    """

    sample: ClassVar[Sample | None] = Sample(examples=400 * 16, batch_size=16)

    def __init__(
        self, block_size: int = 2000, damp: float = 1e-5, recomputations: int = 1, exact: bool = False
    ) -> None:
        super().__init__(block_size, damp, recomputations, exact)


@CRITERIA.register("diagonal_fisher")
class Diagonal(OptimalBert):
    """w^2 (F_jj + damp) / 2, F_jj being the mean squared gradient: obert with blocks of one weight.

    Its update changes nothing that stays. SMC-Bench's oBERT (Liu et al. 2023) is this, with
    dropout and one gradient for each batch of an epoch.
    """

    def __init__(self, damp: float = 1e-7, recomputations: int = 1) -> None:
        super().__init__(1, damp, recomputations)
