"""Many runs: all of them checked before the first starts, computed by a launcher, and a record kept of each.

`run -m` and `reproduce` come through `run_members`; a search (`prunebench.search`) adds members while it goes on.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from prunebench.compose import load_config, one_line_errors
from prunebench.config import RunConfig
from prunebench.digest import dense_config, prunes
from prunebench.errors import UsageError, brief
from prunebench.launchers import LAUNCHERS, Call, Launcher, Outcome, as_single, check_package, members_at_a_time
from prunebench.listing import read_result
from prunebench.options import find_options
from prunebench.overrides import check_overrides, key_of, swept_keys
from prunebench.paths import RunFolder, locked
from prunebench.progress import say, silence
from prunebench.signals import ending_interrupts
from prunebench.sweep_record import MemberRecord, SweepFolder, SweepRecord, new_folder, now, same_command
from prunebench.sweep_time import Paces
from prunebench.sweep_view import Shown, expected_seconds, header, member_line, overall
from prunebench.validate import check

OURS = ("launcher", "search")  # settings of the sweep, not of its runs
ONE_FOR_ALL = (*OURS, "outputs")
MOST_PROBLEMS = 20  # lines


@dataclass(frozen=True)
class Member:
    """One run of a sweep: what makes it differ, and all `key=value` words that it is composed of."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Prepared:
    """A member that is known to be sound. `folder`: its run's, None where that cannot be known yet."""

    member: Member
    config: RunConfig
    folder: RunFolder | None
    dense: str | None  # which dense model it needs: those of one name are one
    dense_folder: RunFolder | None

    @property
    def result(self) -> dict[str, Any]:
        """What there is of the run; {} where there is nothing."""
        return read_result(self.folder) if self.folder else {}

    @property
    def run(self) -> str | None:
        return f"{self.folder.root.parent.name}/{self.folder.root.name}" if self.folder else None

    def to_json(self) -> dict[str, Any]:
        status = self.result.get("status")
        return {"name": self.member.name, "overrides": list(self.member.overrides), "run": self.run, "status": status}


@dataclass(frozen=True)
class SweepOutcome:
    """`results`: of each member in its order, what result.json holds; None of those that did not finish."""

    record: SweepRecord
    results: list[dict[str, Any] | None]
    failed: list[tuple[str, str]] = field(default_factory=list)  # name and reason


OnResult = Callable[[Mapping[str, Any]], None]


# --- members ------------------------------------------------------------------------------------------------------


def swept_words(overrides: Sequence[str], config_dir: str | None) -> list[str]:
    """The words of `run -m` as Hydra takes them, checked.

    Raises:
        UsageError: the command line's mistakes, one line each.
    """
    checked = check_overrides(list(overrides), find_options(config_dir), sweep=True)
    for word in checked:
        if word.startswith(("hydra/launcher", "hydra/sweeper", "hydra.launcher", "hydra.sweeper")):
            raise UsageError(
                f"{brief(word)}: launcher=joblib and search=optuna stand for these (prunebench ls launchers)"
            )
    for key in sorted(swept_keys(checked)):
        if key.split(".")[0] in ONE_FOR_ALL:
            raise UsageError(f"{key}: one value holds for the whole sweep")
    return checked


def grid(checked: Sequence[str], config_dir: str | None) -> list[Member]:
    """A member for every combination of the values, by Hydra's own sweeper: `sparsity=0.5,0.9 'seed=range(1,4)'`.

    `checked`: as `swept_words` gives them.
    """
    parsed = [OverridesParser.create().parse_override(word) for word in checked]
    open_ended = next((o for o in parsed if o.is_sweep_override() and not o.is_discrete_sweep()), None)
    if open_ended is not None:
        raise UsageError(f"{open_ended.input_line}: an interval has endless values: search=optuna chooses among them")
    with one_line_errors(config_dir):
        combinations = [words for batch in BasicSweeper.split_arguments(parsed, None) for words in batch]
    keys = swept_keys(list(checked))
    return [member_of(words, keys) for words in combinations]


def member_of(words: Iterable[str], keys: Iterable[str]) -> Member:
    """Named by the settings of `keys`."""
    run_words = tuple(word for word in words if not is_ours(word))
    name = " ".join(word.lstrip("+") for word in run_words if key_of(word) in keys)
    return Member(name.replace("'", "") or "sweep", run_words)


def is_ours(word: str) -> bool:
    return key_of(word).split(".")[0] in OURS


def prepare(members: Sequence[Member], config_dir: str | None, *, lenient: bool = False) -> list[Prepared]:
    """Composes, checks and identifies all members.

    Args:
        lenient: a run whose model or data are not here has no folder yet, instead of being refused.

    Raises:
        UsageError: what is wrong with any of them, a line each.
    """
    if not members:
        raise UsageError("there is no run in this sweep")
    configs, wrong = [], dict[str, list[str]]()
    for member in members:
        try:
            config = as_single(load_config(list(member.overrides), config_dir))
            check(config)
            configs.append(config)
        except UsageError as error:
            _note(wrong, member, error)
    _refuse(wrong, len(members))
    prepared = []
    with silence():
        for member, config in zip(members, configs, strict=True):
            try:
                prepared.append(_identified(member, config))
            except UsageError as error:
                if not lenient:
                    _note(wrong, member, error)
                prepared.append(Prepared(member, config, None, _name_of_dense(config), None))
    _refuse(wrong, len(members))
    return prepared


def _identified(member: Member, config: RunConfig) -> Prepared:
    from prunebench.run import folder_of  # torch: only once all configs are known to be sound

    dense = folder_of(dense_config(config)) if prunes(config) else None
    return Prepared(member, config, folder_of(config), str(dense.root) if dense else None, dense)


def _name_of_dense(config: RunConfig) -> str | None:
    return json.dumps(asdict(dense_config(config)), sort_keys=True) if prunes(config) else None


def _note(wrong: dict[str, list[str]], member: Member, error: UsageError) -> None:
    for line in str(error).splitlines():
        wrong.setdefault(line, []).append(member.name)


def _refuse(wrong: Mapping[str, Sequence[str]], count: int) -> None:
    """A mistake that not all members have is told with the first that has it, unless it names what differs itself."""
    if not wrong:
        return
    lines = [
        line if len(names) == count or any(word in line for word in names[0].split()) else f"{names[0]}: {line}"
        for line, names in wrong.items()
    ]
    more = [f"and {len(lines) - MOST_PROBLEMS} more"] if len(lines) > MOST_PROBLEMS else []
    raise UsageError("\n".join([*lines[:MOST_PROBLEMS], *more]))


# --- the sweep ----------------------------------------------------------------------------------------------------


class Sweep:
    """A sweep at work, as a context: it holds the sweep's lock and keeps sweep.json up to date.

    Of several processes (torchrun) only the first writes; all compute each member together.
    """

    def __init__(
        self, command: Sequence[str], config: RunConfig, *, config_dir: str | None, force: bool, title: str = "sweep"
    ) -> None:
        """`config`: any member's, composed with the words on launcher and search."""
        check_package("launcher", config.launcher.name)
        self._together = os.environ.get("WORLD_SIZE", "1") != "1"
        if self._together and config.launcher.name != "local":
            raise UsageError(f"launcher={config.launcher.name} starts processes itself: leave torchrun away")
        self._launcher: Launcher = LAUNCHERS[config.launcher.name]
        self.settings, self._outputs, self._command = config.launcher, Path(config.outputs), list(command)
        self._config_dir, self._force, self.title = config_dir, force, title
        self._first = os.environ.get("RANK", "0") == "0"
        self._stack = ExitStack()
        self.paces = Paces(self._outputs)
        self.results: dict[int, dict[str, Any]] = {}
        self.expected = 0  # members in the end, where that is known before they are
        self._until: float | None = None  # on time.monotonic's clock

    def __enter__(self) -> Sweep:
        self._stack.enter_context(ending_interrupts())
        if self._first:
            self.folder = self._own_folder()
            self._stack.enter_context(locked(self.folder.lock, lambda: say("waiting for the same sweep elsewhere")))
        else:
            self.folder = SweepFolder(self._outputs)
        self._before = self.folder.read()
        self.record = SweepRecord(self.folder.root.name, self._command, now())
        self._write()
        return self

    def _own_folder(self) -> SweepFolder:
        try:
            return same_command(self._command, self._outputs) or new_folder(self._outputs)
        except OSError as error:
            raise UsageError(f"outputs={self._outputs}: {error.strerror}: choose a folder that can be made") from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt)
        try:
            for member in self.record.members:
                if member.status == "running":  # a process of its own may have ended meanwhile
                    finished = member.run and read_result(self._run_folder(member.run)).get("status") == "finished"
                    member.status = "finished" if finished else "stopped" if stopped else "failed"
            failed = error is not None or self.record.count("failed", "stopped")
            self.record.status = "stopped" if stopped else "failed" if failed else "finished"
            self._write()
        finally:
            self._stack.close()

    def _run_folder(self, run: str) -> RunFolder:
        return RunFolder(self._outputs / run)

    def add_failed(self, members: Sequence[Member]) -> None:
        """Puts members into the record that failed when this command was given before, with their reasons then."""
        before = {member.name: member for member in self._before.members} if self._before else {}
        for one in members:
            known = before.get(one.name, MemberRecord(one.name, list(one.overrides)))
            self.record.members.append(replace(known, status="failed"))
        self._write()

    def add(self, prepared: Sequence[Prepared]) -> None:
        """Puts members into the record; `run` computes them."""
        for one in prepared:
            self.record.members.append(MemberRecord(one.member.name, list(one.member.overrides), one.run))
        self._write()

    def run(self, prepared: Sequence[Prepared], on_result: OnResult = lambda result: None) -> list[Outcome]:
        """Computes the members that were added last, those that are finished excepted, and waits for all."""
        offset = len(self.record.members) - len(prepared)
        outcomes = dict[int, Outcome]()
        open_ones = []
        for index, one in enumerate(prepared):
            done = {} if self._force else one.result
            if done.get("status") == "finished":
                outcomes[index] = Outcome("finished", result=done)
                self._ended(offset + index, outcomes[index], on_result, quiet=True)
            else:
                open_ones.append(index)
        calls = [self._call(offset + index, prepared[index]) for index in open_ones]
        left = {index: prepared[index] for index in open_ones}
        self._measure(left.values())
        with overall(self.shown) as refresh:
            for position, outcome in self._compute(calls, lambda at: self._started(offset + open_ones[at])):
                index = open_ones[position]
                outcomes[index] = outcome
                one = left.pop(index)
                if outcome.result is not None:
                    self.paces.add(one.config, outcome.result)
                self._measure(left.values())
                self._ended(offset + index, outcome, on_result)
                refresh()
        return [outcomes[index] for index in range(len(prepared))]

    def _compute(self, calls: Sequence[Call], on_start: Callable[[int], None]) -> Iterator[tuple[int, Outcome]]:
        """Closed at once when the sweep is stopped, so that members that have a process of their own can save."""
        outcomes = self._launcher(calls, self.settings, on_start) if calls else iter(())
        try:
            yield from outcomes
        finally:
            if isinstance(outcomes, Generator):
                outcomes.close()

    def _call(self, index: int, one: Prepared) -> Call:
        mark, log = self.folder.logs / f"{index + 1}.started", self.folder.logs / f"{index + 1}.log"
        if self._first:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.unlink(missing_ok=True)
        return Call(one.member.overrides, self._config_dir, self._force, os.getcwd(), str(mark), str(log))

    def _started(self, index: int) -> None:
        self.record.members[index].status = "running"
        self._write()

    def _ended(self, index: int, outcome: Outcome, on_result: OnResult, quiet: bool = False) -> None:
        member = self.record.members[index]
        member.status, member.reason = outcome.status, outcome.reason
        if outcome.result is not None:
            member.run = f"{outcome.result['name']}/{outcome.result['digest']}"
            self.results[index] = dict(outcome.result)
        self._write()
        if not quiet:
            say(member_line(self.shown(), member, outcome))
        if outcome.result is not None:
            on_result(outcome.result)

    def _measure(self, left: Collection[Prepared]) -> None:
        """The time until the end, as far as it can be told now."""
        seconds = expected_seconds(list(left), self.paces)
        at_a_time = min(members_at_a_time(self.settings) or len(left), len(left)) or 1
        unknown = max(0, self.expected - len(self.record.members))  # of a search: like those that are known
        if seconds is not None and left:
            seconds *= 1 + unknown / len(left)
        self._until = None if seconds is None else time.monotonic() + seconds / at_a_time

    def shown(self) -> Shown:
        """How far it is just now."""
        record = self.record
        return Shown(
            title=self.title,
            total=max(self.expected, len(record.members)),
            finished=record.count("finished"),
            running=record.count("running"),
            failed=record.count("failed", "stopped"),
            seconds=None if self._until is None else max(0.0, self._until - time.monotonic()),
        )

    def _write(self) -> None:
        if self._first:
            self.folder.write(self.record)


def run_members(
    members: Sequence[Member],
    *,
    command: Sequence[str],
    launcher: Sequence[str] = (),
    config_dir: str | None = None,
    force: bool = False,
    title: str = "sweep",
    on_result: OnResult = lambda result: None,
) -> SweepOutcome:
    """Everything that `run -m` does: check all, say what is to come, compute, keep the record, go on after failures.

    Args:
        command: the words typed; the same words go on with the same record.
        launcher: the words on how to compute them (launcher=joblib launcher.n_jobs=4).
        title: what the sweep is called on stderr.
        on_result: called with each result, as soon as it is there.

    Raises:
        UsageError: a mistake in any member, before the first starts.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the same call goes on.
    """
    prepared = prepare(members, config_dir)
    _same_outputs(prepared)
    settings = load_config([*members[0].overrides, *launcher], config_dir)
    check(settings)
    with Sweep(command, settings, config_dir=config_dir, force=force, title=title) as sweep:
        sweep.add(prepared)
        for line in header_of(prepared, settings, title=title, sweep=sweep, force=force):
            say(line)
        sweep.run(prepared, on_result)
    return outcome_of(sweep)


def header_of(
    prepared: Sequence[Prepared],
    settings: RunConfig,
    *,
    title: str = "sweep",
    sweep: Sweep | None = None,
    force: bool = False,
) -> list[str]:
    """What is to come, see `sweep_view.header`."""
    paces = sweep.paces if sweep else Paces(settings.outputs)
    name = sweep.record.id if sweep else None
    return header(prepared, paces, title, members_at_a_time(settings.launcher), name, force)


def outcome_of(sweep: Sweep) -> SweepOutcome:
    members = sweep.record.members
    failed = [(m.name, m.reason or m.status) for m in members if m.status in ("failed", "stopped")]
    return SweepOutcome(sweep.record, [sweep.results.get(index) for index in range(len(members))], failed)


def _same_outputs(prepared: Sequence[Prepared]) -> None:
    places = sorted({one.config.outputs for one in prepared})
    if len(places) > 1:
        raise UsageError(f"outputs: the runs of a sweep lie below one folder, not {', '.join(places)}")


def command_of(overrides: Sequence[str], config_dir: str | None, force: bool) -> list[str]:
    """The words that do it again."""
    own = ["--config-dir", config_dir] if config_dir else []
    return ["run", "-m", *overrides, *own, *(["--force"] if force else [])]
