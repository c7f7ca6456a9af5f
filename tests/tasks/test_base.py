"""Finding a task, batches, and the datasets that stand in conf/dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from prunebench.config import DatasetConfig, TrainerConfig
from prunebench.errors import RunError, UsageError
from prunebench.tasks.base import Task, load_task, pad_id, require_finite

CONF = Path(__file__).parents[2] / "conf" / "dataset"
OPTIONS = sorted(path.stem for path in CONF.glob("*.yaml"))


@pytest.fixture
def task(tmp_path: Path) -> Task:
    path = tmp_path / "x.tsv"
    path.write_text("sentence\tlabel\nthe cat\tno\na mat sat\tyes\n")
    return load_task(
        DatasetConfig(name="x", task="classification", train_file=str(path), validation_file=str(path), max_length=12)
    )


def feature(length: int, label: int = 0) -> dict[str, Any]:
    ids = np.arange(1, length + 1, dtype=np.int32)
    return {"input_ids": ids, "token_type_ids": ids % 2, "labels": np.int64(label)}


@pytest.mark.parametrize(("lengths", "width"), [([3, 5], 8), ([8], 8), ([9, 2], 12), ([12, 1], 12), ([1], 8)])
def test_batches_are_padded_to_a_multiple_of_eight_but_not_beyond_max_length(
    task: Task, lengths: list[int], width: int
) -> None:
    batch = task.collate([feature(length, i) for i, length in enumerate(lengths)])
    assert batch["labels"].tolist() == list(range(len(lengths))) and batch["labels"].dtype == torch.int64
    for i, length in enumerate(lengths):
        rest = [0] * (width - length)
        assert batch["input_ids"][i].tolist() == [*range(1, length + 1), *rest]
        assert batch["attention_mask"][i].tolist() == [1] * length + rest
        assert batch["token_type_ids"][i].tolist() == [j % 2 for j in range(1, length + 1)] + rest
    assert set(task.inputs(batch)) == {"input_ids", "attention_mask", "token_type_ids"}


def test_padding_is_the_tokenizers(task: Task, decoder_tokenizer: Any, tokenizer: Any, tmp_path: Path) -> None:
    task.encode("train", decoder_tokenizer, tmp_path)
    assert task.collate([feature(1)])["input_ids"][0].tolist() == [1] + [decoder_tokenizer.eos_token_id] * 7
    assert pad_id(tokenizer) == tokenizer.pad_token_id
    decoder_tokenizer.eos_token = None
    with pytest.raises(UsageError, match="neither a padding nor an end-of-text token"):
        pad_id(decoder_tokenizer)


def test_more_tokens_than_the_model_takes(task: Task, tokenizer: Any, tmp_path: Path) -> None:
    task.dataset.max_length = 513
    with pytest.raises(UsageError, match=r"dataset.max_length=513: .* at most 512 tokens"):
        task.encode("train", tokenizer, tmp_path)


def test_unknown_names(task: Task, tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no split 'test' here: it has train, validation"):
        task.encode("test", tokenizer, tmp_path)
    with pytest.raises(UsageError, match=r"dataset.task=clasification is unknown \(did you mean 'classification'\?\)"):
        load_task(DatasetConfig(name="x", task="clasification"))
    with pytest.raises(
        UsageError, match=r"dataset.task=metrics is unknown.*: it can be classification, language_modelling, multiple_c"
    ):
        load_task(DatasetConfig(name="x", task="metrics"))


def test_max_length_can_be_overruled(task: Task) -> None:
    assert load_task(task.dataset, max_length=7).dataset.max_length == 7
    assert task.dataset.max_length == 12


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_no_numbers_fail_the_run(bad: float) -> None:
    require_finite(np.ones(3), "validation")
    with pytest.raises(RunError, match="outputs on validation are not finite"):
        require_finite(np.array([1.0, bad]), "validation")


@pytest.mark.parametrize("name", OPTIONS)
def test_every_dataset_has_a_description_a_known_task_and_known_settings(name: str) -> None:
    text = (CONF / f"{name}.yaml").read_text()
    first, second = text.splitlines()[:2]
    assert first == "# @package _global_" and second.startswith("# ") and len(second) > 20
    content = yaml.safe_load(text)
    dataset = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DatasetConfig), content["dataset"]))
    assert isinstance(dataset, DatasetConfig) and dataset.name == name
    trainer = OmegaConf.merge(OmegaConf.structured(TrainerConfig), content.get("trainer", {}))
    assert trainer.batch_size * trainer.epochs * trainer.lr > 0
    if dataset.hub and dataset.task == "language_modelling":
        for objective, metric in (("causal", "perplexity"), ("masked", "masked_perplexity")):
            assert load_task(replace(dataset, objective=objective)).metric == metric
    elif dataset.hub:
        task = load_task(dataset)
        assert task.metric == dataset.metric and set(task.metrics) == set(dataset.metrics)
        assert set(dataset.examples) == {"train", *task.eval_splits}
        if task.problem == "classification":
            assert task.labels == dataset.labels and task.num_labels >= 2


GLUE = {  # Wang et al. 2019, table 1: train, classes (0: regression), metrics
    "cola": (8551, 2, {"matthews_correlation"}),
    "sst2": (67349, 2, {"accuracy"}),
    "mrpc": (3668, 2, {"accuracy", "f1"}),
    "stsb": (5749, 0, {"pearson", "spearmanr"}),
    "qqp": (363846, 2, {"accuracy", "f1"}),
    "mnli": (392702, 3, {"accuracy"}),
    "qnli": (104743, 2, {"accuracy"}),
    "rte": (2490, 2, {"accuracy"}),
    "wnli": (635, 2, {"accuracy"}),
}


@pytest.mark.parametrize("name", GLUE)
def test_glues_tasks_are_what_the_benchmark_says(name: str) -> None:
    dataset = yaml.safe_load((CONF / f"{name}.yaml").read_text())["dataset"]
    examples, classes, metrics = GLUE[name]
    assert dataset["examples"]["train"] == examples
    assert len(dataset.get("labels", [])) == classes
    assert metrics <= set(dataset["metrics"])
    assert dataset.get("regression", False) == (classes == 0)
