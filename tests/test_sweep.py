"""Sweeps: what is checked, said and recorded (the conductor a stand-in), and what kills and company do to them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from prunebench.cli import main
from prunebench.config import RunConfig
from prunebench.errors import UsageError
from prunebench.sweep import Member, grid, run_members, swept_words
from prunebench.sweep_record import SweepRecord, find_sweep, list_sweeps
from prunebench.sweep_time import Paces
from prunebench.sweep_view import about
from tests.comparing import finished_run
from tests.sweeping import command, contents, tiny_words, wait_for
from tests.test_cli import RECIPE, runs  # noqa: F401 (a fixture)

Runs = list[tuple[RunConfig, bool]]


def members(record: SweepRecord) -> list[tuple[str, str]]:
    return [(member.name, member.status) for member in record.members]


# --- a grid -------------------------------------------------------------------------------------------------------


def test_a_sweep_is_one_run_after_another(runs: Runs, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:  # noqa: F811
    assert main(["run", "-m", *RECIPE, "seed=range(6,8)", "pruning/scope=global,erk"]) == 0
    assert [(c.seed, c.pruning.scope.name) for c, _ in runs] == [(6, "global"), (6, "erk"), (7, "global"), (7, "erk")]
    shown = capsys.readouterr()
    assert "±" in shown.out  # the table of `compare`
    record = find_sweep("last", "outputs")
    assert f"prunebench compare --sweep {record.id} shows it again" in shown.err
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]  # nothing of Hydra's lies about


def test_globs_stand_for_options() -> None:
    found = grid(swept_words(["recipe=glob(bert_smc_9*)", "seed=1"], None), None)
    assert [member.name for member in found] == [f"recipe=bert_smc_{level}" for level in (90, 95, 97)]
    with pytest.raises(UsageError, match="no recipe has such a name"):
        swept_words(["recipe=glob(nothing*)"], None)


def test_the_same_config_alone_and_in_a_sweep(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    words = [*RECIPE, "pruning/pattern=2_4", "sparsity=0.5", "distillation.temperature=3", "model.config.x=1"]
    main(["run", *words, "seed=6"])
    main(["run", "-m", *words, "seed=6,7", "--force", "--json", "launcher.n_jobs=2"])
    assert runs[0][0] == runs[1][0] and runs[1][1]
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert [json.loads(line)["seed"] for line in lines] == [6, 7]


def test_a_member_that_fails_does_not_stop_the_others(
    runs: Runs,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["run", "-m", *RECIPE, "seed=1,2,3,5,6"]) == 1
    assert [config.seed for config, _ in runs] == [1, 2, 3, 5, 6]
    captured = capsys.readouterr()
    told = [line.split(": ", 2)[2] for line in captured.err.splitlines() if line.startswith("prunebench: error: ")]
    assert told == [
        "seed=2: diverged", "seed=3: ValueError: first; run again with --debug for the traceback", "seed=5: a; b"
    ]  # fmt: skip
    record = find_sweep("last", "outputs")
    assert (record.status, record.members[1].reason) == ("failed", "diverged")
    assert [member.status for member in record.members] == ["finished", "failed", "failed", "failed", "finished"]


def test_the_same_command_skips_what_is_finished_and_goes_on_with_the_record(
    runs: Runs,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["run", "-m", *RECIPE, "seed=1,2,6"]
    assert main(words) == 1
    first = find_sweep("last", "outputs")
    capsys.readouterr()
    assert main(words) == 1
    assert [config.seed for config, _ in runs] == [1, 2, 6, 2]
    assert "3 runs, 2 finished, 1 new" in capsys.readouterr().err  # the stand-in leaves nothing of what fails
    assert [record.id for record in list_sweeps("outputs")] == [first.id]


def test_all_members_are_checked_before_the_first_starts(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    assert main(["run", "-m", *RECIPE, "sparsity=0.5,1.5", "seed=6,7", "pruning/pattern=unstructured,2_4"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert runs == [] and not list_sweeps("outputs")
    assert any(line.startswith("prunebench: error: sparsity=1.5: must be in [0, 1)") for line in lines)
    assert len(lines) == len(set(lines)) <= 3  # once each, however many members have it


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["recipe=bert_smc_90,bert-smc-80"], "did you mean 'bert_smc_80'"),
        (["outputs=a,b"], "outputs: one value holds for the whole sweep"),
        (["launcher=local,joblib"], "launcher: one value holds for the whole sweep"),
        (["launcher=jobllib"], "did you mean 'joblib'"),
        (["launcher.n_jobs=0"], "launcher.n_jobs=0: must be in [1, 10000]"),
        (["hydra/launcher=joblib"], "write launcher=..."),
        (["hydra/sweeper=optuna"], "search=optuna"),
        (["trainer.lr=interval(1e-5,1e-3)"], "an interval has endless values: search=optuna"),
    ],
)
def test_what_cannot_be_swept_is_refused(
    runs: Runs,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    part: str,
) -> None:
    assert main(["run", "-m", *RECIPE, *words]) == 2
    assert part in capsys.readouterr().err and runs == []


@pytest.mark.parametrize("word", ["launcher=joblib", "search=optuna"])
def test_one_run_has_neither_launcher_nor_search(runs: Runs, capsys: pytest.CaptureFixture[str], word: str) -> None:  # noqa: F811
    assert main(["run", *RECIPE, word]) == 2
    assert "goes with several runs: prunebench run -m" in capsys.readouterr().err and runs == []


def test_a_sweep_can_be_stopped(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    assert main(["run", "-m", *RECIPE, "seed=1,4,6"]) == 130
    assert [config.seed for config, _ in runs] == [1, 4]
    assert "stopped; the same command continues" in capsys.readouterr().err
    record = find_sweep("last", "outputs")
    assert record.status == "stopped"
    assert members(record) == [("seed=1", "finished"), ("seed=4", "stopped"), ("seed=6", "waiting")]


def test_any_members_can_be_run_together(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    """As `reproduce` does: no grid of values."""
    both = [Member("one", (*RECIPE, "seed=6")), Member("other", (*RECIPE, "seed=2"))]
    outcome = run_members(both, command=["reproduce", "table"], title="table")
    assert outcome.results[0] is not None and outcome.results[1] is None and outcome.failed == [("other", "diverged")]
    assert f"table {outcome.record.id}: 2 runs, 2 new" in capsys.readouterr().err
    assert find_sweep("last", "outputs").command == ["reproduce", "table"]
    with pytest.raises(UsageError, match="no run in this sweep"):
        run_members([], command=["reproduce"])


# --- before it starts ---------------------------------------------------------------------------------------------


def test_plan_says_what_is_done_and_shared_and_starts_nothing(
    runs: Runs,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [*RECIPE, "sparsity=0.5,0.9", "seed=6,7,8"]
    assert main(["plan", "-m", *words]) == 0
    shown = capsys.readouterr()
    assert "6 runs, 6 new" in shown.out and "3 dense models for 6 runs" in shown.out and "no estimate" in shown.out
    assert runs == [] and not list_sweeps("outputs")
    assert main(["plan", "-m", *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["runs"] == 6 and told["members"][1]["name"] == "sparsity=0.5 seed=7"


def seen(outputs: Path, seconds: float, epochs: float, **settings: Any) -> None:
    finished_run(outputs, settings=settings, training={"epochs": epochs}, seconds=seconds, name=f"r{seconds:g}")


def test_the_time_of_a_run_is_that_of_its_like_scaled_by_epochs(tmp_path: Path) -> None:
    config = RunConfig(sparsity=0.9)
    config.model.name, config.dataset.name, config.dataset.task = "bert", "sst2", "classification"
    config.trainer.epochs = 6.0
    assert Paces(tmp_path).seconds(config) is None
    seen(tmp_path, 50.0, 2.0)
    seen(tmp_path, 150.0, 5.0)
    seen(tmp_path, 1000.0, 1.0, **{"trainer.batch_size": 64})  # other batches tell nothing
    paces = Paces(tmp_path)
    assert paces.basis(config) == 2
    assert paces.seconds(config) == pytest.approx(6 * (25 + 30) / 2)
    config.model.name = "another"
    assert paces.seconds(config) is None


@pytest.mark.parametrize(("seconds", "words"), [(3, "10 s"), (64, "60 s"), (150, "2 min"), (5400, "1 h 30 min")])
def test_estimates_do_not_pretend(seconds: float, words: str) -> None:
    assert about(seconds) == words


# --- real ones ----------------------------------------------------------------------------------------------------


def test_a_sweep_that_is_killed_goes_on_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    words = ["run", "-m", *tiny_words(tmp_path), "seed=1,2,3"]
    process = command(*words)

    def second_is_at_work() -> bool:
        found = list_sweeps(outputs)
        assert process.poll() is None, process.communicate()
        return bool(found) and [m.status for m in found[0].members][:2] == ["finished", "running"]

    wait_for(second_is_at_work)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    record = find_sweep("last", outputs)
    assert record.status == "killed" and [m.status for m in record.members] == ["finished", "killed", "waiting"]
    first = outputs / str(record.members[0].run) / "result.json"
    before = first.stat().st_mtime_ns
    assert main(words) == 0
    again = find_sweep("last", outputs)
    assert again.id == record.id and again.status == "finished" and first.stat().st_mtime_ns == before
    assert main(["run", *tiny_words(tmp_path, "alone"), "seed=2"]) == 0
    run = str(again.members[1].run)
    assert contents(outputs, run) == contents(tmp_path / "alone", run)


def test_two_sweeps_at_once_share_their_dense_model(tmp_path: Path) -> None:
    words = tiny_words(tmp_path)
    both = [command("run", "-m", *words, f"sparsity={levels}") for levels in ("0.5,0.6", "0.6,0.7")]
    told = [process.communicate(timeout=400) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    outputs = tmp_path / "outputs"
    assert len(list_sweeps(outputs)) == 2 and len(list(outputs.glob("one_shot/*/result.json"))) == 3
    trained = [line for _, err in told for line in err.splitlines() if line.startswith("dense, seed 1: ")]
    assert len(trained) == 1 and len(list(outputs.glob("dense/*/result.json"))) == 1
    assert os.path.isdir(outputs / ".cache")
