"""Text for language modelling: what is read from a table, checked. No torch, so `plan` can ask."""

from __future__ import annotations

from prunebench.config import DatasetConfig
from prunebench.errors import UsageError
from prunebench.tasks.tables import Table

COLUMN = "text"  # where dataset.text_columns names none
SPECIAL = 2  # tokens that a tokenizer may add to a window


def read_texts(table: Table, dataset: DatasetConfig, fills_window: bool = False) -> list[str]:
    """The rows' texts, empty ones too.

    fills_window: refuse a text that is surely too short for that, since no token is shorter than a byte.

    Raises:
        UsageError: there is no such column, a row holds no text, or all of them together are too short.
    """
    columns = list(dataset.text_columns) or [COLUMN]
    if len(columns) > 1:
        raise UsageError(f"dataset.text_columns=[{','.join(columns)}]: language modelling reads one column")
    texts = table.texts(columns[0], "dataset.text_columns")
    between = 1 if dataset.separator is None else len(dataset.separator.encode())  # null: a token
    size = sum(len(text.encode()) for text in texts) + between * len(texts)
    if not any(text.strip() for text in texts):
        raise UsageError(f"{table.source} holds no text")
    if fills_window and size < dataset.max_length - SPECIAL:
        raise UsageError(too_short(f"{table.source} holds {size} bytes of text", dataset.max_length))
    return texts


def too_short(found: str, length: int) -> str:
    return f"{found}, less than a window of dataset.max_length={length} tokens: give more text, or lower it"
