"""Published tables: read, planned, run at the small scale, and laid beside ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from scipy import stats

from prunebench.cli import main
from prunebench.compose import load_config
from prunebench.config import RunConfig
from prunebench.errors import UsageError
from prunebench.facts import sizes
from prunebench.reproduce.cost import RATE, cost, run_hours
from prunebench.reproduce.grid import Request, build, merged
from prunebench.reproduce.levels import Unreachable, asked, shares
from prunebench.reproduce.published import find_table, find_tables, read_table

TABLES = sorted(find_tables())
CSQA = load_config(["recipe=bert_smc_90", "model=roberta_large", "dataset=commonsense_qa"])

# ../shared/facts/smc.md, 1.4: levels of all matrices, and the encoder's sparsity with as many zeros (COMPUTED)
FACTS = {0.2: 0.235, 0.36: 0.423, 0.488: 0.574, 0.5904: 0.694, 0.67232: 0.790, 0.737856: 0.867, 0.7902848: 0.929,
         0.83222784: 0.978}  # fmt: skip


# --- levels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "encoder"), FACTS.items())
def test_levels_of_all_matrices_as_levels_of_the_encoder(level: float, encoder: float) -> None:
    assert asked(level, "all", CSQA, sizes(CSQA)).sparsity == pytest.approx(encoder, abs=1.5e-3)


@pytest.mark.parametrize("level", [1 - 0.8**9, 1 - 0.8**10])
def test_a_level_beyond_the_encoder_is_refused_with_the_reason(level: float) -> None:
    with pytest.raises(Unreachable, match="the encoder has only 301,989,888 weights"):
        asked(level, "all", CSQA, sizes(CSQA))


@pytest.mark.parametrize("level", [0.2, 0.5, 0.83222784])
def test_converting_keeps_the_number_of_zeros(level: float) -> None:
    known = sizes(CSQA)
    assert known is not None
    matrices = sum(known[name] or 0 for name in ("encoder", "pooler", "embeddings", "head"))
    encoder = known["encoder"]
    assert encoder == 24 * (4 * 1024**2 + 2 * 1024 * 4096)
    there = asked(level, "all", CSQA, known).sparsity
    assert round(there * encoder) == round(level * matrices)
    back = shares(there, "encoder", known)
    assert back.all is not None and round(back.all * matrices) == round(level * matrices)


def test_ways_that_prune_everything_take_as_many_weights_as_a_level_of_the_encoder() -> None:
    config = load_config(["recipe=smc_bench_gmp", "dataset=sst2"])
    request = asked(0.9, "encoder", config, sizes(config))
    assert request.words() == ["sparsity=0.9", "pruning.budget_from=[encoder]"]
    assert asked(0.9, "all", config, sizes(config)).words() == ["sparsity=0.9"]


def test_unknown_sizes_convert_nothing() -> None:
    assert shares(0.9, "encoder", None).all is None
    with pytest.raises(Unreachable, match="not known"):
        asked(0.9, "all", CSQA, None)


# --- the tables ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
def test_every_table_makes_a_grid_and_states_what_it_costs(name: str) -> None:
    table = find_table(name)
    found = cost(build(table, Request()))
    assert table.gpu_hours == pytest.approx(found.hours, rel=0.02), f"gpu_hours: {found.hours:.4g} in {table.file}"
    assert table.url.startswith("https://") and table.verified in ("READ", "DIGITISED", "NONE")


@pytest.mark.parametrize("name", TABLES)
def test_published_scores_are_verified_or_left_out(name: str) -> None:
    table = find_table(name)
    scores = [score for cell in table.cells for score in cell.scores.values() if score]
    assert bool(scores) == (table.verified != "NONE")
    assert all(0 < score.value < 100 for score in scores)
    assert all(bool(score.error) == (table.verified == "DIGITISED") for score in scores)


def test_gmp_star_has_a_grid_but_no_remembered_number() -> None:
    table = find_table("gmp_star")
    assert not any(score for cell in table.cells for score in cell.scores.values())
    assert "none verified" in table.description


def test_numbers_of_obert_by_hand() -> None:
    """Three cells of the paper's table, typed a second time."""
    cells = {cell.name: cell.scores for cell in find_table("obert_30").cells}
    score = cells["squad | oBERT | 0.9 of encoder"]["f1"]
    assert score is not None and (score.value, score.std) == (88.31, 0.13)
    assert cells["mnli | oBERT | 0.97 of encoder"]["accuracy_mismatched"].value == 82.01  # type: ignore[union-attr]
    assert cells["qqp | dense"]["f1"].value == 88.00  # type: ignore[union-attr]


def test_digitised_values_keep_how_far_they_can_be_read() -> None:
    cells = {cell.name: cell.scores["accuracy"] for cell in find_table("smc_bench").cells}
    assert cells["commonsense_qa | GMP | 0.36 of all"].error == 0.3  # type: ignore[union-attr]
    assert cells["commonsense_qa | GMP | 0.5904 of all"].error == 1.0  # type: ignore[union-attr]
    assert cells["winogrande | GMP | 0.36 of all"].error == 0.15  # type: ignore[union-attr]
    assert cells["commonsense_qa | SNIP | 0.36 of all"] is None


GOOD: dict[str, Any] = {
    "paper": "P", "url": "https://example.org", "where": "table 1", "verified": "READ",
    "data": {"sst2": ["dataset=sst2"]}, "rows": {"mine": ["recipe=bert_smc_90"]},
    "cells": [{"row": "mine", "data": "sst2", "metrics": ["accuracy"], "levels": {0.9: ["90.5 ± 0.2"]}}],
}  # fmt: skip


def own_table(folder: Path, **changes: Any) -> Path:
    path = folder / "published" / "mine.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# my table\n" + yaml.safe_dump(GOOD | changes, allow_unicode=True), encoding="utf-8")
    return path


def cell(**changes: Any) -> list[dict[str, Any]]:
    return [GOOD["cells"][0] | changes]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"papper": 1}, "no such key papper (did you mean 'paper'?)"),
        ({"verified": "RECALLED"}, "verified=RECALLED: it can be READ"),
        ({"levels_of": "head"}, "levels_of=head"),
        ({"gpu_hours": "many"}, "gpu_hours=many: expected a number"),
        ({"rows": {"mine": "recipe=x"}}, "rows.mine: must be a list of key=value words"),
        ({"rows": {"mine": ["recipe"]}}, "rows.mine: must be a list of key=value words"),
        ({"cells": []}, "cells is empty"),
        ({"cells": {}}, "cells must be a list"),
        ({"cells": cell(row="mime")}, "cells[0]: row mime is not described (did you mean 'mine'?)"),
        ({"cells": cell(data="sst3")}, "cells[0]: data sst3 is not described"),
        ({"cells": cell(levels={1.0: [90]})}, "level 1: a share of zeros"),
        ({"cells": cell(levels={"high": [90]})}, "level=high: expected a number"),
        ({"cells": cell(levels={0.9: ["9O.5"]})}, "9O.5: expected a score in percent"),
        ({"cells": cell(levels={0.9: [90, 91]})}, "2 scores for the metrics"),
        ({"cells": cell(level=0.9)}, "cells[0]: no such key level (did you mean 'levels'?)"),
        ({"cells": cell() * 2}, "sst2 | mine | 0.9 of encoder stands there twice"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_its_file(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    path = own_table(tmp_path, **changes)
    with pytest.raises(UsageError) as error:
        read_table(path)
    assert str(path) in str(error.value) and told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"\xff", b"a: [", b"just text"])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"mine\.yaml"):
        read_table(path)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = own_table(tmp_path)
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("url")))
    with pytest.raises(UsageError, match="url is missing"):
        read_table(path)


def test_a_later_word_takes_the_place_of_an_earlier() -> None:
    assert merged(["a=1", "b=2"], ["+a=3"], ["c=4", "b=5"]) == ["+a=3", "c=4", "b=5"]


def test_hours_are_the_stated_ones_or_those_of_the_model() -> None:
    config = load_config(["recipe=dense", "dataset=sst2"])
    by_hand = 6 * (84_934_656 + 768 * 768 + 2 * 768) * 67_349 * config.trainer.epochs * 128 / RATE / 3600
    assert run_hours(config).hours == pytest.approx(by_hand)
    assert run_hours(config, 0.5).hours == pytest.approx(0.5 * config.trainer.epochs)


# --- the verb -----------------------------------------------------------------------------------------------------


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["reproduce", *words])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_listing_has_every_table_with_its_source(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    status, out, _ = told(capsys, "--json")
    assert status == 0 and [row["name"] for row in json.loads(out)] == TABLES
    _, text, _ = told(capsys)
    assert all(any(line.startswith(name) for line in text.splitlines()) for name in TABLES)
    assert "digitised" in text and "none verified" in text and "estimated" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["obert_3"], "obert_3: no such table (did you mean 'obert_30'?)"),
        (["obert_30", "obert_10"], "takes one table"),
        (["obert_30", "seed=4"], "--seeds says how many"),
        (["obert_30", "sparsity=0.5"], "the table has its levels"),
        (["obert_30", "recipe=acdc"], "the table has its ways"),
        (["obert_30", "search=optuna"], "the grid is the table's"),
        (["obert_30", "trainer.epocs=1"], "did you mean 'trainer.epochs'?"),
        (["obert_30", "--plan", "--show"], "--plan and --show exclude each other"),
        (["obert_30", "--json", "--markdown"], "exclude each other"),
        (["obert_30", "--seeds", "0"], "between 1 and 100"),
        (["obert_30", "--scale", "tiny"], "full or small"),
        (["obert_30", "--scale", "small", "--seeds", "2"], "the small scale has one seed"),
        (["obert_30", "--data", "."], "--data goes with --scale small"),
        (["obert_30", "--scale", "small", "--data", "nowhere"], "there is no such folder"),
        (["obert_30", "--only", "cola"], "no cell of obert_30 matches"),
        (["--plan"], "which table?"),
        (["smc_bench", "--only", "guidelines", "--only", "0.865782"], "cannot be reached without pruning"),
    ],
)
def test_mistakes_are_one_line_each(
    capsys: pytest.CaptureFixture[str], elsewhere: Path, words: list[str], message: str
) -> None:
    status, out, err = told(capsys, *words)
    assert status == 2 and not out and message in err
    assert all(line.startswith("prunebench: error: ") for line in err.splitlines())


def test_a_table_of_ones_own(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    own_table(elsewhere / "conf")
    status, out, _ = told(capsys, "mine", "--plan", "--config-dir", "conf")
    assert status == 0 and "90 % of encoder = 69.9 % of all matrices" in out and "90.5 ± 0.2" in out


def test_a_recipe_that_is_missing_is_told_with_its_cell(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    own_table(elsewhere / "conf", rows={"mine": ["recipe=bert_smc_99"]})
    status, _, err = told(capsys, "mine", "--plan", "--config-dir", "conf")
    assert status == 2 and "sst2 | mine | 0.9 of encoder: recipe=bert_smc_99: no such recipe" in err


def test_a_table_with_a_name_of_ours_is_refused(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    own_table(elsewhere / "conf").rename(elsewhere / "conf/published/movement.yaml")
    status, _, err = told(capsys, "--config-dir", "conf")
    assert status == 2 and "rename the file" in err


def test_the_plan_refuses_what_the_encoder_alone_cannot_reach(
    capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    status, out, _ = told(capsys, "smc_bench", "--plan", "--json", "--only", "race_middle", "--only", "guidelines")
    cells = {cell["cell"]: cell for cell in json.loads(out)["cells"]}
    refused = {name for name, cell in cells.items() if cell["refused"]}
    assert status == 0
    assert refused == {f"race_middle | the guidelines | {level} of all" for level in ("0.865782", "0.892626")}
    assert "sparsity=0.97" in cells["race_middle | the guidelines | 0.97 of encoder"]["words"]


# --- ours beside the published ------------------------------------------------------------------------------------


def fake_run(outputs: Path, config: RunConfig, digest: str, metrics: dict[str, float]) -> None:
    """A finished run's folder, as far as it is looked at."""
    folder = outputs / config.name / digest
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    sparsity = {"target": config.sparsity, "prunable": config.sparsity, "model": 0.7, "components": {}}
    result = {"status": "finished", "seed": config.seed, "metrics": metrics, "sparsity": sparsity, "model": "model"}
    (folder / "result.json").write_text(json.dumps(result))


def fake_runs(words: list[str], scores: list[dict[str, float]], outputs: Path = Path("outputs")) -> None:
    for seed, metrics in enumerate(scores, start=1):
        fake_run(outputs, load_config([*words, f"seed={seed}"]), f"{len(words):06}{seed:06}", metrics)


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    status, out, _ = told(capsys, *words, "--show", "--json")
    assert status == 0
    cells: list[dict[str, Any]] = json.loads(out)["cells"]
    return cells


def test_runs_by_hand_count_and_are_laid_beside_the_published(
    capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    """Mean, deviation and Student's interval as scipy has them; a published value outside it is marked."""
    scores = [88.9, 88.2, 88.4]
    fake_runs(["recipe=obert", "sparsity=0.9"], [{"f1": f1, "exact_match": 70.0 + f1 / 100} for f1 in scores])
    fake_runs(["recipe=obert", "sparsity=0.9", "trainer.epochs=3"], [{"f1": 1.0, "exact_match": 1.0}])
    f1, exact, *others = shown(capsys, "obert_30", "--only", "squad*0.9 of")
    low, high = stats.t.interval(0.95, 2, loc=stats.tmean(scores), scale=stats.sem(scores))
    assert not others and f1["ours"]["seeds"] == [1, 2, 3]
    assert f1["ours"]["mean"] == pytest.approx(stats.tmean(scores))
    assert f1["ours"]["std"] == pytest.approx(stats.tstd(scores))
    assert f1["ours"]["interval"] == pytest.approx([low, high])
    assert f1["difference"] == pytest.approx(stats.tmean(scores) - 88.31)
    assert f1["outside_interval"] is False and exact["outside_interval"] is True
    assert f1["published"]["value"] == 88.31 and f1["published"]["std"] == 0.13


def test_the_mark_says_outside_in_text_and_markdown(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    scores = [{"accuracy": value, "f1": 0.877} for value in (0.8501, 0.8502, 0.8503)]
    words = ["pruning.schedule.lr=5e-5", "pruning.schedule.final_lr=5e-6"]
    fake_runs(["recipe=obert", "dataset=qqp", *words, "sparsity=0.97"], scores)
    for layout in ([], ["--markdown"]):
        _, out, _ = told(capsys, "obert_30", "--show", "--only", "qqp", "--only", "0.97", *layout)
        line = next(line for line in out.splitlines() if "accuracy" in line)
        assert "85.02 ± 0.01 (3)" in line and "90.87 ± 0.05" in line and "-5.85" in line and "OUTSIDE" in line


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_have_no_interval_and_no_mark(
    capsys: pytest.CaptureFixture[str], elsewhere: Path, seeds: int
) -> None:
    fake_runs(["recipe=obert", "sparsity=0.9"], [{"f1": 80.0 + seed, "exact_match": 70.0} for seed in range(seeds)])
    line = shown(capsys, "obert_30", "--only", "squad*0.9 of")[0]
    assert line["ours"]["interval"] is None and line["outside_interval"] is None
    _, out, _ = told(capsys, "obert_30", "--show", "--only", "squad*0.9 of")
    assert f"none: {seeds} seed" in out and f"{3 - seeds} seed" in out


def test_a_digitised_value_must_be_outside_with_all_that_it_may_be_misread_by(
    capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    """63.9 +- 0.3 at 48.8 %: an interval that ends at 63.65 does not exclude it, one that ends at 63.5 does."""
    words = ["recipe=smc_bench_gmp", "model=roberta_large", "dataset=commonsense_qa", "sparsity=0.488"]
    for top, outside in ((0.6365, False), (0.6350, True)):
        half = stats.t.ppf(0.975, 2) / 3**0.5
        step = 0.001
        middle = top - half * step
        outputs = elsewhere / f"outputs{top}"
        scores = [{"accuracy": middle + shift * step} for shift in (-1, 0, 1)]
        fake_runs(words, scores, outputs)
        only = ["--only", "commonsense_qa", "--only", "GMP", "--only", "0.488*"]
        line = shown(capsys, "smc_bench", *only, f"outputs={outputs}")[0]
        assert line["ours"]["interval"][1] == pytest.approx(100 * top)
        assert line["outside_interval"] is outside


def test_what_was_changed_is_said_and_compared_with_nothing(
    capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    fake_runs(["recipe=obert", "sparsity=0.9", "trainer.epochs=3"], [{"f1": 80.0, "exact_match": 70.0}])
    words = ["obert_30", "--only", "squad*0.9 of", "trainer.epochs=3"]
    line = shown(capsys, *words)[0]
    assert line["ours"]["mean"] == 80.0 and line["difference"] is None
    _, out, _ = told(capsys, *words, "--show")
    assert "trainer.epochs=3 is not what was published" in out and "not comparable" in out
    assert shown(capsys, "obert_30", "--only", "squad*0.9 of", "trainer.device=cpu")[0]["ours"]["mean"] is None


def test_a_stand_in_upstream_is_compared_with_nothing(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    _, out, _ = told(capsys, "sparse_transfer", "--show")
    assert "WikiText-103, the published one on BookCorpus" in out


# --- the small scale: every reproduction from end to end ----------------------------------------------------------


@pytest.fixture(scope="session")
def small_outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all workers, so that teachers are trained once."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if base.name.startswith("popen-") else base) / "small"


@pytest.mark.parametrize("name", TABLES)
def test_every_reproduction_runs_from_end_to_end(
    capsys: pytest.CaptureFixture[str], elsewhere: Path, small_outputs: Path, name: str
) -> None:
    words = [name, "--scale", "small", f"outputs={small_outputs}"]
    status, out, err = told(capsys, *words)
    assert status == 0, err
    lines = out.splitlines()
    assert all(line.startswith("[small]") for line in lines)
    assert "none yet" not in out and "failed" not in out
    assert not any("OUTSIDE" in line or "inside" in line for line in lines)
    status, out, err = told(capsys, *words, "--show", "--json")
    assert out.count("\n") == 1  # a line, which says it too
    cells = json.loads(out)["cells"]
    assert len({cell["row"] for cell in cells}) == len(find_table(name).rows)
    assert len({cell["data"] for cell in cells}) == len(find_table(name).data)
    assert all(cell["difference"] is None and "generated data" in cell["scale"] for cell in cells)
    assert all(cell["ours"]["mean"] is not None for cell in cells if cell["metric"] != "accuracy_mismatched")


def test_a_reproduction_goes_on_where_it_was(
    capsys: pytest.CaptureFixture[str], elsewhere: Path, small_outputs: Path
) -> None:
    words = ["sparseml_gmp", "--scale", "small", f"outputs={small_outputs}"]
    assert told(capsys, *words)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in small_outputs.glob("small/*/*/result.json")}
    assert told(capsys, *words)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.mark.real
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here")
def test_the_small_scale_on_real_data(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    words = ["smc_bench", "--scale", "small", "--data", str(DATA), "--only", "one-shot after", "--only", "0.97"]
    status, out, err = told(capsys, *words)
    assert status == 0, err
    assert f"64 examples of {DATA}/commonsenseqa" in out and f"64 examples of {DATA}/winogrande" in out
    assert "race_middle (generated data)" in out  # which the folder has not
