"""What `plan` tells: counted where it can be, unknown where it cannot, and as the run will have it."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from prunebench.compose import load_config
from prunebench.config import RunConfig
from prunebench.errors import UsageError
from prunebench.facts import TrainingData, count_rows, num_labels, training_data
from prunebench.options import find_options
from prunebench.plan_view import number, percent, plan_view
from prunebench.preview import PhaseRow, Preview, component_rows, disk_bytes, phase_rows, preview, to_json

OPTIONS = find_options()


def config_of(*overrides: str) -> RunConfig:
    return load_config(["recipe=bert_smc_90", *overrides])


def preview_of(*overrides: str) -> Preview:
    return preview(config_of(*overrides), OPTIONS)


def shown(*overrides: str, width: int = 80) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(plan_view(preview_of(*overrides), console))
    return console.export_text()


# --- how many examples --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "data"),
    [
        (["dataset=sst2"], TrainingData(67349, "examples")),
        (["dataset=sst2", "dataset.limit=100"], TrainingData(100, "examples")),
        (["dataset=sst2", "dataset.holdout=349"], TrainingData(67000, "examples")),
        (["dataset=sst2", "dataset.holdout=67000", "dataset.limit=500"], TrainingData(349, "examples")),
        (["dataset=squad"], TrainingData(88524, "windows")),
        (["dataset=squad", "model=distilbert_base"], TrainingData(88524, "windows")),
        (["dataset=squad", "model=roberta_base"], TrainingData(None, "windows", "before the data are tokenised")),
        (
            ["dataset=squad", "model=hf", "model.name=a/b"],
            TrainingData(None, "windows", "before the data are tokenised"),
        ),
        (["dataset=squad", "dataset.max_length=256"], TrainingData(None, "windows", "before the data are tokenised")),
        (["dataset=squad", "dataset.limit=9"], TrainingData(None, "windows", "before the data are tokenised")),
        (["dataset=squad", "model.tokenizer=a/b"], TrainingData(None, "windows", "before the data are tokenised")),
    ],
)
def test_training_data(overrides: list[str], data: TrainingData) -> None:
    assert training_data(config_of(*overrides)) == data


ROWS = [{"sentence": f"line {i}\nof it, quoted", "label": "abc"[i % 3]} for i in range(7)]


def written(folder: Path, name: str) -> Path:
    """ROWS as a file, with line breaks inside of fields where the format allows them."""
    path = folder / name
    plain = name.removesuffix(".gz")
    if plain.endswith(".parquet"):
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
        return path
    if plain.endswith(".csv"):
        text = "sentence,label\n" + "".join(f'"{row["sentence"]}",{row["label"]}\n' for row in ROWS)
    elif plain.endswith(".tsv"):
        text = "sentence\tlabel\n" + "".join(f'a "stray quote {i}\t{row["label"]}\n' for i, row in enumerate(ROWS))
    elif plain.endswith(".jsonl"):
        text = "".join(json.dumps(row) + "\n" for row in ROWS) + "\n"
    else:
        text = json.dumps(ROWS, indent=1)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.parquet", "a.csv.gz", "a.jsonl.gz"])
def test_local_files_are_counted_by_rows_not_lines(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    assert count_rows(str(path)) == 7
    config = config_of("dataset=classification", f"dataset.train_file={path}", "dataset.holdout=2")
    assert training_data(config).count == 5
    assert num_labels(config) == (None if name.endswith("parquet") else 3)


def test_a_holdout_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv")
    with pytest.raises(UsageError, match=r"dataset\.holdout=7: train has 7 examples; take 1 to 6"):
        training_data(config_of("dataset=classification", f"dataset.train_file={path}", "dataset.holdout=7"))


def test_a_file_that_changed_is_counted_again(tmp_path: Path) -> None:
    import os

    path = tmp_path / "a.jsonl"
    path.write_text('{"label": 1}\n')
    assert count_rows(str(path)) == 1
    path.write_text('{"label": 1}\n' * 3)
    os.utime(path, (1, 1))
    assert count_rows(str(path)) == 3


@pytest.mark.real
def test_real_files_have_their_published_sizes(shared: Path) -> None:
    assert count_rows(str(shared / "data/glue/SST-2/train.tsv.gz")) == 67349
    assert count_rows(str(shared / "data/glue/SST-2/dev.tsv")) == 872


# --- phases -------------------------------------------------------------------------------------------------------


def test_phases_join_up_and_share_out_all_prunings() -> None:
    for recipe in OPTIONS["recipe"]:
        plan = preview(load_config([f"recipe={recipe}"]), OPTIONS).plan
        for longest in (0, 6, 10**9):
            rows = phase_rows(plan, longest)
            assert sum(row.prunings for row in rows) == len(plan.prunings)
            assert [row.stop for row in rows[:-1]] == [row.start for row in rows[1:]]
            released = {phase.start for phase in plan.phases if phase.release}
            for row, following in pairwise(rows):
                assert following.sparsity_from == (0.0 if row.stop in released else row.sparsity_to)
            assert rows[-1].sparsity_to == (plan.prunings[-1][1] if plan.prunings else 0)
            assert sum(row.repeat for row in rows) == len(plan.phases)


def test_the_last_pruning_belongs_to_the_phase_that_prunes() -> None:
    *pruning, recover = phase_rows(preview_of("dataset=rte").plan)
    assert [row.name for row in pruning] == ["prune"] * 4 and pruning[-1].sparsity_to == 0.9
    assert (recover.name, recover.prunings, recover.sparsity_from) == ("recover", 0, 0.9)


def test_a_one_shot_pruning_takes_no_steps() -> None:
    first, second = phase_rows(preview(load_config(["recipe=one_shot"]), OPTIONS).plan)
    assert (first.start, first.stop, first.prunings, first.sparsity_to) == (0, 0, 1, 0.9)
    assert (second.prunings, second.sparsity_from) == (0, 0.9)


def test_many_phases_of_a_kind_are_one_row() -> None:
    rows = phase_rows(preview(load_config(["recipe=gmp_star_30", "dataset=sst2"]), OPTIONS).plan)
    assert [(row.name, row.repeat) for row in rows] == [("dense", 1), ("prune", 13), ("recover", 1)]
    assert isinstance(rows[1], PhaseRow) and (rows[1].sparsity_from, rows[1].sparsity_to) == (0, 0.9)


# --- what is pruned -----------------------------------------------------------------------------------------------


def test_components_add_up_to_the_model() -> None:
    """BERT-base for two classes has 109,483,778 parameters, as its hub page and transformers count them."""
    view = preview_of("dataset=sst2")
    rows = component_rows(view)
    assert sum(row.weights or 0 for row in rows) == 109_483_778
    assert sum(row.share or 0 for row in rows) == pytest.approx(1)
    assert {row.name: row.zeros for row in rows if row.pruned} == {"encoder": 76_441_190}
    assert to_json(view)["sparsity"]["model"] == pytest.approx(76_441_190 / 109_483_778)


def test_zeros_of_several_components_are_shared_by_score() -> None:
    view = preview_of("dataset=sst2", "pruning.components=[encoder,embeddings]")
    assert {row.name: row.zeros for row in component_rows(view) if row.pruned} == {"encoder": None, "embeddings": None}
    assert to_json(view)["sparsity"]["prunable"] == pytest.approx(0.9, abs=1e-8)


def test_a_budget_from_elsewhere_counts_as_many_weights() -> None:
    view = preview_of("dataset=sst2", "pruning.components=[all]", "pruning.budget_from=[encoder]")
    sparsity = to_json(view)["sparsity"]
    everything = sum(row.weights or 0 for row in component_rows(view) if row.pruned)
    assert sparsity["prunable"] == 76_441_190 / everything
    assert sparsity["model"] == pytest.approx(76_441_190 / 109_483_778)


def test_a_dense_run_has_no_zeros() -> None:
    view = preview(load_config(["recipe=dense", "dataset=sst2"]), OPTIONS)
    assert (view.dense_epochs, to_json(view)["sparsity"]["model"]) == (None, 0.0)
    assert not any(row.pruned for row in component_rows(view))


# --- what is not known --------------------------------------------------------------------------------------------


def test_an_unknown_model_is_said_to_be_unknown() -> None:
    values: dict[str, Any] = to_json(preview_of("model=hf", "model.name=a/b"))
    for key in ("steps", "plan", "disk_bytes"):
        assert values[key] is None
    assert values["examples"]["count"] is None and values["sparsity"]["model"] is None and values["components"] == []
    assert values["epochs"] == 10.0 and values["prunings"] == 81  # ten an epoch for eight epochs, and the last one
    text = shown("model=hf", "model.name=a/b")
    assert "steps unknown" in text and "unknown before the model is read" in text


def test_epochs_do_not_depend_on_the_stand_in() -> None:
    known, unknown = preview_of("dataset=squad"), preview_of("dataset=squad", "dataset.max_length=256")
    assert known.plan.epochs == unknown.plan.epochs
    levels = [round(level, 3) for _, level in unknown.plan.prunings]
    assert levels == [round(level, 3) for _, level in known.plan.prunings]


def test_prunings_by_steps_are_unknown_without_steps() -> None:
    config = load_config(["recipe=smc_bench_gmp", "model=hf", "model.name=a/b"])
    assert to_json(preview(config, OPTIONS))["prunings"] is None


def test_a_schedule_that_does_not_fit_the_data_is_refused() -> None:
    with pytest.raises(UsageError, match="prunings_per_epoch=10, but an epoch has only 4 steps"):
        preview_of("dataset=sst2", "dataset.limit=100")


# --- cost ---------------------------------------------------------------------------------------------------------


def test_disk_is_weights_moments_masks_teacher_and_logits() -> None:
    weights, masks = 109_483_778, 84_934_656
    assert disk_bytes(preview_of("dataset=sst2")) == {
        "checkpoints": 3 * (3 * 4 * weights + masks),
        "model": 4 * weights,
        "masks": masks,
        "dense model": 4 * weights + masks,
        "teacher's logits": 67349 * 2 * 4,
    }


def test_logits_beyond_the_budget_are_not_kept() -> None:
    small = disk_bytes(preview_of("dataset=sst2", "distillation.cache_gb=0.0005"))
    assert small and small["teacher's logits"] == 0
    lengths_unknown = disk_bytes(preview_of("dataset=squad", "distillation.cache_gb=0.001"))
    assert lengths_unknown and lengths_unknown["teacher's logits"] == 1_000_000
    none = disk_bytes(preview_of("dataset=squad", "distillation=none"))
    assert none and none["teacher's logits"] == 0


# --- how it looks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("recipe", sorted(OPTIONS["recipe"]))
def test_every_plan_fits_the_terminal(recipe: str, width: int) -> None:
    text = shown(f"recipe={recipe}", width=width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "phase" in text and "whole model" in text


def test_the_plan_says_what_is_a_reconstruction() -> None:
    assert "reconstruction" in shown("dataset=sst2")
    assert "reconstruction" not in shown("recipe=one_shot")


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("recipe=obert", "method obert, scope global, unstructured, update obs"),
        ("recipe=sparsegpt_2_4", "method sparsegpt, scope uniform, 2:4 "),
        ("recipe=rigl", "scope erk, unstructured, regrowth rigl"),
        ("recipe=perp", "unstructured, adapters of rank 16 (mask) learn beside biases and norms"),
        ("recipe=sparse_transfer_linear", "on sst2, its zeros kept, seed 1"),
        ("recipe=sparse_transfer_linear", "method the head alone learns"),
        ("recipe=sparse_transfer_linear", "sparsity that of the model it starts from"),
    ],
)
def test_the_plan_says_which_method(recipe: str, words: str) -> None:
    assert words in " ".join(shown(recipe, width=120).split())
    assert "  method " not in shown("recipe=dense")


@pytest.mark.parametrize(("value", "text"), [(0.9, "90 %"), (0.7006, "70.06 %"), (0.0, "0 %"), (0.97, "97 %")])
def test_percent(value: float, text: str) -> None:
    assert percent(value) == text


@pytest.mark.parametrize(("value", "text"), [(8.0, "8"), (2.25, "2.25"), (0.7, "0.7"), (0.004, "0.004"), (0, "0")])
def test_number(value: float, text: str) -> None:
    assert number(value) == text
