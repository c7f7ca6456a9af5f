"""Training towards N:M: passes see the smaller weights of each group cut or faded, gradients reach all of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prunebench.errors import UsageError
from prunebench.sparsity.dynamics.base import DYNAMICS, Dynamics, Moment
from prunebench.sparsity.dynamics.magnitudes import attenuate, gradient_of, magnitude_masks
from prunebench.sparsity.patterns import NM

if TYPE_CHECKING:
    from prunebench.sparsity.sparsifier import Sparsifier


class StraightThrough(Dynamics):
    """A pass computes with W * (M + (1 - M) * d), and the gradient there is taken for that of W.

    M keeps the n largest of every m weights and is found anew at every step. Between updates the parameters hold W, so
    that is what is evaluated until the plan prunes it.
    """

    pattern: NM  # the run's own

    def __init__(self) -> None:
        self._masks: list[Tensor] = []
        self._weights: list[Tensor] = []

    def begin(self, model: nn.Module, sparsifier: Sparsifier) -> None:
        """Raises UsageError where the run's pattern is not N:M."""
        super().begin(model, sparsifier)
        if not isinstance(sparsifier.pattern, NM):
            raise UsageError("this dynamics trains towards n of every m weights: set pruning/pattern=2_4")
        self.pattern = sparsifier.pattern

    def pattern_at(self, at: Moment) -> NM:
        """That of M."""
        return self.pattern

    def factor(self, at: Moment) -> float:
        """d, by which passes see what M does not keep."""
        return 0.0

    @torch.no_grad()
    def before_pass(self, number: int, at: Moment) -> None:
        targets = self.sparsifier.targets
        self._weights = [target.weight.detach().clone() for target in targets]
        self._masks = magnitude_masks(self.sparsifier, 1.0, self.pattern_at(at))
        for target, mask in zip(targets, self._masks, strict=True):
            attenuate(target, mask, self.factor(at))

    @torch.no_grad()
    def after_pass(self, number: int, at: Moment) -> None:
        for target, weight in zip(self.sparsifier.targets, self._weights, strict=True):
            target.weight.copy_(weight)
        self.regularise()
        self._masks, self._weights = [], []

    def regularise(self) -> None:
        """Adds to the gradients, with W back in place."""


@DYNAMICS.register("sr_ste")
class SRSTE(StraightThrough):
    """SR-STE (Zhou et al. 2021, equation 9): d = 0, and decay * (1 - M) * W is added to the gradient.

    Read: NM-sparsity/NM-sparsity, devkit/sparse_ops/sparse_ops.py (decay 2e-4). There the optimizer is SGD; AdamW
    divides this term, like all of the gradient, by the size of past gradients.
    """

    def __init__(self, decay: float = 2e-4) -> None:
        super().__init__()
        self.decay = decay

    def regularise(self) -> None:
        for target, mask in zip(self.sparsifier.targets, self._masks, strict=True):
            gradient = gradient_of(target)
            if gradient is not None:
                gradient.add_(target.matrix * ~mask, alpha=self.decay)


@DYNAMICS.register("gradient_flow")
class MaskDecay(StraightThrough):
    """Mask decay gradient flow (Bambhaniya et al. 2024): d falls from 1, MdGf-Linear or MdGf-Exponential.

    With x the share of the steps up to the plan's last pruning: linear: d = max(0, 1 - rate * x); exponential:
    d = exp(-rate * x). Read: abhibambhaniya/progressive_gradient_flow_nm_sparsity,
    timm/sparse_pruning/sparse_functions.py, where x counts steps and its coefficient is 2e-4 (1e-4 for ViT), which fits
    runs of that length only: `rate` is that coefficient times the number of steps.
    """

    def __init__(self, decay: str = "exponential", rate: float = 5.0) -> None:
        super().__init__()
        if decay not in ("linear", "exponential"):
            raise UsageError(f"pruning.dynamics.params.decay={decay}: must be linear or exponential")
        if not rate > 0:
            raise UsageError(f"pruning.dynamics.params.rate={rate:g}: must be greater than 0")
        self.decay, self.rate = decay, rate

    def factor(self, at: Moment) -> float:
        fallen = self.rate * at.step / at.last_pruning
        return max(0.0, 1 - fallen) if self.decay == "linear" else math.exp(-fallen)


@DYNAMICS.register("step_n_m")
class StructureDecay(StraightThrough):
    """Structure decay gradient flow (same paper and file): d = 0, and M becomes sparser in frames of equal length.

    SdGf-Stepwise: M-1:M, M/2:M, M/4:M, ... N:M. SdGf-Geometric: 8N:8M, 4N:4M, 2N:2M, N:M. The frames share the steps
    up to the plan's last pruning.
    """

    def __init__(self, form: str = "stepwise") -> None:
        super().__init__()
        if form not in ("stepwise", "geometric"):
            raise UsageError(f"pruning.dynamics.params.form={form}: must be stepwise or geometric")
        self.form = form
        self._frames: list[NM] = []

    def begin(self, model: nn.Module, sparsifier: Sparsifier) -> None:
        """Raises UsageError where the pattern is not N:M, or a frame's groups do not divide the inputs of a matrix."""
        super().begin(model, sparsifier)
        self._frames = stepwise(self.pattern) if self.form == "stepwise" else geometric(self.pattern)
        for frame in self._frames:
            frame.check({target.name: (len(target.matrix), len(target.matrix.t())) for target in sparsifier.targets})

    def pattern_at(self, at: Moment) -> NM:
        return self._frames[at.step * len(self._frames) // at.last_pruning]


def stepwise(pattern: NM) -> list[NM]:
    """M-1:M, then the halves of M above N, then N:M itself."""
    n, m = pattern.n, pattern.m
    halves = [m // 2**power for power in range(1, m.bit_length())]
    kept = [m - 1, *(half for half in halves if half > n), n]
    return [NM(each, m) for each in dict.fromkeys(kept)]


def geometric(pattern: NM) -> list[NM]:
    return [NM(times * pattern.n, times * pattern.m) for times in (8, 4, 2, 1)]
