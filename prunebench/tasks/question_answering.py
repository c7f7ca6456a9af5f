"""Extractive question answering in the form of SQuAD v1.1: the answer is a span of the context.

Long contexts are cut into windows that overlap; windows, labels and the search for the answer follow `transformers`'
examples/pytorch/question-answering (run_qa.py, utils_qa.py: postprocess_qa_predictions).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from prunebench.config import DatasetConfig
from prunebench.errors import UsageError, brief
from prunebench.tasks import squad
from prunebench.tasks.base import SHOWN, Heads, Prediction, Row, Task, require_finite
from prunebench.tasks.encoding import Columns
from prunebench.tasks.questions import Questions, read_questions
from prunebench.tasks.spans import best_span, token_span
from prunebench.tasks.tables import Table

HEADS = ("start", "end")
CHUNK = 500  # questions given to the tokenizer at once


class QuestionAnsweringTask(Task):
    """Start and end of the answer among a window's tokens; -inf at padding."""

    head = "AutoModelForQuestionAnswering"
    problem = "question_answering"
    labels = None
    num_labels = 2
    settings = ("doc_stride", "max_answer_length", "n_best")

    def __init__(self, dataset: DatasetConfig) -> None:
        super().__init__(dataset)
        if dataset.doc_stride >= dataset.max_length:
            raise UsageError(
                f"dataset.doc_stride={dataset.doc_stride}: neighbouring windows share so many tokens, so it must be "
                f"well below dataset.max_length={dataset.max_length}"
            )

    # from rows to windows

    def read(self, table: Table) -> Questions:
        return read_questions(table)

    def content(self, split: str) -> Any:
        data: Questions = self.examples(split)
        return [split == "train", data.questions, data.contexts, data.answers, data.starts]

    def tokenize(self, split: str, tokenizer: Any) -> tuple[np.ndarray, Columns]:
        """Beside the model's columns: `example`, each window's question, and for validation the characters that each
        token covers (`offset_start`, `offset_end`; -1 outside the context)."""
        if not tokenizer.is_fast:
            raise UsageError("question answering needs a fast tokenizer, which knows the characters of its tokens")
        data = self.examples(split)
        windows = [window for chunk in self._windows(data, tokenizer) for window in chunk]
        names = ["input_ids", *(["token_type_ids"] if "token_type_ids" in tokenizer.model_input_names else [])]
        names += [] if split == "train" else ["offset_start", "offset_end"]
        lengths = [len(window["input_ids"]) for window in windows]
        columns = {name: np.concatenate([window[name] for window in windows]) for name in names}
        for name, kind in (("start_positions", np.int64), ("end_positions", np.int64), ("example", np.int32)):
            columns[name] = np.asarray([window[name] for window in windows], dtype=kind)
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), columns

    def _windows(self, data: Questions, tokenizer: Any) -> Iterator[list[dict[str, Any]]]:
        for first in range(0, len(data.ids), CHUNK):
            part = slice(first, first + CHUNK)
            self._check_lengths(data.questions[part], data.ids[part], tokenizer)
            rows = tokenizer(
                data.questions[part],
                data.contexts[part],
                truncation="only_second",
                max_length=self.dataset.max_length,
                stride=self.dataset.doc_stride,
                return_overflowing_tokens=True,
            )
            yield [
                self._window(encoding, first + example, data, tokenizer.cls_token_id)
                for encoding, example in zip(rows.encodings, rows["overflow_to_sample_mapping"], strict=True)
            ]

    def _check_lengths(self, questions: list[str], ids: list[str], tokenizer: Any) -> None:
        """The tokenizer panics if a question leaves no room for a context window."""
        room = self.dataset.max_length - self.dataset.doc_stride - tokenizer.num_special_tokens_to_add(pair=True)
        for key, tokens in zip(ids, tokenizer(questions, add_special_tokens=False).input_ids, strict=True):
            if len(tokens) >= room:
                raise UsageError(
                    f"question {key} has {len(tokens)} tokens, which leaves no room for windows of "
                    f"dataset.max_length={self.dataset.max_length} that share dataset.doc_stride="
                    f"{self.dataset.doc_stride}: raise the one or lower the other"
                )

    def _window(self, encoding: Any, example: int, data: Questions, cls_id: int | None) -> dict[str, Any]:
        ids = np.asarray(encoding.ids, np.int32)
        offsets = np.asarray(encoding.offsets, np.int32)
        in_context = np.asarray([sequence == 1 for sequence in encoding.sequence_ids])
        offsets[~in_context] = -1
        cls = encoding.ids.index(cls_id) if cls_id in encoding.ids else 0  # decoders have none: the first token
        start, end = data.starts[example][0], data.starts[example][0] + len(data.answers[example][0])
        span = token_span(offsets, in_context, start, end)
        return {
            "input_ids": ids,
            "token_type_ids": np.asarray(encoding.type_ids, np.int32),
            "offset_start": offsets[:, 0],
            "offset_end": offsets[:, 1],
            "start_positions": span[0] if span else cls,
            "end_positions": span[1] if span else cls,
            "example": example,
        }

    # what a model does with them

    def heads(self, outputs: Any, batch: Mapping[str, Tensor]) -> Heads:
        """{"start": (B, L), "end": (B, L)}: padding can neither be chosen nor be distilled."""
        padding = batch["attention_mask"] == 0
        return {name: outputs[f"{name}_logits"].float().masked_fill(padding, float("-inf")) for name in HEADS}

    def loss(self, heads: Heads, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean over start and end of the cross-entropy over a window's tokens."""
        losses = [F.cross_entropy(heads[name], batch[f"{name}_positions"]) for name in HEADS]
        return (losses[0] + losses[1]) / 2

    def rows(self, heads: Heads, batch: Mapping[str, Tensor]) -> list[Row]:
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        arrays = {name: heads[name].detach().float().cpu().numpy() for name in HEADS}
        return [{name: array[i, :length].copy() for name, array in arrays.items()} for i, length in enumerate(lengths)]

    # how good that is

    def predictions(self, split: str, collected: Sequence[Row]) -> list[Prediction]:
        """id, text (the question), answers, prediction, score (start + end logit), exact_match and f1 in [0, 1]."""
        data, encoded = self.examples(split), self.encoded(split)
        best = [("", -np.inf)] * len(data.ids)
        for window, row in enumerate(collected):
            require_finite(np.stack([row[name] for name in HEADS]), split)
            example = int(encoded.columns["example"][window])
            offsets = encoded.ragged("offset_start", window), encoded.ragged("offset_end", window)
            found = best_span(row["start"], row["end"], *offsets, self.dataset.n_best, self.dataset.max_answer_length)
            if found is not None and found[2] > best[example][1]:
                best[example] = (data.contexts[example][found[0] : found[1]], found[2])
        lines = zip(data.ids, data.questions, data.answers, *zip(*best, strict=True), strict=True)
        return [_line(*line) for line in lines]

    def score(self, split: str, predictions: Sequence[Prediction]) -> dict[str, float]:
        """{"f1", "exact_match"} in percent."""
        from prunebench.tasks import metrics

        answers = [{"text": line["answers"], "answer_start": [0] * len(line["answers"])} for line in predictions]
        scores = metrics.compute(
            "squad",
            [{"id": str(i), "prediction_text": line["prediction"]} for i, line in enumerate(predictions)],
            [{"id": str(i), "answers": answer} for i, answer in enumerate(answers)],
        )
        return {name + self._suffix(split): scores[name] for name in self.metrics}


TASK = QuestionAnsweringTask


def _line(key: str, question: str, answers: list[str], prediction: str, score: float) -> Prediction:
    return {
        "id": key,
        "text": brief(question, SHOWN),
        "answers": answers,
        "prediction": prediction,
        "score": score if np.isfinite(score) else None,  # -inf: no span was possible
        "exact_match": squad.exact_match(prediction, answers),
        "f1": squad.f1(prediction, answers),
    }
