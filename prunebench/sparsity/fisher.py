"""The empirical Fisher matrix of one weight matrix, F = damp I + 1/m sum_i g_i g_i^T, and what pruning asks of F^-1.

Of m gradients g_i of the loss of a mini-batch (Singh & Alistarh 2020; Kurtic et al. 2022, section 3). F is kept in
diagonal blocks of B consecutive weights, flattened as (out, in), the last one padded with zero gradients.

Memory, d being the weights of all matrices: float32 sums G = sum g g^T take 4 d B bytes, as the references' inverses
do, and the few gradients not yet summed up to a quarter of that. BERT-base (d = 85 M) at B = 50: 17 GB and 12
gradients, 4 GB; as much for 1,024 gradients as for 64. F^-1 itself is never kept: slices of F are factored in float64
when it is asked for.

Their rounding, 6e-8 of the largest eigenvalue of a block, must be well below damp, where fewer gradients were seen than
a block has weights: with gradients of 1e-3 a weight and damp 1e-7 scores are right to 1e-5, with 0.1 to 7 %.

The references apply the Woodbury identity to F^-1 once for each gradient. Up to rounding that is the same F^-1, but m
passes over it; sums cost one pass for every few gradients: with 64 gradients a fifth of the time, with 1,024 a
twenty-eighth (`scripts/bench_fisher.py`, one thread).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunebench.sparsity.fisher_blocks import Blocks, DenseBlocks, LowRankBlocks
from prunebench.sparsity.patterns import sum_units
from prunebench.sparsity.stats import GradientStat

if TYPE_CHECKING:
    from prunebench.targets import Target

WORK = {"cpu": 2**18}  # numbers in a slice, by device: there one that stays in the cache was the fastest
ELSEWHERE = 2**22


def work_on(device: torch.device) -> int:
    """How many float64 numbers a slice may have."""
    return WORK.get(device.type, ELSEWHERE)


class Packing:
    """Lays a target's weights out as (blocks, B), float32, and back; `only_alive`: without those that are zero."""

    def __init__(self, target: Target, size: int, only_alive: bool = False) -> None:
        alive = target.matrix.reshape(-1) != 0
        self.shape, self.size = target.matrix.shape, size
        self.alive = alive if only_alive and not bool(alive.all()) else None
        self.count = int(alive.count_nonzero()) if self.alive is not None else alive.numel()
        self.blocks = math.ceil(self.count / size)

    def pack(self, values: Tensor) -> Tensor:
        """(out, in) -> (blocks, B), padded with zeros; a copy."""
        flat = values.reshape(-1) if self.alive is None else values.reshape(-1)[self.alive]
        packed = flat.new_zeros(self.blocks * self.size, dtype=torch.float32)
        packed[: self.count] = flat
        return packed.view(-1, self.size)

    def unpack(self, packed: Tensor) -> Tensor:
        """(blocks, B) -> (out, in), zero where a weight was left out."""
        flat = packed.reshape(-1)[: self.count]
        if self.alive is None:
            return flat.view(self.shape)
        return flat.new_zeros(self.alive.numel()).masked_scatter_(self.alive, flat).view(self.shape)


class Fisher(GradientStat):
    """What second-order criteria ask; `multipliers` (out, in) are those of the last `score`."""

    multipliers: Tensor | None = None

    def score(self, matrix: Tensor, size: int = 1) -> Tensor:
        """1/2 w_Q^T ([F^-1]_QQ)^-1 w_Q, the loss of taking a group Q of `size` inputs away; (out, in / size), float32.

        Of single weights that is w^2 / (2 [F^-1]_jj). `matrix`: the weights w (out, in).
        """
        self.multipliers = self.solve_multipliers(matrix, size)
        return sum_units(matrix * self.multipliers / 2, size)

    @abstractmethod
    def solve_multipliers(self, matrix: Tensor, size: int) -> Tensor:
        """([F^-1]_QQ)^-1 w_Q for every group, (out, in), float32."""

    @abstractmethod
    def update(self, matrix: Tensor, mask: Tensor, exact: bool) -> Tensor:
        """The change (out, in) of the weights `mask` (out, in) keeps, after `score` gave the groups.

        Each group adds what it would alone: -F^-1 x, x being the multipliers of what is pruned. `exact`: all pruned
        weights of a block together.
        """


class DiagonalFisher(Fisher):
    """Blocks of one weight: F is the mean squared gradient plus damp, and takes 4 bytes a weight."""

    def __init__(self, target: Target, damp: float) -> None:
        self.damp, self.seen = damp, 0
        self.squares = torch.zeros(target.matrix.shape, device=target.weight.device)

    def observe_gradient(self, gradient: Tensor) -> None:
        self.squares.addcmul_(gradient, gradient)
        self.seen += 1

    def solve_multipliers(self, matrix: Tensor, size: int) -> Tensor:
        return matrix * (self.squares / self.seen + self.damp)

    def update(self, matrix: Tensor, mask: Tensor, exact: bool) -> Tensor:
        return torch.zeros_like(self.squares)  # nothing ties one weight to another


class BlockFisher(Fisher):
    """Diagonal blocks of `block_size` weights.

    hold: how many gradients are kept as they are before they are summed to matrices; None: all of them, which takes
        4 m bytes a weight and no matrices.
    only_alive: blocks are made of the weights that are not zero, so that what is pruned takes no room in them.
    """

    def __init__(
        self, target: Target, block_size: int, damp: float, *, hold: int | None = None, only_alive: bool = False
    ) -> None:
        self.damp, self.hold = damp, hold
        self.packing = Packing(target, block_size, only_alive)
        self.seen = 0
        self._held: list[Tensor] = []  # (blocks, B) each
        self._gram: Tensor | None = None  # (blocks, B, B), of the gradients that are no longer held

    def observe_gradient(self, gradient: Tensor) -> None:
        if len(self._held) == self.hold:
            self._sum_up()
        self._held.append(self.packing.pack(gradient))
        self.seen += 1

    def _sum_up(self) -> None:
        size = self.packing.size
        if self._gram is None:
            self._gram = self._held[0].new_zeros(self.packing.blocks, size, size)
        for part in self._slices(4):
            rows = self._rows(part)
            self._gram[part].baddbmm_(rows.mT, rows)
        self._held = []

    def _slices(self, factor: int = 1) -> Iterator[slice]:
        size, held = self.packing.size, self._held
        step = max(1, factor * work_on(held[0].device) // (size * max(size, len(held))))
        yield from (slice(start, start + step) for start in range(0, self.packing.blocks, step))

    def _rows(self, part: slice) -> Tensor:
        return torch.stack([gradient[part] for gradient in self._held], dim=1)

    def _blocks(self, part: slice) -> Blocks:
        rows = self._rows(part).double() / math.sqrt(self.seen)
        if self._gram is None and len(self._held) <= self.packing.size:
            return LowRankBlocks(rows, self.damp)
        gram = rows.mT @ rows
        return DenseBlocks(gram if self._gram is None else gram + self._gram[part].double() / self.seen, self.damp)

    def solve_multipliers(self, matrix: Tensor, size: int) -> Tensor:
        weights = self.packing.pack(matrix)
        for part in self._slices():
            weights[part] = self._blocks(part).multipliers(weights[part].double(), size).float()
        return self.packing.unpack(weights)

    def update(self, matrix: Tensor, mask: Tensor, exact: bool) -> Tensor:
        assert self.multipliers is not None
        keep = self.packing.pack(mask)
        change = self.packing.pack(matrix if exact else -self.multipliers)
        for part in self._slices():
            blocks, staying, values = self._blocks(part), keep[part].double(), change[part].double()
            if exact:
                change[part] = blocks.joint_update(values, staying).float()
            else:
                change[part] = (blocks.solve(values * (1 - staying)) * staying).float()
        return self.packing.unpack(change)
