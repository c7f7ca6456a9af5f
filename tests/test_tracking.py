from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prunebench import tracking
from prunebench.config import TrackerConfig
from prunebench.tracking import LocalTracker, WandbTracker, flatten, has_key

RESULT = {"metric": {"name": "accuracy", "value": 0.5}, "metrics": {"accuracy": 0.5}, "dense": {"value": 0.6},
          "recovery": None, "sparsity": {"prunable": 0.9}, "seconds": 1.0}  # fmt: skip
CONFIG = {"seed": 3, "sparsity": 0.9, "dataset": {"name": "sst2"}}


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_what_was_logged_beyond_the_checkpoint_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tracker = LocalTracker(path, resume_at=0)
    for step in range(7):
        tracker.log(step, {"loss": 1.0})
    with path.open("a") as file:
        file.write('{"step": 7, "lo')  # killed in the middle of a line
    tracker = LocalTracker(path, resume_at=4)
    assert tracker.logged_until == 6
    tracker.log(4, {"loss": 2.0})
    assert steps(path) == [0, 1, 2, 3, 4]


def start(tmp_path: Path, sent: int = -1) -> WandbTracker:
    return WandbTracker(TrackerConfig(), name="r", digest="abc123", config=CONFIG, folder=tmp_path, sent=sent)


class FakeRun:
    url, dir = None, "/somewhere/offline-run-1/files"

    def __init__(self, fail: bool = False) -> None:
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.summary: dict[str, Any] = {}
        self.fail = fail

    def log(self, row: dict[str, Any], step: int) -> None:
        if self.fail:
            raise ConnectionError("the network is down\nand more")
        self.rows.append((step, row))

    def finish(self) -> None: ...


def test_wandb_gets_what_was_not_sent_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun()
    monkeypatch.setattr(WandbTracker, "_start", lambda self, *_: setattr(self, "_run", run))
    tracker = start(tmp_path, sent=1)
    for step in range(4):
        tracker.log(step, {"loss": 1.0, "pruning": {"layers": {"a": 0.5}}})
    tracker.finish(RESULT)
    assert [step for step, _ in run.rows] == [2, 3]
    assert run.rows[0][1] == {"loss": 1.0, "pruning/layers/a": 0.5}
    assert run.summary["sparsity/prunable"] == 0.9
    assert tracker.where() == "wandb sync /somewhere/offline-run-1"


def test_a_failing_wandb_is_said_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    monkeypatch.setattr(tracking, "warn", said.append)
    monkeypatch.setattr(WandbTracker, "_start", lambda self, *_: setattr(self, "_run", FakeRun(fail=True)))
    tracker = start(tmp_path)
    for step in range(3):
        tracker.log(step, {"loss": 1.0})
    tracker.finish(RESULT)
    assert len(said) == 1 and "ConnectionError: the network is down; going on" in said[0]


def test_the_real_wandb_logs_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    tracker = start(tmp_path)
    tracker.log(0, {"loss": 1.0})
    tracker.log(0, {"eval": {"accuracy": 0.5}})
    tracker.finish(RESULT)
    place = tracker.where()
    assert place is not None and place.startswith("wandb sync ")
    assert list(Path(place.removeprefix("wandb sync ")).glob("run-abc123.wandb"))


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
