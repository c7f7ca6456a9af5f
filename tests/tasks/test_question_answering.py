"""Windows, labels and the search for the answer against transformers' run_qa.py, written down literally."""

from __future__ import annotations

import collections
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from prunebench.config import DatasetConfig
from prunebench.errors import RunError, UsageError
from prunebench.tasks.base import load_task
from prunebench.tasks.question_answering import QuestionAnsweringTask

SQUAD = Path(__file__).parents[2] / "conf" / "dataset" / "squad.yaml"
LONG = "the cat sat on a mat in paris. " * 6 + "bad cat went home! " + "who sat on the mat? " * 5
EXAMPLES = [  # context, question, answers
    ("the cat sat on a mat in paris.", "  where sat the cat?", ["a mat", "paris"]),
    ("the cat sat on a mat in paris.", "who sat?", ["the cat"]),
    (LONG, "who went home?", ["bad cat"]),
    (LONG, "where?", ["home"]),
    ("Paris", "where", ["Paris"]),
]


def records() -> list[dict[str, Any]]:
    return [
        {
            "id": f"q{i}",
            "context": context,
            "question": question,
            "answers": {"text": answers, "answer_start": [context.index(answer) for answer in answers]},
        }
        for i, (context, question, answers) in enumerate(EXAMPLES)
    ]


def make(tmp_path: Path, content: list[dict[str, Any]] | None = None, **settings: Any) -> QuestionAnsweringTask:
    path = tmp_path / "qa.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in (records() if content is None else content)))
    files = {"train_file": str(path), "validation_file": str(path), "max_length": 40, "doc_stride": 12}
    task = load_task(DatasetConfig(**({"name": "x", "task": "question_answering"} | files | settings)))
    assert isinstance(task, QuestionAnsweringTask)
    return task


def prepare_train_features(examples: Any, tokenizer: Any, max_seq_length: int, doc_stride: int) -> Any:
    """run_qa.py, with padding left out and without CLS: position 0."""
    examples["question"] = [q.lstrip() for q in examples["question"]]
    tokenized_examples = tokenizer(
        examples["question"],
        examples["context"],
        truncation="only_second",
        max_length=max_seq_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    sample_mapping = tokenized_examples["overflow_to_sample_mapping"]
    offset_mapping = tokenized_examples["offset_mapping"]
    tokenized_examples["start_positions"] = []
    tokenized_examples["end_positions"] = []
    for i, offsets in enumerate(offset_mapping):
        input_ids = tokenized_examples["input_ids"][i]
        cls_index = input_ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in input_ids else 0
        sequence_ids = tokenized_examples.sequence_ids(i)
        sample_index = sample_mapping[i]
        answers = examples["answers"][sample_index]
        start_char = answers["answer_start"][0]
        end_char = start_char + len(answers["text"][0])
        token_start_index = 0
        while sequence_ids[token_start_index] != 1:
            token_start_index += 1
        token_end_index = len(input_ids) - 1
        while sequence_ids[token_end_index] != 1:
            token_end_index -= 1
        if not (offsets[token_start_index][0] <= start_char and offsets[token_end_index][1] >= end_char):
            tokenized_examples["start_positions"].append(cls_index)
            tokenized_examples["end_positions"].append(cls_index)
        else:
            while token_start_index < len(offsets) and offsets[token_start_index][0] <= start_char:
                token_start_index += 1
                if token_start_index < len(offsets) and sequence_ids[token_start_index] != 1:
                    break
            tokenized_examples["start_positions"].append(token_start_index - 1)
            while offsets[token_end_index][1] >= end_char:
                token_end_index -= 1
                if sequence_ids[token_end_index] != 1:
                    break
            tokenized_examples["end_positions"].append(token_end_index + 1)
        tokenized_examples["offset_mapping"][i] = [
            (o if sequence_ids[k] == 1 else None) for k, o in enumerate(tokenized_examples["offset_mapping"][i])
        ]
    return tokenized_examples


def postprocess_qa_predictions(
    contexts: list[str], features: Any, logits: list[tuple[Any, Any]], n_best_size: int, max_answer_length: int
) -> list[str]:
    """utils_qa.py, version_2_with_negative=False; no answer at all is the empty text (there: "empty")."""
    features_per_example = collections.defaultdict(list)
    for i, example in enumerate(features["overflow_to_sample_mapping"]):
        features_per_example[example].append(i)
    result = []
    for example_index, context in enumerate(contexts):
        prelim_predictions = []
        for feature_index in features_per_example[example_index]:
            start_logits, end_logits = logits[feature_index]
            offset_mapping = features["offset_mapping"][feature_index]
            start_indexes = np.argsort(start_logits)[-1 : -n_best_size - 1 : -1].tolist()
            end_indexes = np.argsort(end_logits)[-1 : -n_best_size - 1 : -1].tolist()
            for start_index in start_indexes:
                for end_index in end_indexes:
                    if (
                        start_index >= len(offset_mapping)
                        or end_index >= len(offset_mapping)
                        or offset_mapping[start_index] is None
                        or offset_mapping[end_index] is None
                    ):
                        continue
                    if end_index < start_index or end_index - start_index + 1 > max_answer_length:
                        continue
                    offsets = (offset_mapping[start_index][0], offset_mapping[end_index][1])
                    prelim_predictions.append((start_logits[start_index] + end_logits[end_index], offsets))
        predictions = sorted(prelim_predictions, key=lambda x: x[0], reverse=True)[:n_best_size]
        result.append(context[predictions[0][1][0] : predictions[0][1][1]] if predictions else "")
    return result


def oracle(task: QuestionAnsweringTask, tokenizer: Any, content: list[dict[str, Any]]) -> Any:
    examples = {name: [record[name] for record in content] for name in ("question", "context", "answers")}
    return prepare_train_features(examples, tokenizer, task.dataset.max_length, task.dataset.doc_stride)


@pytest.mark.parametrize("which", ["tokenizer", "decoder_tokenizer"])
@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("max_length", [40, 64, 300])
def test_windows_and_labels(
    split: str, max_length: int, which: str, tmp_path: Path, request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("prunebench.tasks.question_answering.CHUNK", 2)
    tokenizer = request.getfixturevalue(which)
    task = make(tmp_path, max_length=max_length)
    expected = oracle(task, tokenizer, records())
    encoded = task.encode(split, tokenizer, tmp_path)
    assert len(encoded) == len(expected["input_ids"])
    for i, feature in enumerate(encoded.batch(range(len(encoded)))):
        assert feature["input_ids"].tolist() == expected["input_ids"][i]
        assert int(feature["start_positions"]) == expected["start_positions"][i]
        assert int(feature["end_positions"]) == expected["end_positions"][i]
        assert int(encoded.columns["example"][i]) == expected["overflow_to_sample_mapping"][i]
        if which == "tokenizer":
            assert feature["token_type_ids"].tolist() == expected["token_type_ids"][i]
        if split == "validation":
            pairs = list(zip(encoded.ragged("offset_start", i), encoded.ragged("offset_end", i), strict=True))
            assert [None if pair == (-1, -1) else pair for pair in pairs] == expected["offset_mapping"][i]
    if max_length == 40:
        assert len(encoded) > len(EXAMPLES)
        assert 0 in encoded.columns["start_positions"]  # some windows hold no answer


@pytest.mark.parametrize(("n_best", "max_answer_length"), [(20, 30), (3, 5), (1, 1)])
def test_the_search_for_the_answer(n_best: int, max_answer_length: int, tokenizer: Any, tmp_path: Path) -> None:
    task = make(tmp_path, n_best=n_best, max_answer_length=max_answer_length)
    encoded = task.encode("validation", tokenizer, tmp_path)
    rng = np.random.default_rng(0)
    features = oracle(task, tokenizer, records())
    for _ in range(20):
        logits = [tuple(rng.standard_normal((2, n)).astype(np.float32)) for n in encoded.lengths]
        rows = [{"start": start, "end": end} for start, end in logits]
        predictions = task.predictions("validation", rows)
        expected = postprocess_qa_predictions([c for c, _, _ in EXAMPLES], features, logits, n_best, max_answer_length)
        assert [line["prediction"] for line in predictions] == expected
    assert [line["id"] for line in predictions] == [f"q{i}" for i in range(5)]
    assert json.loads(json.dumps(predictions)) == predictions
    scores = task.score("validation", predictions)
    assert list(scores) == ["f1", "exact_match"]
    for name, value in scores.items():
        assert value == pytest.approx(100 * sum(line[name] for line in predictions) / 5)


def peaks(task: QuestionAnsweringTask, encoded: Any) -> list[dict[str, np.ndarray]]:
    """Logits of a model that is always right: at the answer where the window holds it, else low."""
    rows = []
    for feature, length in zip(encoded.batch(range(len(encoded))), encoded.lengths, strict=True):
        row = {name: np.zeros(length, np.float32) for name in ("start", "end")}
        for name in row:
            row[name][feature[f"{name}_positions"]] = 9.0
        rows.append(row)
    return rows


def test_logits_at_the_answer_give_the_answer(tokenizer: Any, tmp_path: Path) -> None:
    task = make(tmp_path)
    predictions = task.predictions("validation", peaks(task, task.encode("validation", tokenizer, tmp_path)))
    assert [line["prediction"] for line in predictions] == [answers[0] for _, _, answers in EXAMPLES]
    assert task.score("validation", predictions) == {"f1": 100.0, "exact_match": 100.0}
    assert predictions[0]["score"] == 18.0


def test_loss_and_heads_leave_padding_out(tokenizer: Any, tmp_path: Path) -> None:
    task = make(tmp_path)
    encoded = task.encode("train", tokenizer, tmp_path)
    indices = [int(i) for i in np.argsort(encoded.lengths)[[0, -1]]]
    batch = task.collate(encoded.batch(indices))
    width = batch["input_ids"].shape[1]
    raw = {
        f"{n}_logits": torch.randn(2, width, generator=torch.Generator().manual_seed(s))
        for s, n in enumerate(["start", "end"])
    }
    heads = task.heads(raw, batch)
    total = 0.0
    for name in ("start", "end"):
        for i, index in enumerate(indices):
            length = int(encoded.lengths[index])
            row, at = raw[f"{name}_logits"][i].double().tolist()[:length], int(batch[f"{name}_positions"][i])
            assert (
                heads[name][i, :length].tolist() == pytest.approx(row) and (heads[name][i, length:] == -math.inf).all()
            )
            total += math.log(sum(map(math.exp, row))) - row[at]
    assert task.loss(heads, batch).item() == pytest.approx(total / 4, rel=1e-5)
    rows = task.rows(heads, batch)
    assert [len(row["start"]) for row in rows] == encoded.lengths[indices].tolist()
    assert np.isfinite(rows[0]["end"]).all()


def test_gradients_are_finite_and_padding_gets_none(tokenizer: Any, tmp_path: Path) -> None:
    task = make(tmp_path)
    encoded = task.encode("train", tokenizer, tmp_path)
    batch = task.collate(encoded.batch(range(len(encoded))))
    logits = torch.randn(batch["input_ids"].shape, dtype=torch.bfloat16, requires_grad=True)
    task.loss(task.heads({"start_logits": logits, "end_logits": logits}, batch), batch).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None and torch.isfinite(logits.grad).all()
    assert (logits.grad[batch["attention_mask"] == 0] == 0).all()


def test_a_real_models_outputs_fit(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import BertConfig, BertForQuestionAnswering

    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    task = make(tmp_path)
    batch = task.collate(task.encode("train", tokenizer, tmp_path).batch([0, 1, 2]))
    heads = task.heads(BertForQuestionAnswering(config).eval()(**task.inputs(batch)), batch)
    assert heads["start"].shape == heads["end"].shape == batch["input_ids"].shape
    assert task.loss(heads, batch).isfinite()


def test_data_are_refused(tokenizer: Any, tmp_path: Path) -> None:
    good = records()[0]

    def answers(*starts: Any, text: Any = ("a mat",)) -> dict[str, Any]:
        return good | {"answers": {"text": list(text), "answer_start": list(starts)}}

    for record, says in [
        (answers(text=()), "line 2: there is no answer"),
        (answers(15, 3), "line 2: 1 answers with 2 answer_start"),
        (answers(200), "line 2: answer_start=200 of 'a mat' is outside the context"),
        (answers(-1), "outside the context"),
        (answers(3), "line 2: answer_start does not point at its answer"),
        (answers("x"), "line 2: 'answers' is not of the form"),
        (good | {"answers": ["a mat"]}, "line 2: 'answers' is not of the form"),
        (good | {"context": " "}, "line 2: 'context' is empty"),
        (good | {"question": None}, "line 2: 'question' is empty"),
    ]:
        with pytest.raises(UsageError, match=says):
            make(tmp_path, [good, record]).encode("train", tokenizer, tmp_path)
    with pytest.raises(UsageError, match=r"has no column 'answers': .* it has context, question$"):
        make(tmp_path, [{"context": "c", "question": "q"}]).encode("train", tokenizer, tmp_path)


def test_answers_may_be_a_list_of_objects(tmp_path: Path) -> None:
    rows = records()
    expected = make(tmp_path, rows).examples("train")
    for row in rows:
        pairs = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
        row["answers"] = [{"text": text, "answer_start": start} for text, start in pairs]
    assert make(tmp_path, rows).examples("train") == expected


def test_questions_without_ids_go_by_their_row(tmp_path: Path) -> None:
    rows = [{key: value for key, value in record.items() if key != "id"} for record in records()]
    examples = make(tmp_path, rows, validation_limit=2).examples("validation")
    assert [rows[int(key)]["question"].strip() for key in examples.ids] == examples.questions


def test_a_question_that_leaves_no_room(tokenizer: Any, tmp_path: Path) -> None:
    rows = records()
    for words, fits in ((24, True), (25, False)):  # 40 - 12 - 3 special tokens = 25, one of them for the context
        rows[2]["question"] = "who " * words
        task = make(tmp_path, rows)
        if fits:
            assert task.encode("train", tokenizer, tmp_path).lengths.max() <= 40
        else:
            with pytest.raises(UsageError, match="question q2 has 25 tokens, which leaves no room"):
                task.encode("train", tokenizer, tmp_path)
    with pytest.raises(UsageError, match=r"dataset\.doc_stride=40"):
        make(tmp_path, doc_stride=40)


def test_outputs_that_are_no_numbers_fail_the_run(tokenizer: Any, tmp_path: Path) -> None:
    task = make(tmp_path)
    rows = peaks(task, task.encode("validation", tokenizer, tmp_path))
    rows[3]["end"][0] = np.nan
    with pytest.raises(RunError, match="not finite"):
        task.predictions("validation", rows)


@pytest.mark.real
def test_the_dev_set_end_to_end(shared: Path, bert_tokenizer: Any, tmp_path: Path) -> None:
    """Windows counted as in squad.yaml; logits at the annotated spans score almost all, the rest is tokenisation."""
    file = str(shared / "squad_v1.1" / "dev-v1.1.json.gz")
    dataset = DatasetConfig(
        name="squad", task="question_answering", train_file=file, validation_file=file, max_length=384, doc_stride=128
    )
    task = load_task(dataset)
    assert isinstance(task, QuestionAnsweringTask)
    encoded = task.encode("validation", bert_tokenizer, tmp_path)
    assert len(encoded) == yaml.safe_load(SQUAD.read_text())["dataset"]["windows"]["validation"]
    predictions = task.predictions("validation", peaks(task, encoded))
    scores = task.score("validation", predictions)
    assert len(predictions) == 10570
    assert scores["exact_match"] > 99.7 and scores["f1"] > 99.7


def test_a_window_has_two_logits_a_token(tmp_path: Path, tokenizer: Any) -> None:
    task = make(tmp_path)
    data = task.encode("train", tokenizer, tmp_path)
    assert task.logits_each(data).tolist() == [2 * length for length in data.lengths]
