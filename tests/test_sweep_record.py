"""What sweeps leave, read back: by id, while they run, and after their process was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunebench.errors import UsageError
from prunebench.paths import locked
from prunebench.sweep_record import (
    MemberRecord,
    SweepFolder,
    SweepRecord,
    find_sweep,
    list_sweeps,
    new_folder,
    same_command,
    sweeps_dir,
)


def leave(outputs: Path, name: str, began: str, status: str = "finished", command: str = "seed=1,2") -> SweepFolder:
    folder = SweepFolder(sweeps_dir(outputs) / name)
    members = [MemberRecord("seed=1", ["seed=1"], "tiny/0123", "finished"), MemberRecord("seed=2", ["seed=2"])]
    members[1].status = "running" if status == "running" else "failed"
    folder.write(SweepRecord(name, ["run", "-m", command], began, status, members))
    return folder


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    folder = leave(tmp_path, "20260101-000000", "2026-01-01T00:00:00+00:00")
    record = folder.read()
    assert record is not None and record.count("finished") == 1 and record.count("failed", "finished") == 2
    run = folder.run(record.members[0])
    assert run is not None and run.root == tmp_path / "tiny" / "0123" and folder.run(record.members[1]) is None


def test_a_sweep_whose_process_is_gone_was_killed(tmp_path: Path) -> None:
    folder = leave(tmp_path, "a", "2026-01-01", status="running")
    with locked(folder.lock):
        (record,) = list_sweeps(tmp_path)
        assert (record.status, record.members[1].status) == ("running", "running")
    (record,) = list_sweeps(tmp_path)
    assert (record.status, record.members[1].status) == ("killed", "killed")


def test_sweeps_are_found_by_id_by_its_beginning_and_by_being_last(tmp_path: Path) -> None:
    for name, began in (("20260102-1", "2026-01-02"), ("20260101-1", "2026-01-01"), ("20260102-10", "2026-01-03")):
        leave(tmp_path, name, began)
    (tmp_path / ".sweeps" / "broken").mkdir()
    (tmp_path / ".sweeps" / "broken" / "sweep.json").write_text("{")
    assert [sweep.id for sweep in list_sweeps(tmp_path)] == ["20260101-1", "20260102-1", "20260102-10"]
    assert find_sweep("last", tmp_path).id == "20260102-10"
    assert find_sweep("20260102-1", tmp_path).id == "20260102-1"  # a whole id, though another begins so
    assert find_sweep("20260101", tmp_path).id == "20260101-1"
    with pytest.raises(UsageError, match="3 sweeps are meant"):
        find_sweep("2026", tmp_path)
    with pytest.raises(UsageError, match=r"no sweep in .*did you mean '20260101-1'"):
        find_sweep("20260101-2", tmp_path)
    with pytest.raises(UsageError, match="no sweep"):
        find_sweep("last", tmp_path / "empty")


def test_the_same_words_go_on_with_the_same_sweep_unless_it_is_at_work(tmp_path: Path) -> None:
    leave(tmp_path, "a", "2026-01-01")
    newest = leave(tmp_path, "b", "2026-01-02")
    leave(tmp_path, "c", "2026-01-03", command="seed=3,4")
    words = ["run", "-m", "seed=1,2"]
    found = same_command(words, tmp_path)
    assert found is not None and found.root.name == "b"
    with locked(newest.lock):
        found = same_command(words, tmp_path)
        assert found is not None and found.root.name == "a"
    assert same_command(["run", "-m", "seed=5,6"], tmp_path) is None


def test_two_sweeps_of_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    assert len({new_folder(tmp_path).root for _ in range(4)}) == 4
