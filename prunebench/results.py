"""The Result of a run: what was asked, what was achieved, and where. Plain values, written as result.json."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

SCHEMA = 1  # of result.json and of everything else a run folder holds
PACKAGES = ("prunebench", "torch", "transformers", "accelerate", "datasets", "tokenizers", "hydra-core")


@dataclass(frozen=True)
class Result:
    """`result.json`. Scores are as their metric gives them (accuracy in 0..1); sparsity is a share of zeros.

    `sparsity.prunable` has the weights of `components` as denominator, `sparsity.model` all parameters of the model,
    biases and LayerNorm included; tied and shared weights count once. `bytes.compressed` is computed, not written.
    """

    status: str  # finished, running, stopped, failed
    recipe: str
    name: str
    digest: str
    seed: int
    group: str = ""  # the digest of everything but the seed: runs that share it differ in nothing else
    config: dict[str, Any] = field(default_factory=dict)  # the settings, as in config.yaml but read much faster
    evaluation: dict[str, Any] = field(default_factory=dict)  # split, examples, content, answers: see `evaluated_on`
    metric: dict[str, Any] = field(default_factory=dict)  # name, value, higher_is_better, weights ("last" or "best")
    metrics: dict[str, float] = field(default_factory=dict)
    dense: dict[str, Any] = field(default_factory=dict)  # value, metrics, folder
    recovery: float | None = None
    sparsity: dict[str, Any] = field(default_factory=dict)  # target, prunable, model, components
    weights: dict[str, int] = field(default_factory=dict)  # model, model_nonzero, prunable, prunable_nonzero
    bytes: dict[str, Any] = field(default_factory=dict)  # dense, compressed, format
    training: dict[str, Any] = field(default_factory=dict)  # steps, epochs, prunings, temperature, best
    seconds: float = 0.0
    model: str | None = None  # folder, relative to the run's
    wandb: str | None = None
    warnings: list[str] = field(default_factory=list)
    reason: str | None = None  # why it failed
    environment: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def evaluated_on(predictions: Iterable[Mapping[str, Any]], content: str | None) -> dict[str, Any]:
    """What the primary score, that of the first split, was computed on.

    Args:
        predictions: lines of predictions.jsonl.
        content: hash of the split's texts and answers; None where only the predictions are left.

    Returns:
        split, examples (their number), content, and answers: a hash of ids and right answers (of texts, numbers of
        scored tokens, without which a perplexity means nothing) in their order.
    """
    lines = list(predictions)
    split = lines[0]["split"] if lines else ""
    used = [[line.get(key) for key in ("id", "label", "answers", "tokens")] for line in lines if line["split"] == split]
    answers = hashlib.sha256(json.dumps(used).encode()).hexdigest()
    return {"split": split, "examples": len(used), "content": content, "answers": answers[:16]}


def recovery(sparse: float, dense: float | None, higher_is_better: bool) -> float | None:
    """The share of the dense score that is kept; dense / sparse where lower is better. None where it means nothing."""
    if dense is None:
        return None
    part, whole = (sparse, dense) if higher_is_better else (dense, sparse)
    return part / whole if whole > 0 else None


def compressed_bytes(weights: Mapping[str, int], bytes_per_weight: int = 4) -> int:
    """Bytes in the bitmask format: one bit for every prunable weight, then the values that are not zero.

    The rest of the model is stored as it is. This is what compressed-tensors calls `sparse-bitmask`.
    """
    kept = weights["model"] - weights["prunable"] + weights["prunable_nonzero"]
    return kept * bytes_per_weight + -(-weights["prunable"] // 8)


def environment(device: str, precision: str) -> dict[str, Any]:
    """Versions and hardware. Nothing of the user's environment variables."""
    return {
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in PACKAGES},
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "device": device,
        "precision": precision,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
