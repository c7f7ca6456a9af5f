from __future__ import annotations

import math

import pytest

from prunebench.curves import LrCycle, SparsityCurve, units_of_pruning

# facts/smc.md 3.2, computed from SparseML's `interpolate`: oBERT's seven prunings in percent
OBERT = {
    0.80: [70.0, 74.2, 77.0, 78.8, 79.6, 80.0, 80.0],
    0.90: [70.0, 78.4, 84.1, 87.5, 89.3, 89.9, 90.0],
    0.97: [70.0, 81.4, 89.0, 93.6, 96.0, 96.9, 97.0],
}


@pytest.mark.parametrize("target", OBERT)
def test_cubic_curve_is_that_of_oberts_recipes(target: float) -> None:
    curve = SparsityCurve(0, 600, 0.7, target, "cubic")
    assert [round(100 * curve(step), 1) for step in range(0, 601, 100)] == OBERT[target]


def test_geometric_curve_keeps_the_same_share_in_every_unit() -> None:
    curve = SparsityCurve(0, 400, 0.0, 0.9, "geometric")
    for unit in range(5):
        assert 1 - curve(100 * unit) == pytest.approx(0.1 ** (unit / 4))


def test_linear_curve() -> None:
    curve = SparsityCurve(10, 20, 0.2, 0.6, "linear")
    assert [curve(step) for step in (10, 15, 20)] == pytest.approx([0.2, 0.4, 0.6])


@pytest.mark.parametrize("shape", ["cubic", "linear", "geometric"])
def test_curves_rise_and_end_exactly_at_the_target(shape: str) -> None:
    curve = SparsityCurve(3, 90, 0.37, 0.91, shape)
    levels = [curve(step) for step in range(3, 120)]
    assert levels == sorted(levels)
    assert levels[0] == pytest.approx(0.37)
    assert curve(90) == curve(119) == 0.91


def test_a_window_without_length_is_one_shot() -> None:
    assert SparsityCurve(5, 5, 0.3, 0.8, "cubic")(5) == 0.8


def test_lr_falls_linearly_as_transformers_has_it() -> None:
    import torch
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-5)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, 20)
    cycle = LrCycle(100, 120, 3e-5, 0.0)
    for step in range(100, 120):
        assert cycle(step) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


def test_warmup_reaches_the_peak_and_spends_no_step_at_zero() -> None:
    cycle = LrCycle(0, 10, 1.0, 0.0, warmup=4)
    assert [cycle(step) for step in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 5 / 6])


@pytest.mark.parametrize(
    ("sparsity", "units"),
    [(0.3, 1), (0.5, 1), (0.51, 2), (0.75, 2), (0.8, 3), (0.875, 3), (0.9, 4), (0.95, 5), (0.97, 6)],
)
def test_a_unit_for_every_halving_of_what_is_left(sparsity: float, units: int) -> None:
    assert units_of_pruning(sparsity) == units
    halvings = 0
    while 0.5**halvings > 1 - sparsity + 1e-12:  # count them one by one
        halvings += 1
    assert units == max(1, halvings)


def test_units_can_be_scaled() -> None:
    assert units_of_pruning(0.9, 2.0) == math.ceil(2 * math.log2(10))
