"""Generated film reviews in which word order decides: the quickstart's data, with no network and no files.

One sentence, positive or negative as a whole. A bag of words cannot tell, because the same words serve both labels:

- simple: "The plot was far from dull." Negation turns a word's sentiment around.
- agree: "The cast felt clumsy and the music was never fresh." Both clauses say the same.
- contrast: "Although the story was lively, the humour seemed very stale." Only the main clause counts, which stands
  after "but" and "yet", and before or after the one that begins with "although".
- opinion: "My sister mocked the ending that I loved." Only what "I" did counts.

Data and tokenizer are pure functions of `dataset.params`, so every run, whatever its seed, sees the same.
"""

from __future__ import annotations

import random
from dataclasses import asdict
from typing import Any

from prunebench.config import DatasetConfig
from prunebench.tasks.classification import ClassificationTask
from prunebench.tasks.settings import Reviews, read_params
from prunebench.tasks.tables import Table

GENERATOR = 1  # raise it when the same parameters come to give other sentences or another tokenizer
LABELS = ("negative", "positive")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

# fmt: off
NEGATIVE = [
    "dull", "clumsy", "flat", "tired", "weak", "messy", "boring", "awful", "stale", "hollow", "lazy", "bland",
    "cheap", "noisy", "silly", "shallow", "tedious", "forced", "wooden", "dreary",
]
POSITIVE = [
    "superb", "charming", "moving", "clever", "gripping", "fresh", "witty", "brilliant", "lovely", "elegant",
    "sharp", "warm", "bold", "tender", "vivid", "subtle", "graceful", "thrilling", "inventive", "honest",
]
ASPECTS = [
    "plot", "acting", "music", "cast", "script", "ending", "humour", "pacing", "dialogue", "photography",
    "story", "opening",
]
# fmt: on
REJECTED, LIKED = ["hated", "disliked", "mocked", "resented"], ["loved", "enjoyed", "admired", "praised"]
OTHERS = ("the critics", "my friends", "the crowd", "my sister", "the jury")
AFFIRMED = ("was", "was", "felt", "was really", "was quite", "seemed very")
NEGATED = ("was not", "was never", "was hardly", "was far from")
CONTRASTS = (  # {main} decides
    "{side}, but {main}",
    "{side}, yet {main}",
    "although {side}, {main}",
    "{main}, although {side}",
)
OPINIONS = (
    "I {mine} the {aspect} that {others} {theirs}",
    "{others} {theirs} the {aspect} that I {mine}",
    "I {mine} what {others} {theirs}",
    "{others} {theirs} what I {mine}",
)


def generate(reviews: Reviews) -> dict[str, list[tuple[str, str]]]:
    """(sentence, label) by split. No sentence occurs twice, so none of validation is in train."""
    rng = random.Random(reviews.seed)
    rows: dict[str, str] = {}
    while len(rows) < reviews.train + reviews.validation:
        positive = rng.random() < 0.5
        sentence = _sentence(rng, positive, reviews.negation)
        if sentence not in rows:
            rows[sentence] = LABELS[positive != (rng.random() < reviews.noise)]
    pairs = list(rows.items())
    return {"train": pairs[: reviews.train], "validation": pairs[reviews.train :]}


def _sentence(rng: random.Random, positive: bool, negation: float) -> str:
    kind = rng.choices(("simple", "agree", "contrast", "opinion"), (30, 15, 40, 15))[0]
    first, second = rng.sample(ASPECTS, 2)
    main = _clause(rng, first, positive, negation)
    if kind == "opinion":
        mine, theirs = (LIKED, REJECTED) if positive else (REJECTED, LIKED)
        words = {"mine": rng.choice(mine), "theirs": rng.choice(theirs), "others": rng.choice(OTHERS), "aspect": first}
        text = rng.choice(OPINIONS).format(**words)
    elif kind == "contrast":
        text = rng.choice(CONTRASTS).format(main=main, side=_clause(rng, second, not positive, negation))
    else:
        text = main if kind == "simple" else f"{main} and {_clause(rng, second, positive, negation)}"
    return text[0].upper() + text[1:] + "."


def _clause(rng: random.Random, aspect: str, positive: bool, negation: float) -> str:
    negated = rng.random() < negation
    adjective = rng.choice(POSITIVE if positive != negated else NEGATIVE)
    return f"the {aspect} {rng.choice(NEGATED if negated else AFFIRMED)} {adjective}"


def train_tokenizer(texts: list[str], max_length: int) -> Any:
    """An uncased WordPiece tokenizer trained on `texts`: their words, and letters to spell any other word.

    Training goes on until every word is a piece; pieces that no word needs any more are then dropped, since they
    would only enlarge the embeddings. What is left is sorted, so that ids do not depend on the order of merges.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import BertTokenizerFast

    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=10_000, special_tokens=SPECIAL, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    used = {piece for encoding in backend.encode_batch(texts) for piece in encoding.tokens}
    letters = {piece for piece in backend.get_vocab() if len(piece.removeprefix("##")) == 1}
    pieces = SPECIAL + sorted((used | letters) - set(SPECIAL))
    vocab = {piece: i for i, piece in enumerate(pieces)}
    return BertTokenizerFast(vocab=vocab, do_lower_case=True, model_max_length=max_length)


class SyntheticTask(ClassificationTask):
    """Classification of generated reviews; makes its own tokenizer."""

    def __init__(self, dataset: DatasetConfig) -> None:
        super().__init__(dataset)
        self.reviews = read_params(dataset.params)
        self._splits = generate(self.reviews)

    @property
    def labels(self) -> list[str]:
        return list(LABELS)

    def splits(self) -> list[str]:
        return ["validation"]

    def raw(self, split: str) -> Table:
        sentences, labels = zip(*self._splits[split], strict=True)
        return Table({"sentence": list(sentences), "label": list(labels)}, f"generated reviews, {split}")

    def source_identity(self) -> dict[str, Any]:
        return {"generator": GENERATOR, **asdict(self.reviews)}

    def make_tokenizer(self) -> Any:
        return train_tokenizer([sentence for sentence, _ in self._splits["train"]], self.dataset.max_length)


TASK = SyntheticTask
