"""Our metrics against their textbook formulas; finite, quiet, and without a network or files left behind."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import evaluate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunebench.errors import RunError, UsageError
from prunebench.tasks import metrics
from prunebench.tasks.settings import METRICS

pairs = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=12)
points = st.lists(
    st.tuples(st.integers(-5, 5).map(float), st.integers(-5, 5).map(lambda i: i / 2)), min_size=1, max_size=12
)


def count(data: list[tuple[int, int]], predicted: int, expected: int) -> int:
    return sum(1 for pair in data if pair == (predicted, expected))


@given(pairs)
@settings(max_examples=30)
def test_scores_of_two_classes(data: list[tuple[int, int]]) -> None:
    predicted, expected = zip(*data, strict=True)
    tp, fp, fn, tn = count(data, 1, 1), count(data, 1, 0), count(data, 0, 1), count(data, 0, 0)
    below = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    oracle = {
        "accuracy": (tp + tn) / len(data),
        "f1": 2 * tp / (2 * tp + fp + fn) if tp else 0.0,
        "matthews_correlation": (tp * tn - fp * fn) / below if below else 0.0,
    }
    for name, value in oracle.items():
        assert metrics.compute(name, predicted, expected) == {name: pytest.approx(value)}


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=12))
@settings(max_examples=20)
def test_macro_f1_is_the_mean_over_the_labels_that_occur(data: list[tuple[int, int]]) -> None:
    scores = []
    for label in {i for pair in data for i in pair}:
        hits = count(data, label, label)
        wrong = sum(1 for p, e in data if (p == label) != (e == label))
        scores.append(2 * hits / (2 * hits + wrong))
    predicted, expected = zip(*data, strict=True)
    ours = metrics.compute("f1", predicted, expected, average="macro")
    assert ours == {"f1": pytest.approx(sum(scores) / len(scores))}


def correlation(xs: list[float], ys: list[float]) -> float:
    mx, my = sum(xs) / len(xs), sum(ys) / len(ys)
    above = sum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True))
    below = math.sqrt(sum((x - mx) ** 2 for x in xs) * sum((y - my) ** 2 for y in ys))
    return above / below if below else 0.0


def ranks(xs: list[float]) -> list[float]:
    return [sum(y < x for y in xs) + (sum(y == x for y in xs) + 1) / 2 for x in xs]


@given(points)
@settings(max_examples=30)
def test_scores_of_numbers(data: list[tuple[float, float]]) -> None:
    xs, ys = [list(column) for column in zip(*data, strict=True)]
    oracle = {
        "pearson": correlation(xs, ys),
        "spearmanr": correlation(ranks(xs), ranks(ys)),
        "mse": sum((x - y) ** 2 for x, y in data) / len(data),
    }
    for name, value in oracle.items():
        assert metrics.compute(name, xs, ys) == {name: pytest.approx(value, abs=1e-9)}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["matthews_correlation", "pearson", "spearmanr", "f1"])
def test_constant_predictions_score_nothing(name: str) -> None:
    assert metrics.compute(name, [0, 0, 0], [0, 1, 1]) == {name: 0.0}
    assert metrics.compute(name, [0, 0, 0], [0, 0, 0]) == {name: 0.0}
    assert metrics.compute(name, [0], [0]) == {name: 0.0}


def test_they_are_evaluates_metrics_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(evaluate, "load", lambda *_, **__: pytest.fail("the hub was asked"))
    theirs = {"perplexity", "masked_perplexity", "masked_accuracy", "answer_accuracy", "exact_match"}  # tasks' own
    names = {name for group in METRICS.values() for name in group} - theirs | {"squad"}
    assert names == set(metrics.OURS)
    for kind in metrics.OURS.values():
        assert issubclass(kind, evaluate.Metric)
    metrics.check(list(metrics.OURS))
    assert metrics.compute("accuracy", [1, 0, 1], [1, 1, 1]) == {"accuracy": pytest.approx(2 / 3)}
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_foreign_metric_is_loaded_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Foreign:
        def compute(self, **_: object) -> dict[str, object]:
            return {"recall": 0.5, "support": [1, 2]}

    monkeypatch.setattr(evaluate, "load", lambda name, **_: Foreign())
    assert metrics.compute("recall", [1], [1]) == {"recall": 0.5}

    def offline(name: str, **_: object) -> None:
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(evaluate, "load", offline)
    with pytest.raises(
        UsageError, match=r"'acuracy' is none of ours .*\(did you mean 'accuracy'\?\), and cannot"
    ) as error:
        metrics.check(["acuracy"])
    assert "\n" not in str(error.value)


def test_a_score_that_is_no_number_fails_the_run() -> None:
    with pytest.raises(RunError, match="mse"):
        metrics.compute("mse", [math.nan], [1.0])
