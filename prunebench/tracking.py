"""Where metrics go: always metrics.jsonl, which is the truth, and if asked Weights & Biases, which mirrors it."""

from __future__ import annotations

import json
import netrc
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any, Protocol
from urllib.parse import urlparse

from prunebench.config import LONGEST_TAG, RunConfig
from prunebench.digest import prunes
from prunebench.paths import remove, write_json, write_text
from prunebench.progress import say, warn
from prunebench.sweep_record import sweep_of

Metrics = Mapping[str, Any]
LONGEST_GROUP = 100  # characters of a name; wandb takes 128 with the digest
# of a result; what `compare --wandb` needs besides the config
SUMMARY = ("digest", "group", "evaluation", "metric", "metrics", "dense", "recovery", "sparsity", "weights", "bytes",
           "training", "seconds")  # fmt: skip


class Tracker(Protocol):
    """`step` counts finished updates for prunings and evaluations, and is the update's own number for losses."""

    def log(self, step: int, metrics: Metrics) -> None:
        """Called with steps that never fall."""

    def finish(self, result: Mapping[str, Any]) -> None:
        """The run succeeded."""

    def close(self) -> None:
        """Called last, whatever happened."""


class LocalTracker:
    """Appends to metrics.jsonl. What a stopped run had logged beyond its checkpoint is taken back first."""

    def __init__(self, path: Path, keep: int) -> None:
        """`keep`: how many of the rows that are there stay."""
        self._path = path
        kept = self.rows()[:keep]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("ab", buffering=0)  # nothing is left to be written later, when the disk may be full

    def rows(self) -> list[dict[str, Any]]:
        """What has been logged."""
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        return [row for line in lines if (row := _row(line)) is not None]

    def log(self, step: int, metrics: Metrics) -> None:
        line = memoryview((json.dumps({"step": step, **metrics}) + "\n").encode())
        while line:
            line = line[self._file.write(line) :]

    def finish(self, result: Mapping[str, Any]) -> None:
        """result.json has it."""

    def close(self) -> None:
        self._file.close()


def _row(line: str) -> dict[str, Any] | None:
    """None for a line that was cut off when the run was killed."""
    try:
        row: dict[str, Any] = json.loads(line)
        return row if isinstance(row["step"], int) else None
    except (ValueError, KeyError, TypeError):
        return None


class WandbTracker:
    """Weights & Biases. Offline without a key. Whatever goes wrong there is said once and never ends the run.

    Online, rows are sent as they come, and a run that is continued sends what wandb does not have yet: the run is
    deterministic, so a row that was taken back is made again with the same values. Offline, all rows are written when
    the session ends, over those of earlier sessions: wandb's own files cannot be gone on with after a kill.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        digest: str,
        group: str,
        folder: Path,
        rows: Callable[[], Sequence[Mapping[str, Any]]],
    ) -> None:
        """Joins or begins the run at wandb.

        Args:
            group: see `Result`.
            folder: the run's own; wandb.json in it remembers under which id the run goes there.
            rows: what metrics.jsonl holds when it is asked.
        """
        self._run: Any = None
        self._next = 0  # the first step that wandb does not have
        self._held: tuple[int, dict[str, Any]] | None = None  # a step that may not be complete yet
        self._folder, self._rows = folder, rows
        self._mode = wandb_mode()
        self._failed = self._mode == "disabled"  # or what went wrong has been said
        self._start: Callable[[], None] = lambda: self._init(config, digest, group)
        if not self._is_offline:
            self._guarded(self._send_past)

    @property
    def _is_offline(self) -> bool:
        return self._mode in ("offline", "dryrun")

    def _send_past(self) -> None:
        """Begins the run, and sends what earlier sessions logged and wandb does not have."""
        self._start()
        self._next = self._run.step  # 0 for a new run, else the one after its last
        for row in self._rows():
            self._send(row["step"], {key: value for key, value in row.items() if key != "step"})

    def _send(self, step: int, metrics: Metrics) -> None:
        """wandb takes a step once, but a pruning, an evaluation and a loss of it come one after the other."""
        if step < self._next:
            return
        if self._held is not None and self._held[0] == step:
            self._held[1].update(flatten(metrics))
        else:
            self._release()
            self._held = (step, flatten(metrics))

    def _release(self) -> None:
        if self._held is not None:
            self._run.log(self._held[1], step=self._held[0])
            self._held = None

    def _write_offline(self) -> None:
        for old in self._folder.glob("wandb/offline-run-*"):
            remove(old)
        self._send_past()

    def _init(self, config: RunConfig, digest: str, group: str) -> None:
        import wandb

        mode: Any = self._mode
        self._run = wandb.init(
            project=config.tracker.project,
            entity=config.tracker.entity,
            group=config.tracker.group or f"{config.name[:LONGEST_GROUP]}-{group}",
            job_type="pruned" if prunes(config) else "dense",
            name=f"{config.name}-seed{config.seed}",
            id=self._identity(digest),
            resume="allow",
            reinit="finish_previous",
            tags=tags(config, sweep_of(f"{self._folder.parent.name}/{self._folder.name}", config.outputs)),
            config=asdict(config),
            dir=str(self._folder),
            mode=mode,
            settings=wandb.Settings(silent=True, console="off"),
        )
        # A hundred plots of matrices would bury the others. wandb's own step is ours already, and the best of a run's
        # scores is no summary of it, since it is from before most of the pruning
        self._run.define_metric("pruning/layers/*", hidden=True)

    @property
    def _identity_file(self) -> Path:
        return self._folder / "wandb.json"

    def _identity(self, digest: str) -> str:
        """A new id after --force: wandb takes no step twice."""
        file = self._identity_file
        if file.exists():
            return str(json.loads(file.read_text(encoding="utf-8"))["id"])
        identity = f"{digest}-{secrets.token_hex(2)}"
        write_json(file, {"id": identity})
        return identity

    def log(self, step: int, metrics: Metrics) -> None:
        if not self._is_offline:
            self._guarded(lambda: self._send(step, metrics))

    def finish(self, result: Mapping[str, Any]) -> None:
        if self._is_offline:
            self._guarded(self._write_offline)
        self._guarded(self._release)
        self._guarded(lambda: self._run.summary.update(flatten({key: result.get(key) for key in SUMMARY})))
        self._guarded(lambda: self._run.finish())
        self._failed = True  # nothing more to close

    def close(self) -> None:
        """A step that is held back online is sent by the session that goes on; offline that writes everything anew."""
        if self._is_offline:
            self._guarded(self._write_offline)
            self._guarded(self._release)
        self._guarded(lambda: self._run.finish(exit_code=1))

    def where(self) -> str | None:
        """The run's address, or the command that sends an offline run."""
        if self._is_offline:
            return f"wandb sync {self._folder}/wandb/offline-run-*"
        place: list[str] = []
        self._guarded(lambda: place.append(str(self._run.url)))
        return place[0] if place else None

    def _guarded(self, call: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            call()
        except Exception as error:
            self._failed = True
            reason = (str(error).splitlines() or [""])[0]
            warn(f"wandb: {type(error).__name__}: {reason}; going on without it, metrics.jsonl has everything")


def tags(config: RunConfig, sweep: str | None) -> list[str]:
    """By what wandb's tables are filtered: recipe, dataset, model, sparsity, criterion, sweep, and the user's own."""
    model = config.model.name if config.start in ("teacher", "pretrained") else config.start
    found = [config.recipe, config.dataset.name, PurePath(model).name, f"sparsity-{config.sparsity:g}"]
    found += [config.pruning.criterion.name] if prunes(config) else []
    found += [f"sweep-{sweep}"] if sweep else []
    return list(dict.fromkeys(tag[:LONGEST_TAG] for tag in [*config.tracker.tags, *found] if tag))


def wandb_mode() -> str:
    """What WANDB_MODE says, else online or, without a key, offline."""
    mode = os.environ.get("WANDB_MODE")
    if mode is None:
        mode = "online" if has_key() else "offline"
        if mode == "offline":
            say("wandb: no key found, logging offline (wandb login, or WANDB_API_KEY, to log online)")
    return mode


def has_key() -> bool:
    """Whether wandb could log in: a key in the environment or in netrc. The key itself goes nowhere."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def flatten(metrics: Metrics, prefix: str = "") -> dict[str, Any]:
    """{"eval": {"accuracy": 0.9}} -> {"eval/accuracy": 0.9}"""
    flat: dict[str, Any] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}/")
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat
