"""The two kinds of failure a user meets, and the nearest-name hint that both use."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable

LONGEST_NAME = 200  # characters; nothing here has a longer one


class UsageError(Exception):
    """Something asked for cannot be done; known before anything expensive (exit status 2).

    The message is one line: what is wrong, where, and what to do. Several independent errors of one
    configuration are joined by newlines, one line each.
    """


class RunError(Exception):
    """A run that started could not be finished (exit status 1). The message is one line."""


def one_line(error: BaseException) -> str:
    """The first line of what an error says; of one that is not ours, its type as well."""
    lines = str(error).strip().splitlines() or [""]
    return lines[0] if isinstance(error, UsageError | RunError) else f"{type(error).__name__}: {lines[0]}"


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, a quota, a limit on the size of files


def no_room(error: BaseException) -> str | None:
    """What the system said where `error` means that nothing more can be written; None for any other error.

    safetensors, written in Rust, gives the system's error number in its text only.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (told := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(told[1])
    return os.strerror(number) if number in NO_ROOM else None


def brief(value: object, most: int = 80) -> str:
    """`value` on one line for a message: nothing that a terminal would obey, and cut in the middle where it is long."""
    text = str(value)
    if len(text) > most:
        text = f"{text[: most // 2]} ... {text[-(most // 2 - 5) :]}"
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` for the option nearest to `name`, or `""` where none is near."""
    if len(str(name)) > LONGEST_NAME:  # comparing takes time that grows with the square of the length
        return ""
    near = difflib.get_close_matches(str(name), [str(option) for option in options], n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""
