"""What is computed once and shared by runs: found whole, or made by one process while the others wait."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from prunebench.paths import locked, whole_folder
from prunebench.progress import say, warn

T = TypeVar("T")
DAMAGED = (OSError, ValueError, TypeError, KeyError, IndexError, EOFError)  # what reading a truncated file may raise


def made_once(folder: Path, make: Callable[[Path], None], read: Callable[[Path], T]) -> T:
    """What `read` finds in `folder`.

    Where the folder is missing or damaged, `make` fills a new one beside it, which then takes its place. The lock is
    the kernel's, so a holder that is killed blocks nobody.

    Args:
        read: raises one of `DAMAGED` for what it cannot read.
    """
    waiting = f"waiting for another process that makes {folder.parent.name}/{folder.name}"
    with locked(folder.with_name(f".{folder.name}.lock"), on_wait=lambda: say(waiting)):
        if folder.is_dir():
            try:
                return read(folder)
            except DAMAGED as error:
                warn(f"{folder} is damaged ({error}): made again")
        with whole_folder(folder) as temporary:
            make(temporary)
        return read(folder)


def save_array(path: Path, array: np.ndarray) -> None:
    """`numpy.save` that notices a full disk: numpy's own loses what its last flush could not write, without a word."""
    array = np.ascontiguousarray(array)
    if array.dtype.hasobject:
        raise ValueError("Object arrays cannot be saved: they would be pickled")
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)
