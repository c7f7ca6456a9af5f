"""From the rows of a table to questions with choices, checked, in the formats in which the data are published.

No torch, so `plan` can ask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from prunebench.errors import UsageError, brief
from prunebench.tasks.tables import Table, is_unicode, listed

MULTIPLE_CHOICE, SPAN_SCORING = CHOICES = "multiple_choice", "span_scoring"  # the tasks that read choices
BLANK = "_"
HIDDEN = "test sets hide their answers: choose a split that has them"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """A context and what may follow it; `names` are what the data call the choices, `answer` is the right one's index.

    `rest`: with a blank in the middle of a sentence, the text after it; `choices` then hold what fills the blank.
    """

    context: str
    choices: list[str]
    names: Sequence[str]
    answer: int
    rest: str = ""


@dataclass(frozen=True)
class Choices:
    """One split: n questions with equally many choices, and their rows in the source."""

    questions: list[Question]
    ids: list[int]

    @property
    def each(self) -> int:
        """Choices of a question."""
        return len(self.questions[0].choices)


def read_choices(table: Table, expected: int | None = None) -> Choices:
    """The questions in some rows, each choice as the text that is scored after the context.

    expected: the number of choices; None: as many as the first row has.

    Raises:
        UsageError: the columns are those of no known format, or a row is not what it should be.
    """
    return _read(table, _format(table), expected)


def read_blanks(table: Table) -> Choices:
    """WinoGrande's sentences as the text before the blank, its two fillings, and the rest. Raises as above."""
    missing = [name for name in WINOGRANDE if name not in table.columns]
    if missing:
        raise UsageError(
            f"{table.source} has no column '{missing[0]}': span scoring needs WinoGrande's format "
            f"({', '.join(WINOGRANDE)}); it has {listed(table.columns)}"
        )
    return _read(table, _blank, 2)


def _read(table: Table, read: Callable[[Row], Question], expected: int | None) -> Choices:
    names = list(table.columns)
    questions: list[Question] = []
    for row, values in enumerate(zip(*table.columns.values(), strict=True)):
        try:
            question = read(dict(zip(names, values, strict=True)))
            _require_count(question, expected, questions[:1])
        except _WrongRowError as error:
            raise UsageError(f"{table.where(row)}: {error}") from error
        questions.append(question)
    return Choices(questions, [table.position(row) for row in range(len(table))])


def _require_count(question: Question, expected: int | None, first: Sequence[Question]) -> None:
    count = len(question.choices)
    if count < 2:
        raise _WrongRowError(f"{count} choices: there must be at least two")
    if expected is not None and count != expected:
        raise _WrongRowError(f"{count} choices, but dataset.choices={expected}: every row must have so many")
    if first and count != len(first[0].choices):
        raise _WrongRowError(
            f"{count} choices, but {len(first[0].choices)} in the first row: every row must have equally many"
        )


class _WrongRowError(ValueError):
    """What is wrong in a row, without where."""


# --- formats: columns -> a function from a row to its question ----------------------------------------------------


def _commonsense_qa(row: Row) -> Question:
    """fairseq's commonsense_qa task: `Q: ...` and `A: ...`. The hub has the choices beside the question, not in it."""
    asked = row["question"]
    stem, choices = (asked.get("stem"), asked.get("choices")) if isinstance(asked, dict) else (asked, row["choices"])
    names, texts = _labelled(choices)
    question = "Q: " + _text(stem, "question")
    return Question(question, ["A: " + text for text in texts], names, _index(row["answerKey"], names, "answerKey"))


def _labelled(choices: Any) -> tuple[list[str], list[str]]:
    """[{"label": "A", "text": ...}, ...], or the same by column."""
    try:
        if not isinstance(choices, dict):
            choices = {key: [choice[key] for choice in choices] for key in ("label", "text")}
        names, texts = [str(name) for name in choices["label"]], list(choices["text"])
    except (TypeError, KeyError) as error:
        raise _WrongRowError("the choices are not of the form label, text") from error
    if len(names) != len(texts) or len(set(names)) < len(names):
        raise _WrongRowError(f"each choice needs a label of its own, here they are {brief(', '.join(names))}")
    return names, _texts(texts, names)


def _blank(row: Row) -> Question:
    sentence = _text(row["sentence"], "sentence")
    if sentence.count(BLANK) != 1:
        many = sentence.count(BLANK)
        raise _WrongRowError(f"'sentence' has {many or 'no'} blanks ({BLANK}): it must have exactly one")
    before, after = sentence.split(BLANK)
    names = ("1", "2")
    options = _texts([row["option1"], row["option2"]], names)
    return Question(before, options, names, _index(row["answer"], names, "answer"), after)


def _winogrande(row: Row) -> Question:
    """Text before the blank, and option + rest, as WinoGrande's own baseline splits it."""
    blank = _blank(row)
    texts = [option + blank.rest for option in blank.choices]
    return Question(blank.context.rstrip(), texts, blank.names, blank.answer)


def _race(row: Row) -> Question:
    """fairseq's preprocess_RACE.py: the option fills the question's blank, or else follows the question."""
    article = _text(row["article"], "article").replace("\n", " ")
    question, options = row["question"], row["options"]
    if not isinstance(question, str):
        raise _WrongRowError("'question' is missing")
    names = list(ascii_uppercase[: len(_list(options, "options"))])
    texts = _texts(options, names)
    filled = [question.replace(BLANK, text) if BLANK in question else f"{question} {text}" for text in texts]
    return Question(article, filled, names, _index(row["answer"], names, "answer"))


def _swag(row: Row) -> Question:
    """transformers' run_swag.py: the second sentence begins with `sent2`, and each ending ends it."""
    count = sum(f"ending{number}" in row for number in range(len(row)))
    names = [str(number) for number in range(count)]
    endings = _texts([row[f"ending{name}"] for name in names], names)
    begins = row["sent2"].strip() if isinstance(row["sent2"], str) else ""
    texts = [f"{begins} {ending}".lstrip() for ending in endings]
    return Question(_text(row["sent1"], "sent1"), texts, names, _index(row["label"], names, "label"))


def _hellaswag(row: Row) -> Question:
    names = [str(number) for number in range(len(_list(row["endings"], "endings")))]
    endings = _texts(row["endings"], names)
    return Question(_text(row["ctx"], "ctx"), endings, names, _index(row["label"], names, "label"))


WINOGRANDE = ("sentence", "option1", "option2", "answer")
FORMATS: dict[str, tuple[tuple[str, ...], Callable[[Row], Question]]] = {
    "CommonsenseQA": (("question", "choices", "answerKey"), _commonsense_qa),
    "CommonsenseQA's JSON lines": (("question", "answerKey"), _commonsense_qa),
    "WinoGrande": (WINOGRANDE, _winogrande),
    "RACE": (("article", "question", "options", "answer"), _race),
    "SWAG": (("sent1", "sent2", "ending0", "ending1", "label"), _swag),
    "HellaSwag": (("ctx", "endings", "label"), _hellaswag),
}


def _format(table: Table) -> Callable[[Row], Question]:
    for columns, read in FORMATS.values():
        if all(name in table.columns for name in columns):
            return read
    known = "; ".join(f"{', '.join(columns)} ({name})" for name, (columns, _) in FORMATS.items())
    raise UsageError(
        f"{table.source}: its columns ({listed(table.columns)}) are those of no format with choices: {known}"
    )


# --- values -------------------------------------------------------------------------------------------------------


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > len(ascii_uppercase):
        raise _WrongRowError(f"'{name}' is not a list of texts, at most {len(ascii_uppercase)} of them")
    return value


def _texts(values: Sequence[Any], names: Sequence[str]) -> list[str]:
    return [_text(value, f"choice {name}") for value, name in zip(values, names, strict=True)]


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise _WrongRowError(
            f"'{name}' is " + ("missing" if value is None else f"a {type(value).__name__}, not a text")
        )
    if not value.strip():
        raise _WrongRowError(f"'{name}' is empty: remove that row")
    if not is_unicode(value):
        raise _WrongRowError(f"'{name}' holds half a surrogate pair, which is no letter")
    return value


def _index(answer: Any, names: Sequence[str], column: str) -> int:
    """The index of the choice that an answer names."""
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    name = "" if answer is None else str(answer).strip()
    if name not in names or isinstance(answer, bool):
        hidden = f"; {HIDDEN}" if name in ("", "-1") else ""
        what = f"'{column}' is missing" if name == "" else f"'{column}' is {brief(name)}, which names no choice"
        raise _WrongRowError(f"{what}: it must be one of {', '.join(names)}{hidden}")
    return list(names).index(name)
