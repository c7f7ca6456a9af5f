"""What finished runs no longer need, and how to be rid of it. Results, models and unfinished runs are never touched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prunebench.listing import find_runs, read_result
from prunebench.paths import LEFTOVER, RunFolder, cache_dir, is_held


@dataclass(frozen=True)
class Waste:
    """A file or folder that may go."""

    path: Path
    why: str
    bytes: int


def find_waste(outputs: str | Path) -> list[Waste]:
    """Checkpoints of finished runs, what killed processes left half-written, and logits that no run is waiting for."""
    outputs = Path(outputs)
    runs = list(find_runs(outputs))
    found = [(run.state, "checkpoints of a finished run") for run in runs if run.state.is_dir() and _is_done(run)]
    found += [(path, "half-written, its process is gone") for path in _leftovers(outputs)]
    locks = cache_dir(outputs) / "locks"
    if all(_is_done(run) for run in runs) and not any(is_held(lock) for lock in locks.glob("*")):
        # which logits an unfinished run uses is known to that run only
        folders = sorted((cache_dir(outputs) / "logits").glob("*"))
        kept = {path for path, _ in found}
        found += [(path, "a teacher's logits, computed again if needed") for path in folders if _is_whole(path, kept)]
    return [Waste(path, why, size_of(path)) for path, why in found]


def _is_done(run: RunFolder) -> bool:
    """Finished, and no process is at work on it just now (`run --force`, say)."""
    return read_result(run).get("status") == "finished" and not is_held(run.lock)


def _is_whole(path: Path, listed: set[Path]) -> bool:
    return path.is_dir() and not path.name.startswith(".") and path not in listed


def _leftovers(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob(".*.tmp")):
        match = LEFTOVER.fullmatch(path.name)
        inside = any(LEFTOVER.fullmatch(parent.name) for parent in path.relative_to(folder).parents)
        if match and not inside and not _is_alive(int(match[1])):
            yield path


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in files if file.is_symlink() or file.is_file())
