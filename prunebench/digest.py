"""The identity of a run: a hash over everything that changes its result, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from prunebench.config import DistillationConfig, PruningConfig, RunConfig
from prunebench.results import SCHEMA

NOT_IN_RESULT = (
    "accumulation",  # so that a run that is out of memory goes on in smaller parts
    "eval_batch_size", "log_every", "checkpoint_minutes", "checkpoint_steps", "device",
)  # fmt: skip
DENSE = "dense"  # name of the recipe and of the folder of dense runs


def prunes(config: RunConfig) -> bool:
    """Whether a run takes weights away; one that does not is a dense run, whatever its recipe."""
    return config.sparsity > 0


def distils(config: RunConfig) -> bool:
    """Whether a teacher has a say in the loss."""
    return config.distillation.hardness > 0 or config.distillation.hidden != "none"


def dense_config(config: RunConfig) -> RunConfig:
    """The dense run that `config` is compared with: same model, data, dense recipe and seed, nothing pruned.

    A run that starts from a fine-tuned folder has that model as it is for its dense run.
    """
    start = config.start if config.start not in ("teacher", "pretrained") else "pretrained"
    pruning = PruningConfig()
    if start != "pretrained":
        pruning.schedule.phases[0].epochs = 0.0
    return replace(
        config,
        name=DENSE,
        recipe=DENSE,
        sparsity=0.0,
        start=start,
        pruning=pruning,
        distillation=DistillationConfig(teacher="none"),
    )


def run_digest(
    config: RunConfig,
    *,
    model: str,
    tokenizer: str | None,
    data: Mapping[str, Any],
    teacher: str | None,
    precision: str,
) -> str:
    """12 hex digits over settings and contents.

    Args:
        model: identity of the pretrained model's files, see `identity.model_identity`.
        tokenizer: identity of a tokenizer that is not the model's own.
        data: identity of the dataset, see `Task.identity`.
        teacher: digest of the dense run or identity of the teacher's files, where the result depends on it.
        precision: as resolved, never "auto".
    """
    trainer = {key: value for key, value in asdict(config.trainer).items() if key not in NOT_IN_RESULT}
    if config.trainer.keep == "last":
        trainer.pop("eval_every")
    settings = config.distillation
    distillation: dict[str, Any] = {"hardness": settings.hardness, "temperature": settings.temperature}
    if settings.hidden != "none":
        distillation |= {"hidden": settings.hidden, "hidden_weight": settings.hidden_weight}
    identity = {
        "schema": SCHEMA,
        "sparsity": config.sparsity,
        "seed": config.seed,
        "start": config.start if config.start in ("teacher", "pretrained") else "folder",
        "model": [model, config.model.config if config.model.from_config else None, tokenizer],
        "data": data,
        "pruning": _pruning(config),
        "distillation": distillation if distils(config) else None,
        "trainer": trainer | {"precision": precision},
        "teacher": teacher,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def _pruning(config: RunConfig) -> dict[str, Any]:
    """Names of schedules and phases are for people. A run that prunes nothing has phases and learning rates only."""
    pruning = asdict(config.pruning)
    pruning["components"].sort()
    schedule = pruning["schedule"]
    schedule.pop("name")
    rewinds = {phase["rewind"] for phase in schedule["phases"]} - {None, "start", "scratch"}
    for phase in schedule["phases"]:
        if phase["name"] not in rewinds:
            phase.pop("name")
        _leave_out(phase, "release", "rewind", "hold")
        if phase["train"] == "all":
            phase.pop("train")
    for axis in ("refinement", "update", "regrowth", "dynamics"):
        if pruning[axis]["name"] == "none":
            pruning.pop(axis)
    _leave_out(pruning["scope"], "params")
    _leave_out(pruning["calibration"], "examples", "batch_size")
    _leave_out(pruning, "calibration")
    _leave_out(pruning, "keep_zeros")
    if all(phase.train != "perp" for phase in config.pruning.schedule.phases):
        pruning.pop("adapters")
    if prunes(config):
        return pruning
    kept = {key: pruning[key] for key in ("keep_zeros", "components") if config.pruning.keep_zeros}
    if "adapters" in pruning:
        kept |= {key: pruning[key] for key in ("adapters", "components")}
    return kept | {key: schedule[key] for key in ("phases", "lr", "final_lr", "peak_decay")}


def _leave_out(settings: dict[str, Any], *keys: str) -> None:
    """What is not made use of is no part of an identity, so that a new setting leaves finished runs finished."""
    for key in keys:
        if not settings[key]:
            settings.pop(key)


def needs_dense(config: RunConfig) -> bool:
    """Whether the result itself, not only the recovery, depends on the dense run."""
    distilled = distils(config) and config.distillation.teacher == "auto"
    return prunes(config) and (config.start == "teacher" or distilled)
