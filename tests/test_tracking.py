from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from prunebench import tracking
from prunebench.config import DatasetConfig, ModelConfig, RunConfig, TrackerConfig
from prunebench.sweep_record import MemberRecord, SweepFolder, SweepRecord, sweeps_dir
from prunebench.tracking import LocalTracker, WandbTracker, flatten, has_key
from tests.reading import wandb_file, wandb_history

RESULT = {"metric": {"name": "accuracy", "value": 0.5}, "metrics": {"accuracy": 0.5}, "dense": {"value": 0.6},
          "recovery": None, "digest": "abc123",
          "weights": {"model_nonzero": 30}, "sparsity": {"prunable": 0.9}, "seconds": 1.0}  # fmt: skip


def config_of(**settings: Any) -> RunConfig:
    made = {"name": "r", "recipe": "gradual", "seed": 3, "sparsity": 0.9, "model": ModelConfig(name="google/bert"),
            "dataset": DatasetConfig(name="sst2")}  # fmt: skip
    return RunConfig(**(made | settings))


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_what_was_logged_beyond_the_checkpoint_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tracker = LocalTracker(path, keep=0)
    for step in range(7):
        tracker.log(step, {"loss": 1.0})
    with path.open("a") as file:
        file.write('{"step": 7, "lo')  # killed in the middle of a line
    tracker = LocalTracker(path, keep=4)
    tracker.log(4, {"loss": 2.0})
    assert steps(path) == [0, 1, 2, 3, 4]


def start(tmp_path: Path, rows: list[dict[str, Any]] | None = None, **settings: Any) -> WandbTracker:
    return WandbTracker(config_of(**settings), digest="abc123", group="0123", folder=tmp_path, rows=lambda: rows or [])


class FakeRun:
    """What wandb.init gives; `step`, as there, is the first step that wandb does not have."""

    url = "https://wandb.example/r"

    def __init__(self, fail: bool = False, step: int = 0) -> None:
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.summary: dict[str, Any] = {}
        self.fail, self.step = fail, step
        self.exits: list[int] = []

    def define_metric(self, name: str, **settings: Any) -> None:
        """Read from wandb's own file below."""

    def log(self, row: dict[str, Any], step: int) -> None:
        if self.fail:
            raise ConnectionError("the network is down\nand more")
        self.rows.append((step, row))

    def finish(self, exit_code: int = 0) -> None:
        self.exits.append(exit_code)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Online, but wandb.init gives a FakeRun and keeps what it was called with."""
    import wandb

    monkeypatch.setenv("WANDB_MODE", "online")
    called: dict[str, Any] = {"run": FakeRun()}

    def init(**settings: Any) -> FakeRun:
        called["settings"] = settings
        return called["run"]

    monkeypatch.setattr(wandb, "init", init)
    return called


ROWS = [{"step": step, "loss": 1.0} for step in range(2)]


def test_wandb_gets_config_rows_and_summary(tmp_path: Path, fake: dict[str, Any]) -> None:
    tracker = start(tmp_path)
    tracker.log(0, {"loss": 1.0, "pruning": {"layers": {"a": 0.5}}})
    tracker.finish(RESULT)
    tracker.close()
    assert fake["settings"]["config"] == asdict(config_of())
    assert fake["run"].rows == [(0, {"loss": 1.0, "pruning/layers/a": 0.5})]
    assert fake["run"].summary["sparsity/prunable"] == 0.9 and fake["run"].summary["weights/model_nonzero"] == 30
    assert fake["run"].exits == [0]  # closing a finished run does nothing
    assert tracker.where() is None or tracker.where() == FakeRun.url


@pytest.mark.parametrize("there", [0, 1, 2, 3])
def test_a_resumed_run_goes_on_under_its_id_and_every_step_is_sent_once(
    tmp_path: Path, fake: dict[str, Any], there: int
) -> None:
    """Whether wandb had less than metrics.jsonl when the run was killed, or more."""
    start(tmp_path)
    first = fake["settings"]["id"]
    fake["run"] = FakeRun(step=there)
    tracker = start(tmp_path, ROWS)
    for step in range(2, 4):
        tracker.log(step, {"loss": 1.0})
    assert fake["settings"]["id"] == first
    tracker.finish(RESULT)
    assert [step for step, _ in fake["run"].rows] == list(range(there, 4))


LABELS = ("group", "tags", "job_type", "name")


def test_runs_are_found_by_group_kind_and_tags(tmp_path: Path, fake: dict[str, Any]) -> None:
    """The group is that of `compare`, with the name for people; a run that is continued keeps all of them."""
    start(tmp_path, tracker=TrackerConfig(tags=["mine", "sst2"]))
    begun = {key: fake["settings"][key] for key in LABELS}
    tags = ["mine", "sst2", "gradual", "bert", "sparsity-0.9", "magnitude"]
    assert begun == {"group": "r-0123", "tags": tags, "job_type": "pruned", "name": "r-seed3"}
    start(tmp_path, ROWS, tracker=TrackerConfig(tags=["mine", "sst2"]))
    assert {key: fake["settings"][key] for key in LABELS} == begun
    start(tmp_path, name="dense", recipe="dense", sparsity=0.0, start="/my/own", tracker=TrackerConfig(group="g"))
    assert [fake["settings"][key] for key in LABELS] == [
        "g",
        ["dense", "sst2", "own", "sparsity-0"],
        "dense",
        "dense-seed3",
    ]


def test_a_member_of_a_sweep_has_its_id_as_a_tag(tmp_path: Path, fake: dict[str, Any]) -> None:
    for name, run in (("20260101", "r/abc123"), ("20260102", "r/abc123"), ("20260103", "r/another")):
        record = SweepRecord(name, ["run"], began=name, members=[MemberRecord("seed=3", ["seed=3"], run)])
        SweepFolder(sweeps_dir(tmp_path) / name).write(record)
    (tmp_path / "r" / "abc123").mkdir(parents=True)
    start(tmp_path / "r" / "abc123", outputs=str(tmp_path))
    assert [tag for tag in fake["settings"]["tags"] if tag.startswith("sweep-")] == ["sweep-20260102"]


def test_names_that_are_long_are_cut_to_what_wandb_takes(tmp_path: Path, fake: dict[str, Any]) -> None:
    start(tmp_path, name="n" * 200, model=ModelConfig(name="org/" + "m" * 96))
    assert fake["settings"]["group"] == "n" * 100 + "-0123" and "m" * 64 in fake["settings"]["tags"]


def test_a_run_begun_anew_has_another_id(tmp_path: Path, fake: dict[str, Any]) -> None:
    start(tmp_path)
    first = fake["settings"]["id"]
    (tmp_path / "wandb.json").unlink()  # --force removes the run's folder
    start(tmp_path)
    assert fake["settings"]["id"] != first


def test_a_run_that_failed_is_closed_as_failed(tmp_path: Path, fake: dict[str, Any]) -> None:
    start(tmp_path).close()
    assert fake["run"].exits == [1]


def test_a_step_is_sent_when_it_is_complete(tmp_path: Path, fake: dict[str, Any]) -> None:
    """An evaluation and a loss of the same step; and what a failure cuts in two is sent by the session that goes on."""
    tracker = start(tmp_path)
    tracker.log(0, {"loss": 1.0})
    tracker.log(1, {"eval": {"accuracy": 0.5}})
    assert fake["run"].rows == [(0, {"loss": 1.0})]
    tracker.close()
    assert fake["run"].rows == [(0, {"loss": 1.0})]
    fake["run"] = FakeRun(step=1)
    tracker = start(tmp_path, [{"step": 0, "loss": 1.0}])
    tracker.log(1, {"eval": {"accuracy": 0.5}})
    tracker.log(1, {"loss": 0.5})
    tracker.finish(RESULT)
    assert fake["run"].rows == [(1, {"eval/accuracy": 0.5, "loss": 0.5})]


def test_disabled_means_nothing_is_begun(tmp_path: Path, fake: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tracker = start(tmp_path, ROWS)
    tracker.log(2, {"loss": 1.0})
    tracker.finish(RESULT)
    tracker.close()
    assert "settings" not in fake and tracker.where() is None


def test_a_failing_wandb_is_said_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: dict[str, Any]
) -> None:
    said: list[str] = []
    monkeypatch.setattr(tracking, "warn", said.append)
    fake["run"] = FakeRun(fail=True)
    tracker = start(tmp_path)
    for step in range(3):
        tracker.log(step, {"loss": 1.0})
    tracker.finish(RESULT)
    tracker.close()
    assert len(said) == 1 and "ConnectionError: the network is down; going on" in said[0]


def test_the_real_wandb_writes_one_offline_run_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    rows = [*ROWS, {"step": 1, "eval": {"accuracy": 0.5}}]
    tracker = start(tmp_path, rows)
    tracker.log(0, {"loss": 1.0})
    assert not (tmp_path / "wandb").exists()
    tracker.close()  # stopped
    rows.append({"step": 2, "loss": 0.5})
    tracker = start(tmp_path, rows)
    tracker.finish(RESULT)
    tracker.close()
    assert tracker.where() == f"wandb sync {tmp_path}/wandb/offline-run-*"
    file = wandb_file(tmp_path)
    history = wandb_history(file)
    assert file.name.startswith("run-abc123-")
    assert [row["_step"] for row in history] == [0, 1, 2]
    assert history[1]["eval/accuracy"] == 0.5 and history[2]["loss"] == 0.5


def test_a_key_is_found_without_being_read_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    assert not has_key()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    assert has_key()
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert has_key()


def test_flatten() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": None}, "e": 2}) == {"a/b/c": 1, "e": 2}
