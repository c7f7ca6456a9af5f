"""Which settings two runs have in common, told from their configs alone: no model, no data, no torch."""

from __future__ import annotations

from dataclasses import asdict

from prunebench.config import RunConfig
from prunebench.digest import distils, run_digest

NOT_DATA = ("name", "labels", "metrics", "metric", "examples", "windows")  # settled later, or for people


def settings_digest(config: RunConfig) -> str:
    """As a run's digest, but with names of models and files in the place of their contents."""
    source = config.model.name if config.start in ("teacher", "pretrained") else config.start
    return run_digest(
        config,
        model=f"{source}@{config.model.revision}",
        tokenizer=config.model.tokenizer,
        data={key: value for key, value in asdict(config.dataset).items() if key not in NOT_DATA},
        teacher=config.distillation.teacher if distils(config) else None,
        precision=config.trainer.precision,
    )
