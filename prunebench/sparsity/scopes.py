"""How the budget of weights is shared among the matrices."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from prunebench.errors import UsageError
from prunebench.sparsity.counts import as_written, share
from prunebench.sparsity.layer_budgets import effective_number, lamp_scores
from prunebench.sparsity.masks import count, count_above, global_masks, top_mask, top_per_row
from prunebench.sparsity.registry import Registry
from prunebench.sparsity.stats import Sample


class Scope(ABC):
    """Selects among the scores of all matrices. `floor` is the smallest share of its weights every matrix keeps.

    Other settings come to the constructor as well (`pruning.scope.params`).
    """

    sample: ClassVar[Sample | None] = None  # see `Observing.sample`

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


@SCOPES.register("lamp")
class Lamp(Global):
    """One threshold for all matrices on scores relative to what else a matrix keeps (Lee et al. 2021).

    u = s^2 / (the sum of s'^2 over the scores s' of the matrix that rank as high or higher); of equal ones the first
    ranks first, so the highest of a matrix is 1. With criterion=magnitude this is the paper's LAMP; others are taken
    as its |w|. Read: jaeho-lee/layer-adaptive-sparsity, tools/pruners.py, which rounds the number for each matrix.
    """

    def select(self, scores: Sequence[Tensor], keep: int, floors: list[int], alive: list[int]) -> list[Tensor]:
        relative = [lamp_scores(score, left) for score, left in zip(scores, alive, strict=True)]
        counts = [count(mask) for mask in super().select(relative, keep, floors, alive)]
        del relative
        return [top_mask(score, kept) for score, kept in zip(scores, counts, strict=True)]


@SCOPES.register("global_mp")
class GlobalMP(Global):
    """One threshold for all matrices, then no fewer than a minimum threshold MT in any (Gupta et al. 2022).

    MT is `min_threshold` of all weights together. A matrix of fewer weights stays dense. Where one would keep fewer
    than MT it keeps just MT, and the sparsities of the others are raised in proportion until the total is met: unlike
    the floor of scope global, which takes from the others what lies lowest.

    Read: manasgupta-1/GlobalMP, prune_withMT.py, --min-threshold 0.05 (per cent). That loop scales until it converges;
    its limit is computed here.
    """

    def __init__(self, floor: float = 0.0, min_threshold: float = 0.0005) -> None:
        super().__init__(floor)
        if not 0 <= min_threshold < 1:
            raise UsageError(
                f"pruning.scope.params.min_threshold={min_threshold:g} is no share of weights: choose it in [0, 1)"
            )
        self.min_threshold = min_threshold

    def floors(self, sizes: Sequence[int], alive: Sequence[int], keep: int) -> list[int]:
        minimum = math.floor(as_written(self.min_threshold) * sum(sizes))
        floors = super().floors(sizes, alive, keep)
        floors = [max(floor, min(minimum, left)) for floor, left in zip(floors, alive, strict=True)]
        if sum(floors) > keep:
            raise UsageError(
                f"pruning.scope.params.min_threshold={self.min_threshold:g} needs {sum(floors)} weights, but only "
                f"{keep} are to be left: lower pruning.scope.params.min_threshold or sparsity"
            )
        return floors

    def select(self, scores: Sequence[Tensor], keep: int, floors: list[int], alive: list[int]) -> list[Tensor]:
        sizes = [score.numel() for score in scores]
        masks = super().select(scores, keep, [0] * len(scores), alive)
        kept = [count(mask) for mask in masks]
        zeros = share(sum(sizes) - keep, _less(sizes, kept), _less(sizes, alive), _less(sizes, floors))
        counts = _less(sizes, zeros)
        return [masks[i] if counts[i] == kept[i] else top_mask(scores[i], counts[i]) for i in range(len(scores))]


def _less(sizes: Sequence[int], parts: Sequence[int]) -> list[int]:
    return [size - part for size, part in zip(sizes, parts, strict=True)]


@SCOPES.register("pq_index")
class PQIndex(Scope):
    """Matrices keep weights in proportion to how few could carry their norm, by the PQ Index (Diao et al. 2023).

    The index of the d scores s that are left is I = 1 - d^(1/q - 1/p) ||s||_p / ||s||_q. The paper's lower bound for
    the number of weights to retain is m = d (1 + eta)^(-q/(q - p)) (1 - I)^(pq/(q - p)). Its SAP prunes
    floor(d min(gamma (1 - m/d), beta)) weights of a matrix in every round, so that the sparsity reached depends on
    the weights and the number of rounds. Here the sparsity is given: matrices share it in proportion to m, as far as
    they have weights left. (1 + eta) is the same factor for all, so eta, gamma and beta have no place.

    Read: diaoenmao/Pruning-Deep-Neural-Networks-from-a-Sparsity-Perspective, src/modules/sparsity_index.py and
    compression.py, and p = 0.5, q = 1, scope layer in src/config.yml.
    """

    def __init__(self, floor: float = 0.0, p: float = 0.5, q: float = 1.0) -> None:
        super().__init__(floor)
        if not 0 < p < q < math.inf:
            raise UsageError(f"pruning.scope.params.p={p:g} and q={q:g} make no PQ Index: choose 0 < p < q")
        self.p, self.q = p, q

    def select(self, scores: Sequence[Tensor], keep: int, floors: list[int], alive: list[int]) -> list[Tensor]:
        numbers = [effective_number(score, left, self.p, self.q) for score, left in zip(scores, alive, strict=True)]
        counts = share(keep, [round(number * 2**32) for number in numbers], floors, alive)  # share takes integers
        return [top_mask(score, kept) for score, kept in zip(scores, counts, strict=True)]


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


class SearchingScope(Scope):
    """Proposes `trials` ways to share the budget out; that with the lowest loss on calibration data is taken."""

    trials: int

    def begin(self, trial: int) -> None:
        """What `masks` gives from now on is proposal number `trial`."""
        self.trial = trial


@SCOPES.register("random_search")
class RandomSearch(SearchingScope):
    """Random densities of the matrices, the best of `trials` by the loss before any retraining.

    Proposal 0 is uniform, so that the search never ends below it on its examples; in the others a matrix's share is
    exp(spread * z) times that, z standard normal. Random search over the layers' sizes as in Li et al. 2022
    ("Revisiting random channel pruning"), here for single weights; trials and spread are ours.
    """

    sample = Sample(examples=512, batch_size=64)

    def __init__(self, floor: float = 0.0, trials: int = 32, spread: float = 0.5, seed: int = 0) -> None:
        super().__init__(floor)
        if trials < 1:
            raise UsageError(f"pruning.scope.params.trials={trials}: must be at least 1")
        self.trials, self.spread, self.seed = trials, spread, seed
        self.begin(0)

    def select(self, scores: Sequence[Tensor], keep: int, floors: list[int], alive: list[int]) -> list[Tensor]:
        factors = np.ones(len(scores))
        if self.trial:
            factors = np.exp(self.spread * np.random.default_rng([self.seed, self.trial]).standard_normal(len(scores)))
        weights = [round(1000 * factor * score.numel()) for factor, score in zip(factors, scores, strict=True)]
        counts = share(keep, weights, floors, alive)
        return [top_mask(score, count) for score, count in zip(scores, counts, strict=True)]
