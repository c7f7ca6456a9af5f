"""Soups: exact averages that keep every zero, greedy choice, refusals, and the phases of the script."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prunebench import soup
from prunebench.cli import main
from prunebench.config import DistillationConfig, PhaseConfig, PruningConfig, RunConfig, ScheduleConfig
from prunebench.errors import UsageError
from prunebench.paths import RunFolder
from prunebench.run import evaluate_folder, run
from prunebench.soup import average, make_soup
from tests.tiny import tiny_config

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import sparse_soup


def folder_of(result: dict[str, Any], place: Path) -> RunFolder:
    return RunFolder(place / "outputs" / result["name"] / result["digest"])


def weights_of(folder: RunFolder) -> dict[str, torch.Tensor]:
    return load_file(folder.model / "model.safetensors")


def member(place: Path, start: Path, seed: int) -> RunConfig:
    """Retrains what is left of a sparse model, gently."""
    config = tiny_config(
        place, name="member", seed=seed, sparsity=0.0, start=str(start), trainer__lr=1e-3, trainer__dropout=0.1
    )
    config.pruning = PruningConfig(keep_zeros=True, schedule=ScheduleConfig(phases=[PhaseConfig(units=0.5)]))
    config.distillation = DistillationConfig()
    return config


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[RunFolder]]:
    """Three runs of one mask, and the sparse model that they started from as the fourth."""
    place = tmp_path_factory.mktemp("kitchen")
    sparse = folder_of(run(tiny_config(place)), place)
    members = [folder_of(run(member(place, sparse.model, seed)), place) for seed in (1, 2, 3)]
    return place, [*members, sparse]


def test_the_mean_is_exact_and_of_floats_alone() -> None:
    torch.manual_seed(0)
    models = [{"w": torch.randn(4, 5), "ids": torch.arange(3)} for _ in range(3)]
    for model in models:
        model["w"][1] = 0
    mean = average(iter(models))
    for i in range(4):
        for j in range(5):
            exact = sum(float(model["w"][i, j]) for model in models) / 3  # in Python's float64
            assert mean["w"][i, j].item() == torch.tensor(exact, dtype=torch.float32).item()
    assert mean["w"].dtype == torch.float32 and mean["w"][1].eq(0).all() and torch.equal(mean["ids"], torch.arange(3))


def test_a_soup_is_the_mean_with_every_zero_and_like_a_run(kitchen: tuple[Path, list[RunFolder]]) -> None:
    place, (*members, _) = kitchen
    result, root = make_soup(members)
    folder = RunFolder(root)
    assert root == place / "outputs" / "soup" / result["digest"] and json.loads(folder.result.read_text()) == result
    parts, mean, masks = [weights_of(one) for one in members], weights_of(folder), load_file(folder.masks)
    for name, weight in mean.items():
        exact = torch.stack([part[name].double() for part in parts]).sum(0) / 3
        assert torch.equal(weight, exact.float()), name
        assert name not in masks or torch.equal(weight != 0, masks[name])
    assert not torch.equal(parts[0]["classifier.weight"], parts[1]["classifier.weight"])
    assert result["sparsity"]["prunable"] == 0.75 and result["status"] == "finished"
    assert list(result["training"]["members"].values()) == [
        json.loads(one.result.read_text())["metric"]["value"] for one in members
    ]
    again = evaluate_folder(root)
    assert again["metrics"] == result["metrics"] and again["masked_weights_are_zero"]
    assert len(folder.predictions.read_text().splitlines()) == 40
    assert "75.00 % of the weights of encoder" in (folder.model / "README.md").read_text()


def test_a_finished_soup_is_not_cooked_again(
    kitchen: tuple[Path, list[RunFolder]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (*members, _) = kitchen
    first, root = make_soup(members)
    monkeypatch.setattr(soup, "average", lambda models: pytest.fail("averaged again"))
    assert make_soup(members[::-1]) == (first, root)


def test_what_a_soup_is_compared_with(kitchen: tuple[Path, list[RunFolder]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that have no dense run beside them are their own: their soup is not one of them."""
    place, (*members, _) = kitchen
    original = soup.evaluate_model
    monkeypatch.setattr(soup, "evaluate_model", lambda *args: ({"accuracy": 0.125}, original(*args)[1]))
    result, root = make_soup(members, out=place / "compared")
    assert result["dense"] == {"value": 0.125, "metrics": {"accuracy": 0.125}, "folder": str(root)}
    assert result["recovery"] == 1.0
    monkeypatch.undo()
    phases = [PhaseConfig(name="prune", epochs=0, prune=True), PhaseConfig()]
    one, other = (
        folder_of(run(tiny_config(place, pruning__schedule=ScheduleConfig(phases=phases, lr=lr))), place)
        for lr in (1e-3, 2e-3)
    )
    result, _ = make_soup([one, other])
    dense = json.loads((Path(result["dense"]["folder"]) / "result.json").read_text())
    assert dense["recipe"] == "dense" and result["recovery"] == result["metric"]["value"] / dense["metric"]["value"]


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ([0.9, 0.8], [True, True, False]),  # of the average with the second best; then with the worst too
        ([0.7, 0.9], [True, False, True]),
        ([0.7, 0.6], [True, False, False]),
        ([0.85, 0.85], [True, True, True]),
    ],
)
def test_greedy_keeps_what_does_no_harm(
    kitchen: tuple[Path, list[RunFolder]],
    scores: list[float],
    kept: list[bool],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    _, (*members, _) = kitchen
    own = {members[0].root.name: 0.75, members[1].root.name: 0.85, members[2].root.name: 0.8}
    original: Callable[[RunFolder], dict[str, Any]] = soup.read_result
    answers = iter(scores)

    def read_result(folder: RunFolder) -> dict[str, Any]:
        result = original(folder)
        if folder.root.name in own:
            result["metric"]["value"] = own[folder.root.name]
        return result

    def evaluate_model(context: Any, model: Any) -> Any:
        return ({"accuracy": next(answers, 0.5)}, [])

    monkeypatch.setattr(soup, "read_result", read_result)
    monkeypatch.setattr(soup, "evaluate_model", evaluate_model)
    result, root = make_soup(members, greedy=True, out=tmp_path / "greedy")
    order = [members[1], members[2], members[0]]
    used = [one for one, stays in zip(order, kept, strict=True) if stays]
    assert result["training"]["used"] == [f"member/{one.root.name}" for one in used]
    mean = weights_of(RunFolder(root))
    parts = [weights_of(one) for one in used]
    for name, weight in mean.items():
        exact = torch.stack([part[name].double() for part in parts]).sum(0) / len(parts)
        assert torch.allclose(weight.double(), exact, rtol=1e-6, atol=1e-9), name


def test_what_does_not_fit_together_is_refused(kitchen: tuple[Path, list[RunFolder]], tmp_path: Path) -> None:
    place, (one, other, _, sparse) = kitchen
    elsewhere = folder_of(run(tiny_config(place, sparsity=0.5)), place)
    short = folder_of(run(tiny_config(place, dataset__limit=200)), place)
    with pytest.raises(UsageError, match="a soup needs two or more runs"):
        make_soup([one])
    with pytest.raises(UsageError, match="is given twice"):
        make_soup([one, other, one])
    with pytest.raises(UsageError, match=r"have other masks, the first difference is in bert.encoder.layer.0.atten"):
        make_soup([elsewhere, sparse])
    with pytest.raises(UsageError, match=r"differ in dataset.limit"):
        make_soup([short, sparse])
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="there is something else already"):
        make_soup([one, other], out=tmp_path / "mine")
    assert not list((tmp_path / "mine").iterdir())
    unfinished = RunFolder(tmp_path / "unfinished")
    unfinished.root.mkdir()
    unfinished.config.write_text(one.config.read_text())
    with pytest.raises(UsageError, match="is not finished"):
        make_soup([one, unfinished])


def test_the_verb(kitchen: tuple[Path, list[RunFolder]], capsys: pytest.CaptureFixture[str]) -> None:
    place, (one, other, *_) = kitchen
    words = ["soup", str(one.root), other.root.name[:8], "--outputs", str(place / "outputs")]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "75.00 % of encoder" in shown
    for run_folder in (one, other):
        value = json.loads(run_folder.result.read_text())["metric"]["value"]
        assert f"{value:.4f}  member/{run_folder.root.name}" in shown
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["training"]["used"] == [f"member/{x.root.name}" for x in (one, other)]
    assert main(["soup", str(one.root)]) == 2
    assert capsys.readouterr().err.splitlines() == ["prunebench: error: a soup needs two or more runs"]


def test_the_script_prunes_in_phases_of_one_share(kitchen: tuple[Path, list[RunFolder]], tmp_path: Path) -> None:
    place, _ = kitchen
    words = [
        "recipe=sparse_soup", "model=hf", f"model.name={place}/pretrained", "dataset=classification",
        f"dataset.train_file={place}/train.csv", f"dataset.validation_file={place}/validation.csv",
        "dataset.max_length=32", "trainer.epochs=0.5", "trainer.lr=5e-3", "trainer.batch_size=8",
        "trainer.device=cpu", "sparsity=0.75", f"outputs={tmp_path}/outputs",
    ]  # fmt: skip
    for word in ("pruning/criterion=wanda", "pruning/schedule=gradual", "pruning/refinement=dsnot"):
        with pytest.raises(UsageError, match="members need one mask"):
            sparse_soup.cook([*words, word], phases=2, members=2, greedy=False)
    assert not (tmp_path / "outputs").exists()  # known before anything is trained
    result, root = sparse_soup.cook(words, phases=2, members=2, greedy=False)
    assert result["sparsity"]["prunable"] == 0.75 and len(result["training"]["used"]) == 2
    runs = sorted((tmp_path / "outputs" / "sparse_soup").glob("*/result.json"))
    found = [json.loads(path.read_text()) for path in runs]
    assert sorted((one["sparsity"]["prunable"], one["seed"]) for one in found) == [
        (0.5, 1), (0.5, 2), (0.75, 1), (0.75, 2),
    ]  # fmt: skip
    soups = {path.parent for path in (tmp_path / "outputs" / "soup").glob("*/result.json")}
    (before,) = soups - {root}
    trained = [
        path
        for path in (tmp_path / "outputs" / "dense").glob("*/result.json")
        if json.loads(path.read_text())["training"]["steps"]
    ]
    assert [str(path.parent) for path in trained] == [result["dense"]["folder"]]
    assert result["recovery"] == result["metric"]["value"] / json.loads(trained[0].read_text())["metric"]["value"]
    early, late = load_file(before / "masks.safetensors"), load_file(root / "masks.safetensors")
    assert all(not (late[name] & ~early[name]).any() for name in early)
    when = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert sparse_soup.cook(words, phases=2, members=2, greedy=False) == (result, root)
    assert when == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
