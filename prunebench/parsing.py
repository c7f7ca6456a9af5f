"""What the verbs are made of: a parser whose errors are one line, exit statuses, and how errors are told."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from prunebench.errors import RunError, UsageError, brief

LONGEST_LINE = 600  # characters of an error; only what a user typed could be longer
OK, FAILED, USAGE, STOPPED, BROKEN_PIPE = 0, 1, 2, 130, 141  # exit statuses


class Parser(argparse.ArgumentParser):
    """Answers a wrong command line as everything else does: in one line.

    Attributes:
        signed: options whose value may begin with a minus, as in `--sort -score`.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.signed: set[str] = set()

    def parse_intermixed_args(self, words: Sequence[str]) -> argparse.Namespace:  # type: ignore[override]
        """argparse would take such a value for an option; joined to its own it is left alone."""
        joined: list[str] = []
        for word in words:
            if joined and joined[-1] in self.signed and word.startswith("-") and not word.startswith("--"):
                joined[-1] += f"={word}"
            else:
                joined.append(word)
        return super().parse_intermixed_args(joined)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; {self.prog} --help tells more")


@dataclass(frozen=True)
class Verb:
    """`run` does the work and returns the exit status; `add` declares arguments besides --debug."""

    help: str
    examples: Sequence[str]
    add: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], int]


def parser_of(name: str, verb: Verb) -> Parser:
    parser = Parser(
        prog=f"prunebench {name}",
        description=verb.help,
        epilog="examples:\n" + "\n".join(f"  {example}" for example in verb.examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add(parser)
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    return parser


def report(error: Exception, debug: bool = False) -> list[str]:
    """The lines that tell a user what went wrong."""
    if isinstance(error, UsageError | RunError):
        return [brief(line, LONGEST_LINE) for line in str(error).split("\n")]
    first = brief(next(iter(str(error).splitlines()), ""), LONGEST_LINE)
    advice = "" if debug else "; run again with --debug for the traceback"
    return [f"{type(error).__name__}: {first}{advice}" if first else f"{type(error).__name__}{advice}"]


def complain(*lines: str) -> None:
    for line in lines:
        print(f"prunebench: error: {line}" if line[:7] != "stopped" else f"prunebench: {line}", file=sys.stderr)
