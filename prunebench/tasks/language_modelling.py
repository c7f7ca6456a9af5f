"""Language modelling: the next word (decoders), or words that were masked (encoders), and perplexity.

A text is tokenised as a whole and cut into windows of max_length tokens. Causal perplexity follows transformers'
"Perplexity of fixed-length models": windows advance by `stride`, and every token is scored once, by the window that
shows it the most text before it; the text's first token has none. A masked model has no perplexity in that sense, and
masking every token by itself (pseudo-perplexity) takes a pass a token; what is given is exp of the mean loss on 15 % of
the tokens, which are always the same for a tokenizer, under the name `masked_perplexity`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunebench.config import DatasetConfig
from prunebench.errors import RunError, UsageError
from prunebench.progress import say
from prunebench.tasks.base import Encoded, Heads, Prediction, Row, require_finite
from prunebench.tasks.encoding import Columns
from prunebench.tasks.settings import choose
from prunebench.tasks.tables import Table
from prunebench.tasks.texts import read_texts, too_short
from prunebench.tasks.tokens import IGNORE, TokenTask, answer_at_labels, token_scores

SHARE = 0.15  # of the tokens, to be found by a masked model: Devlin et al. 2019
MASKED, RANDOM = 0.8, 0.1  # of those: replaced by the mask, by any word; the rest stay
TRAINING = ("train", "holdout")  # of one text, cut alike, or the one would hold windows of the other
ROWS = 5_000  # of training text tokenised as one; the text that is scored is tokenised whole


class LanguageModellingTask(TokenTask):
    """Windows of text. Scored are, causal, the tokens from `scored_from` on; masked, 15 % of them."""

    settings = ("objective", "stride", "separator", "text_columns", "header")

    def __init__(self, dataset: DatasetConfig) -> None:
        if dataset.objective == "auto":
            raise UsageError("dataset.objective=auto: the model decides, see context.settle_objective")
        self.masked = dataset.objective == "masked"
        self.head = "AutoModelForMaskedLM" if self.masked else "AutoModelForCausalLM"
        self.problem = f"{dataset.objective}_language_modelling"
        super().__init__(dataset)
        self._mask_id, self._words, self._special = 0, 0, np.empty(0, np.int64)

    # from text to windows

    def examples(self, split: str) -> list[str]:
        """The texts of all rows: which windows are used is chosen when there are windows."""
        if split not in self._examples:
            self._examples[split] = self.read(self.table("train" if split == "holdout" else split))
        texts: list[str] = self._examples[split]
        return texts

    def read(self, table: Table) -> list[str]:
        return read_texts(table, self.dataset)

    def content(self, split: str) -> Any:
        dataset = self.dataset
        chosen = dataset.holdout, dataset.limit if split == "train" else dataset.validation_limit
        return [split, self.examples(split), dataset.separator, dataset.stride, chosen]

    def encode(self, split: str, tokenizer: Any, cache_dir: str | Path) -> Encoded:
        if self.masked:
            if tokenizer.mask_token_id is None:
                raise UsageError(
                    "dataset.objective=masked: the tokenizer has no mask token: choose another model, or causal"
                )
            self._mask_id, self._words = tokenizer.mask_token_id, len(tokenizer)
            self._special = np.asarray(sorted({*tokenizer.all_special_ids} - {tokenizer.unk_token_id}))
        return super().encode(split, tokenizer, cache_dir)

    def tokenize(self, split: str, tokenizer: Any) -> tuple[np.ndarray, Columns]:
        """Beside input_ids, `scored_from`: the first token of a window that is scored, or learned from."""
        before, after = _around(tokenizer) if self.masked else ([], [])
        ids = self._ids(split, tokenizer)
        length = self.dataset.max_length - len(before) - len(after)
        training = split in TRAINING
        if len(ids) < (length if training else 2):
            found = f"dataset {self.dataset.name}, {split}: the text has {len(ids)} tokens"
            raise UsageError(too_short(found, self.dataset.max_length))
        spans = self._spans(len(ids), length, training)
        if length > len(ids) - spans[-1][0] and not training:
            say(f"{split}: {len(spans):,} windows, of which the last has {len(ids) - spans[-1][0]} of {length} tokens")
        elif split == "train" and len(ids) % length:
            say(f"{split}: {len(spans):,} windows; {len(ids) % length} tokens at the end fill none and are left out")
        spans = [spans[index] for index in choose(len(spans), split, self.dataset)]
        windows = [np.concatenate([before, ids[start:stop], after]).astype(np.int32) for start, stop, _ in spans]
        scored = np.asarray([first for _, _, first in spans], np.int32)
        bounds = np.concatenate([[0], np.cumsum([len(window) for window in windows])]).astype(np.int64)
        return bounds, {"input_ids": np.concatenate(windows), "scored_from": scored}

    def _spans(self, total: int, length: int, training: bool) -> list[tuple[int, int, int]]:
        """(start, stop, first scored token of the window) of each window of a text of `total` tokens."""
        if training or self.masked:
            starts = range(0, total - length + 1 if training else total, length)
            return [(start, min(start + length, total), 1) for start in starts]
        stride = self.dataset.stride or max(1, length // 2)
        number = 1 + max(0, -(-(total - length) // stride))
        starts = range(0, number * stride, stride)
        spans, done = [], 1  # the first token has nothing before it
        for start in starts:
            stop = min(start + length, total)
            spans.append((start, stop, max(done - start, 1)))
            done = stop
        return spans

    def _ids(self, split: str, tokenizer: Any) -> np.ndarray:
        """The text's tokens: with what the tokenizer begins a text with (causal), or alone (masked)."""
        from prunebench.models import quiet

        texts, separator = self.examples(split), self.dataset.separator
        with quiet():  # longer than the model takes: it is cut here
            if separator is None:
                return self._documents(texts, tokenizer)
            size = ROWS if split in TRAINING else len(texts)
            parts = [separator.join(texts[start : start + size]) for start in range(0, len(texts), size)]
            pieces = [part + separator for part in parts[:-1]] + parts[-1:]
            rows = [
                tokenizer(piece, add_special_tokens=not self.masked and not i).input_ids
                for i, piece in enumerate(pieces)
            ]
        return np.concatenate([np.asarray(row, np.int32) for row in rows])

    def _documents(self, texts: list[str], tokenizer: Any) -> np.ndarray:
        """Every row ends with the token for that."""
        end = tokenizer.sep_token_id if self.masked else tokenizer.eos_token_id
        if end is None:
            raise UsageError("dataset.separator=null: the tokenizer has no token that ends a text: give a text instead")
        rows = tokenizer([text for text in texts if text.strip()], add_special_tokens=False).input_ids
        return np.concatenate([np.asarray([*row, end], np.int32) for row in rows if row])

    # what a model does with them

    def prepare(self, model: Any) -> None:
        answer_at_labels(model)

    def batch(
        self, data: Encoded, indices: Sequence[int] | np.ndarray, draw: tuple[int, int] | None = None
    ) -> dict[str, Tensor]:
        """input_ids, attention_mask and labels, each (B, L) int64, the latter IGNORE where nothing is asked.

        The masks of an example depend on (seed, step, example) in training, and else on the example alone.
        """
        batch = self.collate(data.batch(indices))
        labels = np.full(tuple(batch["input_ids"].shape), IGNORE, np.int64)
        for row, index in enumerate(indices):
            ids = data.ragged("input_ids", int(index))
            if self.masked:
                places, shown = self._mask(ids, [*(draw or (0, 0)), int(index)])
                labels[row, places] = ids[places]
                batch["input_ids"][row, torch.from_numpy(places)] = torch.from_numpy(shown)
            else:
                first = int(data.columns["scored_from"][index])
                labels[row, first - 1 : len(ids) - 1] = ids[first:]
        return batch | {"labels": torch.from_numpy(labels)}

    def _mask(self, ids: np.ndarray, seed: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Places of the tokens to be found, always 15 % of a window as in BERT's own code, and what stands there."""
        random = np.random.default_rng(seed)
        there = np.flatnonzero(~np.isin(ids, self._special))
        places = random.permutation(there)[: max(1, round(SHARE * len(ids)))]
        fate, words = random.random(len(places)), random.integers(self._words, size=len(places))
        kept = np.where(fate < MASKED + RANDOM, words, ids[places])
        return places, np.where(fate < MASKED, self._mask_id, kept)

    def amounts(self, data: Encoded, indices: np.ndarray) -> np.ndarray:
        """The loss is the mean over tokens, and a window's share of them the same for all."""
        lengths: np.ndarray = data.lengths[indices]
        return lengths

    def rows(self, heads: Heads, batch: Mapping[str, Tensor]) -> list[Row]:
        return token_scores(heads["logits"], batch)

    # how good that is

    def predictions(self, split: str, collected: Sequence[Row]) -> list[Prediction]:
        """A line a window: its number, scored tokens, the sum of their losses, and how many scored highest."""
        for row in collected:
            require_finite(row["nll"], split)
        return [
            {"id": i, "tokens": len(row["nll"]), "nll": float(row["nll"].sum(dtype=np.float64)),
             "correct": int(row["hit"].sum())}
            for i, row in enumerate(collected)
        ]  # fmt: skip

    def score(self, split: str, predictions: Sequence[Prediction]) -> dict[str, float]:
        tokens = sum(line["tokens"] for line in predictions)
        mean = math.fsum(line["nll"] for line in predictions) / tokens
        if mean > 700:
            raise RunError(f"the mean loss on {split} is {mean:.4g}, whose perplexity is no number: training diverged")
        known = {"perplexity": math.exp(mean), "masked_perplexity": math.exp(mean)}
        known["masked_accuracy"] = sum(line["correct"] for line in predictions) / tokens
        return {name + self._suffix(split): known[name] for name in self.metrics}


TASK = LanguageModellingTask


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after a text: [CLS] and [SEP]."""
    alone, whole = (tokenizer("a", add_special_tokens=special).input_ids for special in (False, True))
    places = [i for i in range(len(whole)) if whole[i : i + len(alone)] == alone]
    at = places[0] if places else len(whole)
    return whole[:at], whole[at + len(alone) :]
