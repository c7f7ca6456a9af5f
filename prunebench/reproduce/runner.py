"""Runs a grid through the multirun: first the runs whose models others start from, then the cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prunebench.compose import load_config
from prunebench.reproduce.grid import Grid, Planned
from prunebench.reproduce.outcome import Finished, member_name, settle
from prunebench.sweep import Member, run_members


def run_grid(
    grid: Grid, *, typed: Sequence[str], launcher: Sequence[str], config_dir: str | None, force: bool
) -> dict[str, str]:
    """Runs what is not finished.

    Args:
        typed: the words of the command line, by which a sweep that was stopped is known again.
        launcher: those of them on how to compute the runs.

    Returns:
        Why a run failed, by its name.

    Raises:
        UsageError: a mistake in any run, before the first starts.
    """
    failed: dict[str, str] = {}
    for stage, members in (("first", list(_first(grid))), ("", None)):
        ready = list(_cells(grid, failed)) if members is None else members
        if ready:
            done = run_members(
                ready,
                command=["reproduce", *typed, *([f"({stage})"] if stage else [])],
                launcher=launcher,
                config_dir=config_dir,
                force=force,
                title=f"{grid.table.name}{' (small)' if grid.small else ''}",
            )
            failed |= dict(done.failed)
    return failed


def _first(grid: Grid) -> Iterator[Member]:
    """What the models of other cells come from, each once."""
    seen: set[tuple[str, ...]] = set()
    for planned in grid.runnable:
        for name, words in (planned.first or {}).items():
            if words not in seen:
                seen.add(words)
                yield Member(f"{name} for {planned.cell.name}", words)


def _cells(grid: Grid, failed: dict[str, str]) -> Iterator[Member]:
    finished = Finished(grid.outputs)
    for seed in grid.seeds:  # a table that is stopped has whole seeds first
        for planned in grid.runnable:
            settled = settle(planned, finished)
            if settled is None:
                failed[member_name(planned, seed)] = f"a run that comes before it failed: {_missing(planned, finished)}"
            else:
                yield Member(member_name(planned, seed), tuple(settled.seeded(seed)))


def _missing(planned: Planned, finished: Finished) -> str:
    missing = [name for name, words in (planned.first or {}).items() if not finished.find(load_config(list(words)))]
    return ", ".join(missing)
