"""The teacher at work: its heads for the training examples, kept on disk where possible, else computed each time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunebench.distill import LogitCache, Rows, auto_temperature, cached_logits
from prunebench.errors import UsageError
from prunebench.evaluate import Autocast, collect_rows
from prunebench.models import has_head, known_labels, layer_sizes, load_tokenizer
from prunebench.progress import counting, say
from prunebench.report import size
from prunebench.tasks.base import Encoded, Heads, Task, require_finite
from prunebench.tasks.encoding import tokenizer_identity

TEMPERATURE_SAMPLE = 1000  # examples from which temperature=auto is found


@dataclass
class CachedTeacher:
    """Reads what was computed once. Data are fixed and the teacher is in eval mode, so nothing is lost by it."""

    logits: LogitCache

    def __call__(self, indices: np.ndarray, batch: Mapping[str, Tensor], student: Heads) -> Heads:
        return self.logits.batch([int(index) for index in indices], student)


@dataclass
class OnlineTeacher:
    """Runs the frozen teacher on every batch."""

    model: nn.Module
    task: Task
    columns: list[int] | None
    autocast: Autocast

    def __call__(self, indices: np.ndarray, batch: Mapping[str, Tensor], student: Heads) -> Heads:
        with torch.no_grad(), self.autocast():
            heads = self.task.heads(self.model(**self.task.inputs(batch)), batch)
        return {head: values if self.columns is None else values[:, self.columns] for head, values in heads.items()}


@dataclass
class HiddenStates:
    """Runs the frozen teacher on every batch for the outputs of its layers, which are too many to keep on disk."""

    model: nn.Module
    task: Task
    autocast: Autocast

    def __call__(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """(B, L, H) for each layer, the embeddings' output left out."""
        with torch.no_grad(), self.autocast():
            return layer_outputs(self.model(**self.task.inputs(batch), output_hidden_states=True))


def layer_outputs(outputs: Any) -> tuple[Tensor, ...]:
    """What the layers of a model gave, from a call with output_hidden_states; of encoder-decoders, the decoder's."""
    states = outputs.get("hidden_states")
    return tuple((outputs["decoder_hidden_states"] if states is None else states)[1:])


@dataclass
class TeacherSource:
    """Where a teacher comes from and what is needed to run it."""

    load: Callable[[], nn.Module]
    columns: list[int] | None  # teacher's column for each of the student's labels; None: the same order
    task: Task
    data: Encoded
    device: torch.device
    autocast: Autocast
    batch_size: int

    def rows(self, indices: np.ndarray | None = None) -> list[Rows]:
        """The teacher's heads of the training examples, in their order."""
        model = self.load().to(self.device)
        total = len(self.data) if indices is None else len(indices)
        with counting("teacher's logits", total) as count:
            rows = collect_rows(
                model,
                self.task,
                self.data,
                batch_size=self.batch_size,
                device=self.device,
                autocast=self.autocast,
                indices=indices,
                on_batch=count,
            )
        for row in rows.values():
            for values in row.values():
                require_finite(values, "the training examples (the teacher's)")
        return [{head: self._ordered(values) for head, values in rows[index].items()} for index in sorted(rows)]

    def _ordered(self, values: np.ndarray) -> np.ndarray:
        return values if self.columns is None else values[self.columns]

    def logit_bytes(self) -> int:
        """Size of all logits in float32."""
        return 4 * int(self.task.logits_each(self.data).sum())

    def online(self) -> OnlineTeacher:
        return OnlineTeacher(self.load().to(self.device).eval(), self.task, self.columns, self.autocast)

    def hidden(self) -> HiddenStates:
        return HiddenStates(self.load().to(self.device).eval(), self.task, self.autocast)


def make_teacher(
    source: TeacherSource, cache: Path, budget_bytes: float, temperature: float | str
) -> tuple[CachedTeacher | OnlineTeacher, float]:
    """The teacher and the temperature to distil with; `cache` is the folder that holds or will hold its logits."""
    if not source.task.keeps_logits:
        return _over_a_vocabulary(source), float(temperature)
    if source.logit_bytes() <= budget_bytes:
        logits = cached_logits(cache, source.rows)
        sample = (
            {head: logits.row(head, index) for head in logits.heads} for index in sample_indices(len(source.data))
        )
        return CachedTeacher(logits), auto_temperature(sample) if temperature == "auto" else float(temperature)
    if temperature == "auto":
        temperature = auto_temperature(source.rows(sample_indices(len(source.data))))
    return source.online(), float(temperature)


def _over_a_vocabulary(source: TeacherSource) -> OnlineTeacher:
    """Online, whatever the size: masks change from step to step, and a text's answers seldom fit on a disk."""
    teacher = source.online()
    tokens = int(source.task.amounts(source.data, np.arange(len(source.data))).sum())
    words = int(teacher.model.config.vocab_size)  # type: ignore[union-attr, arg-type]
    needed = size(4 * tokens * words)
    say(f"the teacher runs at every step: its answers are not kept ({words:,} for each of {tokens:,} tokens: {needed})")
    return teacher


def sample_indices(examples: int) -> np.ndarray:
    """Evenly spread over the training examples, the same for everyone."""
    return np.unique(np.linspace(0, examples - 1, min(examples, TEMPERATURE_SAMPLE)).astype(int))


def label_columns(ours: Sequence[str] | None, theirs: Sequence[str] | None) -> list[int] | None:
    """For each of the student's labels the teacher's column; None where the order is the same.

    `theirs` are the same names in the teacher's order, see `label_order`.
    """
    if ours is None or theirs is None or list(ours) == list(theirs):
        return None
    return [list(theirs).index(label) for label in ours]


def label_order(ours: Sequence[str], theirs: Sequence[str] | None, model: str) -> list[str]:
    """The dataset's label names in the order of a fine-tuned model's, which may be unnamed or differ in case.

    Raises:
        UsageError: the two name different labels.
    """
    if theirs is None or (len(ours) == len(theirs) and all(label.isdigit() for label in ours)):
        return list(ours)
    by_name = {label.casefold(): label for label in ours}
    if sorted(by_name) != sorted(label.casefold() for label in theirs):
        raise UsageError(
            f"{model} was tuned for the labels {', '.join(theirs)}, but the dataset has {', '.join(ours)}: "
            "rename the labels of one of them, or use start=pretrained"
        )
    return [by_name[label.casefold()] for label in theirs]


def teacher_labels(task: Task, teacher: str) -> list[str] | None:
    """The task's labels in the order of the head of `teacher`, a folder or hub name."""
    if task.problem != "classification":
        return task.labels
    return label_order(task.labels or [], known_labels(teacher, head=task.head), teacher)


def check_layers(student: str, teacher: str) -> None:
    """Refuses (UsageError) a teacher whose layers' outputs cannot be compared with the student's one by one."""
    ours, theirs = layer_sizes(student), layer_sizes(teacher)
    if ours != theirs:
        raise UsageError(
            f"distillation.hidden: distillation.teacher={teacher} has {theirs[0]} layers of width {theirs[1]}, "
            f"the student {ours[0]} of {ours[1]}: use distillation.teacher=auto, or distillation.hidden=none"
        )


def check_teacher(task: Task, teacher: str, tokenizer: Any) -> None:
    """Refuses a teacher without a head for the task, with another tokenizer than the student or with other labels.

    Raises:
        UsageError: it does.
    """
    if not has_head(teacher, task.head):
        raise UsageError(
            f"distillation.teacher={teacher} has no head for this task: give a fine-tuned model, or "
            "distillation.teacher=auto"
        )
    if tokenizer_identity(load_tokenizer(teacher)) != tokenizer_identity(tokenizer):
        raise UsageError(
            f"distillation.teacher={teacher} has another tokenizer than the student: their logits are not for the "
            "same tokens; choose a teacher of the same family, or distillation.teacher=auto"
        )
    teacher_labels(task, teacher)
