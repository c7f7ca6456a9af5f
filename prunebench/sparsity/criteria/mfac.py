"""M-FAC: Optimal Brain Surgeon from a few gradients themselves, without matrices as large as blocks of weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prunebench.sparsity.criteria.base import CRITERIA
from prunebench.sparsity.criteria.second_order import SecondOrder, positive
from prunebench.sparsity.fisher import BlockFisher, Fisher, Packing, work_on
from prunebench.sparsity.fisher_blocks import LowRankBlocks, cholesky
from prunebench.sparsity.stats import Sample

if TYPE_CHECKING:
    from prunebench.targets import Target


class FullFisher(Fisher):
    """This target's columns of the gradients of all targets, whose Fisher matrix has no blocks.

    R (m, weights) are the gradients of the weights that are not zero, over sqrt(m). What couples the targets are sums
    over all of them of (m, m) and (m,): `gram` and `project` give this target's part, `join` and `share` take the sums.
    """

    def __init__(self, target: Target, damp: float) -> None:
        self.damp = damp
        self._packing = Packing(target, 1, only_alive=True)
        self._held: list[Tensor] = []  # (weights,) each
        self._factors = self._shared = torch.empty(0)

    def observe_gradient(self, gradient: Tensor) -> None:
        self._held.append(self._packing.pack(gradient).flatten())

    def _parts(self) -> Iterator[tuple[slice, Tensor]]:
        """R, some columns at a time, float64."""
        step = max(1, work_on(self._held[0].device) // len(self._held))
        for start in range(0, self._packing.count, step):
            part = slice(start, start + step)
            yield part, torch.stack([held[part] for held in self._held]).double() / math.sqrt(len(self._held))

    def gram(self) -> Tensor:
        """R R^T, (m, m)."""
        total = self._zeros(len(self._held), len(self._held))
        for _, rows in self._parts():
            total.addmm_(rows, rows.T)
        return total

    def join(self, factors: Tensor) -> None:
        """Takes the Cholesky factor (m, m) of C = damp I + R R^T, R being that of all targets."""
        self._factors = factors

    def project(self, mask: Tensor) -> Tensor:
        """R x, (m,), x being the multipliers of what `mask` (out, in) takes away."""
        going, total = self._going(mask), self._zeros(len(self._held))
        for part, rows in self._parts():
            total.addmv_(rows, going[part].double())
        return total

    def share(self, projected: Tensor) -> None:
        """Takes R x (m,) of all targets."""
        self._shared = torch.cholesky_solve(projected.unsqueeze(1), self._factors).squeeze(1)

    def solve_multipliers(self, matrix: Tensor, size: int) -> Tensor:
        weights = self._packing.pack(matrix).flatten()
        for part, rows in self._parts():
            blocks = LowRankBlocks(rows.unsqueeze(0), self.damp, self._factors.unsqueeze(0))
            weights[part] = blocks.multipliers(weights[part].double().unsqueeze(0), size).float()
        return self._packing.unpack(weights)

    def update(self, matrix: Tensor, mask: Tensor, exact: bool) -> Tensor:
        """-F^-1 x, F being that of all targets; after `share`."""
        change = -self._going(mask)
        for part, rows in self._parts():
            change[part] = ((change[part] + rows.T @ self._shared) / self.damp).float()
        return self._packing.unpack(change) * mask

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=self._held[0].device)

    def _going(self, mask: Tensor) -> Tensor:
        """x: the multipliers of what `mask` takes away, zero elsewhere; (weights,)."""
        assert self.multipliers is not None
        return self._packing.pack(self.multipliers * ~mask).flatten()


@CRITERIA.register("mfac")
class MFac(SecondOrder):
    """w^2 / (2 [F^-1]_jj) over weights not pruned yet, from m gradients (Frantar, Kurtic & Alistarh 2021).

    Read: IST-DASLab/M-FAC, prun.py and main_prun.py: blocks of 128 weights, 64 gradients of 32 examples, damp 1e-5, 16
    recomputations between which the density falls geometrically. There blocks run on from one matrix into the next, and
    the last of the m gradients is left at zero while still counted; here the last block of a matrix is shorter and m is
    how many were seen. Its paging to the CPU is not done.

    No more than the m gradients are ever kept: 4 m bytes a weight that is not zero (BERT-base, m = 64: 22 GB at first).
    A weight that is exactly zero is taken for a pruned one. With pattern block a group's score is the sum of its
    weights' scores, and the update is that of single weights.

    block_size: weights in a block; null: one Fisher matrix of all targets together, which the update needs too.
    """

    sample: ClassVar[Sample | None] = Sample(examples=64 * 32, batch_size=32)
    recomputation_curve: ClassVar[str] = "geometric"

    def __init__(self, block_size: int | None = 128, damp: float = 1e-5, recomputations: int = 16) -> None:
        positive(block_size=1 if block_size is None else block_size, damp=damp, recomputations=recomputations)
        self.block_size, self.damp, self.recomputations = block_size, damp, recomputations

    def stat(self, target: Target) -> Fisher:
        if self.block_size is None:
            return FullFisher(target, self.damp)
        return BlockFisher(target, self.block_size, self.damp, only_alive=True)

    def bytes_per_weight(self, gradients: int) -> float:
        return 4.0 * gradients

    def prepare(self, targets: Mapping[str, Target], stats: Mapping[str, Fisher]) -> None:
        full = [stat for stat in stats.values() if isinstance(stat, FullFisher)]
        if full:
            factors = cholesky(torch.stack([stat.gram() for stat in full]).sum(0, keepdim=True), self.damp)[0]
            for stat in full:
                stat.join(factors)

    def prepare_update(
        self, targets: Mapping[str, Target], masks: Mapping[str, Tensor], stats: Mapping[str, Fisher]
    ) -> None:
        """Sums what ties the targets together; called once all masks (out, in) are known, before any `compensate`."""
        full = {name: stat for name, stat in stats.items() if isinstance(stat, FullFisher)}
        if full:
            projected = torch.stack([stat.project(masks[name]) for name, stat in full.items()]).sum(0)
            for stat in full.values():
                stat.share(projected)
