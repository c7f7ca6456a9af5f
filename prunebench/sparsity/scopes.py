"""How the budget of weights is shared among the matrices."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from prunebench.errors import UsageError
from prunebench.sparsity.counts import as_written, share
from prunebench.sparsity.masks import count_above, global_masks, top_mask, top_per_row
from prunebench.sparsity.registry import Registry


class Scope(ABC):
    """Selects among the scores of all matrices. `floor` is the smallest share of its weights every matrix keeps."""

    def __init__(self, floor: float = 0.0) -> None:
        self.floor = floor

    def masks(self, scores: Sequence[Tensor], keep: int) -> list[Tensor]:
        """Masks, shaped like `scores` (out, in), that keep exactly `keep` entries.

        A score of -inf marks a weight that is gone already: it is never kept, so fewer than `keep` are where fewer
        are left, and no matrix is asked for more than it has.

        Raises:
            UsageError: the floors need more than `keep` weights.
            RunError: a score is NaN.
        """
        alive = [count_above(score, -math.inf) for score in scores]
        floors = self.floors([score.numel() for score in scores], alive, keep)
        return self.select(scores, min(keep, sum(alive)), floors, alive)

    def floors(self, sizes: Sequence[int], alive: Sequence[int], keep: int) -> list[int]:
        """What every matrix keeps at least. Raises UsageError where that is more than `keep` together."""
        floor = as_written(self.floor)
        floors = [min(math.ceil(floor * size), left) for size, left in zip(sizes, alive, strict=True)]
        if sum(floors) > keep:
            raise UsageError(
                f"pruning.scope.floor={self.floor:g} needs {sum(floors)} weights, but only {keep} are to be left: "
                "lower pruning.scope.floor or sparsity"
            )
        return floors

    @abstractmethod
    def select(self, scores: Sequence[Tensor], keep: int, floors: list[int], alive: list[int]) -> list[Tensor]:
        """As `masks`; matrix i is to keep at least `floors[i]` and at most `alive[i]` entries."""


SCOPES: Registry[Scope] = Registry("scope", "prunebench.scopes")


@SCOPES.register("global")
class Global(Scope):
    """One threshold for all matrices.

    Those that would fall below their floor keep just that, and the others share what is left, until none falls below.
    """

    def select(self, scores: Sequence[Tensor], keep: int, floors: list[int], alive: list[int]) -> list[Tensor]:
        fixed: dict[int, Tensor] = {}
        while True:
            free = [i for i in range(len(scores)) if i not in fixed]
            left = keep - sum(floors[i] for i in fixed)
            masks = dict(zip(free, global_masks([scores[i] for i in free], left), strict=True))
            short = [i for i in free if floors[i] and int(masks[i].count_nonzero()) < floors[i]]
            if not short:
                return [fixed[i] if i in fixed else masks[i] for i in range(len(scores))]
            fixed |= {i: top_mask(scores[i], floors[i]) for i in short}


class PerMatrix(Scope):
    """Scopes that decide how many weights each matrix keeps before looking at the scores."""

    def select(self, scores: Sequence[Tensor], keep: int, floors: list[int], alive: list[int]) -> list[Tensor]:
        counts = share(keep, [self.weight(*score.shape) for score in scores], floors, alive)
        return [self.within(score, count) for score, count in zip(scores, counts, strict=True)]

    def counts(self, shapes: Sequence[tuple[int, int]], alive: Sequence[int], keep: int) -> list[int]:
        """How many of its (out, in) units every matrix is to keep, of which `alive` are left; errors as in `masks`."""
        floors = self.floors([out * inputs for out, inputs in shapes], alive, keep)
        return share(min(keep, sum(alive)), [self.weight(*shape) for shape in shapes], floors, alive)

    @abstractmethod
    def weight(self, rows: int, columns: int) -> int:
        """To what the count of a matrix is proportional."""

    def within(self, score: Tensor, count: int) -> Tensor:
        return top_mask(score, count)


@SCOPES.register("uniform")
class Uniform(PerMatrix):
    """Every matrix has the same density."""

    def weight(self, rows: int, columns: int) -> int:
        return rows * columns


@SCOPES.register("erk")
class ErdosRenyiKernel(PerMatrix):
    """Density in proportion to (out + in) / (out * in), at most 1 (Evci et al. 2020, section 3, item 1)."""

    def weight(self, rows: int, columns: int) -> int:
        return rows + columns


@SCOPES.register("row")
class Row(Uniform):
    """Every output row of a matrix has the same density, and every matrix has."""

    def within(self, score: Tensor, count: int) -> Tensor:
        alive = (score > -math.inf).sum(1).tolist()
        rows, columns = score.shape
        counts = share(count, [columns] * rows, [0] * rows, alive)
        return top_per_row(score, torch.tensor(counts, dtype=torch.int64))
