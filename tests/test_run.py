"""The whole flow on a tiny BERT: teacher, distillation, pruning, export, checks, and going on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from prunebench import train
from prunebench.errors import RunError, UsageError
from prunebench.paths import RunFolder
from prunebench.run import evaluate_folder, run
from tests.tiny import GUIDELINES, tiny_config

torch.set_num_threads(1)


def folder_of(result: dict[str, Any], outputs: Path) -> RunFolder:
    return RunFolder(outputs / "outputs" / result["name"] / result["digest"])


def sha(folder: RunFolder) -> dict[str, str]:
    files = [folder.masks, folder.predictions, folder.model / "model.safetensors"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def train_rows(folder: RunFolder) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    return [row for row in rows if "loss" in row]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    place = tmp_path_factory.mktemp("finished")
    return run(tiny_config(place)), place


def test_a_run_leaves_what_others_rely_on(finished: tuple[dict[str, Any], Path]) -> None:
    result, place = finished
    folder = folder_of(result, place)
    for name in ("config.yaml", "plan.json", "metrics.jsonl", "predictions.jsonl", "result.json", "masks.safetensors"):
        assert (folder.root / name).is_file(), name
    assert not folder.state.exists()  # checkpoints are gone once the run is finished
    assert json.loads(folder.result.read_text()) == result
    expected = {"status", "recipe", "seed", "metric", "metrics", "dense", "recovery", "sparsity", "seconds"}
    assert expected | {"environment", "schema"} <= result.keys()
    assert result["status"] == "finished"
    assert result["recovery"] == result["metric"]["value"] / result["dense"]["value"]
    assert result["dense"]["value"] > 0.75  # the task can be learned: chance is a half
    assert len(folder.predictions.read_text().splitlines()) == 40


def test_sparsity_is_exact_and_recounted_without_us(finished: tuple[dict[str, Any], Path]) -> None:
    result, place = finished
    folder = folder_of(result, place)
    model = AutoModelForSequenceClassification.from_pretrained(folder.model)
    encoder = [
        module.weight for name, module in model.named_modules() if "encoder.layer" in name and hasattr(module, "weight")
    ]
    matrices = [weight for weight in encoder if weight.ndim == 2]
    total = sum(weight.numel() for weight in matrices)
    assert total == 2 * (4 * 16 * 16 + 2 * 16 * 32)
    zeros = sum(int((weight == 0).sum()) for weight in matrices)
    assert zeros == round(0.75 * total)
    assert result["sparsity"]["prunable"] == zeros / total
    everything = sum(p.numel() for p in model.parameters())
    assert result["weights"]["model"] == everything
    assert result["sparsity"]["model"] == 1 - sum(int(p.count_nonzero()) for p in model.parameters()) / everything
    assert (folder.model / "README.md").read_text().startswith("---\nlibrary_name: transformers")
    assert model.config.id2label == {0: "negative", 1: "positive"}


def test_predictions_are_those_of_the_exported_model(finished: tuple[dict[str, Any], Path]) -> None:
    from transformers import pipeline

    result, place = finished
    folder = folder_of(result, place)
    classify = pipeline("text-classification", model=str(folder.model), device="cpu")
    lines = (place / "validation.csv").read_text().splitlines()[1:]
    answers = classify([line.rsplit(",", 1)[0] for line in lines])
    right = [answer["label"] == line.rsplit(",", 1)[1] for answer, line in zip(answers, lines, strict=True)]
    assert sum(right) / len(right) == result["metric"]["value"]


def test_every_step_stands_once_in_the_log(finished: tuple[dict[str, Any], Path]) -> None:
    result, place = finished
    rows = train_rows(folder_of(result, place))
    assert [row["step"] for row in rows] == list(range(96))  # 256 / 8 steps, three units
    assert {"task_loss", "distillation_loss", "lr", "sparsity", "grad_norm", "phase"} <= rows[0].keys()
    assert rows[0]["sparsity"] == 0.375 and rows[-1]["sparsity"] == 0.75


def test_a_finished_run_is_skipped_and_force_redoes_it(finished: tuple[dict[str, Any], Path]) -> None:
    result, place = finished
    folder = folder_of(result, place)
    before, when = sha(folder), folder.result.stat().st_mtime_ns
    assert run(tiny_config(place)) == result
    assert folder.result.stat().st_mtime_ns == when
    run(tiny_config(place), force=True)
    assert folder.result.stat().st_mtime_ns > when
    assert sha(folder) == before


def test_the_teacher_is_trained_once_for_all_that_want_it(finished: tuple[dict[str, Any], Path]) -> None:
    result, place = finished
    dense = list((place / "outputs" / "dense").glob("*/result.json"))
    assert len(dense) == 1
    when = dense[0].stat().st_mtime_ns
    other = run(tiny_config(place, sparsity=0.5))
    assert other["dense"] == result["dense"]
    assert dense[0].stat().st_mtime_ns == when
    assert other["digest"] != result["digest"]


def test_a_dense_run_is_the_teacher_that_others_find(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, name="dense", recipe="dense", sparsity=0.0, start="pretrained")
    config.pruning = type(config.pruning)()
    config.distillation.hardness = 0.0
    dense = run(config)
    assert dense["recovery"] == 1 and dense["sparsity"]["target"] == 0
    assert run(tiny_config(tmp_path))["dense"]["folder"].endswith(dense["digest"])


@pytest.mark.parametrize("stop_at", [1, 32, 33, 64, 90, 96])
def test_a_stopped_run_ends_in_the_same_files(
    finished: tuple[dict[str, Any], Path], tmp_path: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM in the middle of an update: the update is finished, saved, and the next call goes on from there."""
    original, calls = train._update, []

    def update(job: Any, *args: Any) -> Any:
        if "tiny" in job.title:
            calls.append(1)
            if len(calls) == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
        return original(job, *args)

    monkeypatch.setattr(train, "_update", update)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_config(tmp_path))
    result = run(tiny_config(tmp_path))
    assert len(calls) == 96  # none was made twice
    undisturbed, place = finished
    assert sha(folder_of(result, tmp_path)) == sha(folder_of(undisturbed, place))
    assert [row["step"] for row in train_rows(folder_of(result, tmp_path))] == list(range(96))


def test_a_killed_run_goes_on_from_its_checkpoint(
    finished: tuple[dict[str, Any], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No handler runs: what was logged after the checkpoint is taken back and made again."""
    original, calls = train._update, []

    def update(job: Any, *args: Any) -> Any:
        if "tiny" in job.title:
            calls.append(1)
            if len(calls) == 60:
                raise SystemExit("killed")
        return original(job, *args)

    monkeypatch.setattr(train, "_update", update)
    with pytest.raises(SystemExit):
        run(tiny_config(tmp_path, trainer__checkpoint_steps=25))
    result = run(tiny_config(tmp_path, trainer__checkpoint_steps=25))
    assert len(calls) == 60 + 96 - 50
    undisturbed, place = finished
    assert sha(folder_of(result, tmp_path)) == sha(folder_of(undisturbed, place))
    assert [row["step"] for row in train_rows(folder_of(result, tmp_path))] == list(range(96))


def test_stopping_after_the_last_update_loses_no_pruning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the window ends with training, the last pruning comes after the last update."""
    schedule = type(GUIDELINES)(phases=[type(GUIDELINES.phases[0])(prune=True)], initial_fraction=0.5)
    original, calls = train._update, []

    def update(job: Any, *args: Any) -> Any:
        if "tiny" in job.title:
            calls.append(1)
            if len(calls) == 32:
                os.kill(os.getpid(), signal.SIGTERM)
        return original(job, *args)

    monkeypatch.setattr(train, "_update", update)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_config(tmp_path, pruning__schedule=schedule))
    assert run(tiny_config(tmp_path, pruning__schedule=schedule))["sparsity"]["prunable"] == 0.75


def test_dropout_is_active_in_training_and_not_in_scoring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, modes = train._update, set()

    def update(job: Any, model: Any, *args: Any) -> Any:
        modes.add((job.model.training, model.training))
        return original(job, model, *args)

    monkeypatch.setattr(train, "_update", update)
    with_dropout = run(tiny_config(tmp_path, name="a", trainer__dropout=0.3, trainer__max_steps=9))
    without = run(tiny_config(tmp_path, name="b", trainer__dropout=0.0, trainer__max_steps=9))
    assert modes == {(True, True)}
    losses = [train_rows(folder_of(result, tmp_path))[0]["loss"] for result in (with_dropout, without)]
    assert losses[0] != losses[1]


def test_rows_stand_in_the_order_of_their_steps(finished: tuple[dict[str, Any], Path]) -> None:
    """wandb drops a row that comes after one of a later step."""
    result, place = finished
    rows = [json.loads(line) for line in folder_of(result, place).metrics.read_text().splitlines()]
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    assert any("pruning" in row for row in rows) and any("eval" in row for row in rows)


def test_a_body_without_a_head_neither_starts_nor_teaches(tmp_path: Path) -> None:
    body = str(tmp_path / "pretrained")
    with pytest.raises(UsageError, match=r"start=.* has no head"):
        run(tiny_config(tmp_path, start=body))
    with pytest.raises(UsageError, match=r"distillation.teacher=.* has no head"):
        run(tiny_config(tmp_path, distillation__teacher=body))


def test_whatever_fails_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(train, "save_checkpoint", full)
    with pytest.raises(RunError, match=r"outputs: No space left on device \(\d+.\d GB free\): make room"):
        run(tiny_config(tmp_path))
    result = json.loads(next((tmp_path / "outputs").glob("dense/*/result.json")).read_text())
    assert (result["status"], "No space left" in result["reason"]) == ("failed", True)


def test_nan_stops_the_run_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunebench.run.check", lambda config: None)  # which refuses such a learning rate
    config = tiny_config(tmp_path, trainer__lr=1e30, trainer__final_lr=1e30, trainer__max_grad_norm=0.0)
    with pytest.raises(RunError, match=r"(at step \d+|are not finite)"):
        run(config)
    assert json.loads(next((tmp_path / "outputs" / "dense").glob("*/result.json")).read_text())["status"] == "failed"


def test_n_m_groups_hold_in_the_saved_model(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, sparsity=0.5, pruning__pattern__name="n_m", pruning__pattern__n=2)
    config.pruning.pattern.m = 4
    result = run(config)
    weights = load_file(folder_of(result, tmp_path).model / "model.safetensors")
    for name, weight in weights.items():
        if "encoder.layer" in name and weight.ndim == 2:
            assert (weight.reshape(-1, 4) != 0).sum(1).max() <= 2, name
    assert result["sparsity"]["prunable"] == 0.5


def test_the_benchmarks_way_leaves_as_many_weights_but_takes_them_everywhere(tmp_path: Path) -> None:
    guided = run(tiny_config(tmp_path))
    everywhere = run(
        tiny_config(
            tmp_path, name="bench", pruning__components=["all"], pruning__budget_from=["encoder"], start="pretrained"
        )
    )
    padding_row = 16  # zero from the start: the guidelines leave it alone, the other way counts it among its zeros
    assert everywhere["weights"]["model_nonzero"] == guided["weights"]["model_nonzero"] + padding_row
    assert set(everywhere["sparsity"]["components"]) == {"encoder", "pooler", "embeddings", "head"}
    assert everywhere["sparsity"]["components"]["encoder"] < 0.75


def test_one_shot_without_training(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    config.pruning.schedule = type(GUIDELINES)(phases=[type(GUIDELINES.phases[0])(epochs=0, prune=True)])
    config.distillation.hardness = 0.0
    result = run(config)
    assert result["training"]["steps"] == 0
    assert result["sparsity"]["prunable"] == 0.75


def test_best_weights_are_chosen_at_the_final_sparsity_only(tmp_path: Path) -> None:
    result = run(tiny_config(tmp_path, trainer__keep="best", trainer__eval_every=0.5))
    assert result["metric"]["weights"] == "best"
    assert result["training"]["best"]["step"] > 64  # the last pruning
    assert result["training"]["best"]["value"] == result["metric"]["value"]
    assert result["sparsity"]["prunable"] == 0.75


def test_a_fine_tuned_folder_keeps_its_head_labels_and_skips_the_dense_unit(tmp_path: Path) -> None:
    tuned = folder_of(run(tiny_config(tmp_path, name="dense-elsewhere", sparsity=0.5)), tmp_path).model
    swapped = tmp_path / "tuned"
    swap_labels(tuned, swapped)
    config = tiny_config(tmp_path, start=str(swapped), model__name=str(swapped))
    result = run(config)
    dense = json.loads((Path(result["dense"]["folder"]) / "result.json").read_text())
    assert dense["training"]["steps"] == 0
    assert dense["metric"]["value"] == json.loads((tuned.parent / "result.json").read_text())["metric"]["value"]
    model = AutoModelForSequenceClassification.from_pretrained(folder_of(result, tmp_path).model)
    assert model.config.id2label == {0: "Positive", 1: "Negative"}


def test_numbers_stand_for_a_models_own_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(tiny_config(tmp_path, sparsity=0.5))
    tuned = str(folder_of(first, tmp_path).model)
    for name in ("train.csv", "validation.csv"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace(",negative", ",0").replace(",positive", ",1"))
    result = run(tiny_config(tmp_path, name="numbers", start=tuned, model__name=tuned))
    assert result["dense"]["value"] == first["metric"]["value"]
    assert "does not name its outputs" not in capsys.readouterr().err
    model = AutoModelForSequenceClassification.from_pretrained(folder_of(result, tmp_path).model)
    assert model.config.id2label == {0: "negative", 1: "positive"}


def test_outputs_without_names_are_told_and_a_wrong_order_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = folder_of(run(tiny_config(tmp_path, sparsity=0.5)), tmp_path).model
    swap_labels(tuned, tmp_path / "swapped")
    settings = json.loads((tmp_path / "swapped" / "config.json").read_text())
    settings["id2label"], settings["label2id"] = {"0": "LABEL_0", "1": "LABEL_1"}, {"LABEL_0": 0, "LABEL_1": 1}
    (tmp_path / "swapped" / "config.json").write_text(json.dumps(settings))
    run(tiny_config(tmp_path, start=str(tmp_path / "swapped"), model__name=str(tmp_path / "swapped")))
    told = capsys.readouterr().err
    assert "they are taken for 0 = negative, 1 = positive (dataset.labels=[...] changes that)" in told
    assert "no better than chance: do its outputs stand for negative, positive, in this order?" in told


def swap_labels(source: Path, target: Path) -> None:
    """The same model with its two outputs, and their names, in the other order."""
    import shutil

    shutil.copytree(source, target)
    settings = json.loads((target / "config.json").read_text())
    settings["id2label"], settings["label2id"] = {"0": "Positive", "1": "Negative"}, {"Positive": 0, "Negative": 1}
    (target / "config.json").write_text(json.dumps(settings))
    weights = load_file(target / "model.safetensors")
    weights = {name: t.flip(0) if name.startswith("classifier") else t for name, t in weights.items()}
    save_file({name: t.contiguous() for name, t in weights.items()}, target / "model.safetensors", {"format": "pt"})


def test_another_teachers_labels_are_remapped_by_name(tmp_path: Path) -> None:
    first = folder_of(run(tiny_config(tmp_path, name="first", sparsity=0.5)), tmp_path).model
    swap_labels(first, tmp_path / "swapped")
    one = run(tiny_config(tmp_path, name="one", distillation__teacher=str(first)))
    other = run(tiny_config(tmp_path, name="other", distillation__teacher=str(tmp_path / "swapped")))
    assert sha(folder_of(one, tmp_path)) == sha(folder_of(other, tmp_path))


def test_a_teacher_with_other_labels_or_tokens_is_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    teacher = folder_of(run(config), tmp_path).model
    vocabulary = json.loads((teacher / "tokenizer.json").read_text())
    vocabulary["model"]["vocab"]["extra"] = len(vocabulary["model"]["vocab"])
    (teacher / "tokenizer.json").write_text(json.dumps(vocabulary))
    with pytest.raises(UsageError, match="another tokenizer"):
        run(tiny_config(tmp_path, name="again", distillation__teacher=str(teacher)))


def test_the_online_teacher_says_what_the_cached_one_does(tmp_path: Path) -> None:
    cached = run(tiny_config(tmp_path))
    online = run(tiny_config(tmp_path, name="online", distillation__cache_gb=0.0))
    ours, theirs = (train_rows(folder_of(result, tmp_path)) for result in (cached, online))
    assert [row["distillation_loss"] for row in ours] == pytest.approx(
        [row["distillation_loss"] for row in theirs], rel=1e-3, abs=1e-5
    )


def test_accumulation_computes_the_same_batch_in_parts(tmp_path: Path) -> None:
    # Adam divides by the gradient's size: without a large eps it would turn rounding errors into steps
    settings = {"trainer__dropout": 0.0, "trainer__eps": 1e-3, "sparsity": 0.5}
    whole = run(tiny_config(tmp_path, name="whole", **settings))
    parts = run(tiny_config(tmp_path, name="parts", trainer__accumulation=4, **settings))
    ours, theirs = (load_file(folder_of(result, tmp_path).model / "model.safetensors") for result in (whole, parts))
    for name, weight in ours.items():
        assert torch.allclose(weight, theirs[name], atol=1e-4), name


def test_bf16_runs(tmp_path: Path) -> None:
    result = run(tiny_config(tmp_path, trainer__precision="bf16"))
    assert result["environment"]["precision"] == "bf16"
    assert result["sparsity"]["prunable"] == 0.75


def test_a_folder_can_be_scored_again(finished: tuple[dict[str, Any], Path]) -> None:
    result, place = finished
    folder = folder_of(result, place)
    again = evaluate_folder(folder.root)
    assert again["metric"]["value"] == result["metric"]["value"]
    assert again["sparsity"]["components"]["encoder"] == 0.75
    assert again["masked_weights_are_zero"]
    plain = evaluate_folder(folder.model, tiny_config(place))
    assert plain["metrics"] == result["metrics"]


def test_a_body_without_a_head_is_not_scored(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    with pytest.raises(UsageError, match="has no head for tiny"):
        evaluate_folder(tmp_path / "pretrained", config)


def test_a_model_that_lost_its_zeros_fails(tmp_path: Path) -> None:
    folder = folder_of(run(tiny_config(tmp_path)), tmp_path)
    weights = load_file(folder.model / "model.safetensors")
    name = next(name for name in weights if "encoder.layer.0" in name and weights[name].ndim == 2)
    weights[name][weights[name] == 0] = 1e-3
    save_file(weights, folder.model / "model.safetensors", {"format": "pt"})
    with pytest.raises(RunError, match=rf"\d+ pruned weights of {name} are not zero"):
        evaluate_folder(folder.root)


def test_wandb_mirrors_the_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    result = run(tiny_config(tmp_path, tracker__name="wandb"))
    folder = folder_of(result, tmp_path).root
    assert result["wandb"] == f"wandb sync {folder}/wandb/offline-run-*"
    assert len(list(folder.glob(f"wandb/offline-run-*/run-{result['digest']}-*.wandb"))) == 1
