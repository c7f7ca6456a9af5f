"""`prunebench reproduce`: from its arguments to what is printed. The runs themselves are the multirun's."""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunebench.errors import UsageError, brief
from prunebench.parsing import FAILED, OK
from prunebench.reproduce import view
from prunebench.reproduce.grid import Grid, Request, build
from prunebench.reproduce.outcome import outcomes
from prunebench.reproduce.published import Published, find_table, find_tables, read_table
from prunebench.reproduce.small import Small

SEEDS = 3
SCALES = ("full", "small")


@dataclass(frozen=True)
class Answer:
    """What is printed: `lines` for people, or `value` as JSON; and the exit status."""

    lines: list[str]
    value: Any
    status: int = OK
    small: bool = False


def answer(args: Namespace) -> Answer:
    """Does what the command line asks for.

    Raises:
        UsageError: what is wrong with it, before anything is run.
    """
    names = [word for word in args.words if "=" not in word]
    overrides = [word for word in args.words if "=" in word and not is_launcher(word)]
    if len(names) > 1:
        raise UsageError(f"reproduce takes one table, not {', '.join(map(brief, names))}")
    _check(args)
    if not names:
        return _listing(args, overrides)
    table = find_table(names[0], args.config_dir)
    grid = build(table, _request(args, overrides))
    if args.plan:
        return _plan(grid, args)
    reasons = {} if args.show else _run(grid, args)
    return _compared(grid, args, reasons)


def _check(args: Namespace) -> None:
    """Options that exclude each other."""
    for one, other in (("plan", "show"), ("json", "markdown")):
        if getattr(args, one) and getattr(args, other):
            raise UsageError(f"--{one} and --{other} exclude each other: choose one")
    if args.scale not in SCALES:
        raise UsageError(f"--scale {brief(args.scale)}: it can be {' or '.join(SCALES)}")
    if args.scale == "small" and args.seeds is not None:
        raise UsageError("--seeds: the small scale has one seed; leave it out, or leave out --scale small")
    if args.seeds is not None and not 1 <= args.seeds <= 100:
        raise UsageError(f"--seeds {args.seeds}: it must be between 1 and 100")
    if args.data is not None and args.scale != "small":
        raise UsageError("--data goes with --scale small; else name your files by dataset.train_file=... and --only")
    if args.data is not None and not os.path.isdir(os.path.expanduser(args.data)):
        raise UsageError(f"--data {brief(args.data)}: there is no such folder")


def _request(args: Namespace, overrides: list[str]) -> Request:
    if args.scale != "small":
        return Request(args.seeds or SEEDS, args.only, overrides, args.config_dir)
    outputs = next((word.partition("=")[2] for word in reversed(overrides) if word.startswith("outputs=")), "outputs")
    data = Path(os.path.expanduser(args.data)) if args.data else None
    words = [word for word in overrides if not word.startswith("outputs=")]
    return Request(1, args.only, words, args.config_dir, Small(outputs, data))


def _listing(args: Namespace, overrides: list[str]) -> Answer:
    asked = [word for word in ("plan", "show", "only") if getattr(args, word)]
    if overrides or asked or args.scale == "small":
        raise UsageError("reproduce which table? name one of those that `prunebench reproduce` lists")
    tables: list[Published] = [read_table(path) for path in find_tables(args.config_dir).values()]
    rows = view.listed(tables)
    return Answer(_laid_out(view.LISTED, rows, args), [view.table_json(table) for table in tables])


def _plan(grid: Grid, args: Namespace) -> Answer:
    from prunebench.reproduce.cost import cost

    total = cost(grid)
    told = [
        *view.header(grid),
        "",
        *_laid_out(view.GRID, view.planned_rows(grid), args),
        "",
        *view.cost_lines(grid, total),
    ]
    return Answer(_every_line(told, grid), view.plan_json(grid, total), small=grid.small is not None)


def _run(grid: Grid, args: Namespace) -> dict[str, str]:
    from prunebench.reproduce.runner import run_grid

    typed = [*args.words, *(f"--only {pattern}" for pattern in args.only)]
    typed += [
        f"--{name} {getattr(args, name)}" for name in ("seeds", "scale", "data", "config_dir") if getattr(args, name)
    ]
    launcher = [word for word in args.words if is_launcher(word)]
    return run_grid(grid, typed=typed, launcher=launcher, config_dir=args.config_dir, force=args.force)


def is_launcher(word: str) -> bool:
    """Whether a word says how the runs are computed, and nothing of what they are."""
    return word.lstrip("+").startswith(("launcher=", "launcher."))


def _compared(grid: Grid, args: Namespace, reasons: dict[str, str]) -> Answer:
    found = outcomes(grid, reasons)
    rows = view.compared_rows(found, grid)
    told = [*view.header(grid), "", *_laid_out(view.COMPARED, rows, args)]
    told += [line for extra in (view.why_not_comparable(grid),) if extra for line in ["", *extra]]
    status = FAILED if reasons else OK
    return Answer(_every_line(told, grid), view.compared_json(found, grid), status, grid.small is not None)


def _laid_out(headings: list[str], rows: list[list[str]], args: Namespace) -> list[str]:
    return view.markdown(headings, rows) if args.markdown else view.aligned(headings, rows)


def _every_line(lines: list[str], grid: Grid) -> list[str]:
    """No line of a small grid can be taken for one of the real thing."""
    return [f"{view.SMALL}{line}".rstrip() for line in lines] if grid.small else lines
