"""What wandb users see: runs grouped and tagged, and a saved workspace. From real runs, through wandb's own client."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prunebench.cli import main
from prunebench.compare import load_runs
from prunebench.compare.groups import group_runs
from prunebench.compare.wandb_runs import load_wandb
from prunebench.errors import RunError, UsageError
from prunebench.run import run
from prunebench.wandb_workspace import save_workspace
from tests.reading import wandb_file, wandb_history, wandb_run
from tests.tiny import tiny_config
from tests.wandb_server import Project, serving

PATH = "team/prunebench"
TRACKER = {"tracker__name": "wandb", "tracker__tags": ["mine"]}


@dataclass(frozen=True)
class Sent:
    """Finished runs and what wandb was sent of each."""

    outputs: Path
    files: dict[str, Path]  # wandb's own, by digest


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Sent:
    """Two seeds and one at another sparsity; with their dense runs five."""
    place = tmp_path_factory.mktemp("sent")
    for seed, sparsity in ((1, 0.75), (2, 0.75), (1, 0.5)):
        run(tiny_config(place, recipe="gradual", sparsity=sparsity, seed=seed, **TRACKER))
    files = {path.parent.name: wandb_file(path.parent) for path in place.glob("outputs/*/*/wandb/")}
    return Sent(place / "outputs", files)


@pytest.fixture
def project(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    told = [wandb_run(file) for file in sent.files.values()]
    served = Project(PATH, [(run["id"], run["config"], run["summary"], "finished") for run in told])
    with serving(served) as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
        yield served


def members(runs: Any) -> set[frozenset[str]]:
    return {frozenset(run.digest for run in group.runs) for group in group_runs(runs)}


def test_wandb_groups_as_compare_does(sent: Sent) -> None:
    told = {digest: wandb_run(file)["group"] for digest, file in sent.files.items()}
    same = {frozenset(d for d in told if told[d] == group) for group in told.values()}
    assert same == members(load_runs(sent.outputs)) and sorted(map(len, same)) == [1, 2, 2]


def test_tags_and_kind_tell_what_a_run_is(sent: Sent) -> None:
    for local in load_runs(sent.outputs):
        told, kind = wandb_run(sent.files[local.digest]), "dense" if local.is_dense else "pruned"
        pruned = [] if local.is_dense else ["magnitude"]
        sparsity = f"sparsity-{local.result['sparsity']['target']:g}"
        assert told["job_type"] == kind and told["hidden"] == ["pruning/layers/*"]
        assert told["tags"] == ["mine", local.result["recipe"], "tiny", "pretrained", sparsity, *pruned]


def test_what_is_read_back_from_wandb_is_what_the_folders_hold(sent: Sent, project: Project) -> None:
    there, here = ({run.digest: run for run in runs} for runs in (load_wandb(PATH), load_runs(sent.outputs)))
    assert there.keys() == here.keys() and members(there.values()) == members(here.values())
    for digest, local in here.items():
        for key in ("metric.value", "recovery", "sparsity.prunable", "sparsity.model", "weights.model_nonzero",
                    "bytes.compressed", "seconds", "dense.value", "trainer.lr"):  # fmt: skip
            assert there[digest].values[key] == local.values[key], key


# --- the workspace ------------------------------------------------------------------------------------------------


def saved(project: Project) -> dict[str, Any]:
    (view,) = project.views.values()
    spec: dict[str, Any] = json.loads(view["spec"])["section"]
    return spec


def panels(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for section in spec["panelBankConfig"]["sections"] for panel in section["panels"]]


def keys_of(panel: dict[str, Any]) -> list[str]:
    """What a panel shows of a run's summary and config."""
    config = panel["config"]
    columns = [column["accessor"] for column in config.get("columns", [])]
    bars = [f"summary:{key}" for key in config.get("metrics", [])] if panel["viewType"] == "Bar Chart" else []
    return [*(config[axis] for axis in ("xAxis", "yAxis") if panel["viewType"] == "Scatter Plot"), *columns, *bars]


def test_the_workspace_shows_only_what_runs_have_sent(sent: Sent, project: Project) -> None:
    """Every name in the view is one of wandb's own files, so that no panel stays empty for a misspelt name."""
    save_workspace(PATH)
    spec, (pruned, *_) = saved(project), [run for run in load_runs(sent.outputs) if not run.is_dense]
    told = wandb_run(sent.files[pruned.digest])
    logged = {key for row in wandb_history(sent.files[pruned.digest]) for key in row}
    (runs,) = spec["runSets"]
    columns = [key for key in runs["runFeed"]["columnPinned"] if key != "run:displayName"]
    for key in [*columns, *(key for panel in panels(spec) for key in keys_of(panel))]:
        section, _, name = key.partition(":")
        if section == "summary":
            assert name in told["summary"], key
        else:
            first, value, *rest = name.split(".")
            place = told["config"][first]
            for part in rest:
                place = place[part]
            assert (section, value) == ("config", "value") and not isinstance(place, dict | list), key
    lines = [panel["config"] for panel in panels(spec) if panel["viewType"] == "Run History Line Plot"]
    shown = {key for line in lines for key in line.get("metrics", [])}
    assert shown >= {"eval/accuracy", "loss", "lr", "sparsity"} and shown <= logged
    (pattern,) = [line["metricRegex"] for line in lines if line.get("useMetricRegex")]
    assert {key for key in logged if re.search(pattern, key)} == {key for key in logged if "layers" in key} != set()


def test_the_workspace_has_the_panels_of_the_dashboard(project: Project) -> None:
    save_workspace(PATH)
    spec = saved(project)
    kinds = [panel["viewType"] for panel in panels(spec)]
    assert {"Scatter Plot", "Bar Chart", "Run History Line Plot", "Run Comparer", "Parallel Coordinates Plot"} == {
        *kinds
    }
    scatters = [panel["config"] for panel in panels(spec) if panel["viewType"] == "Scatter Plot"]
    assert [(plot["xAxis"], plot["yAxis"]) for plot in scatters] == [
        ("summary:sparsity/prunable", "summary:metrics/accuracy"),
        ("summary:sparsity/model", "summary:metrics/accuracy"),
    ]
    (bars,) = [panel["config"] for panel in panels(spec) if panel["viewType"] == "Bar Chart"]
    assert (bars["groupBy"], bars["groupAgg"], bars["groupArea"]) == ("group", "mean", "stddev")
    (runs,) = spec["runSets"]
    assert runs["grouping"] == [{"section": "run", "name": "group"}]
    assert "config:sparsity.value" in runs["runFeed"]["columnPinned"]  # the setting in which these groups differ


def test_the_address_that_is_given_opens_the_view(project: Project) -> None:
    """Read back by wandb's library from the address alone."""
    import wandb_workspaces.workspaces as ws

    address = save_workspace(PATH)
    assert address.startswith("http://127.0.0.1:") and f"/{PATH}?nw=" in address
    there = ws.Workspace.from_url(address)
    assert there.name.startswith("prunebench ")
    assert [section.name for section in there.sections] == [
        "Score, sparsity and recovery",
        "Learning curves",
        "What tells runs apart",
    ]


def test_the_verb_prints_the_address_alone(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", "--wandb", PATH]) == 0
    captured = capsys.readouterr()
    (name,) = project.views
    assert captured.out.endswith(f"/{PATH}?nw={name.removeprefix('nw-').removesuffix('-v')}\n")
    assert len(captured.out.splitlines()) == 1 and "View saved" not in captured.err
    assert main(["dashboard", "--wandb", PATH, "--export", "x.html"]) == 2
    assert main(["dashboard", "--wandb", "team/none"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_view_that_is_there_is_left_alone(project: Project) -> None:
    assert save_workspace(PATH) != save_workspace(PATH) and len(project.views) == 2
    assert all("id" not in view for view in project.views.values())


def test_what_cannot_be_saved_is_told_in_one_line(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match=r"team/none: .*none"):
        save_workspace("team/none")
    with pytest.raises(UsageError, match="give entity/project"):
        save_workspace("prunebench")
    project.refusal = "permission denied\nand more"
    with pytest.raises(RunError, match=r"team/prunebench: .*permission denied") as told:
        save_workspace(PATH)
    assert "\n" not in str(told.value) and not project.views
    project.runs = []
    with pytest.raises(UsageError, match="team/prunebench: no finished run of prunebench there; tracker=wandb sends"):
        save_workspace(PATH)
    project.known = False
    with pytest.raises(RunError, match="credentials"):
        save_workspace(PATH)
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", "/nowhere")
    with pytest.raises(UsageError, match="no key found: wandb login"):
        save_workspace(PATH)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(UsageError, match="pip install wandb-workspaces"):
        save_workspace(PATH)
