"""Puts together what a run trains with: student, sparsifier and teacher."""

from __future__ import annotations

from typing import Any

from torch import nn

from prunebench.calibrate import looked_at
from prunebench.config import RunConfig
from prunebench.context import Context, outline, source_model
from prunebench.devices import memory_of
from prunebench.digest import distils, prunes
from prunebench.distill import cache_key
from prunebench.errors import UsageError
from prunebench.identity import model_identity
from prunebench.models import has_head
from prunebench.paths import cache_dir
from prunebench.retraining import Adapters
from prunebench.sparsity.dynamics import DYNAMICS, Dynamics
from prunebench.sparsity.sparsifier import Sparsifier, build_sparsifier
from prunebench.targets import COMPONENTS, component_sizes, find_targets
from prunebench.tasks.base import Encoded, Task
from prunebench.teacher import TeacherSource, check_layers, check_teacher, label_columns, make_teacher, teacher_labels
from prunebench.train import Distillation, Hidden


def check_fit(config: RunConfig, task: Task, tokenizer: Any) -> None:
    """Refuses what could only fail after the teacher was trained: components, patterns, another teacher.

    Raises:
        UsageError: the model lacks a component, a matrix does not fit the pattern, or the teacher does not fit.
    """
    if prunes(config):
        model = outline(config, task)
        sparsifier = make_sparsifier(config, model)
        dynamics = make_dynamics(config, sparsifier)
        if dynamics is not None:
            dynamics.begin(model, sparsifier)
        sparsity_scale(config, model)
    if config.start not in ("teacher", "pretrained") and not has_head(config.start, task.head):
        raise UsageError(
            f"start={config.start} has no head for {config.dataset.name}: it is a pretrained body, or one for another "
            f"task; use model.name={config.start} with start=teacher or start=pretrained"
        )
    if distils(config) and config.distillation.teacher not in ("auto", "none"):
        check_teacher(task, config.distillation.teacher, tokenizer)
        if config.distillation.hidden != "none":
            check_layers(source_model(config), config.distillation.teacher)


def check_memory(config: RunConfig, task: Task, examples: int) -> None:
    """Refuses statistics that can never fit into the memory, before the teacher is trained.

    Args:
        examples: of training, those that there are to be looked at.

    Raises:
        UsageError: with what they take and what there is.
    """
    if not prunes(config):
        return
    sparsifier = make_sparsifier(config, outline(config, task))
    if sparsifier.sample is None:
        return
    seen, batch_size = looked_at(config.pruning.calibration, sparsifier.sample, examples)
    gradients, weights = seen // batch_size, sum(target.weight.numel() for target in sparsifier.targets)
    needed = weights * sparsifier.axes.criterion.bytes_per_weight(gradients)
    available = memory_of(config.trainer.device)
    if needed > available:
        raise UsageError(
            f"criterion {config.pruning.criterion.name} keeps {needed / 1e9:.1f} GB of {gradients} gradients of "
            f"{weights / 1e6:.1f} M weights, and there are {available / 1e9:.1f} GB of memory: lower "
            "pruning.calibration.examples or pruning.criterion.params.block_size"
        )


def make_student(context: Context) -> Any:
    """The model that is trained, with the weights it starts from."""
    config = context.config
    place = str(context.dense_folder.model) if config.start == "teacher" else source_model(config)
    return context.load(place, context.task.labels)


def components_of(config: RunConfig, model: nn.Module) -> list[str]:
    """`pruning.components`, with "all" spelt out."""
    if config.pruning.components != ["all"]:
        return config.pruning.components
    sizes = component_sizes(model)
    return [component for component in COMPONENTS if sizes[component]]


def make_sparsifier(config: RunConfig, model: nn.Module) -> Sparsifier:
    pruning = config.pruning
    targets = find_targets(model, components_of(config, model))
    keeps = pruning.keep_zeros and not targets[0].weight.is_meta
    if keeps and not prunes(config) and all(bool(target.weight.all()) for target in targets):
        raise UsageError(
            f"pruning.keep_zeros=true, but {source_model(config)} has no zeros in {' + '.join(pruning.components)}: "
            "give model.name=<folder of a sparse model>, or prune it (sparsity=...)"
        )
    return build_sparsifier(
        targets,
        criterion=pruning.criterion.name,
        params=pruning.criterion.params,
        scope=pruning.scope.name,
        floor=pruning.scope.floor,
        pattern=pruning.pattern.name,
        n=pruning.pattern.n,
        m=pruning.pattern.m,
        scope_params=pruning.scope.params,
        refinement=pruning.refinement,
        update=pruning.update,
        regrowth=pruning.regrowth,
        seed=config.seed,
        from_zeros=keeps,
    )


def make_dynamics(config: RunConfig, sparsifier: Sparsifier) -> Dynamics | None:
    """What training steps do besides; a criterion that learns while the model trains is a dynamics itself."""
    chosen, criterion = config.pruning.dynamics, sparsifier.axes.criterion
    if chosen.name == "none":
        return criterion if isinstance(criterion, Dynamics) else None
    if isinstance(criterion, Dynamics):
        raise UsageError(
            f"pruning.dynamics={chosen.name}: criterion {config.pruning.criterion.name} has a dynamics of its own: "
            "set pruning/dynamics=none"
        )
    return DYNAMICS.build(chosen.name, chosen.params, seed=config.seed)


def make_adapters(config: RunConfig) -> Adapters | None:
    """Those of the phases that train adapters, if there is any."""
    if all(phase.train != "perp" for phase in config.pruning.schedule.phases):
        return None
    settings = config.pruning.adapters
    return Adapters(settings.kind, settings.rank, settings.alpha, config.seed)


def sparsity_scale(config: RunConfig, model: nn.Module) -> float:
    """What turns `sparsity` of the components in `budget_from` into the sparsity of those that are pruned."""
    if config.pruning.budget_from is None:
        return 1.0
    budget = sum(target.weight.numel() for target in find_targets(model, config.pruning.budget_from))
    pruned = sum(target.weight.numel() for target in find_targets(model, components_of(config, model)))
    return budget / pruned


def make_distillation(context: Context, data: Encoded) -> Distillation | None:
    """The teacher at work and the temperature; None where the task loss alone is used."""
    config, task, settings = context.config, context.task, context.config.distillation
    given = None if settings.teacher == "auto" else settings.teacher
    if not distils(config) or (given is None and context.dense is None):
        return None
    folder = given or str(context.dense_folder.model)
    identity = model_identity(given) if given else context.dense_folder.root.name
    labels = teacher_labels(task, given) if given else task.labels
    source = TeacherSource(
        load=lambda: context.load(folder, labels),
        columns=label_columns(task.labels, labels),
        task=task,
        data=data,
        device=context.accelerator.device,
        autocast=context.accelerator.autocast,
        batch_size=config.trainer.eval_batch_size,
    )
    hidden = None
    if settings.hidden != "none":
        hidden = Hidden(source.hidden(), settings.hidden, settings.hidden_weight)
    if settings.hardness == 0:
        return Distillation(None, 0.0, 1.0, hidden)
    key = cache_key(identity, data.key, context.precision, str(source.columns))
    cache = cache_dir(config.outputs) / "logits" / key
    teacher, temperature = make_teacher(source, cache, settings.cache_gb * 1e9, settings.temperature)
    return Distillation(teacher, settings.hardness, temperature, hidden)
