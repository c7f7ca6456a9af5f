"""Ranges and names in a RunConfig, all of them at once and before anything expensive (no torch)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from prunebench.config import RunConfig
from prunebench.contradictions import contradictions
from prunebench.curves import SHAPES
from prunebench.errors import UsageError, did_you_mean

COMPONENTS = ("encoder", "pooler", "embeddings", "head")
PLAIN_NAME = re.compile(r"[\w+=,@-][\w.+=,@ -]{0,99}")  # one folder, not hidden, not "..", whatever the system


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
    Range("pruning.schedule.units_per_halving", "(0, inf)"),
    Range("pruning.schedule.initial_sparsity", "[0, 1)"),
    Range("pruning.schedule.initial_fraction", "[0, 1]", "a share of the target"),
    Range("pruning.schedule.prunings_per_epoch", "(0, inf)"),
    Range("pruning.schedule.prune_every", "[1, inf)", "steps between prunings"),
    Range("pruning.schedule.lr", "(0, inf)"),
    Range("pruning.schedule.final_lr", "[0, inf)"),
    Range("pruning.schedule.peak_decay", "(0, inf)"),
    Range("distillation.hardness", "[0, 1]", "0: labels only, 1: the teacher only"),
    Range("distillation.cache_gb", "[0, inf)"),
    Range("trainer.epochs", "(0, 10000]"),
    Range("trainer.lr", "(0, inf)"),
    Range("trainer.final_lr", "[0, inf)"),
    Range("trainer.warmup", "[0, 1)", "a share of each learning-rate cycle"),
    Range("trainer.batch_size", "[1, inf)"),
    Range("trainer.accumulation", "[1, inf)"),
    Range("trainer.eval_batch_size", "[1, inf)"),
    Range("trainer.weight_decay", "[0, inf)"),
    Range("trainer.eps", "(0, inf)"),
    Range("trainer.max_grad_norm", "[0, inf)", "0: no clipping"),
    Range("trainer.dropout", "[0, 1)"),
    Range("trainer.eval_every", "(0, inf)", "epochs between evaluations"),
    Range("trainer.max_steps", "[1, inf)"),
    Range("trainer.log_every", "[1, inf)"),
    Range("trainer.threads", "[1, inf)", "of the CPU"),
    Range("trainer.checkpoint_minutes", "(0, inf)"),
    Range("trainer.checkpoint_steps", "[1, inf)"),
    Range("dataset.max_length", "[4, inf)", "tokens"),
    Range("dataset.doc_stride", "[0, inf)", "tokens"),
    Range("dataset.max_answer_length", "[1, inf)", "tokens"),
    Range("dataset.n_best", "[1, inf)"),
    Range("dataset.limit", "[1, inf)", "null: all examples"),
    Range("dataset.validation_limit", "[1, inf)", "null: all examples"),
    Range("dataset.holdout", "[1, inf)", "null: the validation split"),
)  # None is always allowed where the type has it
PHASE_RANGES = (Range("epochs", "[0, inf)"), Range("units", "[0, inf)"), Range("repeat", "[1, inf)"))

CHOICES: dict[str, Sequence[str]] = {
    "pruning.schedule.curve": tuple(SHAPES),
    "pruning.scope.name": ("global", "uniform", "erk", "row"),
    "pruning.pattern.name": ("unstructured", "n_m"),
    "pruning.criterion.name": ("magnitude", "random"),
    "trainer.precision": ("auto", "fp32", "bf16", "fp16"),
    "trainer.keep": ("last", "best"),
    "trainer.device": ("auto", "cpu", "cuda", "mps"),
    "tracker.name": ("local", "wandb"),
    "dataset.task": ("classification", "question_answering", "synthetic"),
}
EXTENDABLE = {  # by other packages' entry points
    "pruning.criterion.name": "prunebench.criteria",
    "pruning.scope.name": "prunebench.scopes",
    "pruning.pattern.name": "prunebench.patterns",
}


def check(config: RunConfig) -> None:
    """Raises UsageError with a line for everything that `problems` finds."""
    found = problems(config)
    if found:
        raise UsageError("\n".join(found))


def problems(config: RunConfig) -> list[str]:
    """What cannot work, one line each: setting, value, what is allowed. Contradictions only among valid values."""
    values = [*_out_of_range(config), *_unknown_names(config), *_phases(config), *_betas(config), *_folders(config)]
    return values or contradictions(config)


# --- values -------------------------------------------------------------------------------------------------------


def _value(config: RunConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _out_of_range(config: RunConfig) -> Iterator[str]:
    for rule in RANGES:
        value = _value(config, rule.key)
        if value is not None and not rule.holds(value):
            finite = "" if math.isfinite(value) else "a finite number, "
            yield f"{rule.key}={value:g}: must be {finite}{rule.words()}{f' ({rule.hint})' if rule.hint else ''}"
    temperature = config.distillation.temperature
    if temperature != "auto" and not (isinstance(temperature, float | int) and 0 < temperature < math.inf):
        yield f"distillation.temperature={temperature}: must be a number greater than 0, or auto"


def _unknown_names(config: RunConfig) -> Iterator[str]:
    for key, names in CHOICES.items():
        value = _value(config, key)
        if value not in names:
            theirs = entry_points(group=EXTENDABLE[key]).names if key in EXTENDABLE else ()
            yield from _unknown(key, [value], [*names, *theirs])
    yield from _unknown("pruning.components", config.pruning.components, (*COMPONENTS, "all"))
    yield from _unknown("pruning.budget_from", config.pruning.budget_from or [], COMPONENTS)
    if not config.pruning.components:
        yield f"pruning.components=[]: name at least one of {', '.join(COMPONENTS)}"
    if "all" in config.pruning.components and len(config.pruning.components) > 1:
        yield "pruning.components: all stands alone, it has every other component in it"


def _unknown(key: str, values: Iterable[str], allowed: Sequence[str]) -> Iterator[str]:
    for value in values:
        if value not in allowed:
            yield f"{key}={value}: must be one of {', '.join(allowed)}{did_you_mean(value, allowed)}"


def _phases(config: RunConfig) -> Iterator[str]:
    phases = config.pruning.schedule.phases
    if not phases:
        yield "pruning.schedule.phases=[]: a schedule has at least one phase"
    for index, phase in enumerate(phases):
        where = f"pruning.schedule.phases[{index}] ({phase.name})"
        for rule in PHASE_RANGES:
            value = getattr(phase, rule.key)
            if value is not None and not rule.holds(value):
                yield f"{where}: {rule.key}={value:g} must be {rule.words()}"
        if phase.only_from not in (None, "pretrained"):
            yield f"{where}: only_from={phase.only_from} must be pretrained or null"


def _betas(config: RunConfig) -> Iterator[str]:
    betas = config.trainer.betas
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        shown = ",".join(f"{beta:g}" for beta in betas)
        yield f"trainer.betas=[{shown}]: must be two numbers in [0, 1), like [0.9,0.999]"


def _folders(config: RunConfig) -> Iterator[str]:
    """Names become folders, so they must not lead anywhere else."""
    for key in ("name", "dataset.name"):
        value = _value(config, key)
        if not PLAIN_NAME.fullmatch(value):
            yield f"{key}={value}: becomes a folder, so it must be a plain name without slashes or a leading dot"
    outputs = Path(config.outputs)
    if not config.outputs or (outputs.exists() and not outputs.is_dir()):
        yield f"outputs={config.outputs}: must be a folder, which is made where it is missing"
