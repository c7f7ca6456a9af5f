"""Windows, masks and perplexity against literal versions: transformers' documentation, BERT's own masking."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from prunebench.config import DatasetConfig
from prunebench.errors import RunError, UsageError
from prunebench.evaluate import collect_rows, score_splits
from prunebench.slices import in_slices
from prunebench.tasks import language_modelling
from prunebench.tasks.base import Task, load_task
from prunebench.tasks.tokens import IGNORE, answer_at_labels

TEXT = "the cat sat on a mat in paris.\n\nwho went home? the good cat and a bad mat.\n" * 6
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
         "pad_token_id": 0, "max_position_embeddings": 80, "vocab_size": 300, "initializer_range": 0.3}  # fmt: skip
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": 300, "initializer_range": 0.3}
MASKED: dict[str, dict[str, Any]] = {
    "bert": SIZES, "roberta": SIZES, "mpnet": SIZES, "albert": SIZES | {"embedding_size": 8},
    "electra": SIZES | {"embedding_size": 8}, "deberta": SIZES, "deberta-v2": SIZES | {"legacy": False},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 300},
}  # fmt: skip
CAUSAL: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "opt": SIZES | {"ffn_dim": 32, "word_embed_proj_dim": 16},
}


def make(folder: Path, text: str = TEXT, name: str = "a.txt", **settings: Any) -> Task:
    path = folder / name
    path.write_text(text)
    files = {"train_file": str(path), "validation_file": str(path), "max_length": 16}
    return load_task(DatasetConfig(**({"name": "x", "task": "language_modelling"} | files | settings)))


def causal(folder: Path, **settings: Any) -> Task:
    return make(folder, objective="causal", **settings)


def masked(folder: Path, **settings: Any) -> Task:
    return make(folder, objective="masked", **settings)


def model_of(family: str) -> Any:
    torch.manual_seed(0)
    auto, settings = (
        (AutoModelForCausalLM, CAUSAL[family]) if family in CAUSAL else (AutoModelForMaskedLM, MASKED[family])
    )
    return auto.from_config(AutoConfig.for_model(family, **settings)).eval()


def scores(task: Task, model: Any, tokenizer: Any, folder: Path, batch_size: int = 3) -> dict[str, float]:
    task.prepare(model)
    data = task.encode("validation", tokenizer, folder)
    rows = collect_rows(model, task, data, batch_size=batch_size, device=torch.device("cpu"))
    return score_splits(task, lambda split: rows, ["validation"])[0]


# --- causal -------------------------------------------------------------------------------------------------------


def literal_perplexity(model: Any, ids: torch.Tensor, max_length: int, stride: int) -> float:
    """transformers' documentation, "Perplexity of fixed-length models", with one token's loss at a time."""
    nlls, prev_end = [], 0
    for begin in range(0, ids.size(1), stride):
        end = min(begin + max_length, ids.size(1))
        target_length = end - prev_end
        inputs = ids[:, begin:end]
        targets = inputs.clone()
        targets[:, :-target_length] = -100
        with torch.no_grad():
            logits = model(inputs).logits
        for place in range(inputs.size(1) - 1):
            if targets[0, place + 1] != -100:
                nlls.append(functional.cross_entropy(logits[0, place], targets[0, place + 1]).item())
        prev_end = end
        if end == ids.size(1):
            break
    return math.exp(sum(nlls) / len(nlls))


@pytest.mark.parametrize(
    ("family", "length", "stride"), [("gpt2", 16, 5), ("opt", 16, 8), ("gpt2", 40, 40), ("gpt2", 16, 1)]
)
def test_perplexity_is_that_of_the_documentation(
    family: str, length: int, stride: int, decoder_tokenizer: Any, tmp_path: Path
) -> None:
    model = model_of(family)
    ids = torch.tensor([decoder_tokenizer(TEXT.removesuffix("\n")).input_ids])
    expected = literal_perplexity(model, ids, length, stride)
    task = causal(tmp_path, max_length=length, stride=stride)
    assert scores(task, model, decoder_tokenizer, tmp_path)["perplexity"] == pytest.approx(expected, rel=1e-5)
    assert task.higher_is_better is False


@pytest.mark.parametrize(("length", "stride"), [(16, None), (16, 3), (500, 499), (64, 60)])
def test_every_token_but_the_first_is_scored_once(
    length: int, stride: int | None, decoder_tokenizer: Any, tmp_path: Path
) -> None:
    task = causal(tmp_path, max_length=length, stride=stride)
    data = task.encode("validation", decoder_tokenizer, tmp_path)
    batch = task.batch(data, range(len(data)))
    found = batch["labels"][batch["labels"] != IGNORE].tolist()
    assert found == decoder_tokenizer(TEXT.removesuffix("\n")).input_ids[1:]


def test_training_windows_are_full_and_learn_the_next_token(
    decoder_tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = causal(tmp_path)
    data = task.encode("train", decoder_tokenizer, tmp_path)
    ids = decoder_tokenizer(TEXT.removesuffix("\n")).input_ids
    assert len(data) == len(ids) // 16 and set(data.lengths) == {16}
    assert f"{len(ids) % 16} tokens at the end fill none" in capsys.readouterr().err
    batch = task.batch(data, [2, 0])
    assert batch["input_ids"][0].tolist() == ids[32:48] and batch["labels"][0].tolist() == [*ids[33:48], IGNORE]


def test_documents_end_with_the_tokenizers_token(decoder_tokenizer: Any, tokenizer: Any, tmp_path: Path) -> None:
    ids = [*decoder_tokenizer("the cat").input_ids, 256, *decoder_tokenizer("home").input_ids, 256]
    task = causal(tmp_path, text="the cat\n\n home\n".replace("\n home", "\nhome"), separator=None, max_length=4)
    data = task.encode("train", decoder_tokenizer, tmp_path)
    assert data.columns["input_ids"].tolist() == ids[: len(ids) // 4 * 4]
    other = masked(tmp_path, text="the cat\nhome\n", separator=None, max_length=5)
    found = other.encode("validation", tokenizer, tmp_path).ragged("input_ids", 0)
    assert tokenizer.convert_ids_to_tokens(found) == ["[CLS]", "the", "cat", "[SEP]", "[SEP]"]


def test_rows_of_a_table_are_joined_by_the_separator(decoder_tokenizer: Any, tmp_path: Path) -> None:
    rows = "".join(json.dumps({"body": text}) + "\n" for text in ("the cat sat", "", "home again"))
    task = causal(tmp_path, text=rows, name="a.jsonl", text_columns=["body"], separator="\n\n", max_length=64)
    data = task.encode("validation", decoder_tokenizer, tmp_path)
    assert decoder_tokenizer.decode(data.ragged("input_ids", 0)) == "the cat sat\n\n\n\nhome again"


def test_compressed_text_is_the_same_text(decoder_tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "b.txt.gz"
    path.write_bytes(gzip.compress(TEXT.encode()))
    plain, zipped = causal(tmp_path), causal(tmp_path, train_file=str(path))
    keys = [task.encode("train", decoder_tokenizer, tmp_path).key for task in (plain, zipped)]
    assert keys[0] == keys[1]


def test_limits_and_the_holdout_count_windows(decoder_tokenizer: Any, tmp_path: Path) -> None:
    whole = causal(tmp_path).encode("train", decoder_tokenizer, tmp_path)
    task = causal(tmp_path, holdout=4, limit=5, validation_limit=3)
    train, held = (task.encode(split, decoder_tokenizer, tmp_path) for split in ("train", "holdout"))
    windows = [tuple(whole.ragged("input_ids", i)) for i in range(len(whole))]
    chosen = [[windows.index(tuple(data.ragged("input_ids", i))) for i in range(len(data))] for data in (train, held)]
    assert [len(part) for part in chosen] == [5, 3]
    assert not set(chosen[0]) & set(chosen[1])


def test_the_holdout_is_tokenised_in_the_pieces_of_training(
    decoder_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language_modelling, "ROWS", 3)
    pieces: list[str] = []
    original = type(decoder_tokenizer).__call__

    def call(self: Any, text: str, **settings: Any) -> Any:
        pieces.append(text)
        return original(self, text, **settings)

    monkeypatch.setattr(type(decoder_tokenizer), "__call__", call)
    task, cut = causal(tmp_path, holdout=4), []
    for split in ("train", "holdout"):
        task.encode(split, decoder_tokenizer, tmp_path)
        cut.append(list(pieces))
        pieces.clear()
    assert cut[0] == cut[1] and len(cut[0]) > 3 and "".join(cut[0]) == TEXT.removesuffix("\n")


# --- masked -------------------------------------------------------------------------------------------------------


def test_masks_are_a_function_of_seed_step_and_example(tokenizer: Any, tmp_path: Path) -> None:
    task = masked(tmp_path)
    data = task.encode("train", tokenizer, tmp_path)
    together, alone = task.batch(data, [0, 3, 5], (1, 7)), task.batch(data, [3], (1, 7))
    for name in ("input_ids", "labels"):
        assert torch.equal(together[name][1], alone[name][0])
    others = [task.batch(data, [3], draw)["labels"] for draw in ((1, 8), (2, 7), None)]
    assert not any(torch.equal(alone["labels"], other) for other in others)
    assert torch.equal(others[2], task.batch(data, [3])["labels"])  # scoring is always the same


def test_fifteen_percent_are_masked_in_berts_shares(tokenizer: Any, tmp_path: Path) -> None:
    task = masked(tmp_path, max_length=64)
    data = task.encode("train", tokenizer, tmp_path)
    fates = {"mask": 0, "same": 0, "word": 0}
    places: set[int] = set()
    for step in range(400):
        batch = task.batch(data, [0], (0, step))
        ids, labels, original = batch["input_ids"][0], batch["labels"][0], torch.tensor(data.ragged("input_ids", 0))
        asked = labels != IGNORE
        assert int(asked.sum()) == round(0.15 * 64)
        assert torch.equal(labels[asked], original[asked].long()) and torch.equal(ids[~asked], original[~asked].long())
        places |= set(asked.nonzero().flatten().tolist())
        for shown, label in zip(ids[asked], labels[asked], strict=True):
            fate = "mask" if shown == tokenizer.mask_token_id else "same" if shown == label else "word"
            fates[fate] += 1
    total = sum(fates.values())  # 4,000: three standard errors are under 0.02
    assert [fates[name] / total for name in ("mask", "same", "word")] == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    assert places == set(range(1, 63))  # never [CLS] and [SEP], and every other token at some step


@pytest.mark.parametrize("batch_size", [1, 4])
def test_masked_scores_are_those_of_a_plain_loop(batch_size: int, tokenizer: Any, tmp_path: Path) -> None:
    task, model = masked(tmp_path), model_of("bert")
    data = task.encode("validation", tokenizer, tmp_path)
    nlls, hits = [], []
    for index in range(len(data)):
        batch = task.batch(data, [index])
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[0].detach()
        for place in range(logits.shape[0]):
            label = int(batch["labels"][0, place])
            if label != IGNORE:
                nlls.append(-logits[place].log_softmax(-1)[label].item())
                hits.append(int(logits[place].argmax()) == label)
    found = scores(task, model, tokenizer, tmp_path, batch_size)
    assert found["masked_perplexity"] == pytest.approx(math.exp(np.mean(nlls)), rel=1e-5)
    assert found["masked_accuracy"] == pytest.approx(np.mean(hits))


# --- logits at labelled tokens ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [*MASKED, *CAUSAL])
def test_logits_at_labels_are_those_of_the_whole_model(
    family: str, tokenizer: Any, decoder_tokenizer: Any, tmp_path: Path
) -> None:
    task = masked(tmp_path) if family in MASKED else causal(tmp_path)
    data = task.encode("train", tokenizer if family in MASKED else decoder_tokenizer, tmp_path)
    batch, model = task.batch(data, [0, 1, 2], (0, 0)), model_of(family)
    whole = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = functional.cross_entropy(whole.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORE)
    gradients = torch.autograd.grad(expected, list(model.parameters()), allow_unused=True)
    task.prepare(model)
    heads = task.heads(model(**task.inputs(batch)), batch)
    assert torch.allclose(heads["logits"], whole[batch["labels"] != IGNORE], atol=1e-5)
    loss = task.loss(heads, batch)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    ours = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, gradients, strict=True) if b is not None)


def test_the_output_layer_sees_labelled_tokens_only(tokenizer: Any, tmp_path: Path) -> None:
    model, seen = model_of("bert"), []
    answer_at_labels(model)
    model.cls.predictions.decoder.register_forward_hook(lambda layer, args, output: seen.append(output.shape))
    labels = torch.full((2, 8), IGNORE)
    labels[1, 3] = 5
    model(torch.ones(2, 8, dtype=torch.long), labels=labels)
    model(torch.ones(2, 8, dtype=torch.long))
    assert seen == [(1, 300), (2, 8, 300)]


def test_slices_change_neither_value_nor_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = torch.randn(50, 7, dtype=torch.float64, requires_grad=True), torch.randint(7, (50,))

    def each(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        calls.append(len(labels))
        return functional.cross_entropy(logits, labels, reduction="none")

    results = []
    for most in (10_000, 7 * 12):
        calls: list[int] = []
        monkeypatch.setattr("prunebench.slices.MOST", most)
        loss = torch.cat(in_slices(each, logits, labels)).mean()
        results.append((loss, *torch.autograd.grad(loss, [logits])))
        assert max(calls) == min(50, most // 7)
    assert all(torch.allclose(a, b) for a, b in zip(*results, strict=True))


# --- what is refused ----------------------------------------------------------------------------------------------


def test_a_text_shorter_than_a_window(decoder_tokenizer: Any, tmp_path: Path) -> None:
    task = causal(tmp_path, max_length=1000)
    with pytest.raises(UsageError, match=r"the text has \d+ tokens, less than a window of dataset.max_length=1000"):
        task.encode("train", decoder_tokenizer, tmp_path)
    assert len(task.encode("validation", decoder_tokenizer, tmp_path)) == 1  # it can be scored
    with pytest.raises(UsageError, match="1 tokens, less than a window"):
        causal(tmp_path, text="a").encode("validation", decoder_tokenizer, tmp_path)


def test_a_tokenizer_without_a_mask_or_an_end(decoder_tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no mask token"):
        masked(tmp_path).encode("train", decoder_tokenizer, tmp_path)
    decoder_tokenizer.pad_token, decoder_tokenizer.eos_token = decoder_tokenizer.eos_token, None
    with pytest.raises(UsageError, match="no token that ends a text"):
        causal(tmp_path, separator=None).encode("train", decoder_tokenizer, tmp_path)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"text": " \n\n"}, "holds no text"),
        ({"name": "a.jsonl", "text": '{"body": "x"}\n'}, "has no column 'text'"),
        ({"name": "a.jsonl", "text": '{"text": "x"}\n{"text": null}\n'}, "a.jsonl, line 2: 'text' is missing"),
        ({"text_columns": ["a", "b"]}, "language modelling reads one column"),
    ],
)
def test_files_without_text(settings: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        causal(tmp_path, **settings).examples("train")


def test_a_loss_that_is_no_number(tmp_path: Path) -> None:
    task = causal(tmp_path)
    with pytest.raises(RunError, match="not finite"):
        task.predictions("validation", [{"nll": np.asarray([np.nan]), "hit": np.asarray([False])}])
    with pytest.raises(RunError, match="whose perplexity is no number"):
        task.score("validation", [{"tokens": 2, "nll": 2000.0, "correct": 0}])


def test_special_tokens_are_found_whatever_the_tokenizer_puts_around(tokenizer: Any, decoder_tokenizer: Any) -> None:
    assert language_modelling._around(tokenizer) == ([2], [3])
    assert language_modelling._around(decoder_tokenizer) == ([], [])
