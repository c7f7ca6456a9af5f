"""PERP: adapters against autograd through the weight they stand for, merged without losing a zero; parts that stay."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from prunebench import train
from prunebench.config import AdaptersConfig, PhaseConfig, RunConfig, ScheduleConfig
from prunebench.digest import run_digest
from prunebench.retraining import Adapters
from prunebench.run import run
from prunebench.sparsity.sparsifier import build_sparsifier
from prunebench.targets import Target
from prunebench.validate import problems
from tests.test_methods_runs import config_of, folder_of, sums
from tests.test_parallel import ROOT, environment, equal_masks_and_near_weights, folder, torchrun
from tests.tiny import tiny_config

KINDS = ["mask", "scale", "prune"]


def pruned(transposed: bool) -> tuple[Target, Tensor]:
    """A matrix of 5 outputs and 7 inputs in float64, pruned to about a half, and its mask (out, in)."""
    torch.manual_seed(3)
    module = Conv1D(5, 7).double() if transposed else nn.Linear(7, 5).double()
    target = Target("w", module, "encoder", transposed)
    mask = torch.rand(5, 7) > 0.5
    target.matrix.mul_(mask)
    return target, mask


def at_work(kind: str, target: Target, mask: Tensor, lr: float = 0.1) -> tuple[Adapters, torch.optim.Optimizer]:
    sparsifier = build_sparsifier([target])
    sparsifier.masks = {"w": mask.t().contiguous() if target.transposed else mask}
    optimizer = torch.optim.AdamW([target.weight], lr=lr, weight_decay=0.5)
    adapters = Adapters(kind, rank=3, alpha=6.0, seed=1)
    adapters.begin(sparsifier, optimizer)
    adapters.start(step=4)
    return adapters, optimizer


def stands_for(kind: str, before: Tensor, mask: Tensor, a: Tensor, b: Tensor, training: bool) -> Tensor:
    """The weight, entry by entry."""
    rows = []
    for i in range(before.shape[0]):
        row = []
        for j in range(before.shape[1]):
            product = sum((b[i, r] * a[r, j] for r in range(3)), torch.zeros((), dtype=before.dtype))
            if kind == "scale":
                row.append(before[i, j] * product)
            else:
                passes = mask[i, j] or (kind == "prune" and training)
                row.append(before[i, j] + 2.0 * product * float(passes))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def loss_of(weight: Tensor, step: int = 0) -> Tensor:
    """Of a weight (out, in); curved, and another one at each step."""
    torch.manual_seed(100 + step)
    inputs, wanted = torch.randn(9, 7, dtype=weight.dtype), torch.randn(9, 5, dtype=weight.dtype)
    return ((inputs @ weight.t()).tanh() - wanted).square().mean()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_learn_as_autograd_through_the_weight_they_stand_for(kind: str, transposed: bool) -> None:
    target, mask = pruned(transposed)
    before = target.matrix.clone()
    adapters, optimizer = at_work(kind, target, mask)
    a, b = (parameter.detach().clone().requires_grad_() for parameter in adapters.pairs["w"])
    assert torch.allclose(stands_for(kind, before, mask, a, b, training=False), before, atol=1e-15)
    literal = torch.optim.AdamW([a, b], lr=0.1, weight_decay=0.0)
    for step in range(5):
        adapters.before_pass()
        weight = target.weight.t() if transposed else target.weight
        loss_of(weight, step).backward()
        adapters.take_gradients()
        literal.zero_grad()
        loss_of(stands_for(kind, before, mask, a, b, training=True), step).backward()
        for ours, theirs in zip(adapters.pairs["w"], (a, b), strict=True):
            assert ours.grad is not None and theirs.grad is not None
            assert torch.allclose(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)
        assert target.weight.grad is None
        optimizer.step()
        literal.step()
        optimizer.zero_grad()
        adapters.after_step()
        expected = stands_for(kind, before, mask, a, b, training=False).detach()
        assert torch.allclose(target.matrix, expected, rtol=1e-9, atol=1e-12)
        assert target.matrix[~mask].eq(0).all() and target.matrix[mask].ne(0).all()
    assert (target.matrix - before).abs().max() > 0.01


def test_adapters_begin_anew_and_leave_no_trace() -> None:
    target, mask = pruned(False)
    adapters, optimizer = at_work("mask", target, mask)
    first = adapters.pairs["w"][0].detach().clone()
    loss_of(target.weight).backward()
    adapters.take_gradients()
    optimizer.step()
    adapters.after_step()
    merged = target.matrix.clone()
    adapters.start(step=5)
    a, b = adapters.pairs["w"]
    assert torch.equal(adapters.before["w"], merged) and not b.any() and not torch.equal(a, first)
    assert a not in optimizer.state and len(list(adapters.parameters())) == 2
    adapters.stop()
    assert torch.equal(target.matrix, merged) and adapters.state_dict() == {} and not list(adapters.parameters())


def test_what_is_dense_gets_plain_lora() -> None:
    target, _ = pruned(False)
    adapters, _ = at_work("mask", target, torch.ones(5, 7, dtype=torch.bool))
    adapters._sparsifier.masks = {}
    adapters.pairs["w"][1].data.fill_(1.0)
    adapters.after_step()
    assert target.matrix.ne(0).all()


# --- whole runs ---------------------------------------------------------------------------------------------------


def perp(place: Path, kind: str = "mask", **changes: Any) -> RunConfig:
    """Prunes within the retraining as well, and trains everything in the end."""
    phases = [
        PhaseConfig(name="prune", prune=True, train="perp", reset_optimizer=True),
        PhaseConfig(name="retrain", train="perp", repeat=2),
        PhaseConfig(name="all"),
    ]
    schedule = ScheduleConfig(phases=phases, initial_fraction=0.5, prunings_per_epoch=8)
    adapters = AdaptersConfig(kind=kind, rank=4)
    return config_of(place, "one_shot", pruning__schedule=schedule, pruning__adapters=adapters, **changes)


def one_shot(place: Path, kind: str = "mask", train: str = "perp") -> RunConfig:
    phases = [PhaseConfig(name="prune", epochs=0, prune=True), PhaseConfig(name="retrain", train=train)]
    schedule = ScheduleConfig(phases=phases, lr=0.01)
    return tiny_config(
        place, pruning__schedule=schedule, distillation__hardness=0.0, pruning__adapters=AdaptersConfig(kind=kind)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_part_learns_and_zeros_stay(kind: str, tmp_path: Path) -> None:
    config = one_shot(tmp_path, kind)
    result = run(config)
    folder = folder_of(result, tmp_path)
    before = load_file(Path(result["dense"]["folder"]) / "model" / "model.safetensors")
    after, masks = load_file(folder.model / "model.safetensors"), load_file(folder.masks)
    for name, weight in after.items():
        if name in masks:
            assert torch.equal(weight != 0, masks[name])
            assert not torch.equal(weight[masks[name]], before[name][masks[name]])
        elif "embeddings" in name and weight.ndim == 2:
            assert torch.equal(weight, before[name])  # bit for bit
        elif "key.bias" not in name:  # has no say in attention
            assert not torch.equal(weight, before[name]), name
    assert result["sparsity"]["prunable"] == 0.75
    assert result["metric"]["value"] > 0.8


def test_adapters_change_a_matrix_by_their_rank(tmp_path: Path) -> None:
    """LoRA-Prune's and MaskLoRA's changes are masked; without a mask their rank would be seen."""
    config = one_shot(tmp_path, "mask")
    config.pruning.adapters.rank, config.pruning.schedule.phases[1].units = 2, 0.5
    config.pruning.schedule.phases[0].prune, config.sparsity, config.start = False, 0.0, "pretrained"
    result = run(config)
    before = load_file(tmp_path / "pretrained" / "model.safetensors")
    after = load_file(folder_of(result, tmp_path).model / "model.safetensors")
    name = "encoder.layer.0.intermediate.dense.weight"
    change = after[f"bert.{name}"] - before[name]
    assert torch.linalg.matrix_rank(change, rtol=1e-4) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_ends_in_the_same_files(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = run(perp(tmp_path / "one", kind))
    steps = undisturbed["training"]["steps"]
    original, calls = train._update, []

    def update(job: Any, *args: Any) -> Any:
        if "tiny" in job.title:
            calls.append(1)
            if len(calls) in (steps // 4, steps // 2, steps):
                raise SystemExit("killed")
        return original(job, *args)

    monkeypatch.setattr(train, "_update", update)
    for _ in range(3):
        with pytest.raises(SystemExit):
            run(perp(tmp_path / "two", kind))
    again = run(perp(tmp_path / "two", kind))
    assert sums(folder_of(again, tmp_path / "two")) == sums(folder_of(undisturbed, tmp_path / "one"))


WORKER = """
import sys
from pathlib import Path
import torch
from prunebench.run import run
from tests.test_retraining import perp
torch.set_num_threads(1)
place, name, parts = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
settings = {"dropout": 0.0, "eps": 1e-3, "batch_size": 18, "accumulation": parts, "max_grad_norm": 0.1}
run(perp(place, "prune", name=name, **{"trainer__" + key: value for key, value in settings.items()}))
"""


def test_two_processes_and_parts_of_a_batch_learn_the_same(tmp_path: Path) -> None:
    """LoRA-Prune, whose passes see another weight than what is saved; gradients are clipped at every step."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    for launcher, name, parts in (([sys.executable], "alone", 1), (torchrun(), "together", 3)):
        command = [*launcher, str(script), str(tmp_path), name, str(parts)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, cwd=ROOT)
        assert done.returncode == 0, done.stderr
    equal_masks_and_near_weights(folder(tmp_path, "alone"), folder(tmp_path, "together"))


def test_no_pruned_weight_comes_back_between_prunings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, shares = train._update, []

    def update(job: Any, *args: Any) -> Any:
        row = original(job, *args)
        if job.sparsifier.masks:
            zeros = sum(int((target.weight == 0).sum()) for target in job.sparsifier.targets)
            shares.append(zeros / sum(target.weight.numel() for target in job.sparsifier.targets))
        return row

    monkeypatch.setattr(train, "_update", update)
    config = perp(tmp_path)
    run(config)
    assert shares == [0.25] * 4 + [0.46875] * 4 + [0.5] * 24  # cubic: 0.25, 0.5 - 0.25 / 8, 0.5


def test_adapters_are_part_of_a_run_that_has_them() -> None:
    def digest(train: str, rank: int) -> str:
        config = RunConfig()
        config.pruning.adapters.rank = rank
        config.pruning.schedule.phases[0].train = train
        return run_digest(config, model="m", tokenizer=None, data={}, teacher=None, precision="fp32")

    assert digest("all", 16) == digest("all", 8)
    assert len({digest("all", 16), digest("head", 16), digest("perp", 16), digest("perp", 8)}) == 4


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"pruning__dynamics__name": "cram"}, "dynamics cram changes the weights that adapters stand on"),
        ({"pruning__criterion__name": "movement"}, "criterion movement learns from gradients of weights"),
        ({"pruning__adapters__kind": "mosk"}, "pruning.adapters.kind=mosk: must be one of mask, scale, prune"),
        ({"pruning__adapters__rank": 0}, "pruning.adapters.rank=0: must be in [1, 1000000]"),
        ({"pruning__adapters__alpha": 0.0}, "pruning.adapters.alpha=0: must be in (0, 1000000]"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(changes: dict[str, Any], part: str, tmp_path: Path) -> None:
    config = one_shot(tmp_path)
    assert problems(config) == []
    for key, value in changes.items():
        *path, last = key.split("__")
        target: Any = config
        for name in path:
            target = getattr(target, name)
        setattr(target, last, value)
    (line,) = problems(config)
    assert part in line
    config = one_shot(tmp_path, train="perb")
    assert ["train=perb must be all, head or perp" in line for line in problems(config)] == [True]
