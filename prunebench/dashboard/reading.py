"""The files of a run, read so that neither damage nor growth hurts."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunebench.paths import RunFolder

Stamp = tuple[int, ...]  # of files: equal as long as none of them was written


def files_of(folder: RunFolder) -> tuple[Path, ...]:
    return folder.result, folder.config, folder.plan, folder.metrics, folder.predictions, folder.masks


def stamp_of(folder: RunFolder) -> Stamp:
    """Time and size of the files a run is shown from."""
    numbers: list[int] = []
    for path in files_of(folder):
        try:
            stat = path.stat()
        except OSError:
            numbers += [0, 0, 0]
        else:
            numbers += [stat.st_mtime_ns, stat.st_size, stat.st_ino]
    return tuple(numbers)


def read_json(path: Path) -> dict[str, Any]:
    """{} where it is missing or damaged: one bad file is not to take the page away."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_none)
        return value if isinstance(value, dict) else {}
    except (OSError, ValueError):
        return {}


def _none(_: str) -> None:
    """For NaN and Infinity, which Python writes and no browser reads."""


@dataclass
class Lines:
    """The objects in a .jsonl file that grows: what was read once is not read again."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    _inode: int = 0
    _offset: int = 0  # bytes of whole lines that were read

    def read(self, path: Path) -> list[dict[str, Any]]:
        """Without a last line that is still being written. A file that was written anew is read anew."""
        try:
            with path.open("rb") as file:
                stat = os.fstat(file.fileno())
                if stat.st_ino != self._inode or stat.st_size < self._offset:
                    self.rows, self._inode, self._offset = [], stat.st_ino, 0
                file.seek(self._offset)
                added = file.read().rpartition(b"\n")[0]
        except OSError:
            return []
        self._offset += len(added) + 1 if added else 0
        self.rows += [row for line in added.splitlines() if (row := _object(line)) is not None]
        return self.rows


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line, parse_constant=_none)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
