"""Retraining of a part: which parameters learn in a phase, and PERP's low-rank adapters on pruned matrices.

PERP (Zimmer et al. 2023, arXiv 2312.15230): after pruning only biases, norms, the head and adapters learn, and the
adapters are merged into the weights without losing a zero. Read: ZIB-IOL/PERP, customLayers.py and peft_methods.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from prunebench.optim import load_moments, moments
from prunebench.sparsity.sparsifier import Sparsifier
from prunebench.targets import Target, fresh_parameters


def learning_parameters(model: nn.Module, train: str) -> set[str]:
    """Names of what learns in a phase: "head" (and pooler), or "perp": those, all biases and all norms."""
    head = fresh_parameters(model)
    if train == "head":
        return head
    return head | {name for name, parameter in model.named_parameters() if parameter.ndim < 2}


def freeze_others(model: nn.Module, learning: set[str]) -> None:
    """Takes the gradients of all others away, and the optimizer leaves a parameter without one alone.

    They are computed first: data-parallel training wants the same set of gradients at every step.
    """
    for name, parameter in model.named_parameters():
        if name not in learning:
            parameter.grad = None


class Adapters:
    """Matrices A (rank, in) and B (out, rank) beside every target, which learn in its stead in phases of `train: perp`.

    W0 is the matrix at the start, M its mask, s = alpha / rank. The weight that is evaluated and saved:

        mask, MaskLoRA:    W0 + s * M o (B A), also while training
        scale, ScaleLoRA:  W0 o (B A), also while training
        prune, LoRA-Prune: W0 + s * M o (B A), but W0 + s * B A while training

    B A begins at 0 (A as peft draws it, B zero), for `scale` at 1 (both 1 / sqrt(rank)). A target's parameter holds the
    weight, so passes run as ever; its gradient becomes those of A and B, and the optimizer of the model steps them.
    A pruning within a phase merges what there is and begins anew.
    """

    def __init__(self, kind: str = "mask", rank: int = 16, alpha: float = 32.0, seed: int = 0) -> None:
        self.kind, self.rank, self.scale, self.seed = kind, rank, alpha / rank, seed
        self.pairs: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}  # A and B, by target
        self.before: dict[str, Tensor] = {}  # W0 (out, in); empty while no adapter is at work

    def begin(self, sparsifier: Sparsifier, optimizer: torch.optim.Optimizer) -> None:
        """Once before training or before going on: gives A and B to the optimizer, without weight decay."""
        self._sparsifier, self._optimizer = sparsifier, optimizer
        for target in sparsifier.targets:
            (out, inputs), weight = target.matrix.shape, target.weight
            a, b = weight.new_zeros(self.rank, inputs), weight.new_zeros(out, self.rank)
            self.pairs[target.name] = (nn.Parameter(a), nn.Parameter(b))
        optimizer.add_param_group({"params": self._all(), "weight_decay": 0.0})

    def start(self, step: int) -> None:
        """New adapters on the weights as they are."""
        self.stop()
        numbers = np.random.default_rng([self.seed, step])
        for target in self._sparsifier.targets:
            self.before[target.name] = target.matrix.clone()
            a, b = self.pairs[target.name]
            if self.kind == "scale":
                a.data.fill_(self.rank**-0.5)
                b.data.fill_(self.rank**-0.5)
            else:
                bound = 1 / math.sqrt(a.shape[1])
                a.data.copy_(torch.from_numpy(numbers.uniform(-bound, bound, tuple(a.shape))))
                b.data.zero_()

    def stop(self) -> None:
        """The weights stay as they are, with everything merged."""
        self.before = {}
        for parameter in self._all():
            parameter.grad = None
            self._optimizer.state.pop(parameter, None)

    def parameters(self) -> Iterable[nn.Parameter]:
        """What learns just now, to be clipped together with the model."""
        return self._all() if self.before else ()

    @torch.no_grad()
    def before_pass(self) -> None:
        """LoRA-Prune trains without masks."""
        if self.kind == "prune":
            self._write(merged=False)

    @torch.no_grad()
    def take_gradients(self) -> None:
        """From dL/dW to dL/dA and dL/dB; W itself is left without."""
        for target in self._at_work():
            gradient = target.weight.grad
            if gradient is None:
                continue
            (a, b), wanted = self.pairs[target.name], target.oriented(gradient)
            if self.kind == "scale":
                wanted = wanted * self.before[target.name]
            else:
                mask = self._mask(target) if self.kind == "mask" else None
                wanted = self.scale * (wanted if mask is None else wanted * mask)
            a.grad, b.grad = b.t() @ wanted, wanted @ a.t()
            target.weight.grad = None

    @torch.no_grad()
    def after_step(self) -> None:
        """Merges what was learned."""
        self._write(merged=True)

    def _write(self, merged: bool) -> None:
        for target in self._at_work():
            (a, b), before = self.pairs[target.name], self.before[target.name]
            product = b @ a
            if self.kind == "scale":
                target.matrix.copy_(before * product)
                continue
            mask = self._mask(target) if merged else None
            if mask is not None:
                product.mul_(mask)
            target.matrix.copy_(torch.add(before, product, alpha=self.scale))

    def _mask(self, target: Target) -> Tensor | None:
        """(out, in); None: nothing is pruned."""
        mask = self._sparsifier.masks.get(target.name)
        return None if mask is None else target.oriented(mask)

    def _at_work(self) -> list[Target]:
        return self._sparsifier.targets if self.before else []

    def _all(self) -> list[nn.Parameter]:
        return [parameter for _, parameter in self._named()]

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        pairs = self.pairs.items()
        return [(f"{name}.{letter}", each) for name, pair in pairs for letter, each in zip("ab", pair, strict=True)]

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed run needs: A, B, their moments and W0; nothing while no adapter is at work."""
        if not self.before:
            return {}
        learned = {name: parameter.detach() for name, parameter in self._named()}
        before = {f"{name}.before": matrix for name, matrix in self.before.items()}
        return learned | before | moments(self._optimizer, self._named())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse; after the optimizer's own moments were loaded."""
        if not state:
            return
        self.before = {name: state[f"{name}.before"].to(a.device) for name, (a, _) in self.pairs.items()}
        for name, parameter in self._named():
            parameter.data.copy_(state[name])
        load_moments(self._optimizer, self._named(), state)
