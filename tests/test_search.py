"""The search by Optuna: its space, its budget, and that it goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunebench.cli import main
from prunebench.config import RunConfig
from prunebench.errors import RunError
from prunebench.options import find_options
from prunebench.search import JOURNAL, Dimension, all_words, single_values, space
from prunebench.sweep import swept_words
from prunebench.sweep_record import find_sweep, list_sweeps
from tests.test_cli import RECIPE, runs  # noqa: F401 (a fixture)

pytest.importorskip("optuna")
Runs = list[tuple[RunConfig, bool]]
LR = "trainer.lr=tag(log,interval(1e-4,1e-2))"


def dimensions(*words: str) -> list[Dimension]:
    checked = swept_words([*RECIPE, *words], None)
    return space(checked, single_values(checked, None), None)


@pytest.mark.parametrize("name", [name for name in find_options()["search"] if name != "none"])
def test_every_search_composes(name: str) -> None:
    assert Dimension("trainer.lr", low=1e-4, high=1e-2, log=True) in dimensions(f"search={name}", LR)


def test_what_a_ready_search_fixes_reaches_its_runs() -> None:
    settings = single_values([*RECIPE, "search=lr_temperature"], None)
    assert "pruning.schedule.final_lr=0" in all_words(RECIPE, settings)
    told = "pruning.schedule.final_lr=1e-6"
    assert [word for word in all_words([*RECIPE, told], settings) if "final_lr" in word] == [told]


def test_the_ready_search_looks_for_learning_rate_and_temperature() -> None:
    rate, temperature = sorted(dimensions("search=lr_temperature"), key=lambda one: one.key, reverse=True)
    assert (rate.key, rate.log) == ("pruning.schedule.lr", True) and rate.low < 5e-5 < rate.high
    assert (temperature.key, temperature.log) == ("distillation.temperature", False)


def test_the_space_is_written_in_hydras_words() -> None:
    batch, epochs = "trainer.batch_size=tag(log,interval(8,64))", "trainer.epochs=range(2,9,2)"
    words = ["search=optuna", batch, "sparsity=0.5,0.9", epochs]
    assert dimensions(*words) == [
        Dimension("trainer.batch_size", low=8, high=64, step=1, log=True),
        Dimension("sparsity", choices=("0.5", "0.9")),
        Dimension("trainer.epochs", low=2, high=8, step=2),
    ]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "nothing to search"),
        (["seed=1,2"], "seed: a search compares runs of one seed"),
        (["trainer.lr=interval(1,0.1)"], "the interval must rise"),
        (["trainer.lr=tag(log,interval(0,1))"], "the interval must rise"),
        (["trainer.batch_size=range(8,4)"], "the range must rise"),
        (["sparsity=interval(0.5,1.5)"], "sparsity=1.5: must be in [0, 1)"),  # an end that no run can have
        ([LR, "search.runs=0"], "search.runs=0"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_it_starts(
    runs: Runs,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    part: str,
) -> None:
    assert main(["run", "-m", *RECIPE, "search=optuna", *words]) == 2
    assert part in capsys.readouterr().err and runs == [] and not list_sweeps("outputs")


@pytest.fixture
def scored(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> Runs:  # noqa: F811
    """The stand-in's score falls with the distance of the learning rate from 1e-3; digests tell all settings."""
    import hashlib
    import math
    import sys

    from prunebench.paths import RunFolder

    module = sys.modules["prunebench.run"]
    original = module.run

    def folder_of(config: RunConfig) -> RunFolder:
        digest = hashlib.sha256(repr(config).encode()).hexdigest()[:12]
        return RunFolder(Path(config.outputs) / config.name / digest)

    def run(config: RunConfig, *, force: bool = False) -> dict[str, object]:
        import json

        result = original(config, force=force)
        value = 1 - abs(math.log10(config.trainer.lr) + 3) / 4
        metric = {"name": "accuracy", "value": value, "weights": "last", "higher_is_better": True}
        folder = folder_of(config)
        result |= {"digest": folder.root.name, "metric": metric}
        folder.root.mkdir(parents=True, exist_ok=True)
        folder.result.write_text(json.dumps(result))
        return dict(result)

    monkeypatch.setattr(module, "folder_of", folder_of)
    monkeypatch.setattr(module, "run", run)
    return runs


def test_a_search_spends_its_budget_and_names_the_best(scored: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-m", *RECIPE, "search=optuna", "search.runs=12", LR]) == 0
    rates = [config.trainer.lr for config, _ in scored]
    assert len(rates) == 12 and all(1e-4 <= rate <= 1e-2 for rate in rates)
    best = min(rates, key=lambda rate: abs(rate / 1e-3 - 1) if rate > 1e-3 else abs(1e-3 / rate - 1))
    told = capsys.readouterr().err
    assert f"best of 12: trainer.lr={best:.4g}" in told and "[12/12]" in told
    assert [member.status for member in find_sweep("last", "outputs").members] == ["finished"] * 12


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(
    scored: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sys

    words = ["run", "-m", *RECIPE, "search=optuna", "search.runs=6", LR]
    module = sys.modules["prunebench.run"]
    run = module.run

    def stopped(config: RunConfig, *, force: bool = False) -> dict[str, object]:
        if len(scored) == 3:
            raise KeyboardInterrupt
        return dict(run(config, force=force))

    monkeypatch.setattr(module, "run", stopped)
    assert main(words) == 130
    monkeypatch.setattr(module, "run", run)
    assert main(words) == 0
    (record,) = list_sweeps("outputs")
    assert len(record.members) == 6
    continued = [config.trainer.lr for config, _ in scored]
    assert len(continued) == 6  # none twice
    scored.clear()
    monkeypatch.chdir(tmp_path.parent)
    assert main([*words, f"outputs={tmp_path}/other"]) == 0
    assert [config.trainer.lr for config, _ in scored] == continued


def test_what_failed_in_a_search_is_told_again_and_not_tried_again(
    scored: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    words = ["run", "-m", *RECIPE, "search=optuna", "search.runs=3", LR]
    module = sys.modules["prunebench.run"]
    run, calls = module.run, []

    def failing(config: RunConfig, *, force: bool = False) -> dict[str, object]:
        calls.append(config)
        if len(calls) == 2:
            raise RunError("the loss is not a number")
        return dict(run(config, force=force))

    monkeypatch.setattr(module, "run", failing)
    for _ in range(2):  # the second time nothing is computed
        assert main(words) == 1
        assert len(calls) == 3
        members = find_sweep("last", "outputs").members
        assert sorted(member.status for member in members) == ["failed", "finished", "finished"]
        assert [member.reason for member in members if member.reason] == ["the loss is not a number"]
    assert "the loss is not a number" in capsys.readouterr().err


def test_a_proposal_that_was_cut_short_is_completed(scored: Runs, tmp_path: Path) -> None:
    """As it is where the search was killed between the values of a proposal."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    words = ["run", "-m", *RECIPE, "search=optuna", "search.runs=2", LR]
    assert main(words) == 0
    (journal,) = Path("outputs/.sweeps").glob(f"*/{JOURNAL}")
    study = optuna.load_study(study_name="search", storage=JournalStorage(JournalFileBackend(str(journal))))
    study.ask()
    assert main(words) == 0
    assert [member.status for member in find_sweep("last", "outputs").members] == ["finished"] * 3
    assert len(scored) == 3
