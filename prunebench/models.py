"""Hugging Face models: loading one with the right head, and finding its prunable weights by its structure.

A model's weights belong to one of four components. `encoder`: the linear weights inside the repeated transformer layers
(of encoder-decoders, of both stacks); `embeddings`: embedding tables and what projects them to the hidden size;
`pooler`: the base model's pooler; `head`: linear weights outside the base model. LayerNorm and biases belong to none.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

from prunebench.errors import UsageError, did_you_mean
from prunebench.identity import CONFIG, TOKENIZER, model_folder

COMPONENTS = ("encoder", "pooler", "embeddings", "head")


@dataclass(frozen=True)
class Target:
    """One prunable weight matrix. Weights shared by several modules are one Target, named as in named_parameters()."""

    name: str
    module: nn.Module
    component: str
    transposed: bool  # transformers' Conv1D (GPT-2) stores (in, out)

    @property
    def weight(self) -> nn.Parameter:
        """The parameter as the module stores it."""
        weight = self.module.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    @property
    def matrix(self) -> Tensor:
        """(out, in) view of the weight, (vocabulary, dimension) of an embedding; writing to it writes to the model."""
        return self.weight.data.T if self.transposed else self.weight.data


def find_targets(model: nn.Module, components: Sequence[str] = ("encoder",)) -> list[Target]:
    """The weight matrices of `components`, in the order of named_parameters(), each shared one once.

    Raises UsageError for a name outside COMPONENTS and for a component of which the model has no weights.
    """
    matrices = _matrices(model)
    present = Counter(target.component for target in matrices)
    for component in components:
        if component not in COMPONENTS:
            raise UsageError(
                f"pruning.components: unknown component '{component}'{did_you_mean(component, COMPONENTS)}; "
                f"one of {', '.join(COMPONENTS)}"
            )
        if not present[component]:
            raise UsageError(
                f"pruning.components: {type(model).__name__} has no {component} weights; it has {_describe(model)}"
            )
    return [target for target in matrices if target.component in components]


def component_sizes(model: nn.Module) -> dict[str, int]:
    """Weights by component, and norms_and_biases: all the rest. Shared ones count once; the sum is the whole model."""
    sizes = dict.fromkeys(COMPONENTS, 0)
    for target in _matrices(model):
        sizes[target.component] += target.weight.numel()
    total = sum(parameter.numel() for parameter in model.parameters())
    return sizes | {"norms_and_biases": total - sum(sizes.values())}


def load_tokenizer(name: str, revision: str | None = None) -> Any:
    """The tokenizer of a hub name or folder. One without a padding token (GPT-2) pads with end-of-sequence."""
    folder = model_folder(name, revision)
    if not any(path for pattern in TOKENIZER for path in folder.glob(pattern)):
        # transformers 5 would build one of a handful of special tokens, without a word
        raise UsageError(f"'{name}' holds no tokenizer ({', '.join(TOKENIZER)}): give model.tokenizer=<name or folder>")
    try:
        with _quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise UsageError(f"the tokenizer of '{name}' cannot be loaded: {_first_line(error)}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def known_labels(name: str, revision: str | None = None, head: str | None = None) -> list[str] | None:
    """Label names of a fine-tuned model in the order of their ids; None where they are unnamed (LABEL_0, ...).

    head: the Auto class' name; the labels of a model with another head then do not count.
    """
    config = _load_config(name, model_folder(name, revision))
    if head is not None and not _has_head(config, _head_class(config, head)):
        return None
    return _label_names(config)


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
    dropout: instead of every dropout probability of the config. problem: classification, regression or
    question_answering. Raises UsageError for whatever cannot be loaded completely.
    """
    folder = None if from_config else model_folder(name, revision)
    settings = _build_config(config or {}) if folder is None else _load_config(name, folder)
    model_class = _head_class(settings, head)
    tuned = folder is not None and _has_head(settings, model_class)
    _set_labels(settings, name, head, labels, num_labels, problem, tuned)
    if getattr(settings, "pad_token_id", None) is None:
        eos = getattr(settings, "eos_token_id", None)
        settings.pad_token_id = eos[0] if isinstance(eos, list) else eos
    if dropout is not None:
        _set_dropout(settings, dropout)
    with _seeded(seed), _quiet():
        if folder is None:
            model = _new_model(head, settings)
        else:
            model = _load_weights(model_class, name, folder, settings, tuned)
    return model.eval()


# --- structure ---


def _matrices(model: nn.Module) -> list[Target]:
    """Every Linear, Conv1D and Embedding weight, once, in the order of named_parameters()."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    base = _base_modules(model)
    layers = _layer_modules(base)
    found: dict[int, Target] = {}
    for path, module in model.named_modules():
        if not isinstance(module, (nn.Linear, nn.Embedding, Conv1D)):
            continue
        key = id(module.weight)
        if isinstance(module, nn.Embedding):
            component = "embeddings"
        elif module not in base:
            component = "head"
        elif module in layers:
            component = "encoder"
        else:
            component = "pooler" if "pooler" in path else "embeddings"
        if key not in found or component == "embeddings":  # a tied output layer belongs to the embeddings
            found[key] = Target(names[key], module, component, isinstance(module, Conv1D))
    order = {name: i for i, name in enumerate(names.values())}
    return sorted(found.values(), key=lambda target: order[target.name])


def _base_modules(model: nn.Module) -> set[nn.Module]:
    """The modules of the base model: what `base_model_prefix` names, else the model without its direct linear heads.

    The latter for models that keep the base's parts beside the head (T5); a base model alone has no heads, its
    direct linears project embeddings (ELECTRA) or pool (ALBERT).
    """
    base = getattr(model, getattr(model, "base_model_prefix", "") or "", model)
    modules = set(base.modules())
    alone = transformers.MODEL_MAPPING.get(type(getattr(model, "config", None)), ())
    if base is model and not isinstance(model, alone):
        modules -= {child for child in model.children() if isinstance(child, nn.Linear)}
    return modules


def _layer_modules(base: set[nn.Module]) -> set[nn.Module]:
    """All modules inside the repeated layers: ModuleLists of one class of items that contain linear maps."""
    inside: set[nn.Module] = set()
    for module in base:
        if isinstance(module, nn.ModuleList) and len({type(item) for item in module}) == 1:
            members = set(module.modules())
            if any(isinstance(member, (nn.Linear, Conv1D)) for member in members):
                inside |= members
    return inside


def _describe(model: nn.Module) -> str:
    """What a model holds, in one line: its components, else its largest parameters by name and shape."""
    matrices = _matrices(model)
    parts = [[target for target in matrices if target.component == component] for component in COMPONENTS]
    held = [
        f"{part[0].component} ({len(part)} matrices, {sum(target.weight.numel() for target in part):,} weights)"
        for part in parts
        if part
    ]
    if any(target.component == "encoder" for target in matrices):
        return ", ".join(held)
    largest = sorted(model.named_parameters(), key=lambda item: -item[1].numel())[:6]
    shapes = [f"{name} {tuple(parameter.shape)}" for name, parameter in largest]
    return ", ".join([*held, f"and no repeated layers of linear maps; largest: {'; '.join(shapes)}"])


# --- configuration ---


def _load_config(name: str, folder: Path) -> Any:
    try:
        with _quiet():
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
        raise UsageError(
            f"model '{name}' is fine-tuned for {config.num_labels} labels, the dataset has {num_labels}: "
            "use its own dataset, or start from a model without this head"
        )
    own = _label_names(config) if tuned else None
    if own and labels and [label.casefold() for label in own] != [str(label).casefold() for label in labels]:
        raise UsageError(
            f"model '{name}' is fine-tuned for the labels {own}, in this order, the dataset has {list(labels)}: "
            "name the dataset's in the model's order with dataset.labels=[...]"
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
    expected = {name for name, _ in model.named_parameters()} - (set() if tuned else _fresh_parameters(model))
    lost = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])} & expected)
    if lost:
        raise UsageError(
            f"model '{name}': {len(lost)} parameters of {model_class.__name__} are missing or of another shape in its "
            f"safetensors files ({', '.join(lost[:3])}{', ...' if len(lost) > 3 else ''}): are these of its {CONFIG}?"
        )
    config._name_or_path = name
    return model


def _fresh_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters of head and pooler, which start from random values where the files have none."""
    base = _base_modules(model)
    pretrained = {id(parameter) for module in base for parameter in module.parameters(recurse=False)}
    named = model.named_parameters()
    return {name for name, parameter in named if id(parameter) not in pretrained or "pooler" in name.split(".")}


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
        f"t.AutoTokenizer.from_pretrained(n).save_pretrained(d)\"` and give model.name={new}"
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
def _quiet() -> Iterator[None]:
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
