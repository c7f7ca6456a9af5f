"""Tokenised splits on disk: flat arrays, memory-mapped, written once and complete or absent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prunebench.cache import made_once, save_array

META = "meta.json"
INPUTS = ("input_ids", "token_type_ids")  # the ragged columns a model reads; attention_mask follows from lengths
FLAT = ("labels", "start_positions", "end_positions", "choice_lengths", "span_starts", "span_ends")  # (n,) or (n, C)

Columns = Mapping[str, np.ndarray]
Feature = dict[str, Any]  # ragged columns: int arrays (length,); the others: numpy scalars, or arrays (C,)


class Encoded:
    """One tokenised split: n examples (question answering: windows), memory-mapped.

    Ragged columns share one array of bounds, so that example i owns `flat[bounds[i]:bounds[i + 1]]`.

    Attributes:
        key: sha256 of the content, the tokenizer and the settings: the same key, the same data in the same order.
        lengths: (n,) tokens of each example.
        pad_id: what `collate` fills input_ids with.
    """

    def __init__(self, bounds: np.ndarray, columns: Columns, key: str, pad_id: int) -> None:
        self.key, self.pad_id = key, pad_id
        self.bounds = np.asarray(bounds)  # asarray: slicing a memmap costs ten times as much
        self.columns = {name: np.asarray(column) for name, column in columns.items()}
        self.lengths: np.ndarray = np.diff(self.bounds)
        total = int(self.bounds[-1])
        self._ragged = [name for name in INPUTS if name in columns]
        self._flat = [name for name in FLAT if name in columns]
        expected = {name: total if name in self._ragged else len(self) for name in self._ragged + self._flat}
        wrong = [name for name, size in expected.items() if len(columns[name]) != size]
        if wrong:
            raise ValueError(f"columns {wrong} do not fit {len(self)} examples of {total} tokens")

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def ragged(self, name: str, index: int) -> np.ndarray:
        """Example `index` of any ragged column: (length,)."""
        row: np.ndarray = self.columns[name][self.bounds[index] : self.bounds[index + 1]]
        return row

    def batch(self, indices: Iterable[int]) -> list[Feature]:
        """Ragged inputs and flat columns (labels, ...) of some examples, for `Task.collate`; read-only views."""
        ragged = [(name, self.columns[name]) for name in self._ragged]
        flat = [(name, self.columns[name]) for name in self._flat]
        features = []
        for index in indices:
            start, stop = self.bounds[index], self.bounds[index + 1]
            feature: Feature = {name: column[start:stop] for name, column in ragged}
            feature.update((name, column[index]) for name, column in flat)
            features.append(feature)
        return features


def cached(folder: Path, key: str, build: Callable[[], tuple[np.ndarray, Columns, int]]) -> Encoded:
    """The split in `folder`, built (bounds, columns, pad id) and written there if it is not yet."""
    return made_once(folder, lambda temporary: _write(temporary, key, *build()), lambda whole: _read(whole, key))


def _write(folder: Path, key: str, bounds: np.ndarray, columns: Columns, pad_id: int) -> None:
    save_array(folder / "bounds.npy", bounds)
    for name, column in columns.items():
        save_array(folder / f"{name}.npy", column)
    meta = {"key": key, "examples": len(bounds) - 1, "columns": sorted(columns), "pad_id": pad_id}
    (folder / META).write_text(json.dumps(meta), encoding="utf-8")


def _read(folder: Path, key: str) -> Encoded:
    """Raises one of `cache.DAMAGED` for what is not whole, or not of `key`."""
    meta = json.loads((folder / META).read_text(encoding="utf-8"))
    if meta["key"] != key:
        raise ValueError(f"it holds {meta['key'][:16]}")
    columns = {name: _load(folder / f"{name}.npy") for name in meta["columns"]}
    return Encoded(_load(folder / "bounds.npy"), columns, key, meta["pad_id"])


def _load(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def digest(value: Any) -> str:
    """sha256 (hex) of a JSON-able value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def tokenizer_identity(tokenizer: Any) -> str:
    """sha256 (hex) of all that decides which ids a text gets, whatever was tokenised before."""
    state: dict[str, Any] = {
        "inputs": list(tokenizer.model_input_names),
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
    }
    if getattr(tokenizer, "is_fast", False):
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        backend.pop("truncation", None)  # left behind by the previous call
        backend.pop("padding", None)
        state["backend"] = backend
    else:
        state |= {"class": type(tokenizer).__name__, "vocab": tokenizer.get_vocab()}
        state["settings"] = {k: v for k, v in tokenizer.init_kwargs.items() if isinstance(v, str | int | float)}
    return digest(state)


def bounds_of(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """(n + 1,) where each row begins and ends once they are laid end to end."""
    return np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)]).astype(np.int64)
