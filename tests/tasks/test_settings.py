"""Which rows a split uses, and which metrics fit which problem."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunebench.config import DatasetConfig
from prunebench.errors import UsageError
from prunebench.tasks.settings import check_metrics, choose


def config(**settings: Any) -> DatasetConfig:
    return DatasetConfig(name="x", task="classification", **settings)


@given(total=st.integers(2, 300), data=st.data())
def test_holdout_and_train_share_nothing_and_miss_nothing(total: int, data: st.DataObject) -> None:
    holdout = data.draw(st.integers(1, total - 1))
    train, held = (choose(total, split, config(holdout=holdout)) for split in ("train", "holdout"))
    assert len(held) == holdout
    assert sorted(train + held) == list(range(total))
    assert train == sorted(train) and held == sorted(held)
    limit = data.draw(st.integers(1, total))
    limited = choose(total, "train", config(holdout=holdout, limit=limit))
    assert len(limited) == min(limit, len(train)) and set(limited) <= set(train)


@given(total=st.integers(1, 300), data=st.data())
def test_a_larger_limit_contains_the_smaller(total: int, data: st.DataObject) -> None:
    small, large = sorted(data.draw(st.tuples(st.integers(1, total), st.integers(1, total))))
    assert set(choose(total, "train", config(limit=small))) <= set(choose(total, "train", config(limit=large)))


def test_the_subset_is_the_same_for_ever() -> None:
    """Literal values: a change would silently compare runs on different data."""
    assert choose(20, "train", config(limit=5)) == [0, 3, 4, 6, 17]
    assert choose(20, "holdout", config(holdout=4)) == [5, 12, 14, 19]


def test_each_split_has_its_own_limit() -> None:
    settings = config(limit=3, validation_limit=4)
    assert len(choose(10, "train", settings)) == 3
    assert len(choose(10, "validation", settings)) == 4
    assert choose(10, "validation", config(limit=3, holdout=2)) == list(range(10))
    assert len(choose(10, "holdout", config(holdout=6, validation_limit=4))) == 4


@pytest.mark.parametrize("settings", [{"holdout": 10}, {"holdout": 0}, {"limit": 0}, {"limit": -3}])
def test_nothing_left_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=f"dataset.{next(iter(settings))}="):
        choose(10, "train", config(**settings))


@pytest.mark.parametrize(
    ("settings", "problem", "expected"),
    [
        ({}, "classification", (["accuracy"], "accuracy", True)),
        ({"metric": "f1"}, "classification", (["f1"], "f1", True)),
        ({"metrics": ["accuracy", "f1"], "metric": "f1"}, "classification", (["f1", "accuracy"], "f1", True)),
        ({}, "regression", (["pearson", "spearmanr", "mse"], "pearson", True)),
        ({"metrics": ["mse"]}, "regression", (["mse"], "mse", False)),
        ({}, "question_answering", (["f1", "exact_match"], "f1", True)),
    ],
)
def test_metrics(settings: dict[str, Any], problem: str, expected: tuple[list[str], str, bool]) -> None:
    assert check_metrics(config(**settings), problem) == expected


def test_a_metric_of_another_problem_is_refused() -> None:
    with pytest.raises(UsageError, match="'mse' is no metric for classification"):
        check_metrics(config(metrics=["accuracy", "mse"]), "classification")
    with pytest.raises(UsageError, match="'rouge' is no metric for question_answering"):
        check_metrics(config(metric="rouge"), "question_answering")
