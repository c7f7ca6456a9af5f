"""Hugging Face models and tokenizers: loaded completely and with the right head, or refused in one line."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils import logging

from prunebench.errors import UsageError, did_you_mean
from prunebench.identity import CONFIG, TOKENIZER, TOKENIZER_SETTINGS, has_any, model_folder
from prunebench.targets import fresh_parameters


def load_tokenizer(name: str, revision: str | None = None) -> Any:
    """The tokenizer of a hub name or folder. One without a padding token (GPT-2) pads with end-of-sequence."""
    folder = Path(name).expanduser()
    if not folder.is_dir():  # else it may hold a tokenizer alone, without config.json
        folder = model_folder(name, revision, (CONFIG, *TOKENIZER, *TOKENIZER_SETTINGS))
    if not has_any(folder, TOKENIZER):
        # transformers 5 would build one of a handful of special tokens, without a word
        raise UsageError(f"'{name}' holds no tokenizer ({', '.join(TOKENIZER)}): give model.tokenizer=<name or folder>")
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise UsageError(f"the tokenizer of '{name}' cannot be loaded: {_first_line(error)}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def has_head(name: str, head: str) -> bool:
    """Whether the weights of the folder `name` include a head for the Auto class `head`."""
    config = _load_config(name, model_folder(name))
    return _has_head(config, _head_class(config, head))


def known_labels(name: str, revision: str | None = None, head: str | None = None) -> list[str] | None:
    """Label names of a fine-tuned model in the order of their ids; None where they are unnamed (LABEL_0, ...).

    head: the Auto class' name; the labels of a model with another head then do not count.
    """
    config = _load_config(name, model_folder(name, revision, [CONFIG]))
    if head is not None and not _has_head(config, _head_class(config, head)):
        return None
    return _label_names(config)


def finds_masked_words(name: str, revision: str | None, config: Mapping[str, Any], from_config: bool) -> bool:
    """Whether the model is an encoder, made to be asked for masked words: it has such a head, and is no decoder."""
    known = _build_config(config) if from_config else _load_config(name, model_folder(name, revision, [CONFIG]))
    decodes = getattr(known, "is_decoder", False) or getattr(known, "is_encoder_decoder", False)
    return type(known) in transformers.AutoModelForMaskedLM._model_mapping and not decodes


def layer_sizes(name: str) -> tuple[int | None, int | None]:
    """Number of layers and hidden size of the model `name`, as far as its config names them."""
    config = _load_config(name, model_folder(name, None, [CONFIG]))
    return getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)


def outline_model(
    name: str,
    *,
    head: str,
    labels: Sequence[str] | None = None,
    num_labels: int,
    revision: str | None = None,
    config: Mapping[str, Any] | None = None,
    from_config: bool = False,
    dropout: float | None = None,
    problem: str = "classification",
) -> Any:
    """What `load_model` would return, on the meta device: names and shapes without weights, from the config alone."""
    settings, _, _ = _settings(name, head, labels, num_labels, revision, config, from_config, dropout, problem)
    with torch.device("meta"), quiet():
        return _new_model(head, settings)


def load_model(
    name: str,
    *,
    head: str,
    labels: Sequence[str] | None = None,
    num_labels: int,
    revision: str | None = None,
    config: Mapping[str, Any] | None = None,
    from_config: bool = False,
    seed: int,
    dropout: float | None = None,
    problem: str = "classification",
) -> Any:
    """The model `name` with `head` (name of an Auto class), in float32 and eval mode; never code or pickles of others.

    A head fine-tuned for the same Auto class is kept together with its label names, and must have `num_labels` outputs
    and, where both are named, the `labels` in that order. Otherwise head (and a missing pooler) are drawn from `seed`
    alone: torch's global random state neither matters nor changes. from_config: all weights are, for `config`.
    dropout: instead of every dropout probability of the config. problem: the task's. Raises UsageError for whatever
    cannot be loaded completely.
    """
    settings, folder, tuned = _settings(name, head, labels, num_labels, revision, config, from_config, dropout, problem)
    model_class = _head_class(settings, head)
    with _seeded(seed), quiet():
        if folder is None:
            model = _new_model(head, settings)
        else:
            model = _load_weights(model_class, name, folder, settings, tuned)
    return model.eval()


def scratch_model(model: Any, seed: int) -> Any:
    """A model of the same config with new random weights, drawn from `seed` alone."""
    with _seeded(seed), quiet():
        return type(model)(model.config)


# --- configuration ---


def _settings(
    name: str,
    head: str,
    labels: Sequence[str] | None,
    num_labels: int,
    revision: str | None,
    config: Mapping[str, Any] | None,
    from_config: bool,
    dropout: float | None,
    problem: str,
) -> tuple[Any, Path | None, bool]:
    """The complete HF config, the folder of the weights (None: new ones), and whether a fitting head is among them."""
    folder = None if from_config else model_folder(name, revision)
    settings = _build_config(config or {}) if folder is None else _load_config(name, folder)
    tuned = folder is not None and _has_head(settings, _head_class(settings, head))
    _set_labels(settings, name, head, labels, num_labels, problem, tuned)
    if getattr(settings, "pad_token_id", None) is None:
        eos = getattr(settings, "eos_token_id", None)
        settings.pad_token_id = eos[0] if isinstance(eos, list) else eos
    if dropout is not None:
        _set_dropout(settings, dropout)
    return settings, folder, tuned


def _load_config(name: str, folder: Path) -> Any:
    try:
        with quiet():
            return transformers.AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # also huggingface_hub's errors on values of the wrong type
        raise UsageError(f"model '{name}': {CONFIG} cannot be used: {_first_line(error)}") from error


def _build_config(config: Mapping[str, Any]) -> Any:
    if "model_type" not in config:
        raise UsageError("model.from_config=true needs model.config.model_type (bert, ...) and its sizes")
    values = dict(config)
    kind = values.pop("model_type")
    if kind not in transformers.CONFIG_MAPPING:
        hint = did_you_mean(kind, transformers.CONFIG_MAPPING)
        raise UsageError(f"model.config.model_type: transformers knows no '{kind}'{hint}")
    try:
        built = transformers.AutoConfig.for_model(kind, **values)
    except Exception as error:  # as above
        raise UsageError(f"model.config cannot be used: {_first_line(error)}") from error
    known = {*type(built).__dataclass_fields__, *built.attribute_map}
    for key in set(values) - known:  # configs take any key (some families have unlisted ones): catch misspelt ones
        if near := difflib.get_close_matches(key, known, n=1, cutoff=0.85):
            raise UsageError(f"model.config: a {kind} config has no '{key}' (did you mean '{near[0]}'?)")
    return built


def _head_class(config: Any, head: str) -> Any:
    """The model class of the Auto class `head` for this config."""
    mapping = getattr(transformers, head)._model_mapping
    if type(config) not in mapping:
        raise UsageError(f"a model of type '{config.model_type}' has no {head} in transformers: choose another model")
    return mapping[type(config)]


def _has_head(config: Any, model_class: Any) -> bool:
    return model_class.__name__ in (config.architectures or [])


def _label_names(config: Any) -> list[str] | None:
    labels = [str(config.id2label[i]) for i in sorted(config.id2label)]
    return None if all(re.fullmatch(r"LABEL_\d+", label) for label in labels) else labels


def _set_labels(
    config: Any, name: str, head: str, labels: Sequence[str] | None, num_labels: int, problem: str, tuned: bool
) -> None:
    """Put number and names of the labels into `config`, or check those of a fine-tuned head."""
    if problem == "question_answering" or head == "AutoModelForQuestionAnswering":
        labels, num_labels = None, 2  # start and end
    elif head not in ("AutoModelForSequenceClassification", "AutoModelForTokenClassification"):
        return  # heads whose outputs are no labels
    if tuned and config.num_labels != num_labels:
        needed = (
            "and choices are scored by one output" if problem == "multiple_choice" else f"the dataset has {num_labels}"
        )
        raise UsageError(
            f"model '{name}' is fine-tuned for {config.num_labels} labels, {needed}: "
            "use its own dataset, or start from a model without this head"
        )
    own = _label_names(config) if tuned else None
    numbered = labels and all(str(label).isdigit() for label in labels)  # ids: they stand for the model's own names
    if (
        own
        and labels
        and not numbered
        and [label.casefold() for label in own] != [str(label).casefold() for label in labels]
    ):
        raise UsageError(
            f"model '{name}' is fine-tuned for the labels {own}, in this order, the dataset has {list(labels)}: "
            f"name the dataset's in the model's order, or add dataset.labels=[{','.join(own)}] if they are the same"
        )
    new = own or [str(label) for label in labels or [f"LABEL_{i}" for i in range(num_labels)]]
    config.id2label = dict(enumerate(new))
    config.label2id = {label: i for i, label in enumerate(new)}
    kinds = {"classification": "single_label_classification", "regression": "regression"}
    config.problem_type = kinds.get(problem)


def _set_dropout(config: Any, dropout: float) -> None:
    """Every dropout probability; None (as for the classifier's) follows another key, layerdrop is something else."""
    for key, value in config.to_dict().items():
        if "drop" in key and "layerdrop" not in key and isinstance(value, (int, float)) and not isinstance(value, bool):
            setattr(config, key, dropout)


# --- weights ---


def _new_model(head: str, config: Any) -> Any:
    try:
        return getattr(transformers, head).from_config(config, dtype=torch.float32)
    except (ValueError, TypeError, AssertionError, RuntimeError, KeyError) as error:
        raise UsageError(f"no {config.model_type} can be built from model.config: {_first_line(error)}") from error


def _load_weights(model_class: Any, name: str, folder: Path, config: Any, tuned: bool) -> Any:
    _require_safetensors(name, folder, config)
    try:
        model, info = model_class.from_pretrained(
            str(folder),
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # reported in `info`, judged below
            output_loading_info=True,
        )
    except Exception as error:  # safetensors and transformers raise errors of many kinds for damaged files
        raise UsageError(f"the weights of model '{name}' cannot be loaded: {_first_line(error)}") from error
    expected = {name for name, _ in model.named_parameters()} - (set() if tuned else fresh_parameters(model))
    lost = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])} & expected)
    if lost:
        raise UsageError(
            f"model '{name}': {len(lost)} parameters of {model_class.__name__} are missing or of another shape in its "
            f"safetensors files ({', '.join(lost[:3])}{', ...' if len(lost) > 3 else ''}): are these of its {CONFIG}?"
        )
    config._name_or_path = name
    return model


def _require_safetensors(name: str, folder: Path, config: Any) -> None:
    if (folder / "model.safetensors").is_file() or (folder / "model.safetensors.index.json").is_file():
        return
    local = Path(name).expanduser().is_dir()
    if local and not any(folder.glob("pytorch_model*.bin")):
        raise UsageError(f"model folder '{name}' holds no model.safetensors: give one written by save_pretrained")
    where = "in its folder" if local else "on the hub (or, when offline, in the local cache)"
    source, new = (config.architectures or ["AutoModel"])[0], Path(name).name + "-safetensors"
    raise UsageError(
        f"model '{name}' has no model.safetensors {where}, and pickled weights (pytorch_model.bin) are not read, since "
        "they can run code. If you trust them, convert them once with `DISABLE_SAFETENSORS_CONVERSION=1 python -c "
        f"\"import transformers as t; n, d = '{name}', '{new}'; "
        f"t.{source}.from_pretrained(n, use_safetensors=False).save_pretrained(d); "
        f't.AutoTokenizer.from_pretrained(n).save_pretrained(d)"` and give model.name={new}'
        + ("" if local else "; or try model.revision=refs/pr/<n> of the hub's safetensors pull request by SFconvertbot")
    )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torch's CPU generator at `seed` inside, untouched outside."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """transformers' warnings and bars off: a fresh head is expected, and the rest is checked here."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:300]}"
