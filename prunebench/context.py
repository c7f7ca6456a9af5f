"""What the stages of a run share, and how a config is settled: labels, tokenizer, identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from prunebench.config import RunConfig
from prunebench.devices import plain_attention_is_faster
from prunebench.digest import DENSE, dense_config, distils, needs_dense, prunes, run_digest
from prunebench.identity import model_identity
from prunebench.models import has_head, known_labels, load_model, load_tokenizer, outline_model
from prunebench.paths import RunFolder
from prunebench.progress import say
from prunebench.tasks.base import Task, load_task
from prunebench.tasks.encoding import tokenizer_identity
from prunebench.teacher import teacher_labels


@dataclass(frozen=True)
class Context:
    """One run: its settings, its data, and where it lives."""

    config: RunConfig
    task: Task
    folder: RunFolder
    digest: str
    precision: str
    tokenizer: Any
    accelerator: Accelerator
    dense: Mapping[str, Any] | None  # result of the dense run; None for a dense run itself
    group: str = ""  # see `Result`

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes the run's files."""
        return bool(self.accelerator.is_main_process)

    @property
    def dense_folder(self) -> RunFolder:
        assert self.dense is not None
        return RunFolder(Path(self.config.outputs) / DENSE / str(self.dense["digest"]))

    def load(self, name: str, labels: list[str] | None) -> Any:
        """The model `name` with a head for the task, whose outputs stand for `labels` in their order."""
        model = load_model(name, labels=labels, seed=self.config.seed, **head_settings(self.config, self.task, name))
        if plain_attention_is_faster(self.accelerator.device, self.precision, self.config.dataset.max_length):
            model.set_attn_implementation("eager")
        return model


def head_settings(config: RunConfig, task: Task, name: str) -> dict[str, Any]:
    """The arguments of `load_model` and `outline_model` that follow from config and task."""
    pretrained = name == config.model.name
    return {
        "head": task.head,
        "num_labels": task.num_labels,
        "revision": config.model.revision if pretrained else None,
        "config": config.model.config,
        "from_config": config.model.from_config and pretrained,
        "dropout": config.trainer.dropout if config.pruning.dropout is None else config.pruning.dropout,
        "problem": task.problem,
    }


def source_model(config: RunConfig) -> str:
    """The folder or hub name that the run, or its dense run, starts from."""
    return config.model.name if config.start in ("teacher", "pretrained") else config.start


def outline(config: RunConfig, task: Task) -> Any:
    """The model that will be pruned, without its weights: enough to know whether its matrices can be."""
    name = source_model(config)
    return outline_model(name, labels=task.labels, **head_settings(config, task, name))


def settle_labels(config: RunConfig) -> tuple[RunConfig, Task]:
    """The task, with its labels in the order of a fine-tuned model's head, if the run starts from one."""
    task = load_task(config.dataset)
    if config.start in ("teacher", "pretrained") or task.problem != "classification":
        return config, task
    order = teacher_labels(task, config.start)
    unnamed = known_labels(config.start, head=task.head) is None and has_head(config.start, task.head)
    if prunes(config) and unnamed and not all(label.isdigit() for label in task.labels or []):
        names = ", ".join(f"{index} = {label}" for index, label in enumerate(task.labels or []))
        say(f"{config.start} does not name its outputs: they are taken for {names} (dataset.labels=[...] changes that)")
    if order == task.labels:
        return config, task
    config = replace(config, dataset=replace(config.dataset, labels=order))
    return config, load_task(config.dataset)


def tokenizer_of(config: RunConfig, task: Task) -> Any:
    """The task's own tokenizer, else the one that is asked for, else the model's."""
    own = task.make_tokenizer()
    if own is not None:
        return own
    if config.model.tokenizer:
        return load_tokenizer(config.model.tokenizer)
    return load_tokenizer(source_model(config), config.model.revision)


def identify(config: RunConfig, task: Task, precision: str, tokenizer: Any) -> str:
    """The digest of a run, see `run_digest`."""
    return run_digest(
        config,
        model="new" if config.model.from_config else model_identity(source_model(config), config.model.revision),
        tokenizer=tokenizer_identity(tokenizer) if config.model.tokenizer else None,
        data=task.identity(),
        teacher=_teacher_identity(config, task, precision, tokenizer),
        precision=precision,
    )


def _teacher_identity(config: RunConfig, task: Task, precision: str, tokenizer: Any) -> str | None:
    if needs_dense(config):
        return identify(dense_config(config), task, precision, tokenizer)
    given = config.distillation.teacher
    return model_identity(given) if distils(config) and given not in ("auto", "none") else None
