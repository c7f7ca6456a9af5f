"""A small module with prunable weights, one of them stored (in, out) as Conv1D does, without prunebench.models."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

SHAPES = ((8, 16), (16, 8), (4, 32), (12, 8))  # (out, in); the last one is stored transposed


@dataclass(frozen=True)
class FakeTarget:
    name: str
    weight: nn.Parameter
    transposed: bool = False

    @property
    def matrix(self) -> Tensor:
        return self.oriented(self.weight.data)

    def oriented(self, values: Tensor) -> Tensor:
        return values.t() if self.transposed else values


def make_targets(seed: int = 0, dtype: torch.dtype = torch.float32, decimals: int | None = None) -> list[FakeTarget]:
    """`decimals` rounds the weights, so that many are equal."""
    generator = torch.Generator().manual_seed(seed)
    targets = []
    for index, (out, inputs) in enumerate(SHAPES):
        transposed = index == len(SHAPES) - 1
        shape = (inputs, out) if transposed else (out, inputs)
        values = torch.randn(shape, generator=generator) * (1 + index)
        values = values.round(decimals=decimals) if decimals is not None else values
        targets.append(FakeTarget(f"layer.{index}.weight", nn.Parameter(values.to(dtype)), transposed))
    return targets
