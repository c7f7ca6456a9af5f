"""Labels become ids by name wherever names are known, and numbers where they are to be predicted."""

from __future__ import annotations

import math
from typing import Any

import pytest

from prunebench.errors import UsageError
from prunebench.tasks.labels import label_ids, label_names, numbers
from prunebench.tasks.tables import Table


def table(*values: Any, classes: list[str] | None = None) -> Table:
    return Table({"label": list(values)}, "x.csv", class_names={"label": classes} if classes else {})


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["b", "a", "b"], ["a", "b"]),
        (["10", "9", "0"], ["0", "9", "10"]),
        ([1, 0, 2], ["0", "1", "2"]),
        ([1.0, 0.0], ["0", "1"]),
        ([True, False], ["false", "true"]),
        ([" yes", "no "], ["no", "yes"]),
    ],
)
def test_names_are_the_distinct_values_in_order(values: list[Any], names: list[str]) -> None:
    assert label_names(table(*values), "label") == names
    assert label_ids(table(*values), "label", names) == [
        names.index(str(v).strip().lower().removesuffix(".0")) for v in values
    ]


def test_the_hubs_names_are_kept_even_if_one_does_not_occur() -> None:
    data = table(0, 1, 0, classes=["entailment", "neutral", "contradiction"])
    assert label_names(data, "label") == ["entailment", "neutral", "contradiction"]
    assert label_ids(data, "label", ["contradiction", "neutral", "entailment"]) == [2, 1, 2]


def test_given_names_are_matched_by_name_else_numbers_are_ids() -> None:
    assert label_ids(table("pos", "neg"), "label", ["neg", "pos"]) == [1, 0]
    assert label_ids(table("POSITIVE", "negative"), "label", ["Negative", "Positive"]) == [1, 0]
    assert label_ids(table("1", "0"), "label", ["neg", "pos"]) == [1, 0]
    assert label_ids(table("1", "0"), "label", ["1", "0"]) == [0, 1]  # these are names
    assert label_ids(table("a", "A"), "label", ["A", "a"]) == [1, 0]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (["a", "b", None], "row 3: 'label' is missing"),
        (["a", "", "b"], "row 2: 'label' is missing"),
        ([0, math.nan], "row 2: 'label' is missing"),
        ([0, -1], "row 2: label -1: -1 marks hidden labels"),
        ([0, 1, ["x"]], "row 3: 'label' is a list"),
        (["1.5", "2.0"], "dataset.regression=true"),
        (["a", "a"], "1 different labels"),
    ],
)
def test_refused_as_classes(values: list[Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        label_names(table(*values), "label")


def test_refused_with_given_names() -> None:
    with pytest.raises(UsageError, match=r"row 2: label 'neutrl' is none of .*\(did you mean 'neutral'\?\)"):
        label_ids(table("neutral", "neutrl"), "label", ["neutral", "entailment"])
    with pytest.raises(UsageError, match="row 1: label '2' is none of"):
        label_ids(table("2", "0"), "label", ["a", "b"])
    with pytest.raises(UsageError, match="hidden labels"):
        label_ids(table("-1", "-1"), "label", ["a", "b"])
    with pytest.raises(UsageError, match="hidden labels"):
        label_ids(table(-1, -1, classes=["a", "b"]), "label", ["a", "b"])


def test_numbers() -> None:
    assert numbers(table("1.5", 2, 3.25), "label") == [1.5, 2.0, 3.25]
    for bad in ("x", "", None, math.nan, "nan", math.inf):
        with pytest.raises(UsageError, match=r"row 2: 'label' is .*not a finite number"):
            numbers(table(1, bad), "label")
