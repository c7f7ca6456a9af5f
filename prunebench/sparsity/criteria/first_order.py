"""Criteria from the gradient of the loss: how much it changes, to first order, when a weight is taken away."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prunebench.sparsity.criteria.base import CRITERIA, Criterion
from prunebench.sparsity.stats import GradientStat, Sample

if TYPE_CHECKING:
    from prunebench.targets import Target


class Total(GradientStat):
    """A sum over batches for every weight: `total` (out, in), float32."""

    def __init__(self, target: Target) -> None:
        self.total = torch.zeros(target.matrix.shape, device=target.weight.device)

    @abstractmethod
    def observe_gradient(self, gradient: Tensor) -> None: ...


class GradientSum(Total):
    """Of gradients: over batches of equal size, their number times the gradient of all examples as one batch."""

    def observe_gradient(self, gradient: Tensor) -> None:
        self.total += gradient


class SquareSum(Total):
    """Of squared gradients."""

    def observe_gradient(self, gradient: Tensor) -> None:
        self.total.addcmul_(gradient, gradient)


class AbsoluteSum(Total):
    """Of absolute gradients."""

    def observe_gradient(self, gradient: Tensor) -> None:
        self.total += gradient.abs()


@CRITERIA.register("snip")
class Snip(Criterion[GradientSum]):
    """|g w|, the connection sensitivity, g being the gradient of one mini-batch (Lee, Ajanthan & Torr 2019).

    Read: namhoonlee/snip-public, snip/{prune,model,main}.py: one mini-batch of 100 examples, in evaluation mode. Here
    it comes in parts, which have the same sum and need less memory. The paper divides by the sum over all weights,
    which changes no order. SMC-Bench's batch (Liu et al. 2023) is that of training, 16 examples with dropout.
    """

    sample: ClassVar[Sample | None] = Sample(examples=100, batch_size=20)

    def stat(self, target: Target) -> GradientSum:
        return GradientSum(target)

    def score(self, target: Target, stat: GradientSum) -> Tensor:
        return (target.matrix * stat.total).abs_()


@CRITERIA.register("taylor")
class Taylor(Criterion[SquareSum]):
    """The sum over batches of (g w)^2, the squared first-order change of the loss (Molchanov et al. 2019).

    Read: NVlabs/Taylor_pruning, pruning_engine.py, method 0, which adds this up over the weights of a filter, as is
    done here over a block. 30 batches are those of configs/imagenet_resnet*.json, there of 256 images, the batch of
    training; 32 is ours. The reference gathers them while it trains, and averages over prunings with momentum 0.9.
    """

    sample: ClassVar[Sample | None] = Sample(examples=30 * 32, batch_size=32)

    def stat(self, target: Target) -> SquareSum:
        return SquareSum(target)

    def score(self, target: Target, stat: SquareSum) -> Tensor:
        return target.matrix.square() * stat.total


@CRITERIA.register("gradient_magnitude")
class GradientMagnitude(Criterion[AbsoluteSum]):
    """The sum over batches of |g|, whatever the weight: a control. It looks at as much as `taylor`."""

    sample: ClassVar[Sample | None] = Taylor.sample

    def stat(self, target: Target) -> AbsoluteSum:
        return AbsoluteSum(target)

    def score(self, target: Target, stat: AbsoluteSum) -> Tensor:
        return stat.total
