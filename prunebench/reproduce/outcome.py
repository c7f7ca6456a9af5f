"""What finished runs say of a table: ours beside the published, for each cell and metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from prunebench.compare import mean_std, paired_interval
from prunebench.compose import load_config, read_run_config
from prunebench.config import RunConfig
from prunebench.errors import UsageError
from prunebench.listing import find_runs, read_result
from prunebench.paths import RunFolder
from prunebench.reproduce.grid import Grid, Planned
from prunebench.reproduce.identify import settings_digest
from prunebench.reproduce.published import Score


class Finished:
    """The finished runs below `outputs`, by their settings, wherever and by whichever command they were run."""

    def __init__(self, outputs: str) -> None:
        self._outputs = outputs
        self._settings: dict[Path, str] = {}

    def find(self, config: RunConfig) -> tuple[RunFolder, Mapping[str, Any]] | None:
        """The newest run with the settings of `config`, and what its result.json holds."""
        wanted = settings_digest(config)
        rough = (config.seed, config.sparsity)
        found = [(folder, result) for folder, result in self._by_seed.get(rough, []) if self._digest(folder) == wanted]
        return max(found, key=lambda pair: pair[0].result.stat().st_mtime) if found else None

    @cached_property
    def _by_seed(self) -> dict[tuple[Any, Any], list[tuple[RunFolder, Mapping[str, Any]]]]:
        """Reading a config takes 40 ms, so only those with the right seed and level are."""
        runs: dict[tuple[Any, Any], list[tuple[RunFolder, Mapping[str, Any]]]] = {}
        for folder in find_runs(self._outputs):
            result = read_result(folder)
            if result.get("status") == "finished":
                runs.setdefault((result["seed"], result["sparsity"]["target"]), []).append((folder, result))
        return runs

    def _digest(self, folder: RunFolder) -> str:
        if folder.root not in self._settings:
            try:
                self._settings[folder.root] = settings_digest(read_run_config(folder.config))
            except UsageError:  # of another version
                self._settings[folder.root] = ""
        return self._settings[folder.root]


@dataclass(frozen=True)
class Ours:
    """Our scores of one metric, one a seed, in the unit of the published ones."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        return mean_std(self.values).mean if self.values else None

    @property
    def std(self) -> float | None:
        return mean_std(self.values).std if self.values else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's 95 % interval of the mean; None for too few seeds, see `compare`."""
        found = paired_interval(self.values) if self.values else None
        return None if found is None or found.low is None or found.high is None else (found.low, found.high)


@dataclass(frozen=True)
class Line:
    """One metric of one cell. `comparable`: false at the small scale, and where settings were changed."""

    planned: Planned
    metric: str
    ours: Ours
    published: Score | None
    comparable: bool

    @property
    def difference(self) -> float | None:
        """Ours minus published, in points."""
        if self.ours.mean is None or self.published is None or not self.comparable:
            return None
        return self.ours.mean - self.published.value

    @property
    def outside(self) -> bool | None:
        """Whether the published value, however it was misread, lies outside our interval; None: cannot be told."""
        interval = self.ours.interval
        if interval is None or self.published is None or self.difference is None:
            return None
        low, high = interval
        return self.published.value + self.published.error < low or self.published.value - self.published.error > high


@dataclass(frozen=True)
class Outcome:
    """A cell with what its finished runs achieved: `results` by seed; `reasons` why others failed."""

    planned: Planned
    results: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()


def outcomes(grid: Grid, reasons: Mapping[str, str] | None = None) -> list[Outcome]:
    """What there is of every cell. `reasons`: why a run failed, by its name (see `member_name`)."""
    finished = Finished(grid.outputs)
    return [_outcome(planned, grid, finished, reasons or {}) for planned in grid.cells]


def _outcome(planned: Planned, grid: Grid, finished: Finished, reasons: Mapping[str, str]) -> Outcome:
    settled = settle(planned, finished) if planned.refused is None else None
    found = {seed: finished.find(replace(settled.config, seed=seed)) for seed in grid.seeds} if settled else {}
    results = {seed: pair[1] for seed, pair in found.items() if pair}
    told = [reasons[name] for seed in grid.seeds if (name := member_name(planned, seed)) in reasons]
    return Outcome(planned, results, tuple(dict.fromkeys(told)))


def member_name(planned: Planned, seed: int) -> str:
    return f"{planned.cell.name} | seed {seed}"


def settle(planned: Planned, finished: Finished) -> Planned | None:
    """`planned` with the models of the runs that come first; None while one of them is not finished."""
    if not planned.first:
        return planned
    words = planned.words
    for name, first in planned.first.items():
        found = finished.find(load_config(list(first)))
        if found is None:
            return None
        folder, result = found
        model = str((folder.root / result["model"]).resolve())
        words = tuple(word.replace(f"={{{name}}}", f"={model}") for word in words)
    return replace(planned, words=words, config=load_config(list(words)), first=None)


def lines(outcome: Outcome, grid: Grid) -> Iterator[Line]:
    """A line for every metric that the table has of the cell."""
    for metric, score in outcome.planned.cell.scores.items():
        found = (result["metrics"].get(metric) for result in outcome.results.values())
        values = tuple(_unit(outcome.planned.config, metric) * value for value in found if value is not None)
        yield Line(outcome.planned, metric, Ours(values), score, grid.comparable)


def _unit(config: RunConfig, metric: str) -> float:
    """Published scores are percentages; ours are shares, but for question answering and what is no share at all."""
    return 1.0 if config.dataset.task == "question_answering" or metric.startswith("perplexity") else 100.0
