"""What a task family gives to the loop: encoded splits, batches, output heads, loss, predictions and scores."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunebench.config import DatasetConfig
from prunebench.errors import RunError, UsageError, did_you_mean
from prunebench.tasks.encoding import INPUTS, Columns, Encoded, Feature, cached, digest, tokenizer_identity
from prunebench.tasks.settings import check_metrics, choose
from prunebench.tasks.sources import Source, source_of
from prunebench.tasks.tables import Table

__all__ = ["Encoded", "Feature", "Heads", "Prediction", "Row", "Task", "load_task"]

SHOWN = 240  # characters of a text that predictions keep, for people
ENCODING = 1  # raise it when the same data and settings come to be encoded otherwise
NOT_TASKS = {
    "base", "encoding", "files", "labels", "metrics", "questions", "rows", "settings", "sources", "spans", "squad",
    "tables",
}  # fmt: skip

Heads = dict[str, Tensor]  # classification {"logits": (B, C)}; question answering {"start": (B, L), "end": (B, L)}
Row = dict[str, np.ndarray]  # one example's heads, unpadded, float32
Prediction = dict[str, Any]  # one example's line of predictions.jsonl


class Task(ABC):
    """A dataset and how a model learns and is judged on it.

    Nothing is read before it is needed: construction and `identity` are cheap; `labels`, `examples` and `encode`
    read the data, and raise UsageError (one line, with file and row) for what is wrong in them.

    Attributes:
        head: the AutoModel class.
        problem: "classification", "regression" or "question_answering".
        metrics: what is computed; `metric`, the first, is the primary score's name in the result.
        eval_splits: the first is the primary one; its scores have plain names.
    """

    head: str
    problem: str
    settings: tuple[str, ...]  # of DatasetConfig: those that change what is learned or how it is scored

    def __init__(self, dataset: DatasetConfig) -> None:
        self.dataset = dataset
        self.metrics, self.metric, self.higher_is_better = check_metrics(dataset, self.problem)
        self.eval_splits = ["holdout"] if dataset.holdout is not None else self.splits()
        self._tables: dict[str, Table] = {}
        self._examples: dict[str, Any] = {}
        self._encoded: dict[str, Encoded] = {}

    # where the data come from; a task that makes its own overrides these three

    def splits(self) -> list[str]:
        """Names of the validation splits."""
        return list(self._source.eval_splits)

    def raw(self, split: str) -> Table:
        """The rows of "train" or of one of `splits()`, before any is left out."""
        return self._source.read(split)

    def source_identity(self) -> dict[str, Any]:
        """What is read, by content and without folders."""
        read = ["train"] if self.dataset.holdout is not None else ["train", *self.eval_splits]
        return self._source.identity(read)

    @cached_property
    def _source(self) -> Source:
        return source_of(self.dataset)

    # what the data are

    def identity(self) -> dict[str, Any]:
        """What the data and the settings are, JSON-able, without folders: part of a run's digest. Cheap."""
        common = ("task", "max_length", "limit", "validation_limit", "holdout")
        values = {name: getattr(self.dataset, name) for name in (*common, *self.settings)}
        plain = {name: v if v is None or isinstance(v, str | int | float) else list(v) for name, v in values.items()}
        return {"source": self.source_identity(), "metrics": self.metrics, **plain}

    def table(self, split: str) -> Table:
        """`raw`, read once."""
        if split not in self._tables:
            self._tables[split] = self.raw(split)
        return self._tables[split]

    def examples(self, split: str) -> Any:
        """What `read` makes of the rows of "train" or of an eval split that are used, see `choose`."""
        if split not in self._examples:
            table = self.table("train" if split == "holdout" else split)
            self._examples[split] = self.read(table.take(choose(len(table), split, self.dataset)))
        return self._examples[split]

    @abstractmethod
    def read(self, table: Table) -> Any:
        """The examples in some rows, checked."""

    @property
    @abstractmethod
    def labels(self) -> list[str] | None:
        """Names in the order of their ids; None for regression and question answering."""

    @property
    @abstractmethod
    def num_labels(self) -> int:
        """Width of the model's head: classes, 1 for regression, 2 (start, end) for question answering."""

    @abstractmethod
    def content(self, split: str) -> Any:
        """JSON-able content of a split as the model is to see it; its hash goes into `Encoded.key`."""

    def fingerprint(self, split: str) -> str:
        """A hash of the examples used of a split and their right answers: scores on others are not compared."""
        return digest(self.content(split))[:16]

    @abstractmethod
    def tokenize(self, split: str, tokenizer: Any) -> tuple[np.ndarray, Columns]:
        """Bounds (n + 1,) and columns of a split, see `Encoded`."""

    def make_tokenizer(self) -> Any:
        """The tokenizer of a task that makes its own along with its text; None: the model's is used."""
        return None

    def encode(self, split: str, tokenizer: Any, cache_dir: str | Path) -> Encoded:
        """The tokenised `split` ("train" or one of `eval_splits`), from `<cache_dir>/tokenized` or newly made."""
        self._check_split(split)
        self._check_tokenizer(tokenizer)
        settings = {"max_length": self.dataset.max_length, "doc_stride": self.dataset.doc_stride}
        key = digest(
            [ENCODING, type(self).__name__, self.problem, settings, tokenizer_identity(tokenizer), self.content(split)]
        )
        folder = Path(cache_dir) / "tokenized" / f"{self.dataset.name}-{key[:16]}"
        self._encoded[split] = cached(folder, key, lambda: (*self.tokenize(split, tokenizer), pad_id(tokenizer)))
        return self._encoded[split]

    def encoded(self, split: str) -> Encoded:
        """What `encode` returned for `split`, which must have been called."""
        return self._encoded[split]

    # what a model does with them

    def collate(self, features: Sequence[Feature], pad_to_multiple_of: int = 8) -> dict[str, Tensor]:
        """A batch padded on the right to its longest example, rounded up (but never beyond max_length).

        Returns:
            input_ids, attention_mask and perhaps token_type_ids, (B, L) int64; labels, (B,) int64 or float32.
        """
        lengths = [len(feature["input_ids"]) for feature in features]
        longest = -(-max(lengths) // pad_to_multiple_of) * pad_to_multiple_of
        width = max(max(lengths), min(longest, self.dataset.max_length))
        batch = {"attention_mask": _pad([np.ones(length, np.int64) for length in lengths], width, 0)}
        for name in features[0]:
            values = [feature[name] for feature in features]
            if name in INPUTS:
                batch[name] = _pad(values, width, self._pad_id() if name == "input_ids" else 0)
            else:
                batch[name] = torch.from_numpy(np.asarray(values))
        return batch

    def inputs(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The part of a batch that goes into the model; without labels, so that it computes no loss of its own."""
        return {name: batch[name] for name in (*INPUTS, "attention_mask") if name in batch}

    @abstractmethod
    def heads(self, outputs: Any, batch: Mapping[str, Tensor]) -> Heads:
        """The model's output heads in float32, for the loss and for distillation; padding masked to -inf."""

    @abstractmethod
    def loss(self, heads: Heads, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean task loss over the batch (and over heads), a float32 scalar."""

    @abstractmethod
    def rows(self, heads: Heads, batch: Mapping[str, Tensor]) -> list[Row]:
        """The heads example by example, without padding, on the CPU; the evaluator collects them by index."""

    # how good that is

    @abstractmethod
    def predictions(self, split: str, collected: Sequence[Row]) -> list[Prediction]:
        """One JSON-able line per example of `split`, whose rows are in the order of `encode(split)`."""

    @abstractmethod
    def score(self, split: str, predictions: Sequence[Prediction]) -> dict[str, float]:
        """All scores of a split, finite. Those of further splits end in the split's name (accuracy_mismatched)."""

    # ------------------------------------------------------------------------------------------------------------

    def _pad_id(self) -> int:
        return next(iter(self._encoded.values())).pad_id if self._encoded else 0

    def _suffix(self, split: str) -> str:
        """ "" for the primary split, "_mismatched" for "validation_mismatched"."""
        return "" if split == self.eval_splits[0] else "_" + split.removeprefix("validation_")

    def _check_split(self, split: str) -> None:
        known = ["train", *self.eval_splits]
        if split not in known:
            raise UsageError(f"dataset {self.dataset.name} has no split '{split}' here: it has {', '.join(known)}")

    def _check_tokenizer(self, tokenizer: Any) -> None:
        pad_id(tokenizer)
        longest, asked = tokenizer.model_max_length, self.dataset.max_length
        if asked > longest:
            raise UsageError(
                f"dataset.max_length={asked}: the tokenizer's model takes at most {longest} tokens; "
                f"set dataset.max_length={longest} or less"
            )


def pad_id(tokenizer: Any) -> int:
    """The id that fills up batches: the padding token's, or for decoders without one that of the end of text."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise UsageError("the tokenizer has neither a padding nor an end-of-text token: choose another model.tokenizer")


def require_finite(outputs: np.ndarray, split: str) -> None:
    """Raises RunError: a diverged model has no predictions, and NaN is no JSON."""
    if not np.isfinite(outputs).all():
        raise RunError(
            f"the model's outputs on {split} are not finite numbers: training diverged; "
            "lower trainer.lr, or use trainer.precision=fp32"
        )


def _pad(rows: Sequence[np.ndarray], width: int, value: int) -> Tensor:
    padded = np.full((len(rows), width), value, dtype=np.int64)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return torch.from_numpy(padded)


def load_task(dataset: DatasetConfig, *, max_length: int | None = None) -> Task:
    """The task that `dataset.task` names: a module of this package with a class `TASK`.

    Raises:
        UsageError: no such task, or settings of the dataset that contradict each other.
    """
    modules = pkgutil.iter_modules([str(Path(__file__).parent)])
    families = [module.name for module in modules if module.name not in NOT_TASKS]
    if dataset.task not in families:
        hint = did_you_mean(dataset.task, families)
        raise UsageError(f"dataset.task={dataset.task} is unknown{hint}: it can be {', '.join(sorted(families))}")
    module = importlib.import_module(f"prunebench.tasks.{dataset.task}")
    task: Task = module.TASK(dataset if max_length is None else replace(dataset, max_length=max_length))
    return task
