"""Finished runs of a Weights & Biases project, from what `tracking.WandbTracker` sent there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from prunebench.compare.runs import Run, is_called, require
from prunebench.errors import RunError, UsageError, brief
from prunebench.progress import warn
from prunebench.results import Result
from prunebench.tracking import flatten, has_key

PATH = re.compile(r"[^/\s]+/[^/\s]+")
OF_RESULT = {field.name for field in fields(Result)} - {"config", "name", "seed", "status"}
PER_PAGE = 100


def load_wandb(path: str, words: Sequence[str] = ()) -> list[Run]:
    """The finished runs of `entity/project`; `words`: only those with such a name or digest.

    Runs without a result of ours (not finished, or of something else) are left out, with one warning.

    Raises:
        UsageError: no key, no such form of path, or a word that names no run.
        RunError: wandb could not be asked, or has no such project.
    """
    if not PATH.fullmatch(path):
        raise UsageError(f"--wandb {brief(path)}: give entity/project")
    if not has_key():
        raise UsageError("--wandb: no key found: wandb login, or set WANDB_API_KEY")
    found = [_run(identity, config, summary) for identity, config, summary in _ask(path)]
    runs = [run for run in found if run is not None]
    if len(runs) < len(found):
        warn(f"{len(found) - len(runs)} runs of {path} have no result of prunebench and are left out")
    unknown = [word for word in words if not any(is_called(run, word) for run in runs)]
    if unknown:
        raise UsageError("\n".join(f"{brief(word)}: no finished run in {path} is called so" for word in unknown))
    return [run for run in runs if not words or any(is_called(run, word) for word in words)]


def _ask(path: str) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Id, config and summary of every run that wandb calls finished."""
    import wandb

    try:
        runs = wandb.Api().runs(path, filters={"state": "finished"}, per_page=PER_PAGE, lazy=False)
        return [(run.id, run.config, run.summary_metrics) for run in runs]
    except Exception as error:  # the client has errors of many kinds
        reason = next(iter(str(error).splitlines()), "")
        raise RunError(f"--wandb {path}: {type(error).__name__}: {brief(reason, 300)}") from error


def _run(identity: str, config: Mapping[str, Any], summary: Mapping[str, Any]) -> Run | None:
    """None where the summary is not that of a finished run."""
    told = _unflatten({key: value for key, value in flatten(summary).items() if key.split("/")[0] in OF_RESULT})
    result = {
        "name": config.get("name"),
        "recipe": config.get("recipe"),
        "seed": config.get("seed"),
        "digest": identity.split("-")[0],  # of runs that do not say it themselves
        "recovery": None,
        **told,
        "config": dict(config),
    }
    try:
        require(result)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return Run(result)


def _unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"sparsity/model": 0.5} -> {"sparsity": {"model": 0.5}}; a "sparsity" that was logged beside it goes."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        if any(other.startswith(f"{key}/") for other in flat):
            continue
        *path, last = key.split("/")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return nested
