"""Multiple choice: one logit a choice, cross-entropy over the choices of a question.

As fairseq's sentence_ranking, which SMC-Bench uses (examples/roberta/commonsense_qa): context and choice are one
sequence, and a classification head with a single output gives its logit. That head is transformers'
...ForSequenceClassification with one label, which every family has. For RoBERTa it is the head that fairseq trains
(dense, tanh, projection); RobertaForMultipleChoice would put the base's pooler in its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prunebench.errors import UsageError
from prunebench.progress import say
from prunebench.tasks.base import Heads, Prediction, Row, Task, require_finite
from prunebench.tasks.choices import Choices, read_choices
from prunebench.tasks.encoding import INPUTS, Columns, Encoded, Feature
from prunebench.tasks.tables import Table

CHUNK = 500  # questions given to the tokenizer at once


class MultipleChoiceTask(Task):
    """One of the choices of each question is right. An example of `Encoded` is all sequences of a question."""

    head = "AutoModelForSequenceClassification"
    problem = "multiple_choice"
    labels = None
    num_labels = 1
    settings: tuple[str, ...] = ()

    # from rows to sequences

    def read(self, table: Table) -> Choices:
        return read_choices(table, self.dataset.choices)

    def content(self, split: str) -> Any:
        return [[q.context, q.choices, q.rest, q.answer] for q in self.examples(split).questions]

    def encode(self, split: str, tokenizer: Any, cache_dir: str | Path) -> Encoded:
        """As `Task.encode`; says how many contexts did not fit."""
        encoded = super().encode(split, tokenizer, cache_dir)
        cut = int(encoded.columns["cut"].sum())
        if cut:
            say(
                f"{self.dataset.name}, {split}: the context of {cut} of {len(encoded)} questions is cut, so that "
                f"context and choice fit into dataset.max_length={self.dataset.max_length} tokens"
            )
        return encoded

    def tokenize(self, split: str, tokenizer: Any) -> tuple[np.ndarray, Columns]:
        """Beside the model's columns: `choice_lengths` (n, C) in tokens, and `cut` (n,): was a context cut?"""
        data: Choices = self.examples(split)
        sequences = list(self.sequences(data, tokenizer))
        columns: dict[str, np.ndarray] = {}
        for name in sequences[0]:
            values = [sequence[name] for sequence in sequences]
            columns[name] = np.concatenate(values) if name in INPUTS else np.reshape(values, (-1, data.each))
        lengths = np.reshape([len(sequence["input_ids"]) for sequence in sequences], (-1, data.each))
        columns["choice_lengths"], columns["cut"] = lengths, np.any(columns["cut"], axis=1)
        columns["labels"] = np.asarray([question.answer for question in data.questions], np.int64)
        return np.concatenate([[0], np.cumsum(lengths.sum(axis=1))]).astype(np.int64), columns

    def sequences(self, data: Choices, tokenizer: Any) -> Iterator[Feature]:
        """What the model reads, choice by choice, and whether its context was `cut`: pairs of context and choice."""
        for start in range(0, len(data.questions), CHUNK):
            part = data.questions[start : start + CHUNK]
            pairs = [(question.context, choice) for question in part for choice in question.choices]
            rows = _tokenized(pairs, tokenizer)
            long = [i for i, ids in enumerate(rows["input_ids"]) if len(ids) > self.dataset.max_length]
            for i in long:
                self._require_room(pairs[i][1], data.ids[start + i // data.each], tokenizer)
            cut = _tokenized([pairs[i] for i in long], tokenizer, self.dataset.max_length)
            for place, i in enumerate(long):
                for name, values in cut.items():
                    rows[name][i] = values[place]
            is_cut = set(long)
            for i in range(len(pairs)):
                ragged = {name: np.asarray(values[i], np.int32) for name, values in rows.items()}
                yield ragged | {"cut": i in is_cut}

    def _require_room(self, choice: str, row: int, tokenizer: Any) -> None:
        """Nothing is ever cut from a choice, and something of the context must be left."""
        room = self.dataset.max_length - tokenizer.num_special_tokens_to_add(pair=True) - 1
        self.refuse_long(row, len(tokenizer(choice, add_special_tokens=False)["input_ids"]), room)

    def refuse_long(self, row: int, tokens: int, room: int) -> None:
        if tokens > room:
            raise UsageError(
                f"dataset {self.dataset.name}, row {row + 1}: a choice has {tokens} tokens, and at most {room} leave "
                f"room for a context in dataset.max_length={self.dataset.max_length}: raise it, or remove that row"
            )

    # what a model does with them

    def collate(self, features: Sequence[Feature], pad_to_multiple_of: int = 8) -> dict[str, Tensor]:
        """The C choices of each of B questions below each other.

        Returns:
            input_ids, attention_mask and perhaps token_type_ids, (B * C, L) int64; labels, (B,) int64.
        """
        parts = [part for feature in features for part in _parts(feature)]
        labels = torch.from_numpy(np.asarray([feature["labels"] for feature in features]))
        return super().collate(parts, pad_to_multiple_of) | {"labels": labels}

    def heads(self, outputs: Any, batch: Mapping[str, Tensor]) -> Heads:
        """{"logits": (B, C)}."""
        return {"logits": outputs.logits.float().reshape(len(batch["labels"]), -1)}

    def logits_each(self, data: Encoded) -> np.ndarray:
        return np.full(len(data), data.columns["choice_lengths"].shape[1])

    def loss(self, heads: Heads, batch: Mapping[str, Tensor]) -> Tensor:
        """Cross-entropy over the choices."""
        return F.cross_entropy(heads["logits"], batch["labels"])

    def rows(self, heads: Heads, batch: Mapping[str, Tensor]) -> list[Row]:
        return [{"logits": row} for row in heads["logits"].detach().float().cpu().numpy()]

    # how good that is

    def predictions(self, split: str, collected: Sequence[Row]) -> list[Prediction]:
        """id (row of the file, from 0), label, prediction (the data's names of choices), correct, and the scores."""
        data: Choices = self.examples(split)
        scores = np.stack([row["logits"] for row in collected])
        require_finite(scores, split)
        return [
            {
                "id": i,
                "label": question.names[question.answer],
                "prediction": question.names[best],
                "correct": best == question.answer,
                "scores": [round(float(value), 5) for value in row],
            }
            for i, question, row, best in zip(data.ids, data.questions, scores, scores.argmax(1).tolist(), strict=True)
        ]

    def score(self, split: str, predictions: Sequence[Prediction]) -> dict[str, float]:
        from prunebench.tasks import metrics

        pairs = zip(self.examples(split).questions, predictions, strict=True)
        predicted, expected = zip(
            *((list(q.names).index(line["prediction"]), q.answer) for q, line in pairs), strict=True
        )
        scores: dict[str, float] = {}
        for name in self.metrics:
            scores |= metrics.compute(name, list(predicted), list(expected))
        return {name + self._suffix(split): value for name, value in scores.items()}


TASK = MultipleChoiceTask


def _tokenized(pairs: list[tuple[str, str]], tokenizer: Any, longest: int | None = None) -> dict[str, list[list[int]]]:
    """The model's inputs for some pairs; those longer than `longest` tokens are cut in the first text."""
    if not pairs:
        return {}
    cutting = {"truncation": "only_first", "max_length": longest} if longest else {}
    rows = tokenizer(*map(list, zip(*pairs, strict=True)), return_attention_mask=False, verbose=False, **cutting)
    return {name: list(rows[name]) for name in INPUTS if name in rows}


def _parts(feature: Feature) -> Iterator[Feature]:
    """The sequences of a question, each as an example of its own."""
    ends = np.cumsum(feature["choice_lengths"])
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        yield {name: feature[name][start:end] for name in INPUTS if name in feature}
