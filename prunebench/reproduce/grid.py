"""From a published table to the runs that reproduce it: key=value words, their configs, and what cannot be run."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from prunebench.compose import load_config
from prunebench.config import RunConfig
from prunebench.errors import UsageError, brief, did_you_mean
from prunebench.facts import sizes
from prunebench.overrides import key_of
from prunebench.reproduce.levels import Asked, Shares, Sizes, Unreachable, asked, shares
from prunebench.reproduce.published import DATA, PLACEHOLDER, Cell, Published
from prunebench.reproduce.small import Small

FIXED = {  # what the table itself decides, and how to choose among it
    "seed": "--seeds says how many seeds there are",
    "sparsity": "the table has its levels: --only picks some",
    "recipe": "the table has its ways: --only picks some",
    "dataset": "the table has its data: --only picks some",
    "search": "the grid is the table's",
}
TECHNICAL = ("outputs", "name", "tracker", "trainer.precision", "model.name", "model.tokenizer", "dataset.train_file",
             "dataset.validation_file", "distillation.cache_gb", "trainer.accumulation", "trainer.eval_batch_size",
             "trainer.log_every", "trainer.checkpoint_minutes", "trainer.checkpoint_steps", "trainer.device",
             "trainer.threads")  # fmt: skip  # where and how it is computed, not what is


@dataclass(frozen=True)
class Planned:
    """A cell as it would be run.

    `words` are without a seed, and may hold places for models of runs that come first; `config` has a stand-in there.
    """

    cell: Cell
    words: tuple[str, ...]
    config: RunConfig
    shares: Shares
    scale: str  # "" or what was shrunk and with which data
    refused: str | None = None  # why it cannot be run
    first: Mapping[str, tuple[str, ...]] | None = None  # the runs that come first, by the name of their place

    def seeded(self, seed: int) -> list[str]:
        return [*self.words, f"seed={seed}"]


@dataclass(frozen=True)
class Grid:
    """What is to be run for a table. `changed`: settings of the command line that make it another experiment."""

    table: Published
    cells: tuple[Planned, ...]
    seeds: tuple[int, ...]
    outputs: str
    small: Small | None
    changed: tuple[str, ...]

    @property
    def comparable(self) -> bool:
        """Whether a difference to the published numbers means something."""
        return self.small is None and not self.changed and not self.table.not_comparable

    @cached_property
    def runnable(self) -> tuple[Planned, ...]:
        return tuple(planned for planned in self.cells if planned.refused is None)


@dataclass(frozen=True)
class Request:
    """What the command line asks of a table."""

    seeds: int = 3
    only: Sequence[str] = ()
    words: Sequence[str] = ()
    config_dir: str | None = None
    small: Small | None = None


def build(table: Published, request: Request) -> Grid:
    """The grid of a table.

    Raises:
        UsageError: nothing is left of it, or a row's words cannot be composed.
    """
    _check_words(request.words)
    cells = _chosen(table, request)
    if request.small:
        cells = _few(cells)
    composer = _Composer(table, request)
    planned = tuple(composer.plan(cell) for cell in cells)
    outputs = planned[0].config.outputs
    seeds = tuple(range(1, (1 if request.small else request.seeds) + 1))
    changed = tuple(word for word in request.words if key_of(word) not in TECHNICAL)
    grid = Grid(table, planned, seeds, outputs, request.small, changed)
    if not grid.runnable:
        raise UsageError("\n".join(dict.fromkeys(f"{p.cell.name}: {p.refused}" for p in planned)))
    return grid


def _check_words(words: Sequence[str]) -> None:
    wrong = [f"{brief(word)}: {FIXED[key_of(word)]}" for word in words if key_of(word) in FIXED]
    if wrong:
        raise UsageError("\n".join(wrong))


def _chosen(table: Published, request: Request) -> list[Cell]:
    """The cells whose names match every pattern."""
    cells = [cell for cell in table.cells if all(_matches(cell, pattern) for pattern in request.only)]
    if not cells:
        names = ", ".join(dict.fromkeys(cell.name for cell in table.cells[:3]))
        raise UsageError(
            f"--only {' '.join(map(brief, request.only))}: no cell of {table.name} matches; there are {names}, ..."
        )
    return cells


def _matches(cell: Cell, pattern: str) -> bool:
    """Whether a part of the cell's name is, or holds, the pattern."""
    parts = [cell.row, cell.data, f"{cell.level:g}", cell.name]
    held = fnmatch.fnmatchcase(cell.name.lower(), f"*{pattern.lower()}*")
    return held or any(fnmatch.fnmatchcase(part.lower(), pattern.lower()) for part in parts)


def _few(cells: Sequence[Cell]) -> list[Cell]:
    """The small grid: on the first data every way at its first and last level, on the others one way at its last."""
    kept: list[Cell] = []
    for data in dict.fromkeys(cell.data for cell in cells):
        own = [cell for cell in cells if cell.data == data]
        rows = dict.fromkeys(cell.row for cell in own)
        ways = [[cell for cell in own if cell.row == row] for row in rows]
        if data != cells[0].data:
            ways = [[next((way for way in ways if way[-1].level), ways[0])[-1]]]
        kept += [cell for way in ways for cell in (way[:1] if len(way) == 1 else [way[0], way[-1]])]
    return kept


def merged(*lists: Sequence[str]) -> list[str]:
    """key=value words, of which a later one takes the place of an earlier one with the same key."""
    result: dict[str, str] = {}
    for word in (word for words in lists for word in words):
        result.pop(key_of(word), None)
        result[key_of(word)] = word
    return list(result.values())


class _Composer:
    """Composing takes a tenth of a second, so cells that differ in their level only share one."""

    def __init__(self, table: Published, request: Request) -> None:
        self.table, self.request = table, request
        self._composed: dict[tuple[str, ...], tuple[RunConfig, Sizes]] = {}

    def plan(self, cell: Cell) -> Planned:
        own = merged(self.table.rows[cell.row], self._data(cell, not cell.level))
        words, stand_in, scale = self._scaled(own, cell)
        config, known = self._compose([*filter(is_known, words), *stand_in], cell.name)
        first = self._first(words, cell)
        planned = Planned(cell, tuple(words), config, shares(cell.level, cell.of, known), scale, first=first)
        if not cell.level or config.pruning.keep_zeros:  # a sparse model that comes first has the level
            return planned
        try:
            request = asked(cell.level, cell.of, config, known)
        except Unreachable as reason:
            return replace(planned, refused=str(reason))
        return replace(planned, words=tuple(merged(words, request.words())), config=at_level(config, request))

    def _scaled(self, own: Sequence[str], cell: Cell) -> tuple[list[str], list[str], str]:
        """The words of a run, those of the command line last; words for a model that is not there yet; the scale."""
        if self.request.small is None:
            return merged(own, self.request.words), [], ""
        config, _ = self._compose(own, cell.name)
        shrunk, scale = self.request.small.shrink(config)
        model = self.request.small.model(config)
        words = merged(own, shrunk, self.request.words)
        if all(map(is_known, words)):
            return merged(own, model, shrunk, self.request.words), [], scale
        return words, model, scale

    def _data(self, cell: Cell, dense: bool) -> list[str]:
        return [word for word in self.table.data[cell.data] if not (dense and word.startswith("pruning"))]

    def _first(self, words: Sequence[str], cell: Cell) -> dict[str, tuple[str, ...]]:
        """The runs whose models the words name: always of the first seed, as a published sparse model is one."""
        result = {}
        for name in [name for word in words for name in PLACEHOLDER.findall(word)]:
            if name not in self.table.first:
                known = did_you_mean(name, self.table.first)
                raise UsageError(f"{self.table.file}: row {cell.row} names {{{name}}}, which `first` has not{known}")
            own = [word.replace("={level}", f"={cell.level:g}") for word in self.table.first[name]]
            spelled = [part for word in own for part in (self._data(cell, dense=True) if word == DATA else [word])]
            result[name] = (*self._scaled(spelled, cell)[0], "seed=1")
        return result

    def _compose(self, words: Sequence[str], where: str) -> tuple[RunConfig, Sizes]:
        """The config, without the words that name the model of another run: it is not there yet."""
        known = tuple(filter(is_known, words))
        if known not in self._composed:
            try:
                config = load_config(list(known), self.request.config_dir)
            except UsageError as error:
                raise UsageError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from error
            self._composed[known] = config, sizes(config)
        return self._composed[known]


def is_known(word: str) -> bool:
    """Whether a word holds no place for the model of another run."""
    return PLACEHOLDER.search(word) is None


def at_level(config: RunConfig, request: Asked) -> RunConfig:
    """`config` as its words together with `request.words()` would be composed."""
    pruning = replace(config.pruning, budget_from=["encoder"]) if request.of_encoder else config.pruning
    return replace(config, sparsity=request.sparsity, pruning=pruning)
