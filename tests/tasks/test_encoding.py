"""Tokenised splits on disk: what is written is what is read, complete or absent, by whomever."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunebench.errors import UsageError
from prunebench.tasks.encoding import Encoded, bounds_of, cached, digest, tokenizer_identity

ROWS = [[5, 6, 7], [8], [9, 10]]


def build(rows: list[list[int]] = ROWS) -> tuple[np.ndarray, dict[str, np.ndarray], int]:
    flat = np.concatenate([np.asarray(row, np.int32) for row in rows])
    columns = {
        "input_ids": flat,
        "token_type_ids": flat % 2,
        "labels": np.arange(len(rows)),
        "offset_start": flat + 100,
    }
    return bounds_of(rows), columns, 3


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), min_size=1, max_size=6), st.data())
def test_a_batch_holds_the_rows_asked_for(rows: list[list[int]], data: st.DataObject) -> None:
    indices = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8))
    encoded = Encoded(*build(rows)[:2], key="k", pad_id=0)
    batch = encoded.batch(indices)
    assert [feature["input_ids"].tolist() for feature in batch] == [rows[i] for i in indices]
    assert [int(feature["labels"]) for feature in batch] == indices
    assert encoded.lengths.tolist() == [len(row) for row in rows] and len(encoded) == len(rows)


def test_only_inputs_and_labels_go_into_batches(tmp_path: Path) -> None:
    encoded = cached(tmp_path / "x", "k", build)
    assert set(encoded.batch([0])[0]) == {"input_ids", "token_type_ids", "labels"}
    assert encoded.ragged("offset_start", 2).tolist() == [109, 110]


def test_built_once_then_read_from_disk(tmp_path: Path) -> None:
    first = cached(tmp_path / "a" / "x", "k", build)
    again = cached(tmp_path / "a" / "x", "k", lambda: pytest.fail("built twice"))
    for name, column in build()[1].items():
        np.testing.assert_array_equal(again.columns[name], column)
        assert again.columns[name].dtype == column.dtype
    assert (again.key, again.pad_id, len(again)) == ("k", 3, 3)
    assert first.lengths.tolist() == [3, 1, 2]
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"x", ".x.lock"}  # nothing half-written is left


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fails() -> tuple[np.ndarray, dict[str, np.ndarray], int]:
        raise UsageError("no")

    with pytest.raises(UsageError):
        cached(tmp_path / "x", "k", fails)
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        cached(tmp_path / "x", "k", lambda: (np.array([0, 1]), {"input_ids": np.array([{}])}, 0))  # never pickled
    assert [path.name for path in tmp_path.iterdir()] == [".x.lock"]


def _write(folder: str, log: str, results: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    def slow() -> tuple[np.ndarray, dict[str, np.ndarray], int]:
        with open(log, "a") as file:
            file.write("built ")
        time.sleep(0.2)  # the other one comes meanwhile
        return build()

    results.put(cached(Path(folder), "k", slow).columns["input_ids"].tolist())


def test_of_two_at_once_one_builds_for_both(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results, log = context.Queue(), str(tmp_path / "log")
    workers = [context.Process(target=_write, args=(str(tmp_path / "x"), log, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=30) for _ in workers] == [[5, 6, 7, 8, 9, 10]] * 2
    for worker in workers:
        worker.join(30)
    assert Path(log).read_text() == "built "


@pytest.mark.parametrize("damage", ["shorter", "missing", "meta", "key", "garbage"])
def test_what_is_damaged_is_made_again_and_said(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "x"
    cached(folder, "k", build)
    if damage == "shorter":
        np.save(folder / "input_ids.npy", np.arange(4))
    elif damage == "missing":
        (folder / "labels.npy").unlink()
    elif damage == "garbage":
        (folder / "labels.npy").write_bytes(b"no array")
    else:
        meta = json.loads((folder / "meta.json").read_text())
        (folder / "meta.json").write_text("{" if damage == "meta" else json.dumps(meta | {"key": "other"}))
    assert cached(folder, "k", build).columns["input_ids"].tolist() == [5, 6, 7, 8, 9, 10]
    assert f"{folder} is damaged (" in capsys.readouterr().err
    cached(folder, "k", lambda: pytest.fail("built a third time"))


def test_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [1, "ü"]}) == digest({"b": [1, "ü"], "a": 1})
    assert len({digest(["ab", "c"]), digest(["a", "bc"]), digest(["abc"]), digest([["ab"], "c"])}) == 4


def test_a_tokenizers_identity(tokenizer, decoder_tokenizer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from transformers import BertTokenizerFast

    before = tokenizer_identity(tokenizer)
    tokenizer(["the cat"] * 2, truncation=True, max_length=3, padding=True)  # leaves its settings behind
    assert tokenizer_identity(tokenizer) == before
    tokenizer.save_pretrained(tmp_path / "same")
    assert tokenizer_identity(BertTokenizerFast.from_pretrained(tmp_path / "same")) == before
    cased = BertTokenizerFast.from_pretrained(tmp_path / "same", do_lower_case=False)
    longer = BertTokenizerFast.from_pretrained(tmp_path / "same")
    longer.add_tokens(["prune"])
    assert len({before, *map(tokenizer_identity, (cased, longer, decoder_tokenizer))}) == 4
