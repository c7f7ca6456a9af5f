"""What goes wrong outside of us: a full disk, numbers that are none, too little memory, damage, curious readers."""

from __future__ import annotations

import io
import os
import pickle
import re
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from prunebench import train
from prunebench.errors import RunError
from prunebench.paths import RunFolder
from prunebench.run import run
from tests.killing import run_until, settings, start
from tests.reading import rows_of, sums, timeless
from tests.test_killed import prepare, runs_in
from tests.tiny import tiny_config

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    place = prepare(tmp_path_factory.mktemp("undisturbed"))
    assert ended(place) == 0
    return runs_in(place)


def ended(place: Path, file_size: int | None = None) -> int | None:
    process = start(limited, str(place), file_size)
    process.join(120)
    return process.exitcode


def limited(place: str, file_size: int | None) -> None:
    """A run that cannot write files larger than `file_size` bytes; the system answers as it does for a full disk."""
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))
    run_until(place, -1, **settings("local"))


def same(ours: dict[str, RunFolder], theirs: dict[str, RunFolder]) -> None:
    for name, folder in ours.items():
        assert sums(folder) == sums(theirs[name])
        assert timeless(rows_of(folder)) == timeless(rows_of(theirs[name]))


# --- disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [600, 1_500, 4_000, 9_000, 26_000, 40_000])
def test_files_that_cannot_grow_stop_the_run_in_one_line_and_it_goes_on_later(
    undisturbed: dict[str, RunFolder], tmp_path: Path, size: int
) -> None:
    """From the tokenised data and the log to the optimizer's moments, whichever is the first to be too large."""
    place = prepare(tmp_path)
    assert ended(place, size) == 1, (place / "stderr").read_text()
    message = (place / "error").read_text()
    assert re.search(r"(File too large|No space left on device) \(\d+\.\d GB free\): make room, and the same", message)
    assert len(message.splitlines()) == 1
    assert not list((place / "outputs").rglob(".*.tmp"))
    assert ended(place) == 0
    same(runs_in(place), undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=420k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk; the test above fills up files instead")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_stops_the_run_in_one_line_and_it_goes_on_later(
    undisturbed: dict[str, RunFolder], tmp_path: Path, small_disk: Path
) -> None:
    place = prepare(tmp_path / "place")
    (place / "outputs").symlink_to(small_disk)
    assert ended(place) == 1
    assert "No space left on device (0.0 GB free): make room" in (place / "error").read_text()
    subprocess.run(["mount", "-o", "remount,size=9m", str(small_disk)], check=True)
    assert ended(place) == 0
    same(runs_in(place), undisturbed)


# --- numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_stops_the_run_at_its_step_and_the_last_good_state_is_kept(
    undisturbed: dict[str, RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, value: float
) -> None:
    place = prepare(tmp_path)
    config = tiny_config(place, **settings("local"))
    original, calls = train._losses, []

    def broken(job: Any, *args: Any) -> Any:
        losses = original(job, *args)
        calls.append(job.title)
        if calls.count("tiny seed 1") == 24 and calls[-1] == "tiny seed 1":  # step 23
            if what == "loss":
                losses["loss"] = losses["loss"] * value
            else:
                next(job.model.parameters()).register_hook(lambda gradient: gradient * value)
        return losses

    with monkeypatch.context() as patch:
        patch.setattr(train, "_losses", broken)
        with pytest.raises(RunError, match=r"(loss|grad_norm) is (nan|inf) at step 23: the last good checkpoint"):
            run(config)
    assert [path.name for path in sorted(runs_in(place)["tiny"].state.glob("step-*"))] == [
        "step-000000010", "step-000000020",
    ]  # fmt: skip
    run(config)
    same(runs_in(place), undisturbed)


def test_a_teacher_whose_outputs_are_no_numbers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prunebench import teacher

    original = teacher.collect_rows

    def broken(*args: Any, **kwargs: Any) -> Any:
        rows = original(*args, **kwargs)
        rows[3]["logits"][0] = float("nan")
        return rows

    monkeypatch.setattr(teacher, "collect_rows", broken)
    with pytest.raises(RunError, match=r"outputs on the training examples \(the teacher's\) are not finite"):
        run(tiny_config(prepare(tmp_path)))
    assert not list((tmp_path / "outputs" / ".cache" / "logits").glob("[!.]*"))


# --- memory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried"), RuntimeError("DefaultCPUAllocator: can't allocate")]
)
def test_too_little_memory_says_what_to_halve_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    place = prepare(tmp_path)
    original, calls = train._losses, []

    def broken(job: Any, *args: Any) -> Any:
        calls.append(job.title)
        if calls.count("tiny seed 1") == 24:
            raise error
        return original(job, *args)

    with monkeypatch.context() as patch:
        patch.setattr(train, "_losses", broken)
        with pytest.raises(RunError, match=r"step 23, where a batch of 8 .* in 1 part: add trainer.accumulation=2"):
            run(tiny_config(place, **settings("local")))
    result = run(tiny_config(place, **settings("local"), trainer__accumulation=2))
    folders = list((place / "outputs" / "tiny").iterdir())
    assert [folder.name for folder in folders] == [result["digest"]]  # the same run, gone on with
    assert [row["step"] for row in rows_of(RunFolder(folders[0])) if "loss" in row] == list(range(36))


def test_a_batch_that_cannot_be_cut_any_more_says_so() -> None:
    advice = train._smaller_parts(tiny_config_trainer(batch_size=8, accumulation=8), 5)
    assert "lower dataset.max_length" in advice


def tiny_config_trainer(**changes: Any) -> Any:
    from prunebench.config import TrainerConfig

    return TrainerConfig(**changes)


def test_too_little_memory_while_scoring_names_the_other_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import BertForSequenceClassification

    original = BertForSequenceClassification.forward

    def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.training:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(BertForSequenceClassification, "forward", broken)
    with pytest.raises(RunError, match=r"scoring 128 examples at once: add trainer\.eval_batch_size=64"):
        run(tiny_config(prepare(tmp_path)))


# --- damage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "masks.safetensors", "state.json"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(
    undisturbed: dict[str, RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    place = prepare(tmp_path)
    process = start(killed_at_the_last_pruning, str(place))
    process.join(120)
    states = sorted(runs_in(place)["tiny"].state.glob("step-*"))
    assert len(states) == 2
    content = bytearray((states[1] / file).read_bytes())
    content[len(content) // 2] ^= 0x5A
    (states[1] / file).write_bytes(content[:-1] if file == "model.safetensors" else content)
    run(tiny_config(place, **settings("local")))
    assert f"checkpoint {states[1].name} is damaged" in capsys.readouterr().err
    same(runs_in(place), undisturbed)


def killed_at_the_last_pruning(place: str) -> None:
    import signal

    from prunebench.sparsity.sparsifier import Sparsifier

    original, calls = Sparsifier.update, []

    def update(self: Any, sparsity: float, *args: Any) -> Any:
        calls.append(sparsity)
        if sparsity == 0.75:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, sparsity, *args)

    Sparsifier.update = update  # type: ignore[method-assign]
    run_until(place, -1, **settings("local"))


# --- nobody listens -----------------------------------------------------------------------------------------------


def test_a_run_outlives_the_pipe_it_talks_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in `prunebench run ... 2>&1 | head -1`."""
    monkeypatch.setattr("prunebench.progress.console._file", Closed())  # `file` would be put back as today's stderr
    monkeypatch.setattr("prunebench.progress.console.quiet", False)  # which the run sets
    assert run(tiny_config(prepare(tmp_path)))["status"] == "finished"


class Closed(io.StringIO):
    """What a pipe is whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


# --- secrets and pickles ------------------------------------------------------------------------------------------


def test_nothing_secret_is_written_and_no_pickle_is_written_or_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secrets = {name: f"s3cr3t-{name.lower()}-{'x' * 40}" for name in ("HF_TOKEN", "WANDB_API_KEY", "MY_PASSWORD")}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("pickled")

    for owner, name in [(pickle, "dump"), (pickle, "load"), (torch, "save"), (torch, "load")]:
        monkeypatch.setattr(owner, name, refuse)
    place = prepare(tmp_path)
    run(tiny_config(place, **settings("wandb")))
    written = [path for path in (place / "outputs").rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in written)
    for path in written:
        content = path.read_bytes()
        assert not any(value.encode() in content for value in secrets.values()), path
        assert not content.startswith(b"\x80"), path  # how pickles begin
    shown = capsys.readouterr()
    assert not any(value in shown.out + shown.err for value in secrets.values())
