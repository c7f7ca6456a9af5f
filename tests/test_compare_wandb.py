"""`compare --wandb`: wandb's own client against a server on localhost, fed with what our tracker sends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from prunebench.cli import main
from prunebench.config import RunConfig
from prunebench.tracking import WandbTracker
from tests.comparing import finished_run
from tests.test_tracking import FakeRun
from tests.wandb_server import Project, serving

LOGGED = {"_step": 9, "loss": 0.5, "sparsity": 0.9, "eval/accuracy": 0.5}  # what wandb keeps of the last rows


def sent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any], dict[str, Any], str]:
    """Id, config and summary of the run as its tracker gives them to wandb."""
    import wandb

    result = json.loads((folder / "result.json").read_text())
    run, called = FakeRun(), {}

    def init(**settings: Any) -> FakeRun:
        called.update(settings)
        return run

    with monkeypatch.context() as patch:
        patch.setenv("WANDB_MODE", "online")
        patch.setattr(wandb, "init", init)
        config: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), result["config"]))
        tracker = WandbTracker(config, digest=result["digest"], group=result["group"], folder=folder, rows=list)
        tracker.finish(result)
    return called["id"], called["config"], LOGGED | run.summary, "finished"


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2, 3):
        dense = finished_run(Path("outputs"), (1, 1, 1, 1), name="dense", seed=seed, sparsity=0.0)
        for name, right, hardness in (("good", (1, 1, 1, seed % 2), 1.0), ("bad", (1, 0, 0, seed % 2), 0.0)):
            own = {"distillation.hardness": hardness}
            finished_run(Path("outputs"), right, name=name, seed=seed, dense=dense, settings=own)
    return Path("outputs")


@pytest.fixture
def project(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    runs = [sent(path.parent, monkeypatch) for path in sorted(outputs.glob("*/*/result.json"))]
    runs += [("busy-0", {}, {}, "running"), ("foreign-0", {"name": "x"}, {"loss": 1.0}, "finished")]
    served = Project("me/prunebench", runs)
    with serving(served) as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
        yield served


def without_tests(table: dict[str, Any]) -> dict[str, Any]:
    """What the files say and wandb cannot: p-values."""
    for row in table["rows"]:
        for which in ("to_dense", "to_baseline"):
            if row[which]:
                row[which] |= {"p": None, "p_holm": None}
    return table | {"test": None}


def test_the_table_from_wandb_is_that_from_the_files(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--baseline", "good", "--json"]
    assert main(["compare", *words]) == 0
    from_files = json.loads(capsys.readouterr().out)
    assert main(["compare", "--wandb", "me/prunebench", *words]) == 0
    captured = capsys.readouterr()
    from_wandb = json.loads(captured.out)
    assert from_wandb["tables"] == [without_tests(table) for table in from_files["tables"]]
    assert any("No p for all rows" in note for note in from_wandb["notes"])
    assert "1 runs of me/prunebench have no result" in captured.err
    assert [asked.get("cursor") for asked in project.asked] == [None, "2", "4", "6", "8"]


def test_names_and_filters_choose_there_too(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "good", "bad", "--wandb", "me/prunebench", "--where", "seed<3 and name=bad", "--json"]) == 0
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    assert [(row["name"], row["seeds"]) for row in table["rows"]] == [("bad", [1, 2])]


def test_runs_sent_by_an_earlier_version_lack_sizes_only(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    lacking = ("digest", "group", "evaluation", "weights", "bytes", "training")
    project.runs = [
        (identity, config, {k: v for k, v in summary.items() if k.split("/")[0] not in lacking}, state)
        for identity, config, summary, state in project.runs
    ]
    assert main(["compare", "--wandb", "me/prunebench"]) == 0
    shown = capsys.readouterr().out
    assert "non-zero" not in shown and "zeros: model" in shown
    assert [line.split()[:4] for line in shown.splitlines()[2:5]] == [
        ["dense", "3", "1.0000", "±"],
        ["good", "3", "0.9167", "±"],
        ["bad", "3", "0.4167", "±"],
    ]


@pytest.mark.parametrize(
    ("words", "status", "part"),
    [
        (["--wandb", "me/other"], 1, "--wandb me/other: ValueError: Could not find project other"),
        (["--wandb", "other"], 2, "--wandb other: give entity/project"),
        (["nobody", "--wandb", "me/prunebench"], 2, "nobody: no finished run in me/prunebench is called so"),
    ],
)
def test_mistakes_are_one_line(
    project: Project, capsys: pytest.CaptureFixture[str], words: list[str], status: int, part: str
) -> None:
    assert main(["compare", *words]) == status
    assert part in capsys.readouterr().err.splitlines()[-1]


def test_no_key_and_no_server_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # the port of discard: nobody listens
    assert main(["compare", "--wandb", "me/prunebench"]) == 2
    assert "no key found: wandb login, or set WANDB_API_KEY" in capsys.readouterr().err
