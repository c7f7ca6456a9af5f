from __future__ import annotations

import math

import pytest
import torch

from prunebench.errors import UsageError
from prunebench.sparsity import scopes as module
from prunebench.sparsity.scopes import SCOPES

# The worked example: 4x4 scores and what each scope keeps of two matrices, six entries in all.
FIRST = torch.tensor([[9.0, 1.0, 8.0, 2.0], [7.0, 3.0, 6.0, 4.0], [5.0, 5.0, 5.0, 5.0], [0.0, 0.0, 0.0, 0.0]])
SECOND = torch.tensor([[0.9, 0.1, 0.8, 0.2], [0.7, 0.3, 0.6, 0.4], [0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]])
TABLE = {
    ("global", 0.0): ("#.#. #.#. ##.. ....", ".... .... .... ...."),
    ("global", 0.125): ("#.#. #.#. .... ....", "#.#. .... .... ...."),
    ("uniform", 0.0): ("#.#. #... .... ....", "#.#. #... .... ...."),
    ("erk", 0.0): ("#.#. #... .... ....", "#.#. #... .... ...."),
    ("row", 0.0): ("#... #... #... ....", "#... #... #... ...."),
}


def drawn(mask: torch.Tensor) -> str:
    return " ".join("".join("#" if kept else "." for kept in row) for row in mask.tolist())


@pytest.mark.parametrize(("scope", "floor"), TABLE)
def test_a_table_written_by_hand(scope: str, floor: float) -> None:
    masks = SCOPES.build(scope, floor=floor).masks([FIRST, SECOND], 6)
    assert tuple(drawn(mask) for mask in masks) == TABLE[scope, floor]


def rigl_densities(shapes: list[tuple[int, int]], density: float) -> list[float]:
    """`get_mask_random`'s ERK as google-research/rigl writes it (sparse_utils.py), power 1, no custom sparsities."""
    dense: set[int] = set()
    while True:
        divisor, rhs, raw = 0.0, 0.0, {}
        for i, (out, inputs) in enumerate(shapes):
            if i in dense:
                rhs -= out * inputs * (1 - density)
            else:
                rhs += out * inputs * density
                raw[i] = (out + inputs) / (out * inputs)
                divisor += raw[i] * out * inputs
        epsilon = rhs / divisor
        if max(raw.values()) * epsilon <= 1:
            return [1.0 if i in dense else epsilon * raw[i] for i in range(len(shapes))]
        dense |= {i for i in raw if raw[i] == max(raw.values())}


@pytest.mark.parametrize("density", [0.05, 0.2, 0.5, 0.8])
def test_erk_is_the_equation_of_rigl(density: float) -> None:
    shapes = [(64, 64), (256, 64), (64, 256), (4, 64), (2, 8)]
    scores = [torch.rand(shape, generator=torch.Generator().manual_seed(0)) for shape in shapes]
    keep = round(density * sum(score.numel() for score in scores))
    masks = SCOPES.build("erk").masks(scores, keep)
    assert sum(int(mask.sum()) for mask in masks) == keep
    for mask, expected in zip(masks, rigl_densities(shapes, density), strict=True):
        assert abs(int(mask.sum()) - expected * mask.numel()) <= 1.5  # keep itself is rounded
    assert masks[-1].all() == (rigl_densities(shapes, density)[-1] == 1)


@pytest.mark.parametrize("keep", [0, 1, 77, 160, 300, 319, 320])
def test_uniform_and_row_are_even(keep: int) -> None:
    scores = [torch.rand(shape, generator=torch.Generator().manual_seed(0)) for shape in ((10, 10), (20, 5), (3, 40))]
    uniform, row = (SCOPES.build(name).masks(scores, keep) for name in ("uniform", "row"))
    for mask in uniform + row:
        assert abs(int(mask.sum()) - keep * mask.numel() / 320) < 1
    for mask in row:
        assert int(mask.sum(1).max()) - int(mask.sum(1).min()) <= 1
    assert sum(int(mask.sum()) for mask in uniform) == sum(int(mask.sum()) for mask in row) == keep


@pytest.mark.parametrize("scope", SCOPES.names())
def test_every_matrix_keeps_its_floor(scope: str) -> None:
    scores = [torch.rand(shape, generator=torch.Generator().manual_seed(0)) * scale
              for shape, scale in (((10, 10), 1.0), ((20, 5), 1e-3), ((3, 41), 1e-6))]  # fmt: skip
    masks = SCOPES.build(scope, floor=0.1).masks(scores, 40)
    assert sum(int(mask.sum()) for mask in masks) == 40
    assert all(int(mask.sum()) >= math.ceil(0.1 * mask.numel()) for mask in masks)
    with pytest.raises(UsageError, match=r"floor=0\.1 needs 33 weights, but only 32"):
        SCOPES.build(scope, floor=0.1).masks(scores, 32)


def test_a_floor_takes_its_weights_from_the_others_until_none_falls_below() -> None:
    # A threshold leaves 10, 2 and 0. The floor of the third then leaves 10 and 0, which is below the second's.
    scores = [torch.arange(100.0, 110.0), torch.arange(90.0, 100.0), torch.arange(10.0)]
    masks = SCOPES.build("global", floor=0.2).masks([score.view(2, 5) for score in scores], 12)
    assert [int(mask.sum()) for mask in masks] == [8, 2, 2]
    assert masks[2].flatten().tolist() == [False] * 8 + [True] * 2


@pytest.mark.parametrize("scope", SCOPES.names())
def test_what_is_gone_stays_gone(scope: str) -> None:
    scores = [torch.rand(shape, generator=torch.Generator().manual_seed(0)) for shape in ((10, 10), (20, 5))]
    scores[0][scores[0] < 0.9] = -math.inf
    alive = [score > -math.inf for score in scores]
    masks = SCOPES.build(scope).masks(scores, 60)
    assert sum(int(mask.sum()) for mask in masks) == 60
    assert not any((mask & ~left).any() for mask, left in zip(masks, alive, strict=True))
    assert all(
        torch.equal(mask, left) for mask, left in zip(SCOPES.build(scope).masks(scores, 190), alive, strict=True)
    )


def test_global_selects_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = module.global_masks
    monkeypatch.setattr(module, "global_masks", lambda scores, keep: calls.append(keep) or real(scores, keep))
    monkeypatch.setattr(module, "top_mask", lambda score, keep: calls.append(keep))
    SCOPES.build("global").masks([FIRST, SECOND], 6)
    assert calls == [6]
