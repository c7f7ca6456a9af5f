from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from prunebench.paths import RunFolder, locked, whole_file, whole_folder, write_json


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "result.json"
    write_json(path, {"a": 1})
    with pytest.raises(ZeroDivisionError), whole_file(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in path.parent.iterdir()] == ["result.json"]


def test_a_folder_appears_whole_or_not_at_all_and_replaces_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with whole_folder(folder) as temporary:
        (temporary / "old").write_text("1")
    with pytest.raises(ZeroDivisionError), whole_folder(folder) as temporary:
        (temporary / "half").write_text("2")
        raise ZeroDivisionError
    assert [file.name for file in folder.iterdir()] == ["old"]
    with whole_folder(folder) as temporary:
        (temporary / "new").write_text("3")
    assert [file.name for file in folder.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [folder]


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_no_result_is_none(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).read_result() is None


def hold(path: Path, log: Path, seconds: float) -> None:
    with locked(path):
        with log.open("a") as file:
            file.write("in ")
        time.sleep(seconds)
        with log.open("a") as file:
            file.write("out ")


def test_a_lock_has_one_holder_at_a_time(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    workers = [spawn.Process(target=hold, args=(tmp_path / "lock", tmp_path / "log", 0.1)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (tmp_path / "log").read_text() == "in out " * 3


def test_a_lock_survives_a_killed_holder(tmp_path: Path) -> None:
    worker = multiprocessing.get_context("fork").Process(target=hold, args=(tmp_path / "lock", tmp_path / "log", 60))
    worker.start()
    while not (tmp_path / "log").exists():
        time.sleep(0.01)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    with locked(tmp_path / "lock"):  # would wait a minute
        pass
    worker.join()
