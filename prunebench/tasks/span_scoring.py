"""WinoGrande by the language-model head: which filling of the blank is more likely, word for word?

As fairseq's winogrande task and criterion (examples/roberta/wsc), which SMC-Bench uses: a filling's tokens are masked
in the sentence, and its score is the mean log-probability of them. With q the right filling's score and c the
other's, loss = -q + alpha * max(0, c - q + beta). Unlike there, a tie goes to the first filling, not to the right one,
so that a model that has collapsed scores as chance does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunebench.errors import UsageError
from prunebench.tasks.base import Heads
from prunebench.tasks.choices import Choices, read_blanks
from prunebench.tasks.encoding import Feature
from prunebench.tasks.multiple_choice import MultipleChoiceTask
from prunebench.tasks.tables import Table

UNSCORED = -100  # in `targets`: a token whose probability does not matter


class SpanScoringTask(MultipleChoiceTask):
    """The choices of a question are two sentences; `span_starts` and `span_ends` say which tokens are the filling."""

    head = "AutoModelForMaskedLM"
    settings = ("margin_alpha", "margin_beta")

    _mask_id: int

    def read(self, table: Table) -> Choices:
        return read_blanks(table)

    def sequences(self, data: Choices, tokenizer: Any) -> Iterator[Feature]:
        """The whole sentence with each of its fillings; where it is too long, first its end is cut, then its start."""
        for question, row in zip(data.questions, data.ids, strict=True):
            before = question.context.rstrip() + " " if question.context.strip() else ""
            for filling in question.choices:
                encoding = tokenizer(before + filling + question.rest, verbose=False).encodings[0]
                space = before[-1:] == " "  # in bytes and pieces it belongs to the word after it
                yield self._sequence(encoding, len(before) - space, len(before) + len(filling), row, tokenizer)

    def _sequence(self, encoding: Any, start: int, end: int, row: int, tokenizer: Any) -> Feature:
        """start, end: characters of the filling and the space before it."""
        inside = [i for i, (first, last) in enumerate(encoding.offsets) if first < end and last > start]
        if not inside:
            raise UsageError(f"dataset {self.dataset.name}, row {row + 1}: a filling of the blank has no tokens")
        span = inside[0], inside[-1] + 1
        kept = self._kept(np.asarray(encoding.special_tokens_mask, bool), span, row)
        columns = {"input_ids": encoding.ids, "token_type_ids": encoding.type_ids}
        ragged = {
            name: np.asarray(values, np.int32)[kept]
            for name, values in columns.items()
            if name in ("input_ids", *tokenizer.model_input_names)
        }
        moved = int((~kept[: span[0]]).sum())
        return ragged | {"cut": not kept.all(), "span_starts": span[0] - moved, "span_ends": span[1] - moved}

    def _kept(self, special: np.ndarray, span: tuple[int, int], row: int) -> np.ndarray:
        """(length,) which tokens stay."""
        kept = np.ones(len(special), bool)
        excess = len(special) - self.dataset.max_length
        if excess > 0:
            self.refuse_long(row, span[1] - span[0], self.dataset.max_length - int(special.sum()) - 1)
            tokens = np.flatnonzero(~special)
            after, before = tokens[tokens >= span[1]][::-1], tokens[tokens < span[0]]
            kept[np.concatenate([after, before])[:excess]] = False
        return kept

    def collate(self, features: Sequence[Feature], pad_to_multiple_of: int = 8) -> dict[str, Tensor]:
        """As for pairs, and `targets`, (B * C, L) int64: the masked tokens, UNSCORED elsewhere."""
        batch = super().collate(features, pad_to_multiple_of)
        starts, ends = (
            torch.from_numpy(np.concatenate([feature[name] for feature in features]))[:, None]
            for name in ("span_starts", "span_ends")
        )
        place = torch.arange(batch["input_ids"].shape[1])
        masked = (place >= starts) & (place < ends)
        targets = batch["input_ids"].masked_fill(~masked, UNSCORED)
        return batch | {"input_ids": batch["input_ids"].masked_fill(masked, self._mask_id), "targets": targets}

    def heads(self, outputs: Any, batch: Mapping[str, Tensor]) -> Heads:
        """{"logits": (B, C)}: the mean log-probability of each filling's tokens."""
        masked = batch["targets"] != UNSCORED
        log_p = outputs.logits[masked].float().log_softmax(-1)  # (tokens, vocabulary)
        scores = torch.zeros(masked.shape, device=log_p.device)
        scores = scores.masked_scatter(masked, log_p.gather(1, batch["targets"][masked][:, None]))
        return {"logits": (scores.sum(1) / masked.sum(1)).reshape(len(batch["labels"]), -1)}

    def loss(self, heads: Heads, batch: Mapping[str, Tensor]) -> Tensor:
        """The margin loss, averaged over the batch."""
        scores, label = heads["logits"], batch["labels"][:, None]
        right = scores.gather(1, label)
        margins = (scores - right + self.dataset.margin_beta).clamp(min=0).scatter(1, label, 0.0)
        return (self.dataset.margin_alpha * margins.sum(1) - right.squeeze(1)).mean()

    def _check_tokenizer(self, tokenizer: Any) -> None:
        super()._check_tokenizer(tokenizer)
        if tokenizer.mask_token_id is None:
            raise UsageError(
                f"dataset {self.dataset.name} masks tokens, and this tokenizer has no mask token: choose an encoder "
                "(BERT, RoBERTa, ...), or dataset=winogrande, which needs none"
            )
        if not tokenizer.is_fast:
            raise UsageError("span scoring needs a fast tokenizer, which knows the characters of its tokens")
        self._mask_id = int(tokenizer.mask_token_id)


TASK = SpanScoringTask
