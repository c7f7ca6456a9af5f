"""Ranges and names in a RunConfig, all of them at once and before anything expensive (no torch)."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from prunebench.config import LONGEST_TAG, RunConfig
from prunebench.contradictions import contradictions, stands_on
from prunebench.curves import SHAPES
from prunebench.errors import UsageError, brief, did_you_mean
from prunebench.facts import model_config_problems
from prunebench.options import component_names
from prunebench.sparsity.axes import AXES

COMPONENTS = ("encoder", "pooler", "embeddings", "head")
PLAIN_NAME = re.compile(r"[\w+=,@-][\w.+=,@ -]{0,99}")  # one folder, not hidden, not "..", whatever the system


LONGEST_PART = 255  # bytes in the name of a folder, on every usual file system
MOST_EXAMPLES, MOST_LABELS = 10**10, 100_000


@dataclass(frozen=True)
class Range:
    """A setting's interval, written as in mathematics: "(0, 1]"; and what a user may want to know."""

    key: str
    interval: str
    hint: str = ""

    def holds(self, value: Any) -> bool:
        low, high = (float(bound) for bound in self.interval[1:-1].split(","))
        above = value >= low if self.interval[0] == "[" else value > low
        below = value <= high if self.interval[-1] == "]" else value < high
        return bool(above and below)  # both are false for NaN

    def words(self) -> str:
        low, high = (bound.strip() for bound in self.interval[1:-1].split(","))
        if high != "inf":
            return f"in {self.interval}"
        return f"at least {low}" if self.interval[0] == "[" else f"greater than {low}"


RANGES = (
    Range("sparsity", "[0, 1)", "0.9 leaves a tenth of the weights"),
    Range("seed", "[0, 4294967296)"),
    Range("pruning.scope.floor", "[0, 1)", "the share of weights that every matrix keeps"),
    Range("pruning.pattern.n", "[1, 1000000]", "weights kept in each group"),
    Range("pruning.pattern.m", "[2, 1000000]", "weights in a group"),
    Range("pruning.dropout", "[0, 1)", "null: trainer.dropout"),
    Range("pruning.adapters.rank", "[1, 1000000]"),
    Range("pruning.adapters.alpha", "(0, 1000000]"),
    Range("pruning.calibration.examples", "[1, 1000000000]", "null: what the method suggests"),
    Range("pruning.calibration.batch_size", "[1, 1000000]", "null: what the method suggests"),
    Range("pruning.schedule.units_per_halving", "(0, 1000]"),
    Range("pruning.schedule.initial_sparsity", "[0, 1)"),
    Range("pruning.schedule.initial_fraction", "[0, 1]", "a share of the target"),
    Range("pruning.schedule.prunings_per_epoch", "(0, 100000]"),
    Range("pruning.schedule.prune_every", "[1, 1000000000]", "steps between prunings"),
    Range("pruning.schedule.lr", "(0, 1000000]"),
    Range("pruning.schedule.final_lr", "[0, 1000000]"),
    Range("pruning.schedule.peak_decay", "(0, inf)"),
    Range("distillation.hardness", "[0, 1]", "0: labels only, 1: the teacher only"),
    Range("distillation.hidden_weight", "[0, 1000000]"),
    Range("distillation.cache_gb", "[0, 1000000]"),
    Range("trainer.epochs", "(0, 10000]"),
    Range("trainer.lr", "(0, 1000000]"),
    Range("trainer.final_lr", "[0, 1000000]"),
    Range("trainer.warmup", "[0, 1)", "a share of each learning-rate cycle"),
    Range("trainer.batch_size", "[1, 1000000]"),
    Range("trainer.accumulation", "[1, 1000000]"),
    Range("trainer.eval_batch_size", "[1, 1000000]"),
    Range("trainer.weight_decay", "[0, 1000000]"),
    Range("trainer.eps", "(0, 1000000]"),
    Range("trainer.max_grad_norm", "[0, 1000000]", "0: no clipping"),
    Range("trainer.dropout", "[0, 1)"),
    Range("trainer.eval_every", "(0, 10000]", "epochs between evaluations"),
    Range("trainer.max_steps", "[1, 1000000000]"),
    Range("trainer.log_every", "[1, 1000000000]"),
    Range("trainer.threads", "[1, 4096]", "of the CPU"),
    Range("trainer.checkpoint_minutes", "(0, 1000000]"),
    Range("trainer.checkpoint_steps", "[1, 1000000000]"),
    Range("dataset.max_length", "[4, 1000000]", "tokens"),
    Range("dataset.doc_stride", "[0, 1000000000]", "tokens"),
    Range("dataset.max_answer_length", "[1, 1000000000]", "tokens"),
    Range("dataset.n_best", "[1, 10000]"),
    Range("dataset.max_target_length", "[1, 1000000]", "tokens"),
    Range("dataset.stride", "[1, 1000000000]", "tokens; null: half a window"),
    Range("dataset.choices", "[2, 26]", "null: as many as the first row has"),
    Range("dataset.margin_alpha", "[0, 1000000]"),
    Range("dataset.margin_beta", "[0, 1000000]"),
    Range("dataset.limit", "[1, 1000000000]", "null: all examples"),
    Range("dataset.validation_limit", "[1, 1000000000]", "null: all examples"),
    Range("dataset.holdout", "[1, 1000000000]", "null: the validation split"),
    Range("launcher.n_jobs", "[1, 10000]", "members of a sweep at a time"),
    Range("search.runs", "[1, 100000]", "the budget of a search"),
    Range("search.seed", "[0, 4294967296)"),
)  # None is always allowed where the type has it
PHASE_RANGES = (Range("epochs", "[0, 10000]"), Range("units", "[0, 10000]"), Range("repeat", "[1, 1000]"))

CHOICES: dict[str, Sequence[str]] = {
    "pruning.schedule.curve": tuple(SHAPES),
    **{f"pruning.{axis}.name": component_names(f"pruning/{axis}") for axis in AXES},
    "pruning.adapters.kind": ("mask", "scale", "prune"),
    "distillation.hidden": ("none", "squarehead", "mse"),
    "trainer.precision": ("auto", "fp32", "bf16", "fp16"),
    "trainer.keep": ("last", "best"),
    "trainer.device": ("auto", "cpu", "cuda", "mps"),
    "tracker.name": ("local", "wandb"),
    "dataset.task": (
        "classification",
        "language_modelling",
        "multiple_choice",
        "question_answering",
        "sequence_to_sequence",
        "span_scoring",
        "synthetic",
    ),
    "dataset.objective": ("auto", "causal", "masked"),
    "launcher.name": ("local", "joblib", "submitit_local", "slurm", "ray"),
    "search.name": ("none", "optuna"),
}
EXTENDABLE = {f"pruning.{axis}.name": group for axis, group in AXES.items()}


def check(config: RunConfig) -> None:
    """Raises UsageError with a line for everything that `problems` finds."""
    found = problems(config)
    if found:
        raise UsageError("\n".join(found))


def problems(config: RunConfig, unknown: Collection[str] = ()) -> list[str]:
    """What cannot work, one line each: setting, value, what is allowed.

    Contradictions are looked for among values that are fine by themselves, so that each cause is told once.

    Args:
        unknown: settings, or groups of them, that the user meant to set but whose value could not be read.
    """
    values = [found for rule in VALUES for found in rule(config)]
    told = [(key, line) for key, line in values if not stands_on([key], unknown)]
    lines = [*(line for _, line in told), *contradictions(config, {*unknown, *(key for key, _ in told)})]
    return list(dict.fromkeys(lines))


# --- values -------------------------------------------------------------------------------------------------------


def _value(config: RunConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


Problem = tuple[str, str]  # the setting and the line on it


def _out_of_range(config: RunConfig) -> Iterator[Problem]:
    for rule in RANGES:
        value = _value(config, rule.key)
        if value is not None and not rule.holds(value):
            finite = "" if _is_finite(value) else "a finite number, "
            hint = f" ({rule.hint})" if rule.hint else ""
            yield rule.key, f"{rule.key}={_number(value)}: must be {finite}{rule.words()}{hint}"
    temperature = config.distillation.temperature
    if temperature != "auto" and not (isinstance(temperature, float | int) and 0 < temperature < math.inf):
        key = "distillation.temperature"
        yield key, f"{key}={brief(temperature)}: must be a number greater than 0, or auto"


def _is_finite(value: float) -> bool:
    return isinstance(value, int) or math.isfinite(value)  # an int may be too large for isfinite


def _number(value: float) -> str:
    """As a user would write it; whole numbers may be too large for a float."""
    return brief(value) if isinstance(value, int) else f"{value:g}"


def _unknown_names(config: RunConfig) -> Iterator[Problem]:
    for key, names in CHOICES.items():
        value = _value(config, key)
        if value not in names:
            theirs = entry_points(group=EXTENDABLE[key]).names if key in EXTENDABLE else ()
            yield from _unknown(key, [value], [*names, *theirs])
    key, components = "pruning.components", config.pruning.components
    yield from _unknown(key, components, (*COMPONENTS, "all"))
    yield from _unknown("pruning.budget_from", config.pruning.budget_from or [], COMPONENTS)
    if not components:
        yield key, f"{key}=[]: name at least one of {', '.join(COMPONENTS)}"
    if "all" in components and len(components) > 1:
        yield key, f"{key}: all stands alone, it has every other component in it"


def _unknown(key: str, values: Iterable[str], allowed: Sequence[str]) -> Iterator[Problem]:
    for value in values:
        if value not in allowed:
            hint = did_you_mean(value, allowed)
            yield key, f"{key}={brief(value)}: must be one of {', '.join(allowed)}{hint}"


def _phases(config: RunConfig) -> Iterator[Problem]:
    key, phases = "pruning.schedule.phases", config.pruning.schedule.phases
    if not phases:
        yield key, f"{key}=[]: a schedule has at least one phase"
    for index, phase in enumerate(phases):
        where = f"{key}[{index}] ({brief(phase.name)})"
        for rule in PHASE_RANGES:
            value = getattr(phase, rule.key)
            if value is not None and not rule.holds(value):
                yield key, f"{where}: {rule.key}={_number(value)} must be {rule.words()}"
        if phase.train not in ("all", "head", "perp"):
            yield key, f"{where}: train={brief(phase.train)} must be all, head or perp"
        if phase.only_from not in (None, "pretrained"):
            yield key, f"{where}: only_from={brief(phase.only_from)} must be pretrained or null"


def _lists(config: RunConfig) -> Iterator[Problem]:
    """Settings that hold several values."""
    key, betas = "trainer.betas", config.trainer.betas
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        shown = brief(",".join(f"{beta:g}" for beta in betas))
        yield key, f"{key}=[{shown}]: must be two numbers in [0, 1), like [0.9,0.999]"
    dataset = config.dataset
    for group, counts in (("examples", dataset.examples), ("windows", dataset.windows)):
        for split, count in counts.items():
            if not 1 <= count <= MOST_EXAMPLES:
                key = f"dataset.{group}.{brief(split)}"
                yield key, f"{key}={_number(count)}: must be in [1, {MOST_EXAMPLES}]"
    for tag in config.tracker.tags:
        if not 1 <= len(tag) <= LONGEST_TAG:
            yield "tracker.tags", f"tracker.tags=[{brief(tag)}]: a tag has 1 to {LONGEST_TAG} characters"
    yield from _list_of("dataset.labels", dataset.labels, 2, MOST_LABELS, "two or more different names, or null")
    yield from _list_of("dataset.text_columns", dataset.text_columns, 0, 2, "one column, or two for pairs")
    yield from _list_of("dataset.validation_splits", dataset.validation_splits, 1, 100, "different names of splits")


def _list_of(key: str, names: Sequence[str] | None, least: int, most: int, what: str) -> Iterator[Problem]:
    """Names must differ, and be neither too few nor too many."""
    if names is not None and (len(set(names)) < len(names) or not least <= len(names) <= most):
        yield key, f"{key}=[{brief(','.join(names))}]: give {what}"


def _folders(config: RunConfig) -> Iterator[Problem]:
    """Names become folders, so they must not lead anywhere else."""
    for key in ("name", "dataset.name"):
        value = _value(config, key)
        if not PLAIN_NAME.fullmatch(value):
            yield (
                key,
                f"{key}={brief(value)}: becomes a folder, so it must be a plain name without slashes or a leading dot",
            )
    if why := _cannot_hold_runs(config.outputs):
        yield "outputs", f"outputs={brief(config.outputs)}: {why}"


def _cannot_hold_runs(outputs: str) -> str | None:
    """Why nothing can be written below a folder, which is made where it is missing."""
    if not outputs or (not os.path.isdir(outputs) and os.path.lexists(outputs)):
        return "must be a folder, which is made where it is missing"
    if max(len(os.fsencode(part)) for part in Path(outputs).parts) > LONGEST_PART or "\0" in outputs:
        return "no system has such a folder: choose a shorter name of usual letters"
    there = next(parent for parent in (Path(outputs), *Path(outputs).absolute().parents) if os.path.lexists(parent))
    if not os.path.isdir(there):
        return f"{brief(there)} is not a folder"
    return None if os.access(there, os.W_OK | os.X_OK) else f"{brief(there)} cannot be written to: choose another"


def _model_config(config: RunConfig) -> Iterator[Problem]:
    model = config.model
    yield from (("model.config", line) for line in model_config_problems(model.config, model.from_config))


VALUES = (_out_of_range, _unknown_names, _phases, _lists, _folders, _model_config)
