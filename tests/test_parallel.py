"""Several processes: data-parallel ones that share a run, and independent ones that want the same teacher."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prunebench.paths import RunFolder
from tests.killing import run_until, settings, start
from tests.reading import rows_of, sums
from tests.test_killed import prepare, runs_in

ROOT = Path(__file__).resolve().parents[1]
WORKER = '''
"""One process of a data-parallel run: dropout off; a last batch of one example, so that one process has none."""
import os, signal, sys
from pathlib import Path

import torch

from prunebench import paths, train
from prunebench.run import run
from tests.tiny import tiny_config

place, name, kill_at, keep = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
original, temporary, calls = train._update, paths._temporary, []


def update(job, *args):
    assert job.accelerator.num_processes == int(world)
    calls.append(job.title)
    if kill_at and rank == "1" and calls.count(name + " seed 1") == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(job, *args)


def only_the_first_writes(path):
    assert rank == "0" or ".cache" in path.parts, f"process {rank} writes {path}"
    return temporary(path)


train._update, paths._temporary = update, only_the_first_writes
torch.set_num_threads(1)
settings = {"dropout": 0.0, "eps": 1e-3, "batch_size": 17, "checkpoint_steps": 4, "keep": keep}
settings |= {"eval_every": 100.0} if keep == "best" else {}
run(tiny_config(place, name=name, **{"trainer__" + key: value for key, value in settings.items()}))
'''


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def torchrun() -> list[str]:
    port = f"--master-port={free_port()}"
    return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", port]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def work(
    place: Path, name: str, processes: int = 1, kill_at: int = 0, keep: str = "last"
) -> subprocess.CompletedProcess[str]:
    """A worker's run called `name`; `kill_at`: process 1 is killed at that update of it."""
    script = place / "worker.py"
    script.write_text(WORKER)
    launcher = [sys.executable] if processes == 1 else torchrun()
    command = [*launcher, str(script), str(place), name, str(kill_at), keep]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, cwd=ROOT)


def folder(place: Path, name: str) -> RunFolder:
    return RunFolder(next((place / "outputs" / name).iterdir()))


def equal_masks_and_near_weights(ours: RunFolder, theirs: RunFolder) -> None:
    masks, others = load_file(ours.masks), load_file(theirs.masks)
    assert masks and all(torch.equal(mask, others[name]) for name, mask in masks.items())
    weights, others = (load_file(run.model / "model.safetensors") for run in (ours, theirs))
    assert max(float((weight - others[name]).abs().max()) for name, weight in weights.items()) < 1e-5


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one process has made the run `alone`; the dense model is shared by all others there."""
    place = prepare(tmp_path_factory.mktemp("alone"))
    done = work(place, "alone")
    assert done.returncode == 0, done.stderr
    return place


def test_two_processes_make_the_same_masks_and_weights(alone: Path) -> None:
    done = work(alone, "together", processes=2)
    assert done.returncode == 0, done.stderr
    one, two = folder(alone, "alone"), folder(alone, "together")
    equal_masks_and_near_weights(one, two)
    assert [(row["step"], row["phase"]) for row in rows_of(two) if "loss" in row] == [
        (row["step"], row["phase"]) for row in rows_of(one) if "loss" in row
    ]
    again = work(alone, "killed", processes=2, kill_at=11)
    assert again.returncode != 0
    assert folder(alone, "killed").state.is_dir()
    assert work(alone, "killed", processes=2).returncode == 0
    assert sums(folder(alone, "killed")).keys() == sums(two).keys()
    masks = "masks.safetensors"
    assert sums(folder(alone, "killed"))[masks] == sums(two)[masks]
    weights = "model/model.safetensors"
    assert sums(folder(alone, "killed"))[weights] == sums(two)[weights]


def test_what_two_processes_began_one_can_finish(alone: Path) -> None:
    assert work(alone, "handed", processes=2, kill_at=11).returncode != 0
    done = work(alone, "handed", processes=1)
    assert done.returncode == 0, done.stderr
    equal_masks_and_near_weights(folder(alone, "handed"), folder(alone, "alone"))
    steps = [row["step"] for row in rows_of(folder(alone, "handed")) if "loss" in row]
    assert steps == list(range(len(steps)))


def test_all_processes_find_the_best_weights(alone: Path) -> None:
    """The last evaluation is the best, so that one process has only just written them."""
    done = work(alone, "best", processes=2, keep="best")
    assert done.returncode == 0, done.stderr
    result = json.loads(folder(alone, "best").result.read_text())
    assert result["metric"]["weights"] == "best" and result["training"]["best"]["step"] > 0


def test_torchrun_starts_the_command_line(alone: Path) -> None:
    """As the README has it."""
    words = [
        "recipe=bert_smc_90", "dataset=classification", f"dataset.train_file={alone}/train.csv",
        "dataset.max_length=32", f"dataset.validation_file={alone}/validation.csv", "model=hf",
        f"model.name={alone}/pretrained", "name=cli",
        "trainer.max_steps=6", "trainer.batch_size=16", "trainer.device=cpu", f"outputs={alone}/cli", "--json",
        "pruning.schedule.prunings_per_epoch=1", "trainer.log_every=1",
    ]  # fmt: skip
    command = [*torchrun(), "-m", "prunebench", "run", *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, cwd=alone)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)  # one process speaks
    assert result["status"] == "finished"
    assert result["weights"]["prunable_nonzero"] == round(0.1 * 4096)
    assert done.stderr.count(": 6 steps, in ") == 2  # the dense run and its own are announced once


# --- independent processes ----------------------------------------------------------------------------------------


def half(place: str, trace: str) -> None:
    run_until(place, -1, trace=trace, **settings("local"), sparsity=0.5, name="half")


def whole(place: str, trace: str) -> None:
    run_until(place, -1, trace=trace, **settings("local"))


def test_two_runs_at_once_make_teacher_tokens_and_logits_once(tmp_path: Path) -> None:
    place = prepare(tmp_path)
    processes = [start(target, str(place), str(tmp_path / target.__name__)) for target in (half, whole)]
    for process in processes:
        process.join(200)
        assert process.exitcode == 0, (place / "stderr").read_text()
    moments = [moment for name in ("half", "whole") for moment in json.loads((tmp_path / name).read_text())]
    assert moments.count("_update before ") == 12 + 24 + 36  # the dense model's, and those of each
    assert moments.count("tokenize before ") == 2  # training and validation
    assert moments.count("_write_logits before ") == 1


def killed_in_the_teacher(place: str) -> None:
    from prunebench import train

    original, calls = train._update, []

    def update(*args: object) -> object:
        calls.append(1)
        if len(calls) == 11:
            Path(place, "reached").touch()
            time.sleep(600)  # until it is killed
        return original(*args)

    train._update = update  # type: ignore[assignment]
    run_until(place, -1, **settings("local"))


def test_who_waits_for_a_teacher_takes_over_from_a_killed_holder(tmp_path: Path) -> None:
    place = prepare(tmp_path)
    holder = start(killed_in_the_teacher, str(place))
    while not (place / "reached").exists():
        time.sleep(0.05)
    waiting = start(half, str(place), str(tmp_path / "trace"))
    while "waiting for another process that works on dense-" not in read(place / "stderr"):
        assert waiting.is_alive()
        time.sleep(0.05)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    waiting.join(120)
    assert waiting.exitcode == 0
    assert json.loads((tmp_path / "trace").read_text()).count("_update before ") == 2 + 24  # from its checkpoint at 10
    holder.join(10)
    again = start(whole, str(place), str(tmp_path / "again"))
    again.join(120)
    assert again.exitcode == 0 and runs_in(place)["tiny"].result.is_file()
    dense = [row["step"] for row in rows_of(runs_in(place)["dense"]) if "loss" in row]
    assert dense == list(range(12))


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
