"""What `prunebench plan` tells before anything is computed, as plain values: the plan, its cost, and what is pruned."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prunebench.config import RunConfig
from prunebench.digest import dense_config, prunes
from prunebench.facts import TrainingData, logits_each, sizes, training_data
from prunebench.options import Options
from prunebench.plan import Phase, Plan, make_plan
from prunebench.sparsity.counts import zeros_at
from prunebench.tasks.settings import TOKENS

COMPONENTS = ("encoder", "pooler", "embeddings", "head")
STAND_IN_STEPS = 10_000  # an epoch, where its steps are unknown: then only epochs are shown
CHECKPOINTS = 3  # at most at a time: two are kept while the next is written


@dataclass(frozen=True)
class Preview:
    """A config's plan and what is known of its cost. `counted`: the plan's steps are real, not a stand-in."""

    config: RunConfig
    plan: Plan
    data: TrainingData
    dense_epochs: float | None  # of the dense run that is trained first; None for a dense run itself
    sizes: Mapping[str, int | None] | None
    notes: tuple[str, ...] = ()

    @property
    def counted(self) -> bool:
        return self.data.count is not None


def preview(config: RunConfig, options: Options) -> Preview:
    """Raises UsageError where no plan can be made."""
    data = training_data(config)
    plan = _plan(config, data)
    dense = _plan(dense_config(config), data).epochs if prunes(config) else None
    return Preview(config, plan, data, dense, sizes(config), tuple(notes(config, options)))


def _plan(config: RunConfig, data: TrainingData) -> Plan:
    if data.count is not None:
        return make_plan(config, data.count)
    trainer = replace(config.trainer, max_steps=None)  # steps mean nothing on a stand-in
    schedule = replace(config.pruning.schedule)
    if schedule.prune_every is not None:
        schedule.prune_every, schedule.prunings_per_epoch = None, 50.0
    stand_in = replace(config, trainer=trainer, pruning=replace(config.pruning, schedule=schedule))
    return make_plan(stand_in, STAND_IN_STEPS * trainer.batch_size)


def notes(config: RunConfig, options: Options) -> list[str]:
    """The lines of the chosen YAMLs' headers that say `reconstruction`."""
    chosen = [
        ("recipe", config.recipe),
        ("pruning/schedule", config.pruning.schedule.name),
    ]
    lines = []
    for group, name in chosen:
        option = options.get(group, {}).get(name)
        if option and any("reconstruction" in line for line in option.header()):
            lines.append(f"{group} {name} is a reconstruction: no published number stands beside it ({option.path})")
    return lines[:1]


# --- phases -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PhaseRow:
    """`repeat` neighbouring phases of one kind. Sparsity is that before and after."""

    name: str
    start: int
    stop: int
    lr_from: float
    lr_to: float
    sparsity_from: float
    sparsity_to: float
    prunings: int
    repeat: int = 1


def phase_rows(plan: Plan, longest: int = 6) -> list[PhaseRow]:
    """The phases of a plan, those of one kind in one row where they are more than `longest`."""
    rows: list[PhaseRow] = []
    level = 0.0
    steps = [step for step, _ in plan.prunings]
    for index, phase in enumerate(plan.phases):
        following = plan.phases[index + 1] if index + 1 < len(plan.phases) else None
        levels = [value for _, value in plan.prunings[_own_prunings(phase, following, steps)]]
        level = 0.0 if phase.release else level
        after = levels[-1] if levels else level
        lr = phase.lr
        rates = (lr.peak if phase.start == lr.start else lr(phase.start), lr(phase.stop))
        rows.append(PhaseRow(phase.name, phase.start, phase.stop, *rates, level, after, len(levels)))
        level = after
    return _collapsed(rows, longest)


def _own_prunings(phase: Phase, following: Phase | None, steps: Sequence[int]) -> slice:
    """Of all prunings' `steps`, ascending, those of a phase.

    One at the border of two phases belongs to the one that prunes, of two such to the later.
    """
    ends_here = phase.prune and not (following and following.prune)
    first = bisect_left(steps, phase.start) if phase.prune else bisect_right(steps, phase.start)
    return slice(first, bisect_right(steps, phase.stop) if ends_here else bisect_left(steps, phase.stop))


def _collapsed(rows: Sequence[PhaseRow], longest: int) -> list[PhaseRow]:
    result: list[PhaseRow] = []
    start = 0
    while start < len(rows):
        stop = start + 1
        while stop < len(rows) and rows[stop].name == rows[start].name:
            stop += 1
        group = list(rows[start:stop])
        result += [_merged(group)] if len(group) > longest else group
        start = stop
    return result


def _merged(group: Sequence[PhaseRow]) -> PhaseRow:
    first, last = group[0], group[-1]
    prunings = sum(row.prunings for row in group)
    return replace(first, stop=last.stop, sparsity_to=last.sparsity_to, prunings=prunings, repeat=len(group))


# --- what is pruned -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ComponentRow:
    """Weights of a component and how many of them are zero at the end; None: not known beforehand."""

    name: str
    weights: int | None
    share: float | None  # of the whole model
    pruned: bool
    zeros: int | None


def pruned_components(config: RunConfig, known: Mapping[str, int | None] | None) -> list[str]:
    """Those that lose weights; `all` is every component that the model has."""
    if not prunes(config):
        return []
    asked = config.pruning.components
    named = [name for name in COMPONENTS if name in asked or asked == ["all"]]
    return [name for name in named if known is None or known[name] != 0]


def component_rows(shown: Preview) -> list[ComponentRow]:
    """Every component of a known model."""
    known = shown.sizes
    if known is None:
        return []
    pruned, total, zeros = pruned_components(shown.config, known), model_weights(known), zero_weights(shown)
    rows = []
    for name, weights in known.items():
        if weights != 0:
            share = weights / total if weights is not None and total else None
            rows.append(ComponentRow(name, weights, share, name in pruned, _zeros_of(name, pruned, zeros)))
    return rows


def _zeros_of(name: str, pruned: list[str], zeros: int | None) -> int | None:
    if name not in pruned:
        return 0
    if pruned == [name]:
        return zeros
    return None  # the scores decide how the budget is shared between components


def model_weights(known: Mapping[str, int | None]) -> int | None:
    """All parameters of the model."""
    values = list(known.values())
    return None if None in values else sum(value for value in values if value is not None)


def prunable_weights(shown: Preview) -> int | None:
    known = shown.sizes
    if known is None:
        return None
    values = [known[name] for name in pruned_components(shown.config, known)]
    return None if None in values else sum(value for value in values if value is not None)


def zero_weights(shown: Preview) -> int | None:
    """Weights that are zero at the end."""
    config, prunable = shown.config, prunable_weights(shown)
    if prunable is None or shown.sizes is None:
        return None
    if config.pruning.budget_from is None:
        return zeros_at(config.sparsity, prunable)
    budget = [shown.sizes[name] for name in config.pruning.budget_from]
    return None if None in budget else zeros_at(config.sparsity, sum(size for size in budget if size is not None))


def final_sparsity(shown: Preview) -> dict[str, float | None]:
    """`prunable` and `model`: the two denominators."""
    zeros, prunable = zero_weights(shown), prunable_weights(shown)
    whole = model_weights(shown.sizes) if shown.sizes else None
    asked = shown.config.sparsity if shown.config.pruning.budget_from is None else None
    return {
        "prunable": zeros / prunable if zeros is not None and prunable else asked,
        "model": zeros / whole if zeros is not None and whole else (0.0 if not prunes(shown.config) else None),
    }


# --- disk ---------------------------------------------------------------------------------------------------------


def disk_bytes(shown: Preview) -> dict[str, int] | None:
    """At most, while the run goes on and after it: weights in fp32, two moments each in checkpoints, a byte a mask."""
    known = shown.sizes
    whole = model_weights(known) if known else None
    if known is None or whole is None:
        return None
    mask = prunable_weights(shown) or 0
    kept = {"model": 4 * whole, "masks": mask}
    if shown.dense_epochs is not None:
        kept["dense model"] = 4 * whole + (known["encoder"] or 0)
    return {"checkpoints": CHECKPOINTS * (12 * whole + mask), **kept, "teacher's logits": _logits(shown)}


def _logits(shown: Preview) -> int:
    """The cache that distillation keeps, at most."""
    config, count = shown.config, shown.data.count
    budget = int(config.distillation.cache_gb * 1e9)
    if config.distillation.hardness == 0 or not prunes(config) or config.dataset.task in TOKENS:
        return 0  # over a vocabulary they are too many to be kept
    if count is None:
        return budget
    if config.dataset.task == "question_answering":
        return min(8 * count * config.dataset.max_length, budget)  # windows are shorter, so they may fit
    needed = 4 * count * (logits_each(config) or 2)
    return needed if needed <= budget else 0


def to_json(shown: Preview) -> dict[str, Any]:
    """For `--json`: nothing in it is rounded; null: not known."""
    config, plan = shown.config, shown.plan
    return {
        "recipe": config.recipe,
        "name": config.name,
        "model": config.model.name,
        "dataset": config.dataset.name,
        "start": config.start,
        "seed": config.seed,
        "examples": {"count": shown.data.count, "unit": shown.data.unit},
        "steps": plan.steps if shown.counted else None,
        "epochs": plan.epochs,
        "dense_unit_epochs": config.trainer.epochs,
        "dense_epochs_first": shown.dense_epochs,
        "prunings": prunings_known(shown),
        "sparsity": {"target": config.sparsity, **final_sparsity(shown)},
        "components": [vars(row) for row in component_rows(shown)],
        "disk_bytes": disk_bytes(shown),
        "plan": plan.to_json() if shown.counted else None,
        "notes": list(shown.notes),
    }


def prunings_known(shown: Preview) -> int | None:
    by_steps = shown.config.pruning.schedule.prune_every is not None
    return len(shown.plan.prunings) if shown.counted or not by_steps else None
