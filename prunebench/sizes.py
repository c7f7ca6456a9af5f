"""How many weights a model's components hold, from its Hugging Face config alone: `plan` needs no torch.

Closed forms of `prunebench.targets.component_sizes`; tests compare the two for every family and head.
Notation: d hidden size, f feed-forward size, n labels, e embedding size where it differs from d.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from prunebench.errors import UsageError

CLASSIFY = "AutoModelForSequenceClassification"
ANSWER = "AutoModelForQuestionAnswering"
MASKED = "AutoModelForMaskedLM"
CAUSAL = "AutoModelForCausalLM"
TRANSLATE = "AutoModelForSeq2SeqLM"

Count = tuple[int, int]  # (weights in matrices, all other parameters: norms, biases, convolutions)
Config = Mapping[str, Any]

# What transformers assumes for a key that config.json leaves out.
_BERT: dict[str, Any] = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "max_position_embeddings": 512, "type_vocab_size": 2, "tie_word_embeddings": True,
}  # fmt: skip
_DEBERTA = _BERT | {
    "vocab_size": 50265, "type_vocab_size": 0, "relative_attention": False, "max_relative_positions": -1,
    "pos_att_type": None, "position_biased_input": True, "legacy": True,
}  # fmt: skip
DEFAULTS: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "roberta": _BERT | {"vocab_size": 50265},
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "distilbert": _BERT | {"num_hidden_layers": 6, "type_vocab_size": 0},
    "albert": _BERT
    | {"vocab_size": 30000, "embedding_size": 128, "hidden_size": 4096, "num_attention_heads": 64,
       "intermediate_size": 16384, "num_hidden_groups": 1, "inner_group_num": 1},
    "electra": _BERT
    | {"embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
    "deberta": _DEBERTA,
    "deberta-v2": _DEBERTA
    | {"vocab_size": 128100, "hidden_size": 1536, "num_hidden_layers": 24, "num_attention_heads": 24,
       "intermediate_size": 6144, "position_buckets": -1, "share_att_key": False, "norm_rel_ebd": "none",
       "conv_kernel_size": 0, "conv_groups": 1},
    "mpnet": _BERT | {"vocab_size": 30527, "type_vocab_size": 0, "relative_attention_num_buckets": 32},
    "gpt2": _BERT | {"vocab_size": 50257, "max_position_embeddings": 1024, "type_vocab_size": 0,
                     "intermediate_size": None},
    "opt": _BERT
    | {"vocab_size": 50272, "max_position_embeddings": 2048, "type_vocab_size": 0, "word_embed_proj_dim": None,
       "do_layer_norm_before": True, "_remove_final_layer_norm": False, "enable_bias": True,
       "layer_norm_elementwise_affine": True},
}  # fmt: skip
ALIASES: dict[str, dict[str, str]] = {  # the family's own name of a key -> the common one
    "distilbert": {"dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads",
                   "hidden_dim": "intermediate_size"},
    "gpt2": {"n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
             "n_inner": "intermediate_size", "n_positions": "max_position_embeddings"},
    "opt": {"ffn_dim": "intermediate_size"},
}  # fmt: skip


def component_sizes(config: Config, head: str, num_labels: int) -> dict[str, int] | None:
    """Weights of encoder, pooler, embeddings, head, and norms_and_biases (all that is no matrix), as of the real class.

    config: the HF config as a mapping with `model_type`; head: the Auto class' name; num_labels: its outputs (2 for the
    start and end of question answering). None where the family is unknown here or has no such head.
    """
    kind = config.get("model_type")
    if kind not in DEFAULTS:
        return None
    c = _with_defaults(config, kind)
    head_size = _head(c, head, num_labels)
    if head_size is None:
        return None
    layers, embeddings = _layers(c), _embeddings(c)
    d = c["hidden_size"]
    pooler = (d * d, d) if _has_pooler(kind, head) else (0, 0)
    parts = {"encoder": layers, "pooler": pooler, "embeddings": embeddings, "head": head_size}
    sizes = {name: matrices for name, (matrices, _) in parts.items()}
    return sizes | {"norms_and_biases": sum(rest for _, rest in parts.values())}


def read_folder(path: str | Path) -> tuple[dict[str, Any], int, int]:
    """(config.json, number of floating-point weights, bytes of the weight files) from the safetensors headers only.

    Tied weights count as often as the files hold them, which is once as written by transformers.
    """
    folder = Path(path)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"model folder '{path}': config.json cannot be read ({error})") from error
    files = _weight_files(folder)
    return config, sum(_weights_in(file) for file in files), sum(file.stat().st_size for file in files)


def _with_defaults(config: Config, kind: str) -> dict[str, Any]:
    names = ALIASES.get(kind, {})
    c = DEFAULTS[kind] | {names.get(key, key): value for key, value in config.items()}
    if c["intermediate_size"] is None:
        c["intermediate_size"] = 4 * c["hidden_size"]  # GPT-2's n_inner
    if kind == "opt":
        c["embedding_size"] = c["word_embed_proj_dim"] or c["hidden_size"]
    c.setdefault("embedding_size", c["hidden_size"])
    return c


def _layers(c: Config) -> Count:
    """The repeated transformer layers: query, key, value, output (4 d^2), feed-forward (2 d f), times their number."""
    d, f = c["hidden_size"], c["intermediate_size"]
    weights, rest = 4 * d * d + 2 * d * f, 9 * d + f  # rest: 5 biases of d, one of f, two norms of 2 d
    extra, extra_rest = _LAYER_EXTRA[c["model_type"]](c) if c["model_type"] in _LAYER_EXTRA else (0, 0)
    number = c["num_hidden_layers"]
    if c["model_type"] == "albert":
        number = c["num_hidden_groups"] * c["inner_group_num"]  # shared by all layers of a group
    return number * (weights + extra), number * (rest + extra_rest)


def _deberta_layer(c: Config) -> Count:
    """Projections of the relative positions; v1 has no bias on keys (He et al. 2021, eq. 4)."""
    d, v2 = c["hidden_size"], c["model_type"] == "deberta-v2"
    kinds = c["pos_att_type"] or []
    relative = c["relative_attention"] and not (v2 and c["share_att_key"])
    c2p, p2c = (int(bool(relative) and name in kinds) for name in ("c2p", "p2c"))
    return (c2p + p2c) * d * d, (c2p + p2c) * d if v2 else (p2c - 1) * d


def _opt_layer(c: Config) -> Count:
    d, f = c["hidden_size"], c["intermediate_size"]
    biases = 0 if c["enable_bias"] else 5 * d + f
    return 0, -biases - (0 if c["layer_norm_elementwise_affine"] else 4 * d)


_LAYER_EXTRA: dict[str, Callable[[Config], Count]] = {
    "deberta": _deberta_layer, "deberta-v2": _deberta_layer, "opt": _opt_layer,
}  # fmt: skip


def _embeddings(c: Config) -> Count:
    """Tokens, positions and segments, and what projects them to d; with them the norms outside layers and head."""
    kind, d, e = c["model_type"], c["hidden_size"], c["embedding_size"]
    rows = c["vocab_size"] + c["max_position_embeddings"] + c["type_vocab_size"]
    if kind in ("deberta", "deberta-v2"):
        return _deberta_embeddings(c, rows)
    if kind == "opt":  # two positions more than max_position_embeddings, and positions of width d
        positions = c["max_position_embeddings"] + 2
        norm = c["do_layer_norm_before"] and not c["_remove_final_layer_norm"] and c["layer_norm_elementwise_affine"]
        return c["vocab_size"] * e + positions * d + (2 * d * e if e != d else 0), 2 * d if norm else 0
    if kind == "mpnet":
        return rows * d + c["relative_attention_num_buckets"] * c["num_attention_heads"], 2 * d
    projected = kind == "albert" or e != d
    return rows * e + projected * d * e, 2 * e + projected * d


def _deberta_embeddings(c: Config, rows: int) -> Count:
    d, e, v2 = c["hidden_size"], c["embedding_size"], c["model_type"] == "deberta-v2"
    rows -= 0 if c["position_biased_input"] else c["max_position_embeddings"]
    weights, rest = rows * e + (d * e if e != d else 0), 2 * d
    if c["relative_attention"]:
        span = c["max_relative_positions"]
        span = span if span >= 1 else c["max_position_embeddings"]
        weights += 2 * d * (c["position_buckets"] if v2 and c["position_buckets"] > 0 else span)
    if v2 and "layer_norm" in c["norm_rel_ebd"].lower():
        rest += 2 * d
    if v2 and c["conv_kernel_size"] > 0:  # a convolution beside the first layer: not a matrix
        rest += d * (d // c["conv_groups"]) * c["conv_kernel_size"] + d + 2 * d
    return weights, rest


def _has_pooler(kind: str, head: str) -> bool:
    return head == CLASSIFY and kind in ("bert", "albert")


DECODERS = ("gpt2", "opt")
_ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "albert", "electra", "deberta",
             "deberta-v2", "mpnet")  # fmt: skip
_FAMILIES = {  # head -> families that have it
    CLASSIFY: (*_ENCODERS, *DECODERS),
    ANSWER: (*_ENCODERS, *DECODERS),
    MASKED: _ENCODERS,
    CAUSAL: ("bert", "roberta", "xlm-roberta", "camembert", "electra", *DECODERS),
}


def _head(c: Config, head: str, n: int) -> Count | None:
    """What stands outside the base model; a language-model head tied to the embeddings counts there."""
    kind, d, width = c["model_type"], c["hidden_size"], c["hidden_size"]
    if kind not in _FAMILIES.get(head, ()):
        return None
    decoder = kind in DECODERS
    if decoder:
        width = c["embedding_size"]
    if head in (MASKED, CAUSAL):
        return _lm_head(c, decoder)
    if head == ANSWER:
        n = 2 if decoder else n
        return n * width, n
    if decoder:
        return n * width, 0
    if _has_pooler(kind, head):
        return n * d, n
    p = c.get("pooler_hidden_size", d) if kind.startswith("deberta") else d
    return p * p + n * p, p + n


def _lm_head(c: Config, decoder: bool) -> Count:
    d, e, v = c["hidden_size"], c["embedding_size"], c["vocab_size"]
    untied = not c["tie_word_embeddings"]
    if decoder:
        return untied * v * e, 0
    if c["model_type"].startswith("deberta") and not c["legacy"]:
        return d * d, 3 * d + v
    second_bias = untied and c["model_type"] not in ("distilbert", "electra")  # beside the decoder's own
    return d * e + untied * v * e, 3 * e + v + second_bias * v


_MAX_HEADER = 100_000_000  # bytes; the format's own limit


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return sorted(folder.glob("model.safetensors"))
    shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return sorted({folder / str(shard) for shard in shards})


def _weights_in(file: Path) -> int:
    """Floating-point elements of a safetensors file: 8 bytes of header length (little endian), then a JSON header."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(length, _MAX_HEADER)))
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        return sum(prod(entry["shape"]) for entry in tensors if "F" in entry["dtype"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"'{file}' is not a readable safetensors file ({type(error).__name__})") from error
