"""Every file name in a run, and the two ways in which files appear: whole, or not at all."""

from __future__ import annotations

import fcntl
import glob
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def conf_dir() -> Path:
    """The recipes: inside the package where it is installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


@dataclass(frozen=True)
class RunFolder:
    """`outputs/<name>/<digest>/` and what it holds."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions.jsonl"

    @property
    def result(self) -> Path:
        return self.root / "result.json"

    @property
    def masks(self) -> Path:
        return self.root / "masks.safetensors"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def state(self) -> Path:
        """Checkpoints; gone once the run is finished."""
        return self.root / "state"

    @property
    def lock(self) -> Path:
        """Held by the process that is at work on the run."""
        return cache_dir(self.root.parent.parent) / "locks" / f"{self.root.parent.name}-{self.root.name}"

    def read_result(self) -> dict[str, Any] | None:
        """What result.json holds; None where there is none."""
        try:
            result: dict[str, Any] = json.loads(self.result.read_text(encoding="utf-8"))
            return result
        except FileNotFoundError:
            return None


def cache_dir(outputs: str | Path) -> Path:
    """What runs below `outputs` share: tokenised data and teachers' logits."""
    return Path(outputs) / ".cache"


LEFTOVER = re.compile(r"\..+\.(\d+)\.tmp")  # of the two below: .<name>.<process>.tmp


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; what was written there becomes `path` at the end, or nothing does.

    One process at a time writes `path`: whoever calls this holds a lock, of the run or of the cache.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """The same for a folder. A folder that is already there is replaced."""
    temporary = _temporary(path)
    retired = temporary.with_name(f".{path.name}.old.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            _sync(file)
        if path.exists():  # out of the way first: while it is deleted it would be there in part
            os.replace(path, retired)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)


def _temporary(path: Path) -> Path:
    """A path to write on, after what killed processes left half-written of `path` has been removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        remove(stale)
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_leftovers(folder: Path) -> None:
    """Removes everything half-written below `folder`, whose lock the caller holds."""
    for path in list(folder.rglob(".*.tmp")):
        if LEFTOVER.fullmatch(path.name):
            remove(path)


def remove(path: Path) -> None:
    """A file, a link or a folder with all that is in it; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """A rename may reach the disk before the data do, unless the data are sent there first."""
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """JSON with NaN refused: no reader but Python's takes it."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def free_bytes(place: str | Path) -> int:
    """Room on the disk of `place`, which need not exist yet."""
    path = Path(place).absolute()
    return shutil.disk_usage(next(parent for parent in (path, *path.parents) if parent.exists())).free


@contextmanager
def locked(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """One holder at a time, across processes. The kernel frees the lock of a holder that was killed.

    `on_wait` is called once if there is a holder already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_held(path: Path) -> bool:
    """Whether a process holds the lock `path` just now."""
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except FileNotFoundError:
        return False
    except OSError:
        return True
