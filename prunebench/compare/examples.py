"""Tests per example, from saved predictions: what each metric is as a function of how often each example counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunebench.compare.groups import Bench
from prunebench.compare.runs import Run
from prunebench.compare.statistics import bootstrap, mcnemar, resample_weights

Weighted = Callable[[np.ndarray], np.ndarray]  # weights (resamples, examples) -> scores (resamples,)
Lines = Sequence[Mapping[str, Any]]
RIGHT = {
    "accuracy": "correct",
    "answer_accuracy": "correct",
    "exact_match": "exact_match",
}  # metrics of right and wrong, and their key in a line
AGREEMENT = 1e-6  # of a score computed here with that of the result, relative
MCNEMAR, BOOTSTRAP = "McNemar's exact test", "paired bootstrap"


@dataclass(frozen=True)
class Examples:
    """What one run predicted, as its metric needs it."""

    ids: list[Any]
    score: Weighted
    right: np.ndarray | None  # (examples,) 0 or 1, for metrics that are a share of right predictions


def read_examples(run: Run, bench: Bench) -> Examples | None:
    """None where there are no predictions, or where they do not give the run's own score."""
    lines = [line for line in run.predictions() if line.get("split") == bench.split]
    try:
        return _read(lines, bench.metric, run.score) if lines else None
    except (KeyError, TypeError, ValueError, IndexError):  # lines that are not those of the metric
        return None


def _read(lines: Lines, metric: str, score: float) -> Examples | None:
    ids, all_once = [line["id"] for line in lines], np.ones((1, len(lines)))
    for weighted in _candidates(metric, lines):
        if abs(float(weighted(all_once)[0]) - score) <= AGREEMENT * max(1.0, abs(score)):
            right = np.asarray([line[RIGHT[metric]] for line in lines], int) if metric in RIGHT else None
            return Examples(ids, weighted, right)
    return None


class ExampleTests:
    """The per-example test of pairs of runs of one bench. Reads what all of them predicted, once."""

    def __init__(self, runs: Iterable[Run], bench: Bench) -> None:
        self._examples = {run.digest: found for run in runs if (found := read_examples(run, bench))}
        self.name = MCNEMAR if bench.metric in RIGHT else BOOTSTRAP
        self._resampled: dict[str, np.ndarray] = {}
        if self.name == BOOTSTRAP and self._examples:
            self._resample()

    def _resample(self) -> None:
        """Every run is scored on the same resampled examples."""
        examples = len(next(iter(self._examples.values())).ids)
        parts: dict[str, list[np.ndarray]] = {
            key: [] for key, found in self._examples.items() if len(found.ids) == examples
        }
        for weights in resample_weights(examples):
            for key, part in parts.items():
                part.append(self._examples[key].score(weights))
        self._resampled = {key: np.concatenate(part) for key, part in parts.items()}

    def p_value(self, pairs: Sequence[tuple[Run, Run]]) -> float | None:
        """Of the difference of the first from the second, over all pairs (one a seed); None where predictions lack."""
        keys = [(one.digest, other.digest) for one, other in pairs]
        found = [self._examples.get(key) for pair in keys for key in pair]
        known = [each for each in found if each is not None]
        if not known or len(known) < len(found) or any(each.ids != known[0].ids for each in known):
            return None
        if self.name == MCNEMAR:
            right = [each.right for each in known if each.right is not None]
            return mcnemar(np.stack(right[::2]) - np.stack(right[1::2]))
        return bootstrap(np.mean([self._resampled[one] - self._resampled[other] for one, other in keys], axis=0))


# --- metrics of weighted examples ---------------------------------------------------------------------------------


def _candidates(metric: str, lines: Lines) -> list[Weighted]:
    """The metric on these lines; several where they do not say which is meant; none for one unknown here."""
    if metric in RIGHT:
        share = _mean(_column(lines, RIGHT[metric]))
        return [share, lambda weights: 100 * share(weights)]  # SQuAD's is in per cent
    if metric == "f1" and "f1" in lines[0]:
        mean = _mean(_column(lines, "f1"))
        return [lambda weights: 100 * mean(weights)]
    if metric in ("f1", "matthews_correlation"):
        return _of_counts(metric, lines)
    if metric in ("perplexity", "masked_perplexity"):  # an example is a window of text
        loss = _ratio_of(_column(lines, "nll"), _column(lines, "tokens"))
        return [lambda weights: np.exp(loss(weights))]
    if metric == "masked_accuracy":
        return [_ratio_of(_column(lines, "correct"), _column(lines, "tokens"))]
    if metric in ("pearson", "spearmanr", "mse"):
        predicted, expected = _column(lines, "prediction"), _column(lines, "label")
        if metric == "mse":
            return [_mean((predicted - expected) ** 2)]
        return [_correlation(predicted, expected, ranks=metric == "spearmanr")]
    return []


def _column(lines: Lines, key: str) -> np.ndarray:
    return np.asarray([line[key] for line in lines], float)


def _mean(values: np.ndarray) -> Weighted:
    return _ratio_of(values, np.ones_like(values))


def _ratio_of(above: np.ndarray, below: np.ndarray) -> Weighted:
    """The ratio of two sums over examples."""
    return lambda weights: weights @ above / (weights @ below)


def _of_counts(metric: str, lines: Lines) -> list[Weighted]:
    """Functions of the confusion matrix. With two labels, which of them F1 is about is seen by the score."""
    labels = sorted({str(line[key]) for line in lines for key in ("label", "prediction")})
    size = len(labels)
    cells = [labels.index(str(line["label"])) * size + labels.index(str(line["prediction"])) for line in lines]
    indicator = np.eye(size * size)[cells]

    def counts(weights: np.ndarray) -> np.ndarray:
        return (weights @ indicator).reshape(-1, size, size)

    if metric == "matthews_correlation":
        return [lambda weights: _matthews(counts(weights))]
    if size > 2:
        return [lambda weights: _f1(counts(weights)).mean(-1), lambda weights: _macro_f1(counts(weights))]
    return [lambda weights, label=label: _f1(counts(weights))[:, label] for label in range(size)]  # type: ignore[misc]


def _f1(counts: np.ndarray) -> np.ndarray:
    """(resamples, labels); 0 for a label that is neither there nor predicted."""
    both = counts.sum(1) + counts.sum(2)
    hits = 2 * np.diagonal(counts, axis1=1, axis2=2)
    return _ratio(hits, both)


def _macro_f1(counts: np.ndarray) -> np.ndarray:
    """The mean over the labels that are there or predicted, as scikit-learn has it."""
    there = (counts.sum(1) + counts.sum(2)) > 0
    return _ratio(_f1(counts).sum(-1), there.sum(-1).astype(float))


def _matthews(counts: np.ndarray) -> np.ndarray:
    """Gorodkin's generalisation to several labels (2004); 0 where it is undefined."""
    total, hits = counts.sum((1, 2)), np.trace(counts, axis1=1, axis2=2)
    expected, predicted = counts.sum(2), counts.sum(1)
    above = hits * total - (expected * predicted).sum(1)
    below = np.sqrt((total**2 - (predicted**2).sum(1)) * (total**2 - (expected**2).sum(1)))
    return _ratio(above, below)


def _correlation(one: np.ndarray, other: np.ndarray, ranks: bool) -> Weighted:
    """Pearson's, of the values or (Spearman's) of their ranks, which are those within the resample."""

    def score(weights: np.ndarray) -> np.ndarray:
        first, second = (_ranks(values, weights) if ranks else values - values.mean() for values in (one, other))
        return _pearson(first, second, weights)

    return score


def _pearson(one: np.ndarray, other: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = weights.sum(1)
    means = [(weights * values).sum(1) / total for values in (one, other)]
    centred = [values - mean[:, None] for values, mean in zip((one, other), means, strict=True)]
    above, *squares = (
        (weights * a * b).sum(1) for a, b in (centred, (centred[0], centred[0]), (centred[1], centred[1]))
    )
    below = np.sqrt(squares[0] * squares[1])
    return _ratio(above, below)


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean ranks (up to a constant) among examples that count so often: (resamples, examples)."""
    distinct, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(distinct)))
    tied = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks: np.ndarray = np.cumsum(tied, axis=1) - tied / 2
    return ranks[:, place]


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """0 where it is undefined, as all scores are (see `tasks.metrics`)."""
    ratio: np.ndarray = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return ratio
