from __future__ import annotations

import torch
from torch import nn

from prunebench.optim import forget_moments, load_moments, make_optimizer, moments, set_lr


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 2))


def optimizer_of(model: nn.Module, **changes: float) -> torch.optim.AdamW:
    return make_optimizer(model, **({"lr": 1e-2, "weight_decay": 0.1, "betas": (0.9, 0.99), "eps": 1e-8} | changes))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    model(torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_norms_and_biases_are_not_decayed() -> None:
    model = net()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = optimizer_of(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"0.weight", "2.weight"}


def test_moments_survive_a_round_trip_bit_for_bit() -> None:
    model, other = net(), net()
    first, second = optimizer_of(model), optimizer_of(other)
    for seed in range(3):
        step(model, first, seed)
    other.load_state_dict(model.state_dict())
    saved = {name: tensor.clone() for name, tensor in moments(first, model.named_parameters()).items()}
    load_moments(second, other.named_parameters(), saved)
    for seed in range(3, 6):
        step(model, first, seed)
        step(other, second, seed)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_forgetting_starts_from_nothing() -> None:
    model = net()
    optimizer = optimizer_of(model)
    step(model, optimizer, 0)
    assert moments(optimizer, model.named_parameters())
    forget_moments(optimizer)
    assert moments(optimizer, model.named_parameters()) == {}


def test_the_learning_rate_reaches_every_group() -> None:
    optimizer = optimizer_of(net())
    set_lr(optimizer, 3e-4)
    assert {group["lr"] for group in optimizer.param_groups} == {3e-4}
