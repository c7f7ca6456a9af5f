"""A tiny encoder-decoder's settings, a tokenizer of whole words, and pairs that it can learn in a second."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from prunebench.config import DatasetConfig, RunConfig
from tests.tiny import tiny_config

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
WORDS = [*NAMES, "plus", "minus", "say", *"0123456789+-()*/."]
IDS = {"pad_token_id": 0, "eos_token_id": 1, "vocab_size": 40}
FAMILIES: dict[str, dict[str, Any]] = {
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.02,
           "decoder_start_token_id": 0, **IDS},
    "bart": {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "init_std": 0.1,
             "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "dropout": 0.02,
             "bos_token_id": 1, "max_position_embeddings": 40, "decoder_start_token_id": 1,
             "forced_eos_token_id": 1, **IDS},
}  # fmt: skip


def make_tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=40,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_pairs(path: Path, count: int, seed: int) -> str:
    """two plus nine -> ( 2 + 9 )"""
    words = random.Random(seed)
    lines = ["source\ttarget"]
    for _ in range(count):
        first, second, sign = words.randrange(10), words.randrange(10), words.choice(["plus", "minus"])
        equation = f"( {first} {'+' if sign == 'plus' else '-'} {second} )"
        lines.append(f"{NAMES[first]} {sign} {NAMES[second]}\t{equation}")
    if not path.exists():
        path.write_text("\n".join(lines) + "\n")
    return str(path)


def pairs_dataset(folder: Path, **settings: Any) -> DatasetConfig:
    known = {
        "name": "pairs", "task": "sequence_to_sequence", "text_columns": ["source"], "label_column": "target",
        "train_file": write_pairs(folder / "a.tsv", 600, 0), "validation_file": write_pairs(folder / "b.tsv", 40, 1),
        "max_length": 16, "max_target_length": 8, "metric": "answer_accuracy", "metrics": ["bleu", "chrf"],
    }  # fmt: skip
    return DatasetConfig(**(known | settings))


def pairs_config(folder: Path, family: str = "t5", **changes: Any) -> RunConfig:
    """`tiny_config` on pairs, with a tiny encoder-decoder."""
    config = tiny_config(folder, **({"trainer__lr": 1e-2, "distillation__hardness": 0.5} | changes))
    if not (folder / "tokenizer").exists():
        make_tokenizer(folder / "tokenizer")
    config.model.tokenizer, config.model.name = str(folder / "tokenizer"), f"tiny-{family}"
    config.model.from_config, config.model.config = True, {"model_type": family, **FAMILIES[family]}
    config.dataset = pairs_dataset(folder)
    return config
