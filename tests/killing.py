"""Runs in processes of their own that end at a chosen moment; forked from one that has imported everything."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import re
import shutil
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
import wandb  # noqa: F401 (imported once, in the process that all are forked from)
from transformers import BertForSequenceClassification  # noqa: F401

from prunebench import distill, scoring, train
from prunebench.errors import RunError
from prunebench.run import run
from prunebench.sparsity.sparsifier import Sparsifier
from prunebench.tasks.classification import ClassificationTask
from tests.tiny import tiny_config

MOMENTS = [  # before and after each call of these a run may be ended
    (os, "replace"),
    (shutil, "rmtree"),
    (train, "_update"),
    (Sparsifier, "update"),
    (ClassificationTask, "tokenize"),
    (distill, "_write_logits"),
    (scoring, "collect_rows"),
    (scoring, "export_model"),
]


def settings(tracker: str = "wandb") -> dict[str, Any]:
    """Of every run here: 36 steps, and a checkpoint every 10."""
    return {"trainer__checkpoint_steps": 10, "tracker__name": tracker}


def start(target: Callable[..., None], *args: Any) -> multiprocessing.process.BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=target, args=args)
    process.start()
    return process


def run_until(place: str, kill_at: int, how: int = signal.SIGKILL, trace: str | None = None, **changes: Any) -> None:
    """A tiny run in `place` that gets the signal `how` at its moment number `kill_at` (-1: none).

    `trace`: a file for the list of its moments, as `name before|after what`.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, under which tests may run, has it ignored
    transformers.logging.disable_progress_bar()
    os.dup2(os.open(Path(place, "stderr"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    moments: list[str] = []

    def passing(moment: str) -> None:
        moments.append(moment)
        if len(moments) - 1 == kill_at:
            os.kill(os.getpid(), how)

    for owner, name in MOMENTS:
        setattr(owner, name, _watched(getattr(owner, name), name, passing))
    try:
        run(tiny_config(Path(place), **changes))
    except KeyboardInterrupt:
        os._exit(130)
    except RunError as error:
        Path(place, "error").write_text(str(error))
        os._exit(1)
    except Exception:
        traceback.print_exc()
        os._exit(3)
    if trace:
        Path(trace).write_text(json.dumps(moments))
    os._exit(0)


def _watched(function: Callable[..., Any], name: str, passing: Callable[[str], None]) -> Callable[..., Any]:
    @functools.wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        what = re.sub(r"\d+\.tmp$", "tmp", Path(str(args[-1])).name) if name == "replace" else ""
        passing(f"{name} before {what}")
        result = function(*args, **kwargs)
        passing(f"{name} after {what}")
        return result

    return watched
