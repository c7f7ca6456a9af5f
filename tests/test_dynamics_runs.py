"""Whole runs whose steps do more than gradient descent: exact density, and the same files after a stop."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prunebench import train
from prunebench.config import PhaseConfig, ScheduleConfig
from prunebench.paths import RunFolder
from prunebench.run import run
from prunebench.sparsity.criteria.movement import Movement
from tests.test_parallel import ROOT, environment, torchrun
from tests.tiny import tiny_config

torch.set_num_threads(1)

AT_END = ScheduleConfig(phases=[PhaseConfig(name="train", units=1.5), PhaseConfig(epochs=0.0, prune=True)])
SHRINK = ScheduleConfig(
    phases=[PhaseConfig(name="shrink"), PhaseConfig(epochs=0.0, prune=True), PhaseConfig(units=0.5)]
)
MOVING = ScheduleConfig(
    phases=[
        PhaseConfig(name="dense", units=0.25),
        PhaseConfig(name="prune", units=0.75, prune=True, restart_lr=False),
        PhaseConfig(name="settle", units=0.5, restart_lr=False),
    ],
    initial_sparsity=0.0,
    prunings_per_epoch=8,
)
STEPS = 48


@dataclass(frozen=True)
class Method:
    schedule: ScheduleConfig
    criterion: str = "magnitude"
    dynamics: str = "none"
    scope: str = "uniform"
    floor: float = 0.0
    n_m: tuple[int, int] | None = None
    params: dict[str, Any] = field(default_factory=dict)


METHODS = {
    "movement": Method(MOVING, criterion="movement"),
    "movement-global": Method(MOVING, criterion="movement", scope="global"),
    "soft-movement": Method(MOVING, criterion="soft_movement", scope="global", floor=0.005, params={"score_lr": 0.2}),
    "cram": Method(AT_END, dynamics="cram", scope="global", params={"sparsities": [0.5, 0.75]}),
    "cram-n-m": Method(AT_END, dynamics="cram_n_m", n_m=(2, 4)),
    "soft-shrinkage": Method(SHRINK, dynamics="soft_shrinkage"),
    "sr-ste": Method(AT_END, dynamics="sr_ste", n_m=(2, 4)),
    "gradient-flow": Method(AT_END, dynamics="gradient_flow", n_m=(1, 8)),
    "step-n-m": Method(AT_END, dynamics="step_n_m", n_m=(1, 4)),
}


def configure(place: Path, method: Method, name: str, **changes: Any) -> Any:
    sparsity = 1 - method.n_m[0] / method.n_m[1] if method.n_m else 0.75
    config = tiny_config(
        place,
        name=name,
        sparsity=sparsity,
        pruning__schedule=method.schedule,
        pruning__criterion__name=method.criterion,
        pruning__dynamics__name=method.dynamics,
        pruning__scope__name=method.scope,
        pruning__scope__floor=method.floor,
        distillation__hardness=0.5,
        **changes,
    )
    (config.pruning.criterion if method.dynamics == "none" else config.pruning.dynamics).params = dict(method.params)
    if method.n_m:
        pattern = config.pruning.pattern
        pattern.name, (pattern.n, pattern.m) = "n_m", method.n_m
    return config


def folder_of(place: Path, result: dict[str, Any]) -> RunFolder:
    return RunFolder(place / "outputs" / result["name"] / result["digest"])


def sha(folder: RunFolder) -> list[str]:
    files = [folder.masks, folder.predictions, folder.model / "model.safetensors"]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs share one dense model."""
    return tmp_path_factory.mktemp("dynamics")


def stop_at(monkeypatch: pytest.MonkeyPatch, title: str, when: set[int]) -> list[int]:
    """SIGTERM in those updates of the run; returns the steps of all that are made."""
    original, made = train._update, []

    def update(job: Any, model: Any, optimizer: Any, indices: Any, step: int) -> Any:
        if job.title.startswith(title):
            made.append(step)
            if step in when:
                os.kill(os.getpid(), signal.SIGTERM)
        return original(job, model, optimizer, indices, step)

    monkeypatch.setattr(train, "_update", update)
    return made


@pytest.mark.parametrize("name", METHODS)
def test_density_is_exact_and_a_stopped_run_ends_in_the_same_files(
    place: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before a pruning, and after the last one."""
    method = METHODS[name]
    whole = run(configure(place, method, name))
    assert whole["status"] == "finished" and whole["training"]["steps"] == STEPS
    check_weights(folder_of(place, whole), method, whole["sparsity"]["target"])
    made = stop_at(monkeypatch, f"{name}-stopped", {11, 40})
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(configure(place, method, f"{name}-stopped"))
    result = run(configure(place, method, f"{name}-stopped"))
    assert made == list(range(STEPS))
    assert sha(folder_of(place, result)) == sha(folder_of(place, whole))


def check_weights(folder: RunFolder, method: Method, sparsity: float) -> None:
    """The files of the exported model, counted here."""
    weights = load_file(folder.model / "model.safetensors")
    matrices = [weight for name, weight in weights.items() if "encoder.layer" in name and weight.ndim == 2]
    zeros = [int((weight == 0).sum()) for weight in matrices]
    assert all(weight.isfinite().all() for weight in weights.values())
    assert sum(zeros) == sparsity * 4096
    if method.n_m:
        n, m = method.n_m
        assert all(int((weight.reshape(-1, m) != 0).sum(1).max()) == n for weight in matrices)
    elif method.scope == "uniform":
        assert zeros == [sparsity * weight.numel() for weight in matrices]


def test_the_best_weights_of_movement_keep_their_own_mask(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mask has moved on by the end, where the masks are written."""
    monkeypatch.setattr(train, "_better", lambda job, value, best: best is None)  # the first of the final sparsity
    result = run(configure(place, METHODS["movement"], "best", trainer__keep="best", trainer__eval_every=0.125))
    assert result["training"]["best"]["step"] == 36
    assert result["sparsity"]["prunable"] == 0.75


def test_gradients_of_scores_are_clipped_with_those_of_weights(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, norms = Movement.after_step, []

    def after_step(self: Movement, at: Any) -> None:
        norms.append(sum(float(score.grad.square().sum()) for score in self.scores.values()) ** 0.5)
        original(self, at)

    monkeypatch.setattr(Movement, "after_step", after_step)
    run(configure(place, METHODS["movement"], "clipped", trainer__max_grad_norm=1e-5, trainer__max_steps=12))
    assert len(norms) == 12 and min(norms) > 0 and max(norms) < 1e-5


def test_what_soft_movement_prunes_on_the_way_is_logged(place: Path) -> None:
    folder = folder_of(place, run(configure(place, METHODS["soft-movement"], "soft-movement")))
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    plan = dict(json.loads(folder.plan.read_text())["prunings"])
    reached = {row["step"]: row["pruning"]["sparsity"] for row in rows if "pruning" in row}
    assert list(reached) == list(plan) and reached[32] == plan[32] == 0.75
    assert all(reached[step] != plan[step] for step in plan if step < 32) and max(reached.values()) > 0


WORKER = '''
"""Writes what a process of a data-parallel run ends with."""
import hashlib, os, sys
from pathlib import Path

import torch

from prunebench import run as runs
from tests.test_dynamics_runs import METHODS, configure

place, original = Path(sys.argv[1]), runs.train
torch.set_num_threads(1)


def train(job):
    trained = original(job)
    state = job.dynamics.state_dict() if job.dynamics is not None else {}
    tensors = {**job.model.state_dict(), **job.sparsifier.masks, **{"state." + key: state[key] for key in state}}
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in tensors.values())).hexdigest()
    with (place / f"rank-{os.environ['RANK']}").open("a") as file:
        file.write(f"{job.title} {digest}\\n")
    return trained


runs.train = train
for name in ("movement", "cram"):
    runs.run(configure(place, METHODS[name], name + "-two", trainer__batch_size=17))
'''


def test_two_processes_end_with_the_same(place: Path) -> None:
    """A batch of 17 gives them shares of different size."""
    (place / "worker.py").write_text(WORKER)
    command = [*torchrun(), str(place / "worker.py"), str(place)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    first, second = ((place / f"rank-{rank}").read_text() for rank in (0, 1))
    assert first == second and first.count("\n") == 3  # with the dense run
