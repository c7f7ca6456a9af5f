from __future__ import annotations

from pathlib import Path

import pytest
import torch

from prunebench.checkpoint import (
    Checkpoint,
    keep_newest,
    keep_only,
    load_checkpoint,
    load_checkpoint_at,
    load_model_tensors,
    model_tensors,
    save_checkpoint,
)
from prunebench.errors import RunError


def checkpoint(step: int) -> Checkpoint:
    tensors = {"model": {"w": torch.full((50, 50), float(step))}, "optimizer": {}, "masks": {"w": torch.ones(3) > 0}}
    return Checkpoint(step, tensors, {"seconds": 1.5})


def test_the_newest_comes_back(tmp_path: Path) -> None:
    for step in (3, 20, 100):
        save_checkpoint(tmp_path, checkpoint(step))
    loaded, damaged, _ = load_checkpoint(tmp_path)
    assert loaded is not None and not damaged
    assert (loaded.step, loaded.extra) == (100, {"seconds": 1.5})
    assert torch.equal(loaded.tensors["model"]["w"], torch.full((50, 50), 100.0))
    assert loaded.tensors["masks"]["w"].dtype == torch.bool


def test_two_are_kept(tmp_path: Path) -> None:
    for step in range(5):
        save_checkpoint(tmp_path, checkpoint(step))
        keep_newest(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000003", "step-000000004"]


def test_only_what_is_asked_for_is_kept(tmp_path: Path) -> None:
    for step in range(5):
        save_checkpoint(tmp_path, checkpoint(step))
    keep_only(tmp_path, {1, 4, 9})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000001", "step-000000004"]


@pytest.mark.parametrize("harm", ["truncated", "garbled", "gone", "state", "number"])
def test_a_damaged_newest_gives_way_to_the_one_before(tmp_path: Path, harm: str) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    save_checkpoint(tmp_path, checkpoint(2))
    newest = tmp_path / "step-000000002"
    file = newest / ("state.json" if harm == "state" else "model.safetensors")
    content = bytearray(file.read_bytes())
    if harm == "gone":
        file.unlink()
    elif harm == "number":
        (newest / "state.json").write_text((newest / "state.json").read_text().replace("1.5", "2.5"))
    elif harm == "garbled":
        content[-7] ^= 0xFF
        file.write_bytes(content)
    else:
        file.write_bytes(content[: len(content) // 2])
    loaded, damaged, lines = load_checkpoint(tmp_path)
    assert loaded is not None and loaded.step == 1
    assert damaged == [newest] and "step-000000002 is damaged" in lines[0]


def test_nothing_saved_is_nothing_loaded(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "state") == (None, [], [])


def test_no_pickle_is_written(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".safetensors", ".json"}


def test_tied_weights_are_saved_once_and_come_back() -> None:
    def tied(value: float) -> torch.nn.Module:
        model = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False))
        model[1].weight = model[0].weight
        torch.nn.init.constant_(model[0].weight, value)
        return model

    saved = model_tensors(tied(2.0))
    assert list(saved) == ["0.weight"]
    other = tied(5.0)
    load_model_tensors(other, saved)
    assert other[1].weight.eq(2.0).all() and other[1].weight is other[0].weight
    with pytest.raises(ValueError, match="another model"):
        load_model_tensors(torch.nn.Linear(3, 3), saved)


def test_an_exact_step_or_nothing(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(4))
    assert load_checkpoint_at(tmp_path, 4).step == 4
    with pytest.raises(RunError, match="step-000000005 cannot be read"):
        load_checkpoint_at(tmp_path, 5)
