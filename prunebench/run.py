"""The conductor: one run from its config to result.json, as a sequence of calls that reads as the flow."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from omegaconf import OmegaConf
from torch import nn

from prunebench.batches import share_of
from prunebench.config import RunConfig
from prunebench.devices import describe_device, make_accelerator, resolve_precision
from prunebench.digest import DENSE, dense_config, needs_dense, prunes, run_digest
from prunebench.distill import cache_key
from prunebench.errors import RunError, UsageError
from prunebench.evaluate import collect_rows, score_splits
from prunebench.export import (
    check_masked,
    check_zeros,
    component_sparsity,
    count_weights,
    export_model,
    load_masks,
    model_card,
    save_masks,
)
from prunebench.identity import model_identity
from prunebench.models import load_model, load_tokenizer
from prunebench.paths import RunFolder, cache_dir, locked, write_json, write_text
from prunebench.plan import Plan, make_plan
from prunebench.progress import say
from prunebench.results import Result, compressed_bytes, environment, recovery
from prunebench.sparsity.sparsifier import Sparsifier, build_sparsifier
from prunebench.targets import COMPONENTS, component_sizes, find_targets
from prunebench.tasks.base import Encoded, Row, Task, load_task
from prunebench.teacher import TeacherSource, check_teacher, label_columns, make_teacher, teacher_labels
from prunebench.tracking import LocalTracker, Tracker, WandbTracker
from prunebench.train import Distillation, Job, Trained, train
from prunebench.validate import check


@dataclass
class Context:
    """What the stages of a run share."""

    config: RunConfig
    task: Task
    folder: RunFolder
    digest: str
    precision: str
    accelerator: Any
    tokenizer: Any
    dense: Mapping[str, Any] | None  # result of the dense run; None for a dense run itself


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
    """
    check(config)
    config, task = _settle_labels(config)
    precision = resolve_precision(config.trainer.precision, config.trainer.device)
    digest = _digest(config, task, precision)
    folder = RunFolder(Path(config.outputs) / config.name / digest)
    with locked(folder.root.parent / f".{digest}.lock"):
        if force:
            shutil.rmtree(folder.root, ignore_errors=True)
        done = folder.read_result()
        if done and done["status"] == "finished":
            say(f"{folder.root} is finished already (--force redoes it)")
            return done
        tokenizer = task.make_tokenizer() or _tokenizer(config)
        if config.distillation.hardness > 0 and config.distillation.teacher != "auto":
            check_teacher(task, config.distillation.teacher, tokenizer)
        dense = run(dense_config(config)) if prunes(config) else None
        accelerator = make_accelerator(precision, config.trainer.device)
        context = Context(config, task, folder, digest, precision, accelerator, tokenizer, dense)
        try:
            return _execute(context)
        except RunError as error:
            write_json(folder.result, _result(context, status="failed", reason=str(error)).to_json())
            raise


def _execute(context: Context) -> dict[str, Any]:
    folder = context.folder
    began = time.monotonic()
    data = _encode(context)
    plan = make_plan(context.config, len(data))
    _write_plan(context, plan)
    student = _student(context)
    sparsifier = _sparsifier(context.config, student)
    distillation = _distillation(context, data)
    trackers: list[Tracker] = []
    job = _job(context, student, data, plan, sparsifier, distillation, trackers)
    prepared = time.monotonic()
    trained = train(job)
    finishing = time.monotonic()
    saved = _export(context, student, sparsifier, plan)
    result = _score(context, saved, plan, trained, distillation)
    seconds = round(prepared - began + trained.seconds + time.monotonic() - finishing, 2)
    result = replace(result, seconds=seconds, wandb=_where(trackers))
    for tracker in trackers:
        tracker.log(plan.steps, {"eval": result.metrics})
        tracker.finish(result.to_json())
    write_json(folder.result, result.to_json())
    shutil.rmtree(folder.state, ignore_errors=True)
    return result.to_json()


# --- identity ---------------------------------------------------------------------------------------------------


def _settle_labels(config: RunConfig) -> tuple[RunConfig, Task]:
    """The task, with its labels in the order of a fine-tuned model's head, if the run starts from one."""
    task = load_task(config.dataset)
    if config.start in ("teacher", "pretrained") or task.problem != "classification":
        return config, task
    order = teacher_labels(task, config.start)
    if order == task.labels:
        return config, task
    config = replace(config, dataset=replace(config.dataset, labels=order))
    return config, load_task(config.dataset)


def _digest(config: RunConfig, task: Task, precision: str) -> str:
    source = config.start if config.start not in ("teacher", "pretrained") else config.model.name
    model = "new" if config.model.from_config else model_identity(source, config.model.revision)
    return run_digest(
        config,
        model=model,
        data=task.identity(),
        teacher=_teacher_identity(config, task, precision),
        precision=precision,
    )


def _teacher_identity(config: RunConfig, task: Task, precision: str) -> str | None:
    if needs_dense(config):
        return _digest(dense_config(config), task, precision)
    if config.distillation.hardness > 0:
        return model_identity(config.distillation.teacher)
    return None


def _tokenizer(config: RunConfig) -> Any:
    if config.model.tokenizer:
        return load_tokenizer(config.model.tokenizer)
    source = config.start if config.start not in ("teacher", "pretrained") else config.model.name
    return load_tokenizer(source, config.model.revision)


# --- stages -----------------------------------------------------------------------------------------------------


def _encode(context: Context) -> Encoded:
    """All splits tokenised; the training split is returned, the others are asked for by `Task.encoded`."""
    data = context.task.encode("train", context.tokenizer, cache_dir(context.config.outputs))
    _encode_for_scoring(context)
    return data


def _encode_for_scoring(context: Context) -> None:
    for split in context.task.eval_splits:
        context.task.encode(split, context.tokenizer, cache_dir(context.config.outputs))


def _write_plan(context: Context, plan: Plan) -> None:
    write_text(context.folder.config, OmegaConf.to_yaml(OmegaConf.structured(context.config)))
    write_json(context.folder.plan, plan.to_json())
    write_json(context.folder.result, _result(context, status="running").to_json())


def _student(context: Context) -> Any:
    config = context.config
    places = {"teacher": lambda: str(_dense_folder(context)), "pretrained": lambda: config.model.name}
    return _load(context, places.get(config.start, lambda: config.start)(), context.task.labels)


def _dense_folder(context: Context) -> Path:
    assert context.dense is not None
    return RunFolder(Path(context.config.outputs) / DENSE / str(context.dense["digest"])).model


def _load(context: Context, name: str, labels: list[str] | None) -> Any:
    """The model `name` with a head for the task, whose outputs stand for `labels` in their order."""
    config, task = context.config, context.task
    pretrained = name == config.model.name
    return load_model(
        name,
        head=task.head,
        labels=labels,
        num_labels=task.num_labels,
        revision=config.model.revision if pretrained else None,
        config=config.model.config,
        from_config=config.model.from_config and pretrained,
        seed=config.seed,
        dropout=config.trainer.dropout,
        problem=task.problem,
    )


def _components(config: RunConfig, model: nn.Module) -> list[str]:
    if config.pruning.components != ["all"]:
        return config.pruning.components
    sizes = component_sizes(model)
    return [component for component in COMPONENTS if sizes[component]]


def _sparsifier(config: RunConfig, model: nn.Module) -> Sparsifier:
    pruning = config.pruning
    return build_sparsifier(
        find_targets(model, _components(config, model)),
        criterion=pruning.criterion.name,
        params=pruning.criterion.params,
        scope=pruning.scope.name,
        floor=pruning.scope.floor,
        pattern=pruning.pattern.name,
        n=pruning.pattern.n,
        m=pruning.pattern.m,
        seed=config.seed,
    )


def _sparsity_scale(config: RunConfig, model: nn.Module) -> float:
    """What turns `sparsity` of the budget's components into the sparsity of the pruned ones."""
    if config.pruning.budget_from is None:
        return 1.0
    sizes = component_sizes(model)
    budget = sum(sizes[component] for component in config.pruning.budget_from)
    return budget / sum(sizes[component] for component in _components(config, model))


def _job(
    context: Context,
    student: Any,
    data: Encoded,
    plan: Plan,
    sparsifier: Sparsifier,
    distillation: Distillation | None,
    trackers: list[Tracker],
) -> Job:
    """`trackers` is filled when training knows at which step it goes on."""

    def start_trackers(resume_at: int) -> list[Tracker]:
        trackers.extend(_trackers(context, resume_at))
        return trackers

    config = context.config
    return Job(
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
        state=context.folder.state,
        trackers=start_trackers,
        evaluate=lambda model: _evaluate(context, model)[0],
        sparsity_scale=_sparsity_scale(config, student),
    )


def _trackers(context: Context, resume_at: int) -> list[Tracker]:
    if not context.accelerator.is_main_process:
        return []
    config, folder = context.config, context.folder
    local = LocalTracker(folder.metrics, resume_at)
    if config.tracker.name != "wandb":
        return [local]
    remote = WandbTracker(
        config.tracker,
        name=config.name,
        digest=context.digest,
        config=asdict(config),
        folder=folder.root,
        sent=local.logged_until,
    )
    return [local, remote]


def _where(trackers: list[Tracker]) -> str | None:
    return next((tracker.where() for tracker in trackers if isinstance(tracker, WandbTracker)), None)


# --- the teacher ------------------------------------------------------------------------------------------------


def _distillation(context: Context, data: Encoded) -> Distillation | None:
    config, task = context.config, context.task
    settings = config.distillation
    if settings.hardness == 0 or context.dense is None:
        return None
    given = None if settings.teacher == "auto" else settings.teacher
    folder = given or str(_dense_folder(context))
    identity = model_identity(given) if given else str(context.dense["digest"])
    labels = teacher_labels(task, given) if given else task.labels
    source = TeacherSource(
        load=lambda: _load(context, folder, labels),
        columns=label_columns(task.labels, labels),
        task=task,
        data=data,
        device=context.accelerator.device,
        autocast=context.accelerator.autocast,
        batch_size=config.trainer.eval_batch_size,
    )
    key = cache_key(identity, data.key, context.precision, str(source.columns))
    cache = cache_dir(config.outputs) / "logits" / key
    teacher, temperature = make_teacher(source, cache, settings.cache_gb * 1e9, settings.temperature)
    return Distillation(teacher, settings.hardness, temperature)


# --- the end ----------------------------------------------------------------------------------------------------


def _evaluate(context: Context, model: nn.Module) -> tuple[dict[str, float], list[dict[str, Any]]]:
    accelerator, task = context.accelerator, context.task

    def rows_of(split: str) -> dict[int, Row]:
        data = task.encoded(split)
        mine = share_of(np.arange(len(data)), accelerator.process_index, accelerator.num_processes)
        rows = collect_rows(
            model,
            task,
            data,
            batch_size=context.config.trainer.eval_batch_size,
            device=accelerator.device,
            autocast=accelerator.autocast,
            indices=mine,
        )
        return dict(gather_object(list(rows.items()))) if accelerator.num_processes > 1 else rows

    return score_splits(task, rows_of, task.eval_splits)


def _export(context: Context, student: Any, sparsifier: Sparsifier, plan: Plan) -> Any:
    """Saves masks and model, and returns the model as read back from its files, with its zeros counted."""
    config, folder = context.config, context.folder
    if context.accelerator.is_main_process:
        save_masks(folder.masks, sparsifier.masks)
        export_model(folder.model, context.accelerator.unwrap_model(student), context.tokenizer)
    context.accelerator.wait_for_everyone()
    saved = _load(context, str(folder.model), context.task.labels)
    if prunes(config):
        level = plan.prunings[-1][1] * _sparsity_scale(config, saved)
        targets = find_targets(saved, _components(config, saved))
        check_zeros(targets, load_masks(folder.masks), level, sparsifier.pattern)
    return saved.to(context.accelerator.device)


def _score(context: Context, saved: Any, plan: Plan, trained: Trained, distillation: Distillation | None) -> Result:
    """Scores the saved model, writes predictions and model card, and puts the result together."""
    config, task, folder = context.config, context.task, context.folder
    metrics, predictions = _evaluate(context, saved)
    write_text(folder.predictions, "".join(json.dumps(line, allow_nan=False) + "\n" for line in predictions))
    components = _components(config, saved)
    weights = count_weights(saved, components)
    value = metrics[task.metric]
    dense: dict[str, Any] = {"value": value, "metrics": metrics, "folder": str(folder.root)}
    if context.dense is not None:
        dense = {
            "value": context.dense["metric"]["value"],
            "metrics": context.dense["metrics"],
            "folder": str(_dense_folder(context).parent),
        }
    result = replace(
        _result(context, status="finished"),
        metric={
            "name": task.metric,
            "value": value,
            "higher_is_better": task.higher_is_better,
            "weights": config.trainer.keep,
        },
        metrics=metrics,
        dense=dense,
        recovery=recovery(value, dense["value"], task.higher_is_better),
        sparsity={
            "target": config.sparsity,
            "prunable": 1 - weights["prunable_nonzero"] / weights["prunable"],
            "model": 1 - weights["model_nonzero"] / weights["model"],
            "components": component_sparsity(saved, components),
        },
        weights=weights,
        bytes={
            "dense": 4 * weights["model"],
            "compressed": compressed_bytes(weights),
            "format": "bitmask (one bit for every prunable weight, then the non-zero values) in fp32",
        },
        training={
            "steps": plan.steps,
            "epochs": plan.epochs,
            "prunings": len(plan.prunings),
            "examples": len(task.encoded("train")),
            "temperature": distillation.temperature if distillation else None,
            "best": trained.best,
        },
        model=folder.model.name,
        warnings=trained.warnings,
    )
    write_text(folder.model / "README.md", model_card(config.model.name, config.dataset.name, result))
    return result


def _result(context: Context, status: str, reason: str | None = None) -> Result:
    config = context.config
    return Result(
        status=status,
        reason=reason,
        recipe=config.recipe,
        name=config.name,
        digest=context.digest,
        seed=config.seed,
        environment=environment(describe_device(context.accelerator.device), context.precision),
    )


def read_config(path: Path) -> RunConfig:
    """The config of a run, as its config.yaml has it."""
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), OmegaConf.load(path)))
    assert isinstance(config, RunConfig)
    return config


def evaluate_folder(path: str | Path, config: RunConfig | None = None) -> dict[str, Any]:
    """Scores a finished run or any model folder again, and counts its zeros from the files.

    Args:
        path: a run's folder, or a model's.
        config: names the dataset; not needed for a run's folder, which has its own config.

    Returns:
        metrics, the zeros of every component, and for a run whether masks and zeros still agree.

    Raises:
        UsageError: neither a run nor a model, or no dataset is named.
        RunError: a run whose saved model does not hold its zeros.
    """
    folder = RunFolder(Path(path))
    is_run = folder.config.is_file()
    if is_run and config is None:
        config = read_config(folder.config)
    if config is None:
        raise UsageError(f"{path} is not a run's folder: name its data, for instance dataset=sst2")
    model_folder = folder.model if is_run else Path(path)
    config = replace(config, start=str(model_folder))
    config, task = _settle_labels(config)
    precision = resolve_precision(config.trainer.precision, config.trainer.device)
    accelerator = make_accelerator(precision, config.trainer.device)
    tokenizer = load_tokenizer(str(model_folder))
    context = Context(config, task, folder, "", precision, accelerator, tokenizer, None)
    _encode_for_scoring(context)
    model = _load(context, str(model_folder), task.labels)
    components = [name for name, size in component_sizes(model).items() if size and name in COMPONENTS]
    weights = count_weights(model, components)
    result: dict[str, Any] = {
        "model": str(model_folder),
        "sparsity": {
            "model": 1 - weights["model_nonzero"] / weights["model"],
            "components": component_sparsity(model, components),
        },
    }
    if is_run and folder.masks.is_file():
        check_masked(find_targets(model, components), load_masks(folder.masks))
        result["masked_weights_are_zero"] = True
    metrics, _ = _evaluate(context, model.to(accelerator.device))
    return result | {"metric": {"name": task.metric, "value": metrics[task.metric]}, "metrics": metrics}
