"""Texts become the tokens that the tokenizer itself gives; losses, predictions and scores against literal versions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from prunebench.config import DatasetConfig
from prunebench.errors import RunError, UsageError
from prunebench.tasks.base import load_task
from prunebench.tasks.classification import ClassificationTask
from prunebench.tasks.tables import Table

SINGLE = "sentence\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in [
    ("the cat sat on the mat", "yes"), ("who went home?", "no"), ("bad", "no"), ("good and bad", "yes"), ("paris", "no")
])  # fmt: skip
PAIRS = "premise\thypothesis\tlabel\n" + "".join(
    f"the cat sat on {'a mat in paris ' * n}\twho went {'home ' * (n + 1)}\t{n % 3}\n" for n in range(4)
)
SCORES = "sentence1\tsentence2\tlabel\nthe cat\ta cat\t4.5\nwho\twhere\t1\nbad\tgood\t0.25\n"


def make(tmp_path: Path, content: str, **settings: Any) -> ClassificationTask:
    path = tmp_path / "data.tsv"
    path.write_text(content)
    files = {"train_file": str(path), "validation_file": str(path)}
    task = load_task(DatasetConfig(**({"name": "x", "task": "classification"} | files | settings)))
    assert isinstance(task, ClassificationTask)
    return task


def columns(content: str, *names: str) -> list[list[str]]:
    header, *rows = [line.split("\t") for line in content.strip("\n").split("\n")]
    return [[row[header.index(name)] for row in rows] for name in names]


@pytest.mark.parametrize(
    ("content", "names", "max_length"),
    [(SINGLE, ["sentence"], 128), (SINGLE, ["sentence"], 4), (PAIRS, ["premise", "hypothesis"], 12)],
)
def test_tokens_are_the_tokenizers(
    content: str, names: list[str], max_length: int, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunebench.tasks.classification.CHUNK", 2)
    task = make(tmp_path, content, max_length=max_length)
    encoded = task.encode("train", tokenizer, tmp_path)
    for i, texts in enumerate(zip(*columns(content, *names), strict=True)):
        expected = tokenizer(*texts, truncation="longest_first" if len(texts) == 2 else True, max_length=max_length)
        got = encoded.batch([i])[0]
        assert got["input_ids"].tolist() == expected["input_ids"]
        assert got["token_type_ids"].tolist() == expected["token_type_ids"]
        assert len(got["input_ids"]) == encoded.lengths[i] <= max_length
    labels = columns(content, "label")[0]
    assert [task.labels[feature["labels"]] for feature in encoded.batch(range(len(encoded)))] == labels  # type: ignore[index]


def test_a_tokenizer_without_token_types(decoder_tokenizer: Any, tmp_path: Path) -> None:
    encoded = make(tmp_path, PAIRS).encode("train", decoder_tokenizer, tmp_path)
    assert set(encoded.batch([0])[0]) == {"input_ids", "labels"}


def test_the_key_names_content_tokenizer_and_settings(tokenizer: Any, decoder_tokenizer: Any, tmp_path: Path) -> None:
    def key(content: str = SINGLE, using: Any = tokenizer, split: str = "train", **settings: Any) -> str:
        (tmp_path / "data").mkdir(exist_ok=True)
        return make(tmp_path / "data", content, **settings).encode(split, using, tmp_path).key

    base = key()
    assert key(name="y") == base == key(validation_limit=2) == key(limit=5) == key(split="validation")
    others = [
        key(SINGLE.replace("home", "house")),
        key(SINGLE.replace("bad\tno", "bad\tyes")),
        key(using=decoder_tokenizer),
        key(max_length=64),
        key(limit=2),
        key(labels=["yes", "no"]),
        key(holdout=1),
        key(holdout=1, split="holdout"),
    ]
    assert len({base, *others}) == 1 + len(others)


def test_usual_columns_are_found_and_others_named(tmp_path: Path) -> None:
    for header, found in [
        ("sentence\tlabel", 1), ("text\tlabel", 1), ("sentence1\tsentence2\tlabel", 2),
        ("premise\thypothesis\tlabel", 2),
        ("question\tsentence\tlabel", 2), ("question1\tquestion2\tlabel", 2), ("idx\tsentence\tlabel", 1),
    ]:  # fmt: skip
        row = "\t".join("ab"[i % 2] for i in range(header.count("\t") + 1))
        content = f"{header}\n{row}\n{row[:-1]}c\n"
        assert len(make(tmp_path, content).examples("train").texts) == found
    with pytest.raises(UsageError, match=r"set dataset.text_columns; none of .* its columns \(review, label\)"):
        make(tmp_path, "review\tlabel\nx\ta\ny\tb\n").examples("train")
    task = make(tmp_path, "review\tgold\nx\ta\ny\tb\n", text_columns=["review"], label_column="gold")
    assert task.examples("train").texts == [["x", "y"]]


def test_data_are_refused_with_file_and_line(tokenizer: Any, decoder_tokenizer: Any, tmp_path: Path) -> None:
    rows: list[Any] = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    for extra, says in [
        ({"text": None, "label": 1}, "line 3: 'text' is missing"),
        ({"text": 3, "label": 1}, "line 3: 'text' is a int, not a text"),
        ({"label": 1}, "line 3: 'text' is missing"),
        ({"text": "c"}, "line 3: 'label' is missing"),
    ]:
        path = tmp_path / "x.jsonl"
        path.write_text("\n".join(json.dumps(row) for row in [*rows, extra]))
        with pytest.raises(UsageError, match=says):
            make(tmp_path, SINGLE, train_file=str(path)).encode("train", tokenizer, tmp_path)
    with pytest.raises(UsageError, match="train, row 2: the text has no tokens"):
        make(tmp_path, "text\tlabel\na\t0\n \t1\n").encode("train", _stripping(decoder_tokenizer), tmp_path)
    other = tmp_path / "other.tsv"
    other.write_text("sentence\tlabel\nx\tmaybe\n")
    with pytest.raises(UsageError, match=r"other.tsv, line 2: label 'maybe' is none of no, yes"):
        make(tmp_path, SINGLE, validation_file=str(other)).encode("validation", tokenizer, tmp_path)


def _stripping(tokenizer: Any) -> Any:
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Strip()
    return tokenizer


def test_contradicting_settings(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        make(tmp_path, SINGLE, regression=True, labels=["a", "b"])
    with pytest.raises(UsageError, match="at least two different names"):
        _ = make(tmp_path, SINGLE, labels=["a", "a"]).labels
    with pytest.raises(UsageError, match="two for pairs"):
        make(tmp_path, SINGLE, text_columns=["a", "b", "c"])


def test_loss_of_classes(tmp_path: Path) -> None:
    task = make(tmp_path, PAIRS)
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.bfloat16)
    batch = {"labels": torch.tensor([0, 2, 1, 1, 0])}
    heads = task.heads(SimpleNamespace(logits=logits), batch)
    assert heads["logits"].dtype == torch.float32
    rows = logits.double().tolist()
    oracle = [math.log(sum(map(math.exp, row))) - row[label] for row, label in zip(rows, [0, 2, 1, 1, 0], strict=True)]
    assert task.loss(heads, batch).item() == pytest.approx(sum(oracle) / 5, rel=1e-5)


def test_regression_end_to_end(tokenizer: Any, tmp_path: Path) -> None:
    task = make(tmp_path, SCORES, regression=True)
    assert (task.problem, task.labels, task.num_labels, task.metric) == ("regression", None, 1, "pearson")
    encoded = task.encode("validation", tokenizer, tmp_path)
    batch = task.collate(encoded.batch([0, 1, 2]))
    assert batch["labels"].tolist() == [4.5, 1.0, 0.25] and batch["labels"].dtype == torch.float32
    heads = task.heads(SimpleNamespace(logits=torch.tensor([[4.0], [2.0], [0.5]])), batch)
    assert task.loss(heads, batch).item() == pytest.approx((0.25 + 1 + 0.0625) / 3)
    predictions = task.predictions("validation", task.rows(heads, batch))
    shown = "the cat / a cat"
    assert predictions[0] == {"id": 0, "text": shown, "label": 4.5, "prediction": 4.0, "error": -0.5}
    assert json.loads(json.dumps(predictions)) == predictions
    scores = task.score("validation", predictions)
    assert scores["mse"] == pytest.approx((0.25 + 1 + 0.0625) / 3) and scores["spearmanr"] == pytest.approx(1.0)


def test_predictions_and_scores(tmp_path: Path) -> None:
    task = make(tmp_path, SINGLE, metrics=["accuracy", "f1"], validation_limit=4)
    examples = task.examples("validation")
    logits = np.array([[0.2, 1.0], [0.3, 0.1], [0.0, 2.0], [1.0, -1.0]], np.float32)
    predictions = task.predictions("validation", [{"logits": row} for row in logits])
    truth = [columns(SINGLE, "label")[0][i] for i in examples.ids]
    guesses = ["yes", "no", "yes", "no"]
    assert [line["prediction"] for line in predictions] == guesses
    assert [line["label"] for line in predictions] == truth
    assert [line["correct"] for line in predictions] == [a == b for a, b in zip(guesses, truth, strict=True)]
    assert [line["id"] for line in predictions] == examples.ids
    assert predictions[0]["logits"] == [0.2, 1.0]
    assert json.loads(json.dumps(predictions)) == predictions
    scores = task.score("validation", predictions)
    assert scores["accuracy"] == sum(a == b for a, b in zip(guesses, truth, strict=True)) / 4
    assert set(scores) == {"accuracy", "f1"}
    with pytest.raises(RunError, match="not finite"):
        task.predictions("validation", [{"logits": row * np.nan} for row in logits])


class TwoSplits(ClassificationTask):
    """MNLI's form, and a task with data of its own."""

    def splits(self) -> list[str]:
        return ["validation_matched", "validation_mismatched"]

    def raw(self, split: str) -> Table:
        return Table({"text": [f"{split} {i}" for i in range(6)], "label": ["a", "b", "c"] * 2}, "made")

    def source_identity(self) -> dict[str, Any]:
        return {"made": 1}


def test_the_primary_split_has_plain_names_and_the_others_their_own() -> None:
    task = TwoSplits(DatasetConfig(name="x", task="classification", metrics=["accuracy", "f1"]))
    rows = [{"logits": np.eye(3, dtype=np.float32)[0]}] * 6
    scores: dict[str, float] = {}
    for split in task.eval_splits:
        scores |= task.score(split, task.predictions(split, rows))
    assert scores == {
        "accuracy": pytest.approx(1 / 3),
        "f1": pytest.approx(1 / 6),
        "accuracy_mismatched": pytest.approx(1 / 3),
        "f1_mismatched": pytest.approx(1 / 6),
    }
    assert task.examples("validation_mismatched").texts[0][0] == "validation_mismatched 0"
    assert task.metric == "accuracy" and task.identity()["source"] == {"made": 1}


def test_a_holdout_replaces_validation(tokenizer: Any, tmp_path: Path) -> None:
    task = make(tmp_path, SINGLE, holdout=2, validation_file=None)
    assert task.eval_splits == ["holdout"]
    train, held = task.examples("train"), task.examples("holdout")
    assert sorted(train.ids + held.ids) == list(range(5)) and len(held.ids) == 2
    sentences = columns(SINGLE, "sentence")[0]
    assert [sentences[i] for i in held.ids] == held.texts[0]
    assert len(task.encode("holdout", tokenizer, tmp_path)) == 2
    assert set(task.identity()["source"]) == {"train"}


def test_identity_is_what_changes_a_result(tmp_path: Path) -> None:
    base = make(tmp_path, SINGLE).identity()
    assert json.loads(json.dumps(base)) == base
    assert str(tmp_path) not in json.dumps(base)
    for settings in ({"limit": 2}, {"max_length": 5}, {"labels": ["no", "yes"]}, {"metric": "f1"}, {"holdout": 1}):
        assert make(tmp_path, SINGLE, **settings).identity() != base
    assert make(tmp_path, SINGLE.replace("home", "house")).identity() != base


@pytest.mark.real
def test_cola_without_a_header(shared: Path, bert_tokenizer: Any, tmp_path: Path) -> None:
    glue = shared / "glue" / "CoLA"
    task = load_task(
        DatasetConfig(
            name="cola",
            task="classification",
            train_file=str(glue / "train.tsv.gz"),
            validation_file=str(glue / "dev.tsv"),
            header=False,
            text_columns=["3"],
            label_column="1",
            labels=["unacceptable", "acceptable"],
            limit=200,
        )
    )
    encoded = task.encode("validation", bert_tokenizer, tmp_path)
    assert len(encoded) == 1043 and len(task.encode("train", bert_tokenizer, tmp_path)) == 200
    assert bert_tokenizer.decode(encoded.batch([0])[0]["input_ids"]) == (
        "[CLS] the sailors rode the breeze clear of the rocks. [SEP]"
    )
    assert 0.65 < np.mean(encoded.columns["labels"]) < 0.75  # 69 % of CoLA's dev sentences are acceptable
