"""Composes criterion, scope, pattern, refinement, update and regrowth, and owns the masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch
from torch import Tensor

import prunebench.sparsity.dsnot  # enters itself, as the next one
import prunebench.sparsity.least_squares  # noqa: F401
from prunebench.config import AxisConfig
from prunebench.curves import SHAPES
from prunebench.errors import RunError, UsageError
from prunebench.sparsity.calibration import Calibration
from prunebench.sparsity.criteria import CRITERIA, Criterion, Sample, Solver
from prunebench.sparsity.masks import clear, count, exclude, has_nan
from prunebench.sparsity.patterns import PATTERNS, Budget, Pattern, sum_units
from prunebench.sparsity.refinements import REFINEMENTS, Refinement
from prunebench.sparsity.regrowth import REGROWTHS, Regrowth
from prunebench.sparsity.scopes import SCOPES, PerMatrix, Scope, SearchingScope
from prunebench.sparsity.stats import GradientStat, InputStat
from prunebench.sparsity.updates import UPDATES, WeightUpdate

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


@dataclass(frozen=True)
class Axes:
    """How to prune; what is None does not happen."""

    criterion: Criterion[Any]
    scope: Scope
    pattern: Pattern
    refinement: Refinement[Any] | None = None
    update: WeightUpdate[Any] | None = None
    regrowth: Regrowth | None = None


@dataclass
class _Seen:
    """What observes one target, for each of the axes that look at data."""

    criterion: Any = None
    refinement: Any = None
    update: Any = None

    def observers(self, kind: type) -> list[Any]:
        return [stat for stat in (self.criterion, self.refinement, self.update) if isinstance(stat, kind)]


Done = dict[str, tuple[Tensor, Tensor]]  # by target name: weight and mask, as the parameter is stored


class Unfinished(Protocol):
    """Where a pruning layer by layer keeps the matrices that are done, so that it can be stopped and continued."""

    def read(self, level: float) -> Done:
        """What was done of the pruning to `level` by whoever was stopped."""

    def add(self, level: float, done: Done) -> None:
        """Takes the matrices of one more layer."""


class Sparsifier:
    """The masks of `targets` and everything that keeps pruned weights at zero.

    `masks` holds a bool tensor (True = keep) for each target, by its name, in the layout the parameter is stored in.
    It is empty, and the model dense, until the first `update`.

    Pruned weights stay zero because their gradients are masked (before clipping, so that the norm is that of the
    survivors) and their moments cleared after each update: an optimizer whose step is zero for zero weight, gradient
    and moments (SGD, Adam, AdamW with or without weight decay) then leaves them exactly zero.
    """

    def __init__(self, targets: Sequence[Target], axes: Axes) -> None:
        """Raises UsageError where the axes do not fit each other or a target, ValueError where two share a weight."""
        if len({id(target.weight) for target in targets}) < len(targets):
            raise ValueError("two targets share a parameter: give each once")
        shapes = {target.name: (target.matrix.shape[0], target.matrix.shape[1]) for target in targets}
        axes.pattern.check(shapes)
        axes.criterion.check(axes.pattern.size)
        self.targets = list(targets)
        self.axes = axes
        self.pattern = axes.pattern
        self.masks: dict[str, Tensor] = {}

    @classmethod
    def from_zeros(cls, targets: Sequence[Target], axes: Axes) -> Self:
        """For a model that is sparse already: its zeros are masked from the start."""
        sparsifier = cls(targets, axes)
        sparsifier.masks = {target.name: target.weight.detach() != 0 for target in targets}
        return sparsifier

    @property
    def sample(self) -> Sample | None:
        """How many examples the axes look at by default; None: the weights are enough."""
        axes = self.axes
        samples = [axis.sample for axis in (axes.criterion, axes.refinement, axes.update, axes.scope) if axis]
        asked = [sample for sample in samples if sample is not None]
        return max(asked, key=lambda sample: sample.examples) if asked else None

    @torch.no_grad()
    def update(
        self,
        sparsity: float,
        calibration: Calibration | None = None,
        passed: float = 0.0,
        unfinished: Unfinished | None = None,
    ) -> Update:
        """Prunes to `sparsity`, in [0, 1], of all weights of the targets together.

        Exactly round(sparsity * total) weights are pruned, half up (with other patterns than single weights: see
        there). Weights that were pruned stay so, but for `regrowth` and criteria that revive them; a `sparsity` below
        what is reached already changes nothing.

        Args:
            calibration: what the axes look at; needed where `sample` is not None, and for regrowth.
            passed: the share of training that has passed, for regrowth.
            unfinished: keeps what is done of a pruning that goes layer by layer.

        Raises:
            RunError: a score is NaN, or the criterion gave something other than a score for each weight.
        """
        if not 0 <= sparsity <= 1:
            raise UsageError(f"sparsity={sparsity:g} is no share of weights: choose it in [0, 1)")
        if calibration is None and (self.sample or self.axes.regrowth):
            raise ValueError("these axes look at data: give a calibration")
        before = dict(self.masks)
        for level in self._levels(self.axes.criterion.level(sparsity)):
            if self._one_by_one:
                self._prune_one_by_one(level, calibration, unfinished)
            else:
                self._prune_together(level, calibration)
            self.apply()
        if self.axes.regrowth is not None and calibration is not None and passed < 1:  # what regrows wants training
            self._regrow(self.axes.regrowth, calibration, passed)
        return self._report(sparsity, before)

    def _levels(self, sparsity: float) -> list[float]:
        """The sparsities on the way: a criterion may want to look at the data again in between."""
        criterion = self.axes.criterion
        first = 1 - sum(count(mask) for mask in self.masks.values()) / self._total() if self.masks else 0.0
        if criterion.recomputations == 1 or first >= sparsity:
            return [sparsity]
        curve, parts = SHAPES[criterion.recomputation_curve], criterion.recomputations
        return [curve(part / parts, first, sparsity) for part in range(1, parts)] + [sparsity]

    @property
    def _one_by_one(self) -> bool:
        """Whether matrices are pruned layer by layer: where the method wants it, and no scope compares all of them."""
        criterion, scope = self.axes.criterion, self.axes.scope
        settled = isinstance(scope, PerMatrix) or not self.axes.pattern.asks_scope
        wanted = any(axis.layer_by_layer for axis in (criterion, self.axes.refinement, self.axes.update) if axis)
        return isinstance(criterion, Solver) or (wanted and settled)

    # --- all targets together ---

    def _prune_together(self, sparsity: float, calibration: Calibration | None) -> None:
        seen = {target.name: self._seen(target) for target in self.targets}
        if calibration is not None and self.sample is not None:
            self._observe_gradients(calibration, seen)
            observers = self._input_observers(self.targets, seen)
            if observers:
                calibration.observe_inputs(observers)
        self._prepare(seen)
        scores = [self._score(target, seen[target.name]) for target in self.targets]
        masks = self._choose(scores, sparsity, calibration)
        del scores
        self._settle({target.name: mask for target, mask in zip(self.targets, masks, strict=True)}, seen)

    def _choose(self, scores: list[Tensor], sparsity: float, calibration: Calibration | None) -> list[Tensor]:
        """The masks; a scope that proposes several is judged by the loss that each leaves on the examples."""
        scope = self.axes.scope
        if not isinstance(scope, SearchingScope):
            return self.pattern.masks(scores, sparsity, scope)
        assert calibration is not None
        losses = []
        for trial in range(scope.trials):
            scope.begin(trial)
            with self._tried(self.pattern.masks(scores, sparsity, scope)):
                losses.append(calibration.loss())
        scope.begin(losses.index(min(losses)))
        return self.pattern.masks(scores, sparsity, scope)

    @contextmanager
    def _tried(self, masks: list[Tensor]) -> Iterator[None]:
        """The model with these masks, for a moment."""
        kept = [target.weight.detach().clone() for target in self.targets]
        try:
            for target, mask in zip(self.targets, masks, strict=True):
                target.matrix.mul_(mask)
            yield
        finally:
            for target, weight in zip(self.targets, kept, strict=True):
                target.weight.copy_(weight)

    def _settle(self, masks: dict[str, Tensor], seen: Mapping[str, _Seen]) -> None:
        """Refines masks (out, in), makes up for what they take away, and keeps them."""
        axes = self.axes
        targets = {target.name: target for target in self.targets if target.name in masks}
        if axes.refinement is not None:
            for name, target in targets.items():
                masks[name] = axes.refinement.refine(target, masks[name], self._alive(target), seen[name].refinement)
        if axes.update is not None:
            axes.update.prepare(targets, masks, axes.criterion, {name: seen[name].criterion for name in targets})
            for name, target in targets.items():
                axes.update.apply(target, masks[name], seen[name].update, axes.criterion, seen[name].criterion)
        for name, target in targets.items():
            self._keep(target, masks[name])

    def _keep(self, target: Target, mask: Tensor) -> None:
        self.masks[target.name] = target.oriented(mask).contiguous()

    def _alive(self, target: Target) -> Tensor:
        """(out, in): what is not pruned yet."""
        mask = self.masks.get(target.name)
        if mask is None:
            return torch.ones_like(target.matrix, dtype=torch.bool)
        return target.oriented(mask)

    # --- layer by layer ---

    def _prune_one_by_one(
        self, sparsity: float, calibration: Calibration | None, unfinished: Unfinished | None
    ) -> None:
        assert calibration is not None
        seen: dict[str, _Seen] = {}
        done = unfinished.read(sparsity) if unfinished is not None else {}
        if self._looks_at_gradients():  # of the model as it is before any of its layers is pruned
            seen = {target.name: self._seen(target) for target in self.targets}
            self._observe_gradients(calibration, seen)
            self._prepare(seen)
        budgets = dict(zip((target.name for target in self.targets), self._budgets(sparsity), strict=True))

        def observers_of(members: list[Target]) -> list[tuple[Target, InputStat]]:
            left = [target for target in members if target.name not in done]
            for target in left:
                seen.setdefault(target.name, self._seen(target))
            return self._input_observers(left, seen)

        for members in calibration.layer_by_layer(self.targets, observers_of):
            for target in members:
                if target.name in done:
                    weight, self.masks[target.name] = (each.to(target.weight.device) for each in done[target.name])
                    target.weight.copy_(weight)
                else:
                    self._prune_one(target, budgets[target.name], seen.pop(target.name))
            fresh = [target for target in members if target.name not in done]
            if unfinished is not None and fresh:
                unfinished.add(sparsity, {each.name: (each.weight.detach(), self.masks[each.name]) for each in fresh})

    def _prune_one(self, target: Target, budget: Budget, seen: _Seen) -> None:
        criterion = self.axes.criterion
        if isinstance(criterion, Solver):
            self._keep(target, criterion.solve(target, self._alive(target), budget, seen.criterion))
        else:
            mask = self.pattern.within(self._score(target, seen), budget, self.axes.scope)
            self._settle({target.name: mask}, {target.name: seen})
        clear(target.weight, self.masks[target.name])

    def _budgets(self, sparsity: float) -> list[Budget]:
        size = self.pattern.size
        shapes = [(target.matrix.shape[0], target.matrix.shape[1]) for target in self.targets]
        alive = [count(self._alive(target).contiguous()) // size for target in self.targets]
        return self.pattern.budgets(shapes, alive, sparsity, self.axes.scope)

    # --- what is observed ---

    def _seen(self, target: Target) -> _Seen:
        axes = self.axes
        return _Seen(*(axis.stat(target) if axis else None for axis in (axes.criterion, axes.refinement, axes.update)))

    def _looks_at_gradients(self) -> bool:
        return bool(self._seen(self.targets[0]).observers(GradientStat))

    def _observe_gradients(self, calibration: Calibration, seen: Mapping[str, _Seen]) -> None:
        if not any(each.observers(GradientStat) for each in seen.values()):
            return
        for gradients in calibration.gradients(self.targets):
            for target, gradient in zip(self.targets, gradients, strict=True):
                if target.name in self.masks:
                    gradient = gradient * self._alive(target)
                for stat in seen[target.name].observers(GradientStat):
                    stat.observe_gradient(gradient)

    def _input_observers(self, targets: Iterable[Target], seen: Mapping[str, _Seen]) -> list[tuple[Target, InputStat]]:
        return [(target, stat) for target in targets for stat in seen[target.name].observers(InputStat)]

    def _prepare(self, seen: Mapping[str, _Seen]) -> None:
        targets = {target.name: target for target in self.targets}
        self.axes.criterion.prepare(targets, {name: each.criterion for name, each in seen.items()})

    def _score(self, target: Target, seen: _Seen) -> Tensor:
        """(out, in / size): of the units of the pattern; -inf where they are gone."""
        size, criterion = self.pattern.size, self.axes.criterion
        score = criterion.group_score(target, seen.criterion, size) if size > 1 else None
        if score is None:
            score = criterion.score(target, seen.criterion).detach()
            if score.shape != target.matrix.shape or not score.is_floating_point():
                raise RunError(
                    f"the score of {target.name} is {score.dtype} {tuple(score.shape)}, not one for each weight"
                )
            score = sum_units(score, size)
        if has_nan(score):
            raise RunError(f"the score of {target.name} contains NaN: did training diverge?")
        # -inf is for what is pruned already; the criterion's own -inf becomes the lowest score above that.
        score = score.clamp(min=torch.finfo(score.dtype).min)
        if target.name in self.masks and not criterion.revives:
            alive = self._alive(target)
            exclude(score, alive if size == 1 else alive.reshape(len(alive), -1, size).any(-1))
        return score

    def _regrow(self, regrowth: Regrowth, calibration: Calibration, passed: float) -> None:
        gradients = next(calibration.gradients(self.targets))
        for target, gradient in zip(self.targets, gradients, strict=True):
            self._keep(target, regrowth.exchange(target, self._alive(target), gradient, passed))
        self.apply()

    def release(self) -> None:
        """Takes all masks away: the model is dense again, what was pruned starts from zero."""
        self.masks = {}

    def _report(self, asked: float, before: Mapping[str, Tensor]) -> Update:
        total, changed, kept = self._total(), 0, {}
        for name, mask in self.masks.items():
            kept[name] = count(mask)
            changed += count(mask ^ before[name]) if name in before else mask.numel() - kept[name]
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
        """Clears what `optimizer` remembers of pruned weights, unless they may come back. After every update."""
        for target in self._masked() if not self.axes.criterion.revives else []:
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


NONE = AxisConfig()


def build_sparsifier(
    targets: Sequence[Target],
    *,
    criterion: str = "magnitude",
    params: Mapping[str, Any] | None = None,
    scope: str = "global",
    scope_params: Mapping[str, Any] | None = None,
    floor: float = 0.0,
    pattern: str = "unstructured",
    n: int | None = None,
    m: int | None = None,
    refinement: AxisConfig = NONE,
    update: AxisConfig = NONE,
    regrowth: AxisConfig = NONE,
    seed: int = 0,
    from_zeros: bool = False,
) -> Sparsifier:
    """A Sparsifier from the names and settings of a config. Raises UsageError for what is unknown or missing."""
    make = Sparsifier.from_zeros if from_zeros else Sparsifier
    group = {key: value for key, value in {"n": n, "m": m}.items() if value is not None}
    made = PATTERNS.build(pattern, group)
    axes = Axes(
        CRITERIA.build(criterion, params, seed=seed),
        SCOPES.build(scope, scope_params, floor=floor, seed=seed),
        made,
        REFINEMENTS.build(refinement.name, refinement.params, pattern=made) if refinement.name != "none" else None,
        UPDATES.build(update.name, update.params) if update.name != "none" else None,
        REGROWTHS.build(regrowth.name, regrowth.params) if regrowth.name != "none" else None,
    )
    return make(targets, axes)
