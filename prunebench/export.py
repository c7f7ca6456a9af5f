"""The model a user takes away: a Hugging Face folder with a card, whose zeros are counted again from the files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from prunebench.errors import RunError
from prunebench.models import Target, find_targets
from prunebench.paths import whole_file, whole_folder
from prunebench.results import Result


def export_model(folder: Path, model: Any, tokenizer: Any) -> None:
    """Writes weights (safetensors, float32), config and tokenizer, whole or not at all."""
    with whole_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def save_masks(path: Path, masks: Mapping[str, Tensor]) -> None:
    """Bool tensors by parameter name, in the parameter's own layout; True: kept."""
    with whole_file(path) as temporary:
        save_file({name: mask.cpu().contiguous() for name, mask in masks.items()}, temporary)


def load_masks(path: Path) -> dict[str, Tensor]:
    return dict(load_file(path))


def check_zeros(
    targets: list[Target], masks: Mapping[str, Tensor], zeros: int, pattern: tuple[int, int] | None
) -> None:
    """Refuses a model that does not hold what was promised.

    Args:
        targets: of the model as it was loaded back from its files.
        masks: as they were loaded back.
        zeros: how many weights the masks must take out, exactly.
        pattern: (n, m) where at most n of every m neighbouring inputs may be left.

    Raises:
        RunError: naming the first matrix that breaks the promise.
    """
    missing = set(masks) - {target.name for target in targets}
    if missing:
        raise RunError(f"the saved model has no {sorted(missing)[0]}, which was pruned")
    by_name = {target.name: target for target in targets}
    revived = {name: int(by_name[name].weight[~mask].count_nonzero()) for name, mask in masks.items()}
    for name, count in revived.items():
        if count:
            raise RunError(f"{count} pruned weights of {name} are not zero in the saved model")
    promised = sum(int((~mask).sum()) for mask in masks.values())
    if promised != zeros:
        raise RunError(f"the masks take out {promised} weights, but {zeros} were asked for")
    if pattern is not None:
        for target in targets:
            _check_groups(target, *pattern)


def _check_groups(target: Target, n: int, m: int) -> None:
    left = (target.matrix != 0).reshape(target.matrix.shape[0], -1, m).sum(-1)
    if int(left.max()) > n:
        raise RunError(f"{target.name} has a group of {m} with {int(left.max())} non-zeros, pattern {n}:{m} allows {n}")


def count_weights(model: nn.Module, components: list[str]) -> dict[str, int]:
    """Parameters and non-zero parameters, of the whole model and of the prunable components, each counted once."""
    targets = find_targets(model, components)
    prunable = [target.weight for target in targets]
    everything = list(model.parameters())  # torch leaves out tied ones
    return {
        "model": sum(p.numel() for p in everything),
        "model_nonzero": sum(int(torch.count_nonzero(p)) for p in everything),
        "prunable": sum(p.numel() for p in prunable),
        "prunable_nonzero": sum(int(torch.count_nonzero(p)) for p in prunable),
    }


def component_sparsity(model: nn.Module, components: list[str]) -> dict[str, float]:
    """The share of zeros in each component, counted."""
    shares = {}
    for component in components:
        weights = [target.weight for target in find_targets(model, [component])]
        total = sum(weight.numel() for weight in weights)
        zeros = total - sum(int(torch.count_nonzero(weight)) for weight in weights)
        shares[component] = zeros / total
    return shares


def model_card(base: str, dataset: str, result: Result) -> str:
    """README.md of the exported model."""
    sparsity, recipe = result.sparsity, result.recipe
    scores = "\n".join(f"| {name} | {value:.4f} |" for name, value in result.metrics.items())
    return f"""---
library_name: transformers
tags: [prunebench, sparse, pruned]
---
# {base} on {dataset}, {100 * sparsity["prunable"]:.2f} % of the prunable weights are zero

Made by prunebench {result.environment["packages"]["prunebench"]}:
`prunebench run recipe={recipe} seed={result.seed}` (all settings: `config.yaml` of run `{result.name}/{result.digest}`).

| metric (validation) | value |
|---|---|
{scores}

Zeros: {100 * sparsity["prunable"]:.2f} % of the weights of {" and ".join(sparsity["components"])};
{100 * sparsity["model"]:.2f} % of all parameters. The weights are stored dense: zeros alone do not make a dense
PyTorch model faster. Fine-tune it further only with masks, or the zeros will be lost.
"""
