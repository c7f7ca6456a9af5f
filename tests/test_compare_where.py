"""The language of --where: what it selects, what it refuses, and that nothing is ever evaluated."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from prunebench.compare import Run, find_key, load_runs, parse_where, short_key
from prunebench.errors import UsageError
from tests.comparing import finished_run


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """a: seed 1, 50 %, lr 1e-4; b: seed 2, 90 %, lr 2e-4, all components; 90: seed 3, dense."""
    both = {"pruning.components": ["encoder", "head"], "pruning.scope.name": "erk"}
    finished_run(tmp_path, (1, 1, 0, 0), name="a", seed=1, sparsity=0.5, settings={"trainer.lr": 1e-4})
    finished_run(tmp_path, (1, 1, 1, 0), name="b", seed=2, sparsity=0.9, settings={"trainer.lr": 2e-4, **both})
    finished_run(tmp_path, (1, 1, 1, 1), name="90", seed=3, sparsity=0.0, settings={"distillation.teacher": "none"})
    return load_runs(tmp_path)


def names(text: str, runs: list[Run]) -> str:
    fits = parse_where(text, runs)
    return " ".join(run.name for run in sorted(runs, key=lambda run: run.seed) if fits(run))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sparsity>=0.5", "a b"),
        ("sparsity >= .9 and dataset=sst2", "b"),
        ("sparsity.prunable<0.9", "a 90"),
        ("dataset.name != 'sst2'", ""),
        ("score > 0.6", "b 90"),
        ("seed in (1, 3)", "a 90"),
        ("seed not in [1, 3]", "b"),
        ("not seed in (1,3)", "b"),
        ("name=a or name=b and seed=1", "a"),
        ("(name=a or name=b) and seed=2", "b"),
        ("not (name=a or name=b)", "90"),
        ("NOT name=a AND seed<3", "b"),
        ("trainer.lr=1e-4", "a"),
        ("trainer.lr==0.0002", "b"),
        ("components=head", "b"),
        ("components=encoder and components!=head", "a 90"),
        ("scope=erk", "b"),
        ("max_steps=null", "a b 90"),
        ("keep_zeros=false", "a b 90"),
        ("keep_zeros=0", ""),
        ("name=90", "90"),
        ("teacher=none", "90"),
        ('name = "a"', "a"),
        ("recovery>0", "90"),
    ],
)
def test_it_selects(text: str, expected: str, runs: list[Run]) -> None:
    assert names(text, runs) == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("sparsty>0.5", "no run has such a setting or result (did you mean 'sparsity'?)"),
        ("lr=1", "2 keys end so: pruning.schedule.lr, trainer.lr; give more of it"),
        ("sparsity>", "expected a value before the end"),
        ("sparsity 0.9", "expected =, !=, <, <=, >, >= or in after sparsity, not 0.9"),
        ("sparsity>0.9 seed=1", "did not expect seed; join comparisons with and, or"),
        ("(seed=1", "expected ) before the end"),
        ("seed=1)", "did not expect )"),
        ("seed in 1", "expected ( after in, not 1"),
        ("seed in (1 2)", "expected , or ) before 2"),
        ("seed not 1", "expected in after seed not"),
        ("name>5", "> compares numbers, and name is none"),
        ("seed<abc", "< compares numbers, and abc is none"),
        ("name='a", "is a quote missing?"),
        ("", "expected a key before the end"),
        ("and", "no run has such"),
        ("seed=1 or", "expected a key before the end"),
        ("seed.__class__=1", "no run has such"),
        ("__import__('os').system('touch x')", "no run has such"),
    ],
)
def test_mistakes_are_one_line_with_the_place(text: str, part: str, runs: list[Run]) -> None:
    with pytest.raises(UsageError, match=re.escape(part)) as error:
        parse_where(text, runs)
    assert str(error.value).startswith("--where ") and "\n" not in str(error.value)


def test_it_agrees_with_python_on_random_filters(runs: list[Run]) -> None:
    """Precedence and nesting, with Python's own grammar as the judge."""
    draw = random.Random(0)

    def make(depth: int) -> str:
        kind = draw.choice(["and", "or", "not", "()", ""]) if depth else ""
        if kind in ("and", "or"):
            return f"{make(depth - 1)} {kind} {make(depth - 1)}"
        if kind:
            return f"not {make(0)}" if kind == "not" else f"({make(depth - 1)})"
        key, sign, number = ("seed", "sparsity"), ("<", "<=", "==", "!=", ">", ">="), ("0.5", "1", "2", "3")
        return " ".join(draw.choice(part) for part in (key, sign, number))

    for _ in range(300):
        text = make(4)
        fits = parse_where(text, runs)
        for run in runs:
            expected = eval(text, {}, {"seed": run.seed, "sparsity": run.settings["sparsity"]})
            assert fits(run) is expected, text


SETTINGS = {"sparsity", "seed", "trainer.lr", "pruning.schedule.lr", "pruning.scope.name", "dataset.name", "model.name",
            "distillation.temperature"}  # fmt: skip


@pytest.mark.parametrize(
    ("word", "key"),
    [("scope", "pruning.scope.name"), ("dataset", "dataset.name"), ("schedule.lr", "pruning.schedule.lr"),
     ("temperature", "distillation.temperature"), ("score", "metric.value"), ("metric.value", "metric.value")],
)  # fmt: skip
def test_keys_may_be_short(word: str, key: str) -> None:
    assert find_key(word, SETTINGS, {"metric.value", "training.temperature"}) == key


@pytest.mark.parametrize("key", sorted(SETTINGS))
def test_a_short_key_is_understood_and_none_shorter_would_be(key: str) -> None:
    short = short_key(key, SETTINGS)
    assert find_key(short, SETTINGS) == key
    if "." in short:
        with pytest.raises(UsageError):
            find_key(short.partition(".")[2], SETTINGS)


def test_a_run_without_the_value_fits_only_what_denies_it(tmp_path: Path) -> None:
    finished_run(tmp_path, name="old")
    finished_run(tmp_path, name="new", extra={"depth": 3})
    runs: Any = load_runs(tmp_path)
    assert names("extra.depth=3", runs) == names("extra.depth>=3", runs) == "new"
    assert names("extra.depth!=3", runs) == names("extra.depth=null", runs) == "old"
