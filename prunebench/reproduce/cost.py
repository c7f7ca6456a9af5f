"""What a grid costs in GPU hours: as its source states them, else by counting multiplications at an assumed rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prunebench.compose import load_config
from prunebench.config import RunConfig
from prunebench.digest import dense_config, distils, prunes
from prunebench.facts import sizes, training_data
from prunebench.preview import preview
from prunebench.reproduce.grid import Grid, Planned
from prunebench.reproduce.identify import settings_digest
from prunebench.tasks.choices import SPAN_SCORING

RATE = 1e13  # operations a second: an epoch of BERT-base on SQuAD in half an hour, as oBERT states for a card of 24 GB
MODEL = (
    "6 operations a weight and token (once 2 more for a teacher's outputs), every text as long as dataset.max_length, "
    "at 10 TFLOP/s: half an hour for an epoch of BERT-base on SQuAD"
)


@dataclass(frozen=True)
class Cost:
    """Hours of one GPU. `stated`: those of them that follow from the source; `unknown`: runs that are left out."""

    runs: int
    hours: float
    stated: float
    unknown: int

    @property
    def how(self) -> str:
        """In words."""
        if self.stated >= 0.995 * self.hours > 0:
            return "as stated in the source"
        return (
            "estimated" if self.stated == 0 else f"{100 * self.stated / self.hours:.0f} % as stated, the rest estimated"
        )


@dataclass(frozen=True)
class Hours:
    """Of one run; None: not known."""

    hours: float | None
    stated: bool = False


def cost(grid: Grid) -> Cost:
    """All runs of a grid, the dense and other runs before them included, each once."""
    every = list(_runs(grid))
    known = [(hours.hours, hours.stated) for hours in every if hours.hours is not None]
    total = sum(hours for hours, _ in known)
    return Cost(len(every), total, sum(hours for hours, stated in known if stated), len(every) - len(known))


def _runs(grid: Grid) -> Iterator[Hours]:
    """Those of every cell, and once each those that come before cells: dense models, and what `first` names."""
    seen: set[str] = set()
    for planned in grid.runnable:
        stated = None if grid.small or grid.changed else grid.table.hours_per_epoch.get(planned.cell.data)
        if planned.cell.level:
            yield from [run_hours(planned.config, stated)] * len(grid.seeds)
        for config, times in _once(planned, len(grid.seeds)):
            if (known := settings_digest(config)) not in seen:
                seen.add(known)
                same_data = config.dataset.name == planned.config.dataset.name
                yield from [run_hours(config, stated if same_data else None)] * times


def _once(planned: Planned, seeds: int) -> Iterator[tuple[RunConfig, int]]:
    """What other cells may share with this one, and for how many seeds it is run."""
    for words in (planned.first or {}).values():
        config = load_config(list(words))
        yield config, 1
        if prunes(config):
            yield dense_config(config), 1
    if prunes(planned.config):
        yield dense_config(planned.config), seeds
    elif not planned.cell.level:
        yield planned.config, seeds


def run_hours(config: RunConfig, per_epoch: float | None = None) -> Hours:
    """Of one run, without its dense run; `per_epoch`: hours that the source states for an epoch."""
    shown = preview(config, {})
    epochs = shown.plan.epochs
    if per_epoch is not None and epochs:
        return Hours(per_epoch * epochs, stated=True)
    count, known = training_data(config).count or config.dataset.examples.get("train"), sizes(config)
    if count is None or known is None:
        return Hours(None)
    weights = sum(known[name] or 0 for name in ("encoder", "pooler", "head"))
    teacher = count / 3 if distils(config) and config.distillation.teacher != "none" else 0.0
    looked_at = (config.pruning.calibration.examples or 0) * len(shown.plan.prunings) * _recomputations(config)
    texts = (epochs * count + teacher + looked_at) * _texts(config)
    return Hours(6 * weights * texts * config.dataset.max_length / RATE / 3600)


def _recomputations(config: RunConfig) -> int:
    value = config.pruning.criterion.params.get("recomputations", 1)
    return value if isinstance(value, int) else 1


def _texts(config: RunConfig) -> int:
    """Texts that the model reads for an example: with several choices one each."""
    return config.dataset.choices or (2 if config.dataset.task == SPAN_SCORING else 1)
