"""Reads what runs leave, for the tests that compare runs."""

from __future__ import annotations

import hashlib
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prunebench.paths import RunFolder


def sums(folder: RunFolder) -> dict[str, str]:
    """sha256 of masks, predictions and every file of the model, by path."""
    files = [folder.masks, folder.predictions, *sorted(path for path in folder.model.rglob("*") if path.is_file())]
    return {str(path.relative_to(folder.root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows_of(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()]


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what a clock has measured."""
    return [{key: value for key, value in row.items() if key != "examples_per_second"} for row in rows]


def wandb_file(folder: Path) -> Path:
    """That of a run's only offline run, once wandb's own process has written all of it: a loaded machine takes time."""
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    patience = time.monotonic() + 30
    while not any(_wandb_records(file, "exit")) and time.monotonic() < patience:
        time.sleep(0.1)
    return file


def wandb_history(file: Path) -> list[dict[str, Any]]:
    """The history rows of an offline run's file, in wandb's own format."""
    rows = [record.history.item for record in _wandb_records(file, "history")]
    return [{_key(item): json.loads(item.value_json) for item in items} for items in rows]


def wandb_run(file: Path) -> dict[str, Any]:
    """What an offline run's file says of the run itself: id, group, job_type, tags, config, summary, metrics."""
    run = [record.run for record in _wandb_records(file, "run")][-1]
    updates = [item for record in _wandb_records(file, "summary") for item in record.summary.update]
    return {
        "id": run.run_id,
        "group": run.run_group,
        "job_type": run.job_type,
        "tags": list(run.tags),
        "config": {_key(item): json.loads(item.value_json) for item in run.config.update},
        "summary": {_key(item): json.loads(item.value_json) for item in updates},
        "hidden": [
            r.metric.glob_name or r.metric.name for r in _wandb_records(file, "metric") if r.metric.options.hidden
        ],
    }


def _key(item: Any) -> str:
    return str(item.key or "/".join(item.nested_key))


def _wandb_records(file: Path, kind: str) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    for data in _leveldb_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == kind:
            yield record


def _leveldb_records(data: bytes, block: int = 32768) -> Iterator[bytes]:
    """The records of a LevelDB log: each piece has a checksum (4), a length (2) and a kind (1: full, 2-4: parts)."""
    at, record = 7, b""  # wandb's own header
    while at + 7 <= len(data):
        if block - at % block < 7:  # no piece starts in the last bytes of a block
            at += block - at % block
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield record
            record = b""
