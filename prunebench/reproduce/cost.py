"""What a grid costs in GPU hours: as its source states them, else by counting multiplications at an assumed rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prunebench.compose import load_config
from prunebench.config import RunConfig
from prunebench.digest import dense_config, distils, prunes
from prunebench.facts import sizes, training_data
from prunebench.preview import preview
from prunebench.reproduce.grid import Grid
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
    seen: set[str] = set()
    for planned in grid.runnable:
        stated = None if grid.small or grid.changed else grid.table.hours_per_epoch.get(planned.cell.data)
        first = [load_config(list(words)) for words in (planned.first or {}).values()]
        for config in _with_dense([*first, planned.config]):
            known = settings_digest(config)
            if known not in seen:
                seen.add(known)
                own = stated if config.dataset.name == planned.config.dataset.name else None
                yield from [run_hours(config, own)] * (1 if config in first else len(grid.seeds))


def _with_dense(configs: Iterable[RunConfig]) -> Iterator[RunConfig]:
    for config in configs:
        if prunes(config):
            yield dense_config(config)
        yield config


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
