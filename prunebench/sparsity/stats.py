"""What calibration data show about one weight matrix: its inputs, or the gradients of the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from prunebench.targets import Target


S = TypeVar("S")


@dataclass(frozen=True)
class Sample:
    """How many training examples a method looks at unless `pruning.calibration` says otherwise.

    `batch_size` matters to those that use gradients: examples / batch_size gradients are taken.
    """

    examples: int
    batch_size: int


class InputStat(ABC):
    """Observes what the target's module is given: its inputs with padding left out."""

    @abstractmethod
    def observe_inputs(self, inputs: Tensor, sequences: int) -> None:
        """Takes in one batch: `inputs` (tokens, in), float32, of so many `sequences`."""


class GradientStat(ABC):
    """Observes the gradients of the task's loss, the model in eval mode."""

    @abstractmethod
    def observe_gradient(self, gradient: Tensor) -> None:
        """Takes in one batch: the gradient (out, in) of its mean loss, float32; zero where a weight is pruned."""


class Observing(Generic[S]):
    """What may look at data. `stat` makes what observes one target: an InputStat, a GradientStat or both.

    It is fed with calibration data at every pruning anew.
    """

    sample: ClassVar[Sample | None] = None  # how much it looks at by default; None: the weights are enough
    layer_by_layer: ClassVar[bool] = False  # whether a layer is to see the inputs that pruned layers before it give

    def stat(self, target: Target) -> S | None:
        """What is to be observed of `target`; None: nothing."""
        return None


class InputNorm(InputStat):
    """The L2 norm of every input over all tokens."""

    def __init__(self, target: Target) -> None:
        self.squares = torch.zeros(target.matrix.shape[1], dtype=torch.float64, device=target.weight.device)

    def observe_inputs(self, inputs: Tensor, sequences: int) -> None:
        self.squares += inputs.square().sum(0)

    def norm(self) -> Tensor:
        """(in,), float32."""
        return self.squares.sqrt().float()


class Gram(InputStat):
    """X X^T over all tokens, X being (in, tokens): the Hessian of a layer's squared error, up to a factor."""

    def __init__(self, target: Target) -> None:
        inputs = target.matrix.shape[1]
        self.matrix = torch.zeros(inputs, inputs, device=target.weight.device)

    def observe_inputs(self, inputs: Tensor, sequences: int) -> None:
        self.matrix.addmm_(inputs.t(), inputs)
