"""How long a run will take, from the finished runs below `outputs` (no torch)."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import yaml  # type: ignore[import-untyped]

from prunebench.config import RunConfig
from prunebench.digest import distils, prunes
from prunebench.errors import UsageError
from prunebench.listing import find_runs, read_result
from prunebench.paths import RunFolder
from prunebench.preview import preview

SEEN_AT_MOST = 200  # runs; reading more takes longer than it tells
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Seen:
    """A finished run: what it computed with (`work`), how (`way`), and seconds for each epoch."""

    work: tuple[Any, ...]
    way: tuple[Any, ...]
    pace: float


class Paces:
    """Seconds of runs to come: those of runs of the same model, data and batches, scaled by the number of epochs.

    Of these the ones with the same schedule and loss count, if there are any.
    """

    def __init__(self, outputs: str | Path) -> None:
        self._seen = list(_seen_runs(outputs))

    def add(self, config: RunConfig, result: Mapping[str, Any]) -> None:
        self._seen += _seen(_work(config), _way(config), result)

    def basis(self, config: RunConfig) -> int:
        """How many finished runs an estimate for `config` rests on."""
        return len(self._alike(config))

    def seconds(self, config: RunConfig) -> float | None:
        """Of the run alone, without its dense model; None where no finished run is like it."""
        alike, epochs = self._alike(config), _epochs(config)
        if not alike or epochs is None:
            return None
        return statistics.median(seen.pace for seen in alike) * epochs

    def _alike(self, config: RunConfig) -> list[Seen]:
        work, way = _work(config), _way(config)
        same_work = [seen for seen in self._seen if seen.work == work]
        return [seen for seen in same_work if seen.way == way] or same_work


def _epochs(config: RunConfig) -> float | None:
    try:
        return preview(config, {}).plan.epochs
    except UsageError:
        return None


def _work(config: RunConfig) -> tuple[Any, ...]:
    data, trainer = config.dataset, config.trainer
    size = (data.max_length, data.limit, data.holdout, data.train_file)
    return config.model.name, data.name, *size, trainer.batch_size, trainer.precision, trainer.device


def _way(config: RunConfig) -> tuple[Any, ...]:
    return prunes(config), distils(config), config.pruning.schedule.name if prunes(config) else None


def _seen(work: tuple[Any, ...], way: tuple[Any, ...], result: Mapping[str, Any]) -> Iterator[Seen]:
    epochs, seconds = (result.get("training") or {}).get("epochs"), result.get("seconds")
    if result.get("status") == "finished" and epochs and seconds:
        yield Seen(work, way, seconds / epochs)


def _seen_runs(outputs: str | Path) -> Iterator[Seen]:
    """The newest first."""
    folders = sorted(find_runs(outputs), key=_written, reverse=True)
    for folder in folders[:SEEN_AT_MOST]:
        try:
            config = _read(folder.config)
            work, way = _work(config), _way(config)
        except (OSError, ValueError, yaml.YAMLError, AttributeError, TypeError):
            continue  # damaged, or another version's
        yield from _seen(work, way, read_result(folder))


def _written(folder: RunFolder) -> float:
    """0 for a run that is cleaned away meanwhile."""
    try:
        return folder.config.stat().st_mtime
    except OSError:
        return 0.0


def _read(path: Path) -> RunConfig:
    """What a run's config.yaml holds, unchecked: `compose.read_run_config` takes too long for hundreds of them."""
    plain = json.dumps(yaml.load(path.read_text(encoding="utf-8"), LOADER))
    return cast(RunConfig, json.loads(plain, object_hook=lambda settings: SimpleNamespace(**settings)))
