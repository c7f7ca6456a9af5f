"""Settings that are fine each by itself but not together, or not with the files they name. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from prunebench.config import RunConfig
from prunebench.errors import UsageError, did_you_mean
from prunebench.facts import head_class
from prunebench.plan import schedule_problems
from prunebench.sizes import ALIASES, DEFAULTS, component_sizes
from prunebench.sparsity.axes import check_axes


def contradictions(config: RunConfig) -> list[str]:
    """What cannot work, one line each. Ranges and names must have been checked."""
    return [line for rule in RULES for line in rule(config)]


def _axes(config: RunConfig) -> Iterable[str]:
    scope, pattern = config.pruning.scope, config.pruning.pattern
    return check_axes(scope.name, scope.floor, pattern.name, pattern.n, pattern.m, config.sparsity)


def _learning_rates(config: RunConfig) -> Iterator[str]:
    schedule, trainer = config.pruning.schedule, config.trainer
    peak = ("trainer.lr", trainer.lr) if schedule.lr is None else ("pruning.schedule.lr", schedule.lr)
    final = ("trainer.final_lr", trainer.final_lr)
    if schedule.final_lr is not None:
        final = ("pruning.schedule.final_lr", schedule.final_lr)
    if final[1] > peak[1]:
        yield f"{final[0]}={final[1]:g} is above {peak[0]}={peak[1]:g}: cycles decay; lower the one or raise the other"
    if trainer.final_lr > trainer.lr and final[0] != "trainer.final_lr":
        yield f"trainer.final_lr={trainer.final_lr:g} is above trainer.lr={trainer.lr:g}: the dense model needs a decay"


def _batches(config: RunConfig) -> Iterator[str]:
    size, parts = config.trainer.batch_size, config.trainer.accumulation
    if size % parts:
        yield f"trainer.accumulation={parts} does not divide trainer.batch_size={size}: choose a divisor"


def _teacher(config: RunConfig) -> Iterator[str]:
    hardness, teacher = config.distillation.hardness, config.distillation.teacher
    if hardness > 0 and teacher == "none":
        yield f"distillation.hardness={hardness:g}, but distillation.teacher=none: set it to auto, or distillation=none"
    if any(phase.prune for phase in config.pruning.schedule.phases):
        return  # sparsity=0 contradicts the schedule already
    if config.start == "teacher" and config.sparsity == 0:
        yield "start=teacher, but sparsity=0: a dense run is the teacher; set sparsity, or start=pretrained"
    if hardness > 0 and config.sparsity == 0:
        yield f"distillation.hardness={hardness:g}, but sparsity=0: a dense run has no teacher; add distillation=none"


def _components(config: RunConfig) -> Iterator[str]:
    """Where the model's sizes are known: what it lacks, and a budget that is more than there is."""
    pruning = config.pruning
    known = component_sizes(config.model.config, head_class(config), 2) if config.model.config else None
    if known is None:  # the number of labels does not matter here
        return
    named = [name for name in (*pruning.components, *(pruning.budget_from or [])) if name != "all"]
    for name in dict.fromkeys(named):
        if known[name] == 0:
            yield f"pruning.components: {config.model.name} has no {name} for this task: leave it out"
    if pruning.budget_from is None or pruning.components == ["all"]:
        return
    budget = sum(known[name] for name in pruning.budget_from)
    room = sum(known[name] for name in pruning.components)
    if config.sparsity * budget >= room:
        yield (
            f"pruning.budget_from: sparsity={config.sparsity:g} of {budget:,} weights "
            f"leaves nothing of the {room:,} in {' + '.join(pruning.components)}: lower it"
        )


def _places(config: RunConfig) -> Iterator[str]:
    """Folders and files that the config names."""
    model, start = config.model.name, config.start
    if start not in ("teacher", "pretrained"):
        hint = did_you_mean(start, ("teacher", "pretrained"))
        yield from _model_folder(
            "start", start, f"must be teacher, pretrained or the folder of a fine-tuned model{hint}"
        )
    if model != start and _is_folder_name(model) and not config.model.from_config:
        yield from _model_folder("model.name", model, "there is no such folder")
    teacher = config.distillation.teacher
    if teacher not in ("auto", "none") and (_is_folder_name(teacher) or "/" not in teacher):
        hint = did_you_mean(teacher, ("auto", "none"))
        yield from _model_folder("distillation.teacher", teacher, f"must be auto, none, a folder or owner/name{hint}")


def _is_folder_name(name: str) -> bool:
    return Path(name).is_dir() or name.startswith((".", "/", "~")) or name.count("/") > 1


def _model_folder(key: str, folder: str, otherwise: str) -> Iterator[str]:
    if not Path(folder).is_dir():
        yield f"{key}={folder}: {otherwise}"
    elif not (Path(folder) / "config.json").is_file():
        yield f"{key}={folder}: the folder has no config.json; give one that save_pretrained has written"


def _data(config: RunConfig) -> Iterator[str]:
    dataset = config.dataset
    if dataset.task == "synthetic":
        if dataset.train_file or dataset.validation_file:
            yield f"dataset={dataset.name} generates its text and reads no files: for yours, dataset=classification"
        return
    from prunebench.tasks.sources import source_of

    try:
        source_of(dataset)
    except UsageError as error:
        yield str(error)
    if dataset.regression and dataset.labels:
        yield "dataset.regression=true and dataset.labels exclude each other: set dataset.labels=null"


def _length(config: RunConfig) -> Iterator[str]:
    longest, asked = positions(config.model.config), config.dataset.max_length
    if longest is not None and asked > longest:
        yield f"dataset.max_length={asked}: {config.model.name} takes at most {longest} tokens; lower it to {longest}"
    if config.dataset.task == "question_answering" and config.dataset.doc_stride >= asked:
        yield f"dataset.doc_stride={config.dataset.doc_stride}: must be less than dataset.max_length={asked}"


def positions(config: dict[str, Any]) -> int | None:
    """Tokens that a model of this Hugging Face config can take; None where that is unknown or unlimited."""
    kind = config.get("model_type", "")
    if kind not in DEFAULTS:
        return None
    names = {ours: theirs for theirs, ours in ALIASES.get(kind, {}).items()}
    key = names.get("max_position_embeddings", "max_position_embeddings")
    total = config.get(key, config.get("max_position_embeddings", DEFAULTS[kind]["max_position_embeddings"]))
    if kind.startswith("deberta"):
        return None if not config.get("position_biased_input", True) else int(total)
    return int(total) - (2 if kind in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0)  # counted from padding


RULES: tuple[Callable[[RunConfig], Iterable[str]], ...] = (
    schedule_problems, _axes, _learning_rates, _batches, _teacher, _places, _data, _components, _length,
)  # fmt: skip
