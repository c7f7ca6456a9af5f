"""What exchanges pruned weights for others after each pruning, the sparsity kept: an axis of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

from prunebench.sparsity.registry import Registry

if TYPE_CHECKING:
    from prunebench.targets import Target


class Regrowth(ABC):
    """Drops and regrows weights. Settings come to the constructor (`pruning.regrowth.params`)."""

    @abstractmethod
    def exchange(self, target: Target, mask: Tensor, gradient: Tensor, passed: float) -> Tensor:
        """A mask (out, in) of as many weights as `mask`.

        Args:
            gradient: (out, in) of the loss of one batch, also where weights are pruned.
            passed: the share of training that has passed, in [0, 1].
        """


REGROWTHS: Registry[Regrowth] = Registry("regrowth", "prunebench.regrowths")
