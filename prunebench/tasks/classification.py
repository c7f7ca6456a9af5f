"""Classification and regression of one text or of two: GLUE's nine, and any set of that form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from prunebench.config import DatasetConfig
from prunebench.errors import UsageError, brief
from prunebench.tasks.base import SHOWN, Heads, Prediction, Row, Task, require_finite
from prunebench.tasks.encoding import Columns, bounds_of, digest
from prunebench.tasks.labels import label_names
from prunebench.tasks.rows import read_rows
from prunebench.tasks.tables import Table

CHUNK = 2000  # texts given to the tokenizer at once


@dataclass
class Examples:
    """One split: `texts` holds one or two columns of n texts, `labels` n ids or values, `ids` n row numbers."""

    texts: list[list[str]]
    labels: list[int] | list[float]
    ids: list[int]


class ClassificationTask(Task):
    """A label, or a number (regression), for every text or pair of texts.

    A subclass with data of its own overrides `splits`, `raw` and `source_identity`.
    """

    head = "AutoModelForSequenceClassification"
    settings = ("header", "text_columns", "label_column", "labels", "regression")

    def __init__(self, dataset: DatasetConfig) -> None:
        self.problem = "regression" if dataset.regression else "classification"
        super().__init__(dataset)
        if dataset.regression and dataset.labels:
            raise UsageError("dataset.regression=true and dataset.labels exclude each other: set labels to null")
        if len(dataset.text_columns) > 2:
            raise UsageError(f"dataset.text_columns={list(dataset.text_columns)}: give one column, or two for pairs")

    @cached_property
    def labels(self) -> list[str] | None:
        if self.dataset.regression:
            return None
        if self.dataset.labels is not None:
            return _distinct(list(self.dataset.labels))
        return label_names(self.table("train"), self.dataset.label_column)

    @property
    def num_labels(self) -> int:
        return 1 if self.labels is None else len(self.labels)

    def read(self, table: Table) -> Examples:
        texts, labels = read_rows(table, self.dataset, self.labels)
        return Examples(texts, labels, [table.position(row) for row in range(len(table))])

    def content(self, split: str) -> Any:
        examples = self.examples(split)
        return [examples.texts, examples.labels, self.labels]

    def fingerprint(self, split: str) -> str:
        """By the labels' names: a fine-tuned model may have them in another order."""
        examples, names = self.examples(split), self.labels
        return digest([examples.texts, [names[int(i)] for i in examples.labels] if names else examples.labels])[:16]

    def tokenize(self, split: str, tokenizer: Any) -> tuple[np.ndarray, Columns]:
        examples = self.examples(split)
        names = [
            name for name in ("input_ids", "token_type_ids") if name in ("input_ids", *tokenizer.model_input_names)
        ]
        parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        lengths: list[np.ndarray] = []
        for start in range(0, len(examples.ids), CHUNK):
            texts = [column[start : start + CHUNK] for column in examples.texts]
            rows = tokenizer(*texts, truncation=True, max_length=self.dataset.max_length, return_attention_mask=False)
            lengths.append(np.diff(bounds_of(rows["input_ids"])))
            for name in names:
                parts[name].append(np.concatenate([np.asarray(row, np.int32) for row in rows[name]]))
        bounds = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
        self._refuse_empty(split, bounds)
        columns = {name: np.concatenate(part) for name, part in parts.items()}
        dtype = np.float32 if self.labels is None else np.int64
        return bounds, columns | {"labels": np.asarray(examples.labels, dtype)}

    def _refuse_empty(self, split: str, bounds: np.ndarray) -> None:
        empty = np.flatnonzero(np.diff(bounds) == 0)
        if len(empty):
            row = self.examples(split).ids[empty[0]] + 1
            raise UsageError(
                f"dataset {self.dataset.name}, {split}, row {row}: the text has no tokens: remove that row"
            )

    # what a model does with them

    def heads(self, outputs: Any, batch: Mapping[str, Tensor]) -> Heads:
        """{"logits": (B, num_labels)}."""
        return {"logits": outputs.logits.float()}

    def loss(self, heads: Heads, batch: Mapping[str, Tensor]) -> Tensor:
        """Cross-entropy, or for regression the mean squared error."""
        if self.problem == "regression":
            return F.mse_loss(heads["logits"].squeeze(-1), batch["labels"])
        return F.cross_entropy(heads["logits"], batch["labels"])

    def rows(self, heads: Heads, batch: Mapping[str, Tensor]) -> list[Row]:
        return [{"logits": row} for row in heads["logits"].detach().float().cpu().numpy()]

    # how good that is

    def predictions(self, split: str, collected: Sequence[Row]) -> list[Prediction]:
        """id (row of the file, from 0), text (cut), label, prediction, and logits and correct, or for numbers error."""
        examples = self.examples(split)
        logits = np.stack([row["logits"] for row in collected])
        require_finite(logits, split)
        return [
            {"id": i, "text": " / ".join(brief(text, SHOWN) for text in texts), **self._prediction(label, row)}
            for i, texts, label, row in zip(
                examples.ids, zip(*examples.texts, strict=True), examples.labels, logits, strict=True
            )
        ]

    def _prediction(self, label: float, logits: np.ndarray) -> Prediction:
        if self.labels is None:
            value = float(logits[0])
            return {"label": label, "prediction": value, "error": value - label}
        best = int(logits.argmax())
        return {
            "label": self.labels[int(label)],
            "prediction": self.labels[best],
            "correct": best == label,
            "logits": [round(float(value), 5) for value in logits],
        }

    def score(self, split: str, predictions: Sequence[Prediction]) -> dict[str, float]:
        from prunebench.tasks import metrics

        ids = {name: i for i, name in enumerate(self.labels or [])}
        predicted, expected = (
            [ids[line[key]] if ids else line[key] for line in predictions] for key in ("prediction", "label")
        )
        scores: dict[str, float] = {}
        for name in self.metrics:
            settings = {"average": "macro"} if name == "f1" and self.num_labels > 2 else {}
            scores |= metrics.compute(name, predicted, expected, **settings)
        return {name + self._suffix(split): value for name, value in scores.items()}


TASK = ClassificationTask


def _distinct(labels: list[str]) -> list[str]:
    if len(set(labels)) < len(labels) or len(labels) < 2:
        raise UsageError(f"dataset.labels={labels}: give at least two different names, or null to read them")
    return labels
