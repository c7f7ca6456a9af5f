"""What improves a mask without changing how many weights a matrix keeps: an axis of its own, at every pruning."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from torch import Tensor

from prunebench.sparsity.registry import Registry
from prunebench.sparsity.stats import Observing, S

if TYPE_CHECKING:
    from prunebench.targets import Target


class Refinement(ABC, Observing[S]):
    """Exchanges weights. Settings come to the constructor (`pruning.refinement.params`)."""

    @abstractmethod
    def refine(self, target: Target, mask: Tensor, alive: Tensor, stat: S) -> Tensor:
        """A mask (out, in) of as many weights as `mask`, within `alive` (out, in), that keeps the pattern."""


REFINEMENTS: Registry[Refinement[Any]] = Registry("refinement", "prunebench.refinements")
