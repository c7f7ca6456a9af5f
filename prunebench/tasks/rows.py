"""From the rows of a table to texts and labels, checked. No torch, so `plan` can ask."""

from __future__ import annotations

from collections.abc import Sequence

from prunebench.config import DatasetConfig
from prunebench.errors import UsageError
from prunebench.tasks.labels import label_ids, numbers
from prunebench.tasks.tables import Table, listed

TEXT_COLUMNS = (  # tried in this order
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text1", "text2"),
    ("sentence",),
    ("text",),
)
SETTING = "dataset.text_columns"


def read_rows(
    table: Table, dataset: DatasetConfig, labels: Sequence[str] | None
) -> tuple[list[list[str]], list[int] | list[float]]:
    """One or two columns of n texts, and n ids of `labels`, or (labels=None) n finite numbers.

    Raises:
        UsageError: a column, a text or a label is missing, or is not what it should be.
    """
    texts = [table.texts(name, SETTING) for name in text_columns(table, dataset)]
    column = dataset.label_column
    return texts, numbers(table, column) if labels is None else label_ids(table, column, labels)


def text_columns(table: Table, dataset: DatasetConfig) -> Sequence[str]:
    """Those that are asked for, else the first of the usual ones that are there."""
    if dataset.text_columns:
        return list(dataset.text_columns)
    for names in TEXT_COLUMNS:
        if all(name in table.columns for name in names):
            return names
    usual = ", ".join("+".join(names) for names in TEXT_COLUMNS)
    found = listed(table.columns)
    raise UsageError(f"{table.source}: set {SETTING}; none of {usual} is among its columns ({found})")
