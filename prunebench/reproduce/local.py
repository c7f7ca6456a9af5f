"""Real data for `--scale small --data DIR`: what a folder laid out as ../shared/data has for a data set."""

from __future__ import annotations

from pathlib import Path

from prunebench.config import DatasetConfig

FILES: dict[str, tuple[str, str, list[str]]] = {  # dataset -> training and validation file, and how they are read
    "squad": ("squad_v1.1/train-v1.1.json.gz", "squad_v1.1/dev-v1.1.json.gz", []),
    "sst2": ("glue/SST-2/train.tsv.gz", "glue/SST-2/dev.tsv", []),
    "rte": ("glue/RTE/train.tsv.gz", "glue/RTE/dev.tsv", []),
    "commonsense_qa": ("commonsenseqa/train_rand_split.jsonl.gz", "commonsenseqa/dev_rand_split.jsonl.gz", []),
    "winogrande": ("winogrande/train_xs.jsonl", "winogrande/dev.jsonl", []),
    "winogrande_span": ("winogrande/train_xs.jsonl", "winogrande/dev.jsonl", []),
}
LIMITS = ["dataset.limit=64", "dataset.validation_limit=64"]
VOCABULARY = "vocab/bert-base-uncased/vocab.txt"


def real_data(dataset: DatasetConfig, folder: Path) -> tuple[list[str], str] | None:
    """The words that choose them, and where they are from; None where the folder has none for `dataset`."""
    if dataset.name not in FILES:
        return None
    train, validation, words = FILES[dataset.name]
    if not (folder / train).is_file() or not (folder / validation).is_file():
        return None
    files = [f"dataset.train_file={folder / train}", f"dataset.validation_file={folder / validation}"]
    return [*files, *words, *LIMITS], f"64 examples of {folder / train}"
