"""Calibration against whole passes of the model with plain hooks, and against autograd."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from calibrating import CLASSES, EXAMPLES, LENGTH, VOCABULARY, encoder_targets, make_calibration, make_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForMultipleChoice, AutoModelForSequenceClassification

from prunebench.errors import RunError, UsageError
from prunebench.sparsity.calibration import Calibration
from prunebench.sparsity.stats import InputStat
from prunebench.targets import Target, find_targets

EOS = 2
SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
GPT2 = {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": LENGTH, "bos_token_id": 1}
PLAIN: dict[str, dict[str, Any]] = {
    "bert": SIZES,
    "distilbert": {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 24},
    "roberta": SIZES | {"max_position_embeddings": LENGTH + 2},
    "electra": SIZES | {"embedding_size": 8},
    "mpnet": SIZES | {"max_position_embeddings": LENGTH + 2},
    "deberta": SIZES | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": SIZES | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "gpt2": GPT2,
    "opt": SIZES | {"ffn_dim": 24, "word_embed_proj_dim": 16},
}
OTHER: dict[str, dict[str, Any]] = {  # layers that are used several times, two stacks, arguments that differ
    "albert": SIZES | {"embedding_size": 8},
    "t5": {
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 24,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_heads": 2,
        "decoder_start_token_id": 0,
    },
    "modernbert": SIZES | {"local_attention": 4, "global_attn_every_n_layers": 2, "reference_compile": False},
}


class Recorder(InputStat):
    def __init__(self) -> None:
        self.inputs: list[Tensor] = []
        self.sequences = 0

    def observe_inputs(self, inputs: Tensor, sequences: int) -> None:
        assert inputs.dtype == torch.float32
        self.inputs.append(inputs.clone())
        self.sequences += sequences


def build(family: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    common = {"vocab_size": VOCABULARY, "max_position_embeddings": LENGTH, "pad_token_id": 0, "eos_token_id": EOS}
    settings = common | {"num_labels": CLASSES, "initializer_range": 0.2} | (PLAIN | OTHER)[family]
    model: nn.Module = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, **settings))
    return model.eval()


def calibration_of(model: nn.Module, **settings: Any) -> Calibration:
    """Every sentence ends in EOS and has no other, as T5 wants it."""
    plain = make_calibration(model, **settings)

    def batch_of(indices: np.ndarray) -> Mapping[str, Tensor]:
        batch = dict(plain.batch_of(indices))
        ids = batch["input_ids"].where(batch["input_ids"] != EOS, EOS + 1)
        last = batch["attention_mask"].sum(1, keepdim=True) - 1
        return batch | {"input_ids": ids.scatter(1, last, EOS)}

    return replace(plain, batch_of=batch_of)


def given_to(calibration: Calibration, batch: Mapping[str, Tensor], targets: list[Target]) -> list[tuple[str, Tensor]]:
    """The inputs of the targets' modules in one pass, call by call."""
    given: list[tuple[str, Tensor]] = []
    handles = [
        target.module.register_forward_pre_hook(lambda _, args, name=target.name: given.append((name, args[0])))
        for target in targets
    ]
    calibration.loss_of(batch)
    for handle in handles:
        handle.remove()
    return given


def whole_passes(calibration: Calibration, targets: list[Target]) -> dict[str, Tensor]:
    """What every target is given when the whole model runs, sentence by sentence without padding."""
    seen: dict[str, list[Tensor]] = {target.name: [] for target in targets}
    for indices in calibration.by_length():
        batch = calibration.batch_of(indices)
        mask = batch["attention_mask"]
        for name, inputs in given_to(calibration, batch, targets):
            if inputs.numel() == mask.numel() * inputs.shape[-1]:
                sentences = zip(inputs.reshape(*mask.shape, -1), mask.sum(1).tolist(), strict=True)
                seen[name] += [sentence[:length] for sentence, length in sentences]
            else:
                seen[name].append(inputs.reshape(-1, inputs.shape[-1]))
    return {name: torch.cat(inputs).float() for name, inputs in seen.items()}


def prune(target: Target) -> None:
    """Half of the weights."""
    generator = torch.Generator().manual_seed(len(target.name))
    target.matrix.mul_(torch.rand(target.matrix.shape, generator=generator) < 0.5)


def walk(calibration: Calibration, targets: list[Target]) -> list[list[str]]:
    """Compares the inputs of every layer with whole passes, all before it being pruned; the names in that order."""
    order = []
    recorders: dict[str, Recorder] = {}

    def observers_of(members: list[Target]) -> list[tuple[Target, InputStat]]:
        assert members
        recorders.update({target.name: Recorder() for target in members})
        return [(target, recorders[target.name]) for target in members]

    for members in calibration.layer_by_layer(targets, observers_of):
        expected = whole_passes(calibration, members)
        for target in members:
            found = torch.cat(recorders[target.name].inputs)
            torch.testing.assert_close(found, expected[target.name], rtol=1e-5, atol=1e-6, msg=target.name)
            prune(target)
        order.append([target.name for target in members])
    return order


def counting_passes(calibration: Calibration) -> tuple[Calibration, list[int]]:
    passes: list[int] = []

    def loss_of(batch: Mapping[str, Tensor]) -> Tensor:
        passes.append(len(batch["labels"]))
        return calibration.loss_of(batch)

    return replace(calibration, loss_of=loss_of), passes


# --- inputs ---


@pytest.mark.parametrize("family", [*PLAIN, *OTHER])
def test_layers_see_what_pruned_layers_before_them_give(family: str) -> None:
    model = build(family)
    targets = find_targets(model, ["encoder", "head"])
    order = walk(calibration_of(model), targets)
    assert sorted(chain.from_iterable(order)) == sorted(target.name for target in targets)
    assert len(order) == {"albert": 2, "t5": 5}.get(family, 4)
    assert not any(target.component == "encoder" for target in targets if target.name in order[-1])


@pytest.mark.parametrize("family", [*PLAIN, *OTHER])
def test_the_whole_model_is_run_once_where_layers_can_be_run_by_themselves(family: str) -> None:
    model = build(family)
    calibration, passes = counting_passes(calibration_of(model))
    targets = find_targets(model, ["encoder"])
    layers = list(calibration.layer_by_layer(targets, lambda members: [(target, Recorder()) for target in members]))
    batches = len(calibration.by_length())
    if family in PLAIN:
        assert len(passes) == batches + 2  # and two to see that it may be done
    else:
        assert len(passes) >= batches * len(layers)


class Blurring(nn.Module):
    """Adds a map of the mean of the last `reach` tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, hidden: Tensor, reach: int) -> Tensor:
        sums = hidden.cumsum(1)
        return hidden + self.linear(sums - nn.functional.pad(sums, (0, 0, reach, 0))[:, : sums.shape[1]])


class FarAndNear(nn.Module):
    """Layers that differ in how far they see, which shows on long sequences only."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.layers = nn.ModuleList([Blurring(), Blurring()])

    def forward(self, input_ids: Tensor, **others: Tensor) -> Any:
        hidden = self.embedding(input_ids)
        for layer, reach in zip(self.layers, (LENGTH, 4), strict=True):
            hidden = layer(hidden, reach)
        return SimpleNamespace(loss=hidden.mean())


def test_long_sequences_decide_whether_layers_can_be_run_by_themselves() -> None:
    torch.manual_seed(0)
    plain = make_calibration(FarAndNear())

    def batch_of(indices: np.ndarray) -> Mapping[str, Tensor]:
        batch = plain.batch_of(indices)
        longest = int(batch["attention_mask"].sum(1).max())
        return {name: value[:, :longest] if value.ndim == 2 else value for name, value in batch.items()}

    calibration = replace(plain, batch_of=batch_of)
    shortest, longest = (batch_of(calibration.by_length()[at])["input_ids"].shape[1] for at in (0, -1))
    assert shortest <= 4 < longest
    walk(calibration, find_targets(calibration.model, ["encoder"]))


def test_sequences_are_counted_and_padding_is_not() -> None:
    model = make_model()
    calibration = make_calibration(model)
    query = encoder_targets(model)[0]
    pooler = find_targets(model, ["pooler"])[0]
    inside, pooled = Recorder(), Recorder()
    calibration.observe_inputs([(query, inside), (pooler, pooled)])
    assert inside.sequences == pooled.sequences == EXAMPLES
    assert sum(map(len, inside.inputs)) == int(calibration.lengths.sum())
    assert sum(map(len, pooled.inputs)) == EXAMPLES


def test_several_choices_are_several_sequences() -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model("bert", vocab_size=VOCABULARY, max_position_embeddings=LENGTH, **SIZES)
    model = AutoModelForMultipleChoice.from_config(config).eval()
    plain = make_calibration(model)

    def batch_of(indices: np.ndarray) -> Mapping[str, Tensor]:
        pairs = [plain.batch_of(np.array([index, (index + 1) % EXAMPLES])) for index in indices]
        ids, masks = (torch.stack([pair[name] for pair in pairs]) for name in ("input_ids", "attention_mask"))
        return {"input_ids": ids, "attention_mask": masks, "labels": torch.zeros(len(indices), dtype=torch.long)}

    query, seen = encoder_targets(model)[0], Recorder()
    replace(plain, batch_of=batch_of).observe_inputs([(query, seen)])
    assert seen.sequences == 2 * EXAMPLES
    assert sum(map(len, seen.inputs)) == 2 * int(plain.lengths.sum())


def test_layers_are_run_in_the_precision_of_the_model() -> None:
    model = build("bert")
    plain = calibration_of(model)

    def half() -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16)

    def loss_of(batch: Mapping[str, Tensor]) -> Tensor:
        with half():
            return plain.loss_of(batch)

    calibration, passes = counting_passes(replace(plain, loss_of=loss_of, autocast=half))
    targets = encoder_targets(model)
    list(calibration.layer_by_layer(targets, lambda members: []))
    assert len(passes) == len(calibration.by_length()) + 2  # so bit for bit the same: else the stack is no plain one
    walk(calibration, targets)
    without = replace(calibration, autocast=nullcontext)
    passes.clear()
    list(without.layer_by_layer(targets, lambda members: [(target, Recorder()) for target in members]))
    assert len(passes) > 2 * len(calibration.by_length())


def test_what_cannot_be_observed_is_refused() -> None:
    model = make_model()
    calibration = make_calibration(model)
    targets = find_targets(model, ["encoder", "embeddings"])
    table = next(target for target in targets if target.component == "embeddings")
    with pytest.raises(UsageError, match=r"word_embeddings\.weight is a table"):
        calibration.observe_inputs([(table, Recorder())])
    walking = calibration.layer_by_layer(targets, lambda members: [(target, Recorder()) for target in members])
    with pytest.raises(UsageError, match=r"word_embeddings\.weight is a table"):
        next(walking)
    assert sum(map(len, calibration.layer_by_layer(targets, lambda members: []))) == len(targets)


def test_inputs_that_are_not_finite_are_refused() -> None:
    model = make_model()
    first, second = encoder_targets(model)[:2]
    model.bert.embeddings.word_embeddings.weight.data.fill_(torch.nan)
    with pytest.raises(RunError, match=f"the inputs of {first.name} are not finite"):
        make_calibration(model).observe_inputs([(first, Recorder()), (second, Recorder())])


# --- gradients and losses ---


def by_backward(calibration: Calibration, targets: list[Target], indices: np.ndarray) -> list[Tensor]:
    calibration.model.zero_grad()
    calibration.loss_of(calibration.batch_of(indices)).backward()
    found = [target.weight.grad.clone() for target in targets]  # type: ignore[union-attr]
    calibration.model.zero_grad()
    return [gradient.T if target.transposed else gradient for gradient, target in zip(found, targets, strict=True)]


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_gradients_are_those_of_the_mean_loss_without_dropout(family: str) -> None:
    model = build(family)
    targets = find_targets(model, ["encoder", "embeddings"])
    calibration = calibration_of(model, batch_size=5)
    expected = [by_backward(calibration, targets, np.arange(start, start + 5)) for start in range(0, 20, 5)]
    model.train()  # dropout 0.1, unless calibration turns it off
    found = list(calibration.gradients(targets))
    assert len(found) == 4  # of 24 examples; a short batch would weigh as much as a full one
    for batch, wanted in zip(found, expected, strict=True):
        for target, gradient, other in zip(targets, batch, wanted, strict=True):
            assert gradient.shape == target.matrix.shape
            torch.testing.assert_close(gradient, other, rtol=1e-5, atol=1e-7)
    assert all(target.weight.grad is None for target in targets)


def test_a_gradient_is_a_slope() -> None:
    model = make_model().double()
    target = encoder_targets(model)[1]
    calibration = make_calibration(model, batch_size=EXAMPLES)
    (gradient,) = next(calibration.gradients([target]))
    losses = []
    for step in (1e-5, -1e-5):
        target.matrix[3, 2] += step
        losses.append(calibration.loss())
        target.matrix[3, 2] -= step
    assert float(gradient[3, 2]) == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-5)


def test_the_loss_is_the_mean_over_examples() -> None:
    calibration = make_calibration(make_model(), batch_size=7)
    one_by_one = [float(calibration.loss_of(calibration.batch_of(np.array([index])))) for index in range(EXAMPLES)]
    assert calibration.loss() == pytest.approx(sum(one_by_one) / EXAMPLES, rel=1e-5)


def test_a_loss_that_is_not_finite_is_refused() -> None:
    model = make_model()
    target = encoder_targets(model)[0]
    target.matrix[0, 0] = torch.nan
    with pytest.raises(RunError, match="loss of calibration examples is nan"):
        next(make_calibration(model).gradients([target]))


# --- batches ---


def test_batches() -> None:
    calibration = make_calibration(make_model(), batch_size=7)
    by_length, at_random = calibration.by_length(), calibration.at_random()
    assert sorted(np.concatenate(by_length)) == list(range(EXAMPLES))
    ordered = calibration.lengths[np.concatenate(by_length)]
    assert (np.diff(ordered) >= 0).all() and max(map(len, by_length)) == 7
    assert [list(batch) for batch in at_random] == [list(range(0, 7)), list(range(7, 14)), list(range(14, 21))]
    few = make_calibration(make_model(), examples=3, batch_size=7)
    assert [list(batch) for batch in few.at_random()] == [[0, 1, 2]]


# --- the model is left as it was ---


def look_at_inputs(calibration: Calibration, targets: list[Target]) -> None:
    calibration.observe_inputs([(target, Recorder()) for target in targets])


def look_at_one_layer(calibration: Calibration, targets: list[Target]) -> None:
    walking = calibration.layer_by_layer(targets, lambda members: [(target, Recorder()) for target in members])
    next(walking)
    walking.close()  # type: ignore[attr-defined]


def fail_in_a_layer(calibration: Calibration, targets: list[Target]) -> None:
    class Failing(Recorder):
        def observe_inputs(self, inputs: Tensor, sequences: int) -> None:
            raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        list(calibration.layer_by_layer(targets, lambda members: [(targets[-1], Failing())]))


@pytest.mark.parametrize(
    "look",
    [
        look_at_inputs,
        look_at_one_layer,
        fail_in_a_layer,
        lambda calibration, targets: list(calibration.layer_by_layer(targets, lambda members: [])),
        lambda calibration, targets: next(calibration.gradients(targets)),
        lambda calibration, targets: calibration.loss(),
    ],
)
@pytest.mark.parametrize("family", ["bert", "t5"])
def test_mode_weights_and_hooks_are_restored(look: Callable[[Calibration, list[Target]], object], family: str) -> None:
    model = build(family).train()
    targets = find_targets(model, ["encoder"])
    targets[0].module.eval()  # a part that is kept out of training
    modes = [module.training for module in model.modules()]
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    look(calibration_of(model), targets)
    assert [module.training for module in model.modules()] == modes
    assert torch.is_grad_enabled()
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
