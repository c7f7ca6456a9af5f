"""A BERT of some thousand weights with random inputs of several lengths, for methods that look at data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

from prunebench.sparsity.calibration import Calibration
from prunebench.targets import Target, find_targets

EXAMPLES, LENGTH, VOCABULARY, CLASSES = 24, 10, 50, 3


def make_model(seed: int = 0, layers: int = 2, hidden: int = 16) -> BertForSequenceClassification:
    """In eval mode, float32."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=2 * hidden, max_position_embeddings=LENGTH, num_labels=CLASSES, initializer_range=0.2,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


def make_calibration(
    model: torch.nn.Module, *, examples: int = EXAMPLES, batch_size: int = 4, seed: int = 0
) -> Calibration:
    """Random tokens and labels; sentences are 3 to 10 tokens long, the rest is padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (examples, LENGTH), generator=generator)
    lengths = torch.randint(3, LENGTH + 1, (examples,), generator=generator)
    mask = (torch.arange(LENGTH) < lengths[:, None]).long()
    labels = torch.randint(0, CLASSES, (examples,), generator=generator)

    def batch_of(indices: np.ndarray) -> Mapping[str, Tensor]:
        at = torch.as_tensor(indices)
        return {"input_ids": ids[at] * mask[at], "attention_mask": mask[at], "labels": labels[at]}

    def loss_of(batch: Mapping[str, Tensor]) -> Tensor:
        loss: Tensor = model(**batch).loss
        return loss

    return Calibration(model, np.arange(examples), lengths.numpy(), batch_size, batch_of, loss_of)


def encoder_targets(model: torch.nn.Module) -> list[Target]:
    return find_targets(model, ["encoder"])
