"""Rows by column from local files: csv, tsv, json, jsonl, parquet and txt, each also gzipped.

Everything wrong with a file is a UsageError of one line that names the file and the line.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prunebench.errors import UsageError, brief, did_you_mean

MOST_LISTED = 12


@dataclass
class Table:
    """The rows of one split, by column; missing values are None."""

    columns: dict[str, list[Any]]
    source: str  # for messages
    lines: Sequence[int] | None = None  # where in a text file each row ends
    class_names: dict[str, list[str]] = field(default_factory=dict)  # of integer columns that stand for names
    header: bool = True  # false: columns go by number
    rows: Sequence[int] | None = None  # positions in the source, where this is a part of it
    twice: frozenset[str] = frozenset()  # names that stand over more than one column: not to be used

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def take(self, rows: Sequence[int]) -> Table:
        """Some of the rows."""
        columns = {name: [column[row] for row in rows] for name, column in self.columns.items()}
        lines = [self.lines[row] for row in rows] if self.lines else None
        return replace(self, columns=columns, lines=lines, rows=[self.position(row) for row in rows])

    def position(self, row: int) -> int:
        """Where a row stands in the source, from 0."""
        return self.rows[row] if self.rows is not None else row

    def where(self, row: int) -> str:
        """'train.tsv, line 18'; rows without lines count from 1."""
        return f"{self.source}, " + (f"line {self.lines[row]}" if self.lines else f"row {self.position(row) + 1}")

    def column(self, name: str, setting: str) -> list[Any]:
        """A column, named by `setting` of the configuration."""
        if name in self.twice:
            raise UsageError(f"{self.source} has more than one column '{brief(name)}': rename all but one")
        if name in self.columns:
            return self.columns[name]
        data_first = "; if its first line is data, dataset.header=false" if self._looks_headless() else ""
        hint = did_you_mean(name, map(brief, self.columns))
        names = listed(self.columns)
        raise UsageError(
            f"{self.source} has no column '{brief(name)}'{hint}: set {setting} to one of {names}{data_first}"
        )

    def texts(self, name: str, setting: str) -> list[str]:
        """A column of texts that can be written as UTF-8."""
        values = self.column(name, setting)
        for row, value in enumerate(values):
            if not isinstance(value, str):
                what = "missing" if value is None else f"a {type(value).__name__}, not a text"
                raise UsageError(f"{self.where(row)}: '{brief(name)}' is {what}")
            if not value.isascii() and not is_unicode(value):
                raise UsageError(f"{self.where(row)}: '{brief(name)}' holds half a surrogate pair, which is no letter")
        return values

    def _looks_headless(self) -> bool:
        return self.header and any(name == "" or name.isdecimal() or len(name) > 40 for name in self.columns)


def is_unicode(text: str) -> bool:
    """JSON's \\ud800 alone is a string for Python, but no tokenizer takes it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def listed(names: Iterable[str]) -> str:
    """Names of columns or labels for a message, which stays short however many there are."""
    known = list(names)
    more = f", ... ({len(known)} in all)" if len(known) > MOST_LISTED else ""
    return ", ".join(brief(name, 40) for name in known[:MOST_LISTED]) + more


def file_format(path: str | Path) -> tuple[str, bool]:
    """(format, gzipped?) by the file's name."""
    suffixes = [suffix.lower().lstrip(".") for suffix in Path(path).suffixes]
    zipped = suffixes[-1:] == ["gz"]
    suffix = (suffixes[:-1] if zipped else suffixes)[-1:]
    if not suffix or suffix[0] not in _READERS:
        raise UsageError(
            f"{brief(path)}: which format is that? The name must end in {', '.join(_READERS)} (or these and .gz)"
        )
    return suffix[0], zipped


def read_file(path: str | Path, header: bool = True) -> Table:
    """The table in a file. `header=False`: the first line of a csv or tsv is data, its columns "0", "1", ..."""
    kind, zipped = file_format(path)
    try:
        data = Path(path).read_bytes()
        data = gzip.decompress(data) if zipped else data
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} cannot be read: {brief(error)}") from error
    table = _READERS[kind](data, str(path), header)
    if len(table) == 0:
        raise UsageError(f"{path} holds no rows")
    return table


def _decode(data: bytes, path: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise UsageError(f"{path}, line {line}: byte 0x{byte:02x} is not UTF-8: convert the file to UTF-8") from error


# ---------------------------------------------------------------------------------------------------- csv and tsv


def _read_csv(data: bytes, path: str, header: bool) -> Table:
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(_decode(data, path), newline=""), strict=True)

    def rows() -> Iterator[tuple[int, list[str]]]:
        try:
            yield from ((reader.line_num, row) for row in reader if row)
        except csv.Error as error:
            raise UsageError(f"{path}, line {reader.line_num}: not valid csv ({error})") from error

    return _delimited(rows(), path, header)


def _read_tsv(data: bytes, path: str, header: bool) -> Table:
    """Quotes are text, as in GLUE's files."""
    lines = (line.removesuffix("\r") for line in _decode(data, path).split("\n"))
    return _delimited(((i, line.split("\t")) for i, line in enumerate(lines, 1) if line.strip()), path, header)


def _delimited(rows: Iterator[tuple[int, list[str]]], path: str, header: bool) -> Table:
    numbers: list[int] = []
    values: list[list[str]] = []
    names: list[str] | None = None
    for line, row in rows:
        if names is None:
            names = [name.strip() for name in row] if header else [str(i) for i in range(len(row))]
            if header:
                continue
        if len(row) != len(names):
            raise UsageError(f"{path}, line {line}: {len(row)} fields, but {len(names)} columns ({listed(names)})")
        numbers.append(line)
        values.append(row)
    columns = dict(zip(names or [], map(list, zip(*values, strict=True)), strict=False))
    twice = frozenset(name for name, count in Counter(names).items() if count > 1)
    return Table(columns, path, numbers, header=header, twice=twice)


# ------------------------------------------------------------------------------------------------- json and parquet


def _read_json(data: bytes, path: str, header: bool) -> Table:
    """A list of objects, alone or below "data"; or SQuAD's nested form."""
    content = _parse(_decode(data, path), path)
    content = content.get("data") if isinstance(content, dict) else content
    if not isinstance(content, list):
        raise UsageError(f"{path}: expected a list of objects, or an object with such a list below 'data'")
    if content and isinstance(content[0], dict) and "paragraphs" in content[0]:
        return Table(_squad_columns(content, path), path)
    return Table(_columns(enumerate(content, 1), path, "row"), path)


def _parse(text: str, path: str, line: int = 1) -> Any:
    """The JSON in `text`, which begins at `line` of the file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}, line {line + error.lineno - 1}: not valid JSON ({error.msg})") from error
    except (ValueError, RecursionError) as error:  # numbers of 5,000 digits, 1,000 brackets
        raise UsageError(f"{path}, line {line}: no JSON that can be read ({brief(error)})") from error


def _read_jsonl(data: bytes, path: str, header: bool) -> Table:
    numbers, records = [], []
    for number, line in enumerate(_decode(data, path).split("\n"), 1):
        if line.strip():
            records.append(_parse(line, path, number))
            numbers.append(number)
    return Table(_columns(zip(numbers, records, strict=True), path, "line"), path, numbers)


def _columns(records: Iterable[tuple[int, Any]], path: str, unit: str) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for count, (number, record) in enumerate(records):
        if not isinstance(record, dict):
            raise UsageError(f'{path}, {unit} {number}: expected an object, {{"column": value, ...}}')
        for name, value in record.items():
            columns.setdefault(name, [None] * count).append(value)
        for column in columns.values():
            column.extend([None] * (count + 1 - len(column)))
    return columns


def _squad_columns(articles: list[Any], path: str) -> dict[str, list[Any]]:
    """SQuAD's original JSON, flattened as on the hub: id, context, question, answers {text, answer_start}."""
    columns: dict[str, list[Any]] = {"id": [], "context": [], "question": [], "answers": []}
    try:
        for paragraph in (paragraph for article in articles for paragraph in article["paragraphs"]):
            for qa in paragraph["qas"]:
                answers = {key: [answer[key] for answer in qa["answers"]] for key in ("text", "answer_start")}
                row = (qa["id"], paragraph["context"], qa["question"], answers)
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
    except (KeyError, TypeError) as error:
        at = f"question {len(columns['id']) + 1}"
        raise UsageError(f"{path}, {at}: not SQuAD's format ({type(error).__name__}: {brief(error)})") from error
    return columns


def _read_txt(data: bytes, path: str, header: bool) -> Table:
    """The lines, as column "text"; empty ones are lines too, and joined by line feeds they are the file again."""
    lines = [line.removesuffix("\r") for line in _decode(data, path).split("\n")]
    lines = lines[:-1] if lines[-1] == "" else lines
    return Table({"text": list(lines)}, path, range(1, len(lines) + 1))


def _read_parquet(data: bytes, path: str, header: bool) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
    except pyarrow.ArrowException as error:
        raise UsageError(f"{path} is not a Parquet file ({brief(first_line(error))})") from error
    return Table(table.to_pydict(), path)


_READERS: dict[str, Callable[[bytes, str, bool], Table]] = {
    "csv": _read_csv,
    "tsv": _read_tsv,
    "json": _read_json,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
    "txt": _read_txt,
}


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
