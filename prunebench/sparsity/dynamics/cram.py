"""CrAM: the gradient is taken where the weights are perturbed and pruned, so that pruning will do little harm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from prunebench.errors import UsageError
from prunebench.sparsity.dynamics.base import DYNAMICS, Dynamics, Moment
from prunebench.sparsity.dynamics.magnitudes import attenuate, gradient_of, magnitude_masks
from prunebench.sparsity.patterns import NM

if TYPE_CHECKING:
    from prunebench.sparsity.sparsifier import Sparsifier


@DYNAMICS.register("cram")
class CrAM(Dynamics):
    """Compression-aware minimiser (Peste et al. 2023, algorithm 1), with two forward and backward passes an update.

    With g the gradient at w: w' = w + rho * g, pruned by magnitude to a sparsity drawn from `sparsities`; g' the
    gradient there, masked like it. The optimizer, at w, is given g' + g, or g' alone without `plus`.

    Read: IST-DASLab/CrAM, optimization/custom_optimizers.py (TopkCrAM with sparse_grad and without grad_norm): g is
    neither clipped nor normalised where it perturbs, and all parameters are perturbed. There every tensor of two axes
    and more is pruned, here the run's targets, by its scope (the source's is global) and pattern. The loss that is
    logged is that of the second pass. The draw depends on seed and step alone.
    """

    passes = 2

    def __init__(
        self, rho: float = 0.05, sparsities: Sequence[float] | None = None, plus: bool = True, seed: int = 0
    ) -> None:
        """`sparsities`: None is the sparsity that the run ends with."""
        for sparsity in sparsities or ():
            if not 0 <= sparsity < 1:
                raise UsageError(f"pruning.dynamics.params.sparsities: {sparsity:g} must be in [0, 1)")
        self.rho, self.sparsities, self.plus, self.seed = rho, sparsities, plus, seed
        self._kept: list[tuple[nn.Parameter, Tensor, Tensor]] = []  # with its value and the gradient there
        self._masks: list[Tensor] = []

    @torch.no_grad()
    def after_pass(self, number: int, at: Moment) -> None:
        if number == 0:
            self._perturb(at)
        else:
            self._restore()

    def _perturb(self, at: Moment) -> None:
        self.sparsifier.mask_gradients()  # what is pruned already stays at zero
        for parameter in self.model.parameters():
            gradient = parameter.grad
            if gradient is not None:
                self._kept.append((parameter, parameter.detach().clone(), gradient))
                parameter.add_(gradient, alpha=self.rho)
                parameter.grad = None
        self._masks = self._draw(np.random.default_rng([self.seed, at.step]), at)
        for target, mask in zip(self.sparsifier.targets, self._masks, strict=True):
            attenuate(target, mask, 0.0)

    def _draw(self, random: np.random.Generator, at: Moment) -> list[Tensor]:
        sparsities = self.sparsities or [at.target]
        return magnitude_masks(self.sparsifier, sparsities[int(random.integers(len(sparsities)))])

    def _restore(self) -> None:
        for target, mask in zip(self.sparsifier.targets, self._masks, strict=True):
            gradient = gradient_of(target)
            if gradient is not None:
                gradient.mul_(mask)
        for parameter, value, clean in self._kept:
            parameter.copy_(value)
            if self.plus and parameter.grad is not None:
                parameter.grad.add_(clean)
        self._kept, self._masks = [], []


@DYNAMICS.register("cram_n_m")
class CrAMNM(CrAM):
    """The same towards 2:4 or 4:8, whichever a coin says at each step (NMTopkCrAM of the same file)."""

    def __init__(self, rho: float = 0.05, plus: bool = True, seed: int = 0) -> None:
        super().__init__(rho, None, plus, seed)
        self.patterns = (NM(2, 4), NM(4, 8))

    def begin(self, model: nn.Module, sparsifier: Sparsifier) -> None:
        """Raises UsageError where a matrix has no groups of 8 inputs."""
        super().begin(model, sparsifier)
        for pattern in self.patterns:
            pattern.check({target.name: (len(target.matrix), len(target.matrix.t())) for target in sparsifier.targets})

    def _draw(self, random: np.random.Generator, at: Moment) -> list[Tensor]:
        return magnitude_masks(self.sparsifier, 0.5, self.patterns[int(random.integers(2))])
