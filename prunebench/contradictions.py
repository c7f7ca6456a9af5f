"""Settings that are fine each by itself but not together, or not with the files they name. No torch."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prunebench.config import PhaseConfig, RunConfig
from prunebench.curves import units_of_pruning
from prunebench.digest import dense_config, distils, prunes
from prunebench.errors import UsageError, brief, did_you_mean
from prunebench.facts import folder_config, head_class, labels_of, objective, training_data
from prunebench.identity import TOKENIZER, WEIGHTS, has_any
from prunebench.options import component_params
from prunebench.plan import make_plan, schedule_problems
from prunebench.sizes import ALIASES, DEFAULTS, MASKED, component_sizes
from prunebench.sparsity.axes import AXES, BLOCK_FISHER, UNSCALED, AxisChoice, check_axes
from prunebench.sparsity.registry import setting_problems
from prunebench.tasks.choices import CHOICES, SPAN_SCORING
from prunebench.tasks.files import file_problems, forget
from prunebench.tasks.settings import TOKENS, metric_names, problem_of, read_params
from prunebench.tasks.sources import LONGEST_PATH, source_of
from prunebench.tasks.tables import listed

MOST_PHASES, MOST_EPOCHS, MOST_MOMENTS = 1000, 10_000, 100_000  # a plan holds every phase, pruning and evaluation
MOST_WEIGHTS = 10**11
OFFERED = ("seed", "floor", "pattern")  # settings of a class that the run gives it, so no YAML has them
MOST_GROWTH = 6  # powers of ten between the first learning rate and the last
LESS = {
    "phases": "lower repeat or pruning.schedule.units_per_halving",
    "epochs": "lower trainer.epochs or the phases' units",
    "prunings": "lower pruning.schedule.prunings_per_epoch, or raise prune_every",
    "evaluations": "raise trainer.eval_every",
}
HEADS = {  # names of model classes; else:
    "question_answering": r"ForQuestionAnswering(Simple)?$",
    "language_modelling": r"(ForMaskedLM|ForPreTraining|ForCausalLM|LMHeadModel)$",
    "sequence_to_sequence": r"(ForConditionalGeneration|MTModel)$",
    SPAN_SCORING: r"(ForMaskedLM|ForPreTraining)$",
}
CLASSIFIER = r"ForSequenceClassification$"


@dataclass(frozen=True)
class Rule:
    """What finds contradictions, and the settings that it looks at: where one of those is wrong, it says nothing."""

    find: Callable[[RunConfig], Iterable[str]]
    keys: tuple[str, ...]


def contradictions(config: RunConfig, unknown: Collection[str] = ()) -> list[str]:
    """What cannot work, one line each, as far as it does not depend on settings that are `unknown` or wrong already."""
    found = [line for rule in RULES if not stands_on(rule.keys, unknown) for line in _told_by(rule, config)]
    forget()
    return found


def stands_on(keys: Iterable[str], unknown: Collection[str]) -> bool:
    """Whether one of the settings (or groups) `keys` is `unknown`, lies in an unknown group, or has an unknown part."""
    dotted = [f"{other}." for other in unknown]
    return any(f"{key}.".startswith(other) or other.startswith(f"{key}.") for key in keys for other in dotted)


def _told_by(rule: Rule, config: RunConfig) -> list[str]:
    try:
        return list(rule.find(config))
    except UsageError as error:
        return str(error).split("\n")


# --- the plan -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lengths:
    """Of a schedule: its phases, and the epochs of all of them and of those that prune."""

    phases: int
    epochs: float
    window: float


def _phases(config: RunConfig) -> list[PhaseConfig]:
    """Those that happen with this start."""
    return [phase for phase in config.pruning.schedule.phases if phase.only_from in (None, config.start)]


def _lengths(config: RunConfig) -> Lengths:
    schedule = config.pruning.schedule
    units = units_of_pruning(config.sparsity, schedule.units_per_halving)
    phases = _phases(config)
    times = [units if phase.scaled else phase.repeat for phase in phases]
    epochs = [phase.units * config.trainer.epochs if phase.epochs is None else phase.epochs for phase in phases]
    lengths = [n * each for n, each in zip(times, epochs, strict=True)]
    window = sum(length for phase, length in zip(phases, lengths, strict=True) if phase.prune)
    return Lengths(sum(times), sum(lengths), window)


def _happens(config: RunConfig) -> Iterator[str]:
    """Phases may be meant for one start only."""
    schedule = config.pruning.schedule
    phases = _phases(config)
    if not phases:
        yield f"pruning.schedule.phases: with start={brief(config.start)} none of them happens"
    elif config.sparsity > 0 and not any(phase.prune for phase in phases) and any(p.prune for p in schedule.phases):
        yield f"pruning.schedule.phases: with start={brief(config.start)} none of those that prune happens"


def _amounts(config: RunConfig) -> Iterator[str]:
    """A plan is made in full before a run, so it must not be endless."""
    lengths, schedule = _lengths(config), config.pruning.schedule
    yield from _too_many("phases", lengths.phases, MOST_PHASES)
    if lengths.phases * math.log10(schedule.peak_decay) > MOST_GROWTH:
        yield (
            f"pruning.schedule.peak_decay={schedule.peak_decay:g} raises the learning rate more than "
            f"{10**MOST_GROWTH:,} times in {lengths.phases} phases: choose at most 1"
        )
    yield from _too_many("epochs", lengths.epochs, MOST_EPOCHS)
    yield from _too_many("prunings", lengths.window * (schedule.prunings_per_epoch or 0), MOST_MOMENTS)
    if config.trainer.eval_every is not None:
        yield from _too_many("evaluations", lengths.epochs / config.trainer.eval_every, MOST_MOMENTS)


def _too_many(what: str, amount: float, most: int) -> Iterator[str]:
    if amount > most:
        yield f"the schedule comes to {amount:.3g} {what}, more than {most:,}: {LESS[what]}"


def _plan(config: RunConfig) -> Iterator[str]:
    """Where the number of training examples is known: whether the schedule fits them."""
    told = (_amounts, _happens, _data, schedule_problems)
    if any(_told_by(Rule(find, ()), config) for find in told):
        return  # told already
    count, every = training_data(config).count, config.pruning.schedule.prune_every
    if count is None:
        return
    prunings = _lengths(config).window * count / config.trainer.batch_size / every if every else 0
    if prunings > MOST_MOMENTS:
        yield from _too_many("prunings", prunings, MOST_MOMENTS)
        return
    make_plan(config, count)
    if prunes(config):
        make_plan(dense_config(config), count)


# --- single settings against each other ---------------------------------------------------------------------------


def _axis_settings(config: RunConfig) -> Iterator[str]:
    """Names and types of the settings of methods of ours; their classes, which need torch, know the ranges."""
    for axis in AXES:
        chosen = getattr(config.pruning, axis)
        known = component_params(f"pruning/{axis}").get(chosen.name)
        if known is not None and hasattr(chosen, "params"):
            given = {key: value for key, value in chosen.params.items() if key not in OFFERED}
            yield from setting_problems(f"{axis} {chosen.name}", given, known, optional=known)


def _axes(config: RunConfig) -> Iterable[str]:
    pruning, phases = config.pruning, _phases(config)
    training = [phase for phase in phases if phase.epochs != 0 and phase.units]
    last = max((index for index, phase in enumerate(phases) if phase.prune), default=len(phases))
    choice = AxisChoice(
        criterion=pruning.criterion.name,
        scope=pruning.scope.name,
        pattern=pruning.pattern.name,
        refinement=pruning.refinement.name,
        update=pruning.update.name,
        regrowth=pruning.regrowth.name,
        dynamics=pruning.dynamics.name,
        floor=pruning.scope.floor,
        n=pruning.pattern.n,
        m=pruning.pattern.m,
        fisher_block=_fisher_block(config),
        sparsity=config.sparsity,
        components=tuple(pruning.components),
        trained=tuple(sorted({phase.train for phase in training})),
        trains_before=any(phase in training for phase in phases[: last + 1]),
    )
    return check_axes(choice)


def _fisher_block(config: RunConfig) -> int:
    """What is no number is refused elsewhere."""
    criterion = config.pruning.criterion
    if criterion.name not in BLOCK_FISHER:
        return 1
    size = criterion.params.get("block_size", BLOCK_FISHER[criterion.name])
    return size if isinstance(size, int) else 1


def _precision(config: RunConfig) -> Iterator[str]:
    pruning = config.pruning
    for axis, name in (("criterion", pruning.criterion.name), ("dynamics", pruning.dynamics.name)):
        if config.trainer.precision == "fp16" and name in UNSCALED:
            yield f"trainer.precision=fp16 scales gradients, which {axis} {name} works with: set it to bf16 or fp32"


def _learning_rates(config: RunConfig) -> Iterator[str]:
    schedule, trainer = config.pruning.schedule, config.trainer
    peak = ("trainer.lr", trainer.lr) if schedule.lr is None else ("pruning.schedule.lr", schedule.lr)
    final = ("trainer.final_lr", trainer.final_lr)
    if schedule.final_lr is not None:
        final = ("pruning.schedule.final_lr", schedule.final_lr)
    if final[1] > peak[1]:
        yield f"{final[0]}={final[1]:g} is above {peak[0]}={peak[1]:g}: cycles decay; lower the one or raise the other"
    if trainer.final_lr > trainer.lr and final[0] != "trainer.final_lr":
        yield f"trainer.final_lr={trainer.final_lr:g} is above trainer.lr={trainer.lr:g}: the dense model needs a decay"


def _batches(config: RunConfig) -> Iterator[str]:
    size, parts = config.trainer.batch_size, config.trainer.accumulation
    if size % parts:
        yield f"trainer.accumulation={parts} does not divide trainer.batch_size={size}: choose a divisor"


def _teacher(config: RunConfig) -> Iterator[str]:
    settings = config.distillation
    asked = f"distillation.hardness={settings.hardness:g}"
    if settings.hardness == 0:
        asked = f"distillation.hidden={settings.hidden}"
    if distils(config) and settings.teacher == "none":
        yield f"{asked}, but distillation.teacher=none: set it to auto, or distillation=none"
    if any(phase.prune for phase in config.pruning.schedule.phases):
        return  # sparsity=0 contradicts the schedule already
    if config.start == "teacher" and config.sparsity == 0:
        yield "start=teacher, but sparsity=0: a dense run is the teacher; set sparsity, or start=pretrained"
    if distils(config) and config.sparsity == 0 and (not config.pruning.keep_zeros or settings.teacher == "auto"):
        yield f"{asked}, but sparsity=0: a dense run has no teacher; add distillation=none"


# --- models -------------------------------------------------------------------------------------------------------


def _start(config: RunConfig) -> Iterator[str]:
    if config.start not in ("teacher", "pretrained"):
        hint = did_you_mean(config.start, ("teacher", "pretrained"))
        must = f"must be teacher, pretrained or the folder of a fine-tuned model{hint}"
        if "/" in config.start:
            must = "there is no such folder"
        yield from _model_folder("start", config.start, must)


def _model(config: RunConfig) -> Iterator[str]:
    name = config.model.name
    if config.model.from_config or name == config.start:
        return
    if not name or "\0" in name:
        yield f"model.name={brief(name)}: must be a hub name or a folder"
    elif _is_folder_name(name):
        yield from _model_folder("model.name", name, "there is no such folder")


def _teachers_place(config: RunConfig) -> Iterator[str]:
    teacher = config.distillation.teacher
    if teacher not in ("auto", "none") and (_is_folder_name(teacher) or "/" not in teacher):
        hint = did_you_mean(teacher, ("auto", "none")) if "/" not in teacher else ""
        yield from _model_folder("distillation.teacher", teacher, f"must be auto, none, a folder or owner/name{hint}")


def _is_folder_name(name: str) -> bool:
    return os.path.isdir(name) or name.startswith((".", "/", "~")) or name.count("/") > 1


def _model_folder(key: str, folder: str, otherwise: str) -> Iterator[str]:
    shown = f"{key}={brief(folder, LONGEST_PATH)}"
    if not os.path.isdir(folder):  # Path.is_dir raises for names that no system has
        yield f"{shown}: {otherwise}"
    elif not os.path.isfile(os.path.join(folder, "config.json")):
        yield f"{shown}: the folder has no config.json; give one that save_pretrained has written"
    elif not isinstance((folder_config(folder) or {}).get("model_type"), str):
        yield f"{shown}: its config.json is not that of a model (no JSON object with a model_type)"
    elif not has_any(folder, WEIGHTS):
        yield (
            f"{shown} holds no model.safetensors, and pickled weights are not read, since they can run code: load them "
            "once with transformers' from_pretrained(..., use_safetensors=False), and save_pretrained to a new folder"
        )


def _tokenizer(config: RunConfig) -> Iterator[str]:
    """A model whose folder has none, or that has no folder at all."""
    model, start = config.model, config.start
    if model.tokenizer or config.dataset.task == "synthetic":
        return
    if model.from_config:
        yield (
            f"model={brief(model.name)} is built from its config and has no tokenizer for "
            f"dataset={brief(config.dataset.name)}: give model.tokenizer=<hub name or folder>, or "
            "model=hf model.name=<hub name or folder>"
        )
        return
    source = model.name if start in ("teacher", "pretrained") else start
    if os.path.isfile(os.path.join(source, "config.json")) and not has_any(source, TOKENIZER):
        yield (
            f"{brief(source, LONGEST_PATH)} holds no tokenizer ({', '.join(TOKENIZER)}): "
            "give model.tokenizer=<hub name or folder>"
        )


def _heads(config: RunConfig) -> Iterator[str]:
    """Folders of fine-tuned models must have a head for the dataset's labels."""
    folders = {"model.name": "" if config.model.from_config else config.model.name}
    if config.start not in ("teacher", "pretrained"):  # there may be folders of these names
        folders = {"start": config.start} | folders
    if distils(config) and config.distillation.teacher not in ("auto", "none"):
        folders["distillation.teacher"] = config.distillation.teacher
    seen: set[str] = set()
    for key, folder in folders.items():
        known = folder_config(folder) if os.path.isdir(folder) else None
        if known and str(known.get("model_type")) in DEFAULTS and folder not in seen:
            yield from _head(key, folder, known, config)
        seen.add(folder)


def _head(key: str, folder: str, known: dict[str, Any], config: RunConfig) -> Iterator[str]:
    shown = f"{key}={brief(folder, LONGEST_PATH)}"
    architectures = known.get("architectures") or []
    pattern = HEADS.get(config.dataset.task, CLASSIFIER)
    if not any(re.search(pattern, str(name)) for name in architectures):
        if key == "start":
            yield (
                f"{shown} has no head for {config.dataset.name}: it is a pretrained body, or one for another task; "
                f"use model.name={brief(folder, LONGEST_PATH)} with start=teacher or start=pretrained"
            )
        elif key != "model.name":
            yield f"{shown} has no head for this task: give a fine-tuned model, or {key}=auto"
    elif config.dataset.task not in HEADS:
        yield from _head_labels(shown, known, config)


def _head_labels(shown: str, known: dict[str, Any], config: RunConfig) -> Iterator[str]:
    ours, theirs = labels_of(config.dataset), known.get("id2label")
    names = [str(name) for name in theirs.values()] if isinstance(theirs, dict) else []
    choices = config.dataset.task in CHOICES
    expected = 1 if choices or config.dataset.regression else len(ours) if ours else None
    number = len(names) or known.get("num_labels", 2)
    if expected is None:
        return
    if number != expected:
        needed = "and choices are scored by one output" if choices else f"the dataset has {expected}"
        yield f"{shown} is fine-tuned for {brief(number)} labels, {needed}: use its own dataset"
    elif ours and not _same_labels(ours, names):
        yield (
            f"{shown} is fine-tuned for the labels {listed(names)}, but the dataset has {listed(ours)}: "
            "rename the labels of one of them"
        )


def _same_labels(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """But for case and order; numbers stand for any names, and so do the names of a head that was given none."""
    unnamed = all(re.fullmatch(r"LABEL_\d+", name) for name in theirs)
    numbers = all(name.isdigit() for name in ours)
    return unnamed or numbers or sorted(map(str.casefold, ours)) == sorted(map(str.casefold, theirs))


def _masked_words(config: RunConfig) -> Iterator[str]:
    """Where the model's family is known."""
    kind = config.model.config.get("model_type")
    if (
        config.dataset.task == SPAN_SCORING
        and kind in DEFAULTS
        and not component_sizes({"model_type": kind}, MASKED, 1)
    ):
        yield (
            f"dataset={brief(config.dataset.name)} asks for masked words, which {brief(config.model.name)} ({kind}) "
            "was not made for: choose an encoder, or dataset=winogrande"
        )


def _components(config: RunConfig) -> Iterator[str]:
    """Where the model's sizes are known: what it lacks, and a budget that is more than there is."""
    pruning = config.pruning
    known = component_sizes(config.model.config, head_class(config), 2) if config.model.config else None
    if known is None:  # the number of labels does not matter here
        return
    if (total := sum(known.values())) > MOST_WEIGHTS:
        yield f"model.config: that makes a model of {total:.2g} weights, more than {MOST_WEIGHTS:.0e}: lower its sizes"
    named = [name for name in (*pruning.components, *(pruning.budget_from or [])) if name != "all"]
    for name in dict.fromkeys(named):
        if known[name] == 0:
            yield f"pruning.components: {brief(config.model.name)} has no {name} for this task: leave it out"
    if pruning.budget_from is None or pruning.components == ["all"]:
        return
    budget = sum(known[name] for name in pruning.budget_from)
    room = sum(known[name] for name in pruning.components)
    if config.sparsity * budget >= room:
        yield (
            f"pruning.budget_from: sparsity={config.sparsity:g} of {budget:,} weights "
            f"leaves nothing of the {room:,} in {' + '.join(pruning.components)}: lower it"
        )


# --- data ---------------------------------------------------------------------------------------------------------


def _data(config: RunConfig) -> Iterator[str]:
    dataset = config.dataset
    if dataset.task == "synthetic":
        if dataset.train_file or dataset.validation_file:
            yield (
                f"dataset={brief(dataset.name)} generates its text and reads no files: for yours, "
                "dataset=classification"
            )
        read_params(dataset.params)
        return
    if dataset.regression and dataset.labels:
        yield "dataset.regression=true and dataset.labels exclude each other: set dataset.labels=null"
        return
    source_of(dataset)
    if dataset.train_file:
        yield from file_problems(dataset)
    if dataset.holdout is not None:
        training_data(config)


def _metrics(config: RunConfig) -> Iterator[str]:
    problem = problem_of(config.dataset, objective(config))
    if problem is not None:
        metric_names(config.dataset, problem)
    return iter(())


def _objective(config: RunConfig) -> Iterator[str]:
    """Of families that are known here, which are no encoder-decoders; `context.settle_objective` knows the others."""
    asked, model = config.dataset.objective, brief(config.model.name)
    made_for = objective(replace(config, dataset=replace(config.dataset, objective="auto")))
    if config.dataset.task == "sequence_to_sequence" and made_for is not None:
        name = brief(config.dataset.name)
        yield f"dataset={name} needs an encoder-decoder, which {model} is not: add model=t5_small or model=bart_base"
    if config.dataset.task != "language_modelling" or asked == "auto" or made_for in (None, asked):
        return
    if asked == "causal":
        yield f"dataset.objective=causal: {model} sees the words that follow: set dataset.objective=masked"
    else:
        yield f"dataset.objective=masked: {model} predicts the next word: set dataset.objective=causal"


def _temperature(config: RunConfig) -> Iterator[str]:
    if config.dataset.task in TOKENS and distils(config) and config.distillation.temperature == "auto":
        yield (
            "distillation.temperature=auto looks at all answers of 1,000 examples, too many over a vocabulary: "
            "give a number, like 5.5"
        )


def _length(config: RunConfig) -> Iterator[str]:
    longest, asked = positions(config.model.config), config.dataset.max_length
    readable = config.start in ("teacher", "pretrained") or folder_config(config.start) is not None
    if readable and longest is not None and asked > longest:
        model = brief(config.model.name)
        yield f"dataset.max_length={asked}: {model} takes at most {longest} tokens; lower it to {longest}"
    if config.dataset.task == "question_answering" and config.dataset.doc_stride >= asked:
        yield f"dataset.doc_stride={config.dataset.doc_stride}: must be less than dataset.max_length={asked}"
    stride = config.dataset.stride
    if config.dataset.task == "language_modelling" and stride is not None and stride > asked:
        yield f"dataset.stride={stride}: must be at most dataset.max_length={asked}, or windows leave words out"


def positions(config: dict[str, Any]) -> int | None:
    """Tokens that a model of this Hugging Face config can take; None where that is unknown or unlimited."""
    kind = config.get("model_type", "")
    if kind not in DEFAULTS:
        return None
    names = {ours: theirs for theirs, ours in ALIASES.get(kind, {}).items()}
    key = names.get("max_position_embeddings", "max_position_embeddings")
    total = config.get(key, config.get("max_position_embeddings", DEFAULTS[kind]["max_position_embeddings"]))
    if kind.startswith("deberta"):
        return None if not config.get("position_biased_input", True) else int(total)
    return int(total) - (2 if kind in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0)  # counted from padding


SCHEDULE = ("sparsity", "start", "pruning.schedule", "trainer.epochs", "trainer.eval_every")
DATA = tuple(
    f"dataset.{name}"
    for name in (
        "name", "task", "hub", "train_file", "validation_file", "header", "text_columns", "label_column", "labels",
        "regression", "choices", "limit", "validation_limit", "holdout", "examples", "windows", "params", "separator",
        "metrics",
    )
)  # fmt: skip
METRICS = ("model", *(f"dataset.{name}" for name in ("task", "objective", "regression", "metric", "metrics")))
RULES = (
    Rule(schedule_problems, ("sparsity", "pruning.schedule")),
    Rule(_happens, ("sparsity", "start", "pruning.schedule.phases")),
    Rule(_amounts, SCHEDULE),
    Rule(_axis_settings, tuple(f"pruning.{axis}" for axis in AXES)),
    Rule(_axes, ("sparsity", "pruning.components", "pruning.schedule.phases", *(f"pruning.{axis}" for axis in AXES))),
    Rule(_precision, ("trainer.precision", "pruning.criterion", "pruning.dynamics")),
    Rule(_learning_rates, ("pruning.schedule.lr", "pruning.schedule.final_lr", "trainer.lr", "trainer.final_lr")),
    Rule(_batches, ("trainer.batch_size", "trainer.accumulation")),
    Rule(_teacher, ("sparsity", "start", "pruning.schedule.phases", "pruning.keep_zeros", "distillation")),
    Rule(_start, ("start",)),
    Rule(_model, ("start", "model.name", "model.from_config")),
    Rule(_teachers_place, ("distillation.teacher",)),
    Rule(_tokenizer, ("start", "model", "dataset.task")),
    Rule(_heads, ("start", "model.name", "model.from_config", "distillation", *DATA)),
    Rule(_masked_words, ("model", "dataset.name", "dataset.task")),
    Rule(_components, ("sparsity", "start", "model", "dataset.task", "pruning.components", "pruning.budget_from")),
    Rule(_length, ("model", "dataset.task", "dataset.max_length", "dataset.doc_stride", "dataset.stride")),
    Rule(_data, DATA),
    Rule(_metrics, METRICS),
    Rule(_objective, ("model", "start", "dataset.task", "dataset.objective")),
    Rule(_temperature, ("dataset.task", "distillation")),
    Rule(_plan, (*SCHEDULE, *DATA, "model", "trainer")),
)
