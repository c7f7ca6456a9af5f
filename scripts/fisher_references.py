"""What `bench_fisher.py` runs of the references' own code, and on our side to compare; see there."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
from measuring import Ratios
from torch import Tensor, nn

from prunebench.sparsity.criteria import CRITERIA
from prunebench.sparsity.criteria.second_order import OptimalBert
from prunebench.sparsity.masks import top_mask
from prunebench.targets import Target


class Setting(Protocol):
    """A matrix, and the gradients that every form is given."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def count(self) -> int: ...

    @property
    def block_size(self) -> int: ...

    @property
    def damp(self) -> float: ...

    def target(self) -> Target: ...

    def gradients(self) -> Iterator[Tensor]: ...


def error_of(found: Tensor, expected: Tensor) -> float:
    """The largest relative difference, of the first entries where `expected` are fewer."""
    found = found.flatten()[: expected.numel()].double()
    return float(((found - expected.flatten()).abs() / expected.flatten().abs().clamp(min=1e-300)).max())


def agreement(what: str, ratios: Ratios, score: Tensor, theirs: Tensor, change: float) -> None:
    """Share of equal mask entries. `change`: how far the updated weights are apart, over the largest change."""
    theirs = theirs.reshape(score.shape)
    for sparsity in (0.5, 0.9):
        keep = score.numel() - round(sparsity * score.numel())
        same = float((top_mask(score, keep) == top_mask(theirs, keep)).double().mean())
        scores = f"{error_of(score, theirs.double()):.1e}"
        ratios.add(f"{what}: equal mask at {sparsity:.0%}", same, score_error=scores, update_error=f"{change:.1e}")


def distance(weight: Tensor, theirs: Tensor, before: Tensor) -> float:
    return float((weight - theirs).abs().max() / (theirs - before).abs().max())


def run_ours(criterion: Any, target: Target, setting: Setting, size: int = 1) -> tuple[Tensor, Any]:
    stat = criterion.stat(target)
    for gradient in setting.gradients():
        stat.observe_gradient(gradient)
    criterion.prepare({target.name: target}, {target.name: stat})
    if size == 1:
        return criterion.score(target, stat), stat
    return criterion.group_score(target, stat, size), stat


def compensated(criterion: Any, target: Target, stat: Any, mask: Tensor) -> Tensor:
    criterion.prepare_update({target.name: target}, {target.name: mask}, {target.name: stat})
    criterion.compensate(target, mask, stat)
    return target.matrix * mask


def against_sparseml(path: Path, setting: Setting, ratios: Ratios) -> None:
    """Of a group's score the reference gives a copy to each of its weights."""
    module = load_sparseml(path)
    for size, block_size in ((1, setting.block_size), (4, 48)):
        target, criterion = setting.target(), OptimalBert(block_size, setting.damp)
        score, stat = run_ours(criterion, target, setting, size)
        parameter, ones = nn.Parameter(target.matrix.clone()), torch.ones(setting.shape)
        kind = "unstructured" if size == 1 else "block4"
        scorer = module.OBSPruningParamsScorer([parameter], setting.count, setting.damp, block_size, kind)
        scorer._enabled_grad_buffering = True
        for gradient in setting.gradients():
            parameter.grad = gradient.clone()
            scorer.pre_optim_step_update([ones])
        theirs = scorer.score_parameters()[0]
        what = f"sparseml {kind} {setting.shape[0]}x{setting.shape[1]}"
        mask = top_mask(score, score.numel() // 2).repeat_interleave(size, dim=1)
        before = target.matrix * mask
        scorer.mask_update([mask.float()], [mask.float() - 1])
        change = distance(compensated(criterion, target, stat, mask), parameter.detach() * mask, before)
        agreement(what, ratios, score, theirs[:, ::size], change)


def against_mfac(path: Path, setting: Setting, ratios: Ratios) -> None:
    module = load("prun", path / "prun.py")
    rows = torch.stack([gradient.flatten() for gradient in setting.gradients()])
    cpu = torch.device("cpu")
    for name, block_size in (("mfac", 128), ("mfac full", None)):
        target, criterion = setting.target(), CRITERIA.build("mfac", {"block_size": block_size})
        score, stat = run_ours(criterion, target, setting)
        if block_size is not None:
            inverse = module.HInvFastBlock(rows.clone(), block_size, 1000, cpu, damp=1e-5)
        else:
            inverse = module.HInvFastSwap(rows.clone(), damp=1e-5, gpu=cpu)
        weight, diagonal = target.matrix.flatten(), inverse.diag()
        what = f"{name} {setting.shape[0]}x{setting.shape[1]}"
        expected = weight.square() / (2 * diagonal)
        mask = top_mask(score, score.numel() // 2)
        theirs = (weight - inverse.mul(weight * ~mask.flatten() / diagonal)).view(mask.shape) * mask
        before = target.matrix * mask
        change = distance(compensated(criterion, target, stat, mask), theirs, before)
        agreement(what, ratios, score, expected, change)


def load_sparseml(path: Path) -> ModuleType:
    def plain(*args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        return lambda decorated: decorated

    sparsification = "sparseml.pytorch.sparsification"
    names: dict[str, dict[str, Any]] = {
        f"{sparsification}.modifier": {"ModifierProp": plain, "PyTorchModifierYAML": plain},
        f"{sparsification}.pruning.mask_creator": {"PruningMaskCreator": object, "get_mask_creator_default": None},
        f"{sparsification}.pruning.modifier_pruning_base": {"BaseGradualPruningModifier": object},
        "sparseml.pytorch.utils": {"MEMORY_BOUNDED": "", "GradSampler": object},
        "sparseml.pytorch.utils.logger": {"BaseLogger": object},
        "sparseml.utils": {"interpolate": None},
    }
    for name in ("sparseml", "sparseml.pytorch", sparsification, f"{sparsification}.pruning"):
        sys.modules[name] = ModuleType(name)
    for name, members in names.items():
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__dict__.update(members)
    folder = path / "src/sparseml/pytorch/sparsification/pruning"
    load(f"{sparsification}.pruning.scorer", folder / "scorer.py")
    return load(f"{sparsification}.pruning.modifier_pruning_obs", folder / "modifier_pruning_obs.py")


def load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.exists():
        raise SystemExit(f"{path} is missing: give a checkout of the reference")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
