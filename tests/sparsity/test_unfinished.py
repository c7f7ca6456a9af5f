"""A pruning layer by layer that is stopped goes on with the layers that are left, and ends in the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from calibrating import encoder_targets, make_calibration, make_model

from prunebench.checkpoint import UnfinishedPruning
from prunebench.sparsity.criteria import Criterion
from prunebench.sparsity.patterns import PATTERNS
from prunebench.sparsity.scopes import SCOPES
from prunebench.sparsity.sparsifier import Axes, Sparsifier
from prunebench.sparsity.stats import InputNorm
from prunebench.targets import Target


class ByInputs(Criterion[InputNorm]):
    layer_by_layer = True

    def __init__(self, stop_after: int | None = None) -> None:
        self.left = stop_after
        self.scored: list[str] = []

    def stat(self, target: Target) -> InputNorm:
        return InputNorm(target)

    def score(self, target: Target, stat: InputNorm) -> torch.Tensor:
        if self.left == len(self.scored):
            raise KeyboardInterrupt
        self.scored.append(target.name)
        return target.matrix.abs() * stat.norm()


def prune(folder: Path, criterion: Criterion, sparsity: float = 0.5) -> list[torch.Tensor]:
    model = make_model(layers=4)
    axes = Axes(criterion, SCOPES.build("uniform"), PATTERNS.build("unstructured"))
    sparsifier = Sparsifier(encoder_targets(model), axes)
    sparsifier.update(sparsity, make_calibration(model), unfinished=UnfinishedPruning(folder, step=3, every=0))
    assert sparsifier.sparsity() == sparsity
    return [*(p.detach() for p in model.parameters()), *sparsifier.masks.values()]


def test_it_goes_on_after_the_last_whole_layer(tmp_path: Path) -> None:
    undisturbed = prune(tmp_path / "one", ByInputs())
    with pytest.raises(KeyboardInterrupt):
        prune(tmp_path / "two", ByInputs(stop_after=14))  # of 24: two layers and two matrices of the third
    rest = ByInputs()
    again = prune(tmp_path / "two", rest)
    assert len(rest.scored) == 12 and all("layer.2" in name or "layer.3" in name for name in rest.scored)
    assert all(torch.equal(a, b) for a, b in zip(undisturbed, again, strict=True))


def test_what_is_damaged_or_of_another_pruning_does_not_count(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        prune(tmp_path, ByInputs(stop_after=14))
    (file, *_) = sorted(tmp_path.rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:100])
    other, same = ByInputs(), ByInputs()
    prune(tmp_path, other, sparsity=0.25)
    assert len(other.scored) == 24
    prune(tmp_path, same)
    assert len(same.scored) == 18  # the first layer was the damaged one
    assert UnfinishedPruning(tmp_path, step=4).read(0.5) == {} and not list(tmp_path.rglob("*.safetensors"))


def test_parts_of_a_pruning_are_kept_apart(tmp_path: Path) -> None:
    first, second = torch.ones(2), torch.zeros(2)
    unfinished = UnfinishedPruning(tmp_path, step=0, every=3600)
    unfinished.add(0.25, {"a": (first, first > 0), "b": (first, first > 0)})
    unfinished._every = 0
    unfinished.add(0.5, {"a": (second, second > 0)})
    again = UnfinishedPruning(tmp_path, step=0)
    assert again.read(0.25) == {}
    assert again.read(0.5).keys() == {"a"} and torch.equal(again.read(0.5)["a"][0], second)


def test_by_default_a_short_pruning_leaves_no_file(tmp_path: Path) -> None:
    model = make_model()
    axes = Axes(ByInputs(), SCOPES.build("uniform"), PATTERNS.build("unstructured"))
    unfinished = UnfinishedPruning(tmp_path, step=0)
    Sparsifier(encoder_targets(model), axes).update(0.5, make_calibration(model), unfinished=unfinished)
    assert not list(tmp_path.rglob("*.safetensors"))
