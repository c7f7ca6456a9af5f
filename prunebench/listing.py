"""What `prunebench ls` and `show` find: options with their one line, methods, and the runs below `outputs`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prunebench.errors import UsageError, brief, did_you_mean
from prunebench.options import LISTINGS, Option, find_options
from prunebench.paths import RunFolder, is_held

RUNS, METHODS = "runs", "methods"
ALIASES = {group.rpartition("/")[2]: name for name, group in LISTINGS.items()} | {"run": RUNS, "method": METHODS}
FIELD = re.compile(r"(Idea|Needs|Cost|Source): ")


def listing_kind(word: str) -> str:
    """The listing that `word` names, in the singular too.

    Raises:
        UsageError: none.
    """
    name = ALIASES.get(word, word)
    known = [*LISTINGS, METHODS, RUNS]
    if name not in known:
        raise UsageError(f"ls {word}: no such listing{did_you_mean(word, known)}; there are {', '.join(known)}")
    return name


def list_options(listing: str, config_dir: str | None) -> list[dict[str, str]]:
    """name, description and file of every option of a listing."""
    options = find_options(config_dir).get(LISTINGS[listing], {})
    return [
        {"name": option.name, "description": option.description(), "file": str(option.path)}
        for option in options.values()
    ]


def list_methods(config_dir: str | None) -> list[dict[str, str]]:
    """name, description, idea, needs, cost, source and file of every recipe whose header tells these of a method."""
    options = find_options(config_dir).get("recipe", {})
    told = [(option, header_fields(option)) for option in options.values()]
    return [
        {"name": option.name, "description": option.description(), **fields, "file": str(option.path)}
        for option, fields in told
        if len(fields) == 4
    ]


def header_fields(option: Option) -> dict[str, str]:
    """idea, needs, cost and source, as far as the header has paragraphs that begin so ("# Idea: ...")."""
    found: dict[str, list[str]] = {}
    field = ""
    for line in option.header():
        begun = FIELD.match(line)
        field = begun[1].lower() if begun else field if line else ""
        if field:
            found.setdefault(field, []).append(line[begun.end() :] if begun else line)
    return {name: " ".join(lines) for name, lines in found.items()}


def count_options(config_dir: str | None) -> list[dict[str, Any]]:
    """What there is to list, and how a choice is written."""
    options, methods = find_options(config_dir), list_methods(config_dir)
    rows = [
        {"name": name, "count": len(options[group]), "example": f"{group}={next(iter(options[group]))}"}
        for name, group in LISTINGS.items()
        if options.get(group)
    ]
    return [*rows[:1], {"name": METHODS, "count": len(methods), "example": f"recipe={methods[0]['name']}"}, *rows[1:]]


def find_runs(outputs: str | Path) -> Iterator[RunFolder]:
    """Every run below `outputs`, by name and digest, finished or not."""
    for path in sorted(Path(outputs).glob("*/*/config.yaml")):
        if not path.parent.parent.name.startswith("."):
            yield RunFolder(path.parent)


def list_runs(outputs: str | Path) -> list[dict[str, Any]]:
    """Status and scores of every run."""
    return [_run_row(folder) for folder in find_runs(outputs)]


def _run_row(folder: RunFolder) -> dict[str, Any]:
    result = read_result(folder)
    return {
        "name": folder.root.parent.name,
        "digest": folder.root.name,
        "status": status_of(folder, result),
        "seed": result.get("seed"),
        "sparsity": (result.get("sparsity") or {}).get("prunable"),
        "metric": result.get("metric") or None,
        "recovery": result.get("recovery"),
        "folder": str(folder.root),
    }


def status_of(folder: RunFolder, result: Mapping[str, Any]) -> str:
    """As result.json has it; but a run that no process is at work on was killed."""
    status = str(result.get("status", "unknown"))
    return "killed" if status == "running" and not is_held(folder.lock) else status


def read_result(folder: RunFolder) -> dict[str, Any]:
    """What result.json holds; {} where it is missing or damaged."""
    try:
        return folder.read_result() or {}
    except (OSError, json.JSONDecodeError):
        return {}


def find_run(word: str, outputs: str | Path) -> RunFolder:
    """The run that `word` names: its folder, (the beginning of) its digest, or its name if it is the only one.

    Raises:
        UsageError: none, or several.
    """
    folder = RunFolder(Path(os.path.expanduser(word)))
    if os.path.isfile(folder.config):  # Path.is_file raises for names that no system has
        return folder
    runs = list(find_runs(outputs))
    found = [run for run in runs if run.root.name.startswith(word) or run.root.parent.name == word]
    if len(found) == 1:
        return found[0]
    if not found:
        names = sorted({run.root.parent.name for run in runs})
        raise UsageError(
            f"{brief(word)}: no run in {outputs}/ has this folder, digest or name{did_you_mean(word, names)}"
        )
    several = ", ".join(f"{run.root.parent.name}/{run.root.name}" for run in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    raise UsageError(f"{word}: {len(found)} runs are meant by that: {several}{more}; give one of the digests")
