"""Where a dataset's splits come from: local files, or the hub through `datasets`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from prunebench.config import DatasetConfig
from prunebench.errors import UsageError, brief, did_you_mean
from prunebench.tasks.tables import Table, file_format, first_line, read_file

LONGEST_PATH = 300  # characters of a path in a message


class Source(Protocol):
    """Where a dataset comes from. `eval_splits` are the names of its validation splits."""

    eval_splits: list[str]

    def read(self, split: str) -> Table: ...

    def identity(self, splits: Iterable[str]) -> dict[str, Any]: ...


def source_of(dataset: DatasetConfig) -> Source:
    """Local files where some are named, else the hub."""
    if dataset.train_file or dataset.validation_file:
        return Files(dataset)
    if dataset.hub:
        return Hub(dataset)
    raise UsageError(f"dataset={brief(dataset.name)} has no data: set dataset.train_file and dataset.validation_file")


class Files:
    """Local files: "train" and one validation split, "validation"."""

    def __init__(self, dataset: DatasetConfig) -> None:
        wrong = list(_missing(dataset))
        if wrong:
            raise UsageError("\n".join(wrong))
        self.eval_splits = ["validation"]
        self._header = dataset.header
        self._paths = {"train": dataset.train_file, "validation": dataset.validation_file}

    def read(self, split: str) -> Table:
        path = self._paths[split]
        assert path is not None
        return read_file(path, self._header)

    def identity(self, splits: Iterable[str]) -> dict[str, Any]:
        paths = {split: self._paths[split] for split in splits}
        return {
            split: {"sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(), "format": file_format(path)[0]}
            for split, path in paths.items()
            if path
        }


def _missing(dataset: DatasetConfig) -> Iterator[str]:
    """A line for each file that is not named or not there, or whose format is unknown."""
    if not dataset.train_file:
        yield "dataset.validation_file is set without dataset.train_file: set both"
    elif not dataset.validation_file and dataset.holdout is None:
        yield (
            "dataset.train_file is set without dataset.validation_file: set it, or dataset.holdout=<examples> "
            "to validate on a part of the training data"
        )
    for setting, path in (("train_file", dataset.train_file), ("validation_file", dataset.validation_file)):
        if path:
            yield from _not_readable(path, f"dataset.{setting}")


def _not_readable(path: str, setting: str) -> Iterator[str]:
    try:
        file_format(path)
    except UsageError as error:
        yield f"{setting}={error}"
    else:
        if os.path.isdir(path):
            yield f"{setting}={brief(path, LONGEST_PATH)}: is a folder: give a file"
        elif not os.path.isfile(path):  # Path.is_file raises for names that no system has
            folder, name = os.path.split(path)
            near = did_you_mean(name, os.listdir(folder or ".")) if os.path.isdir(folder or ".") else ""
            yield f"{setting}={brief(path, LONGEST_PATH)}: no such file{near}"


class Hub:
    """A dataset of the Hugging Face hub, or from its local cache where there is no network. No remote code is run."""

    def __init__(self, dataset: DatasetConfig) -> None:
        assert dataset.hub is not None
        self.eval_splits = list(dataset.validation_splits)
        self._path, self._config, self._revision = dataset.hub, dataset.hub_config, dataset.revision
        self._train = dataset.train_split
        self._splits: Any = None

    @property
    def name(self) -> str:
        return f"{self._path}/{self._config}" if self._config else self._path

    def read(self, split: str) -> Table:
        from datasets import ClassLabel

        data = self._dataset(split)
        if len(data) == 0:
            raise UsageError(f"{self.name}: split '{split}' holds no rows")
        names = {name: list(kind.names) for name, kind in data.features.items() if isinstance(kind, ClassLabel)}
        columns = {name: list(data[name][:]) for name in data.column_names}
        return Table(columns, f"{self.name}, split {self._on_hub(split)}", class_names=names)

    def identity(self, splits: Iterable[str]) -> dict[str, Any]:
        return {
            split: {"hub": self._path, "config": self._config, "split": self._on_hub(split)}
            | {"revision": self._cached_revision(self._dataset(split)), "rows": len(self._dataset(split))}
            for split in splits
        }

    def _on_hub(self, split: str) -> str:
        return self._train if split == "train" else split

    def _dataset(self, split: str) -> Any:
        self._splits = self._splits or self._load()
        name = self._on_hub(split)
        if name not in self._splits:
            names = list(self._splits)
            raise UsageError(f"{self.name} has no split '{name}'{did_you_mean(name, names)}: it has {', '.join(names)}")
        return self._splits[name]

    def _load(self) -> Any:
        """All splits at once: every call asks the hub anew, and retries for half a minute without a network."""
        import datasets

        verbosity = datasets.logging.get_verbosity()
        datasets.logging.set_verbosity_error()  # it warns of every use of its cache
        try:
            splits = datasets.load_dataset(self._path, self._config, revision=self._revision)
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            raise UsageError(self._explain(error)) from error
        finally:
            datasets.logging.set_verbosity(verbosity)
        self._check_revision(next(iter(splits.values())))
        return splits

    def _explain(self, error: Exception) -> str:
        if isinstance(error, ConnectionError):
            return (
                f"dataset {self.name} is not in the local cache and the hub cannot be reached: run once with a network "
                "(and without HF_HUB_OFFLINE), or set dataset.train_file and dataset.validation_file"
            )
        return f"dataset {self.name} cannot be loaded: {first_line(error)}"

    def _check_revision(self, data: Any) -> None:
        """Without a network `datasets` takes what it has cached, whatever revision was asked for."""
        asked, found = self._revision, self._cached_revision(data)
        is_commit = asked is not None and len(asked) == 40 and set(asked) <= set("0123456789abcdef")
        if is_commit and found != asked:
            raise UsageError(f"dataset {self.name}: the cache holds revision {found}, not dataset.revision={asked}")

    @staticmethod
    def _cached_revision(data: Any) -> str:
        """The commit: `datasets` caches below <name>/<config>/<version>/<commit>/."""
        files = data.cache_files
        return Path(files[0]["filename"]).parent.name if files else str(data._fingerprint)
