"""Ended at any moment, by kill -9, SIGTERM or Ctrl-C: the same call ends in the files of an undisturbed run."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from prunebench.paths import RunFolder
from tests.killing import MOMENTS, run_until, settings, start
from tests.reading import rows_of, sums, timeless, wandb_history
from tests.tiny import make_data, make_model

POINTS = 42
SIGNALS = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


def prepare(place: Path) -> Path:
    make_model(place / "pretrained")
    make_data(place, train=96)
    return place


def runs_in(place: Path) -> dict[str, RunFolder]:
    return {name: RunFolder(next((place / "outputs" / name).iterdir())) for name in ("dense", "tiny")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, RunFolder], list[str]]:
    """The run that all others must equal, and its moments."""
    place = prepare(tmp_path_factory.mktemp("undisturbed"))
    trace = place / "trace.json"
    process = start(traced, str(place), str(trace))
    process.join(120)
    assert process.exitcode == 0
    return runs_in(place), json.loads(trace.read_text())


def traced(place: str, trace: str) -> None:
    run_until(place, -1, trace=trace, **settings())


def killed(place: str, kill_at: int, how: int) -> None:
    run_until(place, kill_at, how, **settings())


def points(moments: list[str]) -> list[int]:
    """Every kind of moment once, before and after, each rename among them; the rest drawn with a fixed seed."""
    draw = random.Random(0)
    first: dict[str, int] = {}
    for index in draw.sample(range(len(moments)), len(moments)):
        first.setdefault(moments[index], index)
    chosen = sorted(first.values())
    others = [index for index in range(len(moments)) if index not in chosen]
    return [*chosen, *draw.sample(others, max(0, POINTS - len(chosen)))]


def test_the_moments_are_those_that_matter(undisturbed: tuple[dict[str, RunFolder], list[str]]) -> None:
    _, moments = undisturbed
    assert {moment.split(" ")[0] for moment in moments} == {name for _, name in MOMENTS}
    renamed = {moment.split(" ")[2] for moment in moments if moment.startswith("replace")}
    assert {"model", "masks.safetensors", "predictions.jsonl", "result.json", "metrics.jsonl", "README.md"} <= renamed
    assert {"step-000000010", "step-000000036", "config.yaml", "plan.json"} <= renamed
    assert len(points(moments)) <= POINTS + 10


@pytest.mark.parametrize("number", range(POINTS))
def test_killed_at_any_moment_it_ends_in_the_same_files(
    undisturbed: tuple[dict[str, RunFolder], list[str]], tmp_path: Path, number: int
) -> None:
    expected, moments = undisturbed
    kill_at = points(moments)[number]
    how = SIGNALS[number % len(SIGNALS)]
    place = prepare(tmp_path)
    ended = start(killed, str(place), kill_at, how)
    ended.join(120)
    assert ended.exitcode in (-how, 130, 1), moments[kill_at]
    if number % 3 == 0:  # and once more on the way
        again = start(killed, str(place), random.Random(number).randrange(40), signal.SIGKILL)
        again.join(120)
    last = start(killed, str(place), -1, 0)
    last.join(120)
    assert last.exitcode == 0, moments[kill_at] + (place / "stderr").read_text()
    for name, folder in runs_in(place).items():
        assert sums(folder) == sums(expected[name]), moments[kill_at]
        assert timeless(rows_of(folder)) == timeless(rows_of(expected[name])), moments[kill_at]
        assert not folder.state.exists()
    assert history(runs_in(place)["tiny"]) == history(expected["tiny"]), moments[kill_at]
    assert not list((place / "outputs").rglob(".*.tmp"))


def history(folder: RunFolder) -> list[dict[str, Any]]:
    """What wandb has of the run: every step once."""
    (file,) = folder.root.glob("wandb/offline-run-*/*.wandb")
    rows = wandb_history(file)
    assert [row["_step"] for row in rows] == sorted({row["_step"] for row in rows})
    timed = ("examples_per_second", "_runtime", "_timestamp")
    return [{key: value for key, value in row.items() if key not in timed} for row in rows]


def test_ctrl_c_while_checkpoints_are_removed_leaves_the_run_finished(tmp_path: Path) -> None:
    place = prepare(tmp_path)
    process = start(interrupted_in_the_clearing, str(place))
    process.join(120)
    assert process.exitcode == 130
    tiny = runs_in(place)["tiny"]
    assert json.loads(tiny.result.read_text())["status"] == "finished" and tiny.state.exists()
    assert finished_again(place) == []  # no update is made twice
    assert not tiny.state.exists()


def interrupted_in_the_clearing(place: str) -> None:
    from prunebench import run as conductor

    original = conductor.remove

    def remove(path: Path) -> None:
        if path.name == "state" and path.parent.parent.name == "tiny":
            os.kill(os.getpid(), signal.SIGINT)
        original(path)

    conductor.remove = remove  # type: ignore[assignment]
    run_until(place, -1, **settings("local"))


def finished_again(place: Path) -> list[str]:
    """The updates that the same call still makes."""
    process = start(traced, str(place), str(place / "again.json"))
    process.join(120)
    assert process.exitcode == 0
    return [moment for moment in json.loads((place / "again.json").read_text()) if "_update" in moment]


def test_force_that_is_killed_leaves_no_finished_run_without_a_model(tmp_path: Path) -> None:
    place = prepare(tmp_path)
    assert finished_again(place)
    process = start(killed_in_force, str(place))
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert not runs_in(place)["tiny"].result.exists()


def killed_in_force(place: str) -> None:
    from prunebench import run as conductor
    from tests.tiny import tiny_config

    def remove(path: Path) -> None:
        if path.parent.name == "tiny":
            os.kill(os.getpid(), signal.SIGKILL)

    conductor.remove = remove  # type: ignore[assignment]
    conductor.run(tiny_config(Path(place), **settings()), force=True)
