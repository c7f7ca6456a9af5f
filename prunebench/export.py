"""The model a user takes away: a Hugging Face folder with a card, whose zeros are counted again from the files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from prunebench.errors import RunError
from prunebench.models import quiet
from prunebench.paths import whole_file, whole_folder
from prunebench.report import SPARSE
from prunebench.results import Result
from prunebench.sparsity.patterns import Pattern
from prunebench.targets import Target, find_targets


def export_model(folder: Path, model: Any, tokenizer: Any) -> None:
    """Writes weights (safetensors, float32), config and tokenizer, whole or not at all."""
    if getattr(tokenizer, "is_fast", False):  # it would save how it was called last, by whoever tokenised the data
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    with whole_folder(folder) as temporary, quiet():
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def save_masks(path: Path, masks: Mapping[str, Tensor]) -> None:
    """Bool tensors by parameter name, in the parameter's own layout; True: kept."""
    with whole_file(path) as temporary:
        save_file({name: mask.cpu().contiguous() for name, mask in masks.items()}, temporary)


def load_masks(path: Path) -> dict[str, Tensor]:
    return dict(load_file(path))


def check_zeros(targets: list[Target], masks: Mapping[str, Tensor], sparsity: float, pattern: Pattern) -> None:
    """Refuses a model that does not hold what was promised.

    Args:
        targets: of the model as it was loaded back from its files.
        masks: as they were loaded back.
        sparsity: asked for, of all targets together.
        pattern: which the zeros must follow.

    Raises:
        RunError: naming the first matrix that breaks the promise.
    """
    check_masked(targets, masks)
    total = sum(target.weight.numel() for target in targets)
    zeros = sum(int((~mask).sum()) for mask in masks.values())
    broken = next((target.name for target in targets if not pattern.holds(target.oriented(masks[target.name]))), None)
    if broken is not None:
        raise RunError(f"the zeros of {broken} in the saved model do not follow the pattern")
    asked = pattern.zeros(sparsity, total)
    if zeros != asked:
        raise RunError(f"{zeros} weights are pruned, but sparsity {sparsity:g} asks for {asked}")


def check_masked(targets: list[Target], masks: Mapping[str, Tensor]) -> None:
    """Refuses (RunError) a model of which a masked weight is not zero."""
    by_name = {target.name: target.weight for target in targets}
    for name, mask in masks.items():
        if name not in by_name:
            raise RunError(f"the saved model has no {name}, which was pruned")
        revived = int(by_name[name][~mask].count_nonzero())
        if revived:
            raise RunError(f"{revived} pruned weights of {name} are not zero in the saved model")


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
    """README.md of the exported model. `base`: the hub name it started from, or the folder (its name is told)."""
    base = Path(base).name if Path(base).is_dir() else base
    sparsity, version = result.sparsity, result.environment["packages"]["prunebench"]
    scores = "\n".join(f"| {name} | {value:.4f} |" for name, value in result.metrics.items())
    sparse = sparsity["target"] > 0 or sparsity["prunable"] >= SPARSE
    title = f"{100 * sparsity['prunable']:.2f} % of the prunable weights are zero" if sparse else "dense"
    zeros = f"""
Zeros: {100 * sparsity["prunable"]:.2f} % of the weights of {" and ".join(sparsity["components"])};
{100 * sparsity["model"]:.2f} % of all parameters. The weights are stored dense: zeros alone do not make a dense
PyTorch model faster. Fine-tune it further only with masks, or the zeros will be lost.
"""
    return f"""---
library_name: transformers
tags: [{"prunebench, sparse, pruned" if sparse else "prunebench"}]
---
# {base} on {dataset}, {title}

Made by prunebench {version} as run `{result.name}/{result.digest}` (recipe {result.recipe}, seed {result.seed}); the
run's `config.yaml` has all settings.

| metric (validation) | value |
|---|---|
{scores}
{zeros if sparse else ""}"""
