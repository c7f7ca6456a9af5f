"""What improves a mask without changing how many weights a matrix keeps: an axis of its own, at every pruning."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from torch import Tensor

from prunebench.sparsity.registry import Registry
from prunebench.sparsity.stats import Sample

if TYPE_CHECKING:
    from prunebench.targets import Target

S = TypeVar("S")


class Refinement(ABC, Generic[S]):
    """Exchanges weights. Settings come to the constructor (`pruning.refinement.params`)."""

    sample: ClassVar[Sample | None] = None  # see `Criterion.sample`
    layer_by_layer: ClassVar[bool] = False  # see `Criterion.layer_by_layer`

    def stat(self, target: Target) -> S | None:
        """What is to be observed of `target`, as in `Criterion.stat`."""
        return None

    @abstractmethod
    def refine(self, target: Target, mask: Tensor, alive: Tensor, stat: S) -> Tensor:
        """A mask (out, in) of as many weights as `mask`, within `alive` (out, in), that keeps the pattern."""


REFINEMENTS: Registry[Refinement[Any]] = Registry("refinement", "prunebench.refinements")
