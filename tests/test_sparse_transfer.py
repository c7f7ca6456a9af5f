"""A sparse model's zeros survive fine-tuning on another task, whatever learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prunebench.config import DistillationConfig, PhaseConfig, PruningConfig, RunConfig, ScheduleConfig
from prunebench.digest import run_digest
from prunebench.errors import UsageError
from prunebench.report import rows
from prunebench.run import run
from tests.test_methods_runs import folder_of
from tests.tiny import tiny_config


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sparse")
    return folder_of(run(tiny_config(place)), place).model


def transfer(place: Path, sparse: Path, train: str = "all", **changes: Any) -> RunConfig:
    schedule = ScheduleConfig(phases=[PhaseConfig(name="transfer", train=train)])
    config = tiny_config(place, sparsity=0.0, start="pretrained", **changes)
    config.pruning = PruningConfig(keep_zeros=True, schedule=schedule)
    config.distillation = DistillationConfig()
    config.model.name = str(sparse)
    return config


def matrices(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in weights.items() if ".layer." in name and value.ndim == 2}


@pytest.mark.parametrize("train", ["all", "head"])
def test_zeros_are_kept(train: str, sparse: Path, tmp_path: Path) -> None:
    result = run(transfer(tmp_path, sparse, train))
    assert result["sparsity"]["prunable"] == 0.75
    before = load_file(sparse / "model.safetensors")
    folder = folder_of(result, tmp_path)
    after, masks = load_file(folder.model / "model.safetensors"), load_file(folder.masks)
    assert masks.keys() == matrices(before).keys()
    for name, weight in matrices(before).items():
        assert torch.equal(after[name] == 0, weight == 0) and torch.equal(masks[name], weight != 0)
    body = [name for name in before if name.startswith("bert.") and "pooler" not in name]
    moved = [name for name in body if not torch.equal(before[name], after[name])]
    assert len(moved) > 30 if train == "all" else not moved
    assert not torch.equal(before["classifier.weight"], after["classifier.weight"])
    assert "75.00 % of the prunable weights are zero" in (folder.model / "README.md").read_text()
    labels = dict(rows(result, "folder"))
    assert labels["sparsity"] == "75.00 % of encoder" and "dense accuracy" not in labels and "recovery" not in labels


def test_it_can_be_pruned_further_and_distilled(sparse: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, sparsity=0.875, start=str(sparse))
    config.pruning.keep_zeros = True
    result = run(config)
    before, after = (
        load_file(sparse / "model.safetensors"),
        load_file(folder_of(result, tmp_path).model / "model.safetensors"),
    )
    assert result["sparsity"]["prunable"] == 0.875
    assert all(not after[name][weight == 0].any() for name, weight in matrices(before).items())
    config = transfer(tmp_path, sparse)
    config.distillation = DistillationConfig(teacher=str(sparse), hardness=1.0, temperature=2.0)
    assert run(config)["training"]["temperature"] == 2.0
    config.distillation.teacher = "auto"
    with pytest.raises(UsageError, match="sparsity=0: a dense run has no teacher"):
        run(config)


def test_a_model_without_zeros_is_no_sparse_model(sparse: Path, tmp_path: Path) -> None:
    config = transfer(tmp_path, sparse)
    config.model.name = str(sparse.parents[3] / "pretrained")
    with pytest.raises(UsageError, match=r"has no zeros in encoder: give model.name=<folder of a sparse model>"):
        run(config)
    assert not list((tmp_path / "outputs").rglob("metrics.jsonl"))


def test_it_is_a_run_of_its_own() -> None:
    def digest(**pruning: Any) -> str:
        config = RunConfig(pruning=PruningConfig(**pruning))
        return run_digest(config, model="m", tokenizer=None, data={}, teacher=None, precision="fp32")

    assert digest() != digest(keep_zeros=True)
    assert digest() != digest(schedule=ScheduleConfig(phases=[PhaseConfig(train="head")]))
    assert digest() == digest(components=["head"])  # of a run that prunes nothing and keeps nothing
