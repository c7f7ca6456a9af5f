"""The command line: finds the verb, runs it, and turns whatever it raises into one line and an exit status."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from prunebench import __version__
from prunebench.errors import UsageError, did_you_mean
from prunebench.parsing import BROKEN_PIPE, FAILED, OK, STOPPED, USAGE, Verb, complain, parser_of, report
from prunebench.verbs import VERBS


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status: 0, 1 failed, 2 wrong usage, 130 stopped, 141 broken pipe."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        status = dispatch(words)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `prunebench ls | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        complain("stopped; the same command continues")
        return STOPPED
    except Exception as error:
        if debug:
            traceback.print_exc()
        complain(*report(error, debug))
        return USAGE if isinstance(error, UsageError) else FAILED


def dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview(VERBS))
        return OK if words else USAGE
    if words[0] in ("-V", "--version"):
        print(f"prunebench {__version__}")
        return OK
    if words[0] not in VERBS:
        raise UsageError(f"{words[0]}: no such verb{did_you_mean(words[0], VERBS)}; there are {', '.join(VERBS)}")
    verb = VERBS[words[0]]
    return verb.run(parser_of(words[0], verb).parse_intermixed_args(words[1:]))


def overview(verbs: dict[str, Verb]) -> str:
    width = max(map(len, verbs)) + 2
    lines = [f"  {name:<{width}}{verb.help.splitlines()[0]}" for name, verb in verbs.items()]
    return "\n".join([
        "usage: prunebench <verb> [key=value ...] [options]",
        "",
        "Prune language models of the BERT family, from one line of config to a verified sparse model.",
        "",
        *lines,
        "",
        "  prunebench run                                     the quickstart: a small model, 90 seconds, no network",
        "  prunebench plan recipe=bert_smc_90                 what a run would do, before it costs anything",
        "  prunebench run recipe=bert_smc_90 dataset=sst2     do it",
        "",
        "prunebench <verb> --help tells more about each.",
    ])  # fmt: skip
