"""Labels as they stand in data, as ids or as numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from prunebench.errors import UsageError, brief, did_you_mean
from prunebench.tasks.tables import Table, listed

SETTING = "dataset.label_column"
HIDDEN = "-1 marks hidden labels, as in GLUE's test splits: choose a split with labels"
MOST = 1000  # more different labels than that are a mistake


def label_names(table: Table, column: str) -> list[str]:
    """The names in the order of their ids: the dataset's own, else all that occur, numbers in their order.

    Raises:
        UsageError: a label is missing or hidden, or they look like numbers to be predicted.
    """
    if column in table.class_names:
        return table.class_names[column]
    names = set(_names(table, column))
    if "-1" in names and _all_integers(names):
        raise UsageError(f"{table.where(_names(table, column).index('-1'))}: label -1: {HIDDEN}")
    if any(not _is_integer(name) and _is_number(name) for name in names):
        raise UsageError(f"{table.source}: '{brief(column)}' holds numbers with fractions: set dataset.regression=true")
    if not 2 <= len(names) <= MOST:
        raise UsageError(f"{table.source}: '{brief(column)}' holds {len(names)} different labels: set {SETTING}")
    return sorted(names, key=int) if _all_integers(names) else sorted(names)


def label_ids(table: Table, column: str, labels: Sequence[str]) -> list[int]:
    """Ids of a column's labels in `labels`, by name; or as they are, where the column holds ids, not names."""
    names = _names(table, column)
    ids = {name: i for i, name in enumerate(labels)}
    folded = {name.casefold(): i for i, name in enumerate(labels)}
    if len(folded) == len(ids):  # NEGATIVE is negative
        ids |= {name: folded[name.casefold()] for name in set(names) if name.casefold() in folded}
    distinct = set(names)
    if not distinct & set(ids) and distinct <= {str(i) for i in range(len(labels))}:
        return [int(name) for name in names]
    for row, name in enumerate(names):
        if name not in ids:
            why = f": {HIDDEN}" if name == "-1" else did_you_mean(name, labels)
            raise UsageError(f"{table.where(row)}: label '{brief(name)}' is none of {listed(labels)}{why}")
    return [ids[name] for name in names]


def numbers(table: Table, column: str) -> list[float]:
    """A column of finite numbers, for regression."""
    values = []
    for row, value in enumerate(table.column(column, SETTING)):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise UsageError(f"{table.where(row)}: '{brief(column)}' is {brief(repr(value))}, not a finite number")
        values.append(number)
    return values


def _names(table: Table, column: str) -> list[str]:
    classes = table.class_names.get(column)
    return [_name(value, table, column, row, classes) for row, value in enumerate(table.column(column, SETTING))]


def _name(value: Any, table: Table, column: str, row: int, classes: list[str] | None) -> str:
    if value is None or value == "" or value != value:
        raise UsageError(f"{table.where(row)}: '{brief(column)}' is missing")
    if classes is not None:
        if value == -1:
            raise UsageError(f"{table.where(row)}: label -1: {HIDDEN}")
        return str(classes[value])
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str | int | float):
        return str(value).strip()
    raise UsageError(f"{table.where(row)}: '{brief(column)}' is a {type(value).__name__}, not a label")


def _all_integers(names: set[str]) -> bool:
    return all(_is_integer(name) for name in names)


def _is_integer(name: str) -> bool:
    return len(name) <= 20 and name.removeprefix("-").isdecimal()  # longer ones are names of digits


def _is_number(name: str) -> bool:
    try:
        return math.isfinite(float(name))
    except ValueError:
        return False
