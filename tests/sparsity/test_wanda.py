"""Wanda, its variant and GBLM against their equations, written out in loops."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from calibrating import EXAMPLES, make_calibration, make_model
from fakes import FakeTarget, make_targets
from torch import Tensor, nn
from transformers import GPT2Config, GPT2ForSequenceClassification

from prunebench.errors import UsageError
from prunebench.sparsity.calibration import Calibration
from prunebench.sparsity.criteria import CRITERIA
from prunebench.sparsity.criteria.gblm import NormsAndGradients
from prunebench.sparsity.masks import top_mask, top_per_row
from prunebench.sparsity.sparsifier import build_sparsifier
from prunebench.sparsity.stats import InputNorm
from prunebench.targets import Target, find_targets, layers_of


def observed(target: FakeTarget, batches: list[Tensor]) -> InputNorm:
    stat = InputNorm(target)  # type: ignore[arg-type]
    for batch in batches:
        stat.observe_inputs(batch, 1)
    return stat


def batches_for(target: FakeTarget, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(tokens, target.matrix.shape[1], generator=generator) for tokens in (5, 1, 8)]


def literal_wanda(target: FakeTarget, batches: list[Tensor]) -> list[list[float]]:
    tokens = torch.cat(batches).double().tolist()
    norms = [math.sqrt(sum(token[j] ** 2 for token in tokens)) for j in range(target.matrix.shape[1])]
    return [[abs(weight) * norm for weight, norm in zip(row, norms, strict=True)] for row in target.matrix.tolist()]


def test_wanda_is_a_weight_times_the_norm_of_its_input() -> None:
    for target in make_targets():
        batches, before = batches_for(target), target.weight.clone()
        score = CRITERIA.build("wanda").score(target, observed(target, batches))
        assert score.tolist() == [pytest.approx(row, rel=1e-5) for row in literal_wanda(target, batches)]
        assert torch.equal(target.weight, before)


def shares(row: list[float]) -> list[float]:
    return [sum(other for other in row if other <= score) / sum(row) for score in row]


def test_the_variant_is_one_share_of_the_total_for_all_rows() -> None:
    for target in make_targets():
        batches, before = batches_for(target), target.weight.clone()
        scores = literal_wanda(target, batches)
        found = CRITERIA.build("wanda_variant").score(target, observed(target, batches))
        assert found.tolist() == [pytest.approx(shares(row), rel=1e-5) for row in scores]
        assert torch.equal(target.weight, before)


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.75])
def test_the_variant_is_where_a_bisection_of_alpha_ends(sparsity: float) -> None:
    for target in make_targets():
        batches = batches_for(target)
        scores, size = literal_wanda(target, batches), target.weight.numel()
        low, high, pruned = 0.0, 1.0, [[False]]
        while sum(map(sum, pruned)) != sparsity * size:  # no two shares are equal, so every number can be reached
            alpha = (low + high) / 2
            pruned = []
            for row in scores:
                ordered, total = sorted(row), 0.0
                threshold = -1.0
                for score in ordered:
                    total += score
                    if total <= alpha * sum(row):
                        threshold = score
                pruned.append([score <= threshold for score in row])
            low, high = (low, alpha) if sum(map(sum, pruned)) > sparsity * size else (alpha, high)
        found = CRITERIA.build("wanda_variant").score(target, observed(target, batches))
        assert (~top_mask(found, round((1 - sparsity) * size))).tolist() == pruned


def test_within_a_row_the_variant_ranks_as_wanda_does_ties_included() -> None:
    for target in make_targets():
        target.weight.data = target.weight.sign() * (1 + target.weight.abs().floor().clamp(max=2))  # 1, 2 or 3
        stat = observed(target, [torch.ones(3, target.matrix.shape[1])])
        plain, variant = (CRITERIA.build(name).score(target, stat) for name in ("wanda", "wanda_variant"))
        for count in range(target.matrix.shape[1]):
            assert torch.equal(top_per_row(plain, count), top_per_row(variant, count))


def test_the_variant_has_no_trouble_with_inputs_that_are_always_zero() -> None:
    target = make_targets()[0]
    score = CRITERIA.build("wanda_variant").score(target, observed(target, [torch.zeros(3, 16)]))
    assert torch.equal(score, torch.zeros(8, 16))


# --- in the sparsifier ---


def literal_inputs(calibration: Calibration, target: Target) -> Tensor:
    """(tokens, in), float64, of the whole model as it is."""
    rows: list[Tensor] = []
    for index in calibration.indices:
        batch = calibration.batch_of(np.array([index]))
        handle = target.module.register_forward_pre_hook(lambda _, args: rows.append(args[0][0]))
        calibration.loss_of(batch)
        handle.remove()
        rows[-1] = rows[-1][: int(batch["attention_mask"].sum())]
    return torch.cat(rows).detach().double()


def make_gpt2() -> nn.Module:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=50, n_positions=10, n_embd=16, n_layer=2, n_head=2, num_labels=3, pad_token_id=0,
        initializer_range=0.2, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    return GPT2ForSequenceClassification(config).eval()


@pytest.mark.parametrize("make", [make_model, make_gpt2])
def test_wanda_layer_by_layer_removes_the_lowest_of_every_row(make: type) -> None:
    model = make()
    by_hand = deepcopy(model)
    sparsifier = build_sparsifier(find_targets(model, ["encoder"]), criterion="wanda", scope="row")
    sparsifier.update(0.25, make_calibration(model))
    calibration, targets = make_calibration(by_hand), find_targets(by_hand, ["encoder"])
    for layer in layers_of(by_hand):
        inside = [target for target in targets if target.module in set(layer.modules())]
        norms = {target.name: literal_inputs(calibration, target).square().sum(0).sqrt() for target in inside}
        for target in inside:
            for row in target.matrix:
                lowest = sorted(range(len(row)), key=lambda j: abs(float(row[j])) * float(norms[target.name][j]))
                row[lowest[: len(row) // 4]] = 0
    for target, other in zip(targets, sparsifier.targets, strict=True):
        assert torch.equal(target.weight, other.weight), target.name


# --- GBLM ---


def observed_gradients(target: FakeTarget, norm: str) -> tuple[NormsAndGradients, list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(1)
    stat = CRITERIA.build("gblm", {"norm": norm}).stat(target)
    gradients = [torch.randn(target.matrix.shape, generator=generator) / 100 for _ in range(4)]
    batches = batches_for(target)
    for gradient in gradients:
        stat.observe_gradient(gradient)
    for batch in batches:
        stat.observe_inputs(batch, 2)
    return stat, batches, gradients


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("factor", [100.0, 3.0])
def test_gblm_adds_the_norm_of_gradients(norm: str, factor: float) -> None:
    for target in make_targets():
        stat, batches, gradients = observed_gradients(target, norm)
        before = target.weight.clone()
        score = CRITERIA.build("gblm", {"norm": norm, "factor": factor}).score(target, stat)
        inputs = torch.cat(batches).double()
        for i, row in enumerate(target.matrix.double().tolist()):
            for j, weight in enumerate(row):
                mean = sum(float(token[j]) ** 2 for token in inputs) / 6  # 3 batches of 2 sequences
                found = [abs(factor * float(gradient[i, j])) for gradient in gradients]
                total = sum(found) if norm == "l1" else math.sqrt(sum(value**2 for value in found))
                assert float(score[i, j]) == pytest.approx(abs(weight) * (math.sqrt(mean) + total), rel=1e-5)
        assert torch.equal(target.weight, before)


def test_gblm_sees_gradients_of_the_dense_model_and_inputs_of_the_pruned_one() -> None:
    model = make_model()
    by_hand = deepcopy(model)
    criterion = CRITERIA.build("gblm")
    assert criterion.sample.batch_size == 1
    sparsifier = build_sparsifier(find_targets(model, ["encoder"]), criterion="gblm", scope="row")
    sparsifier.update(0.25, replace(make_calibration(model), batch_size=1))
    calibration, targets = make_calibration(by_hand), find_targets(by_hand, ["encoder"])
    squares = {target.name: torch.zeros_like(target.weight, dtype=torch.float64) for target in targets}
    for index in range(EXAMPLES):
        by_hand.zero_grad()
        calibration.loss_of(calibration.batch_of(np.array([index]))).backward()
        for target in targets:
            squares[target.name] += (100 * target.weight.grad.double()).square()  # type: ignore[union-attr]
    for layer in layers_of(by_hand):
        inside = [target for target in targets if target.module in set(layer.modules())]
        norms = {
            target.name: (literal_inputs(calibration, target).square().sum(0) / EXAMPLES).sqrt() for target in inside
        }
        for target in inside:
            score = target.matrix.abs() * (norms[target.name] + squares[target.name].sqrt())
            lowest = score.argsort(dim=1)[:, : target.matrix.shape[1] // 4]
            target.matrix.scatter_(1, lowest, 0)
    for target, other in zip(targets, sparsifier.targets, strict=True):
        assert torch.equal(target.weight, other.weight), target.name


def test_gblm_knows_two_norms() -> None:
    with pytest.raises(UsageError, match="norm=l3 is no norm of gradients: choose l1 or l2"):
        CRITERIA.build("gblm", {"norm": "l3"})
