"""What a user sees of a sweep on stderr: what is to come, how far it is, and how each member ended."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.text import Text

from prunebench.digest import dense_config
from prunebench.listing import read_result
from prunebench.progress import console
from prunebench.report import duration, score
from prunebench.sweep_time import Paces

if TYPE_CHECKING:
    from prunebench.launchers import Outcome
    from prunebench.sweep import Prepared
    from prunebench.sweep_record import MemberRecord


STATES = ("finished", "to continue", "failed before", "new")  # of a run, before the sweep


@dataclass(frozen=True)
class Shown:
    """How far a sweep is. `seconds`: until its end, None where no finished run tells."""

    title: str
    total: int
    finished: int
    running: int
    failed: int
    seconds: float | None

    @property
    def ended(self) -> int:
        return self.finished + self.failed

    def words(self) -> str:
        """`sweep 3/9 (1 failed), 2 running, 4 to go, about 20 min left`"""
        failed = f" ({self.failed} failed)" if self.failed else ""
        left = self.total - self.ended - self.running
        return f"{self.title} {self.ended}/{self.total}{failed}, {self.running} running, {left} to go, {self.left()}"

    def left(self) -> str:
        return "time left not known yet" if self.seconds is None else f"about {about(self.seconds)} left"


def about(seconds: float) -> str:
    """A duration that is an estimate: to the minute, below two minutes to ten seconds."""
    if seconds < 100:
        return f"{max(10, round(seconds, -1)):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


# --- before -------------------------------------------------------------------------------------------------------


def header(
    prepared: Sequence[Prepared], paces: Paces, title: str, at_a_time: int | None, sweep: str | None, force: bool
) -> list[str]:
    """How many runs, how many are done, what they share, and how long they will take.

    Args:
        at_a_time: members computed at the same time; None: as many as there is room for.
        sweep: its id, None where it does not begin.
    """
    count = len(prepared)
    states = Counter("new" if force else _state(one) for one in prepared)
    told = [f"{states[state]} {state}" for state in STATES if states[state]]
    lines = [f"{title}{f' {sweep}' if sweep else ''}: {_runs(count)}, {', '.join(told)}"]
    lines += _shared(prepared)
    left = [one for one in prepared if force or _state(one) != "finished"]
    if left:
        lines.append(_time(left, paces, at_a_time))
    return lines


def search_header(sweep: str | None, dimensions: Sequence[str], runs: int) -> list[str]:
    """What a search looks through, and its budget."""
    return [
        f"search{f' {sweep}' if sweep else ''}: {_runs(runs)}, chosen by Optuna",
        *(f"  {one}" for one in dimensions),
    ]


def _runs(count: int) -> str:
    return f"{count} run{'s' if count != 1 else ''}"


def _state(one: Prepared) -> str:
    status = one.result.get("status")
    return {"finished": "finished", None: "new", "failed": "failed before"}.get(status, "to continue")


def _shared(prepared: Sequence[Prepared]) -> list[str]:
    """Dense models, each of which is trained once, and the data, which are tokenised once."""
    dense = {one.dense: one for one in prepared if one.dense is not None}
    if not dense:
        return []
    users = sum(one.dense is not None for one in prepared)
    there = sum(_dense_is_there(one) for one in dense.values())
    known = f", {there} of them there already" if there else ""
    return [f"they share {len(dense)} dense model{'s' if len(dense) != 1 else ''} for {_runs(users)}{known}"]


def _dense_is_there(one: Prepared) -> bool:
    return one.dense_folder is not None and read_result(one.dense_folder).get("status") == "finished"


def _time(left: Sequence[Prepared], paces: Paces, at_a_time: int | None) -> str:
    needed = expected_seconds(left, paces)
    basis = max(paces.basis(one.config) for one in left)
    if needed is None:
        return "time: no estimate, since no run of this model and data is finished here yet"
    whole = needed / min(at_a_time or len(left), len(left))
    how = f"{at_a_time} at a time" if at_a_time else "if all find room at once"
    how = "one after another" if at_a_time == 1 else how
    return f"time: about {about(whole)}, {how} (from {_runs(basis)} like {'it' if len(left) == 1 else 'these'})"


def expected_seconds(left: Sequence[Prepared], paces: Paces) -> float | None:
    """Of all runs and of the dense models that are still to be trained; None where one has no finished run like it."""
    dense = {one.dense: one for one in left if one.dense is not None and not _dense_is_there(one)}
    configs = [one.config for one in left] + [dense_config(one.config) for one in dense.values()]
    seconds = [paces.seconds(config) for config in configs]
    known = [value for value in seconds if value is not None]
    return sum(known) if len(known) == len(seconds) else None


# --- while --------------------------------------------------------------------------------------------------------


class _Words(ProgressColumn):
    """Asked anew at each refresh."""

    max_refresh = 0.5

    def __init__(self, shown: Callable[[], Shown]) -> None:
        super().__init__()
        self._shown = shown

    def render(self, task: Task) -> Text:
        return Text(self._shown().words())


@contextmanager
def overall(shown: Callable[[], Shown]) -> Iterator[Callable[[], Any]]:
    """One line for the whole sweep, on a terminal; yields a function that brings it up to date."""
    bar = [BarColumn(bar_width=16)] if console.width >= 110 else []
    quiet = not sys.stderr.isatty() or console.quiet
    progress = Progress(*bar, _Words(shown), console=console, transient=True, refresh_per_second=2, disable=quiet)
    task = progress.add_task("", total=shown().total, completed=shown().ended)
    with progress:
        yield lambda: progress.update(task, completed=shown().ended)


def member_line(shown: Shown, member: MemberRecord, outcome: Outcome) -> str:
    """How a member ended, and what is left."""
    left = f"; {shown.left()}" if shown.ended < shown.total else ""
    return f"[{shown.ended}/{shown.total}] {member.name}: {_ending(outcome)}{left}"


def _ending(outcome: Outcome) -> str:
    result = outcome.result
    if result is None:
        return f"{outcome.status}: {outcome.reason}"
    metric, kept = result["metric"], result["recovery"]
    recovery = "" if kept is None or not result["sparsity"]["target"] else f", {100 * kept:.1f} % of dense"
    return f"{metric['name']} {score(metric['value'])}{recovery}, {duration(result['seconds'])}"
