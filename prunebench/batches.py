"""Which examples stand in which batch, as a pure function of (seed, step): nothing to replay when a run resumes."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

BUCKET = 50  # batches that are sorted by length together


class BatchOrder:
    """Shuffled batches of similar length: each epoch visits every example once, in a new order.

    The permutation of an epoch is cut into stretches of 50 batches; each stretch is sorted by length, so that little
    padding is needed, cut into batches, and all batches are shuffled. The last one may be short.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = lengths, batch_size, seed
        self.steps_per_epoch = -(-len(lengths) // batch_size)
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def __call__(self, step: int) -> np.ndarray:
        """Indices of the examples of the update made at `step`."""
        epoch, position = divmod(step, self.steps_per_epoch)
        return self._epoch(epoch)[position]

    def _make_epoch(self, epoch: int) -> list[np.ndarray]:
        random = np.random.default_rng([self._seed, epoch])
        order = random.permutation(len(self._lengths))
        stretch = BUCKET * self._batch_size
        batches = []
        for start in range(0, len(order), stretch):
            part = order[start : start + stretch]
            part = part[np.argsort(self._lengths[part], kind="stable")]
            batches += [part[i : i + self._batch_size] for i in range(0, len(part), self._batch_size)]
        return [batches[i] for i in random.permutation(len(batches))]


def share_of(batch: np.ndarray, rank: int, world: int) -> np.ndarray:
    """The part of a batch that process `rank` of `world` computes; every example belongs to exactly one."""
    return np.array_split(batch, world)[rank]


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Seed of everything random inside one update (dropout), different for every step and process."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()[:7], "big")
