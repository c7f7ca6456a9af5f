"""`prunebench compare`: what is grouped, what is kept apart, what the numbers are, and in which forms they come."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import yaml
from rich.console import Console

from prunebench.cli import main
from prunebench.compare import Comparison, compare, group_runs, load_runs, paired_interval, render, select
from prunebench.errors import UsageError
from prunebench.results import evaluated_on
from prunebench.run import run
from prunebench.sweep_record import MemberRecord, SweepFolder, SweepRecord, sweeps_dir
from tests.comparing import finished_run, predicted
from tests.tiny import tiny_config

Tell = Callable[..., str]
SEEDS = (1, 2, 3)


def hits(share: float, seed: int, examples: int = 200) -> list[int]:
    """Right on about such a share of examples, which are as hard for every model."""
    ease = np.random.default_rng(0).random(examples)
    noise = np.random.default_rng(100 * seed + int(100 * share)).normal(0, 0.1, examples)
    return [int(value) for value in ease + noise < share]


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three seeds of dense, a good and a bad method, and one of a third, in ./outputs."""
    monkeypatch.chdir(tmp_path)
    folder = Path("outputs")
    for seed in SEEDS:
        dense = finished_run(folder, hits(0.9, seed), name="dense", seed=seed, sparsity=0.0)
        finished_run(folder, hits(0.85, seed), name="good", seed=seed, dense=dense)
        finished_run(folder, hits(0.6, seed), name="bad", seed=seed, dense=dense)
        if seed == 1:
            finished_run(folder, hits(0.7, seed), name="new", seed=seed, dense=dense)
    return folder


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Tell:
    """What `prunebench compare` prints."""

    def tell(*words: str, status: int = 0) -> str:
        assert main(["compare", *words]) == status
        captured = capsys.readouterr()
        return captured.out if status == 0 else captured.err

    return tell


def rows_of(comparison: Comparison) -> dict[str, Any]:
    (table,) = comparison.tables
    return {row.group.name: row for row in table.rows}


# --- runs and groups ----------------------------------------------------------------------------------------------


def test_only_finished_runs_are_read_and_damaged_ones_are_named(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (("cut", '{"status": "fin'), ("odd", '{"status": "finished"}'), ("list", "[1]")):
        folder = finished_run(outputs, name=name)
        (folder / "result.json").write_text(text)
    finished_run(outputs, name="busy", status="running")
    (finished_run(outputs, name="gone") / "result.json").unlink()
    assert {run.name for run in load_runs(outputs)} == {"dense", "good", "bad", "new"}
    warnings = capsys.readouterr().err.splitlines()
    assert [re.search(r"outputs/(\w+)/", line)[1] for line in warnings] == ["cut", "list", "odd"]  # type: ignore[index]


@pytest.mark.parametrize("old", [False, True])
def test_groups_are_everything_but_the_seed(tmp_path: Path, old: bool) -> None:
    for seed in SEEDS:
        finished_run(tmp_path, name="a", seed=seed, settings={"trainer.lr": 1e-4}, old=old)
        finished_run(tmp_path, name="a", seed=seed, settings={"trainer.lr": 2e-4}, old=old)
    groups = group_runs(load_runs(tmp_path))
    assert [list(group.seeds) for group in groups] == [[1, 2, 3], [1, 2, 3]]
    assert {group.settings["trainer.lr"] for group in groups} == {1e-4, 2e-4}


def test_runs_of_an_earlier_version_join_their_group_and_their_data(tmp_path: Path) -> None:
    finished_run(tmp_path, seed=1)
    finished_run(tmp_path, seed=2, old=True)
    finished_run(tmp_path, seed=3, old=True, settings={"outputs": "elsewhere", "trainer.log_every": 7})
    (group,) = group_runs(load_runs(tmp_path))
    assert list(group.seeds) == [1, 2, 3] and group.bench.content.startswith("texts ")


def test_what_an_earlier_version_did_not_know_is_its_default(tmp_path: Path) -> None:
    phases = {"pruning.schedule.phases": [{"name": "prune", "epochs": 0, "prune": True}, {"name": "recover"}]}
    finished_run(tmp_path, seed=1, settings=phases)
    for seed, kind in ((2, "mask"), (3, "scale")):
        path = finished_run(tmp_path, seed=seed, settings=phases, old=True) / "config.yaml"
        config = yaml.safe_load(path.read_text())
        del config["pruning"]["dropout"], config["pruning"]["schedule"]["phases"][0]["train"]
        config["pruning"]["adapters"] = {"kind": kind}
        path.write_text(yaml.safe_dump(config))
    groups = group_runs(load_runs(tmp_path))
    assert sorted(list(group.seeds) for group in groups) == [[1, 2], [3]]


def test_an_earlier_run_that_could_be_of_two_groups_stays_by_itself(tmp_path: Path) -> None:
    for content in ("texts", "others"):
        finished_run(tmp_path, seed=1, content=content)
    finished_run(tmp_path, seed=2, old=True)
    groups = group_runs(load_runs(tmp_path))
    assert sorted(list(group.seeds) for group in groups) == [[1], [1], [2]]
    assert len({group.bench for group in groups}) == 3


def test_the_same_run_under_two_names_counts_once(tmp_path: Path) -> None:
    finished_run(tmp_path, name="a", digest="0123456789ab", group="g")
    finished_run(tmp_path, name="b", digest="0123456789ab", group="g")
    (group,) = group_runs(load_runs(tmp_path))
    assert len(group.runs) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["good"], {"good"}),
        (["go*/*", "new"], {"good", "new"}),
        (["outputs/ba*/*"], {"bad"}),
        (["./outputs/bad/*"], {"bad"}),
        (["outputs/good", "outputs/bad/"], {"good", "bad"}),
        (["outputs"], {"good", "bad", "new", "dense"}),
        ([], {"good", "bad", "new", "dense"}),
    ],
)
def test_runs_are_found_by_what_a_user_types(outputs: Path, words: list[str], expected: set[str]) -> None:
    found = select(words, outputs)
    assert {run.name for run in found} == expected and len({run.digest for run in found}) == len(found)


def test_runs_are_found_by_folder_and_digest(outputs: Path) -> None:
    (one, *_) = select(["good"], outputs)
    assert one.folder is not None
    assert [r.digest for r in select([str(one.folder.root)], "nowhere")] == [one.digest]
    assert [r.digest for r in select([one.digest[:8]], outputs)] == [one.digest]
    assert [r.digest for r in select([one.digest, "good/" + one.digest], outputs)] == [one.digest]


def test_words_that_name_nothing_are_all_told(outputs: Path) -> None:
    finished_run(outputs, name="busy", status="running")
    with pytest.raises(UsageError) as error:
        select(["goood", "busy", "", "good"], outputs)
    first, second, third = str(error.value).splitlines()
    assert "did you mean 'good'" in first and "busy: not finished" in second and "no run in outputs/" in third


# --- numbers ------------------------------------------------------------------------------------------------------


def test_every_number_is_what_its_name_says(outputs: Path) -> None:
    rows = rows_of(compare(load_runs(outputs), baseline="good"))
    scores = {name: [np.mean(hits(share, seed)) for seed in SEEDS] for name, share in
              (("dense", 0.9), ("good", 0.85), ("bad", 0.6))}  # fmt: skip
    bad = rows["bad"]
    assert (bad.score.mean, bad.score.std) == pytest.approx((np.mean(scores["bad"]), np.std(scores["bad"], ddof=1)))
    assert bad.recovery == pytest.approx(np.mean(np.divide(scores["bad"], scores["dense"])))
    for difference, other in ((bad.to_dense, "dense"), (bad.to_baseline, "good")):
        apart = np.subtract(scores["bad"], scores[other])
        theirs = scipy.stats.ttest_rel(scores["bad"], scores[other]).confidence_interval(0.95)
        assert difference.interval.mean == pytest.approx(np.mean(apart))
        assert (difference.interval.low, difference.interval.high) == pytest.approx((theirs.low, theirs.high))
    assert rows["new"].to_baseline.interval.low is None and rows["new"].to_baseline.interval.pairs == 1
    assert rows["good"].to_baseline is None and rows["dense"].to_dense is None


def test_one_pair_is_tested_as_mcnemar_did_and_a_column_corrected_as_holm_did(outputs: Path) -> None:
    rows = rows_of(compare(load_runs(outputs), baseline="good"))
    one, other = np.array(hits(0.7, 1)), np.array(hits(0.85, 1))
    better, worse = int((one > other).sum()), int((one < other).sum())
    found = rows["new"].to_baseline
    assert found.p == pytest.approx(scipy.stats.binomtest(better, better + worse).pvalue)
    column = {name: rows[name].to_baseline for name in ("dense", "bad", "new")}
    ranked = sorted(column.values(), key=lambda difference: difference.p)
    steps = [factor * difference.p for factor, difference in zip((3, 2, 1), ranked, strict=True)]
    assert [d.adjusted for d in ranked] == pytest.approx(np.minimum(1, np.maximum.accumulate(steps)))


def test_pairs_are_of_common_seeds_only(outputs: Path) -> None:
    finished_run(outputs, hits(0.8, 9), name="far", seed=9)
    rows = rows_of(compare(load_runs(outputs), baseline="new"))
    assert rows["good"].to_baseline.interval.pairs == 1
    assert rows["far"].to_baseline.interval is None and rows["far"].to_dense.interval is None


def test_where_lower_is_better_the_lowest_comes_first(tmp_path: Path) -> None:
    for name, value in (("a", 3.0), ("b", 2.0), ("c", 4.0)):
        finished_run(tmp_path, name=name, metric=("mse", value, False))
    (table,) = compare(load_runs(tmp_path)).tables
    assert [row.group.name for row in table.rows] == ["b", "a", "c"]


def test_predictions_that_are_gone_cost_the_test_and_nothing_else(outputs: Path, told: Tell) -> None:
    for file in outputs.glob("bad/*/predictions.jsonl"):
        file.unlink()
    rows = rows_of(compare(load_runs(outputs)))
    assert rows["bad"].to_dense.p is None and rows["bad"].to_dense.interval.low is not None
    assert rows["good"].to_dense.p is not None and "No p for some rows" in told()


def test_outputs_may_have_moved(outputs: Path, told: Tell) -> None:
    outputs.rename("elsewhere")
    shown = json.loads(told("--outputs", "elsewhere", "--json", "good"))
    assert shown["tables"][0]["rows"][0]["to_dense"]["p"] is not None


# --- what is comparable -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"content": "other texts"}, "dataset content"),
        ({"lines": [line | {"tokens": 7} for line in predicted((1, 1, 1, 0))]}, "dataset content"),  # another tokenizer
        ({"metric": ("f1", 0.5, True)}, "metric"),
        ({"components": ("encoder", "head")}, "denominator"),
        ({"evaluation": evaluated_on(predicted((1, 1, 1, 0)), "texts") | {"split": "holdout"}}, "split"),
    ],
)
def test_what_cannot_be_compared_stands_apart(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    finished_run(tmp_path, name="a")
    finished_run(tmp_path, name="b", **changes)
    runs = load_runs(tmp_path)
    tables = compare(runs).tables
    assert len(tables) == 2 and all(table.apart == [why] for table in tables)
    assert all(f"another {why}" in render.title(table) for table in tables)
    with pytest.raises(UsageError, match=f"--baseline a is not comparable .* \\(another {why}\\)"):
        compare(runs, baseline="a")


def test_dense_models_stand_in_every_table_of_their_data(outputs: Path) -> None:
    finished_run(outputs, hits(0.5, 1), name="whole", components=("encoder", "embeddings"))
    tables = compare(load_runs(outputs), baseline="dense").tables
    assert [[row.group.name for row in table.rows] for table in tables] == [
        ["dense", "good", "new", "bad"],
        ["dense", "whole"],
    ]


def test_a_baseline_may_be_a_run_that_was_not_chosen(outputs: Path, told: Tell) -> None:
    shown = json.loads(told("bad", "--baseline", "good", "--json"))
    assert [row["name"] for row in shown["tables"][0]["rows"]] == ["good", "bad"]


@pytest.mark.parametrize(
    ("baseline", "part"),
    [
        ("goood", "no finished run has this name or digest or fits this filter (did you mean 'good'?)"),
        ("sparsity>0", "3 groups are meant by that"),
        ("sparsity>2", "no finished run has this name"),
        ("sparsty>2", "--baseline sparsty: no run has such a setting"),
    ],
)
def test_a_baseline_is_one_group(outputs: Path, told: Tell, baseline: str, part: str) -> None:
    (line,) = told("--baseline", baseline, status=2).splitlines()
    assert part in line


def test_a_baseline_may_be_a_digest_a_pattern_or_a_filter(outputs: Path) -> None:
    runs = load_runs(outputs)
    digest = next(run.digest for run in runs if run.name == "good")
    for word in ("good", digest, digest[:9], f"good/{digest}", "name=good", "recipe=good and sparsity>0"):
        assert rows_of(compare(runs, baseline=word))["good"].to_baseline is None


# --- columns ------------------------------------------------------------------------------------------------------


def headings(text: str) -> list[str]:
    return text.splitlines()[1].split()


def test_only_settings_that_differ_are_columns(tmp_path: Path, told: Tell) -> None:
    lr, params = "pruning.schedule.lr", "pruning.criterion"
    finished_run(tmp_path, recipe="one", settings={lr: 1e-4, "model.name": "/data/bert"})
    finished_run(tmp_path, recipe="one", settings={lr: 2e-4, "model.name": "/data/bert"})
    assert headings(told("--outputs", str(tmp_path)))[:3] == ["run", "schedule.lr", "n"]
    two = {"model.name": "/data/roberta", f"{params}.name": "wanda", f"{params}.params": {"power": 0.5}}
    finished_run(tmp_path, recipe="two", settings=two)
    shown = told("--outputs", str(tmp_path))
    assert headings(shown)[:5] == ["run", "recipe", "model", "schedule.lr", "n"]  # recipes tell criterion and params
    assert "roberta" in shown and "/data" not in shown


def test_params_count_where_the_choice_is_the_same(tmp_path: Path, told: Tell) -> None:
    for name, power in (("wanda", 0.5), ("wanda", 1.0), ("magnitude", None)):
        params = {"pruning.criterion.name": name, "pruning.criterion.params": {"power": power} if power else {}}
        finished_run(tmp_path, recipe="one", settings=params)
    assert headings(told("--outputs", str(tmp_path)))[:4] == ["run", "criterion", "power", "n"]


def test_rows_that_look_the_same_are_told_apart(tmp_path: Path, told: Tell) -> None:
    first, second = (finished_run(tmp_path, group=group).name for group in ("g1", "g2"))
    shown = told("--outputs", str(tmp_path))
    assert headings(shown)[1] == "digest" and first in shown and second in shown


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("score", ["bad", "new", "good", "dense"]),
        ("-score", ["dense", "good", "new", "bad"]),
        ("name", ["bad", "dense", "good", "new"]),
        ("-sparsity.model", ["good", "new", "bad", "dense"]),
        ("-dense", ["good", "bad", "new", "dense"]),
    ],
)
def test_rows_are_sorted_by_any_key(outputs: Path, told: Tell, key: str, expected: list[str]) -> None:
    rows = json.loads(told("--sort", key, "--json"))["tables"][0]["rows"]
    found = [row["name"] for row in rows]
    if key in ("-sparsity.model", "-dense"):  # equal values
        found, expected = found[-1:], expected[-1:] if key == "-sparsity.model" else found[-1:]
    assert found == expected


def test_an_unknown_sort_key_is_refused(outputs: Path, told: Tell) -> None:
    assert "--sort scroe: no run has such a setting or result (did you mean 'score'?)" in told(
        "--sort", "-scroe", status=2
    )


# --- forms --------------------------------------------------------------------------------------------------------


def test_the_table_says_what_its_numbers_are(outputs: Path, told: Tell) -> None:
    shown = told("--baseline", "good")
    for part in (
        "accuracy on sst2, validation (200 examples), sparsity of encoder", "zeros: encoder", "zeros: model",
        "(baseline)", "[cannot tell] ", "Student's t interval", "paired by seed", "McNemar's exact test per example",
        "Holm's correction", "minus dense [95 %]", "minus good [95 %]", "90.00 %", "45.00 %", "550", "2.2 kB", "10.0 s",
    ):  # fmt: skip
        assert part in shown, part
    assert "[cannot tell], 1 pair" in told("--baseline", "new")
    one = told("good")
    assert "Holm" not in one and "cannot tell]" not in one


def test_json_and_csv_have_the_same_numbers(outputs: Path, told: Tell) -> None:
    rows = json.loads(told("--baseline", "good", "--json"))["tables"][0]["rows"]
    lines = list(csv.DictReader(io.StringIO(told("--baseline", "good", "--csv"))))
    assert [line["name"] for line in lines] == [row["name"] for row in rows]
    for line, row in zip(lines, rows, strict=True):
        assert float(line["score.mean"]) == row["score"]["mean"] and line["runs"].split() == row["runs"]
        for which in ("to_dense", "to_baseline"):
            for key, value in (row[which] or {}).items():
                assert line[f"{which}.{key}"] == ("" if value is None else str(value))


def test_markdown_is_a_table(outputs: Path, told: Tell) -> None:
    finished_run(outputs, hits(0.5, 1), name="a|b*<b>")
    lines = [line for line in told("--markdown").splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(re.findall(r"\|", lines[1]))}
    assert any("a\\|b\\*&lt;b>" in line for line in lines)


def test_latex_has_nothing_that_latex_would_obey(outputs: Path, told: Tell) -> None:
    finished_run(outputs, hits(0.5, 1), name=r"50%_of & \input{x} $1 #2 ~^")
    text = told("--latex", "--baseline", "good")
    assert text.count(r"\begin{tabular}") == 1 and r"\toprule" in text and r"\pm" in text and "$-$0." in text
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:-1]
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in body}) == 1 and all(
        line.endswith(r" \\") for line in body
    )
    (odd,) = [line for line in body if "50" in line and "input" in line]
    assert r"50\%\_of \& \textbackslash{}input\{x\} \$1 \#2 \textasciitilde{}\textasciicircum{}" in odd
    assert not re.search(r"(?<!\\)[%#]", "".join(body))


def test_a_hostile_name_is_shown_as_text(tmp_path: Path, told: Tell) -> None:
    finished_run(tmp_path, name="[red]x\x1b[31m", settings={"pruning.criterion.params": {"[blue]a": 1}})
    finished_run(tmp_path, name="y", recipe="[red]x\x1b[31m", settings={"pruning.criterion.params": {"[blue]a": 2}})
    shown = told("--outputs", str(tmp_path), "--baseline", "[red]x\x1b[31m")
    assert shown.count("[red]x") == 3 and "[blue]a" in shown and "\x1b" not in shown


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_narrow_terminal_loses_no_number(outputs: Path, width: int) -> None:
    comparison = compare(load_runs(outputs), baseline="good")
    texts = []
    for columns in (width, 500):
        on = Console(width=columns, file=io.StringIO(), highlight=False)
        on.print(render.to_terminal(comparison, on))
        texts.append(on.file.getvalue())  # type: ignore[attr-defined]
    narrow, wide = (set(re.findall(r"[+-]?\d[\d.,]*", text)) for text in texts)
    assert narrow >= wide and max(map(len, texts[0].splitlines())) <= width


def test_nothing_to_compare_is_said(tmp_path: Path, told: Tell) -> None:
    for words in ([], ["--sort", "score"], ["--where", "seed=1"], ["--baseline", "x"], ["--latex"]):
        assert "There are no finished runs" in told("--outputs", str(tmp_path), *words)
    assert json.loads(told("--outputs", str(tmp_path), "--json"))["tables"] == []


def test_forms_exclude_each_other(told: Tell) -> None:
    assert "not allowed with argument --csv" in told("--csv", "--json", status=2)


def test_where_chooses_runs(outputs: Path, told: Tell) -> None:
    shown = json.loads(told("--where", "seed<3 and not name in (bad, dense)", "--json"))
    assert {row["name"]: row["seeds"] for row in shown["tables"][0]["rows"]} == {"good": [1, 2], "new": [1]}


# --- sweeps -------------------------------------------------------------------------------------------------------


def test_a_sweep_is_compared_and_its_unfinished_members_are_named(outputs: Path, told: Tell) -> None:
    good = [run for run in load_runs(outputs) if run.name == "good"]
    busy = finished_run(outputs, name="busy", status="running")
    members = [MemberRecord(f"seed={run.seed}", [], f"good/{run.digest}", "finished") for run in good]
    members += [
        MemberRecord("seed=4", [], f"busy/{busy.name}", "running"),
        MemberRecord("seed=5", [], None, "failed", "it diverged"),
    ]
    record = SweepRecord("20260101-000000", ["run", "-m"], "2026-01-01T00:00:00+00:00", "finished", members)
    SweepFolder(sweeps_dir(outputs) / record.id).write(record)
    shown = told("--sweep", "last")
    assert "good" in shown and "bad" not in shown
    assert "Not finished: seed=4 (running)" in shown and "Not finished: seed=5 (failed: it diverged)" in shown
    as_json = json.loads(told("--sweep", "2026", "--json"))
    assert [row["seeds"] for row in as_json["tables"][0]["rows"]] == [[1, 2, 3]]
    assert [member["name"] for member in as_json["unfinished"]] == ["seed=4", "seed=5"]
    assert "no sweep in outputs/" in told("--sweep", "x", status=2)
    assert "leave out the others" in told("good", "--sweep", "last", status=2)


# --- real runs ----------------------------------------------------------------------------------------------------


def test_real_runs_say_what_comparison_needs(tmp_path: Path) -> None:
    """Seeds share a group, whatever else differs does not; everything is scored on the same texts."""
    results = [run(tiny_config(tmp_path, seed=seed, trainer__max_steps=12)) for seed in SEEDS]
    other = run(tiny_config(tmp_path, sparsity=0.5, trainer__max_steps=12))
    fewer = run(tiny_config(tmp_path, dataset__validation_limit=20, trainer__max_steps=12))
    assert len({result["group"] for result in results}) == 1
    assert len({result["group"] for result in (results[0], other, fewer)}) == 3
    assert results[0]["evaluation"] == other["evaluation"] and other["evaluation"]["examples"] == 40
    assert fewer["evaluation"]["content"] != other["evaluation"]["content"]
    comparison = compare(load_runs(tmp_path / "outputs"))
    assert [len(table.rows) for table in comparison.tables] == [3, 2] and comparison.tables[0].test is not None
    rows = [row for row in comparison.tables[0].rows if row.score.n == 3 and not row.group.is_dense]
    apart = [result["metric"]["value"] - result["dense"]["value"] for result in results]
    assert len(rows) == 1 and rows[0].to_dense is not None
    assert rows[0].to_dense.interval == paired_interval(apart) and rows[0].to_dense.p is not None
