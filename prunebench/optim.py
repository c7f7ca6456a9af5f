"""AdamW, with weight decay on matrices only, and its moments by parameter name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def make_optimizer(
    model: nn.Module, *, lr: float, weight_decay: float, betas: Sequence[float], eps: float
) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019). LayerNorm and biases are not decayed, as in BERT's own training."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(betas[0], betas[1]), eps=eps, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def forget_moments(optimizer: torch.optim.Optimizer) -> None:
    """Back to the state before the first step."""
    optimizer.state.clear()


Named = Iterable[tuple[str, nn.Parameter]]


def moments(optimizer: torch.optim.Optimizer, named: Named) -> dict[str, Tensor]:
    """The optimizer's state of some parameters as tensors named `<parameter>.<moment>`."""
    return {
        f"{name}.{moment}": optimizer.state[parameter][moment]
        for name, parameter in named
        if parameter in optimizer.state
        for moment in MOMENTS
    }


def load_moments(optimizer: torch.optim.Optimizer, named: Named, saved: Mapping[str, Tensor]) -> None:
    """The inverse of `moments`. `step` stays a float32 scalar beside its parameter, as fused AdamW wants it."""
    for name, parameter in named:
        optimizer.state.pop(parameter, None)
        if f"{name}.step" in saved:
            optimizer.state[parameter] = {moment: saved[f"{name}.{moment}"].to(parameter.device) for moment in MOMENTS}
