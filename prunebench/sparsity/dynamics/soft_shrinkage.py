"""Iterative soft shrinkage: the smallest weights are made smaller at every step, before they are pruned."""

from __future__ import annotations

import torch

from prunebench.errors import UsageError
from prunebench.sparsity.dynamics.base import DYNAMICS, Dynamics, Moment
from prunebench.sparsity.dynamics.magnitudes import attenuate, magnitude_masks


@DYNAMICS.register("soft_shrinkage")
class SoftShrinkage(Dynamics):
    """ISS-P (Wang et al. 2023): after each step the smallest weights, as many as are to be pruned, times `ratio`.

    Which they are is looked up anew at every step, so a weight that grows escapes. The plan prunes them in the end.
    `ratio` 0 is the paper's iterative hard thresholding (IHT).

    Read: Jiamian-Wang/Iterative-Soft-Shrinkage-SR, basicsr/pruner/ist_pruner.py (`_iht`) and README.md, where it is
    0.95; the share of weights is that of the end from the first step on, and is taken of every matrix
    (pruning/scope=uniform). There at most 99.5 % of a matrix shrink; here the scope's floor sets that.
    """

    def __init__(self, ratio: float = 0.95) -> None:
        if not 0 <= ratio < 1:
            raise UsageError(f"pruning.dynamics.params.ratio={ratio:g}: must be in [0, 1)")
        self.ratio = ratio

    @torch.no_grad()
    def after_step(self, at: Moment) -> None:
        masks = magnitude_masks(self.sparsifier, at.target)
        for target, mask in zip(self.sparsifier.targets, masks, strict=True):
            attenuate(target, mask, self.ratio)
