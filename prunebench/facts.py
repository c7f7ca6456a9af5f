"""What is known of a run's model and data without torch and the hub. What is not known is None, never guessed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from prunebench.config import DatasetConfig, ModelConfig, RunConfig
from prunebench.errors import UsageError, brief
from prunebench.sizes import ALIASES, ANSWER, CAUSAL, CLASSIFY, DECODERS, DEFAULTS, MASKED, TRANSLATE, component_sizes
from prunebench.tasks.choices import CHOICES, SPAN_SCORING, read_choices
from prunebench.tasks.files import Stamp, read_once, stamp
from prunebench.tasks.labels import label_names
from prunebench.tasks.settings import TOKENS
from prunebench.tasks.tables import file_format

UNCASED_VOCABULARY = 30522  # of bert-base-uncased, with which the windows in conf/dataset were counted
UNCASED_FAMILIES = ("bert", "distilbert", "electra")
MORE_SIZES = {  # keys that are not among every family's DEFAULTS, or that may hold more than what those show
    "embedding_size": 128, "pooler_hidden_size": 768, "type_vocab_size": 0, "pos_att_type": (str, list, type(None)),
}  # fmt: skip
MOST_OF_A_SIZE = 10**7  # beyond any vocabulary, width or number of layers
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
    if dataset.task in ("question_answering", "language_modelling"):
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
    """Counted windows hold for the tokenizer and the lengths they were counted with."""
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
    return _count(path, stamp(path), header)


@lru_cache(maxsize=64)
def _count(path: str, written: Stamp, header: bool) -> int:
    if file_format(path) == ("parquet", False):
        import pyarrow.parquet

        return int(pyarrow.parquet.read_metadata(path).num_rows)
    return len(read_once(path, header))


def num_labels(config: RunConfig) -> int | None:
    """Outputs of the head; None where only the hub's data tell."""
    dataset = config.dataset
    if dataset.task == "question_answering":
        return 2
    if dataset.regression or dataset.task in (*TOKENS, *CHOICES):  # whose head's size follows from the model
        return 1
    if dataset.labels is not None:
        return len(set(dataset.labels))
    if dataset.train_file and file_format(dataset.train_file)[0] != "parquet":
        return len(own_labels(dataset.train_file, dataset.label_column, stamp(dataset.train_file), dataset.header))
    classes = dataset.params.get("classes")
    return classes if isinstance(classes, int) else None


def logits_each(config: RunConfig) -> int | None:
    """Numbers that the head gives for a training example; None where only the hub's data, or a tokenizer, tell."""
    dataset = config.dataset
    if dataset.task == SPAN_SCORING:
        return 2
    if dataset.task not in CHOICES:
        return num_labels(config)
    if dataset.choices is None and dataset.train_file:
        return read_choices(read_once(dataset.train_file, dataset.header).take([0])).each
    return dataset.choices


@lru_cache(maxsize=64)
def own_labels(path: str, column: str, written: Stamp, header: bool) -> tuple[str, ...]:
    """The labels in a local file, in the order of their ids."""
    return tuple(label_names(read_once(path, header), column))


def labels_of(dataset: DatasetConfig) -> tuple[str, ...] | None:
    """Names of the classes in the order of their ids; None where there are none, or only the hub's data tell."""
    if dataset.regression or dataset.task in ("question_answering", *TOKENS, *CHOICES):
        return None
    if dataset.labels is not None:
        return tuple(dataset.labels)
    if not dataset.train_file:
        return None
    return own_labels(dataset.train_file, dataset.label_column, stamp(dataset.train_file), dataset.header)


def folder_config(folder: str) -> dict[str, Any] | None:
    """What the config.json of a model's folder holds; None where it cannot be read or is no object."""
    try:
        content = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def head_class(config: RunConfig) -> str:
    if config.dataset.task == "language_modelling":
        return CAUSAL if objective(config) == "causal" else MASKED
    heads = {"question_answering": ANSWER, "sequence_to_sequence": TRANSLATE, SPAN_SCORING: MASKED}
    return heads.get(config.dataset.task, CLASSIFY)


def objective(config: RunConfig) -> str | None:
    """Of language modelling: as asked, else what the model's family was made for; None: an unknown one."""
    asked, kind = config.dataset.objective, config.model.config.get("model_type")
    if asked != "auto":
        return asked
    if not isinstance(kind, str) or kind not in DEFAULTS:
        return None
    return "causal" if kind in DECODERS else "masked"


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


def model_config_problems(known: Mapping[str, Any], from_config: bool) -> Iterator[str]:
    """What in a Hugging Face config no model can be built from, as far as the family's sizes are known here."""
    kind = known.get("model_type")
    if kind is not None and not isinstance(kind, str):
        yield f"model.config.model_type={brief(kind)}: must be a name, like bert"
    elif from_config and not kind:
        yield "model.from_config=true needs model.config.model_type (bert, ...) and its sizes"
    if not isinstance(kind, str) or kind not in DEFAULTS:
        return
    aliases = ALIASES.get(kind, {})
    for name, value in known.items():
        usual = (DEFAULTS[kind] | MORE_SIZES).get(aliases.get(name, name), ...)
        allowed = _allowed(usual, value)
        if allowed:
            yield f"model.config.{brief(name)}={'null' if value is None else brief(value)}: must be {allowed}"


def _allowed(usual: Any, value: Any) -> str | None:
    """What a value should be, if it is not like the `usual` one of its key."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(usual, tuple):
        return None if isinstance(value, usual) else "text, a list or null"
    if isinstance(usual, bool):
        return None if isinstance(value, bool) else "true or false"
    if usual is None or isinstance(usual, int):
        low = 1 if usual is None or usual > 0 else usual
        fits = (value is None and usual is None) or (whole and low <= value <= MOST_OF_A_SIZE)
        return None if fits else f"a whole number in [{low}, {MOST_OF_A_SIZE}]"
    return None if usual is ... or isinstance(value, type(usual)) else "text"
