"""Which weights are found, and what loading keeps, draws or refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from prunebench import models, targets
from prunebench.errors import UsageError

torch.set_num_threads(1)
CLASSIFY, ANSWER = "AutoModelForSequenceClassification", "AutoModelForQuestionAnswering"
SIZES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12, "vocab_size": 20,
         "max_position_embeddings": 10}  # fmt: skip
BERT = {"model_type": "bert", **SIZES}
GPT2 = {"model_type": "gpt2", "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 10, "vocab_size": 20,
        "bos_token_id": 1, "eos_token_id": 1}  # fmt: skip
OPT = {"model_type": "opt", "ffn_dim": 12, "word_embed_proj_dim": 4, **SIZES}


def build(head: str = CLASSIFY, num_labels: int = 2, seed: int = 0, **config: Any) -> Any:
    problem = "question_answering" if head == ANSWER else "classification"
    return models.load_model(
        "", head=head, num_labels=num_labels, config=config or BERT, from_config=True, seed=seed, problem=problem
    )


def names(model: nn.Module, *components: str) -> set[str]:
    return {target.name for target in targets.find_targets(model, components)}


# --- targets ---


BERT_LAYER = ("attention.self.query attention.self.key attention.self.value attention.output.dense "
              "intermediate.dense output.dense")  # fmt: skip
LAYERS = {  # family -> (config, prefix of a layer, its linear maps), written down from the papers' and HF's names
    "bert": (BERT, "bert.encoder.layer", BERT_LAYER),
    "roberta": ({**BERT, "model_type": "roberta"}, "roberta.encoder.layer", BERT_LAYER),
    "xlm-roberta": ({**BERT, "model_type": "xlm-roberta"}, "roberta.encoder.layer", BERT_LAYER),
    "camembert": ({**BERT, "model_type": "camembert"}, "roberta.encoder.layer", BERT_LAYER),
    "electra": ({**BERT, "model_type": "electra", "embedding_size": 4}, "electra.encoder.layer", BERT_LAYER),
    "distilbert": (
        {**BERT, "model_type": "distilbert"}, "distilbert.transformer.layer",
        "attention.q_lin attention.k_lin attention.v_lin attention.out_lin ffn.lin1 ffn.lin2",
    ),
    "deberta": (
        {**BERT, "model_type": "deberta", "relative_attention": True, "pos_att_type": "c2p|p2c"},
        "deberta.encoder.layer",
        "attention.self.in_proj attention.self.pos_proj attention.self.pos_q_proj attention.output.dense "
        "intermediate.dense output.dense",
    ),
    "deberta-v2": (
        {**BERT, "model_type": "deberta-v2", "relative_attention": True, "share_att_key": True, "conv_kernel_size": 3},
        "deberta.encoder.layer",
        "attention.self.query_proj attention.self.key_proj attention.self.value_proj attention.output.dense "
        "intermediate.dense output.dense",
    ),
    "mpnet": (
        {**BERT, "model_type": "mpnet"}, "mpnet.encoder.layer",
        "attention.attn.q attention.attn.k attention.attn.v attention.attn.o intermediate.dense output.dense",
    ),
    "gpt2": (GPT2, "transformer.h", "attn.c_attn attn.c_proj mlp.c_fc mlp.c_proj"),
    "opt": (
        OPT, "model.decoder.layers",
        "self_attn.k_proj self_attn.v_proj self_attn.q_proj self_attn.out_proj fc1 fc2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", LAYERS)
def test_encoder_is_every_linear_of_every_layer(family: str) -> None:
    config, prefix, maps = LAYERS[family]
    model = build(**config)
    expected = {f"{prefix}.{layer}.{name}.weight" for layer in range(2) for name in maps.split()}
    assert names(model, "encoder") == expected
    found = targets.find_targets(model)
    order = [name for name, _ in model.named_parameters()]
    assert [target.name for target in found] == [name for name in order if name in expected]
    for target in found:
        assert target.weight is model.get_parameter(target.name)
        assert target.component == "encoder"


@pytest.mark.parametrize("family", LAYERS)
def test_components_never_hold_norms_or_biases(family: str) -> None:
    model = build(**LAYERS[family][0])
    found = {target.name for target in targets._matrices(model)}
    matrices = {name for name, parameter in model.named_parameters() if parameter.ndim == 2}
    assert found == matrices
    rest = sum(p.numel() for name, p in model.named_parameters() if name not in matrices)
    assert targets.component_sizes(model)["norms_and_biases"] == rest


@pytest.mark.parametrize(
    ("config", "head", "component", "expected"),
    [
        (BERT, CLASSIFY, "embeddings", "bert.embeddings.word_embeddings bert.embeddings.position_embeddings "
         "bert.embeddings.token_type_embeddings"),
        (BERT, CLASSIFY, "pooler", "bert.pooler.dense"),
        (BERT, CLASSIFY, "head", "classifier"),
        (BERT, "AutoModelForMaskedLM", "head", "cls.predictions.transform.dense"),  # the decoder is tied
        (BERT | {"tie_word_embeddings": False}, "AutoModelForMaskedLM", "head",
         "cls.predictions.transform.dense cls.predictions.decoder"),
        (LAYERS["distilbert"][0], CLASSIFY, "head", "pre_classifier classifier"),
        (LAYERS["electra"][0], CLASSIFY, "embeddings", "electra.embeddings.word_embeddings "
         "electra.embeddings.position_embeddings electra.embeddings.token_type_embeddings electra.embeddings_project"),
        (LAYERS["deberta-v2"][0], CLASSIFY, "embeddings", "deberta.embeddings.word_embeddings "
         "deberta.embeddings.position_embeddings deberta.encoder.rel_embeddings"),
        (LAYERS["deberta-v2"][0], CLASSIFY, "head", "pooler.dense classifier"),
        (LAYERS["mpnet"][0], CLASSIFY, "embeddings", "mpnet.embeddings.word_embeddings "
         "mpnet.embeddings.position_embeddings mpnet.encoder.relative_attention_bias"),
        (GPT2, "AutoModelForCausalLM", "embeddings", "transformer.wte transformer.wpe"),
        (OPT, CLASSIFY, "embeddings", "model.decoder.embed_tokens model.decoder.embed_positions "
         "model.decoder.project_out model.decoder.project_in"),
        (OPT, CLASSIFY, "head", "score"),
    ],
)  # fmt: skip
def test_other_components(config: dict[str, Any], head: str, component: str, expected: str) -> None:
    assert names(build(head, **config), component) == {f"{name}.weight" for name in expected.split()}


def test_albert_shares_one_layer() -> None:
    config = {**BERT, "model_type": "albert", "embedding_size": 4, "num_hidden_layers": 7}
    model = build(**config)
    inner = "albert.encoder.albert_layer_groups.0.albert_layers.0."
    maps = "attention.query attention.key attention.value attention.dense ffn ffn_output"
    assert names(model, "encoder") == {f"{inner}{name}.weight" for name in maps.split()}
    assert "albert.encoder.embedding_hidden_mapping_in.weight" in names(model, "embeddings")
    assert names(model, "pooler") == {"albert.pooler.weight"}
    assert targets.component_sizes(model)["encoder"] == 4 * 8 * 8 + 2 * 8 * 12


def test_tied_output_layer_counts_once_as_embeddings() -> None:
    model = build("AutoModelForCausalLM", **GPT2)
    assert model.lm_head.weight is model.transformer.wte.weight
    counted = targets.component_sizes(model)
    assert counted["head"] == 0 and counted["embeddings"] == 20 * 8 + 10 * 8
    assert sum(counted.values()) == sum(p.numel() for p in model.parameters())


def test_matrix_is_out_by_in_and_writes_through() -> None:
    model = build(**GPT2)
    target = next(t for t in targets.find_targets(model) if t.name == "transformer.h.0.mlp.c_fc.weight")
    assert target.transposed and target.weight.shape == (8, 32) and target.matrix.shape == (32, 8)
    before = model(input_ids=torch.tensor([[3, 4]])).logits
    target.matrix[5, 2] = 7.0
    assert model.transformer.h[0].mlp.c_fc.weight[2, 5] == 7.0
    assert not torch.equal(before, model(input_ids=torch.tensor([[3, 4]])).logits)
    plain = targets.find_targets(build())[0]
    assert not plain.transposed and plain.matrix.data_ptr() == plain.weight.data_ptr()


@pytest.mark.parametrize(
    ("config", "head"),
    [
        (transformers.T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=12, num_layers=2, num_heads=2),
         "T5ForConditionalGeneration"),
        (transformers.T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=12, num_layers=2, num_heads=2),
         "T5ForQuestionAnswering"),
        (transformers.BartConfig(vocab_size=20, d_model=8, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=12,
                                 decoder_ffn_dim=12, encoder_attention_heads=2, decoder_attention_heads=2,
                                 max_position_embeddings=10),
         "BartForSequenceClassification"),
    ],
    ids=["t5", "t5-qa", "bart"],
)  # fmt: skip
def test_encoder_decoders_prune_both_stacks(config: Any, head: str) -> None:
    model = getattr(transformers, head)(config)
    stacks = {name.split(".")[-1 - name.split(".")[::-1].index("decoder")] for name in names(model, "encoder")
              if "decoder" in name.split(".")}  # fmt: skip
    assert stacks == {"decoder"}
    counted = targets.component_sizes(model)
    attention, mlp = 4 * 8 * 8, 2 * 8 * 12
    assert counted["encoder"] == 2 * (attention + mlp) + 2 * (2 * attention + mlp)
    linear_outside = {"T5ForConditionalGeneration": 0, "T5ForQuestionAnswering": 16,
                      "BartForSequenceClassification": 8 * 8 + 3 * 8}  # fmt: skip
    assert counted["head"] == linear_outside[head]


@pytest.mark.parametrize("family", ["bert", "albert", "electra", "gpt2"])
def test_base_model_alone_has_no_head(family: str) -> None:
    config = LAYERS["bert"][0] | {"model_type": "albert"} if family == "albert" else LAYERS[family][0]
    values = dict(config)
    base = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(values.pop("model_type"), **values))
    counted = targets.component_sizes(base)
    assert counted["head"] == 0 and counted["encoder"] > 0
    assert (counted["pooler"] > 0) == (family in ("bert", "albert"))


def test_unknown_component_is_refused_with_a_hint() -> None:
    with pytest.raises(UsageError, match=r"'encodr' \(did you mean 'encoder'\?\)"):
        targets.find_targets(build(), ["encodr"])


def test_missing_component_lists_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"QuestionAnswering has no pooler .* encoder \(12 matrices, 896 weights\)"):
        targets.find_targets(build(ANSWER), ["encoder", "pooler"])


def test_model_without_layers_lists_its_largest_parameters() -> None:
    with pytest.raises(UsageError, match=r"no repeated layers.*0\.weight \(5, 3\)") as error:
        targets.find_targets(nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)))
    assert "\n" not in str(error.value)


# --- loading ---


def load(folder: Path | str, head: str = CLASSIFY, num_labels: int = 2, **options: Any) -> Any:
    return models.load_model(str(folder), head=head, num_labels=num_labels, **{"seed": 1, **options})


def save(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def body(tmp_path: Path) -> Path:
    """A pretrained BERT without a task head, as google-bert/bert-base-uncased is."""
    return save(build("AutoModelForMaskedLM"), tmp_path / "body")


def test_fresh_head_depends_on_the_seed_alone(body: Path) -> None:
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = load(body, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)
    second, third = load(body, seed=5), load(body, seed=6)
    assert torch.equal(first.classifier.weight, second.classifier.weight)
    assert torch.equal(first.bert.pooler.dense.weight, second.bert.pooler.dense.weight)
    assert not torch.equal(first.classifier.weight, third.classifier.weight)
    assert first.classifier.weight.std() > 0 and not first.training


def test_body_is_loaded_exactly(body: Path) -> None:
    stored, model = load_file(body / "model.safetensors"), load(body)
    for name, parameter in model.bert.named_parameters():
        if not name.startswith("pooler"):
            assert torch.equal(parameter, stored[f"bert.{name}"]), name


def test_from_config_is_seeded_and_leaves_the_global_state() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second, third = build(seed=7), build(seed=7), build(seed=8)
    assert torch.equal(torch.get_rng_state(), state)
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.bert.pooler.dense.weight, third.bert.pooler.dense.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_become_float32(body: Path, dtype: torch.dtype) -> None:
    file = body / "model.safetensors"
    halves = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    save_file(halves, file, metadata={"format": "pt"})
    config = json.loads((body / "config.json").read_text())
    (body / "config.json").write_text(json.dumps(config | {"dtype": str(dtype).removeprefix("torch.")}))
    model = load(body)
    assert {parameter.dtype for parameter in model.parameters()} == {model.config.dtype} == {torch.float32}
    name = "bert.encoder.layer.0.output.dense.weight"
    assert torch.equal(model.get_parameter(name), halves[name].float())


def test_loading_is_quiet(body: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    transformers.utils.logging.enable_propagation()
    load(body)
    transformers.utils.logging.disable_propagation()
    assert not caplog.records and capfd.readouterr().err == ""
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_labels_reach_the_config(body: Path) -> None:
    model = load(body, num_labels=3, labels=["yes", "no", "maybe"])
    assert model.config.id2label == {0: "yes", 1: "no", 2: "maybe"}
    assert model.config.label2id == {"yes": 0, "no": 1, "maybe": 2}
    assert model.classifier.out_features == 3
    assert model.config.problem_type == "single_label_classification"
    regression = load(body, num_labels=1, problem="regression")
    assert regression.config.problem_type == "regression" and regression.classifier.out_features == 1
    assert load(body, ANSWER, problem="question_answering").qa_outputs.out_features == 2
    assert load(body, "AutoModelForMultipleChoice", num_labels=5).classifier.out_features == 1


@pytest.fixture
def tuned(body: Path, tmp_path: Path) -> Path:
    return save(load(body, num_labels=3, labels=["yes", "no", "maybe"]), tmp_path / "tuned")


def test_fine_tuned_head_and_labels_are_kept(tuned: Path) -> None:
    stored = load_file(tuned / "model.safetensors")
    for labels in (None, ["Yes", "No", "Maybe"]):
        model = load(tuned, num_labels=3, labels=labels, seed=99)
        assert torch.equal(model.classifier.weight, stored["classifier.weight"])
        assert model.config.id2label == {0: "yes", 1: "no", 2: "maybe"}
    assert models.known_labels(str(tuned)) == ["yes", "no", "maybe"]
    assert models.known_labels(str(tuned), head=CLASSIFY) == ["yes", "no", "maybe"]
    assert models.known_labels(str(tuned), head="AutoModelForTokenClassification") is None


def test_other_number_or_order_of_labels_is_refused(tuned: Path) -> None:
    with pytest.raises(UsageError, match="fine-tuned for 3 labels, the dataset has 2"):
        load(tuned, num_labels=2)
    with pytest.raises(UsageError, match=r"in this order.*dataset\.labels"):
        load(tuned, num_labels=3, labels=["no", "yes", "maybe"])


def test_fine_tuned_model_with_another_head_gets_a_fresh_one(tuned: Path) -> None:
    model = load(tuned, ANSWER, problem="question_answering")
    assert model.config.num_labels == 2 and model.config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    # a head of the same name and another shape, from another Auto class
    token = build("AutoModelForTokenClassification", num_labels=7)
    assert load(save(token, tuned.parent / "token")).classifier.out_features == 2


def test_unnamed_labels_take_the_datasets_names(body: Path, tmp_path: Path) -> None:
    folder = save(load(body), tmp_path / "unnamed")
    assert models.known_labels(str(folder)) is None
    assert models.known_labels(str(body)) is None
    assert load(folder, labels=["bad", "good"]).config.id2label == {0: "bad", 1: "good"}


def test_dropout_replaces_every_probability(body: Path) -> None:
    assert {m.p for m in load(body, dropout=0.25).modules() if isinstance(m, nn.Dropout)} == {0.25}
    assert {m.p for m in load(body).modules() if isinstance(m, nn.Dropout)} == {0.1}
    model = build(**GPT2)
    config = model.config
    models._set_dropout(config, 0.0)
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0, 0, 0)
    opt = transformers.OPTConfig(layerdrop=0.5)
    models._set_dropout(opt, 0.3)
    assert (opt.dropout, opt.attention_dropout, opt.layerdrop) == (0.3, 0.3, 0.5)


def test_missing_padding_token_becomes_end_of_sequence(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models as parts  # noqa: I001

    assert build(**GPT2).config.pad_token_id == 1
    raw = Tokenizer(parts.WordLevel({"<unk>": 0, "<end>": 1, "a": 2}, unk_token="<unk>"))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", unk_token="<unk>")
    fast.save_pretrained(tmp_path)
    loaded = models.load_tokenizer(str(tmp_path))  # also from a folder without a model
    assert (loaded.pad_token, loaded.pad_token_id) == ("<end>", 1)


def test_folder_without_tokenizer_is_refused(body: Path) -> None:
    with pytest.raises(UsageError, match="holds no tokenizer"):
        models.load_tokenizer(str(body))


def rewrite(folder: Path, change: Any) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def test_files_of_the_first_days_load(body: Path) -> None:
    """google-bert/bert-base-uncased still calls its norms gamma and beta, and others kept their position ids."""
    new = load(body)

    def old_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        renamed = {}
        for name, tensor in tensors.items():
            end = ".".join(name.split(".")[-2:])
            renamed[name.removesuffix(end) + old.get(end, end)] = tensor + 0.5 * (end in old)
        return renamed | {"bert.embeddings.position_ids": torch.arange(10)[None]}

    rewrite(body, old_names)
    name = "bert.encoder.layer.1.output.LayerNorm.weight"
    assert torch.equal(load(body).get_parameter(name), new.get_parameter(name) + 0.5)


# --- refusals ---


def test_missing_encoder_weights_are_refused(body: Path) -> None:
    rewrite(body, lambda tensors: {name: t for name, t in tensors.items() if "layer.1.output.dense" not in name})
    with pytest.raises(UsageError, match=r"2 parameters.*layer\.1\.output\.dense\.bias"):
        load(body)


def test_missing_t5_weights_are_refused(tmp_path: Path) -> None:
    config = {"vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 1, "num_heads": 2}
    folder = save(build("AutoModelForSeq2SeqLM", model_type="t5", **config), tmp_path / "t5")
    assert load(folder, "AutoModelForSeq2SeqLM")
    rewrite(folder, lambda tensors: {name: t for name, t in tensors.items() if "SelfAttention.q" not in name})
    with pytest.raises(UsageError, match=r"2 parameters.*SelfAttention\.q"):
        load(folder, ANSWER)


def test_config_of_another_size_is_refused(body: Path) -> None:
    config = json.loads((body / "config.json").read_text())
    (body / "config.json").write_text(json.dumps(config | {"vocab_size": 33}))
    with pytest.raises(UsageError, match=r"another shape.*word_embeddings"):
        load(body)


def test_fine_tuned_model_without_its_head_is_refused(tuned: Path) -> None:
    rewrite(tuned, lambda tensors: {name: t for name, t in tensors.items() if "classifier" not in name})
    with pytest.raises(UsageError, match=r"classifier\.bias"):
        load(tuned, num_labels=3)


def test_damaged_weights_are_refused(body: Path) -> None:
    (body / "model.safetensors").write_bytes(b"\x10" + b"\0" * 30)
    with pytest.raises(UsageError, match="cannot be loaded"):
        load(body)


def test_pickled_weights_are_refused_with_a_conversion(body: Path) -> None:
    (body / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"holds no model\.safetensors"):
        load(body)
    torch.save({}, body / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"pickled weights .* not read.*BertForMaskedLM\.from_pretrained") as error:
        load(body)
    assert "\n" not in str(error.value)


def test_the_conversion_in_the_message_works(body: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = load_file(body / "model.safetensors")
    torch.save(stored, body / "pytorch_model.bin")
    (body / "model.safetensors").unlink()
    (body / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    with pytest.raises(UsageError) as error:
        load(body)
    code = re.search(r'python -c "(.*)"`', str(error.value))
    assert code
    monkeypatch.chdir(tmp_path)
    exec(code[1])
    model = load(tmp_path / "body-safetensors")
    name = "bert.encoder.layer.0.output.dense.weight"
    assert torch.equal(model.get_parameter(name), stored[name])
    assert models.load_tokenizer("body-safetensors")("a")["input_ids"] == [2, 5, 3]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "model_type"),
        (BERT | {"model_type": "bertt"}, r"no 'bertt' \(did you mean 'bert'\?\)"),
        (BERT | {"hiden_size": 8}, r"no 'hiden_size' \(did you mean 'hidden_size'\?\)"),
        (BERT | {"hidden_size": "many"}, "hidden_size"),
        (BERT | {"hidden_size": 9}, "multiple of the number of attention"),
    ],
)
def test_impossible_configs_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        models.load_model("", head=CLASSIFY, num_labels=2, config=config, from_config=True, seed=0)
    assert "\n" not in str(error.value)


def test_head_that_the_family_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="'gpt2' has no AutoModelForMultipleChoice"):
        build("AutoModelForMultipleChoice", **GPT2)


def test_config_of_an_unknown_type_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mine", "auto_map": {"AutoConfig": "evil.Config"}}')
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UsageError, match=r"config\.json cannot be used"):
        load(tmp_path)


@pytest.mark.real
def test_minilm_loads() -> None:
    folder = Path.home() / ".cache/prunebench-models/minilm-l6"
    if not folder.is_dir():
        pytest.skip("no MiniLM here")
    model = load(folder, labels=["negative", "positive"])
    assert targets.component_sizes(model) == {
        "encoder": 10_616_832,
        "pooler": 384 * 384,
        "embeddings": (30_522 + 512 + 2) * 384,
        "head": 2 * 384,
        "norms_and_biases": 6 * (9 * 384 + 1536) + 2 * 384 + 384 + 2,
    }
    assert models.known_labels(str(folder)) is None
    tokenizer = models.load_tokenizer(str(folder))
    batch = tokenizer(["a good film", "a bad one"], return_tensors="pt", padding=True)
    assert model(**batch).logits.shape == (2, 2)
