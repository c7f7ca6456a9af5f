"""Composes criterion, scope and pattern, and owns the masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from prunebench.errors import RunError, UsageError
from prunebench.sparsity.criteria import CRITERIA, Criterion
from prunebench.sparsity.masks import clear, count, exclude, has_nan
from prunebench.sparsity.patterns import PATTERNS, Pattern
from prunebench.sparsity.scopes import SCOPES, Scope

if TYPE_CHECKING:
    from prunebench.targets import Target

COLLAPSED = 0.001  # a matrix that keeps a smaller share of its weights hardly passes anything on


@dataclass(frozen=True)
class Update:
    """What one pruning did. Shares are of the targets' weights; `density` is by target name."""

    asked: float
    achieved: float
    churn: float  # share of weights whose mask changed
    density: dict[str, float]
    collapsed: tuple[str, ...]  # targets that keep less than 0.1 % of their weights


class Sparsifier:
    """The masks of `targets` and everything that keeps pruned weights at zero.

    `masks` holds a bool tensor (True = keep) for each target, by its name, in the layout the parameter is stored in.
    It is empty, and the model dense, until the first `update`.

    Pruned weights stay zero because their gradients are masked (before clipping, so that the norm is that of the
    survivors) and their moments cleared after each update: an optimizer whose step is zero for zero weight, gradient
    and moments (SGD, Adam, AdamW with or without weight decay) then leaves them exactly zero.
    """

    def __init__(self, targets: Sequence[Target], criterion: Criterion, scope: Scope, pattern: Pattern) -> None:
        """Raises UsageError where the pattern cannot cover a target, ValueError where two targets share a weight."""
        if len({id(target.weight) for target in targets}) < len(targets):
            raise ValueError("two targets share a parameter: give each once")
        pattern.check({target.name: (target.matrix.shape[0], target.matrix.shape[1]) for target in targets})
        self.targets = list(targets)
        self.criterion = criterion
        self.scope = scope
        self.pattern = pattern
        self.masks: dict[str, Tensor] = {}

    @classmethod
    def from_zeros(cls, targets: Sequence[Target], criterion: Criterion, scope: Scope, pattern: Pattern) -> Self:
        """For a model that is sparse already: its zeros are masked from the start."""
        sparsifier = cls(targets, criterion, scope, pattern)
        sparsifier.masks = {target.name: target.weight.detach() != 0 for target in targets}
        return sparsifier

    @torch.no_grad()
    def update(self, sparsity: float) -> Update:
        """Prunes to `sparsity`, in [0, 1], of all weights of the targets together.

        Exactly round(sparsity * total) weights are pruned, half up (with pattern n_m: see there). Weights that were
        pruned stay so; a `sparsity` below what is reached already changes nothing.

        Raises:
            RunError: a score is NaN, or the criterion gave something other than a score for each weight.
        """
        if not 0 <= sparsity <= 1:
            raise UsageError(f"sparsity={sparsity:g} is no share of weights: choose it in [0, 1)")
        scores = [self._score(target) for target in self.targets]
        masks = self.pattern.masks(scores, sparsity, self.scope)
        del scores
        changed, kept = 0, {}
        for target, mask in zip(self.targets, masks, strict=True):
            mask = (mask.t() if target.transposed else mask).contiguous()
            before = self.masks.get(target.name)
            changed += count(mask ^ before) if before is not None else mask.numel() - count(mask)
            kept[target.name] = count(mask)
            self.masks[target.name] = mask
        self.apply()
        return self._report(sparsity, changed, kept)

    def _score(self, target: Target) -> Tensor:
        score = self.criterion.score(target).detach()
        if score.shape != target.matrix.shape or not score.is_floating_point():
            raise RunError(f"the score of {target.name} is {score.dtype} {tuple(score.shape)}, not one for each weight")
        if has_nan(score):
            raise RunError(f"the score of {target.name} contains NaN: did training diverge?")
        # -inf is for what is pruned already; the criterion's own -inf becomes the lowest score above that.
        score = score.clamp(min=torch.finfo(score.dtype).min)
        mask = self.masks.get(target.name)
        if mask is not None:
            exclude(score, mask.t() if target.transposed else mask)
        return score

    def _report(self, asked: float, changed: int, kept: dict[str, int]) -> Update:
        total = self._total()
        density = {target.name: kept[target.name] / target.weight.numel() for target in self.targets}
        collapsed = tuple(name for name, share in density.items() if share < COLLAPSED)
        return Update(asked, (total - sum(kept.values())) / total, changed / total, density, collapsed)

    @torch.no_grad()
    def apply(self) -> None:
        """Sets pruned weights to zero (after an update, or after weights were loaded)."""
        for target in self._masked():
            clear(target.weight, self.masks[target.name])

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Sets the gradients of pruned weights to zero. Before clipping, at every step."""
        for target in self._masked():
            gradient = target.weight.grad
            if gradient is not None:
                # A product, so that NaN stays seen. By uint8: the conversion of bool is not vectorised on CPU.
                gradient.mul_(self.masks[target.name].view(torch.uint8))

    @torch.no_grad()
    def zero_moments(self, optimizer: torch.optim.Optimizer) -> None:
        """Clears what `optimizer` remembers of pruned weights. After every update."""
        for target in self._masked():
            for value in optimizer.state.get(target.weight, {}).values():
                if isinstance(value, Tensor) and value.shape == target.weight.shape:
                    clear(value, self.masks[target.name])

    def sparsity(self) -> float:
        """The share of weights that are masked and really zero, counted now."""
        return sum(self._zeros(target) for target in self.targets) / self._total()

    def per_layer(self) -> dict[str, float]:
        """`sparsity` of each target, by name."""
        return {target.name: self._zeros(target) / target.weight.numel() for target in self.targets}

    def _zeros(self, target: Target) -> int:
        mask = self.masks.get(target.name)
        return 0 if mask is None else int(((target.weight == 0) & ~mask).count_nonzero())

    def _masked(self) -> list[Target]:
        return self.targets if self.masks else []

    def _total(self) -> int:
        return sum(target.weight.numel() for target in self.targets)

    def state_dict(self) -> dict[str, Tensor]:
        """The masks; empty before the first update."""
        return dict(self.masks)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes masks over; `apply` then zeroes the weights.

        Raises:
            RunError: `state` holds other names, shapes or types than the masks of these targets.
        """
        shapes = {target.name: target.weight.shape for target in self.targets}
        other = sorted(shapes.keys() ^ state.keys()) if state else []
        if other:
            raise RunError(f"the saved masks are of another model: {other[0]} is in only one of the two")
        for name, mask in state.items():
            if mask.dtype != torch.bool or mask.shape != shapes[name]:
                saved, needed = f"{mask.dtype} {tuple(mask.shape)}", f"{torch.bool} {tuple(shapes[name])}"
                raise RunError(f"the saved mask of {name} is {saved}, not {needed}")
        devices = {target.name: target.weight.device for target in self.targets}
        self.masks = {name: mask.to(devices[name]).contiguous() for name, mask in state.items()}


def build_sparsifier(
    targets: Sequence[Target],
    *,
    criterion: str = "magnitude",
    params: Mapping[str, Any] | None = None,
    scope: str = "global",
    floor: float = 0.0,
    pattern: str = "unstructured",
    n: int | None = None,
    m: int | None = None,
    seed: int = 0,
    from_zeros: bool = False,
) -> Sparsifier:
    """A Sparsifier from the names and settings of a config. Raises UsageError for what is unknown or missing."""
    make = Sparsifier.from_zeros if from_zeros else Sparsifier
    group = {key: value for key, value in {"n": n, "m": m}.items() if value is not None}
    return make(
        targets,
        CRITERIA.build(criterion, params, seed=seed),
        SCOPES.build(scope, floor=floor),
        PATTERNS.build(pattern, group),
    )
