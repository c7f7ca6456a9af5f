"""Finished runs as plain values: read fast, found by what a user types."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from prunebench.config import PhaseConfig, RunConfig
from prunebench.errors import UsageError, brief, did_you_mean
from prunebench.listing import find_runs
from prunebench.paths import RunFolder
from prunebench.progress import warn
from prunebench.report import SPARSE
from prunebench.results import evaluated_on
from prunebench.sweep_record import MemberRecord, find_sweep

PHASES = "pruning.schedule.phases"


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run. `folder` is None for a run read from wandb, which has no predictions and no metrics.jsonl."""

    result: Mapping[str, Any]  # what result.json holds
    folder: RunFolder | None = None

    @property
    def name(self) -> str:
        return str(self.result["name"])

    @property
    def digest(self) -> str:
        return str(self.result["digest"])

    @property
    def seed(self) -> int:
        return int(self.result["seed"])

    @property
    def score(self) -> float:
        """The primary metric, as it gives it."""
        return float(self.result["metric"]["value"])

    @property
    def dense(self) -> float | None:
        """The score of the dense model of the same seed."""
        value = (self.result.get("dense") or {}).get("value")
        return None if value is None else float(value)

    @property
    def is_dense(self) -> bool:
        sparsity = self.result["sparsity"]
        return not sparsity["target"] and sparsity["prunable"] < SPARSE

    @cached_property
    def evaluation(self) -> Mapping[str, Any]:
        """What was scored, see `results.evaluated_on`. Of earlier versions' runs the texts are not known."""
        told: Mapping[str, Any] = self.result.get("evaluation") or {}
        if told:
            return told
        found = evaluated_on(self.predictions(), None)
        if found["examples"]:
            return found
        data = {key: value for key, value in self.settings.items() if key.startswith("dataset.")}
        return found | {"examples": None, "answers": f"settings {json.dumps(data, sort_keys=True)}"}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The config by dotted key. Runs of earlier versions have it in config.yaml only, which is slower to read.

        What a version did not know yet is what it does by default.
        """
        config = self.result.get("config") or (self.folder and _read_yaml(self.folder.config)) or {}
        if not config:
            return {}
        settings = flatten(config)  # in the order of the config
        settings |= {key: value for key, value in default_settings().items() if key not in settings}
        phases = settings.get(PHASES) or []
        return settings | {PHASES: [default_phase() | phase if isinstance(phase, dict) else phase for phase in phases]}

    @cached_property
    def values(self) -> dict[str, Any]:
        """Settings and results by dotted key; where both have a key, the setting."""
        known = {key: value for key, value in self.result.items() if key not in ("config", "model", "schema")}
        return flatten(known) | self.settings

    def predictions(self) -> Iterator[dict[str, Any]]:
        """The lines of predictions.jsonl; none where there is no such file (or it is damaged)."""
        if self.folder is not None:
            yield from _read_lines(self.folder.predictions)

    def metrics(self) -> Iterator[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        if self.folder is not None:
            yield from _read_lines(self.folder.metrics)

    def dense_run(self) -> Run | None:
        """The dense run that this one is compared with, if its folder is there still."""
        told = (self.result.get("dense") or {}).get("folder")
        if self.folder is None or not told:
            return None
        beside = self.folder.root.parent.parent / Path(told).parent.name / Path(told).name  # outputs may have moved
        return next((run for path in (beside, Path(told)) if (run := _load(RunFolder(path)))), None)


def load_runs(outputs: str | Path) -> list[Run]:
    """Every finished run below `outputs`, by name and digest. A damaged one is left out, with a warning."""
    return [run for folder in find_runs(outputs) if (run := _load(folder)) is not None]


def select(words: Sequence[str], outputs: str | Path) -> list[Run]:
    """The finished runs that words name: folders (a run's, or one that holds runs), (beginnings of) digests, names,
    patterns of name/digest or folder.

    Args:
        words: none: all runs below `outputs`.

    Raises:
        UsageError: a word names no run, or only runs that are not finished; one line for each such word.
    """
    if not words:
        return load_runs(outputs)
    folders = list(find_runs(outputs))
    found: dict[Path, Run] = {}
    problems = []
    for word in words:
        named = _named(word, folders)
        runs = [run for folder in named if (run := _load(folder)) is not None]
        found |= {run.folder.root.resolve(): run for run in runs if run.folder}
        if not named:
            names = sorted({folder.root.parent.name for folder in folders})
            hint = did_you_mean(word, names)
            problems.append(f"{brief(word)}: no run in {outputs}/ has this folder, digest or name{hint}")
        elif not runs:
            problems.append(f"{brief(word)}: not finished yet; the same command continues it")
    if problems:
        raise UsageError("\n".join(problems))
    return list(found.values())


def _named(word: str, folders: Iterable[RunFolder]) -> list[RunFolder]:
    """The runs that one word means, finished or not: a run's folder, one that holds runs, or what they are called."""
    given = os.path.expanduser(word)
    if word and os.path.isdir(given):
        below = [*find_runs(given), *(RunFolder(path.parent) for path in sorted(Path(given).glob("*/config.yaml")))]
        inside = [RunFolder(Path(given))] if os.path.isfile(os.path.join(given, "config.yaml")) else below
        if inside:
            return inside
    return [each for each in folders if _is_called(each.root.parent.name, each.root.name, each, word)]


def select_sweep(word: str, outputs: str | Path) -> tuple[list[Run], list[MemberRecord]]:
    """The finished runs of the sweep that `word` names, see `find_sweep`, and its other members.

    Raises:
        UsageError: no such sweep.
    """
    runs, others = [], []
    for member in find_sweep(word, outputs).members:
        run = _load(RunFolder(Path(outputs) / member.run)) if member.run else None
        if run is not None:
            runs.append(run)
        else:
            others.append(member)
    return runs, others


def is_called(run: Run, word: str) -> bool:
    """Whether `word` is a run's name, (the beginning of) its digest, or a pattern of name/digest or of its folder."""
    return _is_called(run.name, run.digest, run.folder, word)


def _is_called(name: str, digest: str, folder: RunFolder | None, word: str) -> bool:
    if not word:
        return False
    pattern = os.path.normpath(os.path.expanduser(word))
    places = [] if folder is None else [os.path.normpath(folder.root), os.path.abspath(folder.root)]
    return (
        word == name or digest.startswith(word) or any(fnmatchcase(t, pattern) for t in (f"{name}/{digest}", *places))
    )


def _load(folder: RunFolder) -> Run | None:
    """None for a run that is not finished, and with a warning for one whose result.json is damaged."""
    try:
        result = folder.read_result()
        if result is None or result["status"] != "finished":
            return None
        require(result)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        warn(f"{folder.result} is damaged and left out ({type(error).__name__}: {brief(error)})")
        return None
    return Run(result, folder)


def require(result: Mapping[str, Any]) -> None:
    """Raises ValueError, KeyError or TypeError where a result lacks what every comparison needs."""
    numbers = (result["metric"]["value"], result["sparsity"]["target"], result["sparsity"]["prunable"], result["seed"])
    if not all(isinstance(number, int | float) for number in numbers):
        raise ValueError("score, sparsity and seed must be numbers")
    texts = (result["name"], result["digest"], result["metric"]["name"])
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("name, digest and metric must be texts")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}. Lists stay as they are; of an empty mapping nothing is left."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


@cache
def default_settings() -> dict[str, Any]:
    """Every setting that has one."""
    return {key: value for key, value in flatten(asdict(RunConfig())).items() if value != MISSING}


@cache
def default_phase() -> dict[str, Any]:
    return asdict(PhaseConfig())


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped]

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        warn(f"{path} cannot be read: {brief(error)}")
        return {}
    return config if isinstance(config, dict) else {}


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """A line cut off by a kill ends the file."""
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
    except (OSError, ValueError):
        return
