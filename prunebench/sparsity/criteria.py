"""How much a weight matters. A new criterion is one class here, and one YAML in conf/pruning/criterion."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunebench.sparsity.registry import Registry

if TYPE_CHECKING:
    from prunebench.targets import Target


class Criterion(ABC):
    """Scores weights. What the constructor takes are the criterion's settings (`pruning.criterion.params`)."""

    @abstractmethod
    def score(self, target: Target) -> Tensor:
        """Scores of `target`'s weights, (out, in), floating point; higher means keep, -inf means prune first.

        The weights are not to be changed. Where weights are pruned already the score is not looked at.
        """


CRITERIA: Registry[Criterion] = Registry("criterion", "prunebench.criteria")


@CRITERIA.register("magnitude")
class Magnitude(Criterion):
    """The absolute value of the weight (Han et al. 2015)."""

    def score(self, target: Target) -> Tensor:
        return target.matrix.abs()


@CRITERIA.register("random")
class Random(Criterion):
    """A uniform random number that depends on the seed and the target's name alone.

    So a weight's rank is the same at every step of a gradual run, on every device, and after resuming.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def score(self, target: Target) -> Tensor:
        digest = hashlib.sha256(f"{self.seed} {target.name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        return torch.rand(target.matrix.shape, generator=generator).to(target.matrix.device)
