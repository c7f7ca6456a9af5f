"""Which settings two runs have in common, told from their configs alone: no model, no data, no torch."""

from __future__ import annotations

import os
from dataclasses import asdict

from prunebench.config import RunConfig
from prunebench.digest import distils, run_digest
from prunebench.facts import objective

NOT_DATA = ("name", "labels", "metrics", "metric", "examples", "windows")  # settled later, or for people


def settings_digest(config: RunConfig) -> str:
    """As a run's digest, but with names of models and files in the place of their contents."""
    source = config.model.name if config.start in ("teacher", "pretrained") else config.start
    data = {key: value for key, value in asdict(config.dataset).items() if key not in NOT_DATA}
    return run_digest(
        config,
        model=f"{_place(source)}@{config.model.revision}",
        tokenizer=_place(config.model.tokenizer),
        data=data
        | {key: _place(data[key]) for key in ("train_file", "validation_file")}
        | {"objective": objective(config)},
        teacher=_place(config.distillation.teacher) if distils(config) else None,
        precision=config.trainer.precision,
    )


def _place(name: str | None) -> str | None:
    """A file or folder by its whole path; a hub name, or a folder that is gone, as it is."""
    if name is None or not os.path.exists(os.path.expanduser(name)):
        return name
    return os.path.realpath(os.path.expanduser(name))
