"""The two kinds of failure a user meets, and the nearest-name hint that both use."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` for the option nearest to `name`, or `""` where none is near."""
    near = difflib.get_close_matches(str(name), [str(option) for option in options], n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""
