"""From one text to another with an encoder-decoder: translation (BLEU, chrF), word problems (the equation's value).

SMC-Bench trains other models on these tasks (mBART for translation; GTS and Graph2Tree, which build expression trees,
for word problems), so what stands here is a substitute whose numbers never stand beside its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunebench.errors import UsageError
from prunebench.progress import say
from prunebench.tasks.base import Encoded, Heads, Prediction, Row, require_finite
from prunebench.tasks.encoding import Columns, bounds_of
from prunebench.tasks.equations import value_of
from prunebench.tasks.pairs import ANSWERS, Pairs, read_pairs
from prunebench.tasks.settings import SACREBLEU
from prunebench.tasks.tables import Table
from prunebench.tasks.tokens import IGNORE, TokenTask, answer_at_labels, token_scores

CHUNK = 2000  # texts given to the tokenizer at once
MULTIPLE = 8  # targets are padded to that


class SequenceToSequenceTask(TokenTask):
    """A target text for every source text; learned with teacher forcing, judged by greedy generation."""

    head = "AutoModelForSeq2SeqLM"
    problem = "sequence_to_sequence"
    settings = ("prefix", "text_columns", "label_column", "max_target_length", "header")

    # from rows to tokens

    def read(self, table: Table) -> Pairs:
        return read_pairs(table, self.dataset)

    def content(self, split: str) -> Any:
        pairs: Pairs = self.examples(split)
        return [self.dataset.prefix, self.dataset.max_target_length, pairs.sources, pairs.targets]

    def encode(self, split: str, tokenizer: Any, cache_dir: str | Path) -> Encoded:
        self._tokenizer = tokenizer
        return super().encode(split, tokenizer, cache_dir)

    def tokenize(self, split: str, tokenizer: Any) -> tuple[np.ndarray, Columns]:
        """Beside input_ids, all `target_ids` end to end, and `target_ends`, where each target ends."""
        from prunebench.models import quiet

        pairs, dataset = self.examples(split), self.dataset
        with quiet():  # longer than the model takes: cut and counted here
            sources, long_sources = _cut(
                lambda texts, **how: tokenizer([dataset.prefix + text for text in texts], **how).input_ids,
                pairs.sources,
                dataset.max_length,
            )
            targets, long_targets = _cut(
                lambda texts, **how: tokenizer(text_target=texts, **how).input_ids,
                pairs.targets,
                dataset.max_target_length,
            )
        if long_sources or long_targets:
            say(
                f"{split}: {long_sources:,} sources are cut (dataset.max_length={dataset.max_length}) and "
                f"{long_targets:,} targets (dataset.max_target_length={dataset.max_target_length})"
            )
        flat, ends = np.concatenate(targets), np.cumsum([len(target) for target in targets])
        return bounds_of(sources), {
            "input_ids": np.concatenate(sources).astype(np.int32),
            "target_ids": flat.astype(np.int32),
            "target_ends": ends.astype(np.int64),
        }

    # what a model does with them

    def prepare(self, model: Any) -> None:
        if getattr(model.config, "decoder_start_token_id", None) is None:
            raise UsageError(
                f"dataset {self.dataset.name}: the model's config names no decoder_start_token_id, with which targets "
                "begin: add it to its config.json"
            )
        answer_at_labels(model)

    def batch(
        self, data: Encoded, indices: Sequence[int] | np.ndarray, draw: tuple[int, int] | None = None
    ) -> dict[str, Tensor]:
        """input_ids, attention_mask (B, L); labels, IGNORE where nothing is asked, and decoder_attention_mask (B, T).

        T is never L, so that what a layer is given tells by its shape which of the two masks holds for it.
        """
        batch = self.collate(data.batch(indices))
        targets = [_target(data, int(index)) for index in indices]
        width = -(-max(map(len, targets)) // MULTIPLE) * MULTIPLE
        width += MULTIPLE if width == batch["input_ids"].shape[1] else 0
        labels = torch.full((len(targets), width), IGNORE)
        for row, target in enumerate(targets):
            labels[row, : len(target)] = torch.from_numpy(target.astype(np.int64))
        return batch | {"labels": labels, "decoder_attention_mask": (labels != IGNORE).long()}

    def amounts(self, data: Encoded, indices: np.ndarray) -> np.ndarray:
        """The loss is the mean over tokens."""
        lengths: np.ndarray = np.diff(data.columns["target_ends"], prepend=0)[indices]
        return lengths

    def answer(self, model: Any, batch: Mapping[str, Tensor]) -> list[Row]:
        """The losses of the target's tokens, and `generated`: what the model writes by itself, greedily."""
        from prunebench.models import quiet

        rows = super().answer(model, batch)
        with quiet():  # it would tell which of the model's own settings are not used
            generated = model.generate(
                **super().inputs(batch), do_sample=False, num_beams=1, max_new_tokens=self.dataset.max_target_length
            )
        return [row | {"generated": ids} for row, ids in zip(rows, generated.cpu().numpy(), strict=True)]

    def rows(self, heads: Heads, batch: Mapping[str, Tensor]) -> list[Row]:
        return token_scores(heads["logits"], batch)

    # how good that is

    def predictions(self, split: str, collected: Sequence[Row]) -> list[Prediction]:
        """id (row, from 0), target, prediction, loss (a token of the target), and correct where values are compared."""
        for row in collected:
            require_finite(row["nll"], split)
        pairs: Pairs = self.examples(split)
        texts = self._tokenizer.batch_decode([row["generated"] for row in collected], skip_special_tokens=True)
        lines = [
            {"id": i, "target": target, "prediction": text.strip(), "loss": float(row["nll"].mean(dtype=np.float64))}
            for i, target, text, row in zip(pairs.ids, pairs.targets, texts, collected, strict=True)
        ]
        if ANSWERS in self.metrics:
            for line in lines:
                line["correct"] = value_of(line["prediction"]) == value_of(line["target"])
        return lines

    def score(self, split: str, predictions: Sequence[Prediction]) -> dict[str, float]:
        """BLEU and chrF in 0..100, answer_accuracy in 0..1: the share of equations with the value of the target."""
        from prunebench.tasks import metrics

        texts, targets = [[line[key] for line in predictions] for key in ("prediction", "target")]
        scores: dict[str, float] = {}
        for name in self.metrics:
            if name == ANSWERS:
                scores[name] = sum(line["correct"] for line in predictions) / len(predictions)
            else:
                scores |= metrics.compute(name, texts, targets)
        return {name + self._suffix(split): value for name, value in scores.items()}

    def signatures(self) -> dict[str, str]:
        from prunebench.tasks import metrics

        return {name: metrics.signature(name) for name in self.metrics if name in SACREBLEU}


TASK = SequenceToSequenceTask


def _target(data: Encoded, index: int) -> np.ndarray:
    ends = data.columns["target_ends"]
    row: np.ndarray = data.columns["target_ids"][ends[index - 1] if index else 0 : ends[index]]
    return row


def _cut(encode: Any, texts: list[str], length: int) -> tuple[list[list[int]], int]:
    """The texts' tokens, at most `length` of each, and how many texts were longer."""
    rows: list[list[int]] = []
    for start in range(0, len(texts), CHUNK):
        rows += encode(texts[start : start + CHUNK])
    long = [i for i, row in enumerate(rows) if len(row) > length]
    if long:
        cut = encode([texts[i] for i in long], truncation=True, max_length=length)
        for i, row in zip(long, cut, strict=True):
            rows[i] = row
    return rows, len(long)
