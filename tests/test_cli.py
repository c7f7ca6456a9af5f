"""The command line as its user meets it. The conductor is a stand-in here; tests/test_run.py has the real one."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from prunebench.cli import main
from prunebench.config import RunConfig
from prunebench.errors import RunError, UsageError
from prunebench.paths import RunFolder
from tests.comparing import finished_run

RECIPE = ["recipe=bert_smc_90", "dataset=sst2"]


def result_of(config: RunConfig) -> dict[str, Any]:
    """What result.json holds, as far as it is shown."""
    return {
        "status": "finished", "name": config.name, "recipe": config.recipe, "digest": f"{config.seed:012x}",
        "seed": config.seed, "metric": {"name": "accuracy", "value": 0.875, "weights": "last"},
        "metrics": {"accuracy": 0.875, "f1": 0.8}, "dense": {"value": 0.9}, "recovery": 0.875 / 0.9,
        "sparsity": {"target": config.sparsity, "prunable": 0.9, "model": 0.7, "components": {"encoder": 0.9}},
        "weights": {"model": 100, "model_nonzero": 30, "prunable": 80, "prunable_nonzero": 8},
        "bytes": {"dense": 400, "compressed": 130, "format": "bitmask"}, "training": {}, "seconds": 1.5,
        "model": "model", "wandb": None, "warnings": [], "reason": None, "environment": {}, "schema": 1,
    }  # fmt: skip


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[RunConfig, bool]]:
    """Stands in for prunebench.run; notes what it was asked for. Seeds 2 to 5 go wrong, each in its way."""
    asked: list[tuple[RunConfig, bool]] = []
    wrong = {2: RunError("diverged"), 3: ValueError("first\nsecond"), 4: KeyboardInterrupt(), 5: UsageError("a\nb")}

    def run(config: RunConfig, *, force: bool = False) -> dict[str, Any]:
        asked.append((config, force))
        if config.seed in wrong:
            raise wrong[config.seed]
        folder = folder_of(config)
        finished_run(Path(config.outputs), name=config.name, seed=config.seed, digest=folder.root.name)
        return result_of(config) | {"digest": folder.root.name}

    def evaluate_folder(path: Path, config: RunConfig | None = None) -> dict[str, Any]:
        asked.append((config, False))  # type: ignore[arg-type]
        shares = {"model": 0.5, "components": {"encoder": 0.9}}
        metric = {"name": "accuracy", "value": 0.9}
        return {"model": str(path), "sparsity": shares, "metric": metric, "metrics": {"f1": 0.3, "accuracy": 0.9}}

    module = types.ModuleType("prunebench.run")

    def folder_of(config: RunConfig) -> RunFolder:
        erk = 16 if config.pruning.scope.name == "erk" else 0
        return RunFolder(Path(config.outputs) / config.name / f"{config.seed + erk:012x}")

    module.run, module.evaluate_folder, module.folder_of = run, evaluate_folder, folder_of  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "prunebench.run", module)
    monkeypatch.chdir(tmp_path)
    return asked


def finished(folder: Path, name: str = "mine", digest: str = "0123456789ab", **changes: Any) -> Path:
    """A run's folder, as far as listings read it."""
    root = folder / "outputs" / name / digest
    root.mkdir(parents=True)
    config = RunConfig(name=name, sparsity=0.9)
    (root / "config.yaml").write_text("name: mine\n")
    (root / "result.json").write_text(json.dumps(result_of(config) | {"digest": digest} | changes))
    return root


# --- run ----------------------------------------------------------------------------------------------------------


def test_run_gives_the_composed_config_to_the_conductor(runs: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *RECIPE, "seed=7", "--force"]) == 0
    ((config, force),) = runs
    assert (config.recipe, config.dataset.name, config.seed, force) == ("bert_smc_90", "sst2", 7, True)
    shown = capsys.readouterr().out
    assert "outputs/bert_smc_90/000000000007/model" in shown and "97.2 % of dense" in shown


def test_run_prints_the_result_as_json(runs: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--json", *RECIPE, "seed=7"]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == "000000000007"


def test_options_may_stand_between_settings(runs: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", RECIPE[0], "--json", RECIPE[1], "--force", "sparsity=0.5"]) == 0
    assert runs[0][0].sparsity == 0.5 and runs[0][1]


def test_only_the_first_of_several_processes_prints(
    runs: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["run", *RECIPE]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("seed", "status", "lines"),
    [
        (2, 1, ["prunebench: error: diverged"]),
        (3, 1, ["prunebench: error: ValueError: first; run again with --debug for the traceback"]),
        (4, 130, ["prunebench: stopped; the same command continues"]),
        (5, 2, ["prunebench: error: a", "prunebench: error: b"]),
    ],
)
def test_what_goes_wrong_is_told_in_a_line_and_by_the_status(
    runs: list[Any], capsys: pytest.CaptureFixture[str], seed: int, status: int, lines: list[str]
) -> None:
    assert main(["run", *RECIPE, f"seed={seed}"]) == status
    captured = capsys.readouterr()
    assert captured.err.splitlines() == lines and captured.out == ""


def test_debug_shows_the_traceback_too(runs: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *RECIPE, "seed=3", "--debug"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error and error.splitlines()[-1] == "prunebench: error: ValueError: first"


def test_nothing_runs_when_the_config_is_unsound(runs: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *RECIPE, "sparsity=1", "trainer.lr=0"]) == 2
    assert [line.split("=")[0] for line in capsys.readouterr().err.splitlines()] == [
        "prunebench: error: sparsity",
        "prunebench: error: trainer.lr",
    ]
    assert runs == []


# --- verbs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["run", "plan", "ls", "show", "compare", "eval", "soup", "doctor", "clean"])
def test_every_verb_has_help_with_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0 and f"examples:\n  prunebench {verb}" in shown and "--json" in shown


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["rnu"], "rnu: no such verb (did you mean 'run'?)"),
        (["run", "--jsn"], "unrecognized arguments: --jsn; prunebench run --help tells more"),
        (["ls", "recipe_s"], "no such listing (did you mean 'recipes'?)"),
        (["clean", "/no/such/folder"], "there is no such folder"),
        (["show", "ffff"], "no run in outputs/ has this"),
        (["show", "ffff", "seed=1"], "not both"),
        (["compare", "ffff"], "no run in outputs/ has this"),
        (["eval", "/no/such/folder"], "neither a run's folder"),
        (["soup", "ffff"], "no run in outputs/ has this"),
        (["plan", "trainer.epochs=x"], "expected a number"),
    ],
)
def test_wrong_usage_is_one_line(words: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("prunebench: error: ") and part in line


def test_plan_as_json_has_everything_before_anything_is_computed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "recipe=bert_smc_90", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["examples"] == {"count": 88524, "unit": "windows"}
    assert shown["steps"] == 5 * 2 * 5533  # 4 halvings and recovery, of 2 epochs each
    assert shown["sparsity"]["prunable"] == pytest.approx(0.9, abs=1e-8)
    assert shown["components"][0]["zeros"] == 76_441_190


def test_listings_have_one_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "criteria"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(line.split()[0] for line in lines)
    assert main(["ls", "criterion", "--json"]) == 0
    assert [option["name"] for option in json.loads(capsys.readouterr().out)] == [line.split()[0] for line in lines]


def test_listings_show_ones_own_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text("# @package _global_\n# my first recipe\nsparsity: 0.1\n")
    assert main(["ls", "recipes", "--config-dir", str(tmp_path)]) == 0
    assert "my first recipe" in capsys.readouterr().out


def test_show_prints_a_config_that_can_be_read_again(capsys: pytest.CaptureFixture[str]) -> None:
    from omegaconf import OmegaConf

    assert main(["show", *RECIPE, "sparsity=0.8"]) == 0
    yaml = capsys.readouterr().out
    assert OmegaConf.create(yaml).sparsity == 0.8 and "\x1b" not in yaml
    assert main(["show", *RECIPE, "sparsity=0.8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == OmegaConf.to_container(OmegaConf.create(yaml))


@pytest.mark.parametrize("word", ["outputs/mine/0123456789ab", "0123", "mine"])
def test_show_finds_a_run(word: str, runs: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path)
    assert main(["show", word]) == 0
    assert "0123456789ab" in capsys.readouterr().out
    assert main(["show", word, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == "0123456789ab"


def test_show_asks_back_where_several_runs_are_meant(
    runs: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(tmp_path)
    finished(tmp_path, digest="01ffffffffff")
    assert main(["show", "01"]) == 2
    assert "2 runs are meant by that: mine/0123456789ab, mine/01ffffffffff" in capsys.readouterr().err


def test_show_says_why_there_is_nothing_to_show(
    runs: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(tmp_path, status="failed", reason="diverged")
    assert main(["show", "0123"]) == 2
    assert capsys.readouterr().err.strip().endswith("is not finished (status: failed): diverged")


def test_runs_are_listed_with_their_scores(runs: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path)
    empty = finished(tmp_path, digest="ffffffffffff")
    (empty / "result.json").write_text("{")  # damaged
    assert main(["ls", "runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines[1].split()) == "mine 0123456789ab 1 finished 90.00 % accuracy 0.8750 97.2 %"
    assert lines[2].split() == ["mine", "ffffffffffff", "unknown"]
    assert main(["ls", "runs", "--json"]) == 0
    assert [run["recovery"] for run in json.loads(capsys.readouterr().out)] == [0.875 / 0.9, None]


# --- eval ---------------------------------------------------------------------------------------------------------


def test_eval_of_a_run_uses_its_own_config(runs: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path)
    assert main(["eval", "outputs/mine/0123456789ab"]) == 0
    assert runs == [(None, False)]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "model", "accuracy", "f1", "zeros, encoder", "zeros, whole model",
    ]  # fmt: skip


def test_eval_of_a_model_needs_its_data_named(
    runs: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "my bert"
    model.mkdir()
    known = {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}
    (model / "config.json").write_text(json.dumps(known))
    for name in ("model.safetensors", "tokenizer.json"):  # only their presence is looked at here
        (model / name).touch()
    assert main(["eval", str(model)]) == 2
    assert "name its data, for instance dataset=sst2" in capsys.readouterr().err
    assert main(["eval", str(model), "dataset=rte", "--json"]) == 0
    ((config, _),) = runs
    assert (config.dataset.name, config.start, config.sparsity) == ("rte", str(model), 0.0)
    assert json.loads(capsys.readouterr().out)["metric"]["value"] == 0.9


def test_eval_of_a_run_with_a_setting_changed(runs: list[Any], tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    from prunebench.compose import load_config

    root = finished(tmp_path)
    (root / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(load_config(RECIPE))))
    assert main(["eval", str(root), "trainer.eval_batch_size=4"]) == 0
    assert (runs[0][0].trainer.eval_batch_size, runs[0][0].sparsity) == (4, 0.9)


# --- pipes and colour ---------------------------------------------------------------------------------------------


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    line = command.replace("prunebench", f"{sys.executable} -m prunebench", 1)
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, env=os.environ | environment
    )


def test_a_closed_pipe_is_no_error_to_talk_about() -> None:
    done = shell("prunebench show recipe=bert_smc_90 | true")
    assert done.stderr == "" and done.returncode in (0, 141)


def test_a_pipe_gets_plain_text_without_trailing_blanks() -> None:
    done = shell("prunebench plan recipe=bert_smc_90 dataset=sst2 | cat")
    assert done.returncode == 0 and "\x1b" not in done.stdout
    assert all(line == line.rstrip() and len(line) <= 80 for line in done.stdout.splitlines())


def test_a_terminal_of_ascii_gets_ascii() -> None:
    done = shell("prunebench plan recipe=bert_smc_90 dataset=sst2", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stdout.isascii() and "5e-05 -> 0" in done.stdout
