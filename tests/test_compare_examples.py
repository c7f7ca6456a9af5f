"""Tests per example: metrics of resampled examples are those of the repeated rows, by scikit-learn and scipy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from sklearn import metrics as sklearn_metrics

from prunebench.compare import group_runs, load_runs
from prunebench.compare.examples import ExampleTests, read_examples
from prunebench.compare.statistics import resample_weights
from tests.comparing import finished_run, predicted

Score = Callable[[Any, Any], float]


def labelled(labels: list[str], seed: int = 0, examples: int = 60) -> list[dict[str, Any]]:
    """Predictions that are right in seven of ten cases."""
    random = np.random.default_rng(seed)
    lines = []
    for index in range(examples):
        label = labels[index % len(labels)]
        guess = label if random.random() < 0.7 else str(random.choice(labels))
        lines.append(
            {"split": "validation", "id": index, "label": label, "prediction": guess, "correct": guess == label}
        )
    return lines


def numbered(seed: int = 0, examples: int = 60) -> list[dict[str, Any]]:
    """Regression with ties, since ranks are about them; the seed is that of the predictions."""
    labels = np.random.default_rng(0).integers(0, 6, examples) / 2
    guesses = np.round(labels + np.random.default_rng(seed + 1).normal(0, 1, examples), 1)
    return [
        {"split": "validation", "id": i, "label": float(y), "prediction": float(x), "error": float(x - y)}
        for i, (y, x) in enumerate(zip(labels, guesses, strict=True))
    ]


def answered(seed: int = 0, examples: int = 40) -> list[dict[str, Any]]:
    overlaps = np.random.default_rng(seed).choice([0.0, 0.4, 0.8, 1.0], examples)
    return [
        {"split": "validation", "id": f"q{i}", "answers": ["a"], "exact_match": float(f == 1), "f1": float(f)}
        for i, f in enumerate(overlaps)
    ]


def windows(seed: int = 0, examples: int = 40) -> list[dict[str, Any]]:
    """Language modelling: sums over a window's scored tokens."""
    random = np.random.default_rng(seed)
    counts = random.integers(1, 30, examples)
    return [
        {"split": "validation", "id": i, "tokens": int(n), "nll": float(random.gamma(3, n)), "correct": int(n // 2)}
        for i, n in enumerate(counts)
    ]


def rows(lines: list[dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    return [line["label"] for line in lines], [line["prediction"] for line in lines]


def of_pairs(function: Callable[..., float], **settings: Any) -> Score:
    return lambda lines, _: float(function(*rows(lines), **settings))


def mean_of(lines: list[dict[str, Any]], key: str) -> float:
    return float(np.mean([line[key] for line in lines]))


def share_of(lines: list[dict[str, Any]], key: str) -> float:
    """Of a sum over windows in the number of their tokens."""
    return float(sum(line[key] for line in lines) / sum(line["tokens"] for line in lines))


TWO, THREE = ["negative", "positive"], ["contradiction", "entailment", "neutral"]
CASES: dict[str, tuple[str, list[dict[str, Any]], Score]] = {
    "accuracy": ("accuracy", labelled(TWO), of_pairs(sklearn_metrics.accuracy_score)),
    "f1": ("f1", labelled(TWO), of_pairs(sklearn_metrics.f1_score, pos_label="positive")),
    "f1 of the other label": ("f1", labelled(TWO), of_pairs(sklearn_metrics.f1_score, pos_label="negative")),
    "macro f1": ("f1", labelled(THREE), of_pairs(sklearn_metrics.f1_score, average="macro")),
    "matthews": ("matthews_correlation", labelled(TWO), of_pairs(sklearn_metrics.matthews_corrcoef)),
    "matthews of three": ("matthews_correlation", labelled(THREE), of_pairs(sklearn_metrics.matthews_corrcoef)),
    "mse": ("mse", numbered(), of_pairs(sklearn_metrics.mean_squared_error)),
    "pearson": ("pearson", numbered(), lambda lines, _: float(scipy.stats.pearsonr(*rows(lines)).statistic)),
    "spearman": ("spearmanr", numbered(), lambda lines, _: float(scipy.stats.spearmanr(*rows(lines)).statistic)),
    "exact match": ("exact_match", answered(), lambda lines, _: 100 * mean_of(lines, "exact_match")),
    "perplexity": ("perplexity", windows(), lambda lines, _: float(np.exp(share_of(lines, "nll")))),
    "masked accuracy": ("masked_accuracy", windows(), lambda lines, _: share_of(lines, "correct")),
    "squad f1": ("f1", answered(), lambda lines, _: 100 * mean_of(lines, "f1")),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_resample_scores_as_its_rows_do(case: str, tmp_path: Path) -> None:
    metric, lines, score = CASES[case]
    finished_run(tmp_path, metric=(metric, score(lines, None), True), lines=lines)
    (group,) = group_runs(load_runs(tmp_path))
    found = read_examples(group.runs[0], group.bench)
    assert found is not None
    weights = next(resample_weights(len(lines), 20))
    repeated = [[line for line, count in zip(lines, row, strict=True) for _ in range(int(count))] for row in weights]
    assert found.score(weights) == pytest.approx([score(each, None) for each in repeated])


@pytest.mark.parametrize(
    ("metric", "lines"), [("matthews_correlation", labelled(TWO)), ("f1", labelled(TWO)), ("pearson", numbered())]
)
def test_a_score_that_is_undefined_is_zero(metric: str, lines: list[dict[str, Any]], tmp_path: Path) -> None:
    constant = [line | {"prediction": lines[0]["label"], "correct": False} for line in lines]
    finished_run(tmp_path, metric=(metric, 0.0, True), lines=constant)
    (group,) = group_runs(load_runs(tmp_path))
    found = read_examples(group.runs[0], group.bench)
    assert found is not None and (found.score(next(resample_weights(len(lines), 50))) == 0).all()


def pair_of(tmp_path: Path, metric: str, score: Score, makers: Callable[[int], list[dict[str, Any]]]) -> Any:
    """Two groups of two seeds each, as pairs of runs, and their bench."""
    for name, first in (("a", 0), ("b", 10)):
        for seed in (1, 2):
            lines = makers(first + seed)
            finished_run(tmp_path, name=name, seed=seed, metric=(metric, score(lines, None), True), lines=lines)
    a, b = group_runs(load_runs(tmp_path))
    return [(a.seeds[seed], b.seeds[seed]) for seed in (1, 2)], a.bench


def test_the_bootstrap_resamples_examples_of_all_seeds_and_both_models_together(tmp_path: Path) -> None:
    metric, _, score = CASES["pearson"]
    pairs, bench = pair_of(tmp_path, metric, score, numbered)
    test = ExampleTests([run for pair in pairs for run in pair], bench)
    columns = [[np.array(rows(list(run.predictions()))) for run in pair] for pair in pairs]
    literal = [
        np.mean([np.corrcoef(a[:, draw])[0, 1] - np.corrcoef(b[:, draw])[0, 1] for a, b in columns])
        for draw in np.random.default_rng(3).integers(0, 60, (3000, 60))
    ]
    expected = 2 * min(np.mean(np.array(literal) <= 0), np.mean(np.array(literal) >= 0))
    assert 0.05 < expected < 0.95, "else the comparison below says little"
    assert test.name == "paired bootstrap" and test.p_value(pairs) == pytest.approx(expected, abs=0.05)


def test_mcnemar_is_taken_for_right_and_wrong(tmp_path: Path) -> None:
    right = [[1] * 50 + [0] * 10, [1] * 20 + [0] * 40]
    for name, hits in zip("ab", right, strict=True):
        finished_run(tmp_path, hits, name=name)
    a, b = (group.runs[0] for group in group_runs(load_runs(tmp_path)))
    (bench,) = {group.bench for group in group_runs([a, b])}
    test = ExampleTests([a, b], bench)
    assert test.name == "McNemar's exact test"
    assert test.p_value([(a, b)]) == pytest.approx(scipy.stats.binomtest(30, 30).pvalue)


def test_predictions_that_are_missing_other_or_not_of_the_score_are_not_tested(tmp_path: Path) -> None:
    good = finished_run(tmp_path, name="good")
    for name in ("gone", "cut", "foreign", "untrue"):
        finished_run(tmp_path, name=name, digest=f"{name}0")
    (tmp_path / "gone" / "gone0" / "predictions.jsonl").unlink()
    lines = predicted((1, 1, 1, 0))
    for name, changed in (
        ("cut", lines[:2]),
        ("foreign", [line | {"id": f"x{line['id']}"} for line in lines]),
        ("untrue", predicted((0, 0, 0, 1))),
    ):
        text = "".join(json.dumps(line) + "\n" for line in changed)
        (tmp_path / name / f"{name}0" / "predictions.jsonl").write_text(text)
    runs = {run.name: run for run in load_runs(tmp_path)}
    bench = group_runs([runs["good"]])[0].bench
    test = ExampleTests(runs.values(), bench)
    assert test.p_value([(runs["good"], runs["good"])]) == 1.0 and good.is_dir()
    for name in ("gone", "cut", "foreign", "untrue"):
        assert test.p_value([(runs["good"], runs[name])]) is None, name
