"""What is known of a run's model and data without torch and the hub. What is not known is None, never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from prunebench.config import DatasetConfig, ModelConfig, RunConfig
from prunebench.errors import UsageError
from prunebench.sizes import ANSWER, CLASSIFY, component_sizes
from prunebench.tasks.tables import Table, file_format, read_file

UNCASED_VOCABULARY = 30522  # of bert-base-uncased, with which the windows in conf/dataset were counted
UNCASED_FAMILIES = ("bert", "distilbert", "electra")
WINDOW_LENGTHS = {"squad": (384, 128)}  # max_length and doc_stride of the counted windows


@dataclass(frozen=True)
class TrainingData:
    """How many training examples there are (windows, for question answering), or why that is not known."""

    count: int | None
    unit: str
    why: str = ""


def training_data(config: RunConfig) -> TrainingData:
    """Raises UsageError for a local file that cannot be read."""
    dataset = config.dataset
    if dataset.task == "question_answering":
        return _windows(config)
    total = _rows(dataset)
    if total is None:
        return TrainingData(None, "examples", "before the data are read")
    return TrainingData(_used(total, dataset), "examples")


def _rows(dataset: DatasetConfig) -> int | None:
    if dataset.task == "synthetic":
        count = dataset.examples.get("train", dataset.params.get("train"))
        return count if isinstance(count, int) else None
    if dataset.train_file:
        return count_rows(dataset.train_file, dataset.header)
    return dataset.examples.get("train")


def _used(total: int, dataset: DatasetConfig) -> int:
    """As `tasks.settings.choose`: the holdout is taken out first, then the limit."""
    rest = total - (dataset.holdout or 0)
    if rest < 1:
        raise UsageError(f"dataset.holdout={dataset.holdout}: train has {total} examples; take 1 to {total - 1}")
    return rest if dataset.limit is None else min(rest, dataset.limit)


def _windows(config: RunConfig) -> TrainingData:
    """Question answering: counted windows hold for the tokenizer and lengths they were counted with."""
    dataset, model = config.dataset, config.model
    whole = dataset.limit is None and dataset.holdout is None and not dataset.train_file
    same_lengths = (dataset.max_length, dataset.doc_stride) == WINDOW_LENGTHS.get(dataset.name)
    if whole and same_lengths and _is_uncased(model) and "train" in dataset.windows:
        return TrainingData(dataset.windows["train"], "windows")
    return TrainingData(None, "windows", "before the data are tokenised")


def _is_uncased(model: ModelConfig) -> bool:
    known = model.config
    family = known.get("model_type") in UNCASED_FAMILIES
    return family and known.get("vocab_size") == UNCASED_VOCABULARY and model.tokenizer is None


def count_rows(path: str, header: bool = True) -> int:
    """Rows of a local file, as a run would read them; Parquet has the number in its footer."""
    if file_format(path) == ("parquet", False):
        import pyarrow.parquet

        return int(pyarrow.parquet.read_metadata(path).num_rows)
    return len(_table(path, Path(path).stat().st_mtime, header))


@lru_cache(maxsize=1)
def _table(path: str, modified: float, header: bool) -> Table:
    return read_file(path, header)


def num_labels(config: RunConfig) -> int | None:
    """Outputs of the head; None where only the hub's data tell."""
    dataset = config.dataset
    if dataset.task == "question_answering":
        return 2
    if dataset.regression:
        return 1
    if dataset.labels is not None:
        return len(set(dataset.labels))
    if dataset.train_file and file_format(dataset.train_file)[0] != "parquet":
        from prunebench.tasks.labels import label_names

        table = _table(dataset.train_file, Path(dataset.train_file).stat().st_mtime, dataset.header)
        return len(label_names(table, dataset.label_column))
    classes = dataset.params.get("classes")
    return classes if isinstance(classes, int) else None


def head_class(config: RunConfig) -> str:
    return ANSWER if config.dataset.task == "question_answering" else CLASSIFY


def sizes(config: RunConfig) -> Mapping[str, int | None] | None:
    """Weights by component, and `norms_and_biases`; None for a model of which nothing is known.

    Without the number of labels the head and the biases (it has some) are None.
    """
    known: dict[str, Any] = config.model.config
    labels = num_labels(config)
    counted = component_sizes(known, head_class(config), labels or 2) if known else None
    if counted is None or labels is not None:
        return counted
    return counted | {"head": None, "norms_and_biases": None}
