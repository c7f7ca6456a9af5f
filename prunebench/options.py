"""What can be chosen: the groups of conf/ (and of the user's own folder) and their options, with one line on each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prunebench.errors import UsageError
from prunebench.paths import conf_dir

LISTINGS = {  # what `prunebench ls` calls a group
    "recipes": "recipe",
    "models": "model",
    "datasets": "dataset",
    "schedules": "pruning/schedule",
    "criteria": "pruning/criterion",
    "scopes": "pruning/scope",
    "patterns": "pruning/pattern",
    "distillation": "distillation",
    "trainers": "trainer",
    "trackers": "tracker",
}


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


Options = dict[str, dict[str, Option]]  # group -> name -> option


def find_options(config_dir: str | None = None) -> Options:
    """All options by group, those of the user's own folder included.

    Raises:
        UsageError: no such folder, or an option in it has the name of one of ours.
    """
    ours = _read(conf_dir())
    if config_dir is None:
        return ours
    folder = Path(config_dir).expanduser()
    if not folder.is_dir():
        raise UsageError(f"--config-dir {config_dir}: there is no such folder")
    theirs = _read(folder)
    for group, options in theirs.items():
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
        if group != ".":
            options.setdefault(group, {})[path.stem] = Option(group, path.stem, path)
    return options


def listing_of(group: str) -> str:
    """The field's word for an option of a group: "pruning/schedule" -> "schedule"."""
    return group.rpartition("/")[2]


def listing_name(group: str) -> str:
    """What `prunebench ls` calls the group; its own name where ls has no other for it."""
    return next((name for name, known in LISTINGS.items() if known == group), group)
