"""A real pretrained BERT on real text, as a user starts it: every phase happens, on few examples."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real


def prunebench(*args: str, cwd: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "prunebench", "run", "--json", *args]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_bert_smc_90_on_sst2(tmp_path: Path, shared: Path, minilm: Path) -> None:
    data = shared / "data" / "glue" / "SST-2"
    args = [
        "recipe=bert_smc_90",
        "dataset=sst2",
        f"dataset.train_file={data}/train.tsv.gz",
        f"dataset.validation_file={data}/dev.tsv",
        "model=hf",
        f"model.name={minilm}",
        "dataset.limit=320",
        "dataset.validation_limit=64",
        "trainer.max_steps=20",
    ]
    result = prunebench(*args, cwd=tmp_path)
    assert result["weights"]["prunable"] == 10_616_832
    assert result["weights"]["prunable_nonzero"] == round(0.1 * 10_616_832)
    assert result["training"]["steps"] == 20
    assert result["dense"]["value"] > 0.3  # a number was measured; what it is worth is for longer runs
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path / "outputs" / "bert_smc_90" / result["digest"]
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    assert model.config.id2label == {0: "negative", 1: "positive"}


def test_bert_smc_90_on_squad(tmp_path: Path, shared: Path, minilm: Path) -> None:
    data = shared / "data" / "squad_v1.1"
    args = [
        "recipe=bert_smc_90",
        f"dataset.train_file={data}/train-v1.1.json.gz",
        f"dataset.validation_file={data}/dev-v1.1.json.gz",
        "model=hf",
        f"model.name={minilm}",
        "dataset.limit=24",
        "dataset.validation_limit=16",
        "dataset.max_length=192",
        "dataset.doc_stride=64",
        "trainer.max_steps=6",
        "trainer.batch_size=8",
        "pruning.schedule.prunings_per_epoch=1",
    ]
    result = prunebench(*args, cwd=tmp_path)
    assert result["metric"]["name"] == "f1"
    assert set(result["metrics"]) == {"f1", "exact_match"}
    assert result["weights"]["prunable_nonzero"] == round(0.1 * 10_616_832)
    lines = (tmp_path / "outputs" / "bert_smc_90" / result["digest"] / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == 16


@pytest.mark.parametrize(
    ("dataset", "train", "dev", "choices"),
    [
        ("commonsense_qa", "commonsenseqa/train_rand_split.jsonl.gz", "commonsenseqa/dev_rand_split.jsonl.gz", 5),
        ("winogrande_span", "winogrande/train_xs.jsonl", "winogrande/dev.jsonl", 2),
    ],
)
def test_choices_as_published(
    dataset: str, train: str, dev: str, choices: int, tmp_path: Path, shared: Path, minilm: Path
) -> None:
    data = shared / "data"
    args = [
        "recipe=bert_smc_90",
        f"dataset={dataset}",
        f"dataset.train_file={data}/{train}",
        f"dataset.validation_file={data}/{dev}",
        "model=hf",
        f"model.name={minilm}",
        "dataset.limit=48",
        "dataset.validation_limit=24",
        "trainer.max_steps=6",
        "trainer.batch_size=8",
        "pruning.schedule.prunings_per_epoch=1",
    ]
    result = prunebench(*args, cwd=tmp_path)
    assert result["weights"]["prunable_nonzero"] == round(0.1 * 10_616_832)
    folder = tmp_path / "outputs" / "bert_smc_90" / result["digest"]
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 24 and all(len(line["scores"]) == choices for line in lines)
    assert result["metrics"] == {"accuracy": sum(line["correct"] for line in lines) / 24}
