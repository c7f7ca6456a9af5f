"""RunConfig -> Plan: every learning rate, pruning and evaluation of a run, known before a tensor exists."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from prunebench.config import PhaseConfig, PruningConfig, RunConfig, ScheduleConfig, TrainerConfig
from prunebench.curves import LrCycle, SparsityCurve, units_of_pruning
from prunebench.errors import UsageError, brief, did_you_mean


@dataclass(frozen=True)
class Phase:
    """Steps `start` up to but not including `stop`. Consecutive phases may share one learning-rate cycle."""

    name: str
    start: int
    stop: int
    lr: LrCycle
    prune: bool = False
    reset_optimizer: bool = False
    hold: bool = False
    release: bool = False
    rewind: str | None = None
    train: str = "all"


@dataclass(frozen=True)
class Plan:
    """What a run does at which optimizer step.

    `prunings` holds (step, sparsity): the pruning happens before the update of that step, and one at `steps` after
    the last update. `eval_at` counts finished steps.
    """

    steps_per_epoch: int
    phases: tuple[Phase, ...]
    prunings: tuple[tuple[int, float], ...]
    eval_at: tuple[int, ...]

    @property
    def steps(self) -> int:
        return self.phases[-1].stop

    @property
    def epochs(self) -> float:
        return self.steps / self.steps_per_epoch

    @property
    def last_pruning(self) -> int:
        """The step from which on the mask is fixed; 0 for a run that never prunes."""
        return self.prunings[-1][0] if self.prunings else 0

    def phase(self, step: int) -> Phase:
        """The phase of `step`; the last one for `steps` itself."""
        return next((phase for phase in self.phases if step < phase.stop), self.phases[-1])

    def lr(self, step: int) -> float:
        return self.phase(step).lr(step)

    def is_update(self, step: int) -> bool:
        return any(at == step for at, _ in self.prunings)

    def sparsity(self, step: int) -> float:
        """The sparsity asked for while the update of `step` is made."""
        released = max((phase.start for phase in self.phases if phase.release and phase.start <= step), default=0)
        return max((level for at, level in self.prunings if released <= at <= step), default=0.0)

    def phases_starting(self, step: int) -> tuple[Phase, ...]:
        """The phases that begin with the update of `step`; those without steps of their own are among them."""
        return tuple(phase for phase in self.phases if phase.start == step < self.steps)

    @cached_property
    def remembered(self) -> dict[str, int]:
        """The weights that phases rewind to, by name, and the number of updates after which they are taken."""
        ends = {phase.name: phase.stop for phase in reversed(self.phases)}
        asked = {phase.rewind for phase in self.phases if phase.rewind} - {"scratch"}
        return {name: 0 if name == "start" else ends[name] for name in sorted(asked)}

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"steps": self.steps}


def make_plan(config: RunConfig, examples: int) -> Plan:
    """The plan of `config` on `examples` training examples (for question answering: windows).

    Raises:
        UsageError: the schedule does not fit the sparsity or the data.
    """
    trainer, schedule = config.trainer, config.pruning.schedule
    per_epoch = math.ceil(examples / trainer.batch_size)
    phases = expand_phases(schedule.phases, trainer, config.sparsity, schedule, config.start)
    ends = list(accumulate((epochs for _, epochs in phases), initial=0.0))
    clock = _steps_per_epoch(ends[-1], per_epoch, trainer.max_steps)
    plan_phases = _with_cycles(phases, [round(end * clock) for end in ends], schedule, trainer)
    if any(epochs and phase.start == phase.stop for phase, (_, epochs) in zip(plan_phases, phases, strict=True)):
        raise UsageError(
            f"the schedule's {len(phases)} phases do not fit into {plan_phases[-1].stop} steps: "
            "raise trainer.max_steps, or use more examples or smaller batches"
        )
    prunings = _prunings(plan_phases, config.sparsity, schedule, clock)
    if trainer.max_steps is None:
        _check_pruning_rate(schedule, per_epoch)
    return Plan(per_epoch, plan_phases, prunings, _evaluations(plan_phases, trainer, per_epoch))


def expand_phases(
    phases: list[PhaseConfig], trainer: TrainerConfig, sparsity: float, schedule: ScheduleConfig, start: str
) -> list[tuple[PhaseConfig, float]]:
    """The phases that really happen, repeated as asked, each with its length in epochs."""
    units = units_of_pruning(sparsity, schedule.units_per_halving)
    return [
        (phase, phase.epochs if phase.epochs is not None else phase.units * trainer.epochs)
        for phase in phases
        if phase.only_from in (None, start)
        for _ in range(units if phase.scaled else phase.repeat)
    ]


def _steps_per_epoch(epochs: float, per_epoch: int, max_steps: int | None) -> float:
    """Fewer than there are where `max_steps` squeezes the schedule, so that every phase of it still happens."""
    return per_epoch if not max_steps or not epochs else min(per_epoch, max_steps / epochs)


def _with_cycles(
    phases: list[tuple[PhaseConfig, float]], bounds: list[int], schedule: ScheduleConfig, trainer: TrainerConfig
) -> tuple[Phase, ...]:
    peak = trainer.lr if schedule.lr is None else schedule.lr
    final = trainer.final_lr if schedule.final_lr is None else schedule.final_lr
    result: list[Phase] = []
    cycle: LrCycle | None = None
    for index, (phase, _) in enumerate(phases):
        start, stop = bounds[index], bounds[index + 1]
        if cycle is None or (phase.restart_lr and stop > start):
            peak = peak if cycle is None or cycle.stop == cycle.start else peak * schedule.peak_decay
            end = bounds[_cycle_end(phases, bounds, index)]
            cycle = LrCycle(start, end, peak, min(final, peak), round(trainer.warmup * (end - start)))
        flags = (phase.prune, phase.reset_optimizer, phase.hold, phase.release, phase.rewind, phase.train)
        result.append(Phase(phase.name, start, stop, cycle, *flags))
    return tuple(result)


def _cycle_end(phases: list[tuple[PhaseConfig, float]], bounds: list[int], index: int) -> int:
    """The index of the first phase after `index` that starts a cycle of its own; one without steps starts none."""
    later = range(index + 1, len(phases))
    return next((i for i in later if phases[i][0].restart_lr and bounds[i + 1] > bounds[i]), len(phases))


def _prunings(
    phases: tuple[Phase, ...], target: float, schedule: ScheduleConfig, clock: float
) -> tuple[tuple[int, float], ...]:
    window = [phase for phase in phases if phase.prune]
    if not window or target == 0:
        return ()
    rising = [phase for phase in window if not phase.hold] or window[:1]
    last = window[-1].stop
    curve = SparsityCurve(rising[0].start, rising[-1].stop, initial_sparsity(schedule, target), target, schedule.curve)
    steps = sorted({*_pruning_steps(window, schedule, clock), last})
    return tuple((step, curve(step)) for step in steps if curve(step) > 0)


def _pruning_steps(window: list[Phase], schedule: ScheduleConfig, clock: float) -> Iterable[int]:
    first, last = window[0].start, window[-1].stop
    if schedule.prunings_per_epoch is not None:
        intervals = max(1, round(schedule.prunings_per_epoch * (last - first) / clock))
        return (first + round(i * (last - first) / intervals) for i in range(intervals))
    if schedule.prune_every is not None:
        every = schedule.prune_every
        return range(-(-first // every) * every, last, every)  # multiples of it, as SMC-Bench counts
    return (phase.start for phase in window)


def _check_pruning_rate(schedule: ScheduleConfig, per_epoch: int) -> None:
    if (schedule.prunings_per_epoch or 0) > per_epoch:
        raise UsageError(
            f"pruning.schedule.prunings_per_epoch={schedule.prunings_per_epoch:g}, but an epoch has only {per_epoch} "
            f"steps: set it to at most {per_epoch}, or lower trainer.batch_size"
        )


def initial_sparsity(schedule: ScheduleConfig, target: float) -> float:
    """The sparsity of the first pruning, never beyond the target."""
    if schedule.initial_fraction is not None:
        return schedule.initial_fraction * target
    return min(schedule.initial_sparsity or 0.0, target)


def _evaluations(phases: tuple[Phase, ...], trainer: TrainerConfig, per_epoch: int) -> tuple[int, ...]:
    steps, epochs = phases[-1].stop, trainer.eval_every
    if epochs is None and trainer.keep == "best":
        epochs = 1.0  # the ends of phases would leave nothing to choose among
    if epochs is None:
        at = {phase.stop for phase in phases}
    else:
        every = max(1, round(epochs * per_epoch))
        at = set(range(every, steps, every))
    return tuple(sorted((at - {0}) | {steps}))


def schedule_problems(config: RunConfig) -> list[str]:
    """What cannot work whatever the data are, one line each."""
    pruning: PruningConfig = config.pruning
    name, schedule = pruning.schedule.name, pruning.schedule
    prunes = any(phase.prune for phase in schedule.phases)
    problems = []
    if config.sparsity > 0 and not prunes:
        problems.append(
            f"sparsity={config.sparsity:g}, but pruning/schedule={name} never prunes: "
            "choose another schedule (prunebench ls schedules) or set sparsity=0"
        )
    if config.sparsity == 0 and prunes:
        problems.append(f"sparsity=0 leaves pruning/schedule={name} nothing to prune: set sparsity, or recipe=dense")
    if schedule.initial_fraction is not None and schedule.initial_sparsity is not None:
        problems.append("pruning.schedule.initial_sparsity and initial_fraction exclude each other: set one to null")
    names = [phase.name for phase in schedule.phases]
    for index, phase in enumerate(schedule.phases):
        known = ["start", "scratch", *names[:index]]
        if phase.rewind is not None and phase.rewind not in known:
            problems.append(
                f"pruning.schedule.phases[{index}]: rewind={brief(phase.rewind)} must be start, scratch, or the "
                f"name of an earlier phase{did_you_mean(phase.rewind, known)}"
            )
    if schedule.prunings_per_epoch is not None and schedule.prune_every is not None:
        problems.append("pruning.schedule.prunings_per_epoch and prune_every exclude each other: set one to null")
    return problems
