"""Which weights live and die together."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from prunebench.errors import UsageError
from prunebench.sparsity.counts import kept_per_group, zeros_at
from prunebench.sparsity.masks import top_per_row
from prunebench.sparsity.registry import Registry
from prunebench.sparsity.scopes import PerMatrix, Scope


@dataclass(frozen=True)
class Budget:
    """What one matrix is to keep: `keep` units of `size` consecutive inputs, or `n` of every `m` inputs."""

    keep: int
    size: int = 1
    n: int | None = None
    m: int | None = None


class Pattern(ABC):
    """Turns scores into masks, leaving to the scope how many units of the pattern each matrix keeps.

    A unit is `size` consecutive inputs of an output, which live and die together and have one score.
    """

    size = 1
    asks_scope = True  # whether the scope has a say

    @abstractmethod
    def masks(self, scores: Sequence[Tensor], sparsity: float, scope: Scope) -> list[Tensor]:
        """Masks (out, in) from the scores (out, in / size) of units, at `sparsity` over all. -inf is never kept."""

    @abstractmethod
    def budgets(
        self, shapes: Sequence[tuple[int, int]], alive: Sequence[int], sparsity: float, scope: Scope
    ) -> list[Budget]:
        """What each of the matrices (out, in), of which `alive` units are left, is to keep, for one-by-one pruning.

        Raises:
            UsageError: the scope shares the budget out by comparing the scores of all matrices.
        """

    @abstractmethod
    def within(self, score: Tensor, budget: Budget, scope: Scope) -> Tensor:
        """The mask (out, in) of one matrix from the scores (out, in / size) of its units; -inf is never kept."""

    def zeros(self, sparsity: float, total: int) -> int:
        """How many of `total` weights are pruned at `sparsity`."""
        return zeros_at(sparsity, total)

    def check(self, shapes: Mapping[str, tuple[int, int]]) -> None:  # noqa: B027 (optional)
        """Refuses (UsageError) a matrix, name -> (out, in), that the pattern cannot cover."""

    def holds(self, mask: Tensor) -> bool:
        """Whether the mask (out, in) of a fully pruned matrix follows the pattern."""
        return True


PATTERNS: Registry[Pattern] = Registry("pattern", "prunebench.patterns")


def sum_units(score: Tensor, size: int) -> Tensor:
    """(out, in) -> (out, in / size): the sum over each unit of `size` consecutive inputs."""
    return score if size == 1 else score.reshape(len(score), -1, size).sum(-1)


def _per_matrix(scope: Scope) -> PerMatrix:
    if not isinstance(scope, PerMatrix):
        raise UsageError(
            "matrices are pruned one after the other, so their shares must be known before: set pruning/scope=uniform"
        )
    return scope


@PATTERNS.register("unstructured")
class Unstructured(Pattern):
    """Single weights."""

    def masks(self, scores: Sequence[Tensor], sparsity: float, scope: Scope) -> list[Tensor]:
        total = sum(score.numel() for score in scores)
        return [self._weights(mask) for mask in scope.masks(scores, total - zeros_at(sparsity, total))]

    def budgets(
        self, shapes: Sequence[tuple[int, int]], alive: Sequence[int], sparsity: float, scope: Scope
    ) -> list[Budget]:
        units = [(out, inputs // self.size) for out, inputs in shapes]
        total = sum(out * groups for out, groups in units)
        counts = _per_matrix(scope).counts(units, alive, total - zeros_at(sparsity, total))
        return [Budget(count, self.size) for count in counts]

    def within(self, score: Tensor, budget: Budget, scope: Scope) -> Tensor:
        return self._weights(_per_matrix(scope).within(score, budget.keep))

    def zeros(self, sparsity: float, total: int) -> int:
        return self.size * zeros_at(sparsity, total // self.size)

    def _weights(self, mask: Tensor) -> Tensor:
        return mask if self.size == 1 else mask.repeat_interleave(self.size, dim=1)


@PATTERNS.register("block")
class Block(Unstructured):
    """`m` consecutive inputs of an output, the blocks of sparse CPU kernels (Kurtic et al. 2022, section 3, use 4)."""

    def __init__(self, m: int) -> None:
        self.size = m

    def check(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        _check_groups(f"block of {self.size}", self.size, shapes)

    def holds(self, mask: Tensor) -> bool:
        blocks = mask.reshape(-1, self.size)
        return bool((blocks.any(1) == blocks.all(1)).all())


@PATTERNS.register("n_m")
class NM(Pattern):
    """At most `n` weights in every `m` consecutive inputs of an output (Mishra et al. 2021); ties to the lower index.

    The density of every group is fixed, so the scope has no say. On the way there, at a sparsity s below 1 - n/m,
    every group keeps max(n, (1 - s) * m rounded half up).
    """

    asks_scope = False

    def __init__(self, n: int, m: int) -> None:
        self.n, self.m = n, m

    def masks(self, scores: Sequence[Tensor], sparsity: float, scope: Scope) -> list[Tensor]:
        kept = kept_per_group(sparsity, self.n, self.m)
        return [self._mask(score, kept) for score in scores]

    def budgets(
        self, shapes: Sequence[tuple[int, int]], alive: Sequence[int], sparsity: float, scope: Scope
    ) -> list[Budget]:
        kept = kept_per_group(sparsity, self.n, self.m)
        return [Budget(out * inputs // self.m * kept, n=kept, m=self.m) for out, inputs in shapes]

    def within(self, score: Tensor, budget: Budget, scope: Scope) -> Tensor:
        assert budget.n is not None
        return self._mask(score, budget.n)

    def zeros(self, sparsity: float, total: int) -> int:
        return total - total // self.m * kept_per_group(sparsity, self.n, self.m)

    def _mask(self, score: Tensor, kept: int) -> Tensor:
        return top_per_row(score.reshape(-1, self.m), kept).view(score.shape) & (score > -math.inf)

    def check(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        _check_groups(f"{self.n}:{self.m}", self.m, shapes)

    def holds(self, mask: Tensor) -> bool:
        return bool((mask.reshape(-1, self.m).sum(1) <= self.n).all())


def _check_groups(pattern: str, size: int, shapes: Mapping[str, tuple[int, int]]) -> None:
    for name, (_, inputs) in shapes.items():
        if inputs % size:
            raise UsageError(
                f"pattern {pattern} needs inputs in groups of {size}, but {name} has {inputs}: "
                "choose another pattern, or leave its component out of pruning.components"
            )
