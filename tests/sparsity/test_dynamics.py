"""Every dynamics against its equations, written out literally, on a net of 156 weights in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import FakeTarget
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from prunebench.config import AxisConfig
from prunebench.errors import UsageError
from prunebench.sparsity.criteria import CRITERIA
from prunebench.sparsity.dynamics import DYNAMICS, Dynamics, Moment
from prunebench.sparsity.patterns import NM
from prunebench.sparsity.sparsifier import Sparsifier, build_sparsifier

STEPS, LAST, TARGET, LR, DECAY, NORM = 12, 8, 0.5, 0.05, 0.1, 0.3
PRUNINGS = {3: 0.125, 4: 0.25, 6: 0.375, LAST: TARGET}  # whole numbers of weights in either matrix


class Net(nn.Module):
    """Two matrices, the second of which is stored (in, out), and a bias."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(torch.randn(12, 8, generator=random, dtype=torch.float64) / 3)
        self.second = nn.Parameter(torch.randn(16, 3, generator=random, dtype=torch.float64) / 3)
        self.bias = nn.Parameter(torch.randn(16, generator=random, dtype=torch.float64) / 3)
        self.mix = torch.randn(12, 16, generator=random, dtype=torch.float64) / 3

    def loss(self, step: int, first: Tensor, second: Tensor, bias: Tensor) -> Tensor:
        """A batch of its own at every step."""
        random = torch.Generator().manual_seed(100 + step)
        inputs = torch.randn(10, 8, generator=random, dtype=torch.float64)
        wanted = torch.randn(10, 3, generator=random, dtype=torch.float64)
        outputs = torch.tanh(torch.tanh(inputs @ first.t()) @ self.mix + bias) @ second
        return (outputs - wanted).square().mean()

    def forward(self, step: int) -> Tensor:
        return self.loss(step, self.first, self.second, self.bias)

    def targets(self) -> list[FakeTarget]:
        return [FakeTarget("first", self.first), FakeTarget("second", self.second, transposed=True)]


def adam(parameters: Any, lr: float = LR, decay: float = DECAY) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=decay)


def lr_at(step: int) -> float:
    return LR * (1 - step / STEPS)


class Loop:
    """What `train._loop` does, in its order."""

    def __init__(self, dynamics: Dynamics | None, *, prunings: dict[int, float] | None = None, **axes: Any) -> None:
        self.net = Net()
        self.sparsifier = build_sparsifier(self.net.targets(), **axes)
        criterion = self.sparsifier.axes.criterion
        found = dynamics or criterion
        assert isinstance(found, Dynamics)
        self.dynamics, self.prunings = found, prunings or {LAST: TARGET}
        self.optimizer = adam(self.net.parameters())
        self.dynamics.begin(self.net, self.sparsifier)

    def at(self, step: int) -> Moment:
        level = max((level for when, level in self.prunings.items() if when <= step), default=0.0)
        last = max(self.prunings)
        return Moment(step, STEPS, last, level, self.prunings[last], lr_at(step), lr_at(step) / LR)

    def prune(self, step: int) -> None:
        if step in self.prunings:
            self.sparsifier.update(self.prunings[step])
            self.dynamics.after_pruning()
            self.sparsifier.zero_moments(self.optimizer)

    def passes(self, step: int) -> None:
        for number in range(self.dynamics.passes):
            self.dynamics.before_pass(number, self.at(step))
            self.net(step).backward()
            self.dynamics.after_pass(number, self.at(step))

    def step(self, step: int) -> None:
        self.prune(step)
        acts = self.dynamics.to_the_end or step < max(self.prunings)
        if acts:
            self.passes(step)
        else:
            self.net(step).backward()
        self.sparsifier.mask_gradients()
        nn.utils.clip_grad_norm_([*self.net.parameters(), *self.dynamics.parameters()], NORM)
        self.optimizer.param_groups[0]["lr"] = lr_at(step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if acts:
            self.dynamics.after_step(self.at(step))


def near(ours: Tensor, theirs: Tensor) -> bool:
    return torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def in_matrix_layout(target: FakeTarget, tensor: Tensor) -> Tensor:
    return tensor.t() if target.transposed else tensor


# --- movement -----------------------------------------------------------------------------------------------------


class Kept(torch.autograd.Function):
    """A mask in the forward pass, the identity in the backward pass."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, mask: Tensor) -> Tensor:
        return mask.to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return gradient, None


def top(scores: list[Tensor], share: float) -> list[Tensor]:
    """Masks of the `share` highest entries of all tensors together, one by one."""
    entries = [
        (float(value), which, place)
        for which, score in enumerate(scores)
        for place, value in enumerate(score.detach().flatten())
    ]
    entries.sort(key=lambda entry: -entry[0])
    masks = [torch.zeros(score.numel(), dtype=torch.bool) for score in scores]
    for _, which, place in entries[: round(share * len(entries))]:
        masks[which][place] = True
    return [mask.view(score.shape) for mask, score in zip(masks, scores, strict=True)]


class Reference:
    """Movement pruning as in the source: W and S are parameters, W * M(S) is used, one clipping for all of them."""

    def __init__(self, score_lr: float, final_lambda: float = 0.0) -> None:
        self.net, self.score_lr, self.final_lambda = Net(), score_lr, final_lambda
        self.weights = [self.net.first, self.net.second]
        self.scores = [nn.Parameter(torch.zeros_like(weight)) for weight in self.weights]
        self.optimizer = adam(self.net.parameters())
        self.score_optimizer = adam(self.scores, score_lr, 0.0)

    def step(self, step: int, masks: list[Tensor], progress: float = 0.0) -> None:
        first, second = (
            weight * Kept.apply(score, mask)
            for weight, score, mask in zip(self.weights, self.scores, masks, strict=True)
        )
        loss = self.net.loss(step, first, second, self.net.bias)
        penalty = sum(score.sigmoid().mean() for score in self.scores) / len(self.scores)
        (loss + self.final_lambda * progress * penalty).backward()
        nn.utils.clip_grad_norm_([*self.net.parameters(), *self.scores], NORM)
        self.optimizer.param_groups[0]["lr"] = lr_at(step)
        self.score_optimizer.param_groups[0]["lr"] = self.score_lr * lr_at(step) / LR
        for optimizer in (self.optimizer, self.score_optimizer):
            optimizer.step()
            optimizer.zero_grad()


def agree(loop: Loop, reference: Reference, masks: list[Tensor]) -> None:
    """The parameters are W * M, what is hidden is W, and the sparsifier's masks are M."""
    state = loop.dynamics.state_dict()
    assert near(loop.net.bias, reference.net.bias)
    for name, weight, score, mask in zip(("first", "second"), reference.weights, reference.scores, masks, strict=True):
        assert near(state[f"{name}.weight"], weight) and near(state[f"{name}.score"], score)
        assert near(getattr(loop.net, name), weight * mask)
        assert torch.equal(loop.sparsifier.masks.get(name, torch.ones_like(mask)), mask)


def run_movement(loop: Loop, reference: Reference, choose: Callable[[Moment], list[Tensor]]) -> list[list[Tensor]]:
    """The masks at each step. `choose` gives the reference's masks at the moment."""
    seen = []
    for step in range(STEPS):
        at = loop.at(step)
        masks = choose(at)
        seen.append(masks)
        reference.step(step, masks, at.sparsity / at.target)
        loop.step(step)
        agree(loop, reference, choose(at))  # found anew from the new scores
    return seen


def returned(masks: list[list[Tensor]]) -> int:
    pairs = itertools.pairwise(masks)
    return sum(int((new & ~old).sum()) for before, after in pairs for old, new in zip(before, after, strict=True))


def layout(scores: Sequence[Tensor]) -> list[Tensor]:
    return [scores[0].detach(), scores[1].detach().t()]


@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_movement_is_that_of_the_source(scope: str) -> None:
    loop = Loop(None, prunings=PRUNINGS, criterion="movement", params={"score_lr": 0.1, "every": 1}, scope=scope)
    reference = Reference(0.1)

    def choose(at: Moment) -> list[Tensor]:
        scores = layout(reference.scores)
        if scope == "global":
            first, second = top(scores, 1 - at.sparsity)
        else:
            first, second = (top([score], 1 - at.sparsity)[0] for score in scores)
        return [first, second.t()]

    masks = run_movement(loop, reference, choose)
    assert returned(masks[4:]) > 5  # weights come back, after the last pruning too
    assert returned(masks[LAST:]) > 0
    kept = [mask.float().mean().item() for mask in loop.sparsifier.masks.values()]
    assert loop.sparsifier.sparsity() == TARGET and (scope == "global") == (kept != [0.5, 0.5])


def test_soft_movement_is_that_of_the_source_until_the_last_pruning() -> None:
    params = {"score_lr": 1.0, "final_lambda": 20.0, "every": 1}
    loop = Loop(None, prunings=PRUNINGS, criterion="soft_movement", params=params)
    reference = Reference(1.0, 20.0)

    def choose(at: Moment) -> list[Tensor]:
        scores = layout(reference.scores)
        if at.sparsity == TARGET:
            first, second = top(scores, 1 - TARGET)
        else:
            threshold = 0.1 * at.sparsity / TARGET
            first, second = (score.sigmoid() > threshold for score in scores)
        return [first, second.t()]

    masks = run_movement(loop, reference, choose)
    emergent = [1 - sum(int(mask.sum()) for mask in pair) / 144 for pair in masks]
    assert len(set(emergent)) > 4 and all(share not in PRUNINGS.values() for share in emergent[4:LAST])
    assert emergent[LAST:] == [TARGET] * (STEPS - LAST) and loop.sparsifier.sparsity() == TARGET


def test_movement_between_masks_and_at_the_end() -> None:
    loop = Loop(None, prunings=PRUNINGS, criterion="movement", params={"score_lr": 0.1, "every": 5})
    masks = []
    for step in range(STEPS):
        loop.step(step)
        masks.append(dict(loop.sparsifier.masks))
        level = loop.at(step).sparsity
        assert loop.sparsifier.sparsity() == level
    changed = [
        any(not torch.equal(masks[i][name], masks[i + 1][name]) for name in masks[i]) for i in range(3, STEPS - 1)
    ]
    assert changed == [i + 1 in (4, 6, 8, 9, 11) for i in range(3, STEPS - 1)]


def test_movement_goes_on_from_its_state(tmp_path: Path) -> None:
    for name in ("movement", "soft_movement"):
        whole, first, second = (Loop(None, prunings=PRUNINGS, criterion=name, scope="uniform") for _ in range(3))
        for step in range(STEPS):
            whole.step(step)
        for step in range(6):
            first.step(step)
        save_file({key: value.contiguous() for key, value in first.dynamics.state_dict().items()}, tmp_path / name)
        second.net.load_state_dict(first.net.state_dict())
        second.optimizer.load_state_dict(first.optimizer.state_dict())
        second.sparsifier.load_state_dict(first.sparsifier.state_dict())
        second.dynamics.load_state_dict(load_file(tmp_path / name))
        for step in range(6, STEPS):  # which begins with a pruning
            second.step(step)
        same_net_and_state(whole, second)


def same_net_and_state(one: Loop, other: Loop) -> None:
    ours, theirs = (loop.dynamics.state_dict() | loop.net.state_dict() for loop in (one, other))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_movement_takes_over_weights_that_are_set_from_outside() -> None:
    """As a phase that rewinds does."""
    loop = Loop(None, prunings=PRUNINGS, criterion="movement")
    for step in range(5):
        loop.step(step)
    hidden = loop.dynamics.state_dict()["first.weight"].clone()
    with torch.no_grad():
        loop.net.first.fill_(7.0)
    loop.sparsifier.apply()
    loop.passes(5)
    mask = loop.sparsifier.masks["first"]
    assert torch.equal(loop.net.first, torch.where(mask, 7.0, hidden))


# --- CrAM ---------------------------------------------------------------------------------------------------------


Prune = Callable[[list[Tensor]], list[Tensor]]


def nm_mask(matrix: Tensor, n: int, m: int) -> Tensor:
    """(out, in), group by group."""
    mask = torch.zeros_like(matrix, dtype=torch.bool)
    for row in range(len(matrix)):
        for start in range(0, matrix.shape[1], m):
            group = matrix.detach()[row, start : start + m].abs()
            order = sorted(range(m), key=lambda place: -float(group[place]))
            for place in order[:n]:
                mask[row, start + place] = True
    return mask


def largest(matrices: list[Tensor], share: float) -> list[Tensor]:
    return top([matrix.abs() for matrix in matrices], share)


def largest_of_groups(matrices: list[Tensor], n: int) -> list[Tensor]:
    return [nm_mask(matrix, n, 2 * n) for matrix in matrices]


def cram_gradients(net: Net, step: int, rho: float, prune: Prune, plus: bool) -> Any:
    """Gradients of first, second and bias, from (out, in) masks of what `prune` keeps of the perturbed matrices."""
    weights = [parameter.detach().clone().requires_grad_() for parameter in (net.first, net.second, net.bias)]
    clean = torch.autograd.grad(net.loss(step, *weights), weights)
    moved = [(weight + rho * gradient).detach() for weight, gradient in zip(weights, clean, strict=True)]
    first, second = prune([moved[0], moved[1].t()])
    masks = [first.double(), second.t().double(), torch.ones(16, dtype=torch.float64)]
    pruned = [(weight * mask).requires_grad_() for weight, mask in zip(moved, masks, strict=True)]
    there = torch.autograd.grad(net.loss(step, *pruned), pruned)
    return [g * mask + plus * c for g, mask, c in zip(there, masks, clean, strict=True)]


def parameters_and_gradients(loop: Loop) -> Iterator[tuple[Tensor, Tensor]]:
    for parameter in (loop.net.first, loop.net.second, loop.net.bias):
        assert parameter.grad is not None
        yield parameter, parameter.grad


def test_cram_adds_the_gradient_where_the_weights_are_perturbed_and_pruned() -> None:
    for plus in (True, False):
        loop = Loop(DYNAMICS.build("cram", {"rho": 0.5, "plus": plus}))
        for step in range(3):
            before = [parameter.detach().clone() for parameter in loop.net.parameters()]
            expected = cram_gradients(loop.net, step, 0.5, partial(largest, share=0.5), plus)
            loop.passes(step)
            for (parameter, gradient), wanted in zip(parameters_and_gradients(loop), expected, strict=True):
                assert near(gradient, wanted) and parameter.grad is gradient
            assert all(torch.equal(p, old) for p, old in zip(loop.net.parameters(), before, strict=True))
            loop.optimizer.step()
            loop.optimizer.zero_grad()


def which_match(loop: Loop, step: int, prunes: Sequence[Prune]) -> list[int]:
    wanted = [cram_gradients(loop.net, step, 0.05, prune, True) for prune in prunes]
    loop.passes(step)
    found = [gradient for _, gradient in parameters_and_gradients(loop)]
    loop.optimizer.zero_grad()
    return [i for i, each in enumerate(wanted) if all(near(a, b) for a, b in zip(found, each, strict=True))]


def test_cram_draws_a_sparsity_by_seed_and_step() -> None:
    levels = [0.25, 0.5, 0.75]
    prunes = [partial(largest, share=1 - level) for level in levels]

    def drawn(seed: int) -> list[int]:
        loop = Loop(DYNAMICS.build("cram", {"sparsities": levels}, seed=seed))
        found = [which_match(loop, step, prunes) for step in range(12)]
        assert all(len(each) == 1 for each in found)
        return [each[0] for each in found]

    first = drawn(1)
    assert set(first) == {0, 1, 2} and drawn(1) == first and drawn(2) != first


def test_cram_n_m_tosses_a_coin() -> None:
    prunes = [partial(largest_of_groups, n=n) for n in (2, 4)]
    loop = Loop(DYNAMICS.build("cram_n_m", seed=3), pattern="n_m", n=2, m=4)
    found = [which_match(loop, step, prunes) for step in range(10)]
    assert all(len(each) == 1 for each in found) and {each[0] for each in found} == {0, 1}


def test_cram_leaves_what_is_pruned_at_zero() -> None:
    loop = Loop(DYNAMICS.build("cram", {"rho": 5.0, "sparsities": [0.0]}), prunings={2: 0.25, LAST: TARGET})
    for step in range(STEPS):
        loop.step(step)
        if step == 4:
            loop.net(step).backward()
            loop.dynamics.after_pass(0, loop.at(step))
            assert not loop.net.first[~loop.sparsifier.masks["first"]].any()  # in the second pass
            loop.net(step).backward()
            loop.dynamics.after_pass(1, loop.at(step))
            loop.optimizer.zero_grad()
        zeros = sum(int((parameter == 0).sum()) for parameter in (loop.net.first, loop.net.second))
        assert zeros == round(144 * loop.at(step).sparsity)


# --- N:M ----------------------------------------------------------------------------------------------------------


class Faded(torch.autograd.Function):
    """W * (M + (1 - M) * d) forward; backward the gradient, with decay * (1 - M) * W added."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, factor: float, decay: float) -> Tensor:
        ctx.save_for_backward(weight, mask)
        ctx.decay = decay
        return weight * (mask.double() + (1 - mask.double()) * factor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        weight, mask = ctx.saved_tensors
        return gradient + ctx.decay * (1 - mask.double()) * weight, None, None, None


def faded_steps(patterns: list[tuple[int, int]], factors: list[float], decay: float) -> Net:
    """The net after the steps before the last pruning."""
    net = Net()
    optimizer = adam(net.parameters())
    for step, ((n, m), factor) in enumerate(zip(patterns, factors, strict=True)):
        first = Faded.apply(net.first, nm_mask(net.first, n, m), factor, decay)
        second = Faded.apply(net.second, nm_mask(net.second.t(), n, m).t(), factor, decay)
        net.loss(step, first, second, net.bias).backward()
        nn.utils.clip_grad_norm_(net.parameters(), NORM)
        optimizer.param_groups[0]["lr"] = lr_at(step)
        optimizer.step()
        optimizer.zero_grad()
    return net


TWO_FOUR = [(2, 4)] * LAST
ZEROS = [0.0] * LAST
LINEAR = [1.0, 0.75, 0.5, 0.25, 0.0, 0.0, 0.0, 0.0]
EXPONENTIAL = [math.e ** (-3 * step / 8) for step in range(LAST)]


@pytest.mark.parametrize(
    ("name", "params", "patterns", "factors", "decay"),
    [
        ("sr_ste", {}, TWO_FOUR, ZEROS, 2e-4),
        ("sr_ste", {"decay": 0.5}, TWO_FOUR, ZEROS, 0.5),
        ("gradient_flow", {"decay": "linear", "rate": 2.0}, TWO_FOUR, LINEAR, 0.0),
        ("gradient_flow", {"decay": "exponential", "rate": 3.0}, TWO_FOUR, EXPONENTIAL, 0.0),
        ("step_n_m", {}, [(3, 4)] * 4 + [(2, 4)] * 4, ZEROS, 0.0),
    ],
)
def test_training_towards_n_m(
    name: str, params: dict[str, Any], patterns: list[tuple[int, int]], factors: list[float], decay: float
) -> None:
    loop = Loop(DYNAMICS.build(name, params), pattern="n_m", n=2, m=4)
    for step in range(LAST):
        loop.step(step)
    wanted = faded_steps(patterns, factors, decay)
    assert all(near(ours, theirs) for ours, theirs in zip(loop.net.parameters(), wanted.parameters(), strict=True))
    assert all(parameter.all() for parameter in loop.net.parameters())
    masks = [nm_mask(loop.net.first, 2, 4), nm_mask(loop.net.second.t(), 2, 4).t()]
    for step in range(LAST, STEPS):
        loop.step(step)
        for parameter, mask in zip((loop.net.first, loop.net.second), masks, strict=True):
            assert torch.equal(parameter != 0, mask)  # of the last moment, and fixed


def test_frames_of_structure_decay() -> None:
    def frames(form: str, n: int, m: int, inputs: int) -> list[tuple[int, int]]:
        target = FakeTarget("a", nn.Parameter(torch.ones(2, inputs)))
        dynamics = DYNAMICS.build("step_n_m", {"form": form})
        dynamics.begin(nn.Module(), build_sparsifier([target], pattern="n_m", n=n, m=m))
        found = [dynamics.pattern_at(Moment(step, 90, 60, 0.0, 0.5, 1.0, 1.0)) for step in range(60)]
        assert all(isinstance(pattern, NM) for pattern in found)
        pairs = [(pattern.n, pattern.m) for pattern in found]
        lengths = {pair: pairs.count(pair) for pair in pairs}
        assert len(set(lengths.values())) == 1
        return list(lengths)

    assert frames("stepwise", 1, 16, 16) == [(15, 16), (8, 16), (4, 16), (2, 16), (1, 16)]
    assert frames("stepwise", 2, 4, 8) == [(3, 4), (2, 4)]
    assert frames("stepwise", 3, 8, 8) == [(7, 8), (4, 8), (3, 8)]
    assert frames("geometric", 1, 8, 64) == [(8, 64), (4, 32), (2, 16), (1, 8)]


# --- soft shrinkage -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.95, 0.5, 0.0])
def test_soft_shrinkage_multiplies_the_smallest_of_each_matrix(ratio: float) -> None:
    loop = Loop(DYNAMICS.build("soft_shrinkage", {"ratio": ratio}), scope="uniform")
    net = Net()
    optimizer = adam(net.parameters())
    for step in range(LAST):
        loop.step(step)
        net(step).backward()
        nn.utils.clip_grad_norm_(net.parameters(), NORM)
        optimizer.param_groups[0]["lr"] = lr_at(step)
        optimizer.step()
        optimizer.zero_grad()
        for parameter in (net.first.data, net.second.data):
            limit = sorted(parameter.abs().flatten().tolist())[parameter.numel() // 2]
            for place, value in enumerate(parameter.flatten().tolist()):
                if abs(value) < limit:
                    parameter.view(-1)[place] = ratio * value
        assert all(near(ours, theirs) for ours, theirs in zip(loop.net.parameters(), net.parameters(), strict=True))
    for step in range(LAST, STEPS):
        loop.step(step)
    assert loop.sparsifier.sparsity() == TARGET == loop.sparsifier.per_layer()["first"]


# --- what all of them promise -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DYNAMICS.names())
def test_what_is_saved_is_enough_to_go_on(name: str) -> None:
    """In the middle of what a dynamics does, after three updates."""
    loop = Loop(DYNAMICS.build(name, seed=1), pattern="n_m", n=2, m=4)
    for step in range(3):
        loop.step(step)
    again = Loop(DYNAMICS.build(name, seed=1), pattern="n_m", n=2, m=4)
    again.net.load_state_dict(loop.net.state_dict())
    again.optimizer.load_state_dict(deepcopy(loop.optimizer.state_dict()))
    again.dynamics.load_state_dict(loop.dynamics.state_dict())
    for step in range(3, STEPS):
        loop.step(step)
        again.step(step)
    same_net_and_state(loop, again)
    assert loop.sparsifier.sparsity() == TARGET


@pytest.mark.parametrize("pattern", ["unstructured", "block"])
@pytest.mark.parametrize("name", ["cram", "soft_shrinkage", "movement", "soft_movement"])
def test_other_patterns(name: str, pattern: str) -> None:
    axes: dict[str, Any] = {"pattern": pattern} | ({"m": 4} if pattern == "block" else {})
    learned = name in CRITERIA.names()
    loop = Loop(None if learned else DYNAMICS.build(name), criterion=name if learned else "magnitude", **axes)
    for step in range(STEPS):
        loop.step(step)
    assert loop.sparsifier.sparsity() == TARGET
    for target in loop.sparsifier.targets:
        assert loop.sparsifier.pattern.holds(in_matrix_layout(target, loop.sparsifier.masks[target.name]))


def begin(dynamics: Dynamics, **axes: Any) -> Sparsifier:
    net = Net()
    sparsifier = build_sparsifier(net.targets(), **axes)
    dynamics.begin(net, sparsifier)
    return sparsifier


@pytest.mark.parametrize(
    ("name", "params", "axes", "words"),
    [
        ("sr_ste", {}, {}, "set pruning/pattern=2_4"),
        ("gradient_flow", {}, {"pattern": "block", "m": 4}, "set pruning/pattern=2_4"),
        ("step_n_m", {"form": "geometric"}, {"pattern": "n_m", "n": 2, "m": 4}, "16:32 needs .* first has 8"),
        ("step_n_m", {"form": "x"}, {}, "form=x: must be stepwise or geometric"),
        ("gradient_flow", {"decay": "x"}, {}, "decay=x: must be linear or exponential"),
        ("gradient_flow", {"rate": 0.0}, {}, "rate=0: must be greater than 0"),
        ("soft_shrinkage", {"ratio": 1.0}, {}, r"ratio=1: must be in \[0, 1\)"),
        ("cram", {"sparsities": [0.5, 1.0]}, {}, r"sparsities: 1 must be in \[0, 1\)"),
    ],
)
def test_what_cannot_work_is_refused(name: str, params: dict[str, Any], axes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        begin(DYNAMICS.build(name, params), **axes)


def test_movement_refuses_what_would_undo_it() -> None:
    criterion = CRITERIA.build("movement")
    assert isinstance(criterion, Dynamics)
    with pytest.raises(UsageError, match="set pruning/update=none"):
        begin(criterion, update=AxisConfig("obs"))
    with pytest.raises(UsageError, match="set pruning/scope=uniform"):
        begin(criterion, scope="random_search")
    for params in ({"score_lr": 0.0}, {"every": 0}):
        with pytest.raises(UsageError, match=r"pruning\.criterion\.params"):
            CRITERIA.build("movement", params)
    with pytest.raises(UsageError, match="final_threshold=1"):
        CRITERIA.build("soft_movement", {"final_threshold": 1.0})


@pytest.mark.parametrize("name", ["movement", "soft_movement"])
def test_a_pruning_before_anything_is_learned_goes_by_magnitude(name: str) -> None:
    loop, plain = Loop(None, prunings={0: TARGET}, criterion=name), build_sparsifier(Net().targets())
    loop.prune(0)
    plain.update(TARGET)
    assert all(torch.equal(mask, plain.masks[key]) for key, mask in loop.sparsifier.masks.items())
    before = {key: mask.clone() for key, mask in loop.sparsifier.masks.items()}
    for step in range(STEPS):  # a global mask moves at the end
        loop.step(step)
    assert any(not torch.equal(mask, before[key]) for key, mask in loop.sparsifier.masks.items())


@pytest.mark.parametrize("name", ["movement", "soft_movement"])
def test_learned_criteria_begin_on_outlines(name: str) -> None:
    """Models without weights, on the meta device, on which settings are checked."""
    with torch.device("meta"):
        target = FakeTarget("a", nn.Parameter(torch.ones(4, 8)))
    criterion = CRITERIA.build(name)
    assert isinstance(criterion, Dynamics)
    criterion.begin(nn.Module(), build_sparsifier([target]))
