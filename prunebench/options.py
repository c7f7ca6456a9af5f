"""What can be chosen: the groups of conf/ (and of the user's own folder) and their options, with one line on each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from prunebench.errors import UsageError, brief
from prunebench.paths import conf_dir

LISTINGS = {  # what `prunebench ls` calls a group
    "recipes": "recipe",
    "models": "model",
    "datasets": "dataset",
    "schedules": "pruning/schedule",
    "criteria": "pruning/criterion",
    "scopes": "pruning/scope",
    "patterns": "pruning/pattern",
    "refinements": "pruning/refinement",
    "updates": "pruning/update",
    "regrowths": "pruning/regrowth",
    "dynamics": "pruning/dynamics",
    "distillation": "distillation",
    "trainers": "trainer",
    "trackers": "tracker",
    "launchers": "launcher",
    "searches": "search",
}

PUBLISHED = "published"  # a folder of conf/ that holds no choices: the tables of `prunebench reproduce`


@dataclass(frozen=True)
class Option:
    """One YAML file of a group."""

    group: str
    name: str
    path: Path

    def header(self) -> list[str]:
        """The comment lines at the top, without `#` and the package line."""
        lines = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                break
            if not line.startswith("# @package"):
                lines.append(line.removeprefix("#").strip())
        return lines

    def description(self) -> str:
        """The first comment line."""
        return next((line for line in self.header() if line), "")


def component_names(group: str) -> tuple[str, ...]:
    """The names of the classes that the options of a group of ours stand for, as `name:` in their YAML has them."""
    found = (
        re.search(r"^name: (\S+)", option.path.read_text("utf-8"), re.M) for option in _read(conf_dir())[group].values()
    )
    return tuple(dict.fromkeys(match[1] for match in found if match))


@cache
def component_params(group: str) -> dict[str, dict[str, Any]]:
    """The settings (`params:`) of those classes, each with one of its defaults."""
    import yaml  # type: ignore[import-untyped]

    known: dict[str, dict[str, Any]] = {}
    for option in _read(conf_dir())[group].values():
        values = yaml.safe_load(option.path.read_text("utf-8"))
        known.setdefault(values["name"], {}).update(values.get("params") or {})
    return known


Options = dict[str, dict[str, Option]]  # group -> name -> option


def find_options(config_dir: str | None = None) -> Options:
    """All options by group, those of the user's own folder included.

    Raises:
        UsageError: no such folder, or an option in it has the name of one of ours.
    """
    ours = _read(conf_dir())
    if config_dir is None:
        return ours
    folder = Path(os.path.expanduser(config_dir))
    if not config_dir or not os.path.isdir(folder):  # Path.is_dir raises for names that no system has
        raise UsageError(f"--config-dir {brief(config_dir)}: there is no such folder")
    theirs = _read(folder)
    for group, options in theirs.items():
        _check_text(options.values() if group in ours else ())
        taken = sorted(options.keys() & ours.get(group, {}).keys())
        if taken:
            path = options[taken[0]].path
            raise UsageError(f"{path}: prunebench has a {listing_of(group)} {taken[0]} of its own: rename the file")
    groups = {*ours, *theirs}
    return {group: ours.get(group, {}) | theirs.get(group, {}) for group in sorted(groups)}


def _read(folder: Path) -> Options:
    options: Options = {}
    for path in sorted(folder.rglob("*.yaml")):
        group = path.parent.relative_to(folder).as_posix()
        if group not in (".", PUBLISHED) and path.is_file():
            options.setdefault(group, {})[path.stem] = Option(group, path.stem, path)
    return options


def _check_text(options: Iterable[Option]) -> None:
    for option in options:
        try:
            option.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{option.path}: cannot be read as UTF-8 text ({brief(error)})") from error


def listing_of(group: str) -> str:
    """The field's word for an option of a group: "pruning/schedule" -> "schedule"."""
    return group.rpartition("/")[2]


def listing_name(group: str) -> str:
    """What `prunebench ls` calls the group; its own name where ls has no other for it."""
    return next((name for name, known in LISTINGS.items() if known == group), group)
