"""The documents of a folder of runs, each made again only when the files behind it have changed."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunebench.compare import Run, group_runs
from prunebench.compare.runs import require
from prunebench.dashboard import documents
from prunebench.dashboard.reading import Lines, Stamp, files_of, read_json, stamp_of
from prunebench.listing import find_runs, status_of
from prunebench.paths import RunFolder
from prunebench.progress import silence
from prunebench.sweep_record import list_sweeps

Document = dict[str, Any]
AT_WORK = ("running", "killed")  # whether a process is at work shows in no file's time
LEFT_OUT = "not in plots: another run has the same settings and seed"
DAMAGED = (AttributeError, KeyError, TypeError, ValueError, IndexError)  # what a file of another form raises


@dataclass
class Known:
    """A run as it was when its files were looked at last."""

    run: Run
    folder: RunFolder
    stamp: Stamp
    row: Document
    settings: Mapping[str, Any]
    version: int  # of the store when this changed last
    metrics: Lines = field(default_factory=Lines)

    def rows(self) -> list[Document]:
        """Of metrics.jsonl; kept as long as it grows."""
        lines = self.metrics if self.row["status"] in AT_WORK else Lines()
        return lines.read(self.folder.metrics)


@dataclass
class Store:
    """What is below `outputs`, by keys: `curves/<name>/<digest>` and so on. Runs are looked up, never made into paths.

    A run that lies elsewhere, whole or in part, and is only linked from `outputs` is left out.
    """

    outputs: Path
    scan: float = 1.0  # seconds for which a look at the folder is good
    _known: dict[str, Known] = field(default_factory=dict)
    _removed: dict[str, int] = field(default_factory=dict)  # the version at which a run went away
    _made: dict[str, tuple[Stamp, Document | None]] = field(default_factory=dict)
    _examples: dict[str, Document] = field(default_factory=dict)
    _common: dict[str, Any] | None = None
    _sweeps: list[Document] = field(default_factory=list)
    _sweeps_version: int = 0
    _version: int = 0
    _born: str = field(default_factory=lambda: secrets.token_hex(4))  # versions of another store mean nothing here
    _looked: float = float("-inf")
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def runs(self, since: int = 0) -> Document:
        """Rows of the runs that changed after version `since`, and the ids of those that went away.

        Each has the settings in which it differs from `common`, which stays the same as long as this store lives.
        """
        with self._lock:
            self._look()
            changed = [run for run in self._known.values() if run.version > since]
            gone = [name for name, version in self._removed.items() if version > since and since]
            answer = {
                "store": self._born,
                "version": self._version,
                "runs": [run.row | {"differs": self._differences(run.settings)} for run in changed],
                "gone": gone,
            }
            if self._sweeps_version > since or not since:
                answer |= {"sweeps": self._sweeps}
            return answer if since else answer | {"common": self._common or {}, "outputs": str(self.outputs)}

    def ids(self) -> list[str]:
        with self._lock:
            self._look()
            return list(self._known)

    def document(self, key: str) -> Document | None:
        """None for a key that there is nothing behind."""
        kind, _, name = key.partition("/")
        with self._lock:
            if kind == "examples":
                return self._examples.get(name)
            make = MAKERS.get(kind)
            if name not in self._known:
                self._look()
            if make is None or name not in self._known:
                return None
            return self._fresh(key, self._known[name], make)

    # ------------------------------------------------------------------------------------------------------------

    def _fresh(self, key: str, run: Known, make: Callable[[Store, Known], Document]) -> Document | None:
        stamp = stamp_of(run.folder)
        held = self._made.get(key)
        if held is None or held[0] != stamp:
            try:
                held = (stamp, make(self, run))
            except DAMAGED:
                held = (stamp, None)
            self._made[key] = held
        return held[1]

    def _look(self) -> None:
        """Reads what was written since the last look; what was not written costs a few stats a run."""
        if time.monotonic() - self._looked < self.scan:
            return
        root, seen, version = self.outputs.resolve(), set(), self._version + 1
        for folder in find_runs(self.outputs):
            name = f"{folder.root.parent.name}/{folder.root.name}"
            known, stamp = self._known.get(name), stamp_of(folder)
            if known is None or known.stamp != stamp or known.row["status"] in AT_WORK:
                if not all(path.resolve().is_relative_to(root) for path in (folder.root, *files_of(folder))):
                    continue
                self._read(name, folder, stamp, version)
            seen.add(name)
        for name in self._known.keys() - seen:
            del self._known[name]
            self._removed[name] = self._version = version
        if self._version == version:
            self._place(version)
        self._read_sweeps(version)
        if self._common is None and self._known:
            self._common = _most_common([known.settings for known in self._known.values()])
        self._looked = time.monotonic()

    def _read(self, name: str, folder: RunFolder, stamp: Stamp, version: int) -> None:
        result, before = read_json(folder.result), self._known.get(name)
        status = status_of(folder, result)
        if before is not None and (before.stamp, before.row["status"]) == (stamp, status):
            return
        metrics = before.metrics if before is not None else Lines()
        try:
            known = _describe(Run(result, folder), folder, stamp, status, version, metrics)
        except DAMAGED:
            known = Known(Run({}, folder), folder, stamp, documents.damaged_row(name), {}, version)
        self._known[name] = known
        self._removed.pop(name, None)
        self._version = version

    def _place(self, version: int) -> None:
        """A new run may join others, or make them differ."""
        finished = {id(known.run): known for known in self._known.values() if known.row["status"] == "finished"}
        with silence():  # who is left out is told in the page
            groups = group_runs(known.run for known in finished.values())
        for group in groups:
            place = documents.place(group) | {"reason": None}
            for run in group.runs:
                known = finished.pop(id(run))
                if known.row | place != known.row:
                    known.row |= place
                    known.version = version
        for known in finished.values():
            if known.row["reason"] != LEFT_OUT:
                known.row = {key: value for key, value in known.row.items() if key not in documents.PLACE}
                known.row["reason"], known.version = LEFT_OUT, version

    def _differences(self, settings: Mapping[str, Any]) -> Document:
        common = self._common or {}
        absent = dict.fromkeys(common.keys() - settings.keys()) if settings else {}
        return {key: value for key, value in settings.items() if key not in common or common[key] != value} | absent

    def _read_sweeps(self, version: int) -> None:
        """The newest first. What each member was started with stands in its run's settings."""
        sweeps = [record.to_json() for record in reversed(list_sweeps(self.outputs))]
        for sweep in sweeps:
            sweep["command"] = " ".join(["prunebench", *sweep["command"]])
            for member in sweep["members"]:
                del member["overrides"]
        if sweeps != self._sweeps:
            self._sweeps, self._sweeps_version, self._version = sweeps, version, version

    def keep_examples(self, key: str, examples: Document) -> str:
        """Once for all runs; runs of earlier versions come without texts."""
        if key not in self._examples or any(examples["text"]):
            self._examples[key] = examples
        return key


def _describe(run: Run, folder: RunFolder, stamp: Stamp, status: str, version: int, metrics: Lines) -> Known:
    row = documents.run_row(run, folder.root.parent.name, folder.root.name, status)
    if status == "finished":
        require(run.result)
    known = Known(run, folder, stamp, row, documents.complete(run.settings), version, metrics)
    if status != "finished":
        row["progress"] = _progress(known)
    return known


def _progress(known: Known) -> float | None:
    """The share of its steps that a run has logged."""
    phases, rows = read_json(known.folder.plan).get("phases"), known.rows()
    steps = phases[-1]["stop"] if phases else 0
    return round(min(1.0, (rows[-1]["step"] + 1) / steps), 4) if steps and rows else None


def _most_common(settings: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Each setting's most frequent value, so that what a run differs in is short."""
    counts: dict[str, Counter[str]] = {}
    values: dict[str, Any] = {}
    for one in settings:
        for key, value in one.items():
            name = repr(value)  # some values are lists
            values[name] = value
            counts.setdefault(key, Counter())[name] += 1
    return {key: values[count.most_common(1)[0][0]] for key, count in counts.items()}


def _curves(store: Store, run: Known) -> Document:
    return documents.curves(run.rows(), read_json(run.folder.plan))


def _run(store: Store, run: Known) -> Document:
    result = read_json(run.folder.result)
    return {
        "folder": str(run.folder.root),
        "result": {key: result.get(key) for key in RESULT if key in result},
        "matrices": documents.matrices(run.rows(), run.folder.masks),
    }


def _predictions(store: Store, run: Known) -> Document:
    key, examples, own = documents.predictions(Lines().read(run.folder.predictions))
    return own | {"examples": store.keep_examples(f"{run.row['bucket']}-{key}", examples)}


RESULT = ("metrics", "warnings", "environment", "weights", "bytes", "training", "sparsity", "dense", "wandb")
MAKERS: dict[str, Callable[[Store, Known], Document]] = {
    "curves": _curves,
    "run": _run,
    "predictions": _predictions,
}
