"""Where metrics go: always metrics.jsonl, which is the truth, and if asked Weights & Biases, which mirrors it."""

from __future__ import annotations

import json
import netrc
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

from prunebench.config import TrackerConfig
from prunebench.paths import write_json, write_text
from prunebench.progress import say, warn

Metrics = Mapping[str, Any]


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

    def __init__(self, path: Path, resume_at: int) -> None:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.before = [row for line in lines if (row := _row(line)) is not None]  # also what is taken back
        kept = [row for row in self.before if row["step"] < resume_at]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a", encoding="utf-8")

    def log(self, step: int, metrics: Metrics) -> None:
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()

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
    """Weights & Biases. Offline without a key. Whatever goes wrong there is said once and never ends the run."""

    def __init__(
        self,
        settings: TrackerConfig,
        *,
        name: str,
        digest: str,
        config: Metrics,
        folder: Path,
        rows: Sequence[Mapping[str, Any]],
    ) -> None:
        """Joins or begins the run at wandb.

        Args:
            folder: the run's own; wandb.json in it remembers under which id the run goes there.
            rows: what earlier sessions wrote to metrics.jsonl. What they sent is not sent again (the run is
                deterministic); what they did not send, since they had another tracker, is sent now.
        """
        self._run: Any = None
        self._failed = False
        self._folder = folder
        joined = self._identity_file.exists()  # the run at wandb is an earlier session's
        self._guarded(lambda: self._start(settings, name, digest, config))
        self._sent = max((row["step"] for row in rows), default=-1) if joined else -1
        for row in () if joined else rows:
            self.log(row["step"], {key: value for key, value in row.items() if key != "step"})

    def _start(self, settings: TrackerConfig, name: str, digest: str, config: Metrics) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE")
        if mode is None:
            mode = "online" if has_key() else "offline"
            if mode == "offline":
                say("wandb: no key found, logging offline (wandb login, or WANDB_API_KEY, to log online)")
        self._run = wandb.init(
            project=settings.project,
            entity=settings.entity,
            group=settings.group or name,
            name=f"{name}-seed{config['seed']}",
            id=self._identity(digest),
            resume="allow",
            reinit="finish_previous",
            tags=[*settings.tags, f"sparsity-{config['sparsity']:g}", config["dataset"]["name"]],
            config=dict(config),
            dir=str(self._folder),
            mode=mode,
            settings=wandb.Settings(silent=True, console="off"),
        )

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
        if step > self._sent:
            self._guarded(lambda: self._run.log(flatten(metrics), step=step))

    def finish(self, result: Mapping[str, Any]) -> None:
        keys = ("metric", "metrics", "dense", "recovery", "sparsity", "seconds")
        self._guarded(lambda: self._run.summary.update(flatten({key: result[key] for key in keys})))
        self._guarded(lambda: self._run.finish())
        self._failed = True  # nothing more to close

    def close(self) -> None:
        self._guarded(lambda: self._run.finish(exit_code=1))

    def where(self) -> str | None:
        """The run's address, or the command that sends an offline run."""
        place: list[str] = []
        self._guarded(lambda: place.append(self._place()))
        return place[0] if place else None

    def _place(self) -> str:
        if self._run.offline:
            return f"wandb sync {self._folder}/wandb/offline-run-*"
        return str(self._run.url)

    def _guarded(self, call: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            call()
        except Exception as error:
            self._failed = True
            reason = (str(error).splitlines() or [""])[0]
            warn(f"wandb: {type(error).__name__}: {reason}; going on without it, metrics.jsonl has everything")


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
