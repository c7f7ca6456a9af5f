"""What tasks share whose model answers with a word for each of some tokens: logits where there are labels only.

All logits of a batch would be (B, L, V) numbers: 16 windows of 512 tokens and 50,257 words take 1.6 GB in float32,
several times over. Of a masked model 15 % of the tokens have a label, of a decoder's overlapping windows half.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunebench.slices import in_slices
from prunebench.tasks.base import Heads, Task

IGNORE = -100  # the label of tokens without one, as in transformers


class TokenTask(Task):
    """A task whose heads are {"logits": (N, V)} of the N labelled tokens of a batch."""

    keeps_logits = False  # vocabulary x tokens
    labels = None
    num_labels = 0  # the vocabulary's size belongs to the model

    def inputs(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """With the labels, from which a decoder's inputs follow; where they are IGNORE no logits are computed."""
        return super().inputs(batch) | {"labels": batch["labels"]}

    def heads(self, outputs: Any, batch: Mapping[str, Tensor]) -> Heads:
        return {"logits": label_logits(outputs, batch)}

    def loss(self, heads: Heads, batch: Mapping[str, Tensor]) -> Tensor:
        """Cross-entropy, the mean over the labelled tokens."""
        return mean_loss(heads["logits"], wanted(batch))


class _AtLabels:
    """Hooks that hand the output layer the hidden states of the labelled tokens only."""

    labelled: Tensor | None = None  # (B, L) bool; None: all tokens are answered, as in generation

    def begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        labels = kwargs.pop("labels", None)
        self.labelled = None if labels is None else labels != IGNORE
        if labels is not None and model.config.is_encoder_decoder:  # type: ignore[union-attr]
            kwargs["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels)  # type: ignore[operator]
        return args, kwargs

    def narrow(self, layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = args[0]
        return args if self.labelled is None else (hidden[self.labelled], *args[1:])


def answer_at_labels(model: Any) -> None:
    """From now on `model(**inputs, labels=...)` gives logits (N, V) for the N tokens whose label is not IGNORE.

    They come in the order of `labels[labels != IGNORE]`, and the model computes no loss of its own. An
    encoder-decoder is fed the labels one place to the right. Without labels nothing changes.
    """
    hooks = _AtLabels()
    model.register_forward_pre_hook(hooks.begin, with_kwargs=True)
    layer = model.get_output_embeddings()
    if layer is not None:  # else the logits of all tokens are computed, and `label_logits` chooses
        layer.register_forward_pre_hook(hooks.narrow)


def label_logits(outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """(N, V) float32, of the labelled tokens."""
    logits: Tensor = outputs.logits
    labels = batch["labels"]
    return (logits[labels != IGNORE] if logits.shape[:-1] == labels.shape else logits).float()


def wanted(batch: Mapping[str, Tensor]) -> Tensor:
    """(N,) the labels that there are."""
    labels = batch["labels"]
    return labels[labels != IGNORE]


def mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of (N, V) logits, a float32 scalar."""
    return torch.stack(in_slices(_summed, logits, labels)).sum() / len(labels)


def _summed(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="sum")


def token_scores(logits: Tensor, batch: Mapping[str, Tensor]) -> list[dict[str, np.ndarray]]:
    """For each example `nll`, the loss of each of its labelled tokens, and `hit`, whether the label scores highest."""
    labels = wanted(batch)
    nll = torch.cat(in_slices(_each, logits, labels)).float().cpu().numpy()
    hit = (logits.argmax(-1) == labels).cpu().numpy()
    ends = (batch["labels"] != IGNORE).sum(1).cumsum(0).tolist()[:-1]
    return [{"nll": n, "hit": h} for n, h in zip(np.split(nll, ends), np.split(hit, ends), strict=True)]


def _each(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")
