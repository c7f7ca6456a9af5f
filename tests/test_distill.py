from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from prunebench.distill import auto_temperature, cached_logits, distillation_loss, softened_kl


def literal_kl(student: list[list[float]], teacher: list[list[float]], temperature: float) -> float:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over rows, number by number."""
    rows = []
    for s_row, t_row in zip(student, teacher, strict=True):
        t_exp = [math.exp(t / temperature) for t in t_row]
        s_exp = [math.exp(s / temperature) for s in s_row]
        total = 0.0
        for t, s in zip(t_exp, s_exp, strict=True):
            p, q = t / sum(t_exp), s / sum(s_exp)
            if p > 0:
                total += p * math.log(p / q)
        rows.append(temperature**2 * total)
    return sum(rows) / len(rows)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.5])
def test_kl_is_the_equation(temperature: float) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 7), 3 * torch.randn(5, 7)
    expected = literal_kl(student.tolist(), teacher.tolist(), temperature)
    assert softened_kl(student, teacher, temperature).item() == pytest.approx(expected, rel=1e-5)


def test_padding_contributes_neither_to_the_loss_nor_to_gradients() -> None:
    torch.manual_seed(0)
    short_student, short_teacher = torch.randn(3, 4), torch.randn(3, 4)
    pad = torch.full((3, 5), -math.inf)
    student = torch.cat([short_student, pad], 1).requires_grad_()
    loss = softened_kl(student, torch.cat([short_teacher, pad], 1), 2.0)
    loss.backward()
    assert loss.item() == pytest.approx(softened_kl(short_student, short_teacher, 2.0).item(), rel=1e-6)
    assert student.grad is not None and not student.grad.isnan().any()
    assert student.grad[:, 4:].eq(0).all() and student.grad[:, :4].ne(0).any()


def test_heads_are_averaged() -> None:
    torch.manual_seed(0)
    heads = {"start": torch.randn(2, 6), "end": torch.randn(2, 6)}
    teacher = {"start": torch.randn(2, 6), "end": torch.randn(2, 6)}
    parts = [softened_kl(heads[head], teacher[head], 2.0).item() for head in heads]
    assert distillation_loss(heads, teacher, 2.0).item() == pytest.approx(sum(parts) / 2)


def test_a_student_like_its_teacher_has_nothing_to_learn() -> None:
    logits = torch.randn(4, 3)
    assert softened_kl(logits, logits.clone(), 3.0).item() == pytest.approx(0, abs=1e-6)


def test_regression_distils_by_squared_error() -> None:
    student, teacher = {"logits": torch.tensor([[1.0], [3.0]])}, {"logits": torch.tensor([[2.0], [5.0]])}
    assert distillation_loss(student, teacher, 2.0, regression=True).item() == pytest.approx((1 + 4) / 2)


def test_cached_logits_come_back_padded_and_are_made_once(tmp_path: Path) -> None:
    rows = [{"start": np.arange(n, dtype=np.float32), "end": -np.arange(n, dtype=np.float32)} for n in (3, 1, 4)]
    cached_logits(tmp_path / "logits", lambda: rows)
    cache = cached_logits(tmp_path / "logits", lambda: pytest.fail("computed twice"))
    batch = cache.batch([2, 0], {"start": torch.zeros(2, 6), "end": torch.zeros(2, 6)})
    assert batch["start"].tolist() == [[0, 1, 2, 3] + [-math.inf] * 2, [0, 1, 2] + [-math.inf] * 3]
    assert batch["end"][0, :4].tolist() == [0, -1, -2, -3]


def test_auto_temperature_makes_the_teacher_half_as_uncertain_as_it_could_be() -> None:
    rows = [{"logits": 8 * np.random.default_rng(i).normal(size=3)} for i in range(50)]
    temperature = auto_temperature(rows)
    entropies = []
    for row in rows:
        p = np.exp(row["logits"] / temperature)
        p /= p.sum()
        entropies.append(-(p * np.log(p)).sum() / np.log(3))
    assert temperature > 1
    assert np.mean(entropies) == pytest.approx(0.5, abs=0.01)


def test_auto_temperature_leaves_an_unsure_teacher_and_a_regression_alone() -> None:
    assert auto_temperature([{"logits": np.array([0.1, 0.0])}]) <= 1.01
    assert auto_temperature([{"logits": np.array([3.2])}]) == 1.0
