"""What makes up for pruned weights by changing those that stay: an axis of its own, at every pruning."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from prunebench.sparsity.criteria import Criterion
from prunebench.sparsity.registry import Registry
from prunebench.sparsity.stats import Observing, S

if TYPE_CHECKING:
    from prunebench.targets import Target


class WeightUpdate(ABC, Observing[S]):
    """Changes the weights that stay. Settings come to the constructor (`pruning.update.params`)."""

    def prepare(
        self,
        targets: Mapping[str, Target],
        masks: Mapping[str, Tensor],
        criterion: Criterion[Any],
        criterion_stats: Mapping[str, Any],
    ) -> None:
        """Called before any `apply`, when the masks (out, in) are chosen; by target name."""

    @abstractmethod
    def apply(self, target: Target, mask: Tensor, stat: S, criterion: Criterion[Any], criterion_stat: Any) -> None:
        """Changes `target.matrix` where `mask` (out, in) keeps it; before pruned weights are set to zero."""


UPDATES: Registry[WeightUpdate[Any]] = Registry("update", "prunebench.updates")


@UPDATES.register("obs")
class OptimalBrainSurgeon(WeightUpdate[None]):
    """The criterion's own second-order update, -F^-1 E (E^T F^-1 E)^-1 E^T w (Hassibi & Stork 1993)."""

    def prepare(
        self,
        targets: Mapping[str, Target],
        masks: Mapping[str, Tensor],
        criterion: Criterion[Any],
        criterion_stats: Mapping[str, Any],
    ) -> None:
        criterion.prepare_update(targets, masks, criterion_stats)

    def apply(self, target: Target, mask: Tensor, stat: None, criterion: Criterion[Any], criterion_stat: Any) -> None:
        criterion.compensate(target, mask, criterion_stat)
