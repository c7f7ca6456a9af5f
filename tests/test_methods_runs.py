"""Whole tiny runs of methods that change the course of training: released, rewound, regrown, calibrated."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prunebench import train
from prunebench.compose import load_config
from prunebench.config import (
    AxisConfig,
    CriterionConfig,
    PhaseConfig,
    RunConfig,
    ScheduleConfig,
    ScopeConfig,
)
from prunebench.paths import RunFolder
from prunebench.run import run
from tests.test_parallel import ROOT, environment, equal_masks_and_near_weights, folder, torchrun
from tests.tiny import tiny_config

Phases = list[PhaseConfig]


def schedule_of(name: str) -> ScheduleConfig:
    """As conf/ has it."""
    return load_config(["recipe=bert_smc_90", f"pruning/schedule={name}"]).pruning.schedule


def config_of(place: Path, schedule: str, **changes: Any) -> RunConfig:
    """Units are of 8 steps; no distillation."""
    settings: dict[str, Any] = {
        "sparsity": 0.5, "start": "pretrained", "distillation__hardness": 0.0, "trainer__epochs": 0.25,
        "pruning__schedule": schedule_of(schedule), "trainer__checkpoint_steps": 5,
    }  # fmt: skip
    return tiny_config(place, **(settings | changes))


def rigl(place: Path) -> RunConfig:
    config = config_of(
        place, "constant", pruning__criterion=CriterionConfig("random"), pruning__scope=ScopeConfig("erk"),
        pruning__regrowth=AxisConfig("rigl"),
    )  # fmt: skip
    config.pruning.schedule.prune_every = 4
    return config


def obert(place: Path) -> RunConfig:
    config = config_of(
        place, "obert_10", pruning__criterion=CriterionConfig("obert", {"block_size": 16}),
        pruning__update=AxisConfig("obs"), pruning__calibration__examples=32, pruning__calibration__batch_size=4,
    )  # fmt: skip
    for phase in config.pruning.schedule.phases:
        phase.epochs = 0.25
    config.pruning.schedule.initial_sparsity = 0.3
    config.pruning.schedule.prunings_per_epoch = 8
    return config


RUNS: dict[str, Callable[[Path], RunConfig]] = {
    "acdc": lambda place: config_of(place, "acdc"),
    "lottery_ticket": lambda place: config_of(place, "lottery_ticket"),
    "lottery_ticket_early": lambda place: config_of(place, "lottery_ticket_early", trainer__epochs=0.5),
    "from_scratch": lambda place: config_of(place, "from_scratch", start="teacher"),
    "rigl": rigl,
    "obert": obert,
}


def folder_of(result: dict[str, Any], place: Path) -> RunFolder:
    return RunFolder(place / "outputs" / result["name"] / result["digest"])


def sums(folder: RunFolder) -> list[str]:
    files = (folder.masks, folder.predictions, folder.model / "model.safetensors")
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_ends_in_the_same_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = run(RUNS[name](tmp_path / "one"))
    steps = undisturbed["training"]["steps"]
    assert undisturbed["sparsity"]["prunable"] == 0.5
    original, calls = train._update, []

    def update(job: Any, *args: Any) -> Any:
        if "tiny" in job.title:
            calls.append(1)
            if len(calls) in (steps // 3, steps):
                raise SystemExit("killed")
        return original(job, *args)

    monkeypatch.setattr(train, "_update", update)
    for _ in range(2):
        with pytest.raises(SystemExit):
            run(RUNS[name](tmp_path / "two"))
    again = run(RUNS[name](tmp_path / "two"))
    assert sums(folder_of(again, tmp_path / "two")) == sums(folder_of(undisturbed, tmp_path / "one"))


def test_a_run_that_looks_at_data_can_be_stopped_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = run(RUNS["obert"](tmp_path / "one"))
    original: Any = train.make_calibration
    batches: list[int] = []

    def make_calibration(*args: Any, on_batch: Callable[[], None], **settings: Any) -> Any:
        def counted() -> None:
            batches.append(1)
            if len(batches) == 20:  # the third of eight gradients of the third pruning
                os.kill(os.getpid(), signal.SIGINT)
            on_batch()

        return original(*args, on_batch=counted, **settings)

    monkeypatch.setattr(train, "make_calibration", make_calibration)
    with pytest.raises(KeyboardInterrupt):
        run(RUNS["obert"](tmp_path / "two"))
    assert len(batches) == 20
    again = run(RUNS["obert"](tmp_path / "two"))
    assert sums(folder_of(again, tmp_path / "two")) == sums(folder_of(undisturbed, tmp_path / "one"))


WORKER = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from prunebench.run import run
from tests.test_methods_runs import RUNS
torch.set_num_threads(1)
config = RUNS[sys.argv[2]](Path(sys.argv[1]))
config.name, config.trainer.dropout, config.trainer.eps = sys.argv[3], 0.0, 1e-3
config.outputs = str(Path(sys.argv[1]) / "outputs")
run(config)
"""


@pytest.mark.parametrize("name", ["obert", "rigl"])
def test_two_processes_choose_the_same_weights(name: str, tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    for launcher, run_name in (([sys.executable], "alone"), (torchrun(), "together")):
        command = [*launcher, str(script), str(tmp_path), name, run_name]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, cwd=ROOT)
        assert done.returncode == 0, done.stderr
    equal_masks_and_near_weights(folder(tmp_path, "alone"), folder(tmp_path, "together"))


def seen_weights(monkeypatch: pytest.MonkeyPatch) -> dict[int, dict[str, torch.Tensor]]:
    """The student's parameters as each update begins, by step; filled while runs go on."""
    original: Any = train._update
    seen: dict[int, dict[str, torch.Tensor]] = {}

    def update(job: Any, model: Any, optimizer: Any, indices: Any, step: int) -> Any:
        if "tiny" in job.title:
            seen[step] = {name: p.detach().clone() for name, p in job.model.named_parameters()}
        return original(job, model, optimizer, indices, step)

    monkeypatch.setattr(train, "_update", update)
    return seen


def test_a_ticket_trains_from_the_first_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = seen_weights(monkeypatch)
    result = run(RUNS["lottery_ticket"](tmp_path))
    masks = load_file(folder_of(result, tmp_path).masks)
    start, ticket = seen[0], seen[result["training"]["steps"] - 8]
    for name, value in ticket.items():
        expected = start[name] * masks[name] if name in masks else start[name]
        assert torch.equal(value, expected), name
    assert not torch.equal(start["classifier.weight"], seen[7]["classifier.weight"])  # it does train


def test_a_ticket_can_be_rewound_to_an_early_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = seen_weights(monkeypatch)
    result = run(RUNS["lottery_ticket_early"](tmp_path))
    masks = load_file(folder_of(result, tmp_path).masks)
    early = 2  # a tenth of 16 steps
    last = max(
        step
        for step, weights in seen.items()
        if torch.equal(weights["classifier.weight"], seen[early]["classifier.weight"])
    )
    assert last > 32
    assert all(torch.equal(seen[last][name], seen[early][name] * mask) for name, mask in masks.items())


def test_scratch_means_new_weights_under_the_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = seen_weights(monkeypatch)
    result = run(RUNS["from_scratch"](tmp_path))
    masks = load_file(folder_of(result, tmp_path).masks)
    teacher = load_file(Path(result["dense"]["folder"]) / "model" / "model.safetensors")
    for name, mask in masks.items():
        assert not seen[0][name][~mask].any()
        assert not torch.equal(seen[0][name], teacher[name] * mask)
    assert not torch.equal(
        seen[0]["bert.embeddings.word_embeddings.weight"], teacher["bert.embeddings.word_embeddings.weight"]
    )


def test_released_weights_learn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = seen_weights(monkeypatch)
    result = run(config_of(tmp_path, "acdc", trainer__epochs=0.5))
    name = "bert.encoder.layer.0.attention.self.query.weight"
    zeros = [int((seen[step][name] == 0).sum()) for step in sorted(seen)]
    rises = sum(after > before for before, after in itertools.pairwise(zeros))
    falls = sum(after < before for before, after in itertools.pairwise(zeros))
    assert rises == 8 and falls == 7  # compressed eight times, released seven times
    assert result["training"]["prunings"] == 8
