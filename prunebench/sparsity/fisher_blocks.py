"""Diagonal blocks of a damped empirical Fisher matrix, as matrices or as the gradients they are made of; float64."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from prunebench.errors import RunError


def cholesky(matrices: Tensor, damp: float) -> Tensor:
    """Lower L with L L^T = matrices (n, size, size) + damp I.

    They are sums of g g^T, but rounding may leave eigenvalues below zero, which then count as zero.

    Raises:
        RunError: they are not finite.
    """
    damped = matrices.clone()
    damped.diagonal(dim1=-2, dim2=-1).add_(damp)
    factors: Tensor
    factors, failed = torch.linalg.cholesky_ex(damped)
    bad = failed != 0
    if bool(bad.any()):
        if not bool(damped[bad].isfinite().all()):
            raise RunError("gradients of calibration examples are not finite: did training diverge?")
        values, vectors = torch.linalg.eigh(damped[bad])
        roots = values.clamp(min=damp).sqrt().unsqueeze(-1) * vectors.mT  # roots^T roots is the matrix
        factors[bad] = torch.linalg.qr(roots, mode="r").R.mT
    return factors


class Blocks(ABC):
    """Some diagonal blocks of F = G + damp I, in float64; vectors are (n, B)."""

    @abstractmethod
    def diagonal(self) -> Tensor:
        """Of F^-1, (n, B)."""

    @abstractmethod
    def corners(self, size: int) -> Tensor:
        """The diagonal blocks [F^-1]_QQ of `size` consecutive weights, (n, B / size, size, size)."""

    @abstractmethod
    def solve(self, vectors: Tensor) -> Tensor:
        """F^-1 x."""

    @abstractmethod
    def times(self, vectors: Tensor) -> Tensor:
        """G x, which is F x without the damping."""

    @abstractmethod
    def within(self, keep: Tensor) -> Blocks:
        """As if all gradients were zero where `keep` (n, B), of 1 and 0, is 0."""

    def multipliers(self, weights: Tensor, size: int) -> Tensor:
        """([F^-1]_QQ)^-1 w_Q, the Lagrange multipliers of w_Q = 0, for every group Q of `size` weights; (n, B)."""
        if size == 1:
            return weights / self.diagonal()
        groups = weights.view(len(weights), -1, size, 1)
        found: Tensor = torch.linalg.solve(self.corners(size), groups)
        return found.view(weights.shape)

    def joint_update(self, weights: Tensor, keep: Tensor) -> Tensor:
        """What takes all weights to zero where `keep` (n, B) is 0, at the least cost: the change of the others, (n, B).

        With S for what stays and P for what goes that is (F_SS)^-1 F_SP w_P, equal to
        -F^-1 E (E^T F^-1 E)^-1 E^T w on S (Hassibi & Stork 1993), but better conditioned.
        """
        return self.within(keep).solve(self.times(weights * (1 - keep)) * keep) * keep


@dataclass
class DenseBlocks(Blocks):
    """`gram`: G, (n, B, B)."""

    gram: Tensor
    damp: float

    @cached_property
    def _factors(self) -> Tensor:
        return cholesky(self.gram, self.damp)

    def diagonal(self) -> Tensor:
        return torch.cholesky_inverse(self._factors).diagonal(dim1=1, dim2=2)

    def corners(self, size: int) -> Tensor:
        count, width, _ = self.gram.shape
        inverse = torch.cholesky_inverse(self._factors).view(count, width // size, size, width // size, size)
        return inverse.diagonal(dim1=1, dim2=3).movedim(-1, 1)

    def solve(self, vectors: Tensor) -> Tensor:
        return torch.cholesky_solve(vectors.unsqueeze(-1), self._factors).squeeze(-1)

    def times(self, vectors: Tensor) -> Tensor:
        return (self.gram @ vectors.unsqueeze(-1)).squeeze(-1)

    def within(self, keep: Tensor) -> Blocks:
        return DenseBlocks(self.gram * keep.unsqueeze(1) * keep.unsqueeze(2), self.damp)


@dataclass
class LowRankBlocks(Blocks):
    """`rows`: R, (n, m, B), with G = R^T R; cheaper than matrices where m < B.

    F^-1 = (I - R^T C^-1 R) / damp = I / damp - V^T V with C = damp I + R R^T = L L^T, V = L^-1 R / sqrt(damp): the
    closed form of M-FAC's recursion (Frantar, Kurtic & Alistarh 2021), whose v_i / sqrt(d_i) are V's rows.

    `factors`: L, where `rows` are only a part of the weights.
    """

    rows: Tensor
    damp: float
    factors: Tensor | None = None

    @cached_property
    def _factors(self) -> Tensor:
        return cholesky(self.rows @ self.rows.mT, self.damp) if self.factors is None else self.factors

    def _whitened(self) -> Tensor:
        whitened: Tensor = torch.linalg.solve_triangular(self._factors, self.rows, upper=False)
        return whitened / math.sqrt(self.damp)

    def diagonal(self) -> Tensor:
        return 1 / self.damp - self._whitened().square().sum(1)

    def corners(self, size: int) -> Tensor:
        count, rank, width = self.rows.shape
        parts = self._whitened().view(count, rank, width // size, size).transpose(1, 2)
        identity = torch.eye(size, dtype=self.rows.dtype, device=self.rows.device)
        return identity / self.damp - parts.mT @ parts

    def solve(self, vectors: Tensor) -> Tensor:
        shared = torch.cholesky_solve(self.rows @ vectors.unsqueeze(-1), self._factors)
        return (vectors - (self.rows.mT @ shared).squeeze(-1)) / self.damp

    def times(self, vectors: Tensor) -> Tensor:
        return (self.rows.mT @ (self.rows @ vectors.unsqueeze(-1))).squeeze(-1)

    def within(self, keep: Tensor) -> Blocks:
        return LowRankBlocks(self.rows * keep.unsqueeze(1), self.damp)
