"""From the rows of a table to questions with their contexts and answers, checked. No torch, so `plan` can ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prunebench.errors import UsageError, brief
from prunebench.tasks.tables import Table, listed

COLUMNS = ("context", "question", "answers")
MISPLACED = 0.01  # share of answers that may stand elsewhere than answer_start says


@dataclass
class Questions:
    """One split, n questions; `answers` holds all texts that count as right, `starts` where each begins."""

    ids: list[str]
    questions: list[str]
    contexts: list[str]
    answers: list[list[str]]
    starts: list[list[int]]


def read_questions(table: Table) -> Questions:
    """The questions in some rows.

    Raises:
        UsageError: a column is missing, or an answer does not stand where it should.
    """
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise UsageError(
            f"{table.source} has no column '{missing[0]}': give SQuAD's original JSON, or {', '.join(COLUMNS)} "
            f"(and id) by row; it has {listed(table.columns)}"
        )
    columns = {name: table.columns[name] for name in COLUMNS}
    ids = [str(key) for key in table.columns.get("id", map(table.position, range(len(table))))]
    for name in ("context", "question"):
        for row, text in enumerate(columns[name]):
            if not isinstance(text, str) or not text.strip():
                raise UsageError(f"{table.where(row)}: '{name}' is empty")
        table.texts(name, "SQuAD's format")
    answers = [_answers(answer, table, row) for row, answer in enumerate(columns["answers"])]
    texts, starts = [texts for texts, _ in answers], [starts for _, starts in answers]
    _check_places(table, columns["context"], texts, starts)
    return Questions(ids, [q.lstrip() for q in columns["question"]], columns["context"], texts, starts)


def _answers(answer: Any, table: Table, row: int) -> tuple[list[str], list[int]]:
    try:
        if isinstance(answer, list):
            answer = {key: [item[key] for item in answer] for key in ("text", "answer_start")}
        texts, starts = [str(text) for text in answer["text"]], [int(start) for start in answer["answer_start"]]
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise UsageError(f"{table.where(row)}: 'answers' is not of the form text, answer_start (lists)") from error
    if not texts or len(texts) != len(starts):
        why = (
            "there is no answer (SQuAD 2.0?): only questions with an answer are supported"
            if not texts
            else (f"{len(texts)} answers with {len(starts)} answer_start")
        )
        raise UsageError(f"{table.where(row)}: {why}")
    return texts, starts


def _check_places(table: Table, contexts: list[str], texts: list[list[str]], starts: list[list[int]]) -> None:
    """Character positions must be inside, and with few exceptions point at their answer."""
    misplaced, total = [], 0
    for row, context in enumerate(contexts):
        for text, start in zip(texts[row], starts[row], strict=True):
            if start < 0 or start + len(text) > len(context):
                raise UsageError(f"{table.where(row)}: answer_start={start} of '{brief(text)}' is outside the context")
            total += 1
            if not context.startswith(text, start):
                misplaced.append(row)
    if len(misplaced) > MISPLACED * total:
        raise UsageError(
            f"{table.where(misplaced[0])}: answer_start does not point at its answer (as {len(misplaced)} of {total} "
            "do not): it must count characters of the context, from 0"
        )
