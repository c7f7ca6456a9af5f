"""The whole flow for every model family, and for every kind of task, on tiny models with random weights."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForQuestionAnswering, AutoModelForSequenceClassification

from prunebench.config import DatasetConfig
from prunebench.run import evaluate_folder, run
from prunebench.targets import find_targets
from tests.tiny import tiny_config

torch.set_num_threads(1)
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 17,
         "max_position_embeddings": 40, "pad_token_id": 0}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "roberta": {**SIZES},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 17, "pad_token_id": 0,
                   "max_position_embeddings": 40},
    "albert": {**SIZES, "embedding_size": 8},
    "electra": {**SIZES, "embedding_size": 8},
    "deberta": {**SIZES, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {**SIZES, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "mpnet": {**SIZES},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, "vocab_size": 17, "eos_token_id": 3,
             "bos_token_id": 2},
    "opt": {**SIZES, "ffn_dim": 32, "word_embed_proj_dim": 16, "bos_token_id": 2, "eos_token_id": 3},
}  # fmt: skip


def family_config(tmp_path: Path, family: str, **changes: Any) -> Any:
    config = tiny_config(tmp_path, trainer__max_steps=9, **changes)
    config.model.tokenizer = config.model.name
    config.model.name = f"tiny-{family}"
    config.model.config = {"model_type": family, **FAMILIES[family]}
    config.model.from_config = True
    return config


def place(result: dict[str, Any], tmp_path: Path) -> Path:
    return tmp_path / "outputs" / result["name"] / result["digest"]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_pruned_and_loads_without_us(family: str, tmp_path: Path) -> None:
    result = run(family_config(tmp_path, family))
    model = AutoModelForSequenceClassification.from_pretrained(place(result, tmp_path) / "model")
    weights = [target.weight for target in find_targets(model)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    assert zeros == round(0.75 * sum(weight.numel() for weight in weights))
    assert result["status"] == "finished"


def make_squad(path: Path, count: int, seed: int) -> None:
    """Short paragraphs; the answer is the word after "is"."""
    words = random.Random(seed)
    paragraphs = []
    for number in range(count):
        before = " ".join(words.choices(["the", "a", "film", "book", "very"], k=words.randint(2, 12)))
        answer = words.choice(["good", "bad", "fine", "poor"])
        context = f"{before} is {answer} was {before}"
        start = context.index(f" is {answer}") + 4
        qa = {"id": str(number), "question": "the film is", "answers": [{"text": answer, "answer_start": start}]}
        paragraphs.append({"context": context, "qas": [qa]})
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}))


def test_question_answering_end_to_end(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, trainer__epochs=2)
    for name, count in (("train.json", 256), ("dev.json", 40)):
        make_squad(tmp_path / name, count, seed=count)
    config.dataset = DatasetConfig(
        name="questions",
        task="question_answering",
        train_file=str(tmp_path / "train.json"),
        validation_file=str(tmp_path / "dev.json"),
        metric="f1",
        metrics=["exact_match"],
        max_length=24,
        doc_stride=8,
    )
    result = run(config)
    assert set(result["metrics"]) == {"f1", "exact_match"}
    assert result["dense"]["value"] > 50  # percent; a random span among some twenty words scores a few
    assert result["sparsity"]["prunable"] == 0.75
    lines = [json.loads(line) for line in (place(result, tmp_path) / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 40
    AutoModelForQuestionAnswering.from_pretrained(place(result, tmp_path) / "model")


def make_choices(folder: Path) -> dict[str, str]:
    """A kind and an unkind ending after some words, in WinoGrande's format; the kind one is right."""
    words, paths = random.Random(0), {}
    for split, count in (("train", 256), ("validation", 40)):
        paths[f"{split}_file"] = str(folder / f"{split}.jsonl")
        rows = []
        for _ in range(count):
            start = " ".join(words.choices(["the", "a", "film", "book", "is", "was", "very"], k=words.randint(2, 9)))
            answer = words.randint(1, 2)
            options = [words.choice(["good", "fine"]), words.choice(["bad", "poor"])][:: 1 if answer == 1 else -1]
            row = {"sentence": f"{start} _ film", "option1": options[0], "option2": options[1], "answer": str(answer)}
            rows.append(json.dumps(row))
        Path(paths[f"{split}_file"]).write_text("\n".join(rows))
    return paths


def choice_config(tmp_path: Path, task: str, **changes: Any) -> Any:
    config = tiny_config(tmp_path, **changes)
    config.dataset = DatasetConfig(
        name="choices", task=task, **make_choices(tmp_path), metric="accuracy", max_length=24
    )
    return config


@pytest.mark.parametrize(
    ("task", "auto"),
    [("multiple_choice", AutoModelForSequenceClassification), ("span_scoring", AutoModelForMaskedLM)],
)
def test_choices_end_to_end(task: str, auto: Any, tmp_path: Path) -> None:
    """Dense, cached teacher, pruning, export; the exported model then scores as the run said, and starts another."""
    config = choice_config(tmp_path, task, trainer__epochs=2)
    result = run(config)
    assert result["dense"]["value"] > 0.8  # chance is 0.5
    assert result["sparsity"]["prunable"] == 0.75
    folder = place(result, tmp_path)
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == list(range(40))
    assert {name for line in lines for name in (line["label"], line["prediction"])} <= {"1", "2"}
    assert np.mean([line["label"] == line["prediction"] for line in lines]) == pytest.approx(result["metric"]["value"])
    assert evaluate_folder(folder)["metric"]["value"] == result["metric"]["value"]
    auto.from_pretrained(folder / "model")
    caches = list((tmp_path / "outputs").rglob("logits.npy"))
    assert len(caches) == 1 and np.load(caches[0]).shape == (2 * 256,)  # two numbers a question
    again = choice_config(tmp_path, task, trainer__epochs=2, start=str(folder / "model"))
    assert run(again)["dense"]["value"] == result["metric"]["value"]  # a start is its own dense model


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_scores_choices(family: str, tmp_path: Path) -> None:
    config = family_config(tmp_path, family)
    config.dataset = choice_config(tmp_path, "multiple_choice").dataset
    result = run(config)
    assert AutoModelForSequenceClassification.from_pretrained(place(result, tmp_path) / "model").config.num_labels == 1


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"gpt2", "opt"}))
def test_every_encoder_scores_spans(family: str, tmp_path: Path) -> None:
    config = family_config(tmp_path, family)
    config.dataset = choice_config(tmp_path, "span_scoring").dataset
    AutoModelForMaskedLM.from_pretrained(place(run(config), tmp_path) / "model")


def test_regression_end_to_end(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    for name in ("train.csv", "validation.csv"):
        text = (tmp_path / name).read_text().replace(",positive", ",1.5").replace(",negative", ",-0.5")
        (tmp_path / name).write_text(text)
    config.dataset.regression, config.dataset.metric, config.dataset.metrics = True, "mse", ["pearson"]
    result = run(config)
    assert result["metric"]["higher_is_better"] is False
    assert result["metrics"]["pearson"] > 0.5
    assert result["recovery"] == pytest.approx(result["dense"]["value"] / result["metric"]["value"])
