"""Members of sweeps in other processes: joblib's, submitit's and Ray's, a tiny BERT in each."""

from __future__ import annotations

import os
import signal
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from prunebench import launchers
from prunebench.cli import main
from prunebench.compose import load_config
from prunebench.errors import UsageError
from prunebench.launchers import LAUNCHERS, check_package, submitit_executor, visible_gpus, worker_environments
from prunebench.options import find_options
from prunebench.sweep_record import find_sweep
from prunebench.validate import CHOICES
from tests.sweeping import contents, tiny_words, wait_for


@pytest.mark.parametrize("name", find_options()["launcher"])
def test_every_launcher_composes_and_is_there(name: str) -> None:
    config = load_config(["recipe=quickstart", f"launcher={name}", "launcher.n_jobs=3"])
    assert config.launcher.name == name and config.launcher.n_jobs == 3
    assert name in LAUNCHERS and set(LAUNCHERS) == set(CHOICES["launcher.name"])


# --- GPUs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "count", "names"),
    [
        (None, 2, ["0", "1"]),
        (None, 0, []),
        ("3,1", 8, ["3", "1"]),  # only those that this process may use
        ("", 8, []),
        ("MIG-a, GPU-b", 8, ["MIG-a", "GPU-b"]),
        ("2,-1,3", 8, ["2"]),  # CUDA stops reading at -1
    ],
)
def test_only_gpus_that_are_visible_are_given_away(asked: str | None, count: int, names: list[str]) -> None:
    environment = {} if asked is None else {"CUDA_VISIBLE_DEVICES": asked}
    assert visible_gpus(environment, lambda: count) == names


def test_each_worker_has_a_gpu_of_its_own() -> None:
    gpus = ["4", "7"]
    assert worker_environments(None, gpus) == [{"CUDA_VISIBLE_DEVICES": "4"}, {"CUDA_VISIBLE_DEVICES": "7"}]
    assert worker_environments(1, gpus) == [{"CUDA_VISIBLE_DEVICES": "4"}]
    assert [e["CUDA_VISIBLE_DEVICES"] for e in worker_environments(5, gpus)] == ["4", "7", "4", "7", "4"]
    assert worker_environments(None, []) == [{}] and worker_environments(3, []) == [{}, {}, {}]


def test_workers_of_joblib_are_started_with_their_gpu() -> None:
    worker = launchers._Worker({"CUDA_VISIBLE_DEVICES": "5"})
    try:
        assert worker._pool.submit(os.getenv, "CUDA_VISIBLE_DEVICES").result() == "5"
    finally:
        worker.close()


# --- refusals -----------------------------------------------------------------------------------------------------


def test_a_launcher_whose_package_is_missing_is_refused_with_pips_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchers, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"launcher=ray needs ray: pip install 'prunebench\[ray\]'"):
        check_package("launcher", "ray")
    with pytest.raises(UsageError, match=r"search=optuna needs optuna: pip install 'prunebench\[optuna\]'"):
        check_package("search", "optuna")
    check_package("launcher", "local")


def test_slurm_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchers.shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match="there is no srun here"):
        check_package("launcher", "slurm")


def test_submitit_knows_its_parameters(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    config = load_config(["recipe=quickstart", "launcher=submitit_local", "launcher.params.timout_min=5"])
    with pytest.raises(UsageError, match=r"submitit says.*timout_min"):
        submitit_executor(config.launcher, tmp_path)


def test_what_slurm_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The header of the batch file, by submitit's own hand, with a stand-in for Slurm's commands."""
    pytest.importorskip("submitit")
    monkeypatch.setattr("submitit.slurm.slurm.SlurmExecutor.affinity", lambda *_: 1)
    words = ["recipe=quickstart", "launcher=slurm", "launcher.params.slurm_partition=gpu", "launcher.params.mem_gb=64"]
    executor = submitit_executor(load_config(words).launcher, tmp_path)
    text = executor._executor._make_submission_file_text("true", "name")
    assert "--partition=gpu" in text and "--mem=64GB" in text and "--gpus-per-node=1" in text and "--time=1440" in text


# --- real ones ----------------------------------------------------------------------------------------------------


def single(folder: Path, seed: int) -> dict[str, str]:
    """What the same run computes alone."""
    assert main(["run", *tiny_words(folder, "alone"), f"seed={seed}"]) == 0
    (run,) = (path for path in (folder / "alone" / "one_shot").iterdir())
    return contents(folder / "alone", f"one_shot/{run.name}")


def test_joblib_survives_the_death_of_a_member_and_computes_what_a_run_alone_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "-m", *tiny_words(tmp_path), "seed=1,2,3", "launcher=joblib", "launcher.n_jobs=2"]

    def kill_the_second() -> None:
        wait_for(lambda: [path for path in tmp_path.glob("outputs/.sweeps/*/logs/2.started") if path.read_text()])
        (mark,) = tmp_path.glob("outputs/.sweeps/*/logs/2.started")
        os.kill(int(mark.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill_the_second)
    killer.start()
    assert main(words) == 1
    killer.join()
    record = find_sweep("last", tmp_path / "outputs")
    assert [member.status for member in record.members] == ["finished", "failed", "finished"]
    assert record.status == "failed" and "its process was killed" in str(record.members[1].reason)
    told = capsys.readouterr().err
    assert "prunebench: error: seed=2: its process was killed" in told
    assert main(words) == 0
    again = find_sweep("last", tmp_path / "outputs")
    assert again.id == record.id and again.status == "finished"
    assert "3 runs, 2 finished, 1 " in capsys.readouterr().err  # only the killed one is computed
    run = again.members[1].run
    assert run is not None and contents(tmp_path / "outputs", run) == single(tmp_path, 2)


def test_submitit_really_runs(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    words = [*tiny_words(tmp_path), "seed=1,2", "trainer.lr=1e-3", "launcher=submitit_local", "launcher.n_jobs=2"]
    assert main(["run", "-m", *words]) == 0
    outputs = tmp_path / "outputs"
    record = find_sweep("last", outputs)
    assert [member.status for member in record.members] == ["finished", "finished"]
    assert len(list(outputs.glob(f".sweeps/{record.id}/logs/submitit/*_result.pkl"))) == 2  # jobs of submitit's
    assert len(list(outputs.glob("dense/*/result.json"))) == 2


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
def test_ray_really_runs(tmp_path: Path) -> None:
    words = [*tiny_words(tmp_path), "seed=1,2", "launcher=ray", "launcher.n_jobs=1", "launcher.params.num_cpus=1"]
    assert main(["run", "-m", *words]) == 0
    assert [member.status for member in find_sweep("last", tmp_path / "outputs").members] == ["finished", "finished"]


def test_a_member_that_fails_elsewhere_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Output of a process for members goes to its log, and the process can be used again."""

    def wrong(*_: Any, **__: Any) -> Any:
        print("to the log")
        os.write(2, b"from below\n")
        raise ValueError("first\nsecond")

    monkeypatch.setattr("prunebench.run.run", wrong)
    call = launchers.Call(("recipe=quickstart",), None, False, str(tmp_path), str(tmp_path / "m"), str(tmp_path / "l"))
    outcome = launchers.compute_apart(call)
    sys.stdout.flush()
    assert outcome.status == "failed" and str(outcome.reason).startswith("ValueError: first")
    assert "from below" in (tmp_path / "l").read_text() and (tmp_path / "m").read_text() == str(os.getpid())
