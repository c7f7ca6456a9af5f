"""`evaluate.Metric`s that need no network, over scikit-learn and scipy; import it late, `evaluate` takes seconds.

All scores are finite: where a coefficient is undefined, because predictions (or labels) are constant or fewer than
two, it is 0.0: such predictions carry no information. Which fits which problem, and whether higher is better,
stands in `settings.METRICS`.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import evaluate
from datasets import Features, Value
from datasets import Sequence as ListOf

from prunebench.errors import RunError, UsageError, did_you_mean
from prunebench.tasks import squad


class _Metric(evaluate.Metric):  # type: ignore[misc]  # evaluate is untyped
    """Keeps what it is given in memory. `_compute` returns {name: float}, GLUE's scores in [-1, 1] or [0, 1]."""

    features = Features({"predictions": Value("int64"), "references": Value("int64")})

    def _info(self) -> Any:
        return evaluate.MetricInfo(
            description=self.__doc__ or "", citation="", inputs_description="", features=self.features
        )


class Accuracy(_Metric):
    """Share of predictions that equal the label."""

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        from sklearn.metrics import accuracy_score

        return {"accuracy": float(accuracy_score(references, predictions))}


class F1(_Metric):
    """F1 of label 1 where there are two labels (average="binary"), else the mean over labels ("macro")."""

    def _compute(
        self, predictions: Sequence[int], references: Sequence[int], average: str = "binary"
    ) -> dict[str, float]:
        from sklearn.metrics import f1_score

        return {"f1": float(f1_score(references, predictions, average=average, zero_division=0.0))}


class MatthewsCorrelation(_Metric):
    """Matthews correlation coefficient; 0.0 for constant predictions."""

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        from sklearn.metrics import matthews_corrcoef

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a single label
            return {"matthews_correlation": _or_zero(float(matthews_corrcoef(references, predictions)))}


class _Regression(_Metric):
    features = Features({"predictions": Value("float64"), "references": Value("float64")})


class Pearson(_Regression):
    """Pearson correlation; 0.0 for constant predictions."""

    def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
        from scipy.stats import pearsonr

        return {"pearson": _correlation(pearsonr, predictions, references)}


class Spearman(_Regression):
    """Spearman rank correlation; 0.0 for constant predictions."""

    def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
        from scipy.stats import spearmanr

        return {"spearmanr": _correlation(spearmanr, predictions, references)}


class MeanSquaredError(_Regression):
    """Mean squared error: lower is better."""

    def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
        from sklearn.metrics import mean_squared_error

        return {"mse": float(mean_squared_error(references, predictions))}


class Squad(_Metric):
    """Exact match and F1 in percent, as SQuAD's official scorer and `evaluate`'s metric of that name."""

    features = Features(
        {
            "predictions": {"id": Value("string"), "prediction_text": Value("string")},
            "references": {
                "id": Value("string"),
                "answers": ListOf({"text": Value("string"), "answer_start": Value("int32")}),
            },
        }
    )

    def _compute(self, predictions: Sequence[dict[str, Any]], references: Sequence[dict[str, Any]]) -> dict[str, float]:
        texts = {prediction["id"]: prediction["prediction_text"] for prediction in predictions}
        pairs = [(texts[reference["id"]], reference["answers"]["text"]) for reference in references]
        return {
            "exact_match": 100.0 * sum(squad.exact_match(*pair) for pair in pairs) / len(pairs),
            "f1": 100.0 * sum(squad.f1(*pair) for pair in pairs) / len(pairs),
        }


class Bleu(_Metric):
    """Corpus BLEU in percent, by sacrebleu with its defaults (Post 2018)."""

    features = Features({"predictions": Value("string"), "references": Value("string")})

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        return {"bleu": float(_scorer("bleu").corpus_score(predictions, [references]).score)}


class Chrf(_Metric):
    """Corpus chrF (character n-grams up to 6) in percent, by sacrebleu with its defaults (Popović 2015)."""

    features = Features({"predictions": Value("string"), "references": Value("string")})

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        return {"chrf": float(_scorer("chrf").corpus_score(predictions, [references]).score)}


def _scorer(name: str) -> Any:
    import sacrebleu

    return sacrebleu.BLEU() if name == "bleu" else sacrebleu.CHRF()


def signature(name: str) -> str:
    """What sacrebleu asks everybody to print beside a score of `SACREBLEU`: tokenisation, smoothing, version."""
    scorer = _scorer(name)
    scorer.corpus_score(["a"], [["a"]])  # it knows the number of references only then
    return str(scorer.get_signature())


OURS: dict[str, type[_Metric]] = {
    "accuracy": Accuracy,
    "f1": F1,
    "matthews_correlation": MatthewsCorrelation,
    "pearson": Pearson,
    "spearmanr": Spearman,
    "mse": MeanSquaredError,
    "squad": Squad,
    "bleu": Bleu,
    "chrf": Chrf,
}


def load(name: str, folder: str) -> Any:
    """One of ours, or any other of `evaluate`'s by its hub name, which needs a network; temporary files in `folder`.

    Raises:
        UsageError: not ours, and not to be had from the hub.
    """
    if name in OURS:
        return OURS[name](keep_in_memory=True, cache_dir=folder)
    try:
        return evaluate.load(name, keep_in_memory=True, cache_dir=folder)
    except Exception as error:  # it runs code from the hub: anything can happen
        ours = ", ".join(OURS)
        raise UsageError(
            f"dataset.metrics: '{name}' is none of ours ({ours}){did_you_mean(name, OURS)}, and cannot be loaded "
            f"from the hub ({type(error).__name__})"
        ) from error


def check(names: Sequence[str]) -> None:
    """Raises UsageError for a metric that cannot be had."""
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            load(name, folder)


def compute(name: str, predictions: Sequence[Any], references: Sequence[Any], **settings: Any) -> dict[str, float]:
    """The scores of one metric by their names; several of one foreign metric are prefixed with its name.

    Raises:
        RunError: a score is not finite, or the metric does not accept this task's predictions.
    """
    with tempfile.TemporaryDirectory() as folder:
        metric = load(name, folder)
        try:
            result = metric.compute(predictions=predictions, references=references, **settings)
        except (ValueError, TypeError) as error:
            raise RunError(f"metric {name} cannot score these predictions: {error}") from error
    scores = {key: float(value) for key, value in result.items() if isinstance(value, int | float)}
    if name not in OURS:
        scores = {name if key == name or len(scores) == 1 else f"{name}_{key}": v for key, v in scores.items()}
    bad = [key for key, value in scores.items() if not math.isfinite(value)]
    if bad:
        raise RunError(f"metric {bad[0]} is not a finite number")
    return scores


def _correlation(function: Callable[..., Any], predictions: Sequence[float], references: Sequence[float]) -> float:
    if len(set(predictions)) < 2 or len(set(references)) < 2:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nearly constant
        return _or_zero(float(function(predictions, references)[0]))


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
