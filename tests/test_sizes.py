"""The closed forms against the real classes, built on the meta device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from safetensors.torch import save_file

from prunebench import models, sizes, targets
from prunebench.errors import UsageError

HEADS = (sizes.CLASSIFY, sizes.ANSWER, sizes.MASKED, sizes.CAUSAL)
CONF = Path(__file__).parents[1] / "conf" / "model"

# Odd numbers wherever a family allows them, so that no two sizes can stand in for each other.
BERT = {"vocab_size": 101, "hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 29,
            "max_position_embeddings": 23, "type_vocab_size": 5}  # fmt: skip
RELATIVE = BERT | {"relative_attention": True, "pos_att_type": "c2p|p2c", "position_biased_input": False}
TINY: dict[str, list[dict[str, Any]]] = {
    "bert": [BERT],
    "roberta": [BERT],
    "xlm-roberta": [BERT],
    "camembert": [BERT],
    "distilbert": [
        {"vocab_size": 101, "dim": 12, "n_layers": 3, "n_heads": 2, "hidden_dim": 29, "max_position_embeddings": 23},
        {"hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2, "hidden_dim": 29},
    ],
    "albert": [
        BERT | {"embedding_size": 7},
        BERT | {"embedding_size": 12, "num_hidden_groups": 3, "inner_group_num": 2, "num_hidden_layers": 6},
    ],
    "electra": [BERT | {"embedding_size": 7}, BERT | {"embedding_size": 12}],
    "deberta": [
        BERT,
        RELATIVE,
        RELATIVE | {"pos_att_type": ["c2p"], "max_relative_positions": 9, "embedding_size": 7},
        RELATIVE | {"pos_att_type": "p2c", "legacy": False, "pooler_hidden_size": 12, "type_vocab_size": 0},
    ],
    "deberta-v2": [
        BERT,
        RELATIVE | {"position_buckets": 17, "norm_rel_ebd": "layer_norm", "share_att_key": True},
        RELATIVE | {"conv_kernel_size": 3, "conv_groups": 2, "embedding_size": 7},
        RELATIVE | {"pos_att_type": ["p2c"], "legacy": False, "type_vocab_size": 0},
    ],
    "mpnet": [{key: value for key, value in BERT.items() if key != "type_vocab_size"}
              | {"relative_attention_num_buckets": 19}],
    "gpt2": [
        {"vocab_size": 101, "n_embd": 12, "n_layer": 3, "n_head": 2, "n_positions": 23},
        {"vocab_size": 101, "n_embd": 12, "n_layer": 3, "n_head": 2, "n_inner": 29},
    ],
    "opt": [
        {"vocab_size": 101, "hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2, "ffn_dim": 29},
        {"vocab_size": 101, "hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2, "ffn_dim": 29,
             "word_embed_proj_dim": 7, "do_layer_norm_before": False, "max_position_embeddings": 23},
        {"vocab_size": 101, "hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2, "ffn_dim": 29,
             "enable_bias": False, "layer_norm_elementwise_affine": False},
    ],
}  # fmt: skip


def real_sizes(config: dict[str, Any], head: str, num_labels: int) -> dict[str, int] | None:
    """Counted on the class that transformers builds; None where it has no such head."""
    values = dict(config)
    built = transformers.AutoConfig.for_model(values.pop("model_type"), **values, num_labels=num_labels)
    auto = getattr(transformers, head)
    if type(built) not in auto._model_mapping:
        return None
    with torch.device("meta"):
        model = auto.from_config(built)
    counted = targets.component_sizes(model)
    assert sum(counted.values()) == sum(parameter.numel() for parameter in model.parameters())
    return counted


def cases() -> list[Any]:
    tiny = [(kind, config) for kind, configs in TINY.items() for config in configs]
    tiny += [(kind, {**configs[0], "tie_word_embeddings": False}) for kind, configs in TINY.items()]
    base = [(kind, {}) for kind in TINY]
    return [pytest.param({"model_type": kind, **config}, id=f"{kind}-{len(config)}") for kind, config in base + tiny]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("config", cases())
def test_closed_form_equals_the_real_class(config: dict[str, Any], head: str) -> None:
    labels = 2 if head == sizes.ANSWER else 3
    assert sizes.component_sizes(config, head, labels) == real_sizes(config, head, labels)


ENCODER_DECODERS = ("t5", "bart")  # whose sizes `plan` does not tell


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_model_yaml_describes_the_real_class(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0] == "# @package _global_" and lines[1].startswith("# ")
    content = yaml.safe_load("\n".join(lines))
    config = content["model"]["config"]
    if path.stem == "hf":
        assert content["model"] == {"name": "???", "config": {}}
        return
    head = sizes.CLASSIFY
    known = None if config["model_type"] in ENCODER_DECODERS else real_sizes(config, head, 3)
    assert sizes.component_sizes(config, head, 3) == known
    assert models.load_model("", head=head, num_labels=3, config=tiny_version(config), from_config=True, seed=0)


def tiny_version(config: dict[str, Any]) -> dict[str, Any]:
    """The same keys, small: all of them must be accepted by the family's config."""
    wide = ("hidden_size", "dim", "n_embd", "embedding_size", "word_embed_proj_dim")
    small = {key: 24 if key in wide else min(value, 12) for key, value in config.items() if type(value) is int}
    return config | small | {"vocab_size": 50}


@pytest.mark.parametrize(
    ("name", "total"),
    [  # millions of parameters as the model's papers and cards give them (without a language-model head)
        ("bert_base", 110), ("bert_large", 335), ("roberta_base", 125), ("roberta_large", 355), ("distilbert_base", 67),
        ("albert_base", 11.7), ("electra_base", 109.5), ("deberta_v3_base", 184), ("mpnet_base", 109.5),
        ("gpt2", 124.4), ("opt_125m", 125.2),
    ],
)  # fmt: skip
def test_model_yaml_has_the_published_size(name: str, total: float) -> None:
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text())["model"]["config"]
    counted = sizes.component_sizes(config, sizes.CLASSIFY, 2)
    assert counted is not None
    assert sum(counted.values()) == pytest.approx(total * 1e6, rel=0.006)


def test_published_component_sizes() -> None:
    """facts/smc.md, section 1.4."""
    base = sizes.component_sizes({"model_type": "bert"}, sizes.CLASSIFY, 2)
    assert base == {
        "encoder": 84_934_656, "pooler": 589_824, "embeddings": 23_835_648, "head": 1_536, "norms_and_biases": 122_114,
    }  # fmt: skip
    config = yaml.safe_load((CONF / "roberta_large.yaml").read_text())["model"]["config"]
    large = sizes.component_sizes(config, sizes.CLASSIFY, 1)
    assert large is not None
    assert (large["encoder"], large["embeddings"], large["head"]) == (301_989_888, 51_998_720, 1_049_600)


def test_unknown_families_and_heads_are_none() -> None:
    assert sizes.component_sizes({"model_type": "bertish"}, sizes.CLASSIFY, 2) is None
    assert sizes.component_sizes({}, sizes.CLASSIFY, 2) is None
    assert sizes.component_sizes({"model_type": "gpt2"}, sizes.MASKED, 2) is None
    assert sizes.component_sizes({"model_type": "bert"}, "AutoModelForSomething", 2) is None


def folder_of(path: Path, files: dict[str, dict[str, torch.Tensor]]) -> Path:
    (path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    for name, tensors in files.items():
        save_file(tensors, path / name)
    return path


def test_read_folder_counts_floats_from_headers(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(3, 5), "b": torch.zeros(7, dtype=torch.bfloat16), "ids": torch.arange(4),
               "scalar": torch.tensor(1.0)}  # fmt: skip
    folder = folder_of(tmp_path, {"model.safetensors": tensors})
    size = (tmp_path / "model.safetensors").stat().st_size
    assert sizes.read_folder(folder) == ({"model_type": "bert"}, 3 * 5 + 7 + 1, size)


def test_read_folder_adds_up_shards(tmp_path: Path) -> None:
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    parts = {names[0]: {"a": torch.zeros(3, 5), "b": torch.zeros(2)}, names[1]: {"c": torch.zeros(11)}}
    folder = folder_of(tmp_path, parts | {"other.safetensors": {"d": torch.zeros(100)}})
    index = {"weight_map": {"a": names[0], "b": names[0], "c": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    _, total, size = sizes.read_folder(folder)
    assert (total, size) == (15 + 2 + 11, sum((folder / name).stat().st_size for name in names))


DAMAGED = [b"", b"\xff" * 40, b"\x02" + b"\0" * 7 + b"[]", b"\x09" + b"\0" * 7 + b'{"a": {}}']


@pytest.mark.parametrize("content", DAMAGED)
def test_read_folder_refuses_damaged_files(tmp_path: Path, content: bytes) -> None:
    folder_of(tmp_path, {})
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UsageError, match="not a readable safetensors"):
        sizes.read_folder(tmp_path)


def test_read_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config\.json"):
        sizes.read_folder(tmp_path)


@pytest.mark.real
def test_minilm_counts_agree() -> None:
    folder = Path.home() / ".cache/prunebench-models/minilm-l6"
    if not folder.is_dir():
        pytest.skip("no MiniLM here")
    config, total, size = sizes.read_folder(folder)
    counted = sizes.component_sizes(config, sizes.CLASSIFY, 1)  # BertModel with pooler, and a classifier of 384 + 1
    assert counted is not None
    assert counted["encoder"] == 6 * (4 * 384**2 + 2 * 384 * 1536) == 10_616_832
    assert total == sum(counted.values()) - 385
    assert size > 4 * total
