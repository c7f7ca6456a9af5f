"""A BERT of some thousand weights, its tokenizer, and data that it can learn in a second; made anew in each folder."""

from __future__ import annotations

import csv
import random
from copy import deepcopy
from pathlib import Path
from typing import Any

from prunebench.config import (
    DatasetConfig,
    DistillationConfig,
    ModelConfig,
    PhaseConfig,
    PruningConfig,
    RunConfig,
    ScheduleConfig,
    TrainerConfig,
)

WORDS = ["good", "bad", "fine", "poor", "film", "book", "the", "a", "is", "was", "very", "not"]
BERT = {
    "vocab_size": 5 + len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "initializer_range": 0.2,  # learns faster
    "hidden_dropout_prob": 0.02,
    "attention_probs_dropout_prob": 0.02,
}
GUIDELINES = ScheduleConfig(
    name="guidelines",
    phases=[
        PhaseConfig(name="dense", only_from="pretrained"),
        PhaseConfig(name="prune", scaled=True, prune=True),
        PhaseConfig(name="recover"),
    ],
    initial_fraction=0.5,
    prunings_per_epoch=2,
)


def make_model(folder: Path, **settings: Any) -> Path:
    """A pretrained body (random weights) and its tokenizer, as a hub model's folder has them."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    torch.manual_seed(0)
    BertModel(BertConfig(**(BERT | settings))).save_pretrained(folder)
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    return folder


def make_data(folder: Path, train: int = 256, validation: int = 40) -> tuple[str, str]:
    """Two CSV files; the label says whether the sentence has a kind word."""
    words = random.Random(0)
    paths = []
    for name, count in (("train.csv", train), ("validation.csv", validation)):
        path = folder / name
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["sentence", "label"])
            for _ in range(count):
                label = words.choice(["positive", "negative"])
                kind = words.choice(["good", "fine"] if label == "positive" else ["bad", "poor"])
                rest = words.choices(["film", "book", "the", "a", "is", "was", "very"], k=words.randint(2, 9))
                writer.writerow([" ".join([*rest, kind]), label])
        paths.append(str(path))
    return paths[0], paths[1]


def tiny_config(folder: Path, **changes: Any) -> RunConfig:
    """A run to 75 % (two units of pruning, one of recovery) that takes a second. Keys may be dotted."""
    model = folder / "pretrained"
    if not model.exists():
        make_model(model)
        make_data(folder)
    config = RunConfig(
        name="tiny",
        recipe="tiny",
        sparsity=0.75,
        start="teacher",
        outputs=str(folder / "outputs"),
        model=ModelConfig(name=str(model)),
        dataset=DatasetConfig(
            name="tiny",
            task="classification",
            train_file=str(folder / "train.csv"),
            validation_file=str(folder / "validation.csv"),
            metric="accuracy",
            max_length=32,
        ),
        pruning=PruningConfig(schedule=deepcopy(GUIDELINES)),
        distillation=DistillationConfig(hardness=1.0, temperature=2.0),
        trainer=TrainerConfig(epochs=1, lr=5e-3, final_lr=5e-4, warmup=0.1, batch_size=8, device="cpu"),
    )
    for key, value in changes.items():
        target: Any = config
        *path, last = key.split("__")
        for part in path:
            target = getattr(target, part)
        setattr(target, last, value)
    return config
