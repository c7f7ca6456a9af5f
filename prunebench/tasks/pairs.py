"""From the rows of a table to pairs of a source and a target text, checked. No torch, so `plan` can ask."""

from __future__ import annotations

from dataclasses import dataclass, replace

from prunebench.config import DatasetConfig
from prunebench.errors import UsageError, brief
from prunebench.tasks.equations import value_of
from prunebench.tasks.tables import Table

ANSWERS = "answer_accuracy"  # the metric of equations
NESTED = "translation"  # the hub's column of translations: {language: text}


@dataclass
class Pairs:
    """One split of n pairs; `ids` are row numbers, from 0."""

    ids: list[int]
    sources: list[str]
    targets: list[str]


def read_pairs(table: Table, dataset: DatasetConfig) -> Pairs:
    """The sources (`text_columns`, joined by a space) and targets (`label_column`) in some rows.

    Raises:
        UsageError: a column or a text is missing or empty, or a target that is to be an equation is none.
    """
    table = _flat(table)
    if not dataset.text_columns:
        raise UsageError("dataset.text_columns=[]: name the column of the source texts")
    parts = [_texts(table, name, "dataset.text_columns") for name in dataset.text_columns]
    targets = _texts(table, dataset.label_column, "dataset.label_column")
    if ANSWERS in (dataset.metric, *dataset.metrics):
        for row, target in enumerate(targets):
            if value_of(target) is None:
                raise UsageError(
                    f"{table.where(row)}: '{brief(target)}' is no equation of numbers, + - * / and parentheses with a "
                    f"value: mend it, or choose another metric than {ANSWERS}"
                )
    sources = [" ".join(words) for words in zip(*parts, strict=True)]
    return Pairs([table.position(row) for row in range(len(table))], sources, targets)


def _texts(table: Table, name: str, setting: str) -> list[str]:
    texts = [text.strip() for text in table.texts(name, setting)]
    for row, text in enumerate(texts):
        if not text:
            raise UsageError(f"{table.where(row)}: '{brief(name)}' is empty: remove that row")
    return texts


def _flat(table: Table) -> Table:
    """With a column for each language, where they stand in one."""
    rows = table.columns.get(NESTED, [])
    if not rows or not all(isinstance(row, dict) for row in rows):
        return table
    languages = list(dict.fromkeys(name for row in rows for name in row))
    return replace(table, columns=table.columns | {name: [row.get(name) for row in rows] for name in languages})
