"""Language modelling through the whole flow: run, resume, calibration, upstream pruning and sparse transfer."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from prunebench import train
from prunebench.cli import main
from prunebench.config import DatasetConfig, PhaseConfig, PruningConfig, RunConfig, ScheduleConfig
from prunebench.run import run
from prunebench.scoring import evaluate_folder
from prunebench.targets import find_targets
from tests.reading import rows_of
from tests.test_methods_runs import folder_of, sums
from tests.test_run_families import family_config
from tests.tiny import tiny_config

torch.set_num_threads(1)
WORDS = 17  # of the tiny tokenizer


def write_text(path: Path, lines: int, seed: int) -> str:
    """Sentences of a few words whose order is mostly fixed, so that a model can learn them in a second."""
    if path.exists():
        return str(path)
    words = random.Random(seed)
    sentence = ("{} {} is {} {}", ["the", "a"], ["film", "book"], ["very", "not"], ["good", "bad"])
    texts = [sentence[0].format(*(words.choice(part) for part in sentence[1:])) for _ in range(lines)]
    path.write_text("\n".join(texts) + "\n")
    return str(path)


def text_config(folder: Path, family: str | None = None, **changes: Any) -> RunConfig:
    """`tiny_config` on text, by default with its own BERT, which finds masked words."""
    config = tiny_config(folder, **changes) if family is None else family_config(folder, family, **changes)
    files = {
        "train_file": write_text(folder / "a.txt", 1000, 0),
        "validation_file": write_text(folder / "b.txt", 40, 1),
    }
    config.dataset = DatasetConfig(name="text", task="language_modelling", max_length=16, **files)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    place = tmp_path_factory.mktemp("finished")
    return run(text_config(place)), place


def test_what_a_masked_run_leaves(finished: tuple[dict[str, Any], Path], capsys: pytest.CaptureFixture[str]) -> None:
    result, place = finished
    folder = folder_of(result, place)
    assert result["metric"] | {"value": 0} == {
        "name": "masked_perplexity", "value": 0, "higher_is_better": False, "weights": "last"
    }  # fmt: skip
    assert 1 < result["dense"]["value"] < 0.6 * WORDS
    assert result["recovery"] == pytest.approx(result["dense"]["value"] / result["metric"]["value"])
    lines = [json.loads(line) for line in folder.predictions.read_text().splitlines()]
    mean = math.fsum(line["nll"] for line in lines) / sum(line["tokens"] for line in lines)
    assert math.exp(mean) == pytest.approx(result["metric"]["value"])
    model = AutoModelForMaskedLM.from_pretrained(folder.model)
    weights = [target.weight for target in find_targets(model)]
    assert sum(int((weight == 0).sum()) for weight in weights) == 0.75 * sum(weight.numel() for weight in weights)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert evaluate_folder(folder.root)["metrics"] == pytest.approx(result["metrics"])
    assert main(["show", str(folder.root)]) == 0
    assert "masked_perplexity" in capsys.readouterr().out


@pytest.mark.parametrize("family", ["distilbert", "albert", "gpt2", "opt"])
def test_families_model_language(family: str, tmp_path: Path) -> None:
    """Encoders find masked words, decoders the next one; the teacher is at work in each."""
    result = run(text_config(tmp_path, family, distillation__hardness=0.5))
    auto = AutoModelForCausalLM if family in ("gpt2", "opt") else AutoModelForMaskedLM
    assert result["metric"]["name"] == ("perplexity" if auto is AutoModelForCausalLM else "masked_perplexity")
    weights = [target.weight for target in find_targets(auto.from_pretrained(folder_of(result, tmp_path).model))]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    assert zeros == round(0.75 * sum(weight.numel() for weight in weights))
    rows = [row for row in rows_of(folder_of(result, tmp_path)) if "loss" in row]
    assert all(-1e-6 < row["distillation_loss"] < 20 and row["task_loss"] < 20 for row in rows)


def test_a_killed_run_ends_in_the_same_files(
    finished: tuple[dict[str, Any], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks follow from the step, so nothing has to be replayed."""
    original, calls = train._update, []

    def update(job: Any, *args: Any) -> Any:
        if "tiny" in job.title:
            calls.append(1)
            if len(calls) == 30:
                raise SystemExit("killed")
        return original(job, *args)

    monkeypatch.setattr(train, "_update", update)
    with pytest.raises(SystemExit):
        run(text_config(tmp_path, trainer__checkpoint_steps=20))
    again = run(text_config(tmp_path, trainer__checkpoint_steps=20))
    undisturbed, place = finished
    assert sums(folder_of(again, tmp_path)) == sums(folder_of(undisturbed, place))


def test_accumulation_and_two_processes_mask_the_same_words(tmp_path: Path) -> None:
    settings = {"dropout": 0.0, "eps": 1e-3, "max_steps": 9}
    trainer = {f"trainer__{key}": value for key, value in settings.items()}
    whole = run(text_config(tmp_path, name="whole", **trainer))
    parts = run(text_config(tmp_path, name="parts", trainer__accumulation=4, **trainer))
    (tmp_path / "worker.py").write_text(
        "import sys; from pathlib import Path; from prunebench.run import run\n"
        "from tests.test_language_runs import text_config\n"
        f"settings = {settings!r}\n"
        "run(text_config(Path(sys.argv[1]), name='two', **{f'trainer__{k}': v for k, v in settings.items()}))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    place = tmp_path / "apart"
    place.mkdir()
    text_config(place)  # makes model and text, which both processes find
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [*command, str(tmp_path / "worker.py"), str(place)], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    two = next((place / "outputs" / "two").iterdir())
    expected = load_file(folder_of(whole, tmp_path).model / "model.safetensors")
    for file in (folder_of(parts, tmp_path).model, two / "model"):
        found = load_file(file / "model.safetensors")
        assert all(torch.allclose(weight, found[name], atol=1e-4) for name, weight in expected.items())
    scores = json.loads((two / "result.json").read_text())["metrics"]
    assert scores == pytest.approx(whole["metrics"], rel=1e-3)


def test_the_best_weights_are_those_of_lowest_perplexity(tmp_path: Path) -> None:
    result = run(text_config(tmp_path, trainer__keep="best", trainer__eval_every=0.3, trainer__max_steps=30))
    rows = [row for row in rows_of(folder_of(result, tmp_path)) if "eval" in row]
    final = [row["eval"]["masked_perplexity"] for row in rows if row["step"] > 2 * result["training"]["steps"] / 3]
    assert result["metric"]["value"] == pytest.approx(min(final))


@pytest.mark.parametrize("family", ["opt", "gpt2"])
@pytest.mark.parametrize("criterion", ["sparsegpt", "wanda"])
def test_decoders_are_pruned_once_on_calibration_text(family: str, criterion: str, tmp_path: Path) -> None:
    config = text_config(tmp_path, family)
    config.distillation.hardness = 0.0
    config.trainer.max_steps = None
    schedule = ScheduleConfig(phases=[PhaseConfig(name="prune", epochs=0, prune=True)])
    config.pruning = PruningConfig(schedule=schedule)
    config.pruning.criterion.name = criterion
    config.pruning.scope.name = "uniform" if criterion == "sparsegpt" else "row"
    config.pruning.calibration.examples = 32
    config.sparsity = 0.5
    result = run(config)
    assert result["sparsity"]["prunable"] == pytest.approx(0.5, abs=0.01)
    assert result["dense"]["value"] < result["metric"]["value"] < WORDS
    if criterion == "sparsegpt":  # what it changes in the weights that stay is for this
        config.pruning.criterion.name, config.name = "magnitude", "magnitude"
        assert result["metric"]["value"] < run(config)["metric"]["value"]
        config.start = str(Path(result["dense"]["folder"]) / "model")  # a folder is its own dense model: no training
        config.pruning.criterion.name, config.name = "sparsegpt", "folder"
        again = run(config)
        assert again["dense"]["value"] == result["dense"]["value"] and again["metrics"] == result["metrics"]


def test_a_model_pruned_on_text_keeps_its_zeros_on_another_task(
    finished: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    upstream, place = finished
    config = tiny_config(tmp_path, sparsity=0.0, start="pretrained")
    config.pruning = PruningConfig(keep_zeros=True, schedule=ScheduleConfig(phases=[PhaseConfig(name="transfer")]))
    config.distillation.hardness = 0.0
    config.model.name = str(folder_of(upstream, place).model)
    result = run(config)
    assert result["metric"]["name"] == "accuracy" and result["sparsity"]["prunable"] == 0.75
    before = load_file(folder_of(upstream, place).model / "model.safetensors")
    after = load_file(folder_of(result, tmp_path).model / "model.safetensors")
    matrices = [name for name, value in before.items() if ".layer." in name and value.ndim == 2]
    assert len(matrices) == 12
    for name in matrices:
        assert torch.equal(before[name] == 0, after[name] == 0) and not torch.equal(before[name], after[name])


TEXT = ["recipe=bert_smc_90", "dataset=language_modelling", "dataset.train_file=a.txt", "dataset.validation_file=b.txt"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["dataset.max_length=512"], "a.txt holds 66 bytes of text, less than a window of dataset.max_length=512"),
        (["dataset.max_length=16", "dataset.stride=17"], "dataset.stride=17: must be at most dataset.max_length=16"),
        (
            ["dataset.max_length=16", "dataset.objective=causal"],
            "sees the words that follow: set dataset.objective=masked",
        ),
        (["dataset.max_length=16", "dataset.objective=masked", "model=gpt2"], "predicts the next word"),
        (
            ["dataset.max_length=16", "dataset.metric=perplexity"],
            "'perplexity' is no metric for masked_language_modelling",
        ),
        (["dataset.max_length=16", "distillation.temperature=auto"], "too many over a vocabulary"),
        (["dataset.max_length=16", "dataset.train_file=b.doc"], "dataset.train_file=b.doc: which format is that?"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    more: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("the film is very good\n" * 3)
    assert main(["plan", *TEXT, *more]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert any(says in line for line in lines), lines


def test_plan_of_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt"):
        write_text(tmp_path / name, 100, 0)
    assert main(["plan", *TEXT, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["examples"] == {"count": None, "unit": "windows"}
    sizes = {row["name"]: row["weights"] for row in shown["components"]}
    assert sizes["head"] == 768 * 768 and "pooler" not in sizes  # the transform; the decoder is the embedding table
    assert shown["disk_bytes"]["teacher's logits"] == 0
