"""The conductor: one run from its config to result.json, as a sequence of calls that reads as the flow."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from prunebench.assemble import (
    check_fit,
    check_memory,
    make_adapters,
    make_distillation,
    make_dynamics,
    make_sparsifier,
    make_student,
    sparsity_scale,
)
from prunebench.checkpoint import model_tensors
from prunebench.config import RunConfig
from prunebench.context import Context, identify, settle_labels, tokenizer_of
from prunebench.devices import exclusive, is_main, is_out_of_memory, make_accelerator, resolve_precision
from prunebench.digest import dense_config, prunes
from prunebench.errors import RunError, UsageError, no_room, one_line
from prunebench.models import scratch_model
from prunebench.paths import RunFolder, cache_dir, free_bytes, remove, remove_leftovers, write_json, write_text
from prunebench.plan import Plan, make_plan
from prunebench.progress import say, warn
from prunebench.scoring import begin_result, encode_for_scoring, evaluate_folder, evaluate_model, export, score
from prunebench.signals import ending_interrupts
from prunebench.tasks.base import Encoded, Task
from prunebench.tracking import LocalTracker, Tracker, WandbTracker
from prunebench.train import Job, train
from prunebench.validate import check

__all__ = ["evaluate_folder", "folder_of", "run"]


def folder_of(config: RunConfig) -> RunFolder:
    """Where the run of `config` lives: what its digest covers is read, nothing is made.

    Raises:
        UsageError: model or data cannot be found.
    """
    config, task = settle_labels(config)
    precision = resolve_precision(config.trainer.precision, config.trainer.device)
    return _folder(config, identify(config, task, precision, tokenizer_of(config, task)))


def _folder(config: RunConfig, digest: str) -> RunFolder:
    return RunFolder(Path(config.outputs) / config.name / digest)


def run(config: RunConfig, *, force: bool = False) -> dict[str, Any]:
    """Runs `config` unless it is finished already, and goes on where it was stopped.

    Args:
        config: as `compose.load_config` gives it.
        force: forget what there is of this run (not of its teacher) and begin anew.

    Returns:
        What result.json holds.

    Raises:
        UsageError: known to be impossible before anything was computed.
        RunError: the run failed; result.json has the reason.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the same call goes on.
    """
    with ending_interrupts():  # inside the loop, see `train`, they wait for the update
        try:
            return _run(config, force)
        except Exception as error:
            explained = _explained(error, config.outputs)
            if explained is error:
                raise
            raise explained from error


def _run(config: RunConfig, force: bool, is_teacher: bool = False) -> dict[str, Any]:
    check(config)
    config, task = settle_labels(config)
    precision = resolve_precision(config.trainer.precision, config.trainer.device)
    tokenizer = tokenizer_of(config, task)
    digest = identify(config, task, precision, tokenizer)
    folder = _folder(config, digest)
    _make_outputs(config.outputs)
    with exclusive(folder.lock, config.trainer.device):
        done = folder.read_result()
        if done and done["status"] == "finished" and not force:
            _remove_state(folder)
            say(
                f"{folder.root} is finished already"
                + (" (--force redoes it)" if not is_teacher else ": the dense model")
            )
            return done
        check_fit(config, task, tokenizer)
        data = task.encode("train", tokenizer, cache_dir(config.outputs))
        check_memory(config, task, len(data))
        plan = make_plan(config, len(data))
        dense = _run(dense_config(config), force=False, is_teacher=True) if prunes(config) else None
        _question_labels(config, task, dense)
        accelerator = make_accelerator(precision, config.trainer.device, config.trainer.threads)
        group = identify(replace(config, seed=0), task, precision, tokenizer)
        context = Context(config, task, folder, digest, precision, tokenizer, accelerator, dense, group)
        if context.writes:
            _announce(context, plan, force)
        accelerator.wait_for_everyone()
        trackers: list[Tracker] = []
        try:
            result = _execute(context, data, plan, trackers)
        except (Exception, KeyboardInterrupt) as error:
            status = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            if context.writes:
                _write_down(context, status, _explained(error, config.outputs))
            raise
        finally:
            for tracker in trackers:
                tracker.close()
        _remove_state(folder)
        return result


def _question_labels(config: RunConfig, task: Task, dense: Mapping[str, Any] | None) -> None:
    """A fine-tuned model that guesses no better than chance most likely has its labels in another order."""
    if dense is None or config.start in ("teacher", "pretrained") or task.problem != "classification":
        return
    accuracy = dense["metrics"].get("accuracy", 1.0)
    if accuracy <= 1 / task.num_labels:
        names = ", ".join(task.labels or [])
        warn(
            f"before any pruning start={config.start} has an accuracy of {accuracy:.4f}, no better than chance: do its "
            f"outputs stand for {names}, in this order? dataset.labels=[...] says otherwise"
        )


def _make_outputs(outputs: str) -> None:
    try:
        Path(outputs).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if no_room(error):
            raise
        raise UsageError(f"outputs={outputs}: {error.strerror}: choose a folder that can be made") from error


def _remove_state(folder: RunFolder) -> None:
    """The checkpoints of a finished run."""
    if is_main():
        remove(folder.state)


def _explained(error: BaseException, outputs: str) -> BaseException:
    """In the user's words where the disk or the memory is full; else the error itself."""
    if isinstance(error, RunError):
        return error
    if is_out_of_memory(error):
        return RunError(f"out of memory ({one_line(error)}): choose a smaller model, or a device with more")
    reason = no_room(error)
    if reason is None:
        return error
    place = getattr(error, "filename", None) or outputs
    return RunError(
        f"{place}: {reason} ({free_bytes(place) / 1e9:.1f} GB free): make room, and the same command goes on"
    )


def _write_down(context: Context, status: str, error: BaseException) -> None:
    """The reason in result.json, if there is room for it, and unless the run had come to its end."""
    if (context.folder.read_result() or {}).get("status") == "finished":
        return
    try:
        write_json(context.folder.result, begin_result(context, status=status, reason=one_line(error)).to_json())
    except OSError as another:
        warn(f"{context.folder.result} could not be written: {another}")


def _execute(context: Context, data: Encoded, plan: Plan, trackers: list[Tracker]) -> dict[str, Any]:
    """`trackers` is filled here, for the caller to close whatever happens."""
    folder = context.folder
    began = time.monotonic()
    encode_for_scoring(context)
    student = make_student(context)
    sparsifier = make_sparsifier(context.config, student)
    distillation = make_distillation(context, data)
    config = context.config
    job = Job(
        title=f"{config.name} seed {config.seed}",
        model=student,
        task=context.task,
        data=data,
        plan=plan,
        sparsifier=sparsifier,
        settings=config.trainer,
        seed=config.seed,
        distillation=distillation,
        accelerator=context.accelerator,
        state=folder.state,
        trackers=lambda rows: _start_trackers(context, rows, trackers),
        evaluate=lambda model: evaluate_model(context, model)[0],
        sparsity_scale=sparsity_scale(config, student),
        dynamics=make_dynamics(config, sparsifier),
        adapters=make_adapters(config),
        calibration=config.pruning.calibration,
        scratch=lambda: model_tensors(scratch_model(student, config.seed)),
    )
    prepared = time.monotonic()
    trained = train(job)
    finishing = time.monotonic()
    saved = export(context, student, sparsifier, plan)
    result = score(context, saved, plan, trained, distillation)
    seconds = round(prepared - began + trained.seconds + time.monotonic() - finishing, 2)
    result = replace(result, seconds=seconds, wandb=_wandb_place(trackers))
    for tracker in trackers:
        tracker.log(plan.steps, {"eval" if config.trainer.keep == "last" else "final": result.metrics})
        tracker.finish(result.to_json())
    if context.writes:
        write_json(folder.result, result.to_json())
    return result.to_json()


def _announce(context: Context, plan: Plan, force: bool) -> None:
    """What will be done, in the run's folder before it is done."""
    if force:
        context.folder.result.unlink(missing_ok=True)  # first, or a kill would leave a finished run without a model
        remove(context.folder.root)
    remove_leftovers(context.folder.root)
    say(f"{context.config.name}, seed {context.config.seed}: {plan.steps} steps, in {context.folder.root}")
    write_text(context.folder.config, OmegaConf.to_yaml(OmegaConf.structured(context.config)))
    write_json(context.folder.plan, plan.to_json())
    write_json(context.folder.result, begin_result(context, status="running").to_json())


def _start_trackers(context: Context, rows: int, trackers: list[Tracker]) -> list[Tracker]:
    """Fills `trackers`, once it is known how many rows had been logged where training goes on."""
    config, folder = context.config, context.folder
    if context.writes:
        local = LocalTracker(folder.metrics, rows)
        trackers.append(local)
        if config.tracker.name == "wandb":
            wandb = WandbTracker(
                config, digest=context.digest, group=context.group, folder=folder.root, rows=local.rows
            )
            trackers.append(wandb)
    return trackers


def _wandb_place(trackers: list[Tracker]) -> str | None:
    return next((tracker.where() for tracker in trackers if isinstance(tracker, WandbTracker)), None)
