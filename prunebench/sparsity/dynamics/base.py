"""What a training dynamics is. Each one is a class in a file beside this one, and a YAML in conf/pruning/dynamics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from prunebench.sparsity.registry import Registry

if TYPE_CHECKING:
    from prunebench.sparsity.sparsifier import Sparsifier


@dataclass(frozen=True)
class Moment:
    """Where training is: the update of `step` is being made."""

    step: int
    steps: int  # of the whole run
    last_pruning: int  # the step from which on the plan has the mask fixed
    sparsity: float  # the plan's at this step, of the targets' weights
    target: float  # the plan's at the end
    lr: float
    lr_share: float  # of the highest learning rate of the cycle


class Dynamics:
    """Changes what training steps compute: the weights of a forward pass, gradients, or weights after the step.

    For each update the loop calls, `passes` times, `before_pass`, forward and backward, `after_pass`; then it masks the
    gradients of pruned weights, clips, makes the optimizer's step and calls `after_step`. Gradients of all passes add
    up unless a dynamics changes them. What the parameters hold after `after_step` is what is evaluated and saved.
    Settings come to the constructor (`pruning.dynamics.params`).
    """

    passes: int = 1
    to_the_end: ClassVar[bool] = False  # whether it goes on after the last pruning, until which it acts

    def begin(self, model: nn.Module, sparsifier: Sparsifier) -> None:
        """Called once before training or before going on, and before `load_state_dict`."""
        self.model, self.sparsifier = model, sparsifier

    def before_pass(self, number: int, at: Moment) -> None:
        """Before forward pass `number` of an update."""

    def after_pass(self, number: int, at: Moment) -> None:
        """After backward pass `number`: parameters have their gradients."""

    def after_step(self, at: Moment) -> None:
        """After the optimizer's step."""

    def after_pruning(self) -> None:
        """After a pruning of the plan has changed masks and weights."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """What is learned besides the model: its gradients are clipped together with the model's."""
        return ()

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed run needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse; on the device of the weights."""


DYNAMICS: Registry[Dynamics] = Registry("dynamics", "prunebench.dynamics")
