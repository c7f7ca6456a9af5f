"""Sequence to sequence through the whole flow, on tiny encoder-decoders; SVAMP itself, and the command line."""

from __future__ import annotations

import gzip
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM

from prunebench import train
from prunebench.cli import main
from prunebench.config import PhaseConfig, PruningConfig, ScheduleConfig
from prunebench.run import run
from prunebench.scoring import evaluate_folder
from prunebench.targets import find_targets
from prunebench.tasks.equations import value_of
from tests.pairs import FAMILIES, pairs_config
from tests.reading import rows_of
from tests.test_methods_runs import folder_of, sums

torch.set_num_threads(1)


@pytest.fixture(scope="module", params=FAMILIES)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    place = tmp_path_factory.mktemp(request.param)
    return run(pairs_config(place, request.param)), place


def test_what_a_run_leaves(finished: tuple[dict[str, Any], Path]) -> None:
    result, place = finished
    folder = folder_of(result, place)
    assert set(result["metrics"]) == {"answer_accuracy", "bleu", "chrf"}
    assert result["dense"]["value"] > 0.1  # by chance one in 19
    assert "version:" in result["metric"]["signatures"]["bleu"]
    lines = [json.loads(line) for line in folder.predictions.read_text().splitlines()]
    right = [value_of(line["prediction"]) == value_of(line["target"]) for line in lines]
    assert [line["correct"] for line in lines] == right and len(lines) == 40
    assert result["metric"]["value"] == sum(right) / 40
    weights = [target.weight for target in find_targets(AutoModelForSeq2SeqLM.from_pretrained(folder.model))]
    assert sum(int((weight == 0).sum()) for weight in weights) == 0.75 * sum(weight.numel() for weight in weights)
    assert evaluate_folder(folder.root)["metrics"] == pytest.approx(result["metrics"])
    assert all(row["distillation_loss"] > -1e-6 for row in rows_of(folder) if "loss" in row)


def test_a_killed_run_ends_in_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With distillation of the layers' outputs too, which are the decoder's."""
    settings = {"distillation__hidden": "squarehead", "trainer__max_steps": 24, "trainer__checkpoint_steps": 10}
    undisturbed = run(pairs_config(tmp_path / "one", **settings))
    original, calls = train._update, []

    def update(job: Any, *args: Any) -> Any:
        if "tiny" in job.title:
            calls.append(1)
            if len(calls) == 15:
                raise SystemExit("killed")
        return original(job, *args)

    monkeypatch.setattr(train, "_update", update)
    with pytest.raises(SystemExit):
        run(pairs_config(tmp_path / "two", **settings))
    again = run(pairs_config(tmp_path / "two", **settings))
    assert sums(folder_of(again, tmp_path / "two")) == sums(folder_of(undisturbed, tmp_path / "one"))


def test_accumulation_weighs_parts_by_their_tokens(tmp_path: Path) -> None:
    """Targets of different lengths in a batch: a mean of the means of its parts would be something else."""
    settings = {"trainer__dropout": 0.0, "trainer__eps": 1e-3, "trainer__max_steps": 9, "sparsity": 0.5}
    rows = ["one plus zero\t( ( 1 + 0 ) * 1 )" if i % 3 else "two plus two\t4" for i in range(120)]
    results = []
    for name, parts in (("whole", 1), ("parts", 4)):
        config = pairs_config(tmp_path, "bart", name=name, trainer__accumulation=parts, **settings)
        (tmp_path / "a.tsv").write_text("\n".join(["source\ttarget", *rows]) + "\n")
        config.dataset.max_target_length = 12
        results.append(run(config))
    ours, theirs = (load_file(folder_of(result, tmp_path).model / "model.safetensors") for result in results)
    assert all(torch.allclose(weight, theirs[name], atol=1e-4) for name, weight in ours.items())


def test_bf16_learns_and_generates(tmp_path: Path) -> None:
    result = run(pairs_config(tmp_path, trainer__precision="bf16", trainer__max_steps=9))
    assert result["environment"]["precision"] == "bf16" and result["sparsity"]["prunable"] == 0.75


@pytest.mark.parametrize("criterion", ["wanda", "obert"])
def test_pairs_calibrate_one_shot_pruning(criterion: str, tmp_path: Path) -> None:
    config = pairs_config(tmp_path, "bart", distillation__hardness=0.0, sparsity=0.5)
    config.pruning = PruningConfig(schedule=ScheduleConfig(phases=[PhaseConfig(name="prune", epochs=0, prune=True)]))
    config.pruning.criterion.name = criterion
    config.pruning.scope.name = "row" if criterion == "wanda" else "global"
    config.pruning.calibration.examples = 32
    assert run(config)["sparsity"]["prunable"] == pytest.approx(0.5, abs=0.01)


PAIRS = ["recipe=bert_smc_90", "model=t5_small", "dataset=translation", "dataset.validation_file=a.tsv"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["dataset.train_file=b.tsv"], "b.tsv, line 3: 'target' is empty"),
        (
            ["dataset.train_file=a.tsv", "model=bert_base"],
            "needs an encoder-decoder, which google-bert/bert-base",
        ),
        (["dataset.train_file=a.tsv", "dataset.metric=answer_accuracy"], "a.tsv, line 2: 'eins' is no equation"),
        (["dataset.train_file=a.tsv", "dataset.text_columns=[src]"], "has no column 'src'"),
        (["dataset.train_file=a.tsv", "dataset.metric=accuracy"], "'accuracy' is no metric for sequence_to_sequence"),
        (["dataset.train_file=a.tsv", "distillation.temperature=auto"], "too many over a vocabulary"),
        (["dataset.train_file=a.tsv", "dataset.max_target_length=0"], "dataset.max_target_length=0: must be in [1,"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    more: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tsv").write_text("source\ttarget\none\teins\ntwo\tzwei\n" * 1)
    (tmp_path / "b.tsv").write_text("source\ttarget\none\teins\ntwo\t\n")
    assert main(["plan", *PAIRS, *more]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert any(says in line for line in lines), lines


@pytest.mark.real
def test_svamp(tmp_path: Path, shared: Path) -> None:
    """Every equation but one has the value of the published answer; a few steps from them, end to end."""
    source = shared / "data" / "math_word_problems" / "SVAMP.json.gz"
    rows = json.loads(gzip.decompress(source.read_bytes()))
    values = [value_of(row["Equation"]) for row in rows]
    assert all(value is not None for value in values) and len(values) == 1000
    wrong = [row["ID"] for row, value in zip(rows, values, strict=True) if abs(value - Fraction(row["Answer"])) > 0.01]
    assert wrong == ["chal-680"]  # published so: ( ( 4.0 - 2.0 ) + 3.0 ), answer 1
    config = pairs_config(tmp_path, trainer__max_steps=6, trainer__batch_size=16)
    config.dataset.text_columns, config.dataset.label_column = ["Body", "Question"], "Equation"
    config.dataset.train_file, config.dataset.validation_file = str(source), None
    config.dataset.holdout, config.dataset.max_length, config.dataset.metrics = 40, 40, []
    result = run(config)
    assert result["training"]["examples"] == 960 and result["metrics"].keys() == {"answer_accuracy"}
    assert result["sparsity"]["prunable"] == 0.75
