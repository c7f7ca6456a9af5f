"""Exact match and F1 against the logic of SQuAD's official evaluate-v1.1.py, written down literally."""

from __future__ import annotations

import gzip
import json
import random
import re
import string
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunebench.tasks import metrics, squad

# --- the official scorer ---------------------------------------------------------------------------------------


def normalize_answer(s):  # type: ignore[no-untyped-def]
    def remove_articles(text):  # type: ignore[no-untyped-def]
        return re.sub(r"\b(a|an|the)\b", " ", text)

    def white_space_fix(text):  # type: ignore[no-untyped-def]
        return " ".join(text.split())

    def remove_punc(text):  # type: ignore[no-untyped-def]
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    def lower(text):  # type: ignore[no-untyped-def]
        return text.lower()

    return white_space_fix(remove_articles(remove_punc(lower(s))))


def f1_score(prediction, ground_truth):  # type: ignore[no-untyped-def]
    prediction_tokens = normalize_answer(prediction).split()
    ground_truth_tokens = normalize_answer(ground_truth).split()
    common = Counter(prediction_tokens) & Counter(ground_truth_tokens)
    num_same = sum(common.values())
    if num_same == 0:
        return 0
    precision = 1.0 * num_same / len(prediction_tokens)
    recall = 1.0 * num_same / len(ground_truth_tokens)
    f1 = (2 * precision * recall) / (precision + recall)
    return f1


def exact_match_score(prediction, ground_truth):  # type: ignore[no-untyped-def]
    return normalize_answer(prediction) == normalize_answer(ground_truth)


def metric_max_over_ground_truths(metric_fn, prediction, ground_truths):  # type: ignore[no-untyped-def]
    scores_for_ground_truths = []
    for ground_truth in ground_truths:
        score = metric_fn(prediction, ground_truth)
        scores_for_ground_truths.append(score)
    return max(scores_for_ground_truths)


def evaluate(dataset, predictions):  # type: ignore[no-untyped-def]
    f1 = exact_match = total = 0
    for article in dataset:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                total += 1
                if qa["id"] not in predictions:
                    continue
                ground_truths = [x["text"] for x in qa["answers"]]
                prediction = predictions[qa["id"]]
                exact_match += metric_max_over_ground_truths(exact_match_score, prediction, ground_truths)
                f1 += metric_max_over_ground_truths(f1_score, prediction, ground_truths)
    exact_match = 100.0 * exact_match / total
    f1 = 100.0 * f1 / total
    return {"exact_match": exact_match, "f1": f1}


# ---------------------------------------------------------------------------------------------------------------

words = st.sampled_from(["The", "a", "AN", "cat", "cat.", "Cats", "the-cat", "1,000", "É", "\u00a0x", "''", "–", "an."])
phrases = st.lists(words, max_size=6).map(" ".join)


@given(phrases, st.lists(phrases, min_size=1, max_size=4))
def test_equals_the_official_scorer(prediction: str, answers: list[str]) -> None:
    assert squad.normalize_answer(prediction) == normalize_answer(prediction)
    expected = metric_max_over_ground_truths(exact_match_score, prediction, answers)
    assert squad.exact_match(prediction, answers) == expected
    assert squad.f1(prediction, answers) == pytest.approx(metric_max_over_ground_truths(f1_score, prediction, answers))


def noisy(text: str, context: str, rng: random.Random) -> str:
    """An answer as a model might give it: right, cut, prolonged, in other case, elsewhere, or none."""
    words = text.split()
    return rng.choice(
        [text, text, " ".join(words[1:]), text + " of the", "The " + text.upper() + "!", context[10:30], ""]
    )


@pytest.mark.real
def test_equals_the_official_scorer_on_the_whole_dev_set(shared: Path) -> None:
    with gzip.open(shared / "squad_v1.1" / "dev-v1.1.json.gz") as file:
        dataset: list[Any] = json.load(file)["data"]
    rng = random.Random(0)
    predictions, references = {}, []
    for paragraph in (paragraph for article in dataset for paragraph in article["paragraphs"]):
        for qa in paragraph["qas"]:
            predictions[qa["id"]] = noisy(rng.choice(qa["answers"])["text"], paragraph["context"], rng)
            answers = {key: [answer[key] for answer in qa["answers"]] for key in ("text", "answer_start")}
            references.append({"id": qa["id"], "answers": answers})
    ours = metrics.compute("squad", [{"id": i, "prediction_text": t} for i, t in predictions.items()], references)
    assert 20 < ours["exact_match"] < ours["f1"] < 80
    assert ours == pytest.approx(evaluate(dataset, predictions), rel=1e-12)
