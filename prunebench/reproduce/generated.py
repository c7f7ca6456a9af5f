"""Small generated data sets in the formats of the real ones, and a tokenizer of their words. No torch, no network.

All are about films: what was how ("the plot was dull"), so that a model could learn each of them. Everything is a pure
function of the data set's settings; files that are there already are used.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunebench.config import DatasetConfig
from prunebench.errors import UsageError
from prunebench.paths import write_text
from prunebench.reproduce.local import VOCABULARY

TRAIN, VALIDATION = 64, 32  # examples
ASPECTS = ["plot", "music", "cast", "script", "ending", "humour", "story", "dialogue"]
BAD = ["dull", "clumsy", "flat", "weak", "boring", "stale"]
GOOD = ["superb", "witty", "fresh", "moving", "clever", "vivid"]
OTHER = ["the", "was", "how", "and", "but", "a", "q", ":", ".", "?", ",", "i", "loved", "hated", "so", "said", "all"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

Rows = list[dict[str, Any]]


def clause(rng: random.Random, aspect: str, good: bool) -> tuple[str, str]:
    """A clause and its adjective."""
    adjective = rng.choice(GOOD if good else BAD)
    return f"the {aspect} was {adjective}", adjective


def write(dataset: DatasetConfig, folder: Path) -> list[str]:
    """Files for `dataset` below `folder`, and the words that choose them.

    Raises:
        UsageError: nothing is generated for its task.
    """
    if dataset.task not in WRITERS:
        raise UsageError(
            f"dataset={dataset.name}: no small data are generated for {dataset.task}; "
            f"there are some for {', '.join(WRITERS)}"
        )
    make, ending = WRITERS[dataset.task]
    words = []
    for split, count in (("train", TRAIN), ("validation", VALIDATION)):
        path = folder / f"{dataset.name}-{split}.{ending}"
        if not path.is_file():
            write_text(path, make(dataset, count, random.Random(f"{dataset.name} {split}")))
        words.append(f"dataset.{split}_file={path}")
    return words


def _classification(dataset: DatasetConfig, count: int, rng: random.Random) -> str:
    """Pairs: of how many of the two something good is said."""
    labels = dataset.labels or ["0", "1"]
    lines = ["sentence1\tsentence2\tlabel"]
    for index in range(count):
        goods = index % 3, index // 3 % 2
        texts = [clause(rng, rng.choice(ASPECTS), bool(good))[0] for good in goods]
        number = goods[0] % 2 + goods[1]
        label = f"{2.5 * number:g}" if dataset.regression else labels[min(number, len(labels) - 1)]
        lines.append("\t".join([*texts, label]))
    return "\n".join(lines) + "\n"


def _question_answering(dataset: DatasetConfig, count: int, rng: random.Random) -> str:
    rows = []
    for index in range(count):
        aspects = rng.sample(ASPECTS, 3)
        told = [clause(rng, aspect, rng.random() < 0.5) for aspect in aspects]
        context = ". ".join(text for text, _ in told) + "."
        asked = rng.randrange(3)
        start = context.index(told[asked][0]) + len(f"the {aspects[asked]} was ")
        answers = {"text": [told[asked][1]], "answer_start": [start]}
        rows.append(
            {"id": str(index), "context": context, "question": f"how was the {aspects[asked]}?", "answers": answers}
        )
    return _lines(rows)


def _choices(dataset: DatasetConfig, count: int, rng: random.Random) -> str:
    """In the format in which the data set that they stand for is published."""
    make = next((make for name, make in FORMATS.items() if dataset.name.startswith(name)), _race)
    return _lines([make(rng) for _ in range(count)])


def _commonsense_qa(rng: random.Random) -> dict[str, Any]:
    text, right = clause(rng, aspect := rng.choice(ASPECTS), good := rng.random() < 0.5)
    texts = [right, *rng.sample(BAD if good else GOOD, 4)]
    rng.shuffle(texts)
    choices = [{"label": label, "text": text} for label, text in zip("ABCDE", texts, strict=True)]
    question = {"stem": f"{text}. how was the {aspect}?", "choices": choices}
    return {"question": question, "answerKey": "ABCDE"[texts.index(right)]}


def _winogrande(rng: random.Random) -> dict[str, Any]:
    options = rng.sample(ASPECTS, 2)
    good = rng.random() < 0.5
    adjective = rng.choice(GOOD if good else BAD)
    sentence = f"i loved the {options[0]} and hated the {options[1]}, so the _ was {adjective}."
    return {"sentence": sentence, "option1": options[0], "option2": options[1], "answer": "1" if good else "2"}


def _race(rng: random.Random) -> dict[str, Any]:
    question = _commonsense_qa(rng)
    article, asked = question["question"]["stem"].split(". ")
    texts = [choice["text"] for choice in question["question"]["choices"] if choice["label"] != "E"]
    answer = question["answerKey"]
    if answer == "E":
        texts[0], answer = question["question"]["choices"][4]["text"], "A"
    return {"article": article + ".", "question": asked, "options": texts, "answer": answer}


FORMATS = {"commonsense_qa": _commonsense_qa, "winogrande": _winogrande, "race": _race}


def _text(dataset: DatasetConfig, count: int, rng: random.Random) -> str:
    """Lines of about 40 words."""
    return "".join(
        ". ".join(clause(rng, rng.choice(ASPECTS), rng.random() < 0.5)[0] for _ in range(10)) + ".\n"
        for _ in range(count)
    )


def _lines(rows: Rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


WRITERS: dict[str, tuple[Callable[[DatasetConfig, int, random.Random], str], str]] = {
    "classification": (_classification, "tsv"),
    "question_answering": (_question_answering, "jsonl"),
    "multiple_choice": (_choices, "jsonl"),
    "span_scoring": (_choices, "jsonl"),
    "language_modelling": (_text, "txt"),
}


@dataclass(frozen=True)
class Vocabulary:
    folder: Path
    size: int


def write_tokenizer(folder: Path, length: int, data: Path | None) -> Vocabulary:
    """A folder with an uncased WordPiece tokenizer: of the generated words, or with BERT's vocabulary out of `data`."""
    real = data / VOCABULARY if data else None
    if real and real.is_file():
        place, pieces = folder / "tokenizer-bert", real.read_text(encoding="utf-8").splitlines()
    else:
        letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
        place = folder / "tokenizer"
        pieces = [*SPECIAL, *sorted({*ASPECTS, *BAD, *GOOD, *OTHER, *letters, *(f"##{letter}" for letter in letters)})]
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": length}
    settings |= {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    if not (place / "tokenizer_config.json").is_file():
        write_text(place / "vocab.txt", "\n".join(pieces) + "\n")
        write_text(place / "tokenizer_config.json", json.dumps(settings) + "\n")
    return Vocabulary(place, len(pieces))
