from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from prunebench.config import DistillationConfig
from prunebench.distill import hidden_loss
from prunebench.errors import UsageError
from prunebench.run import run
from tests.test_methods_runs import folder_of, sums
from tests.test_run import train_rows
from tests.tiny import make_model, tiny_config

EPS = 2.0**-7  # of bfloat16


def literal(student: list[torch.Tensor], teacher: list[torch.Tensor], mask: torch.Tensor, kind: str) -> float:
    total = 0.0
    for ours, theirs in zip(student, teacher, strict=True):
        error = size = 0.0
        count = 0
        for b in range(mask.shape[0]):
            for t in range(mask.shape[1]):
                if mask[b, t]:
                    for h in range(ours.shape[2]):
                        error += float(ours[b, t, h] - theirs[b, t, h]) ** 2
                        size += float(theirs[b, t, h]) ** 2
                        count += 1
        total += error / count / (size / count + EPS) if kind == "squarehead" else error / count
    return total


@pytest.mark.parametrize("kind", ["squarehead", "mse"])
def test_hidden_loss_is_the_equation_and_padding_does_not_count(kind: str) -> None:
    torch.manual_seed(0)
    student, teacher = ([torch.randn(3, 4, 5) * (1 + 10 * i) for i in range(2)] for _ in range(2))
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
    found = hidden_loss(student, teacher, mask, kind)
    assert float(found) == pytest.approx(literal(student, teacher, mask, kind), rel=1e-5)
    for states in (*student, *teacher):
        states[~mask.bool()] = float("nan")
    assert torch.equal(hidden_loss(student, teacher, mask, kind), found)


@pytest.mark.parametrize("settings", [
    DistillationConfig(hardness=0.0, hidden="squarehead"),
    DistillationConfig(hardness=0.5, temperature=2.0, hidden="mse", hidden_weight=0.1),
])  # fmt: skip
def test_runs_with_it_log_it_and_repeat(settings: DistillationConfig, tmp_path: Path) -> None:
    first, second = (run(tiny_config(tmp_path / name, distillation=settings)) for name in ("one", "two"))
    assert sums(folder_of(first, tmp_path / "one")) == sums(folder_of(second, tmp_path / "two"))
    rows = train_rows(folder_of(first, tmp_path / "one"))
    weight, hardness = settings.hidden_weight, settings.hardness
    for row in rows:
        parts = (1 - hardness) * row["task_loss"] + weight * row["hidden_loss"]
        parts += hardness * row["distillation_loss"] if hardness else 0.0
        assert row["loss"] == pytest.approx(parts, rel=1e-4)
    assert ("distillation_loss" in rows[0]) == (hardness > 0)
    plain = run(tiny_config(tmp_path / "one", distillation=DistillationConfig()))
    assert plain["digest"] != first["digest"]


def test_it_starts_at_zero_from_the_teacher_itself(tmp_path: Path) -> None:
    """Before anything is pruned the student is the teacher: the layers of both must be compared in the same mode."""
    config = tiny_config(tmp_path, distillation=DistillationConfig(hidden="squarehead"), trainer__dropout=0.0)
    config.pruning.schedule.phases[1].prune = False  # first a unit without pruning
    config.pruning.schedule.phases[2].prune = True
    rows = train_rows(folder_of(run(config), tmp_path))
    assert rows[0]["hidden_loss"] == pytest.approx(0, abs=1e-9) and rows[-1]["hidden_loss"] > 0


def test_a_teacher_of_other_layers_is_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    make_model(tmp_path / "deep", num_hidden_layers=3)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "deep")
    model.save_pretrained(tmp_path / "deep")
    config.distillation = DistillationConfig(teacher=str(tmp_path / "deep"), hidden="squarehead")
    with pytest.raises(UsageError, match="has 3 layers of width 16, the student 2 of 16"):
        run(config)
