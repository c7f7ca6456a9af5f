"""What a pruning criterion is. Each one is a class in a file beside this one, and a YAML in conf/pruning/criterion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from prunebench.sparsity.registry import Registry
from prunebench.sparsity.stats import Observing, S

if TYPE_CHECKING:
    from prunebench.sparsity.patterns import Budget
    from prunebench.targets import Target


class Criterion(ABC, Observing[S]):
    """Scores weights. What the constructor takes are the criterion's settings (`pruning.criterion.params`).

    One that looks at data says so by `sample` and `stat`, see `prunebench.sparsity.stats.Observing`.
    """

    recomputations: int = 1  # parts in which a pruning is made, with data looked at anew before each
    recomputation_curve: ClassVar[str] = "linear"  # of the sparsities in between: linear or geometric
    revives: ClassVar[bool] = False  # whether every pruning chooses among all weights, those that are pruned included

    def check(self, size: int) -> None:
        """Refuses (UsageError) to score units of `size` consecutive inputs, before anything is computed."""

    def bytes_per_weight(self, gradients: int) -> float:
        """Memory of the statistics of `gradients` mini-batches, where it is large; a run that lacks it is refused."""
        return 0.0

    def level(self, sparsity: float) -> float:
        """The sparsity to prune to where the plan asks for `sparsity`."""
        return sparsity

    def prepare(self, targets: Mapping[str, Target], stats: Mapping[str, S]) -> None:
        """Called once all data were seen and before any score, for what takes all targets together; by name."""

    @abstractmethod
    def score(self, target: Target, stat: S) -> Tensor:
        """Scores of `target`'s weights, (out, in), floating point; higher means keep, -inf means prune first.

        The weights are not to be changed. Where weights are pruned already the score is not looked at.
        """

    def group_score(self, target: Target, stat: S, size: int) -> Tensor | None:
        """Scores of groups of `size` consecutive inputs, (out, in / size); None: the sum over the group is used."""
        return None

    def prepare_update(
        self, targets: Mapping[str, Target], masks: Mapping[str, Tensor], stats: Mapping[str, S]
    ) -> None:
        """Called before any `compensate`, when the masks (out, in) of all targets are chosen; by name."""

    def compensate(self, target: Target, mask: Tensor, stat: S) -> None:
        """Changes the weights that stay to make up for those that `mask` (out, in) takes away (pruning/update=obs).

        Called before these are set to zero. Weights that were pruned before are zero and stay so.
        """
        raise NotImplementedError


class Solver(Criterion[S]):
    """Chooses mask and weights of a matrix at once, knowing how many it is to keep, instead of scoring."""

    def score(self, target: Target, stat: S) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no scores")

    @abstractmethod
    def solve(self, target: Target, alive: Tensor, budget: Budget, stat: S) -> Tensor:
        """The mask (out, in) of `target`, exactly as `budget` says and within `alive` (out, in); changes the weights.

        What the mask takes away is set to zero by the caller.
        """


CRITERIA: Registry[Criterion[Any]] = Registry("criterion", "prunebench.criteria")
