"""Settings of a dataset, checked: which metrics, which rows, and what is generated. No torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any

import numpy as np

from prunebench.config import DatasetConfig
from prunebench.errors import UsageError, brief, did_you_mean
from prunebench.tasks.choices import CHOICES, MULTIPLE_CHOICE

METRICS = {  # ours, by problem: is higher better?
    "classification": {"accuracy": True, "f1": True, "matthews_correlation": True},
    "regression": {"pearson": True, "spearmanr": True, "mse": False},
    "multiple_choice": {"accuracy": True},
    "question_answering": {"f1": True, "exact_match": True},
    "causal_language_modelling": {"perplexity": False},
    "masked_language_modelling": {"masked_perplexity": False, "masked_accuracy": True},
    "sequence_to_sequence": {"bleu": True, "chrf": True, "answer_accuracy": True},
}
SACREBLEU = ("bleu", "chrf")  # need that package
TOKENS = ("language_modelling", "sequence_to_sequence")  # tasks whose answers are words of a vocabulary
ONLY_OURS = (
    "question_answering",
    "causal_language_modelling",
    "masked_language_modelling",
)  # metrics of these problems
DEFAULTS = {
    "classification": ["accuracy"], "regression": ["pearson", "spearmanr", "mse"],
    "sequence_to_sequence": ["bleu", "chrf"],
}  # fmt: skip
LOWER_IS_BETTER = ("mse", "mae", "rmse", "mape", "smape", "mase", "brier_score", "perplexity", "wer", "cer", "ter")
SUBSET_SEED, HOLDOUT_SEED = 20231213, 542  # fixed: the same examples whatever the seed of a run


def problem_of(dataset: DatasetConfig, objective: str | None) -> str | None:
    """The key in METRICS; None where the objective of language modelling is not known."""
    if dataset.task in CHOICES:
        return MULTIPLE_CHOICE
    if dataset.task in ("question_answering", "sequence_to_sequence"):
        return dataset.task
    if dataset.task == "language_modelling":
        return objective and f"{objective}_language_modelling"
    return "regression" if dataset.regression else "classification"


def check_metrics(dataset: DatasetConfig, problem: str) -> tuple[list[str], str, bool]:
    """(all metrics, the primary one first; the primary one; is higher better there?) of a dataset.

    Raises:
        UsageError: a metric is of another problem, or (fetched here, to find out early) not to be had.
    """
    ours = METRICS[problem]
    names = metric_names(dataset, problem)
    foreign = [name for name in names if name not in ours]
    if foreign:
        from prunebench.tasks import metrics

        metrics.check(foreign)
    return names, names[0], ours.get(names[0], names[0] not in LOWER_IS_BETTER)


def metric_names(dataset: DatasetConfig, problem: str) -> list[str]:
    """All metrics, the primary one first. Raises UsageError for one of ours that is for other problems."""
    ours = METRICS[problem]
    given = [dataset.metric] if dataset.metric else []
    names = list(dict.fromkeys([*given, *dataset.metrics])) or DEFAULTS.get(problem, list(ours))
    for name in set(names) - set(ours):
        if problem in ONLY_OURS or any(name in others for others in METRICS.values()):
            raise UsageError(
                f"dataset.metrics: '{brief(name)}' is no metric for {problem}, which has {', '.join(ours)}"
            )
    if set(names) & set(SACREBLEU) and find_spec("sacrebleu") is None:
        raise UsageError("dataset.metrics: bleu and chrf need sacrebleu: pip install 'prunebench[seq2seq]'")
    return names


def choose(total: int, split: str, dataset: DatasetConfig) -> list[int]:
    """The rows, in ascending order, that `split` uses of the `total` in its source.

    `holdout` rows are taken out of train first; then `limit` (for validation: `validation_limit`) of what is left,
    a larger limit containing the smaller. Random, but the same for every seed of a run.

    Raises:
        UsageError: the holdout leaves nothing to train on, or a limit nothing at all.
    """
    rows = np.arange(total)
    if dataset.holdout is not None and split in ("train", "holdout"):
        if not 0 < dataset.holdout < total:
            raise UsageError(f"dataset.holdout={dataset.holdout}: train has {total} examples; take 1 to {total - 1}")
        shuffled = np.random.RandomState(HOLDOUT_SEED).permutation(total)  # its stream is frozen, Generator's is not
        rows = np.sort(shuffled[: dataset.holdout] if split == "holdout" else shuffled[dataset.holdout :])
    name = "limit" if split == "train" else "validation_limit"
    limit: int | None = getattr(dataset, name)
    if limit is not None and limit < 1:
        raise UsageError(f"dataset.{name}={limit}: it must be at least 1, or null for all examples")
    if limit is not None and limit < len(rows):
        rows = np.sort(rows[np.random.RandomState(SUBSET_SEED).permutation(len(rows))[:limit]])
    return [int(row) for row in rows]


@dataclass(frozen=True)
class Reviews:
    """What is generated: numbers of sentences, the seed, and how hard they are.

    negation: how often a clause is negated. noise: how many labels, in both splits, are of somebody who disagrees,
    which keeps every model below 1 - noise.
    """

    train: int = 3000
    validation: int = 1000
    seed: int = 1
    negation: float = 0.2
    noise: float = 0.04


def read_params(params: dict[str, Any]) -> Reviews:
    """Raises UsageError for a name or value that makes no sense."""
    kinds = {field.name: type(field.default) for field in fields(Reviews)}
    for name, value in params.items():
        if name not in kinds:
            raise UsageError(
                f"dataset.params.{brief(name)} is unknown{did_you_mean(name, kinds)}: it takes {', '.join(kinds)}"
            )
        if isinstance(value, bool) or not isinstance(value, int if kinds[name] is int else int | float):
            raise UsageError(
                f"dataset.params.{name}={brief(value)}: give {'an integer' if kinds[name] is int else 'a number'}"
            )
    reviews = Reviews(**params)
    for name, low, high in (("train", 1, 50_000), ("validation", 1, 50_000), ("negation", 0, 1), ("noise", 0, 0.5)):
        value = getattr(reviews, name)
        if not low <= value <= high:
            raise UsageError(f"dataset.params.{name}={brief(value)}: it must be between {low} and {high}")
    return reviews
