"""Small tokenizers and real data for the tests of tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

torch.set_num_threads(1)
SHARED = Path(__file__).parents[3] / "shared" / "data"
LETTERS = list("abcdefghijklmnopqrstuvwxyz0123456789.,?!'()-")
WORDS = ["the", "cat", "sat", "on", "a", "mat", "in", "paris", "who", "where", "went", "home", "and", "good", "bad"]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """BERT's, with a vocabulary of a few words and of all letters."""
    from transformers import BertTokenizerFast

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("\n".join(dict.fromkeys(pieces)) + "\n")
    return BertTokenizerFast(str(path), model_max_length=512)


@pytest.fixture
def decoder_tokenizer() -> Any:
    """GPT-2's kind: bytes, no special tokens but the end of text, no token types."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab | {"<|end|>": len(vocab)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", model_input_names=["input_ids", "attention_mask"]
    )


@pytest.fixture(scope="session")
def bert_tokenizer() -> Any:
    from transformers import BertTokenizerFast

    vocab = SHARED / "vocab" / "bert-base-uncased" / "vocab.txt"
    if not vocab.exists():
        pytest.skip("no ../shared/data")
    return BertTokenizerFast(str(vocab), model_max_length=512)


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data")
    return SHARED
