"""Everything that is wrong with a dataset's local files, told before a run starts and without torch.

They are read as a run reads them, so what passes here is not refused later.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from prunebench.config import DatasetConfig
from prunebench.errors import UsageError
from prunebench.tasks.choices import CHOICES, SPAN_SCORING, read_blanks, read_choices
from prunebench.tasks.labels import label_names
from prunebench.tasks.pairs import read_pairs
from prunebench.tasks.questions import read_questions
from prunebench.tasks.rows import read_rows
from prunebench.tasks.settings import choose
from prunebench.tasks.tables import Table, read_file
from prunebench.tasks.texts import read_texts

QUESTIONS, TEXT, PAIRS = "question_answering", "language_modelling", "sequence_to_sequence"

Stamp = tuple[int, int] | None  # when a file was changed (ns) and its size in bytes; None where there is none


def file_problems(dataset: DatasetConfig) -> list[str]:
    """A line for each of the two files in which something is wrong, of a dataset that names some."""
    paths = (dataset.train_file or "", dataset.validation_file or "")
    return list(dict.fromkeys(_problems(json.dumps(asdict(dataset)), tuple(map(stamp, paths)))))


def stamp(path: str) -> Stamp:
    """What changes when a file does."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size


def read_once(path: str, header: bool) -> Table:
    """The table in a file, from memory where it was read already; `forget` frees that memory."""
    return _table(path, stamp(path), header)


@lru_cache(maxsize=2)
def _table(path: str, written: Stamp, header: bool) -> Table:
    return read_file(path, header)


def forget() -> None:
    """Frees the tables; what is known of them stays known."""
    _table.cache_clear()


@lru_cache(maxsize=64)
def _problems(settings: str, stamps: tuple[Stamp, ...]) -> tuple[str, ...]:
    """Remembered, since `run` asks several times; the tables themselves would take too much memory."""
    values: dict[str, Any] = json.loads(settings)
    return tuple(_in_files(DatasetConfig(**values)))


def _in_files(dataset: DatasetConfig) -> Iterator[str]:
    labels: Sequence[str] | None = None
    known = False  # whether the training data have told the labels
    for split, path in _splits(dataset):
        try:
            table = read_once(path, dataset.header)
            if split == "train":
                labels, known = _labels(table, dataset), True
            if known:
                _read_split(table, split, dataset, labels)
        except UsageError as error:
            yield str(error)


def _splits(dataset: DatasetConfig) -> list[tuple[str, str]]:
    """The split that is trained on and the one that is validated on, each with its file."""
    train = dataset.train_file or ""
    other = ("validation", dataset.validation_file or "") if dataset.holdout is None else ("holdout", train)
    return [("train", train), other]


def _labels(table: Table, dataset: DatasetConfig) -> Sequence[str] | None:
    """None: numbers, or answers."""
    if dataset.regression or dataset.task in (QUESTIONS, TEXT, PAIRS, *CHOICES):
        return None
    return dataset.labels if dataset.labels is not None else label_names(table, dataset.label_column)


def _read_split(table: Table, split: str, dataset: DatasetConfig, labels: Sequence[str] | None) -> None:
    if dataset.task == TEXT:  # of which windows are chosen, not rows
        read_texts(table, dataset, fills_window=split == "train")
        return
    rows = table.take(choose(len(table), split, dataset))
    if dataset.task == QUESTIONS:
        read_questions(rows)
    elif dataset.task == SPAN_SCORING:
        read_blanks(rows)
    elif dataset.task in CHOICES:
        read_choices(rows, dataset.choices)
    elif dataset.task == PAIRS:
        read_pairs(rows, dataset)
    else:
        read_rows(rows, dataset, labels)
