"""What a user sees on stderr while a run goes on. Quiet in a pipe: only the lines that would be missed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column


class Undisturbed(Console):
    """A run outlives the terminal or the pipe that it talks to; rich itself would end the process."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


console = Undisturbed(stderr=True, highlight=False, quiet=os.environ.get("RANK", "0") != "0")


def say(message: str) -> None:
    """One line that a user wants to know even in a log file."""
    console.print(message, markup=False, soft_wrap=True)


def warn(message: str) -> None:
    console.print(f"warning: {message}", style="yellow", markup=False, soft_wrap=True)


@contextmanager
def silence() -> Iterator[None]:
    """For work that is done again, and then tells what there is to tell."""
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


@contextmanager
def counting(title: str, total: int) -> Iterator[Any]:
    """A bar for a stretch of work; yields a function that takes how much was done."""
    with _bar() as progress:
        task = progress.add_task(title, total=total, info="")
        yield lambda done: progress.advance(task, done)


class TrainingProgress:
    """Phase, step, loss, learning rate, sparsity, examples a second and the time left."""

    def __init__(self, title: str, steps: int, done: int) -> None:
        self._title, self._steps = title, steps
        self._progress = _bar()
        self._task: TaskID = self._progress.add_task(title, total=steps, completed=done, info="")
        self._shown = 0.0

    def __enter__(self) -> TrainingProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def due(self) -> bool:
        """Whether enough time has passed for another look; asking for a loss makes a GPU wait."""
        return self._progress.live.is_started and time.monotonic() - self._shown > 0.25

    def update(self, step: int, row: Mapping[str, Any], rate: float) -> None:
        self._shown = time.monotonic()
        info = (
            f"{row['phase']} loss {row['loss']:.3g} sparsity {100 * row['sparsity']:.1f} % "
            f"lr {row['lr']:.1e} {rate:.0f} ex/s"
        )
        self._progress.update(self._task, completed=step + 1, info=info)

    def note(self, message: str) -> None:
        """A line above the bar: an evaluation, an alarm."""
        self._progress.console.print(message, markup=False, soft_wrap=True)


def _bar() -> Progress:
    return Progress(
        # the time left stands before what may be cut in a narrow window
        TextColumn("{task.description}", markup=False),
        *([BarColumn(bar_width=16)] if console.width >= 110 else []),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[info]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
        console=console,
        transient=True,
        disable=not sys.stderr.isatty() or os.environ.get("RANK", "0") != "0",
        refresh_per_second=4,
    )
