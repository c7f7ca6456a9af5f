"""Which weights live and die together."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor

from prunebench.errors import UsageError
from prunebench.sparsity.counts import kept_per_group, zeros_at
from prunebench.sparsity.masks import top_per_row
from prunebench.sparsity.registry import Registry
from prunebench.sparsity.scopes import Scope


class Pattern(ABC):
    """Turns scores of weights into masks, leaving to the scope how many units of the pattern each matrix keeps."""

    @abstractmethod
    def masks(self, scores: Sequence[Tensor], sparsity: float, scope: Scope) -> list[Tensor]:
        """Masks, shaped like `scores` (out, in), at `sparsity` over all of them. -inf is never kept."""

    def zeros(self, sparsity: float, total: int) -> int:
        """How many of `total` weights are pruned at `sparsity`."""
        return zeros_at(sparsity, total)

    def check(self, shapes: Mapping[str, tuple[int, int]]) -> None:  # noqa: B027 (optional)
        """Refuses (UsageError) a matrix, name -> (out, in), that the pattern cannot cover."""

    def holds(self, matrix: Tensor) -> bool:
        """Whether the zeros of a fully pruned `matrix` (out, in) follow the pattern."""
        return True


PATTERNS: Registry[Pattern] = Registry("pattern", "prunebench.patterns")


@PATTERNS.register("unstructured")
class Unstructured(Pattern):
    """Single weights."""

    def masks(self, scores: Sequence[Tensor], sparsity: float, scope: Scope) -> list[Tensor]:
        total = sum(score.numel() for score in scores)
        return scope.masks(scores, total - zeros_at(sparsity, total))


@PATTERNS.register("n_m")
class NM(Pattern):
    """At most `n` weights in every `m` consecutive inputs of an output (Mishra et al. 2021); ties to the lower index.

    The density of every group is fixed, so the scope has no say. On the way there, at a sparsity s below 1 - n/m,
    every group keeps max(n, (1 - s) * m rounded half up).
    """

    def __init__(self, n: int, m: int) -> None:
        self.n, self.m = n, m

    def masks(self, scores: Sequence[Tensor], sparsity: float, scope: Scope) -> list[Tensor]:
        kept = kept_per_group(sparsity, self.n, self.m)
        return [self._mask(score, kept) for score in scores]

    def zeros(self, sparsity: float, total: int) -> int:
        return total - total // self.m * kept_per_group(sparsity, self.n, self.m)

    def _mask(self, score: Tensor, kept: int) -> Tensor:
        return top_per_row(score.reshape(-1, self.m), kept).view(score.shape) & (score > -math.inf)

    def check(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        for name, (_, inputs) in shapes.items():
            if inputs % self.m:
                raise UsageError(
                    f"pattern {self.n}:{self.m} needs inputs in groups of {self.m}, but {name} has {inputs}: "
                    "choose another pattern, or leave its component out of pruning.components"
                )

    def holds(self, matrix: Tensor) -> bool:
        return bool(((matrix.reshape(-1, self.m) != 0).sum(1) <= self.n).all())
