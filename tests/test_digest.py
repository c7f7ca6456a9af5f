"""What changes a result changes the digest; what does not, does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prunebench.compose import load_config
from prunebench.config import RunConfig
from prunebench.context import identify, settle_labels, tokenizer_of
from prunebench.digest import dense_config
from tests.tiny import tiny_config


def digest(folder: Path, **changes: Any) -> str:
    return identity(tiny_config(folder, **changes))


def identity(config: RunConfig, precision: str = "fp32") -> str:
    config, task = settle_labels(config)
    return identify(config, task, precision, tokenizer_of(config, task))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"sparsity": 0.8},
        {"start": "pretrained"},
        {"trainer__lr": 1e-3},
        {"trainer__batch_size": 16},
        {"trainer__keep": "best"},
        {"distillation__temperature": 3.0},
        {"pruning__scope__name": "uniform"},
        {"pruning__components": ["encoder", "pooler"]},
        {"pruning__schedule__curve": "linear"},
        {"dataset__limit": 100},
        {"dataset__max_length": 16},
    ],
    ids=str,
)
def test_what_changes_the_result_changes_the_digest(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert digest(tmp_path, **changes) != digest(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"tracker__name": "wandb"},
        {"outputs": "/elsewhere"},
        {"name": "another"},
        {"recipe": "another"},
        {"trainer__device": "auto"},
        {"trainer__log_every": 1},
        {"trainer__checkpoint_minutes": 1.0},
        {"trainer__eval_batch_size": 7},
        {"dataset__name": "another"},
        {"pruning__schedule__name": "another"},
        {"trainer__eval_every": 0.5},
        {"distillation__cache_gb": 0.0},
    ],
    ids=str,
)
def test_what_does_not_change_the_result_does_not(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert digest(tmp_path, **changes) == digest(tmp_path)


def test_precision_and_contents_count(tmp_path: Path) -> None:
    before = digest(tmp_path)
    assert identity(tiny_config(tmp_path), "bf16") != before
    with (tmp_path / "train.csv").open("a") as file:
        file.write("good film,positive\n")
    assert digest(tmp_path) != before
    data_changed = digest(tmp_path)
    (tmp_path / "pretrained" / "config.json").write_text(
        (tmp_path / "pretrained" / "config.json")
        .read_text()
        .replace('"hidden_dropout_prob": 0.02', '"hidden_dropout_prob": 0.2')
    )
    assert digest(tmp_path) != data_changed


def test_runs_share_their_dense_run_whatever_they_prune(tmp_path: Path) -> None:
    def dense(**changes: Any) -> str:
        return identity(dense_config(tiny_config(tmp_path, **changes)))

    assert dense() == dense(sparsity=0.5, pruning__scope__name="erk", distillation__hardness=0.0, start="pretrained")
    assert dense() != dense(seed=2)


def test_the_teachers_recipe_counts_only_where_the_teacher_does(tmp_path: Path) -> None:
    """A run from the pretrained model without distillation does not depend on any teacher."""
    alone = {"start": "pretrained", "distillation__hardness": 0.0}
    assert digest(tmp_path, **alone) == digest(tmp_path, distillation__temperature=9.0, **alone)


def test_dense_config_leaves_the_callers_config_alone(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    before = replace(config)
    dense_config(config)
    assert config == before


def test_recipe_dense_is_the_dense_run_of_a_sparse_one(tmp_path: Path) -> None:
    """By name on the command line or as a teacher: the same digest, so it is trained once."""
    sparse = tiny_config(tmp_path)
    files = [
        f"dataset.train_file={sparse.dataset.train_file}",
        f"dataset.validation_file={sparse.dataset.validation_file}",
    ]
    words = [*files, "dataset=classification", "model=hf", f"model.name={sparse.model.name}", "dataset.max_length=32"]
    dense = load_config(["recipe=dense", *words])
    assert identity(dense) == identity(dense_config(load_config(["recipe=bert_smc_90", *words])))
    changed = load_config(["recipe=dense", *words, "pruning.schedule.lr=1e-3"])
    assert identity(changed) != identity(dense)


def test_another_tokenizer_counts_by_its_contents(tmp_path: Path) -> None:
    import shutil

    config = tiny_config(tmp_path)
    before = digest(tmp_path, model__tokenizer=config.model.name)
    shutil.copytree(config.model.name, tmp_path / "elsewhere")
    assert digest(tmp_path, model__tokenizer=str(tmp_path / "elsewhere")) == before
    text = (tmp_path / "elsewhere" / "tokenizer.json").read_text()
    (tmp_path / "elsewhere" / "tokenizer.json").write_text(text.replace('"good"', '"gut"'))
    assert digest(tmp_path, model__tokenizer=str(tmp_path / "elsewhere")) != before
