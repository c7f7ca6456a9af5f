"""Generated reviews: labels agree with an independent reader, words alone do not give them away, nothing is random."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from prunebench import paths
from prunebench.config import DatasetConfig
from prunebench.errors import UsageError
from prunebench.tasks.base import load_task
from prunebench.tasks.synthetic import POSITIVE, REJECTED, SPECIAL, Reviews, generate, train_tokenizer

SMALL = Reviews(train=600, validation=200, noise=0.0)


def make(**params: Any) -> Any:
    return load_task(DatasetConfig(name="quickstart", task="synthetic", params=params, max_length=32))


def preset(group: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((paths.conf_dir() / group / "quickstart.yaml").read_text())
    return loaded


@pytest.fixture(scope="module")
def task() -> Any:
    return load_task(DatasetConfig(**preset("dataset")["dataset"]))


def read_clause(words: list[str]) -> bool:
    negated = any(word in ("not", "never", "hardly", "far") for word in words)
    return (words[-1] in POSITIVE) != negated


def read_sentence(sentence: str) -> bool:
    """Is the review positive? Written from the task's description, word by word."""
    words = sentence.lower().rstrip(".").replace(",", " ,").split()
    if "i" in words:
        return words[words.index("i") + 1] not in REJECTED
    if words[0] == "although":
        words = words[words.index(",") + 1 :]
    elif "although" in words:
        words = words[: words.index(",")]
    elif "but" in words or "yet" in words:
        words = words[words.index(",") + 2 :]
    elif "and" in words:
        first, words = words[: words.index("and")], words[words.index("and") + 1 :]
        assert read_clause(first) == read_clause(words)
    return read_clause(words)


def test_labels_are_what_the_sentences_say() -> None:
    for rows in generate(SMALL).values():
        for sentence, label in rows:
            assert label == ("positive" if read_sentence(sentence) else "negative"), sentence


def test_noise_is_as_asked_and_changes_no_sentence() -> None:
    rows = generate(Reviews(train=3000, validation=100, noise=0.04))["train"]
    wrong = np.mean([label != ("positive" if read_sentence(sentence) else "negative") for sentence, label in rows])
    assert 0.025 < wrong < 0.055  # four standard deviations of 3000 draws
    assert [sentence for sentence, _ in rows] == [sentence for sentence, _ in generate(
        Reviews(train=3000, validation=100, noise=0.3))["train"]]  # fmt: skip


def test_sentences_are_distinct_and_balanced(task: Any) -> None:
    train, validation = ({*task.table(split).columns["sentence"]} for split in ("train", "validation"))
    assert (len(train), len(validation)) == (3000, 1000) and not train & validation
    for split in ("train", "validation"):
        positive = np.mean([label == "positive" for label in task.table(split).columns["label"]])
        assert 0.45 < positive < 0.55


def test_a_larger_train_begins_with_the_smaller_one() -> None:
    assert generate(Reviews(train=50))["train"] == generate(Reviews(train=80))["train"][:50]


def test_nothing_depends_on_random_states_or_on_the_process(task: Any) -> None:
    script = (
        "from prunebench.tasks.synthetic import *; rows = generate(Reviews())\n"
        "tokenizer = train_tokenizer([text for text, _ in rows['train']], 32)\n"
        "print(rows['train'][-1][0], rows['validation'][-1], sorted(tokenizer.get_vocab().items()), sep='|')"
    )
    random.seed(5)
    torch.manual_seed(5)
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    rows = generate(Reviews())
    vocab = sorted(task.make_tokenizer().get_vocab().items())
    assert output.strip() == f"{rows['train'][-1][0]}|{rows['validation'][-1]}|{vocab}"


def test_words_alone_do_not_tell(task: Any) -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    train, validation = (task.table(split).columns for split in ("train", "validation"))
    bag = CountVectorizer()
    model = LogisticRegression(max_iter=1000).fit(bag.fit_transform(train["sentence"]), train["label"])
    assert model.score(bag.transform(validation["sentence"]), validation["label"]) < 0.7


def test_tokenizer_has_a_piece_for_every_word_and_letters_for_others(task: Any) -> None:
    tokenizer = task.make_tokenizer()
    text = "Although the plot was far from dull, I mocked it."
    assert " ".join(tokenizer.tokenize(text)) == "although the plot was far from dull , i mocked i ##t ."
    words = {word for split in ("train", "validation") for text in task.table(split).columns["sentence"]
             for word in text.lower().replace(",", " ,").replace(".", " .").split()}  # fmt: skip
    assert all(tokenizer.tokenize(word) == [word] for word in words)
    assert all(len(piece.removeprefix("##")) == 1 for piece in set(tokenizer.get_vocab()) - words - set(SPECIAL))
    assert [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL] == [0, 1, 2, 3, 4]
    assert tokenizer.pad_token_id == 0 and tokenizer.model_max_length == 32


def test_tokenizer_is_saved_with_the_model(task: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = task.make_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    again, text = AutoTokenizer.from_pretrained(tmp_path), "I loved what the critics hated."
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.decode(again(text)["input_ids"]).startswith("[CLS] i loved what the critics hated")
    assert again.model_max_length == 32


def test_encoded_examples_are_short_and_complete(task: Any, tmp_path: Path) -> None:
    encoded = task.encode("validation", task.make_tokenizer(), tmp_path)
    assert len(encoded) == 1000 and encoded.lengths.max() < 24  # nothing is cut
    labels = [task.labels.index(label) for label in task.table("validation").columns["label"]]
    assert encoded.columns["labels"].tolist() == labels
    assert task.labels == ["negative", "positive"] and task.num_labels == 2 and task.eval_splits == ["validation"]


def test_model_preset_fits_the_tokenizer(task: Any) -> None:
    config = preset("model")["model"]["config"]
    assert config["vocab_size"] == len(task.make_tokenizer())
    assert config["max_position_embeddings"] >= task.dataset.max_length


def test_limit_and_holdout_are_those_of_every_task() -> None:
    task = load_task(DatasetConfig(name="q", task="synthetic", params={"train": 60}, limit=20, holdout=15))
    assert len(task.examples("train").ids) == 20 and len(task.examples("holdout").ids) == 15
    assert task.eval_splits == ["holdout"] and not set(task.examples("train").ids) & set(task.examples("holdout").ids)


def test_identity_follows_the_parameters() -> None:
    assert make().identity() == make(train=3000).identity()
    changed = [{"seed": 2}, {"train": 3999}, {"noise": 0.05}, {"negation": 0.5}]
    assert all(make(**params).identity() != make().identity() for params in changed)
    assert generate(Reviews(train=5, seed=1)) != generate(Reviews(train=5, seed=2))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"trian": 5}, "trian is unknown (did you mean 'train'?)"),
        ({"train": "many"}, "give an integer"),
        ({"train": 1.5}, "give an integer"),
        ({"noise": True}, "give a number"),
        ({"noise": 0.6}, "between 0 and 0.5"),
        ({"validation": 0}, "between 1 and 50000"),
        ({"train": 10**9}, "between 1 and 50000"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(params: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        make(**params)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_train_tokenizer_trains_on_any_text() -> None:
    assert train_tokenizer(["a cat, a cab"], 8).tokenize("Cat cab") == ["cat", "cab"]
