"""Sparse model soups: runs that share a mask and differ in one factor (the seed, say), averaged weight by weight.

Zimmer, Spiegel & Pokutta 2024 (arXiv 2306.16788); greedy as Wortsman et al. 2022. Read: ZIB-IOL/SMS,
strategies/ensembleStrategies.py. The phases of the whole procedure are composed by scripts/sparse_soup.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from prunebench.assemble import components_of
from prunebench.checkpoint import load_model_tensors, model_tensors
from prunebench.compose import read_run_config
from prunebench.config import RunConfig
from prunebench.context import Context
from prunebench.devices import describe_device
from prunebench.digest import prunes
from prunebench.errors import UsageError
from prunebench.export import check_masked, export_model, load_masks, model_card, save_masks
from prunebench.listing import read_result
from prunebench.paths import RunFolder, write_json, write_text
from prunebench.progress import say
from prunebench.results import SCHEMA, Result, environment, evaluated_on, recovery
from prunebench.scoring import counted, evaluate_model, scoring_context, write_predictions
from prunebench.targets import find_targets

SOUP = "soup"  # name of the folder of soups


@dataclass(frozen=True)
class Ingredient:
    """A finished run."""

    folder: RunFolder
    config: RunConfig
    result: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.result['name']}/{self.result['digest']}"

    @property
    def score(self) -> float:
        """Higher is better."""
        metric = self.result["metric"]
        return float(metric["value"]) if metric["higher_is_better"] else -float(metric["value"])


def make_soup(
    runs: Sequence[RunFolder],
    *,
    greedy: bool = False,
    out: Path | None = None,
    dense: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], Path]:
    """Averages finished runs and scores the average, unless that was done before.

    Args:
        greedy: the runs are taken in order of their scores, and one stays in only if the average does not get worse.
            The scores are those of the validation split, on which the soup is then reported as well.
        out: where; default: soup/<digest> beside the runs.
        dense: what to compare with, as result.json has it; default: the first run's, unless that was its own dense run.

    Returns:
        What result.json holds, and the soup's folder, which is like a run's.

    Raises:
        UsageError: the runs are not finished, or do not fit together.
        RunError: the average is not finite, or its files do not hold the zeros.
    """
    ingredients = _ingredients(runs)
    digest = _digest(ingredients, greedy)
    folder = RunFolder(out or ingredients[0].folder.root.parent.parent / SOUP / digest)
    done = read_result(folder)
    if done.get("status") == "finished" and done["digest"] == digest:
        say(f"{folder.root} is finished already")
        return done, folder.root
    if done.get("recipe") != SOUP and os.path.lexists(folder.root):
        raise UsageError(f"{folder.root}: there is something else already: give another --out")
    began, first = time.monotonic(), ingredients[0]
    write_json(folder.result, {"status": "running", "recipe": SOUP, "name": SOUP, "digest": digest})
    context = scoring_context(first.folder.model, first.config, folder)
    model = _load(context, first).to(context.accelerator.device)
    used = _chosen(context, model, ingredients) if greedy else ingredients
    load_model_tensors(model, average(model_tensors(_load(context, each)) for each in used))
    result = _finish(context, model, ingredients, used, digest)
    if dense is None:
        own = {"value": result.metric["value"], "metrics": result.metrics, "folder": str(folder.root)}
        dense = first.result["dense"] if prunes(first.config) else own
    kept = recovery(result.metric["value"], dense["value"], context.task.higher_is_better)
    result = replace(result, dense=dict(dense), recovery=kept, seconds=round(time.monotonic() - began, 2))
    write_text(folder.model / "README.md", model_card(first.config.model.name, first.config.dataset.name, result))
    write_json(folder.result, result.to_json())
    return result.to_json(), folder.root


def average(models: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of every tensor, summed in float64; one at a time is held. What is no floating point is the first's."""
    first: dict[str, Tensor] = {}
    sums: dict[str, Tensor] = {}
    count = 0
    for tensors in models:
        count += 1
        first = first or {name: tensor.detach() for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                value = tensor.detach().double()
                sums[name] = sums[name].add_(value) if name in sums else value.clone()
    return {name: (sums[name] / count).to(tensor.dtype) if name in sums else tensor for name, tensor in first.items()}


# --- which runs ---------------------------------------------------------------------------------------------------


def _ingredients(runs: Sequence[RunFolder]) -> list[Ingredient]:
    """The runs by seed and digest, checked to be of one model, one mask and one dataset."""
    if len(runs) < 2:
        raise UsageError("a soup needs two or more runs")
    found = sorted(map(_ingredient, runs), key=lambda each: (each.result["seed"], each.result["digest"]))
    for one, other in pairwise(found):
        if one.folder.root.resolve() == other.folder.root.resolve():
            raise UsageError(f"{one.name} is given twice: a soup needs different runs")
    first = found[0]
    masks, shapes = _masks(first), _shapes(first)
    for other in found[1:]:
        _check_data(first, other)
        _check_shapes(first, other, shapes, _shapes(other))
        _check_masks(first, other, masks, _masks(other))
    return found


def _ingredient(folder: RunFolder) -> Ingredient:
    result = read_result(folder)
    if result.get("status") != "finished":
        raise UsageError(f"{folder.root} is not finished (status: {result.get('status', 'unknown')}): run it first")
    return Ingredient(folder, read_run_config(folder.config), result)


def _check_data(one: Ingredient, other: Ingredient) -> None:
    ours, theirs = asdict(one.config.dataset), asdict(other.config.dataset)
    key = next((key for key in ours if ours[key] != theirs[key]), None)
    if key is not None:
        raise UsageError(f"{one.name} and {other.name} differ in dataset.{key}: a soup is of runs on the same data")


def _shapes(ingredient: Ingredient) -> dict[str, list[int]]:
    with safe_open(ingredient.folder.model / "model.safetensors", "pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (no mapping)


def _check_shapes(one: Ingredient, other: Ingredient, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    odd = next((name for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name)), None)
    if odd is not None:
        raise UsageError(f"{one.name} and {other.name} are other models: {odd} is not the same in both")


def _masks(ingredient: Ingredient) -> dict[str, Tensor]:
    path = ingredient.folder.masks
    return load_masks(path) if path.is_file() else {}


def _check_masks(one: Ingredient, other: Ingredient, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    names = sorted(ours.keys() | theirs.keys())
    odd = next((n for n in names if n not in ours or n not in theirs or not torch.equal(ours[n], theirs[n])), None)
    if odd is not None:
        raise UsageError(
            f"{one.name} and {other.name} have other masks, the first difference is in {odd}: a soup keeps its zeros "
            "only where all runs have them; let them start from one sparse model with pruning.keep_zeros=true"
        )


def _digest(ingredients: Sequence[Ingredient], greedy: bool) -> str:
    identity = [SCHEMA, SOUP, greedy, [each.result["digest"] for each in ingredients]]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]


# --- the average --------------------------------------------------------------------------------------------------


def _load(context: Context, ingredient: Ingredient) -> Any:
    return context.load(str(ingredient.folder.model), context.task.labels)


def _chosen(context: Context, model: Any, ingredients: Sequence[Ingredient]) -> list[Ingredient]:
    """The greedy soup's: from the best on, each that does not make the average worse."""
    best, *others = sorted(ingredients, key=lambda each: -each.score)
    used, score = [best], best.score
    for candidate in others:
        tried = [*used, candidate]
        load_model_tensors(model, average(model_tensors(_load(context, each)) for each in tried))
        metrics, _ = evaluate_model(context, model)
        value = metrics[context.task.metric] if context.task.higher_is_better else -metrics[context.task.metric]
        fate = "kept" if value >= score else "left out"
        say(f"with {candidate.name}: {context.task.metric} {abs(value):.4f}, {fate}")
        if value >= score:
            used, score = tried, value
    return used


def _finish(
    context: Context, model: Any, ingredients: Sequence[Ingredient], used: Sequence[Ingredient], digest: str
) -> Result:
    """Saves the model as a run does, reads it back, counts its zeros and scores it."""
    first, folder, task = ingredients[0], context.folder, context.task
    masks = _masks(first)
    write_text(folder.config, first.folder.config.read_text(encoding="utf-8"))
    save_masks(folder.masks, masks)
    export_model(folder.model, model, context.tokenizer)
    saved = context.load(str(folder.model), task.labels)
    components = components_of(first.config, saved)
    check_masked(find_targets(saved, components), load_masks(folder.masks))
    metrics, predictions = evaluate_model(context, saved.to(context.accelerator.device))
    value = metrics[task.metric]
    members = {each.name: each.result["metric"]["value"] for each in ingredients}
    result = Result(**{
        **first.result,
        "recipe": SOUP,
        "name": SOUP,
        "digest": digest,
        "group": digest,
        "evaluation": evaluated_on(predictions, task.fingerprint(task.eval_splits[0])),
        "metric": {**first.result["metric"], "value": value, "weights": SOUP},
        "metrics": metrics,
        **counted(saved, components, first.result["sparsity"]["target"]),
        "training": {**first.result["training"], "best": None, "members": members, "used": [u.name for u in used]},
        "model": folder.model.name,
        "wandb": None,
        "warnings": [],
        "environment": environment(describe_device(context.accelerator.device), context.precision),
    })  # fmt: skip
    write_predictions(folder, predictions)
    return result
