"""DSnoT against the paper's exchanges, made one at a time with lists of numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from calibrating import encoder_targets, make_calibration, make_model
from fakes import FakeTarget
from torch import Tensor, nn

from prunebench.errors import UsageError
from prunebench.sparsity.criteria import CRITERIA
from prunebench.sparsity.dsnot import DSnoT, InputMoments
from prunebench.sparsity.patterns import PATTERNS
from prunebench.sparsity.refinements import REFINEMENTS
from prunebench.sparsity.scopes import SCOPES
from prunebench.sparsity.sparsifier import Axes, Sparsifier

ROWS, COLUMNS = 12, 24


def make_target(transposed: bool = False, seed: int = 0) -> FakeTarget:
    weight = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed))
    stored = weight.T.contiguous() if transposed else weight
    return FakeTarget("layer.0.attention.weight", nn.Parameter(stored, requires_grad=False), transposed)


def make_batches(seed: int = 1) -> list[Tensor]:
    """Inputs with means of both signs and variances of several sizes; 2 sequences each."""
    generator = torch.Generator().manual_seed(seed)
    mean, scale = torch.randn(COLUMNS, generator=generator), torch.rand(COLUMNS, generator=generator) + 0.1
    return [torch.randn(tokens, COLUMNS, generator=generator) * scale + mean for tokens in (4, 9, 2)]


def make_stat(target: FakeTarget, batches: list[Tensor]) -> InputMoments:
    stat = InputMoments(target)  # type: ignore[arg-type]
    for batch in batches:
        stat.observe_inputs(batch, 2)
    return stat


def random_mask(density: float = 0.5, seed: int = 2) -> Tensor:
    return torch.rand(ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed)) < density


def group_mask(keep: int, size: int) -> Tensor:
    order = torch.rand(ROWS, COLUMNS // size, size, generator=torch.Generator().manual_seed(3)).argsort(-1)
    return (order < keep).view(ROWS, COLUMNS)


def moments(batches: list[Tensor]) -> tuple[list[float], list[float], list[float]]:
    """Of every input: the sum over a sequence's tokens, the norm, the variance within batches weighed by tokens."""
    tokens = sum(len(batch) for batch in batches)
    sums, norms, variances = [], [], []
    for column in range(COLUMNS):
        columns = [batch[:, column].double().tolist() for batch in batches]
        sums.append(sum(map(sum, columns)) / (2 * len(batches)))
        norms.append(math.sqrt(sum(value**2 for values in columns for value in values)))
        means = [sum(values) / len(values) for values in columns]
        squares = [sum((v - mean) ** 2 for v in values) for values, mean in zip(columns, means, strict=True)]
        variances.append(sum(squares) / tokens)
    return sums, norms, variances


def literal_row(
    weight: list[float], mask: list[bool], alive: list[bool], stats: tuple[list[float], list[float], list[float]],
    *, group: int | None = None, cycles: int = 50, threshold: float = 0.1, variance_power: float = 1.0,
    same_sign: bool = False,
) -> list[bool]:  # fmt: skip
    sums, norms, variances = stats
    effect = [w * s for w, s in zip(weight, sums, strict=True)]
    score = [abs(w) * norm for w, norm in zip(weight, norms, strict=True)]
    mask, places = list(mask), range(len(weight))
    pruned, kept = [j for j in places if alive[j] and not mask[j]], [j for j in places if mask[j]]
    error = sum(effect[j] for j in places if not mask[j])
    first = math.copysign(1, error)
    for _ in range(cycles):
        if abs(error) <= threshold:
            break
        sign = math.copysign(1, error)
        back = [j for j in pruned if effect[j] * sign > 0]
        if not back:
            break
        comes = max(back, key=lambda j: abs(effect[j]) / variances[j] ** variance_power)
        if group is None:
            may_go = [j for j in kept if effect[j] * sign < 0]
        else:
            may_go = [j for j in kept if j // group == comes // group]
        pruned.remove(comes)
        if not may_go:
            continue
        goes = min(may_go, key=lambda j: score[j])
        after = error + effect[goes] - effect[comes]
        if (same_sign or group is not None) and math.copysign(1, after) != first:
            break
        kept.remove(goes)
        mask[comes], mask[goes], error = True, False, after
    return mask


def literal(
    target: FakeTarget, mask: Tensor, alive: Tensor, batches: list[Tensor], **settings: Any
) -> list[list[bool]]:
    rows = zip(target.matrix.double().tolist(), mask.tolist(), alive.tolist(), strict=True)
    return [literal_row(*row, moments(batches), **settings) for row in rows]


ALL = torch.ones(ROWS, COLUMNS, dtype=torch.bool)


def test_statistics() -> None:
    batches = make_batches()
    stat = make_stat(make_target(), [*batches, torch.zeros(0, COLUMNS)])
    sums, norms, variances = moments(batches)
    assert stat.sequence_sum().tolist() == pytest.approx(sums, rel=1e-5)
    assert stat.norm().tolist() == pytest.approx(norms, rel=1e-5)
    assert stat.variance().tolist() == pytest.approx(variances, rel=1e-4)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"cycles": 1},
        {"cycles": 4},
        {"threshold": 2.0},
        {"threshold": 0.0},
        {"variance_power": 0.0},
        {"variance_power": 0.5},
        {"same_sign": True},
    ],
)
@pytest.mark.parametrize("density", [0.5, 0.1, 0.9])
def test_exchanges(settings: dict[str, Any], density: float, transposed: bool) -> None:
    target, batches, mask = make_target(transposed), make_batches(), random_mask(density)
    before = target.weight.clone()
    found = DSnoT(**settings).refine(target, mask, ALL, make_stat(target, batches))
    assert found.tolist() == literal(target, mask, ALL, batches, **settings)
    assert torch.equal(found.sum(1), mask.sum(1))
    assert not torch.equal(found, mask)
    assert torch.equal(target.weight, before)


@pytest.mark.parametrize(("keep", "size"), [(2, 4), (4, 8), (1, 4), (3, 4), (5, 12)])
@pytest.mark.parametrize("settings", [{}, {"cycles": 3}, {"threshold": 1.0}])
def test_exchanges_within_groups(keep: int, size: int, settings: dict[str, Any]) -> None:
    target, batches, mask = make_target(), make_batches(), group_mask(keep, size)
    pattern = PATTERNS.build("n_m", {"n": keep, "m": size})
    found = DSnoT(pattern=pattern, **settings).refine(target, mask, ALL, make_stat(target, batches))
    assert found.tolist() == literal(target, mask, ALL, batches, group=size, **settings)
    assert (found.reshape(-1, size).sum(1) == keep).all()
    assert not torch.equal(found, mask)


@pytest.mark.parametrize("pattern", ["unstructured", "n_m"])
def test_what_was_pruned_before_does_not_come_back(pattern: str) -> None:
    target, batches = make_target(), make_batches()
    alive = random_mask(0.7, seed=7)
    mask = group_mask(2, 4) & alive
    made = PATTERNS.build(pattern, {"n": 2, "m": 4} if pattern == "n_m" else {})
    found = DSnoT(pattern=made).refine(target, mask, alive, make_stat(target, batches))
    assert not (found & ~alive).any()
    group = 4 if pattern == "n_m" else None
    assert found.tolist() == literal(target, mask, alive, batches, group=group)
    assert not torch.equal(found, mask)


def test_the_mean_error_shrinks() -> None:
    target, batches, mask = make_target(), make_batches(), random_mask()
    stat = make_stat(target, batches)
    found = DSnoT().refine(target, mask, ALL, stat)
    effect = target.matrix * stat.sequence_sum()
    before, after = (effect.masked_fill(each, 0).sum(1).abs() for each in (mask, found))
    assert float(after.mean()) < 0.2 * float(before.mean())


@pytest.mark.parametrize("mask", [ALL, ~ALL])
def test_nothing_to_exchange(mask: Tensor) -> None:
    target = make_target()
    assert torch.equal(DSnoT().refine(target, mask, ALL, make_stat(target, make_batches())), mask)


def test_inputs_that_never_change() -> None:
    """A variance of zero makes a weight come back first, and an input of zero never."""
    target = make_target()
    batches = [torch.zeros(3, COLUMNS), torch.zeros(2, COLUMNS)]
    for batch in batches:
        batch[:, 5] = 1.0
    mask = ALL.clone()
    mask[:, 5:8] = False
    assert torch.equal(DSnoT().refine(target, mask, ALL, make_stat(target, batches)), mask)  # nothing to go for it


def test_layers_are_left_out_by_name() -> None:
    names = {
        "bert.encoder.layer.0.attention.self.query.weight": "attention",
        "transformer.h.0.attn.c_attn.weight": "attention",
        "model.decoder.layers.0.self_attn.k_proj.weight": "attention",
        "encoder.block.0.layer.0.SelfAttention.q.weight": "attention",
        "bert.encoder.layer.0.intermediate.dense.weight": "mlp", "bert.encoder.layer.0.output.dense.weight": "mlp",
        "transformer.h.0.mlp.c_fc.weight": "mlp", "model.decoder.layers.0.fc1.weight": "mlp",
    }  # fmt: skip
    for name, part in names.items():
        target = FakeTarget(name, make_target().weight)
        mask = random_mask()
        for skip in ("mlp", "attention", "none"):
            refinement = DSnoT(skip=skip)
            assert (refinement.stat(target) is None) == (part == skip)
            if part == skip:
                assert torch.equal(refinement.refine(target, mask, ALL, None), mask)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="skip=ffn: choose mlp, attention or none"):
        REFINEMENTS.build("dsnot", {"skip": "ffn"})
    with pytest.raises(UsageError, match="would break up blocks: set pruning/pattern=unstructured"):
        REFINEMENTS.build("dsnot", pattern=PATTERNS.build("block", {"m": 4}))


@pytest.mark.parametrize(
    ("scope", "pattern"), [("row", "unstructured"), ("global", "unstructured"), ("uniform", "n_m")]
)
def test_in_a_model(scope: str, pattern: str) -> None:
    made = PATTERNS.build(pattern, {"n": 2, "m": 4} if pattern == "n_m" else {})
    masks = []
    for refinement in (None, DSnoT(skip="none", threshold=0.01, pattern=made)):
        model = make_model()
        axes = Axes(CRITERIA.build("wanda"), SCOPES.build(scope), made, refinement)
        sparsifier = Sparsifier(encoder_targets(model), axes)
        assert sparsifier.update(0.25, make_calibration(model)).achieved == pytest.approx(0.25)
        assert sparsifier.update(0.5, make_calibration(model)).achieved == pytest.approx(0.5)
        assert all(made.holds(mask) for mask in sparsifier.masks.values())
        masks.append(sparsifier.masks)
    plain, refined = masks
    assert any(not torch.equal(plain[name], refined[name]) for name in plain)
