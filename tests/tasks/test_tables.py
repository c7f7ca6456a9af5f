"""The same rows whatever the file's format, and what is wrong with a file in one line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from prunebench.errors import UsageError
from prunebench.tasks.tables import Table, read_file

ROWS = [{"sentence": "fine, really", "label": "1"}, {"sentence": "größer", "label": "0"}]
COLUMNS = {"sentence": ["fine, really", "größer"], "label": ["1", "0"]}
TEXTS = {
    "csv": 'sentence,label\n"fine, really",1\ngrößer,0\n',
    "tsv": "sentence\tlabel\nfine, really\t1\ngrößer\t0\n",
    "json": json.dumps(ROWS),
    "jsonl": "\n".join(json.dumps(row) for row in ROWS) + "\n",
}


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("zipped", ["", ".gz"])
@pytest.mark.parametrize("kind", [*TEXTS, "parquet"])
def test_every_format_gives_the_same_columns(kind: str, zipped: str, tmp_path: Path) -> None:
    if kind == "parquet":
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(pyarrow.table(COLUMNS), sink)
        content: str | bytes = sink.getvalue().to_pybytes()
    else:
        content = TEXTS[kind]
    assert read_file(write(tmp_path / f"data.{kind}{zipped}", content)).columns == COLUMNS


@pytest.mark.parametrize("content", ["\ufeffa\tb\r\n1\t2\r\n", "a\tb\n1\t2", "a\tb\n1\t2\n\n", "\na\tb\n\n1\t2\n"])
def test_byte_order_marks_carriage_returns_and_empty_lines_are_no_data(content: str, tmp_path: Path) -> None:
    assert read_file(write(tmp_path / "x.tsv", content)).columns == {"a": ["1"], "b": ["2"]}


def test_quotes_are_text_in_tsv_and_quotes_in_csv(tmp_path: Path) -> None:
    tsv = read_file(write(tmp_path / "x.tsv", 'a\tb\n"so\t1\nit\'s "it"\t2\n'))
    assert tsv.columns == {"a": ['"so', 'it\'s "it"'], "b": ["1", "2"]}
    csv = read_file(write(tmp_path / "x.csv", 'a,b\n"two\nlines",1\n"a ""b""",2\n'))
    assert csv.columns == {"a": ["two\nlines", 'a "b"'], "b": ["1", "2"]}
    assert csv.where(1).endswith("x.csv, line 4")  # a row of two lines stands before it


def test_without_a_header_columns_go_by_number(tmp_path: Path) -> None:
    table = read_file(write(tmp_path / "x.tsv", "gj04\t1\t\tA sentence.\n"), header=False)
    assert table.columns == {"0": ["gj04"], "1": ["1"], "2": [""], "3": ["A sentence."]}
    assert table.where(0).endswith("line 1")


def test_records_may_lack_keys_and_stand_below_data(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", json.dumps({"version": 1, "data": [{"a": 1}, {"b": 2}, {"a": 3, "b": 4}]}))
    assert read_file(path).columns == {"a": [1, None, 3], "b": [None, 2, 4]}


def test_squad_json_is_flattened(tmp_path: Path) -> None:
    answers = [{"text": "mat", "answer_start": 4}, {"text": "a mat", "answer_start": 2}]
    qas = [{"id": "q1", "question": "Where?", "answers": answers}, {"id": "q2", "question": "Who?", "answers": []}]
    content = {"data": [{"title": "t", "paragraphs": [{"context": "On a mat.", "qas": qas}]}], "version": "1.1"}
    assert read_file(write(tmp_path / "x.json", json.dumps(content))).columns == {
        "id": ["q1", "q2"],
        "context": ["On a mat.", "On a mat."],
        "question": ["Where?", "Who?"],
        "answers": [{"text": ["mat", "a mat"], "answer_start": [4, 2]}, {"text": [], "answer_start": []}],
    }


def test_taken_rows_keep_their_place(tmp_path: Path) -> None:
    table = (
        read_file(write(tmp_path / "x.tsv", "a\n" + "".join(f"{i}\n" for i in range(9)))).take([2, 5, 8]).take([1, 2])
    )
    assert table.columns == {"a": ["5", "8"]}
    assert [table.position(0), table.position(1)] == [5, 8]
    assert table.where(0).endswith("line 7")
    assert Table({"a": [1, 2, 3]}, "x").take([2]).where(0) == "x, row 3"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.tsv", "a\tb\n1\t2\n1\n", "line 3: 1 fields, but 2 columns (a, b)"),
        ("x.csv", "a,b\n1,2\n1,2,3\n", "line 3: 3 fields, but 2 columns"),
        ("x.csv", 'a,b\n1,"2\n', "not valid csv"),
        ("x.tsv", b"a\tb\n1\t2\n\xff\t2\n", "line 3: byte 0xff is not UTF-8"),
        ("x.tsv", "a\tb\n", "holds no rows"),
        ("x.tsv", "", "holds no rows"),
        ("x.json", "[]", "holds no rows"),
        ("x.json", '[{"a": 1},\n{"a": }]', "line 2: not valid JSON"),
        ("x.json", '{"a": 1}', "expected a list of objects"),
        ("x.json", '[{"a": 1}, 2]', "row 2: expected an object"),
        (
            "x.json",
            '{"data": [{"paragraphs": [{"context": "c", "qas": [{"id": 1}]}]}]}',
            "question 1: not SQuAD's format",
        ),
        ("x.jsonl", '{"a": 1}\n\n{"a": \n', "line 3: not valid JSON"),
        ("x.jsonl", '{"a": 1}\n[1]\n', "line 2: expected an object"),
        ("x.parquet", b"PAR1 no", "is not a Parquet file"),
        ("x.xlsx", "", "which format is that?"),
        ("x", "", "which format is that?"),
        ("x.gz", "", "which format is that?"),
    ],
)
def test_what_is_wrong_with_a_file_in_one_line(name: str, content: str | bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_file(write(tmp_path / name, content))
    message = str(caught.value)
    assert says in message and name in message and "\n" not in message


def test_a_damaged_archive(tmp_path: Path) -> None:
    whole = write(tmp_path / "x.tsv.gz", "a\tb\n1\t2\n" * 50).read_bytes()
    for content in (whole[:-10], b"a\tb\n1\t2\n", whole[:12] + b"\x00" * 8 + whole[20:]):
        (tmp_path / "x.tsv.gz").write_bytes(content)
        with pytest.raises(UsageError, match="cannot be read"):
            read_file(tmp_path / "x.tsv.gz")


def test_a_missing_column_names_those_there_are() -> None:
    table = Table({"sentence": ["x"], "gold_label": ["1"]}, "x.tsv")
    with pytest.raises(UsageError, match=r"no column 'label' \(did you mean 'gold_label'\?\).*sentence, gold_label$"):
        table.column("label", "dataset.label_column")
    with pytest.raises(UsageError, match="header=false"):
        Table({"gj04": ["x"], "1": ["1"], "": [""]}, "x.tsv").column("label", "dataset.label_column")
