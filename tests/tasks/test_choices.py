"""The published formats of questions with choices, each as a row by hand, and everything that can be wrong in one."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from prunebench.cli import main
from prunebench.errors import UsageError
from prunebench.tasks.choices import Choices, read_blanks, read_choices
from prunebench.tasks.tables import Table, read_file

COMMONSENSE_QA = {
    "id": "x",
    "question": {
        "question_concept": "door",
        "stem": "Where is a door?",
        "choices": [{"label": "A", "text": "bank"}, {"label": "B", "text": "sea"}, {"label": "C", "text": "sky"}],
    },
    "answerKey": "B",
}
COMMONSENSE_QA_HUB = {
    "id": "x",
    "question": "Where is a door?",
    "question_concept": "door",
    "choices": {"label": ["A", "B", "C"], "text": ["bank", "sea", "sky"]},
    "answerKey": "B",
}
WINOGRANDE = {
    "qID": "1-2",
    "sentence": "Ann paid Eve because _ was rich.",
    "option1": "Ann",
    "option2": "Eve",
    "answer": "1",
}
RACE = {
    "example_id": "high1.txt",
    "article": "It rained.\nAll day.",
    "question": "What happened?",
    "options": ["It snowed.", "It rained."],
    "answer": "B",
}
SWAG = {
    **{"video-id": "v", "startphrase": "Two run. They", "sent1": "Two run.", "sent2": "They", "gold-source": "gold"},
    **{"ending0": "sing.", "ending1": "fall.", "ending2": "fly.", "ending3": "eat.", "label": 3},
}
HELLASWAG = {"ind": 4, "ctx_a": "A man", "ctx_b": "", "ctx": "A man", "endings": ["sits.", "flies."], "label": "0"}


def table(*rows: dict[str, Any]) -> Table:
    return Table({name: [row.get(name) for row in rows] for name in rows[0]}, "x.jsonl", range(1, len(rows) + 1))


def only(data: Choices) -> tuple[str, list[str], str]:
    (question,) = data.questions
    return question.context, question.choices, question.names[question.answer]


@pytest.mark.parametrize(
    ("row", "context", "choices", "answer"),
    [
        (COMMONSENSE_QA, "Q: Where is a door?", ["A: bank", "A: sea", "A: sky"], "B"),
        (COMMONSENSE_QA_HUB, "Q: Where is a door?", ["A: bank", "A: sea", "A: sky"], "B"),
        (WINOGRANDE, "Ann paid Eve because", ["Ann was rich.", "Eve was rich."], "1"),
        (RACE, "It rained. All day.", ["What happened? It snowed.", "What happened? It rained."], "B"),
        (RACE | {"question": "So it _ ?"}, "It rained. All day.", ["So it It snowed. ?", "So it It rained. ?"], "B"),
        (SWAG, "Two run.", ["They sing.", "They fall.", "They fly.", "They eat."], "3"),
        (SWAG | {"label": 3.0, "sent2": None}, "Two run.", ["sing.", "fall.", "fly.", "eat."], "3"),
        (HELLASWAG, "A man", ["sits.", "flies."], "0"),
    ],
)  # fmt: skip
def test_formats(row: dict[str, Any], context: str, choices: list[str], answer: str) -> None:
    assert only(read_choices(table(row))) == (context, choices, answer)


def test_a_blank_is_read_with_what_stands_around_it() -> None:
    (question,) = read_blanks(table(WINOGRANDE)).questions
    assert (question.context, question.choices, question.rest) == (
        "Ann paid Eve because ",
        ["Ann", "Eve"],
        " was rich.",
    )


def test_published_csv_and_parquet(tmp_path: Path) -> None:
    """SWAG is published as CSV, with a first column that has no name; the hub's files are Parquet."""
    import pyarrow
    import pyarrow.parquet

    with (tmp_path / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["", *SWAG], ["0", *SWAG.values()]])
    assert only(read_choices(read_file(tmp_path / "train.csv")))[2] == "3"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([COMMONSENSE_QA_HUB]), tmp_path / "train.parquet")
    assert only(read_choices(read_file(tmp_path / "train.parquet")))[2] == "B"


def changed(row: dict[str, Any], **values: Any) -> dict[str, Any]:
    return row | values


FOUR = {"label": list("ABCD"), "text": ["a", "b", "c", "d"]}
WRONG = [
    ([COMMONSENSE_QA_HUB, changed(COMMONSENSE_QA_HUB, choices=FOUR)], "line 2: 4 choices, but 3 in the first row"),
    ([changed(COMMONSENSE_QA_HUB, answerKey="E")], "line 1: 'answerKey' is E, which names no choice: .*of A, B, C$"),
    ([changed(COMMONSENSE_QA_HUB, answerKey="")], "'answerKey' is missing: .*; test sets hide their answers"),
    ([changed(COMMONSENSE_QA_HUB, choices=None)], "the choices are not of the form label, text"),
    ([changed(COMMONSENSE_QA_HUB, choices=[{"label": "A"}])], "the choices are not of the form label, text"),
    ([changed(COMMONSENSE_QA_HUB, choices={"label": ["A", "A"], "text": ["a", "b"]})], "a label of its own"),
    ([changed(COMMONSENSE_QA_HUB, question=7)], "'question' is a int, not a text"),
    ([changed(COMMONSENSE_QA_HUB, question=" ")], "'question' is empty"),
    ([changed(COMMONSENSE_QA_HUB, choices={"label": ["A"], "text": ["a"]}, answerKey="A")], "1 choices: there must be"),
    ([WINOGRANDE, changed(WINOGRANDE, sentence="No blank.")], "line 2: 'sentence' has no blanks"),
    ([changed(WINOGRANDE, sentence="_ and _")], "'sentence' has 2 blanks .* exactly one"),
    ([changed(WINOGRANDE, option2="")], "'choice 2' is empty: remove that row"),
    ([changed(WINOGRANDE, option1=None)], "'choice 1' is missing"),
    ([changed(WINOGRANDE, answer="3")], "'answer' is 3, which names no choice: it must be one of 1, 2$"),
    ([changed(WINOGRANDE, answer=True)], "'answer' is True, which names no choice"),
    ([changed(WINOGRANDE, option1="half \ud800")], "half a surrogate pair"),
    ([changed(RACE, answer="AB")], "'answer' is AB, which names no choice"),
    ([changed(RACE, options="AB")], "'options' is not a list of texts"),
    ([changed(RACE, options=["a"] * 27)], "at most 26"),
    ([changed(RACE, question=None)], "'question' is missing"),
    ([changed(SWAG, label=-1)], "'label' is -1, which names no choice: it must be one of 0, 1, 2, 3; test sets hide"),
    ([changed(HELLASWAG, endings=["sits.", " "])], "'choice 1' is empty"),
    ([changed(HELLASWAG, ctx=None)], "'ctx' is missing"),
    ([{"sentence": "a", "label": 1}], "x.jsonl: its columns .sentence, label. are those of no format with choices"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "says"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_wrong_is_said_with_its_row(rows: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        read_choices(table(*rows))
    assert str(caught.value).startswith("x.jsonl") and "\n" not in str(caught.value)


def test_the_number_of_choices_can_be_asked_for() -> None:
    assert read_choices(table(RACE), 2).each == 2
    with pytest.raises(UsageError, match=r"line 1: 2 choices, but dataset.choices=4: every row must have so many"):
        read_choices(table(RACE), 4)


def test_span_scoring_reads_winogrande_only() -> None:
    with pytest.raises(UsageError, match="no column 'sentence': span scoring needs WinoGrande's format"):
        read_blanks(table(RACE))
    with pytest.raises(UsageError, match="line 1: 'sentence' has no blanks"):
        read_blanks(table(changed(WINOGRANDE, sentence="a")))


@pytest.mark.parametrize("task", ["multiple_choice", "span_scoring"])
def test_plan_reads_the_files_and_refuses_both(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good, bad = WINOGRANDE, changed(WINOGRANDE, answer="3")
    Path("good.jsonl").write_text((json.dumps(good) + "\n") * 700)
    for name, row in (("train", bad), ("validation", changed(good, option1=" "))):
        Path(f"{name}.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n")
    words = ["plan", "recipe=bert_smc_90", "dataset=multiple_choice", f"dataset.task={task}"]
    assert main([*words, "dataset.train_file=train.jsonl", "dataset.validation_file=validation.jsonl"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert (
        "train.jsonl, line 2: 'answer' is 3" in told[0] and "validation.jsonl, line 2: 'choice 1' is empty" in told[1]
    )
    assert main([*words, "dataset.train_file=good.jsonl", "dataset.holdout=20", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["examples"]["count"] == 680
    assert shown["disk_bytes"]["teacher's logits"] == 680 * 2 * 4


def test_settings_that_do_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in [
        (
            ["dataset=winogrande_span", "model=gpt2"],
            "asks for masked words, which openai-community/gpt2 (gpt2) was not",
        ),
        (["dataset=commonsense_qa", "dataset.metric=f1"], "'f1' is no metric for multiple_choice, which has accuracy"),
        (["dataset=commonsense_qa", "dataset.choices=1"], "dataset.choices=1: must be in [2, 26]"),
    ]:
        assert main(["plan", "recipe=bert_smc_90", *words]) == 2
        assert says in capsys.readouterr().err
