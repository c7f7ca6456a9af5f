"""Pairs of texts, teacher forcing and greedy generation against literal versions on tiny T5 and BART."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from prunebench.errors import UsageError
from prunebench.evaluate import collect_rows, score_splits
from prunebench.sparsity.calibration import _tokens
from prunebench.targets import component_sizes, find_targets
from prunebench.tasks.base import Task, load_task
from prunebench.tasks.tokens import IGNORE
from tests.pairs import FAMILIES, make_tokenizer, pairs_dataset

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def model_of(family: str) -> Any:
    torch.manual_seed(3)
    return AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(family, **FAMILIES[family])).eval()


def task_of(folder: Path, **settings: Any) -> Task:
    return load_task(pairs_dataset(folder, **settings))


def test_pairs_become_sources_and_targets(words: Any, tmp_path: Path) -> None:
    task = task_of(tmp_path, prefix="say ")
    data = task.encode("train", words, tmp_path)
    batch = task.batch(data, [3, 0, 599])
    lines = (tmp_path / "a.tsv").read_text().splitlines()[1:]
    for row, index in enumerate((3, 0, 599)):
        source, target = lines[index].split("\t")
        assert batch["input_ids"][row][batch["attention_mask"][row] == 1].tolist() == words(f"say {source}").input_ids
        labels = batch["labels"][row]
        assert labels[labels != IGNORE].tolist() == words(target).input_ids
    assert torch.equal(batch["decoder_attention_mask"] == 1, batch["labels"] != IGNORE)
    assert batch["labels"].shape[1] != batch["input_ids"].shape[1]
    assert task.amounts(data, np.array([3, 599])).tolist() == [6, 6]


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_the_models_own(family: str, words: Any, tmp_path: Path) -> None:
    task, model = task_of(tmp_path, max_target_length=6), model_of(family)
    batch = task.batch(task.encode("train", words, tmp_path), range(5))
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": batch["labels"]}
    whole = model(**inputs)
    expected = torch.autograd.grad(whole.loss, list(model.parameters()), allow_unused=True)
    task.prepare(model)
    heads = task.heads(model(**task.inputs(batch)), batch)
    assert torch.allclose(heads["logits"], whole.logits[batch["labels"] != IGNORE], atol=1e-5)
    loss = task.loss(heads, batch)
    assert loss.item() == pytest.approx(whole.loss.item(), rel=1e-5)
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True) if b is not None)


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_is_greedy_and_does_not_depend_on_the_batch(family: str, words: Any, tmp_path: Path) -> None:
    task, model = task_of(tmp_path, metric="", metrics=["bleu"], validation_limit=9), model_of(family)
    model.generation_config.num_beams, model.generation_config.do_sample = 4, True  # a model's own wishes
    data = task.encode("validation", words, tmp_path)
    literal = []
    for index in range(len(data)):
        ids = task.batch(data, [index])
        decoder = torch.tensor([[model.config.decoder_start_token_id]])
        for place in range(8):
            logits = model(
                input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], decoder_input_ids=decoder
            ).logits[0, -1]
            chosen = logits.argmax()
            if family == "bart" and place == 7:
                chosen = torch.tensor(1)  # its forced end
            decoder = torch.cat([decoder, chosen.view(1, 1)], 1)
            if int(chosen) == 1:
                break
        literal.append(words.decode(decoder[0], skip_special_tokens=True).strip())
    task.prepare(model)
    for batch_size in (1, 4, 9):
        rows = collect_rows(model, task, data, batch_size=batch_size, device=CPU)
        lines = task.predictions("validation", [rows[i] for i in range(len(rows))])
        assert [line["prediction"] for line in lines] == literal


def test_scores_are_sacrebleus_with_its_signature(words: Any, tmp_path: Path) -> None:
    import sacrebleu

    task = task_of(tmp_path)
    texts = ["the cat sat on the mat today", "a dog", "who went home and when was that?"]
    targets = ["the cat sat on a mat today", "the dog", "who went home and why was that?"]
    lines = [{"prediction": a, "target": b, "correct": True} for a, b in zip(texts, targets, strict=True)]
    scores = task.score("validation", lines)
    assert scores["bleu"] == pytest.approx(sacrebleu.corpus_bleu(texts, [targets]).score)
    assert scores["chrf"] == pytest.approx(sacrebleu.corpus_chrf(texts, [targets]).score)
    assert 0 < scores["bleu"] < 100 and scores["answer_accuracy"] == 1
    assert set(task.signatures()) == {"bleu", "chrf"}
    assert task.signatures()["bleu"] == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"


def test_an_equation_is_right_by_its_value(words: Any, tmp_path: Path) -> None:
    task = task_of(tmp_path, metrics=[], validation_limit=4)
    task.encode("validation", words, tmp_path)
    targets = task.examples("validation").targets = ["( 8 - 3 )", "( 8 - 3 )", "( 8 - 3 )", "( 8 - 3 )"]
    generated = ["5", "9 - 4 )", "( 8 - 3 ) / ( 1 - 1 )", "( 2 * 2 ) + 1"]
    rows = [{"nll": np.ones(3, np.float32), "generated": np.asarray(words(text).input_ids)} for text in generated]
    lines = task.predictions("validation", rows)
    assert [line["correct"] for line in lines] == [True, False, False, True] and len(targets) == 4
    assert task.score("validation", lines) == {"answer_accuracy": 0.5}


def test_long_texts_are_cut_and_counted(words: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = task_of(tmp_path, max_target_length=4, max_length=16)
    data = task.encode("validation", words, tmp_path)
    batch = task.batch(data, [0])
    labels = batch["labels"][0]
    assert labels[labels != IGNORE].tolist()[-1] == words.eos_token_id and int((labels != IGNORE).sum()) == 4
    assert "0 sources are cut (dataset.max_length=16) and 40 targets" in capsys.readouterr().err


def test_translations_as_the_hub_has_them(words: Any, tmp_path: Path) -> None:
    rows = [{"translation": {"en": "one plus two", "ro": "1 + 2"}}, {"translation": {"en": "nine", "ro": "9"}}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {name: str(tmp_path / "t.jsonl") for name in ("train_file", "validation_file")}
    task = task_of(tmp_path, text_columns=["en"], label_column="ro", metric="bleu", **files)
    assert task.examples("train").sources == ["one plus two", "nine"]
    assert task.examples("train").targets == ["1 + 2", "9"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("one\t( 1 + x )", r"line 2: '\( 1 \+ x \)' is no equation"),
        ("one\t1 / 0", "is no equation"),
        ("one\t ", "'target' is empty"),
        (" \t1", "'source' is empty"),
    ],
)
def test_rows_that_cannot_be_used(row: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "c.tsv").write_text(f"source\ttarget\n{row}\n")
    with pytest.raises(UsageError, match=says):
        task_of(tmp_path, train_file=str(tmp_path / "c.tsv")).examples("train")


def test_columns_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no column 'sourc' \(did you mean 'source'\?\)"):
        task_of(tmp_path, text_columns=["sourc"]).examples("train")
    with pytest.raises(UsageError, match="name the column of the source texts"):
        task_of(tmp_path, text_columns=[]).examples("train")


def test_sacrebleu_is_asked_for_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunebench.tasks.settings.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'prunebench\[seq2seq\]'"):
        task_of(tmp_path)
    assert task_of(tmp_path, metrics=[]).metrics == ["answer_accuracy"]


def test_a_model_must_know_how_targets_begin(tmp_path: Path) -> None:
    model = model_of("t5")
    model.config.decoder_start_token_id = None
    with pytest.raises(UsageError, match="no decoder_start_token_id"):
        task_of(tmp_path).prepare(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_both_stacks_are_the_encoder_component(family: str) -> None:
    model = model_of(family)
    names = [target.name for target in find_targets(model)]
    assert len(names) == 2 * 6 + 2 * 10  # self-attention and feed-forward; the decoder has cross-attention too
    assert sum(".decoder." in f".{name}" for name in names) == 20
    sizes = component_sizes(model)
    assert sizes["head"] == sizes["pooler"] == 0 and sizes["embeddings"] > 40 * 32  # the tied output layer is there


def test_each_side_has_its_own_padding(words: Any, tmp_path: Path) -> None:
    """Pruning looks at inputs without padding, whichever side they are from."""
    task = task_of(tmp_path)
    batch = task.batch(task.encode("train", words, tmp_path), range(4))
    masks = [batch["attention_mask"], batch["decoder_attention_mask"]]
    for mask in masks:
        inputs = mask[..., None].float() * torch.arange(1, 4)
        kept, sequences = _tokens(inputs, masks)
        assert kept.shape == (int(mask.sum()), 3) and sequences == 4 and bool((kept > 0).all())


def test_token_losses_are_kept_by_example(words: Any, tmp_path: Path) -> None:
    task, model = task_of(tmp_path, validation_limit=6), model_of("bart")
    data = task.encode("validation", words, tmp_path)
    expected = []
    for index in range(len(data)):
        batch = task.batch(data, [index])
        plain = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
        logits = model(**plain).logits[0]
        labels = batch["labels"][0]
        expected.append(functional.cross_entropy(logits[labels != IGNORE], labels[labels != IGNORE]).item())
    task.prepare(model)
    rows = collect_rows(model, task, data, batch_size=4, device=CPU)
    _, lines = score_splits(task, lambda split: rows, ["validation"])
    assert [line["loss"] for line in lines] == pytest.approx(expected, rel=1e-4)
