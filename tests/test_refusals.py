"""What cannot work is refused before it starts: a thousand generated mistakes, and some good configs that must not be.

Every case is wrong by construction, differs from every other, and goes through `main` as a user's command line does.
The conductor is a stand-in that must never be reached.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import random
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from prunebench.cli import main
from prunebench.config import PhaseConfig, RunConfig
from prunebench.options import find_options
from prunebench.overrides import find_type, setting_keys
from prunebench.validate import CHOICES, PHASE_RANGES, RANGES

OPTIONS = find_options()
VERBS = ("plan", "run", "show")
BASE = ["recipe=bert_smc_90", "dataset=sst2"]
MOST_LINES, LONGEST_LINE = 6, 700
HYDRA = ("full_key", "object_type", "HYDRA_FULL_ERROR", "Traceback", "Error executing job")


@dataclass(frozen=True)
class Case:
    """`make` writes what the case needs into a folder and returns the words; the answer has each of `says` in it."""

    name: str
    make: Callable[[Path], list[str]]
    says: tuple[str, ...]


def words(name: str, overrides: list[str], *says: str) -> Case:
    return Case(f"{name}: {' '.join(overrides)}", lambda folder: [*BASE, *overrides], says)


# --- how a case is judged -----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def conductor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for prunebench.run; to reach it is the failure."""

    def run(config: RunConfig, *, force: bool = False) -> None:
        raise AssertionError("this was to be refused")

    module = types.ModuleType("prunebench.run")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "prunebench.run", module)


def answer(*argv: str) -> tuple[int, str]:
    """Exit status and stderr of a command line."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        status = main(argv)
    return status, told.getvalue()


def judge(case: Case, verb: str, folder: Path) -> None:
    folder.mkdir()
    overrides = case.make(folder)
    outputs = folder / "outputs"
    if not any(word.startswith("outputs=") for word in overrides):
        overrides = [*overrides, f"outputs={outputs}"]
    before = sorted(folder.rglob("*"))
    status, told = answer(verb, *overrides)
    lines = told.splitlines()
    assert status == 2, (case.name, status, told)
    assert 1 <= len(lines) <= MOST_LINES, (case.name, told)
    assert all(line.startswith("prunebench: error: ") and len(line) < LONGEST_LINE for line in lines), (case.name, told)
    assert len(set(lines)) == len(lines), (case.name, told)
    assert not any(word in told for word in HYDRA), (case.name, told)
    assert all(part in told for part in case.says), (case.name, case.says, told)
    assert sorted(folder.rglob("*")) == before, case.name


# --- settings -----------------------------------------------------------------------------------------------------

GOOD = "sparsity=0.8"
WRONG_TYPES = {  # values that a setting of the type cannot have
    int: ["abc", "1.5", "[1]", "{a: 1}", "true", "", "1e3x", "'2 3'", "null"],
    float: ["abc", "[0.5]", "{a: 1}", "1,5x", "", "50%", "0x10"],
    bool: ["maybe", "2", "[true]", "{a: 1}", "1.5", ""],
    list: ["x", "3", "{a: 1}", "true"],
    dict: ["x", "3", "true"],
}


def kind_of(key: str) -> type | None:
    """Of a setting that is not text: int, float, bool, list or dict."""
    hint = find_type(key)
    parts = [part for part in typing.get_args(hint) if part is not type(None)] or [hint]
    if typing.get_origin(hint) in (list, dict):
        return typing.cast(type, typing.get_origin(hint))
    part = parts[0]
    part = typing.get_origin(part) or part
    return part if len(parts) == 1 and part in WRONG_TYPES else None


def wrong_types(rng: random.Random) -> Iterator[Case]:
    for key in setting_keys():
        kind = kind_of(key)
        allowed_null = type(None) in typing.get_args(find_type(key))
        for value in WRONG_TYPES.get(kind, []) if kind else []:
            if not (value == "null" and allowed_null):
                yield words("type", [f"{key}={value}"], key)


def out_of_range(rng: random.Random) -> Iterator[Case]:
    for rule in RANGES:
        low, high = (float(bound) for bound in rule.interval[1:-1].split(","))
        whole = kind_of(rule.key) is int
        values: list[Any] = [low - 1 - rng.randrange(100), -rng.randrange(1, 10**6) - 1]
        values += [] if whole else ["nan", "inf", "-inf", "1e400", low - rng.random() - 1e-6]
        values += [] if high == float("inf") else [high + 1 + rng.randrange(1000)]
        values += [] if rule.interval[0] == "[" else [low]
        for value in values:
            shown = int(value) if whole else value
            yield words("range", [f"{rule.key}={shown}"], rule.key)
    for rule in PHASE_RANGES:
        for value in (-1 - rng.randrange(50), 10**6 + rng.randrange(50)):
            phases = f"pruning.schedule.phases=[{{name: first, prune: true, {rule.key}: {value}}}]"
            yield words("range", [phases], "pruning.schedule.phases[0] (first)", rule.key)


def misspelt(name: str, rng: random.Random) -> str:
    """With a letter left out, doubled, swapped or replaced."""
    at = rng.randrange(1, max(2, len(name) - 1))
    ways = [
        name[:at] + name[at + 1 :],
        name[:at] + name[at] + name[at:],
        name[: at - 1] + name[at] + name[at - 1] + name[at + 1 :],
        name[:at] + rng.choice([letter for letter in "qxzj" if letter != name[at]]) + name[at + 1 :],
    ]
    return rng.choice(ways)


def misspelt_names(rng: random.Random) -> Iterator[Case]:
    for key in setting_keys():
        for _ in range(2):
            wrong = key.rpartition(".")[0] + "." * ("." in key) + misspelt(f"{key.rpartition('.')[2]}_", rng)
            if find_type(wrong) is None:
                yield words("key", [f"{wrong}=1"], f"{wrong}=1: no such setting")
    for group, options in OPTIONS.items():
        for option in options:
            wrong = misspelt(option, rng)
            if wrong not in options and wrong.isidentifier():
                yield words("option", [f"{group}={wrong}"], f"{group}={wrong}: no such")
    for key, names in CHOICES.items():
        for name in names:
            wrong = misspelt(name, rng)
            if wrong not in names:
                yield words("choice", [f"{key}={wrong}"], f"{key}={wrong}: must be one of")


NESTED = "{a: " * 200 + "1" + "}" * 200
ODD = [
    f"trainer.lr={'9' * 400}", f"distillation.temperature={'9' * 400}", f"model.config.x={NESTED}",
    "pruning.schedule.phases=[{name: a, only_from: pretrained, prune: true}]", "pruning.schedule.peak_decay=1e308",
    "pruning.schedule.phases=[{name: a}, {name: b, only_from: pretrained, prune: true}]",
    "", "a=b=c", "=", "==3", "+", "'", '"', "{", "[", "💥", "ünï=1", "x" * 5000, "trainer", "~sparsity",
    "recipe@x=dense", "sparsity\n=1", "a\0b=1", "hydra.nothing=1", "hydra.searchpath=[x]", "hydra/launcher=nope",
    "recipe=", "dataset=", "model=null", "recipe=[a,b]", "sparsity={a: {b: 1}}", "trainer={epochs: {a: 1}}",
    "seed=1,2", "recipe=glob(*)", "seed=range(1,3)", "name=${name}", "name=${nowhere}", "name=${",
    "sparsity=${trainer}", "sparsity=${oc.env:NOT_SET_}", "trainer.betas=[1,x]", "trainer.betas=[0.9]",
    "trainer.betas=[nan,0.9]", "pruning.components=[]", "dataset.labels=[]", "dataset.labels=[a]",
    "dataset.labels=[a,a]", "dataset.labels=[{a: 1},b]", "dataset.text_columns=[a,b,c]",
    "pruning.components=[all,head]", "pruning.schedule.phases=[]", "pruning.schedule.phases=[1]",
    "pruning.schedule.phases=[{nme: x}]", "dataset.examples={train: -4}", "dataset.validation_splits=[]",
    "dataset.metric=pearson", "dataset.metrics=[exact_match]", "model.config.hidden_size=abc", "outputs=",
    "outputs=a\0b", "model.config.num_hidden_layers=null", "model.config.model_type=[1]", "model.config.vocab_size=0",
    "name=", "name=..", "name=a/b", "name='a\nb'", "name=.x", "outputs=/dev/null", "outputs=/dev/null/x",
    f"outputs={'x' * 5000}", f"name={'n' * 5000}", f"start={'s' * 5000}", f"seed={'9' * 5000}",
    f"trainer.epochs={'9' * 5000}", "start=~nobody_/x", f"model.name=/{'m' * 5000}",
    f"dataset.train_file={'t' * 5000}.csv", f"{'k' * 5000}=1", "start=", "model.name=", f"recipe={'r' * 5000}",
    "distillation.teacher=", "distillation.temperature=hot", "distillation.temperature=0",
    "distillation.temperature=nan", "distillation.temperature=true", "pruning/pattern=3_4", "pruning.pattern.n=5",
    f"pruning.schedule.phases={'[' * 300}",
]  # fmt: skip


def odd_words(rng: random.Random) -> Iterator[Case]:
    for word in ODD:
        key, equals, _ = word.partition("=")
        named = equals and key.isprintable() and len(key) < 80 and NESTED not in word
        yield words("odd", [word], *([key] if named else []))


def several(rng: random.Random) -> Iterator[Case]:
    """A misspelt key, a wrong type, a value out of range and a contradiction: all are told together."""
    numbers = [rule for rule in RANGES if rule.key.startswith("trainer.") and rule.key != "trainer.lr"]
    texts = [key for key in setting_keys() if key.startswith("dataset.") and kind_of(key) is int]
    for index in range(90):
        rule, text = rng.choice(numbers), rng.choice(texts)
        low = int(float(rule.interval[1:].split(",")[0]))
        wrong = f"tracker.{misspelt('project', rng)}"
        parts = [f"{rule.key}={low - 1 - index}", f"{text}=many{index}", f"{wrong}=1"]
        rng.shuffle(parts)
        more = ["pruning/pattern=2_4", f"sparsity=0.{60 + index % 30}"] if index % 2 else ["sparsity=0.8"]
        says = [
            f"{text}=many{index}: expected",
            f"{wrong}=1: no such setting",
            f"{rule.key}={low - 1 - index}: must be",
        ]
        yield words("several", [*parts, *more], *says, *(["pattern 2:4 keeps 50 %"] if index % 2 else []))


# --- contradictions -----------------------------------------------------------------------------------------------


def contradictions(rng: random.Random) -> Iterator[Case]:
    for index in range(12):
        share, small = rng.randrange(55, 99) / 100, rng.randrange(1, 9) * 10.0 ** -rng.randrange(7, 9)
        yield words("n:m", [f"sparsity={share}", f"pruning/pattern={rng.choice(['2_4', '4_8'])}"], "set sparsity=0.5")
        yield words(
            "n:m", [f"pruning.pattern.name=n_m pruning.pattern.n={index + 2}".split()[0], f"seed={index}"], "n_m needs"
        )
        yield words("lr", [f"trainer.lr={small:g}", f"trainer.final_lr={small * 2:g}"], "trainer.final_lr=")
        yield words(
            "batch", [f"trainer.batch_size={16 + index}", f"trainer.accumulation={40 + index}"], "does not divide"
        )
        yield words(
            "floor", [f"sparsity={share}", f"pruning.scope.floor={1 - share + 0.005:.3f}"], "pruning.scope.floor"
        )
        yield words(
            "first", [f"pruning.schedule.initial_sparsity=0.{index + 1}"], "initial_fraction exclude each other"
        )
        yield words("often", [f"pruning.schedule.prune_every={index + 1}"], "prune_every exclude each other")
        yield words(
            "none", [f"distillation.hardness={share}", "distillation.teacher=none"], "distillation.teacher=none"
        )
        yield words("dense", [f"sparsity={share}", "pruning/schedule=dense"], "never prunes")
        yield words("long", [f"dataset.max_length={513 + index}"], f"dataset.max_length={513 + index}")
        yield words(
            "stride", ["dataset=squad", f"dataset.doc_stride={384 + index}"], f"dataset.doc_stride={384 + index}"
        )
        yield words("rate", [f"dataset.limit={32 + index}", "trainer.batch_size=32"], "prunings_per_epoch=10")
        yield words("squeezed", [f"trainer.max_steps={1 + index % 3}", f"seed={index}"], "do not fit into")
        yield words("holdout", [f"dataset.holdout={67349 + index}"], f"dataset.holdout={67349 + index}")
        yield words(
            "part", ["model=distilbert_base", f"seed={index}", "pruning.components=[encoder,pooler]"], "no pooler"
        )
        yield words(
            "budget",
            ["pruning.components=[pooler]", "pruning.budget_from=[encoder]", f"seed={index}"],
            "leaves nothing",
        )
        yield words("endless", ["trainer.epochs=9999", f"pruning.schedule.units_per_halving={900 + index}"], "phases")
        yield words("often", [f"trainer.eval_every=1e-{20 + index}"], "trainer.eval_every")
        yield words("numbers", ["dataset=quickstart", f"dataset.params.train={50_001 + index}"], "dataset.params.train")
        yield words(
            "numbers", ["dataset=quickstart", f"dataset.params.{misspelt('validation', rng)}_{index}=1"], "is unknown"
        )


# --- files --------------------------------------------------------------------------------------------------------


def rows_of(rng: random.Random, count: int = 80) -> list[dict[str, Any]]:
    names = ["good", "bad", "odd"][: rng.choice([2, 3])]
    texts = (
        " ".join(rng.choices(["the", "film", "was", "not", "so", "very", "dull", "after", "all"], k=5))
        for _ in range(count)
    )
    return [{"sentence": text, "label": names[i % len(names)]} for i, text in enumerate(texts)]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    """As the ending of the name says, .gz too."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return str(path)
    if kind in ("csv", "tsv"):
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), dialect="excel" if kind == "csv" else "excel-tab")
        writer.writeheader()
        writer.writerows(rows)
        content = text.getvalue()
    else:
        content = json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows))
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return str(path)


def without(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != name} for row in rows]


def relabelled(rows: list[dict[str, Any]], at: int, label: Any) -> list[dict[str, Any]]:
    return [row | {"label": label} if i == at else row for i, row in enumerate(rows)]


ROWS_WRONG: dict[str, Callable[[list[dict[str, Any]], int], list[dict[str, Any]]]] = {  # in any format
    "no label column": lambda rows, at: without(rows, "label"),
    "no text column": lambda rows, at: without(rows, "sentence") or rows,
    "missing label": lambda rows, at: relabelled(rows, at, ""),
    "hidden label": lambda rows, at: (
        [row | {"label": str(i % 2)} for i, row in enumerate(rows[:-1])] + [rows[-1] | {"label": "-1"}]
    ),
    "numbers": lambda rows, at: [row | {"label": str(i + 0.25)} for i, row in enumerate(rows)],
    "a label of its own": lambda rows, at: relabelled(rows, at, f"strange{at}"),
    "a long label": lambda rows, at: relabelled(rows, at, "x" * 100_000),
}
ONLY_IN_VALIDATION = ("a label of its own", "a long label")
BYTES_WRONG: dict[str, tuple[str, Callable[[bytes, int], bytes]]] = {  # suffix and what is done to a good file
    "ragged csv": ("csv", lambda data, at: data + b"one,two,three," + b"x" * at + b"\r\n"),
    "short row": ("csv", lambda data, at: data + b"only" + b"x" * at + b"\r\n"),
    "ragged tsv": ("tsv", lambda data, at: data + b"one\ttwo\tthree" + b"x" * at + b"\n"),
    "latin-1": ("csv", lambda data, at: data + b"caf\xe9" + b"x" * at + b",good\r\n"),
    "utf-16": ("csv", lambda data, at: data.decode().encode("utf-16") + b"\0" * 2 * at),
    "utf-16 without mark": ("csv", lambda data, at: data.decode().encode("utf-16-le") + b" \0" * at),
    "open quote": ("csv", lambda data, at: data + b'"never closed' + b"x" * at),
    "empty": ("csv", lambda data, at: b"\n" * at),
    "blank": ("tsv", lambda data, at: b" \n" * at),
    "header only": ("csv", lambda data, at: b"sentence,label\r\n" + b"\r\n" * at),
    "one label": ("csv", lambda data, at: b"sentence,label\r\n" + b"a film,good\r\n" * (at + 50)),
    "twice": ("csv", lambda data, at: b"sentence,label,label\r\n" + b"x,a,b\r\ny,b,a\r\n" * (at + 1)),
    "binary": ("csv", lambda data, at: bytes((i * at) % 256 for i in range(3000))),
    "no JSON": ("json", lambda data, at: data[: len(data) // 2 + at]),
    "a number": ("json", lambda data, at: str(at).encode()),
    "texts": ("json", lambda data, at: json.dumps(["a"] * (at + 1)).encode()),
    "no list": ("json", lambda data, at: json.dumps({"data": {"a": at}}).encode()),
    "deep": ("json", lambda data, at: b"[" * (100_000 + at)),
    "long number": ("json", lambda data, at: b'[{"sentence": "a", "label": ' + b"9" * (5000 + at) + b"}]"),
    "half a line": ("jsonl", lambda data, at: data + b'\n{"sentence": "x' + b"x" * at),
    "no object": ("jsonl", lambda data, at: data + b"\n[1]" + b" " * at),
    "half a letter": ("jsonl", lambda data, at: data.replace(b'"sentence": "', b'"sentence": "\\ud800' + b"x" * at)),
    "text is a number": ("jsonl", lambda data, at: data.replace(b'"sentence": "', b'"sentence": %d, "x": "' % at)),
    "no gzip": ("csv.gz", lambda data, at: b"plain" + b"x" * at),
    "half a gzip": ("jsonl.gz", lambda data, at: data[: len(data) // 2 + at % 5]),
    "no parquet": ("parquet", lambda data, at: b"PAR1" + b"x" * at),
}
FORMATS = ("csv", "tsv", "json", "jsonl", "parquet", "csv.gz", "jsonl.gz")


def with_files(folder: Path, train: str, validation: str) -> list[str]:
    files = [f"dataset.train_file={train}", f"dataset.validation_file={validation}"]
    return ["recipe=bert_smc_90", "dataset=classification", "pruning.schedule.prunings_per_epoch=1", *files]


def wrong_rows(rng: random.Random) -> Iterator[Case]:
    for wrong, spoil in ROWS_WRONG.items():
        for suffix in FORMATS:
            for split in ("train", "validation"):
                seed = rng.random()

                def make(folder: Path, spoil=spoil, suffix=suffix, split=split, seed=seed) -> list[str]:  # type: ignore[no-untyped-def]
                    draw = random.Random(seed)
                    rows = rows_of(draw)
                    paths = {name: write(folder / f"{name}.{suffix}", rows) for name in ("train", "validation")}
                    write(folder / f"{split}.{suffix}", spoil(rows, draw.randrange(len(rows))))
                    return with_files(folder, **paths)

                if split == "validation" or wrong not in ONLY_IN_VALIDATION:
                    yield Case(f"{wrong} in {split}.{suffix}", make, (f"{split}.{suffix}",))


def wrong_bytes(rng: random.Random) -> Iterator[Case]:
    for wrong, (suffix, spoil) in BYTES_WRONG.items():
        for split in ("train", "validation"):
            for at in rng.sample(range(1, 60), 3):

                def make(folder: Path, spoil=spoil, suffix=suffix, split=split, at=at) -> list[str]:  # type: ignore[no-untyped-def]
                    rows = rows_of(random.Random(at))
                    paths = {name: write(folder / f"{name}.{suffix}", rows) for name in ("train", "validation")}
                    path = folder / f"{split}.{suffix}"
                    path.write_bytes(spoil(path.read_bytes(), at))
                    return with_files(folder, **paths)

                if split == "train" or wrong != "one label":
                    yield Case(f"{wrong} ({at}) in {split}", make, (f"{split}.{suffix}",))


def wrong_places(rng: random.Random) -> Iterator[Case]:
    """Files that are not there, together with one that is bad, and settings that do not fit the files."""
    for index in range(6):

        def both_missing(folder: Path, index: int = index) -> list[str]:
            return with_files(folder, f"{folder}/a{index}.csv", f"{folder}/b{index}.tsv")

        def both_bad(folder: Path, index: int = index) -> list[str]:
            (folder / "a.csv").write_bytes(b"\xff" * (index + 1))
            (folder / "b.json").write_text("{" * (index + 1))
            return with_files(folder, f"{folder}/a.csv", f"{folder}/b.json")

        def settings(folder: Path, *more: str, count: int = 80) -> list[str]:
            path = write(folder / "all.csv", rows_of(random.Random(0), count))
            return [*with_files(folder, path, path), *more]

        def folder_as_file(folder: Path, index: int = index) -> list[str]:
            (folder / f"x{index}.csv").mkdir()
            return with_files(folder, f"{folder}/x{index}.csv", f"{folder}/x{index}.csv")

        yield Case(
            f"both missing {index}", both_missing, (f"a{index}.csv: no such file", f"b{index}.tsv: no such file")
        )
        yield Case(f"both bad {index}", both_bad, ("a.csv, line 1", "b.json, line 1"))
        yield Case(f"folder {index}", folder_as_file, ("dataset.train_file=", "dataset.validation_file="))
        for wrong, says in (
            (f"dataset.text_columns=[nothing{index}]", f"no column 'nothing{index}'"),
            (f"dataset.label_column=nothing{index}", f"no column 'nothing{index}'"),
            (f"dataset.labels=[one{index},two]", f"none of one{index}, two"),
            (f"dataset.holdout={80 + index}", f"dataset.holdout={80 + index}"),
            (f"trainer.batch_size={81 + index},pruning.schedule.prunings_per_epoch=2", "prunings_per_epoch=2"),
            (f"dataset.regression=true,dataset.limit={5 + index}", "not a finite number"),
        ):
            yield Case(
                f"{wrong} with files", lambda folder, wrong=wrong: settings(folder, *split_words(wrong)), (says,)
            )  # type: ignore[misc]


def split_words(text: str) -> list[str]:
    """At commas outside of brackets."""
    return text.split(",dataset.") if "[" in text else [part for part in text.split(",") if part]


def wrong_questions(rng: random.Random) -> Iterator[Case]:
    """SQuAD's format, broken."""
    good = {
        "id": "1",
        "context": "On a mat.",
        "question": "Where?",
        "answers": {"text": ["a mat"], "answer_start": [3]},
    }
    wrong: dict[str, dict[str, Any]] = {
        "outside": {"answers": {"text": ["a mat"], "answer_start": [300]}},
        "misplaced": {"answers": {"text": ["a mat"], "answer_start": [1]}},
        "no answer": {"answers": {"text": [], "answer_start": []}},
        "uneven": {"answers": {"text": ["a", "b"], "answer_start": [3]}},
        "text": {"answers": "a mat"},
        "empty": {"question": " "},
        "none": {"context": None},
    }
    for name, change in wrong.items():
        for count in (1, 7):

            def make(folder: Path, change=change, count=count) -> list[str]:  # type: ignore[no-untyped-def]
                path = write(folder / "train.jsonl", [good] * count + [good | change])
                return ["recipe=bert_smc_90", "dataset=question_answering", f"dataset.train_file={path}",
                        f"dataset.validation_file={path}"]  # fmt: skip

            yield Case(f"questions, {name} after {count}", make, (f"train.jsonl, line {count + 1}",))


# --- models and the user's own recipes ----------------------------------------------------------------------------

BERT = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "vocab_size": 100, "max_position_embeddings": 512,
        "architectures": ["BertForSequenceClassification"]}  # fmt: skip
MODEL_FILES = ("model.safetensors", "tokenizer.json")  # before torch is loaded only their presence is looked at
MODELS_WRONG: dict[str, str] = {
    "no JSON": "{",
    "list": "[1]",
    "no type": "{}",
    "type": '{"model_type": 3}',
    "deep": "[" * 100_000,
    "body": json.dumps(BERT | {"architectures": ["BertModel"]}),
    "other labels": json.dumps(BERT | {"id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0, "dog": 1}}),
    "more labels": json.dumps(BERT | {"id2label": {str(i): f"LABEL_{i}" for i in range(5)}}),
    "size": json.dumps(BERT | {"hidden_size": "wide"}),
    "layers": json.dumps(BERT | {"num_hidden_layers": None}),
}


def wrong_models(rng: random.Random) -> Iterator[Case]:
    for wrong, content in MODELS_WRONG.items():
        for key in ("start", "distillation.teacher", "model.name"):
            for dataset in ("sst2", "rte"):

                def make(folder: Path, content=content, key=key, dataset=dataset) -> list[str]:  # type: ignore[no-untyped-def]
                    (folder / "config.json").write_text(content)
                    for name in MODEL_FILES:
                        (folder / name).touch()
                    return ["recipe=bert_smc_90", f"dataset={dataset}", f"{key}={folder}"]

                teachers_size = key == "distillation.teacher" and wrong in ("size", "layers")
                if not (teachers_size or (key == "model.name" and wrong == "body")):
                    says = "model.config." if wrong in ("size", "layers") else f"{key}="
                    yield Case(f"{key} with {wrong} for {dataset}", make, (says,))
    for key, missing in product(("start", "model.name"), MODEL_FILES):

        def lacking(folder: Path, key=key, missing=missing) -> list[str]:  # type: ignore[no-untyped-def]
            (folder / "config.json").write_text(json.dumps(BERT))
            (folder / "pytorch_model.bin").touch()
            for name in MODEL_FILES:
                if name != missing:
                    (folder / name).touch()
            return ["recipe=bert_smc_90", "dataset=sst2", f"{key}={folder}"]

        says = "no tokenizer" if "token" in missing else "pickled weights are not read"
        yield Case(f"{key} without {missing}", lacking, (says,))
    for words in (["recipe=bert_smc_90", "model=quickstart"], ["recipe=quickstart", "dataset=sst2"]):
        yield Case(
            f"a model without a tokenizer: {words}", lambda folder, words=words: words, ("has no tokenizer for",)
        )


YAML_WRONG = {
    "tab": "trainer:\n\tepochs: 3\n", "bracket": "trainer: {epochs: [}\n", "twice": "seed: 1\nseed: 2\n",
    "key": "trainer: {epoch: 3}\n", "type": "trainer: {epochs: many}\n", "range": "sparsity: 3\n",
    "defaults": "defaults: 3\n", "no default": "defaults: [nothing_here]\n", "itself": "defaults: [mine]\n",
    "alias": "sparsity: *x\n", "number": "1: 2\n", "nul": "name: a\0b\n", "list": "- a\n- b\n", "text": "hello\n",
    "tag": "sparsity: !!python/object/apply:os.system ['true']\n", "latin": "name: é\n", "recursion": "name: ${name}\n",
    "phases": "pruning: {schedule: {phases: 3}}\n", "null": "trainer: null\n", "two": "seed: 1\n---\nseed: 2\n",
}  # fmt: skip


def wrong_recipes(rng: random.Random) -> Iterator[Case]:
    for wrong, yaml in YAML_WRONG.items():
        for header in ("# @package _global_\n# mine\n", "# @package _global_\n"):

            def make(folder: Path, yaml: str = yaml, header: str = header) -> list[str]:
                (folder / "recipe").mkdir()
                (folder / "recipe" / "mine.yaml").write_text(header + yaml, encoding="latin-1")
                return ["recipe=mine", "--config-dir", str(folder)]

            says = {"range": "sparsity=3", "itself": "lead back to themselves", "recursion": "Recursive"}.get(
                wrong, "mine"
            )
            yield Case(f"recipe with {wrong} after {len(header)}", make, (says,))


# --- the thousand -------------------------------------------------------------------------------------------------

GENERATORS: dict[Callable[[random.Random], Iterator[Case]], int] = {  # and how many of each are tried
    wrong_types: 150, out_of_range: 150, misspelt_names: 150, odd_words: 100, several: 60, contradictions: 130,
    wrong_rows: 90, wrong_bytes: 110, wrong_places: 60, wrong_questions: 14, wrong_models: 50, wrong_recipes: 40,
}  # fmt: skip


def cases_of(generator: Callable[[random.Random], Iterator[Case]]) -> list[Case]:
    """Distinct ones, at most as many as GENERATORS says, the same in every run."""
    rng = random.Random(generator.__name__)
    found = list({case.name: case for case in generator(rng)}.values())
    return found if len(found) <= GENERATORS[generator] else rng.sample(found, GENERATORS[generator])


CASES = {generator.__name__: cases_of(generator) for generator in GENERATORS}


def test_there_are_a_thousand() -> None:
    assert sum(map(len, CASES.values())) >= 1000
    assert len({case.name for cases in CASES.values() for case in cases}) >= 1000


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_refused_in_a_few_lines(name: str, tmp_path: Path) -> None:
    failures = []
    for index, case in enumerate(CASES[name]):
        try:
            judge(case, VERBS[index % len(VERBS)], tmp_path / str(index))
        except AssertionError as error:
            failures.append(str(error).splitlines()[0][:600])
    assert not failures, f"{len(failures)} of {len(CASES[name])}\n" + "\n".join(failures[:20])


# --- one of a kind ------------------------------------------------------------------------------------------------


def test_all_mistakes_of_a_command_line_are_told_at_once(tmp_path: Path) -> None:
    status, told = answer("plan", "recipe=bert_smc_90", "trainer.lrr=1", "sparsity=1.7", "trainer.epochs=abc")
    assert status == 2
    assert told.splitlines() == [
        "prunebench: error: trainer.lrr=1: no such setting (did you mean 'trainer.lr'?)",
        "prunebench: error: trainer.epochs=abc: expected a number",
        "prunebench: error: sparsity=1.7: must be in [0, 1) (0.9 leaves a tenth of the weights)",
    ]


@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        (["pruning/pattern=2_4", "sparsity=abc"], ["sparsity=abc: expected a number"]),
        (["pruning/pattern=2_4", "sparsty=0.5"], ["sparsty=0.5: no such setting (did you mean 'sparsity'?)"]),
        (["trainer.lr=abc", "trainer.final_lr=1"], ["trainer.lr=abc: expected a number"]),
        (["pruning/pattern=2_5", "pruning.scope.floor=0.5"], ["pruning/pattern=2_5: no such pattern"]),
        (["recipe=bert_smc_9", "pruning/pattern=2_4"], ["recipe=bert_smc_9: no such recipe"]),
        (["sparsity=2", "pruning/pattern=2_4"], ["sparsity=2: must be in [0, 1)"]),
        (["model=hf", "model.name=[1]"], ["model.name=[1]: expected text"]),
        (["trainer.batch_size=abc", "dataset.limit=40"], ["trainer.batch_size=abc: expected a whole number"]),
    ],
)
def test_what_stands_on_a_mistake_is_not_told(overrides: list[str], lines: list[str]) -> None:
    """Its value is not known, so any word on what it does with others would be a guess."""
    status, told = answer("plan", *BASE, *overrides)
    found = [line.removeprefix("prunebench: error: ") for line in told.splitlines()]
    assert status == 2 and len(found) == len(lines), told
    assert all(line.startswith(start) for line, start in zip(found, lines, strict=True)), told


def test_a_mistake_in_a_choice_does_not_hide_a_bad_file(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("sentence,label\na\n")
    status, told = answer("plan", "recipe=bert_smc_9", "dataset=classification", "dataset.holdout=3",
                          f"dataset.train_file={tmp_path}/train.csv")  # fmt: skip
    assert status == 2
    assert ["no such recipe" in line or "train.csv, line 2" in line for line in told.splitlines()] == [True, True]


@pytest.mark.parametrize("in_label", [False, True])
def test_ten_megabytes_in_one_cell(tmp_path: Path, in_label: bool) -> None:
    """As a text they are read; as a label they are refused, and not printed."""
    rows = rows_of(random.Random(1))
    rows[7]["label" if in_label else "sentence"] = "x" * 10_000_000
    paths = [write(tmp_path / "train.csv", rows_of(random.Random(1))), write(tmp_path / "validation.csv", rows)]
    status, told = answer("plan", *with_files(tmp_path, *paths))
    assert (status, len(told) < LONGEST_LINE) == (2 if in_label else 0, True)
    assert ("validation.csv, line 9: label 'xxx" in told) == in_label


def test_an_outputs_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the superuser every folder can be written, so the system's answer is made up."""
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    status, told = answer("run", *BASE, f"outputs={tmp_path}/new/er")
    assert (status, told.count("\n")) == (2, 1)
    assert f"{str(tmp_path)[-20:]} cannot be written to" in told


def test_everything_else_is_refused_where_files_are(tmp_path: Path) -> None:
    """A file that is repaired is read again, also within one process."""
    path = tmp_path / "train.csv"
    path.write_text("sentence,label\n" + "a,x\nb,y\n" * 40 + "c\n")
    files = with_files(tmp_path, str(path), str(path))
    assert answer("plan", *files)[0] == 2
    path.write_text("sentence,label\n" + "a,x\nb,y\n" * 40)
    assert answer("plan", *files) == (0, "")


# --- nothing good is refused --------------------------------------------------------------------------------------


def good_words(rng: random.Random, folder: Path, index: int) -> list[str]:
    """A config that would run, on files of its own or on a known dataset."""
    chosen: list[str] = [f"outputs={folder}/outputs/{index}", f"seed={rng.randrange(2**32)}"]
    if rng.random() < 0.7:
        suffix = rng.choice(FORMATS)
        home = folder / str(index)
        home.mkdir()
        rows = rows_of(random.Random(rng.random()), 150)
        files = [write(home / f"{name}.{suffix}", rows) for name in ("train", "validation")]
        chosen += with_files(home, files[0], files[1])
        chosen += rng.choice([[], ["dataset.limit=100"], ["dataset.holdout=30"], ["dataset.labels=[odd,bad,good]"]])
    else:
        recipes = [name for name in sorted(OPTIONS["recipe"]) if not name.startswith("quickstart")]  # short texts only
        chosen += [f"recipe={rng.choice(recipes)}", "dataset=rte"]
    if "recipe=bert_smc_90" in chosen:
        chosen += [
            f"sparsity={rng.randrange(30, 99) / 100}",
            f"pruning/scope={rng.choice(['global', 'uniform', 'erk', 'row'])}",
        ]
        chosen += [f"trainer.batch_size={rng.choice([1, 8, 32])}", f"trainer.lr={rng.choice(['1e-5', '0.0003'])}"]
    return chosen


def test_good_configs_are_planned(tmp_path: Path) -> None:
    rng = random.Random(7)
    for index in range(50):
        overrides = good_words(rng, tmp_path, index)
        status, told = answer("plan", *overrides)
        assert (status, told) == (0, ""), (overrides, told)


def test_a_fine_tuned_model_with_the_same_labels_is_welcome(tmp_path: Path) -> None:
    """In any order and case, and unnamed."""
    for index, names in enumerate((["positive", "negative"], ["NEGATIVE", "Positive"], ["LABEL_0", "LABEL_1"])):
        folder = tmp_path / str(index)
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(BERT | {"id2label": dict(enumerate(names))}))
        for name in MODEL_FILES:
            (folder / name).touch()
        for key in ("start", "distillation.teacher"):
            assert answer("plan", *BASE, f"{key}={folder}") == (0, "")


# --- without torch ------------------------------------------------------------------------------------------------

PROGRAM = """
import contextlib, io, json, sys
from prunebench.cli import main
answers = []
for words in json.load(sys.stdin):
    with contextlib.redirect_stderr(io.StringIO()):
        answers.append(main(words))
print(json.dumps([answers, sorted({"torch", "transformers", "datasets", "accelerate"} & set(sys.modules))]))
"""


def test_none_of_it_waits_for_torch(tmp_path: Path) -> None:
    """One process, some of every kind."""
    lines = []
    for name, cases in CASES.items():
        for index, case in enumerate(cases[:5]):
            folder = tmp_path / f"{name}{index}"
            folder.mkdir()
            lines.append(
                ["run", *case.make(folder), *([] if "outputs=" in case.name else [f"outputs={folder}/outputs"])]
            )
    done = subprocess.run([sys.executable, "-c", PROGRAM], input=json.dumps(lines), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers, heavy = json.loads(done.stdout)
    assert set(answers) == {2} and len(answers) == len(lines)
    assert heavy == []
    assert not list(tmp_path.rglob("outputs"))


# --- the schema ---------------------------------------------------------------------------------------------------

SPECIAL = {  # numbers that no Range describes, each with a value that is refused
    "trainer.betas": "[0.9,1.5]",
    "distillation.temperature": "-1.5",
    "dataset.examples": "{train: 0}",
    "dataset.windows": "{train: -1}",
}
FREE = {  # texts that may be anything, or whose rule is not a list of names
    "name": "a folder's name, see PLAIN_NAME", "recipe": "a choice of conf/", "start": "or a folder, see _start",
    "outputs": "a folder, see _cannot_hold_runs", "model.name": "a hub name or a folder",
    "model.revision": "the hub knows", "model.tokenizer": "a hub name or a folder",
    "model.config": "transformers knows",
    "dataset.name": "a folder's name", "dataset.hub": "the hub knows", "dataset.hub_config": "the hub knows",
    "dataset.revision": "the hub knows", "dataset.train_file": "a file", "dataset.validation_file": "a file",
    "dataset.train_split": "the hub knows", "dataset.validation_splits": "the hub knows",
    "dataset.text_columns": "a file's header", "dataset.label_column": "a file's header", "dataset.labels": "names",
    "dataset.prefix": "any text", "dataset.separator": "any text",
    "dataset.metrics": "ours or the hub's", "dataset.metric": "ours or the hub's", "dataset.params": "see Reviews",
    "pruning.components": "see COMPONENTS", "pruning.budget_from": "see COMPONENTS",
    "pruning.criterion.params": "the criterion knows", "pruning.schedule.name": "for people",
    "pruning.scope.params": "the scope knows", "pruning.refinement.params": "the refinement knows",
    "pruning.update.params": "the update knows", "pruning.regrowth.params": "the regrowth knows",
    "pruning.dynamics.params": "the dynamics knows",
    "pruning.schedule.phases": "see PHASE_RANGES", "distillation.teacher": "or a folder, see _teachers_place",
    "tracker.project": "for people", "tracker.entity": "wandb knows", "tracker.group": "for people",
    "tracker.tags": "for people, see LONGEST_TAG",
    "launcher.params": "submitit or ray knows", "search.params": "see prunebench.search",
}  # fmt: skip


def test_every_setting_has_a_range_or_names_or_a_reason_for_neither() -> None:
    ranges = {rule.key for rule in RANGES}
    for key in setting_keys():
        if find_type(key) is not bool:
            assert sum(key in known for known in (ranges, CHOICES, SPECIAL, FREE)) == 1, key
    assert {*ranges, *CHOICES, *SPECIAL, *FREE} <= set(setting_keys())


def test_no_number_is_exempt() -> None:
    def has_number(hint: Any) -> bool:
        return hint in (int, float) or any(map(has_number, typing.get_args(hint)))

    assert not [key for key in FREE if has_number(find_type(key))]
    numbers = {
        field.name for field in fields(PhaseConfig) if has_number(typing.get_type_hints(PhaseConfig)[field.name])
    }
    assert numbers == {rule.key for rule in PHASE_RANGES}


@pytest.mark.parametrize("key", SPECIAL)
def test_numbers_without_a_range_have_a_rule(key: str) -> None:
    status, told = answer("show", *BASE, f"{key}={SPECIAL[key]}")
    assert status == 2 and key in told and "must be" in told
