"""Sequences, batches, losses and scores of questions with choices, against the same written down literally."""

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
from prunebench.tasks.multiple_choice import MultipleChoiceTask
from prunebench.tasks.span_scoring import UNSCORED, SpanScoringTask

LONG = "the cat sat on a mat in paris. " * 4
ROWS = [
    {"ctx": "the cat", "endings": ["sat on a mat.", "went home"], "label": 0},
    {"ctx": LONG, "endings": ["who sat?", "a bad cat, where?"], "label": 1},
    {"ctx": "who", "endings": ["sat", "went"], "label": 0},
]
BLANKS = [
    {"sentence": "the cat sat on a mat and _ went home.", "option1": "cat", "option2": "the mat", "answer": "1"},
    {"sentence": "_ sat in paris", "option1": "who", "option2": "a cat-mat", "answer": "2"},
    {"sentence": LONG + "_ went home and sat on a mat.", "option1": "bad cat", "option2": "cat", "answer": "2"},
]


def make(folder: Path, task: str, rows: list[dict[str, Any]], **settings: Any) -> Any:
    path = folder / "choices.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    files = {"train_file": str(path), "validation_file": str(path), "max_length": 24}
    return load_task(DatasetConfig(**({"name": "x", "task": task, "metric": "accuracy"} | files | settings)))


@pytest.fixture
def pairs(tmp_path: Path) -> MultipleChoiceTask:
    task = make(tmp_path, "multiple_choice", ROWS)
    assert isinstance(task, MultipleChoiceTask)
    return task


@pytest.fixture
def spans(tmp_path: Path) -> SpanScoringTask:
    task = make(tmp_path, "span_scoring", BLANKS)
    assert isinstance(task, SpanScoringTask)
    return task


def test_only_the_context_is_ever_cut(
    pairs: MultipleChoiceTask, tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = pairs.encode("train", tokenizer, tmp_path)
    lengths = data.columns["choice_lengths"]
    for index, row in enumerate(ROWS):
        flat = list(data.ragged("input_ids", index))
        for ending, length in zip(row["endings"], lengths[index], strict=True):
            ids, flat = flat[:length], flat[length:]
            context = tokenizer.tokenize(row["ctx"])[: 24 - 3 - len(tokenizer.tokenize(ending))]
            tokens = ["[CLS]", *context, "[SEP]", *tokenizer.tokenize(ending), "[SEP]"]
            assert tokenizer.convert_ids_to_tokens(ids) == tokens
        assert not flat
    assert data.columns["cut"].tolist() == [False, True, False]
    for _ in range(2):  # newly made, and from the cache
        assert "x, train: the context of 1 of 3 questions is cut" in capsys.readouterr().err
        pairs.encode("train", tokenizer, tmp_path)
    assert pairs.logits_each(data).tolist() == [2, 2, 2]


def test_a_choice_that_leaves_no_room_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    rows = [ROWS[0], {"ctx": "the", "endings": ["the " * 20, "the " * 21], "label": 0}]
    with pytest.raises(UsageError, match=r"dataset x, row 2: a choice has 21 tokens, and at most 20 leave room"):
        make(tmp_path, "multiple_choice", rows).encode("train", tokenizer, tmp_path)


def test_a_batch_has_the_choices_below_each_other(pairs: MultipleChoiceTask, tokenizer: Any, tmp_path: Path) -> None:
    data = pairs.encode("train", tokenizer, tmp_path)
    batch = pairs.collate(data.batch([2, 0]))
    texts = tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
    assert texts == ["who sat", "who went", "the cat sat on a mat.", "the cat went home"]
    assert batch["input_ids"].shape == batch["attention_mask"].shape == batch["token_type_ids"].shape == (4, 16)
    assert batch["attention_mask"].sum(1).tolist() == [5, 5, 10, 7]
    assert batch["labels"].tolist() == [0, 0]
    assert set(pairs.inputs(batch)) == {"input_ids", "attention_mask", "token_type_ids"}


def test_the_loss_is_cross_entropy_over_the_choices(pairs: MultipleChoiceTask) -> None:
    logits = [[0.5, -1.0], [2.0, 0.25]]
    batch = {"labels": torch.tensor([0, 1])}
    heads = pairs.heads(SimpleNamespace(logits=torch.tensor([[x] for row in logits for x in row])), batch)
    assert heads["logits"].tolist() == logits
    by_hand = [-math.log(math.exp(row[k]) / sum(map(math.exp, row))) for row, k in zip(logits, (0, 1), strict=True)]
    assert float(pairs.loss(heads, batch)) == pytest.approx(sum(by_hand) / 2)


def test_predictions_and_accuracy(pairs: MultipleChoiceTask, tokenizer: Any, tmp_path: Path) -> None:
    pairs.encode("validation", tokenizer, tmp_path)
    rows = [{"logits": np.asarray(row, np.float32)} for row in ([1, 0], [0.25, -1], [-2, -3])]
    lines = pairs.predictions("validation", rows)
    assert lines[1] == {"id": 1, "label": "1", "prediction": "0", "correct": False, "scores": [0.25, -1.0]}
    assert [line["correct"] for line in lines] == [True, False, True]
    assert pairs.score("validation", lines) == {"accuracy": pytest.approx(2 / 3)}
    with pytest.raises(RunError, match="not finite"):
        pairs.predictions("validation", [{"logits": np.asarray([np.nan, 0])}, *rows[1:]])


def test_the_same_rows_as_other_questions_are_other_data(
    pairs: MultipleChoiceTask, tokenizer: Any, tmp_path: Path
) -> None:
    keys = {pairs.encode("train", tokenizer, tmp_path).key}
    changed = [{"ctx": "the dog"}, {"endings": ["sat on a mat.", "went"]}, {"label": 1}]
    for change in changed:
        keys.add(
            make(tmp_path, "multiple_choice", [ROWS[0] | change, *ROWS[1:]]).encode("train", tokenizer, tmp_path).key
        )
    assert len(keys) == 1 + len(changed)


# --- span scoring -------------------------------------------------------------------------------------------------


def masked_rows(task: SpanScoringTask, batch: dict[str, torch.Tensor], tokenizer: Any) -> list[str]:
    """Sequences with masks, and what was masked."""
    texts = []
    for ids, mask, targets in zip(batch["input_ids"], batch["attention_mask"], batch["targets"], strict=True):
        hidden = tokenizer.convert_ids_to_tokens(targets[targets != UNSCORED])
        texts.append(" ".join(tokenizer.convert_ids_to_tokens(ids[mask == 1])) + " | " + " ".join(hidden))
    return texts


def test_fillings_are_masked_word_for_word(spans: SpanScoringTask, tokenizer: Any, tmp_path: Path) -> None:
    data = spans.encode("train", tokenizer, tmp_path)
    assert masked_rows(spans, spans.collate(data.batch([0, 1])), tokenizer) == [
        "[CLS] the cat sat on a mat and [MASK] went home . [SEP] | cat",
        "[CLS] the cat sat on a mat and [MASK] [MASK] went home . [SEP] | the mat",
        "[CLS] [MASK] sat in paris [SEP] | who",
        "[CLS] [MASK] [MASK] [MASK] [MASK] sat in paris [SEP] | a cat - mat",
    ]


def test_a_long_sentence_loses_its_end_and_then_its_beginning(
    spans: SpanScoringTask, tokenizer: Any, tmp_path: Path
) -> None:
    data = spans.encode("train", tokenizer, tmp_path)
    before = tokenizer.tokenize(LONG)
    for row, filling in zip(
        masked_rows(spans, spans.collate(data.batch([2])), tokenizer), (["bad", "cat"], ["cat"]), strict=True
    ):
        kept = before[-(24 - 2 - len(filling)) :]  # nothing after the blank is left
        assert row == " ".join(["[CLS]", *kept, *["[MASK]"] * len(filling), "[SEP]", "|", *filling])
    assert data.columns["cut"].tolist() == [False, False, True]


def fairseq_winogrande(
    log_p: torch.Tensor, batch: dict[str, torch.Tensor], alpha: float, beta: float
) -> tuple[Any, float]:
    """get_lprobs and get_loss of examples/roberta/wsc/wsc_criterion.py, sequence by sequence: scores, mean loss."""
    scores = []
    for row, targets in enumerate(batch["targets"]):
        places = [i for i, target in enumerate(targets) if target != UNSCORED]
        scores.append(sum(float(log_p[row, i, targets[i]]) for i in places) / len(places))
    pairs = np.reshape(scores, (-1, 2))
    loss = 0.0
    for (first, second), label in zip(pairs, batch["labels"], strict=True):
        query, candidate = (first, second) if label == 0 else (second, first)
        loss += -query + alpha * max(0.0, candidate - query + beta)
    return pairs, loss / len(pairs)


@pytest.mark.parametrize(("alpha", "beta"), [(5.0, 0.4), (1.0, 0.0), (0.0, 3.0)])
def test_scores_and_margin_loss_are_fairseqs(alpha: float, beta: float, tmp_path: Path, tokenizer: Any) -> None:
    task = make(tmp_path, "span_scoring", BLANKS, margin_alpha=alpha, margin_beta=beta)
    batch = task.collate(task.encode("train", tokenizer, tmp_path).batch([0, 1, 2]))
    torch.manual_seed(0)
    logits = torch.randn(*batch["input_ids"].shape, len(tokenizer))
    scores, loss = fairseq_winogrande(logits.log_softmax(-1), batch, alpha, beta)
    heads = task.heads(SimpleNamespace(logits=logits), batch)
    assert heads["logits"].numpy() == pytest.approx(scores, abs=1e-5)
    assert float(task.loss(heads, batch)) == pytest.approx(loss, abs=1e-5)


def test_the_margin_is_part_of_what_is_learned(tmp_path: Path) -> None:
    identities = [make(tmp_path, "span_scoring", BLANKS, margin_beta=beta).identity() for beta in (0.4, 0.5)]
    assert identities[0] != identities[1]


def test_a_tokenizer_without_a_mask_is_refused(spans: SpanScoringTask, decoder_tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no mask token: choose an encoder"):
        spans.encode("train", decoder_tokenizer, tmp_path)


def test_a_filling_longer_than_the_model_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    rows = [BLANKS[0] | {"option2": "the " * 22}]
    with pytest.raises(UsageError, match="row 1: a choice has 22 tokens, and at most 21 leave room"):
        make(tmp_path, "span_scoring", rows).encode("train", tokenizer, tmp_path)


def test_bytes_and_leading_spaces(tmp_path: Path) -> None:
    """RoBERTa's words have their space before them: as in fairseq, it is masked even as a token of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = ["<s>", "</s>", "<pad>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), trim_offsets=True)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    rows = [{"sentence": "as _, so", "option1": "é b", "option2": "c", "answer": "1"}]
    task = make(tmp_path, "span_scoring", rows)
    batch = task.collate(task.encode("train", tokenizer, tmp_path).batch([0]))
    hidden = [tokenizer.decode(row[row != UNSCORED]) for row in batch["targets"]]
    assert hidden == [" é b", " c"]
