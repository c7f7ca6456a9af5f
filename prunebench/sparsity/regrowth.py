"""What exchanges pruned weights for others after each pruning, the sparsity kept: an axis of its own."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

from prunebench.errors import RunError, UsageError
from prunebench.sparsity.masks import count, exclude, has_nan, top_mask
from prunebench.sparsity.registry import Registry

if TYPE_CHECKING:
    from prunebench.targets import Target


class Regrowth(ABC):
    """Drops and regrows weights. Settings come to the constructor (`pruning.regrowth.params`)."""

    @abstractmethod
    def exchange(self, target: Target, mask: Tensor, gradient: Tensor, passed: float) -> Tensor:
        """A mask (out, in) of as many weights as `mask`.

        Args:
            gradient: (out, in) of the loss of one batch, also where weights are pruned.
            passed: the share of training that has passed, in [0, 1].
        """


REGROWTHS: Registry[Regrowth] = Registry("regrowth", "prunebench.regrowths")


class DropAndGrow(Regrowth):
    """Drops a share of a matrix's smallest weights, and grows as many where the gradient is largest.

    Grown weights begin at zero. One that is dropped and grown at once keeps its value, as in both references, since
    what the mask keeps is not touched. Ties go to the lower index.

    The gradient is dense, of one batch of calibration data and without dropout, after the pruning; the references
    take that of the training batch at hand, with dropout.
    """

    @abstractmethod
    def dropped(self, kept: int, passed: float) -> int:
        """How many of a matrix's `kept` weights are dropped when the share `passed` of training has passed."""

    def exchange(self, target: Target, mask: Tensor, gradient: Tensor, passed: float) -> Tensor:
        """As in `Regrowth`. Raises RunError where the gradient contains NaN."""
        if has_nan(gradient):
            raise RunError(f"the gradient of {target.name} contains NaN: did training diverge?")
        kept = count(mask)
        dropped = self.dropped(kept, passed)
        magnitude = target.matrix.abs()
        exclude(magnitude, mask)
        stay = top_mask(magnitude, kept - dropped)
        growth = gradient.abs()
        exclude(growth, ~stay)
        return stay | top_mask(growth, dropped)


@REGROWTHS.register("rigl")
class RigL(DropAndGrow):
    """Drops the share drop_fraction / 2 * (1 + cos(pi * passed / end)), and none after `end` (Evci et al. 2020).

    Read: google-research/rigl, rigl/sparse_optimizers_base.py (fraction 0.3 in *_train_eval.py; the number is rounded
    down; its drop scores have noise of 1e-5, which ours have not). `end` is a share of training: 75,000 of 97,656 steps
    in rigl/cifar_resnet/resnet_train_eval.py, 0.75 in nollied/rigl-torch, README.md.
    """

    def __init__(self, drop_fraction: float = 0.3, end: float = 0.75) -> None:
        self.drop_fraction, self.end = _share("drop_fraction", drop_fraction), _share("end", end)

    def dropped(self, kept: int, passed: float) -> int:
        if passed > self.end or not self.end:
            return 0
        return math.floor(self.drop_fraction / 2 * (1 + math.cos(math.pi * passed / self.end)) * kept)


@REGROWTHS.register("granet")
class GraNet(DropAndGrow):
    """Drops a share that falls by a cosine from drop_fraction to final_drop_fraction at the end of training.

    The zero-cost neuroregeneration of Liu et al. (2021), and what SMC-Bench (Liu et al. 2023) runs as RigL.

    Read: Shiweiliuiiiiiii/GraNet, CIFAR/sparselearning/core.py (0.5 to 0.005; the number is rounded up; ties at the
    threshold are all dropped there) and VITA-Group/SMC-Bench, Commonsense_Reasoning/fairseq_cli/sparse_core.py.
    """

    def __init__(self, drop_fraction: float = 0.5, final_drop_fraction: float = 0.005) -> None:
        self.first = _share("drop_fraction", drop_fraction)
        self.last = _share("final_drop_fraction", final_drop_fraction)

    def dropped(self, kept: int, passed: float) -> int:
        share = self.last + (self.first - self.last) / 2 * (1 + math.cos(math.pi * passed))
        return math.ceil(share * kept)


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise UsageError(f"pruning.regrowth.params.{name}={value:g} is no share: choose it in [0, 1]")
    return value
