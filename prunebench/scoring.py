"""The end of a run: the model exported, read back, its zeros counted, scored, and the Result put together."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import gather_object

from prunebench.assemble import components_of, sparsity_scale
from prunebench.batches import share_of
from prunebench.compose import read_run_config
from prunebench.config import RunConfig
from prunebench.context import Context, settle_labels
from prunebench.devices import describe_device, make_accelerator, resolve_precision
from prunebench.digest import prunes
from prunebench.errors import UsageError
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
from prunebench.models import has_head, load_tokenizer
from prunebench.paths import RunFolder, cache_dir, write_text
from prunebench.plan import Plan
from prunebench.results import Result, compressed_bytes, environment, evaluated_on, recovery
from prunebench.sparsity.sparsifier import Sparsifier
from prunebench.targets import COMPONENTS, component_sizes, find_targets
from prunebench.tasks.base import Prediction, Row
from prunebench.train import Distillation, Trained


def evaluate_model(context: Context, model: Any) -> tuple[dict[str, float], list[Prediction]]:
    """Scores on all evaluation splits, and a prediction an example. Every process computes its share of the rows."""
    accelerator, task = context.accelerator, context.task

    def rows_of(split: str) -> dict[int, Row]:
        data = task.encoded(split)
        rows = collect_rows(
            model,
            task,
            data,
            batch_size=context.config.trainer.eval_batch_size,
            device=accelerator.device,
            autocast=accelerator.autocast,
            indices=share_of(np.arange(len(data)), accelerator.process_index, accelerator.num_processes),
        )
        return dict(gather_object(list(rows.items()))) if accelerator.num_processes > 1 else rows

    return score_splits(task, rows_of, task.eval_splits)


def export(context: Context, student: Any, sparsifier: Sparsifier, plan: Plan) -> Any:
    """Saves masks and model, and returns the model as read back from its files, its zeros counted.

    Raises:
        RunError: the files do not hold the zeros that were promised.
    """
    config, folder = context.config, context.folder
    if context.writes:
        save_masks(folder.masks, sparsifier.masks)
        export_model(folder.model, context.accelerator.unwrap_model(student), context.tokenizer)
    context.accelerator.wait_for_everyone()
    saved = context.load(str(folder.model), context.task.labels)
    if prunes(config):
        level = plan.prunings[-1][1] * sparsity_scale(config, saved)
        targets = find_targets(saved, components_of(config, saved))
        check_zeros(targets, load_masks(folder.masks), level, sparsifier.pattern)
    elif config.pruning.keep_zeros:
        check_masked(find_targets(saved, components_of(config, saved)), load_masks(folder.masks))
    return saved.to(context.accelerator.device)


def score(context: Context, saved: Any, plan: Plan, trained: Trained, distillation: Distillation | None) -> Result:
    """Scores the saved model, writes predictions and the model card, and puts the result together."""
    config, task, folder = context.config, context.task, context.folder
    metrics, predictions = evaluate_model(context, saved)
    value, dense = metrics[task.metric], _dense(context, metrics)
    result = replace(
        begin_result(context, status="finished"),
        evaluation=evaluated_on(predictions, task.fingerprint(task.eval_splits[0])),
        metric={
            "name": task.metric,
            "value": value,
            "higher_is_better": task.higher_is_better,
            "weights": config.trainer.keep,
        },
        metrics=metrics,
        dense=dense,
        recovery=recovery(value, dense["value"], task.higher_is_better),
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
        **counted(saved, components_of(config, saved), config.sparsity),
    )
    if context.writes:
        write_predictions(folder, predictions)
        write_text(folder.model / "README.md", model_card(config.model.name, config.dataset.name, result))
    return result


def counted(saved: Any, components: list[str], target: float) -> dict[str, Any]:
    """The fields of a Result that follow from the zeros of a saved model; `target`: the sparsity asked for."""
    weights = count_weights(saved, components)
    return {
        "sparsity": {
            "target": target,
            "prunable": 1 - weights["prunable_nonzero"] / weights["prunable"],
            "model": 1 - weights["model_nonzero"] / weights["model"],
            "components": component_sparsity(saved, components),
        },
        "weights": weights,
        "bytes": {
            "dense": 4 * weights["model"],
            "compressed": compressed_bytes(weights),
            "format": "bitmask (a bit for every prunable weight, then the non-zero values, fp32)",
        },
    }


def write_predictions(folder: RunFolder, predictions: list[Prediction]) -> None:
    write_text(folder.predictions, "".join(json.dumps(line, allow_nan=False) + "\n" for line in predictions))


def _dense(context: Context, metrics: dict[str, float]) -> dict[str, Any]:
    """The dense run's score; a dense run's own."""
    if context.dense is None:
        return {"value": metrics[context.task.metric], "metrics": metrics, "folder": str(context.folder.root)}
    return {
        "value": context.dense["metric"]["value"],
        "metrics": context.dense["metrics"],
        "folder": str(context.dense_folder.root),
    }


def begin_result(context: Context, status: str, reason: str | None = None) -> Result:
    """What is known of a result before anything was computed."""
    config = context.config
    return Result(
        status=status,
        reason=reason,
        recipe=config.recipe,
        name=config.name,
        digest=context.digest,
        seed=config.seed,
        group=context.group,
        config=asdict(config),
        environment=environment(describe_device(context.accelerator.device), context.precision),
    )


def encode_for_scoring(context: Context) -> None:
    for split in context.task.eval_splits:
        context.task.encode(split, context.tokenizer, cache_dir(context.config.outputs))


def evaluate_folder(path: str | Path, config: RunConfig | None = None) -> dict[str, Any]:
    """Scores a finished run or any model folder again, and counts its zeros from the files.

    Args:
        path: a run's folder, or a model's.
        config: names the dataset; not needed for a run's folder, which has its own config.

    Returns:
        metric, metrics, the share of zeros of every component and of the model, and for a run whether its masks hold.

    Raises:
        UsageError: neither a run nor a model, or no dataset is named.
        RunError: a run whose saved model does not hold its zeros.
    """
    folder = RunFolder(Path(path))
    is_run = folder.config.is_file()
    if config is None and not is_run:
        raise UsageError(f"{path} is not a run's folder: name its data, for instance dataset=sst2")
    config = config or read_run_config(folder.config)
    model_folder = folder.model if is_run else Path(path)
    context = scoring_context(model_folder, config, folder)
    model = context.load(str(model_folder), context.task.labels)
    result = _zeros(model_folder, model, folder.masks if is_run else None)
    metrics, _ = evaluate_model(context, model.to(context.accelerator.device))
    name = context.task.metric
    return result | {"metric": {"name": name, "value": metrics[name]}, "metrics": metrics}


def scoring_context(model_folder: Path, config: RunConfig, folder: RunFolder) -> Context:
    """What is needed to score the model in `model_folder` on the data of `config`, which are encoded for that.

    Raises:
        UsageError: the model has no head for them.
    """
    config, task = settle_labels(replace(config, start=str(model_folder)))
    if not has_head(str(model_folder), task.head):
        raise UsageError(f"{model_folder} has no head for {config.dataset.name}: fine-tune it first (recipe=dense)")
    precision = resolve_precision(config.trainer.precision, config.trainer.device)
    accelerator = make_accelerator(precision, config.trainer.device, config.trainer.threads)
    context = Context(config, task, folder, "", precision, load_tokenizer(str(model_folder)), accelerator, None)
    encode_for_scoring(context)
    return context


def _zeros(model_folder: Path, model: Any, masks: Path | None) -> dict[str, Any]:
    components = [name for name, size in component_sizes(model).items() if size and name in COMPONENTS]
    weights = count_weights(model, components)
    result: dict[str, Any] = {
        "model": str(model_folder),
        "sparsity": {
            "model": 1 - weights["model_nonzero"] / weights["model"],
            "components": component_sparsity(model, components),
        },
    }
    if masks is not None and masks.is_file():
        check_masked(find_targets(model, components), load_masks(masks))
        result["masked_weights_are_zero"] = True
    return result
