"""Criteria that need no data."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunebench.sparsity.criteria.base import CRITERIA, Criterion

if TYPE_CHECKING:
    from prunebench.targets import Target


@CRITERIA.register("magnitude")
class Magnitude(Criterion[None]):
    """The absolute value of the weight (Han et al. 2015)."""

    def score(self, target: Target, stat: None) -> Tensor:
        return target.matrix.abs()


@CRITERIA.register("random")
class Random(Criterion[None]):
    """A uniform random number that depends on the seed and the target's name alone.

    So a weight's rank is the same at every step of a gradual run, on every device, and after resuming.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def score(self, target: Target, stat: None) -> Tensor:
        generator = generator_of(self.seed, target.name)
        return torch.rand(target.matrix.shape, generator=generator).to(target.matrix.device)


def generator_of(seed: int, name: str) -> torch.Generator:
    """Random numbers that depend on the seed and a target's name alone; of the CPU, so the same on every device."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
