"""Learning rate and sparsity as pure functions of the optimizer step. No state, so a resumed run needs none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class LrCycle:
    """One learning-rate cycle: linear warm-up to `peak`, then linear decay towards `final`.

    `start` and `stop` are steps; the value `final` would be reached at `stop`, which is the first step of the next
    cycle, as transformers' `get_linear_schedule_with_warmup` has it. (SparseML's `cyclic_linear` reaches it one
    step earlier.) Warm-up covers `warmup` steps and begins at peak/warmup, so that no step is spent at zero.
    """

    start: int
    stop: int
    peak: float
    final: float
    warmup: int = 0

    def __call__(self, step: int) -> float:
        """The learning rate of the update made at `step`."""
        done = step - self.start
        if done < self.warmup:
            return self.peak * (done + 1) / self.warmup
        length = self.stop - self.start - self.warmup
        passed = min(1.0, (done - self.warmup) / max(1, length))
        return self.peak * (1 - passed) + self.final * passed


@dataclass(frozen=True)
class SparsityCurve:
    """Sparsity between the first pruning, at step `start`, and the last one, at step `stop`.

    `shape` is, with x the share of the window that has passed:
    cubic: s + (i - s)(1 - x)^3 (Zhu & Gupta 2017, equation 1); linear: i + (s - i)x;
    geometric: the density falls by the same factor in every stretch of equal length, (1 - i)((1 - s)/(1 - i))^x.
    """

    start: int
    stop: int
    initial: float
    target: float
    shape: str = "cubic"

    def __call__(self, step: int) -> float:
        """The sparsity asked for by a pruning at `step`; exactly `target` from `stop` on."""
        if step >= self.stop:
            return self.target
        x = (step - self.start) / (self.stop - self.start)
        return SHAPES[self.shape](x, self.initial, self.target)


def cubic(x: float, initial: float, target: float) -> float:
    return target + (initial - target) * (1 - x) ** 3


def linear(x: float, initial: float, target: float) -> float:
    return initial + (target - initial) * x


def geometric(x: float, initial: float, target: float) -> float:
    return 1 - (1 - initial) * float(((1 - target) / (1 - initial)) ** x)


SHAPES: dict[str, Callable[[float, float, float], float]] = {"cubic": cubic, "linear": linear, "geometric": geometric}


def units_of_pruning(sparsity: float, units_per_halving: float = 1.0) -> int:
    """n(s) = max(1, ceil(c log2(1 / (1 - s)))): a unit of training for every halving of the weights left.

    Our reconstruction of the scaling rule of Kurtic, Hoefler & Alistarh (2024), whose text was not available.
    """
    halvings = math.log2(1 / (1 - sparsity))
    return max(1, math.ceil(units_per_halving * halvings - 1e-9))
