"""Folders like those that finished runs leave, in milliseconds, for the tests of what reads many of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from prunebench.config import DatasetConfig, ModelConfig, RunConfig
from prunebench.results import evaluated_on

LABELS = ("negative", "positive")


def digest_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def predicted(right: Sequence[int], split: str = "validation") -> list[dict[str, Any]]:
    """Lines of predictions.jsonl: 1 for each example that is right."""
    lines = []
    for index, hit in enumerate(right):
        label = index % 2
        answer = LABELS[label if hit else 1 - label]
        line = {"id": index, "label": LABELS[label], "prediction": answer, "correct": bool(hit), "logits": [0.0, 0.0]}
        lines.append({"split": split, **line})
    return lines


def finished_run(
    outputs: Path,
    right: Sequence[int] = (1, 1, 1, 0),
    *,
    name: str = "mine",
    seed: int = 1,
    sparsity: float = 0.9,
    dense: Path | None = None,
    content: str = "texts",
    components: Sequence[str] = ("encoder",),
    metric: tuple[str, float, bool] | None = None,
    lines: Sequence[dict[str, Any]] | None = None,
    settings: dict[str, Any] | None = None,
    old: bool = False,
    **changes: Any,
) -> Path:
    """A run's folder. `dense`: the folder of its dense run; `old`: as before result.json held config and contents."""
    config = RunConfig(name=name, recipe=changes.pop("recipe", name), sparsity=sparsity, seed=seed)
    config.model, config.dataset = ModelConfig(name="bert"), DatasetConfig(name="sst2", task="classification")
    for key, value in (settings or {}).items():
        OmegaConf.update(merged := OmegaConf.structured(config), key, value)
        config = OmegaConf.to_object(merged)  # type: ignore[assignment]
    told = {key: value for key, value in asdict(config).items() if key not in ("name", "seed")}
    group = changes.pop("group", digest_of([told, content]))
    digest = changes.pop("digest", digest_of([group, seed, name]))
    lines = predicted(right) if lines is None else lines
    metric_name, value, higher = metric or ("accuracy", sum(right) / len(right), True)
    dense_result = json.loads((dense / "result.json").read_text()) if dense else None
    dense_value = dense_result["metric"]["value"] if dense_result else (value if not sparsity else None)
    result: dict[str, Any] = {
        "status": "finished", "name": name, "recipe": config.recipe, "digest": digest, "seed": seed, "group": group,
        "config": asdict(config), "evaluation": evaluated_on(lines, content),
        "metric": {"name": metric_name, "value": value, "higher_is_better": higher, "weights": "last"},
        "metrics": {metric_name: value},
        "dense": {"value": dense_value, "folder": str(dense) if dense else ""},
        "recovery": value / dense_value if dense_value else None,
        "sparsity": {"target": sparsity, "prunable": sparsity, "model": sparsity / 2,
                     "components": dict.fromkeys(components, sparsity)},
        "weights": {"model": 1000, "model_nonzero": round(1000 * (1 - sparsity / 2)), "prunable": 500},
        "bytes": {"dense": 4000, "compressed": round(4000 * (1 - sparsity / 2))}, "seconds": 10.0,
        "environment": {"precision": "fp32"}, "warnings": [], "schema": 1,
    }  # fmt: skip
    if old:
        for key in ("config", "group", "evaluation"):
            result.pop(key)
    folder = outputs / name / digest
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    (folder / "result.json").write_text(json.dumps(result | changes))
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
