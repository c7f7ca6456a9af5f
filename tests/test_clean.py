from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prunebench.clean import find_waste, size_of
from prunebench.cli import main
from prunebench.paths import remove


def run_folder(outputs: Path, digest: str, status: str | None) -> Path:
    root = outputs / "mine" / digest
    (root / "state" / "step-000000001").mkdir(parents=True)
    (root / "state" / "step-000000001" / "model.safetensors").write_bytes(b"x" * 100)
    (root / "model").mkdir()
    (root / "model" / "model.safetensors").write_bytes(b"x")
    (root / "config.yaml").write_text("name: mine\n")
    if status:
        (root / "result.json").write_text(json.dumps({"status": status}))
    return root


def logits(outputs: Path) -> Path:
    folder = outputs / ".cache" / "logits" / "abc"
    folder.mkdir(parents=True)
    (folder / "logits.bin").write_bytes(b"x" * 10)
    return folder


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@contextmanager
def held(outputs: Path, run: str) -> Iterator[None]:
    """As `run.run` holds it."""
    lock = outputs / ".cache" / "locks" / run
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def paths(outputs: Path) -> list[Path]:
    return [waste.path for waste in find_waste(outputs)]


def test_checkpoints_go_with_the_end_of_their_run(tmp_path: Path) -> None:
    done = run_folder(tmp_path, "aa", "finished")
    for index, status in enumerate(("running", "failed", None)):
        run_folder(tmp_path, f"b{index}", status)
    assert paths(tmp_path) == [done / "state"]
    assert find_waste(tmp_path)[0].bytes == 100


def test_a_run_that_is_at_work_is_left_alone(tmp_path: Path) -> None:
    run_folder(tmp_path, "aa", "finished")
    with held(tmp_path, "mine-aa"):
        assert paths(tmp_path) == []
    assert len(paths(tmp_path)) == 1


def test_logits_stay_while_a_run_is_beginning(tmp_path: Path) -> None:
    logits(tmp_path)
    with held(tmp_path, "mine-cc"):
        assert paths(tmp_path) == []
    assert len(paths(tmp_path)) == 1


def test_logits_go_when_no_run_waits_for_them(tmp_path: Path) -> None:
    folder = logits(tmp_path)
    waiting = run_folder(tmp_path, "bb", "running")
    assert paths(tmp_path) == []
    (waiting / "result.json").write_text('{"status": "finished"}')
    assert paths(tmp_path) == [waiting / "state", folder]


def test_leftovers_go_when_their_process_is_gone(tmp_path: Path, gone: int) -> None:
    root = run_folder(tmp_path, "bb", "running")
    half = root / "state" / f".step-000000002.{gone}.tmp"
    half.mkdir()
    (half / f".state.json.{gone}.tmp").touch()  # goes with its folder
    (root / f".result.json.{os.getpid()}.tmp").touch()  # somebody is writing
    (root / ".notes.tmp").touch()  # not ours
    assert paths(tmp_path) == [half]


def test_clean_lists_and_only_with_yes_deletes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done, going = run_folder(tmp_path, "aa", "finished"), run_folder(tmp_path, "bb", "running")
    assert main(["clean", str(tmp_path)]) == 0
    assert "prunebench clean --yes deletes them" in capsys.readouterr().out and (done / "state").is_dir()
    assert main(["clean", str(tmp_path), "--yes", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["path"], row["bytes"], row["removed"]) == (str(done / "state"), 100, True)
    assert not (done / "state").exists() and (going / "state").is_dir()
    assert (done / "model" / "model.safetensors").is_file() and (done / "result.json").is_file()
    assert main(["clean", str(tmp_path)]) == 0
    assert "Nothing to clean" in capsys.readouterr().out


def test_links_are_removed_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x" * 50)
    done = run_folder(tmp_path / "outputs", "aa", "finished")
    subprocess.run(["rm", "-r", str(done / "state")], check=True)
    (done / "state").symlink_to(outside)
    (waste,) = find_waste(tmp_path / "outputs")
    remove(waste.path)
    assert (outside / "precious").is_file() and not (done / "state").exists()


def test_size_of_a_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert size_of(tmp_path / "a") == size_of(tmp_path) == 5
