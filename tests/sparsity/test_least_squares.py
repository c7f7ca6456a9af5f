"""The update against one float64 system for every output."""

from __future__ import annotations

import pytest
import torch
from calibrating import encoder_targets, make_calibration, make_model
from fakes import FakeTarget
from torch import Tensor, nn

from prunebench.errors import RunError, UsageError
from prunebench.sparsity import least_squares
from prunebench.sparsity.criteria import CRITERIA
from prunebench.sparsity.least_squares import LeastSquares
from prunebench.sparsity.patterns import PATTERNS
from prunebench.sparsity.scopes import SCOPES
from prunebench.sparsity.sparsifier import Axes, Sparsifier
from prunebench.sparsity.stats import Gram
from prunebench.sparsity.updates import UPDATES

ROWS, COLUMNS = 9, 16


def make_target(transposed: bool = False, dtype: torch.dtype = torch.float32) -> FakeTarget:
    weight = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0)).to(dtype)
    stored = weight.T.contiguous() if transposed else weight
    return FakeTarget("layer.weight", nn.Parameter(stored, requires_grad=False), transposed)


def make_inputs(tokens: int = 50) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(COLUMNS, COLUMNS, generator=generator) / 3 + torch.eye(COLUMNS)
    return torch.randn(tokens, COLUMNS, generator=generator) @ mixing


def make_stat(target: FakeTarget, inputs: Tensor) -> Gram:
    stat = Gram(target)  # type: ignore[arg-type]
    stat.observe_inputs(inputs, 1)
    return stat


def random_mask(density: float) -> Tensor:
    """Rows of different lengths, one of them empty and one full."""
    mask = torch.rand(ROWS, COLUMNS, generator=torch.Generator().manual_seed(2)) < density
    mask[3], mask[6] = False, True
    return mask


def update(target: FakeTarget, mask: Tensor, inputs: Tensor, damp: float = 0.01) -> Tensor:
    """The weights afterwards, pruned ones being zero."""
    LeastSquares(damp).apply(target, mask, make_stat(target, inputs), CRITERIA.build("magnitude"), None)  # type: ignore[arg-type]
    return target.matrix * mask


def literal(dense: Tensor, mask: Tensor, inputs: Tensor, damp: float) -> Tensor:
    """Stacked least squares: inputs, and below them the damping as further equations."""
    x, w = inputs.double(), dense.double()
    d = damp * x.square().sum(0).mean()
    equations = torch.cat([x, d.sqrt() * torch.eye(COLUMNS, dtype=torch.float64)])
    result = torch.zeros_like(w)
    for row in range(ROWS):
        stay = mask[row].nonzero().flatten()
        if len(stay):
            result[row, stay] = torch.linalg.lstsq(equations[:, stay], equations @ w[row]).solution
    return result


def error(weight: Tensor, dense: Tensor, inputs: Tensor) -> Tensor:
    """(rows,)."""
    return (inputs.double() @ (weight.double() - dense.double()).T).square().sum(0)


@pytest.mark.parametrize("density", [0.15, 0.4, 0.6, 0.9])  # fewer stay; then fewer go
@pytest.mark.parametrize("damp", [0.01, 1.0])
@pytest.mark.parametrize("transposed", [False, True])
def test_every_output_has_its_exact_minimum(density: float, damp: float, transposed: bool) -> None:
    target, inputs, mask = make_target(transposed), make_inputs(), random_mask(density)
    dense = target.matrix.clone()
    found = update(target, mask, inputs, damp)
    torch.testing.assert_close(found.double(), literal(dense, mask, inputs, damp), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("density", [0.4, 0.6])
@pytest.mark.parametrize("entries", [1, 100, 300])
def test_outputs_are_solved_for_in_any_number_of_batches(
    density: float, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(least_squares, "ENTRIES", entries)
    target, inputs, mask = make_target(), make_inputs(), random_mask(density)
    dense = target.matrix.clone()
    found = update(target, mask, inputs)
    torch.testing.assert_close(found.double(), literal(dense, mask, inputs, 0.01), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("density", [0.15, 0.4, 0.6, 0.9])
@pytest.mark.parametrize("tokens", [5, 50])  # fewer tokens than inputs: the damping decides between solutions
def test_the_outputs_change_no_more_than_by_pruning_alone(density: float, tokens: int) -> None:
    target, inputs, mask = make_target(), make_inputs(tokens), random_mask(density)
    dense = target.matrix.clone()
    found = update(target, mask, inputs)
    masked, updated = error(dense * mask, dense, inputs), error(found, dense, inputs)
    assert (updated <= masked * (1 + 1e-6)).all()
    assert float(updated.sum()) < 0.9 * float(masked.sum())


def test_what_is_not_kept_is_left_to_the_caller() -> None:
    target, mask = make_target(), random_mask(0.5)
    dense = target.matrix.clone()
    update(target, mask, make_inputs())
    assert torch.equal(target.matrix[~mask], dense[~mask])
    assert torch.equal(target.matrix[6], dense[6])  # nothing goes
    assert (target.matrix[mask] != dense[mask]).any()


def test_weights_pruned_before_take_no_part() -> None:
    target, inputs, mask = make_target(), make_inputs(), random_mask(0.3)
    before = random_mask(0.6) | mask
    target.matrix.mul_(before)
    dense = target.matrix.clone()
    found = update(target, mask, inputs)
    torch.testing.assert_close(found.double(), literal(dense, mask, inputs, 0.01), rtol=1e-4, atol=1e-5)
    assert not target.matrix[~before].any()
    again = found.clone()
    target.matrix.copy_(found)
    assert torch.equal(update(target, mask, inputs), again)  # nothing more is lost


def test_without_any_input_nothing_changes() -> None:
    target, mask = make_target(), random_mask(0.5)
    dense = target.matrix.clone()
    assert torch.equal(update(target, mask, torch.zeros(4, COLUMNS)), dense * mask)


def test_an_input_that_is_always_zero() -> None:
    target, inputs, mask = make_target(), make_inputs(), random_mask(0.5)
    inputs[:, 4] = 0
    dense = target.matrix.clone()
    found = update(target, mask, inputs)
    torch.testing.assert_close(found.double(), literal(dense, mask, inputs, 0.01), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[:, 4], (dense * mask)[:, 4])


@pytest.mark.parametrize("density", [0.4, 0.7])
def test_a_singular_system_is_refused(density: float) -> None:
    target, inputs = make_target(), make_inputs()
    inputs[:, 4] = 0
    inputs[:, 5] = 0
    with pytest.raises(RunError, match=r"X X\^T of layer\.weight is singular: raise pruning\.update\.params\.damp"):
        update(target, random_mask(density), inputs, damp=0.0)


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError, match=r"pruning\.update\.params\.damp=-1: choose at least 0"):
        UPDATES.build("least_squares", {"damp": -1.0})


def test_bfloat16_weights_are_worked_on_in_float32() -> None:
    half, full = make_target(dtype=torch.bfloat16), make_target()
    full.matrix.copy_(half.matrix)
    mask, inputs = random_mask(0.5), make_inputs()
    found = update(half, mask, inputs)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), update(full, mask, inputs), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("scope", ["row", "uniform", "global"])
def test_a_model_s_layers_come_closer_to_what_they_were(scope: str) -> None:
    found = {}
    for made in (None, LeastSquares()):
        model = make_model()
        axes = Axes(CRITERIA.build("wanda"), SCOPES.build(scope), PATTERNS.build("unstructured"), update=made)
        sparsifier = Sparsifier(encoder_targets(model), axes)
        assert sparsifier.update(0.5, make_calibration(model)).achieved == 0.5
        query = sparsifier.targets[0]
        gram = Gram(query)
        make_calibration(model).observe_inputs([(query, gram)])
        dense = encoder_targets(make_model())[0].matrix
        change = query.matrix - dense
        found[made is None] = float(((change @ gram.matrix) * change).sum())
        masks = sparsifier.masks
        assert not any(target.weight[~masks[target.name]].any() for target in sparsifier.targets)
    assert found[False] < 0.9 * found[True]
