"""What a sweep leaves: `<outputs>/.sweeps/<id>/sweep.json`, kept up to date while it runs, and how it is found again.

Whoever shows sweeps (`compare`, the dashboard) reads them here; `prunebench.sweep` writes them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from prunebench.errors import UsageError, brief, did_you_mean
from prunebench.paths import RunFolder, cache_dir, is_held, write_json

LAST = "last"
MEMBER_STATES = ("waiting", "running", "finished", "failed", "stopped")
SWEEP_STATES = ("running", "finished", "stopped", "failed")  # as written; a reader also meets "killed"


@dataclass
class MemberRecord:
    """One run of a sweep. `name`: what makes it differ; `run`: "<name>/<digest>", None as long as it is not known."""

    name: str
    overrides: list[str]
    run: str | None = None
    status: str = "waiting"
    reason: str | None = None  # of a failure, one line


@dataclass
class SweepRecord:
    """`sweep.json`. `command`: the words typed after `prunebench`; `began`: ISO 8601, with the time zone."""

    id: str
    command: list[str]
    began: str
    status: str = "running"  # read back, "killed" where no process is at work on it any more
    members: list[MemberRecord] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def count(self, *states: str) -> int:
        """Members in one of `states`."""
        return sum(member.status in states for member in self.members)


@dataclass(frozen=True)
class SweepFolder:
    """`<outputs>/.sweeps/<id>/` and what it holds."""

    root: Path

    @property
    def outputs(self) -> Path:
        return self.root.parent.parent

    @property
    def record(self) -> Path:
        return self.root / "sweep.json"

    @property
    def logs(self) -> Path:
        """What members that have a process of their own said."""
        return self.root / "logs"

    @property
    def lock(self) -> Path:
        """Held by the process that drives the sweep. Beside those of runs, so that `clean` sees it at work."""
        return cache_dir(self.outputs) / "locks" / f"sweep-{self.root.name}"

    def run(self, member: MemberRecord) -> RunFolder | None:
        """The folder of a member's run; None as long as it is not known."""
        return RunFolder(self.outputs / member.run) if member.run else None

    def write(self, record: SweepRecord) -> None:
        write_json(self.record, record.to_json())

    def read(self) -> SweepRecord | None:
        """None where there is none, or it cannot be read (another version's, say)."""
        try:
            record = _from_json(json.loads(self.record.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError):
            return None
        if record.status != "running" or is_held(self.lock):
            return record
        members = [replace(m, status="killed" if m.status == "running" else m.status) for m in record.members]
        return replace(record, status="killed", members=members)


def _from_json(value: Mapping[str, Any]) -> SweepRecord:
    members = [MemberRecord(**member) for member in value["members"]]
    return SweepRecord(**{**value, "members": members})


def sweeps_dir(outputs: str | Path) -> Path:
    return Path(outputs) / ".sweeps"


def list_sweeps(outputs: str | Path) -> list[SweepRecord]:
    """Every sweep below `outputs`, the newest last."""
    records = [SweepFolder(path.parent).read() for path in sweeps_dir(outputs).glob("*/sweep.json")]
    return sorted((record for record in records if record is not None), key=lambda record: (record.began, record.id))


def find_sweep(word: str, outputs: str | Path) -> SweepRecord:
    """The sweep whose id is or begins with `word`; "last" is the one that was started last.

    Raises:
        UsageError: none, or several.
    """
    sweeps = list_sweeps(outputs)
    if word == LAST and sweeps:
        return sweeps[-1]
    found = [sweep for sweep in sweeps if sweep.id == word] or [s for s in sweeps if word and s.id.startswith(word)]
    if len(found) == 1:
        return found[0]
    if not found:
        hint = did_you_mean(word, [sweep.id for sweep in sweeps])
        raise UsageError(f"{brief(word)}: no sweep in {outputs}/ has this id{hint}; prunebench run -m makes one")
    several = ", ".join(sweep.id for sweep in found[-5:])
    raise UsageError(f"{brief(word)}: {len(found)} sweeps are meant by that, the newest are {several}; give more of it")


def sweep_of(run: str, outputs: str | Path) -> str | None:
    """The id of the newest sweep that the run "<name>/<digest>" is a member of."""
    sweeps = [sweep for sweep in list_sweeps(outputs) if any(member.run == run for member in sweep.members)]
    return sweeps[-1].id if sweeps else None


def now() -> str:
    return datetime.now().astimezone().isoformat(timespec="microseconds")


def new_folder(outputs: str | Path) -> SweepFolder:
    """An empty folder named by the time, for this sweep alone, whoever else begins one in the same second."""
    stamp, number = f"{datetime.now():%Y%m%d-%H%M%S}", 1
    while True:
        root = sweeps_dir(outputs) / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            os.makedirs(root)
            return SweepFolder(root)
        except FileExistsError:
            number += 1


def same_command(command: Sequence[str], outputs: str | Path) -> SweepFolder | None:
    """The folder of the newest sweep of these words that nobody is at work on: the same command goes on with it."""
    for record in reversed(list_sweeps(outputs)):
        folder = SweepFolder(sweeps_dir(outputs) / record.id)
        if record.command == list(command) and not is_held(folder.lock):
            return folder
    return None
