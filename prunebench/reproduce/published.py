"""The tables in conf/published/: what was run, what was published for it, and how far that is verified."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import yaml  # type: ignore[import-untyped]

from prunebench.errors import UsageError, brief, did_you_mean
from prunebench.options import PUBLISHED, Option
from prunebench.paths import conf_dir

Denominator = Literal["encoder", "all"]  # what a level is a share of: the encoder's matrices, or every matrix
Verified = Literal["READ", "COMPUTED", "DIGITISED", "NONE"]  # read in the source; arithmetic on that; off a plot; none
SCORE = re.compile(r"(?P<rough>~)?(?P<value>-?\d+(?:\.\d+)?)(?: ± (?P<std>\d+(?:\.\d+)?))?")
ROUGH = 1.0  # points by which a value with a `~` may be off: its marker is partly hidden in the plot
DATA = "{data}"  # in a list of words: those of the cell's data
PLACEHOLDER = re.compile(r"=\{(\w+)\}")  # the folder of the model of a run that comes first


@dataclass(frozen=True)
class Score:
    """A published score, in percent. `error`: points by which it may have been misread (0 where it was printed)."""

    value: float
    std: float | None = None
    error: float = 0.0


@dataclass(frozen=True)
class Cell:
    """One way, on one data set, at one level (0: dense); `scores` by metric, None where nothing is published."""

    row: str
    data: str
    level: float
    of: Denominator
    scores: Mapping[str, Score | None]

    @property
    def name(self) -> str:
        return f"{self.data} | {self.row}" + (f" | {self.level:g} of {self.of}" if self.level else "")


@dataclass(frozen=True)
class Published:
    """A table or figure. `rows`, `data` and `first` hold key=value words; those of `first` are run before the others.

    The words of a cell are those of its row and then of its data (of which a dense run takes none that begin with
    `pruning`). `model.name={upstream}` stands for the model of the run `upstream` of `first`; there `{data}` stands for
    the words of the cell's data, and `sparsity={level}` for its level.
    """

    name: str
    file: Path
    description: str
    paper: str
    url: str
    where: str
    verified: Verified
    rows: Mapping[str, list[str]]
    data: Mapping[str, list[str]]
    cells: tuple[Cell, ...]
    notes: str = ""
    seeds: int | None = None  # that the published means are over
    levels_of: Denominator = "encoder"
    first: Mapping[str, list[str]] = field(default_factory=dict)
    gpu_hours: float | None = None  # of the whole grid with three seeds, as `--plan` computes them
    hours_per_epoch: Mapping[str, float] = field(default_factory=dict)  # stated in the source, by data
    reading_error: float = 0.0
    not_comparable: str = ""  # why no difference may be drawn even from a complete run


WRITTEN = {f.name: f for f in fields(Published) if f.name not in ("name", "file", "description", "notes")}
BLOCK = ("row", "data", "metrics", "levels", "of", "reading_error")


def find_tables(config_dir: str | None = None) -> dict[str, Path]:
    """The file of every table by name, those of the user's own folder last.

    Raises:
        UsageError: no such folder, or a table in it has the name of one of ours.
    """
    found = _files(conf_dir())
    if config_dir is None:
        return found
    if not os.path.isdir(os.path.expanduser(config_dir)):
        raise UsageError(f"--config-dir {brief(config_dir)}: there is no such folder")
    theirs = _files(Path(os.path.expanduser(config_dir)))
    if taken := sorted(theirs.keys() & found.keys()):
        raise UsageError(f"{theirs[taken[0]]}: prunebench has a table {taken[0]} of its own: rename the file")
    return found | theirs


def _files(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted((folder / PUBLISHED).glob("*.yaml"))}


def find_table(name: str, config_dir: str | None = None) -> Published:
    """Raises UsageError where there is no such table, or it cannot be read."""
    tables = find_tables(config_dir)
    if name not in tables:
        raise UsageError(
            f"{brief(name)}: no such table{did_you_mean(name, tables)}; prunebench reproduce lists the {len(tables)}"
        )
    return read_table(tables[name])


def read_table(path: Path) -> Published:
    """Raises UsageError, with the file, for what is wrong in it."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read as YAML ({brief(error)})") from error
    try:
        return _table(path, content)
    except _Wrong as error:
        raise UsageError(f"{path}: {error}") from error


class _Wrong(Exception):
    """What is wrong in a file, without its name."""


def _table(path: Path, content: Any) -> Published:
    written = dict(_mapping(content, "the file"))
    _check_keys(written, WRITTEN, "", [name for name, described in WRITTEN.items() if _is_needed(described)])
    _check_choice(written["verified"], get_args(Verified), "verified")
    _check_choice(written.setdefault("levels_of", "encoder"), get_args(Denominator), "levels_of")
    for name in ("rows", "data", "first"):
        written[name] = _words(written.get(name, {}), name)
    for name in ("gpu_hours", "reading_error"):
        written[name] = _number(written[name], name) if name in written else WRITTEN[name].default
    if not isinstance(written["cells"], list):
        raise _Wrong("cells must be a list")
    cells = tuple(cell for index, block in enumerate(written.pop("cells")) for cell in _cells(block, index, written))
    _check_cells(cells)
    header = [line for line in Option(PUBLISHED, path.stem, path).header() if line] or [path.stem]
    return Published(
        name=path.stem, file=path, description=header[0], notes=" ".join(header[1:]), cells=cells, **written
    )


def _is_needed(described: Any) -> bool:
    return described.default is MISSING and described.default_factory is MISSING


def _check_keys(written: Mapping[str, Any], known: Any, where: str, needed: list[str]) -> None:
    for name in written:
        if name not in known:
            raise _Wrong(f"{where}no such key {brief(name)}{did_you_mean(name, known)}; there are {', '.join(known)}")
    for name in needed:
        if name not in written:
            raise _Wrong(f"{where}{name} is missing")


def _check_choice(value: Any, allowed: tuple[str, ...], name: str) -> None:
    if value not in allowed:
        raise _Wrong(f"{name}={brief(value)}: it can be {', '.join(allowed)}")


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _Wrong(f"{what} must hold `key: value` lines")
    return {str(key): item for key, item in value.items()} if what != "levels" else value


def _words(value: Any, name: str) -> dict[str, list[str]]:
    """name -> its key=value words."""
    result = {}
    for key, words in _mapping(value, name).items():
        whole = isinstance(words, list) and all(isinstance(word, str) for word in words)
        if not whole or any("=" not in word and word != DATA for word in words):
            raise _Wrong(f"{name}.{brief(key)}: must be a list of key=value words")
        result[key] = words
    return result


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Wrong(f"{name}={brief(value)}: expected a number")
    return float(value)


def _cells(block: Any, index: int, table: Mapping[str, Any]) -> Iterator[Cell]:
    """The cells of one item of `cells`: one or several rows and data sets, with the levels of each."""
    where = f"cells[{index}]: "
    block = _mapping(block, f"cells[{index}]")
    _check_keys(block, BLOCK, where, ["row", "data", "metrics", "levels"])
    of = block.get("of", table["levels_of"])
    _check_choice(of, get_args(Denominator), f"{where}of")
    error = _number(block.get("reading_error", table["reading_error"]), f"{where}reading_error")
    for row in _names(block["row"], table["rows"], f"{where}row"):
        for data in _names(block["data"], table["data"], f"{where}data"):
            for level, scores in _levels(block["levels"], where):
                yield Cell(row, data, level, of, _scores(block["metrics"], scores, error, where))


def _names(value: Any, known: Mapping[str, Any], where: str) -> list[str]:
    names = value if isinstance(value, list) else [value]
    for name in names:
        if name not in known:
            raise _Wrong(
                f"{where} {brief(name)} is not described{did_you_mean(name, known)}; there are {', '.join(known)}"
            )
    return names


def _levels(value: Any, where: str) -> Iterator[tuple[float, list[Any]]]:
    """Level and what is published there; a mere list of levels has nothing published."""
    items = value.items() if isinstance(value, dict) else [(level, []) for level in value or ()]
    for level, scores in items:
        number = _number(level, f"{where}level")
        if not 0 <= number < 1:
            raise _Wrong(f"{where}level {number:g}: a share of zeros, from 0 (dense) to below 1")
        yield number, scores if isinstance(scores, list) else [scores]


def _scores(metrics: Any, scores: list[Any], error: float, where: str) -> dict[str, Score | None]:
    if not isinstance(metrics, list) or (scores and len(scores) != len(metrics)):
        raise _Wrong(f"{where}{len(scores)} scores for the metrics {brief(metrics)}")
    padded = scores or [None] * len(metrics)
    return {name: _score(text, error, where) for name, text in zip(metrics, padded, strict=True)}


def _score(written: Any, error: float, where: str) -> Score | None:
    if written is None:
        return None
    found = SCORE.fullmatch(str(written))
    if not found:
        raise _Wrong(f"{where}{brief(written)}: expected a score in percent, like 88.31, 88.31 ± 0.13 or ~76")
    std = float(found["std"]) if found["std"] else None
    return Score(float(found["value"]), std, ROUGH if found["rough"] else error)


def _check_cells(cells: tuple[Cell, ...]) -> None:
    if not cells:
        raise _Wrong("cells is empty: there is nothing to run")
    seen: set[str] = set()
    for cell in cells:
        if cell.name in seen:
            raise _Wrong(f"{cell.name} stands there twice")
        seen.add(cell.name)
