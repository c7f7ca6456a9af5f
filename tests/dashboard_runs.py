"""Folders of runs for the tests of the dashboard, some with texts that would like to be code."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prunebench.config import PhaseConfig, RunConfig

HOSTILE = '<img src=x onerror="window.hacked=1"></script><script>window.hacked=1</script>{b|x}'
HOSTILE_NAME = HOSTILE.replace("/", "⁄")  # no folder has a slash in its name
PARTS = ("attention.self.query", "output.dense")
MATRICES = [f"bert.encoder.layer.{layer}.{part}.weight" for layer in (0, 1) for part in PARTS]
STEPS = 40


def make_run(
    outputs: Path,
    name: str = "mine",
    *,
    seed: int = 1,
    sparsity: float = 0.9,
    score: float = 0.8,
    status: str = "finished",
    said: str = "pnpn",
    text: str = HOSTILE,
    content: str = "c",
    lr: float = 1e-3,
    **changes: Any,
) -> str:
    """Writes what a run leaves; its id. `said`: the first letters of what it predicts, where "pppp" is right."""
    config = RunConfig(name=name, recipe=name, sparsity=sparsity, seed=seed)
    config.dataset.name, config.trainer.lr = "films", lr
    config.pruning.schedule.phases = [PhaseConfig(name="dense", epochs=1.0), PhaseConfig(name="prune", prune=True)]
    digest = f"{abs(hash((name, seed, sparsity, lr, status))) % 16**12:012x}"
    root = outputs / name / digest
    root.mkdir(parents=True)
    (root / "config.yaml").write_text(json.dumps(asdict(config)))
    result = {
        "status": status, "recipe": name, "name": name, "digest": digest, "seed": seed,
        "group": f"{name} {sparsity} {lr}", "config": asdict(config), "schema": 1,
    } | (_finished(sparsity, score, content) if status == "finished" else {})  # fmt: skip
    (root / "result.json").write_text(json.dumps(result | changes))
    spans = (("dense", 0, 20), ("prune", 20, 40))
    phases = [{"name": n, "start": a, "stop": b, "lr": {"start": a}} for n, a, b in spans]
    (root / "plan.json").write_text(json.dumps({"phases": phases}))
    (root / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(sparsity)))
    names = {"p": "positive", "n": "negative"}
    lines = [
        {"split": "validation", "id": i, "text": f"{text} {i}", "label": "positive", "prediction": names[letter],
         "correct": letter == "p"}
        for i, letter in enumerate(said)
    ]  # fmt: skip
    (root / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"{name}/{digest}"


def _finished(sparsity: float, score: float, content: str) -> dict[str, Any]:
    return {
        "evaluation": {"split": "validation", "examples": 4, "content": content, "answers": "a"},
        "metric": {"name": "accuracy", "value": score, "higher_is_better": True, "weights": "last"},
        "metrics": {"accuracy": score}, "dense": {"value": 0.9}, "recovery": score / 0.9,
        "sparsity": {"target": sparsity, "prunable": sparsity, "model": sparsity / 2,
                     "components": {"encoder": sparsity}},
        "weights": {"model": 200, "model_nonzero": 100, "prunable": 100, "prunable_nonzero": 10},
        "bytes": {"dense": 800, "compressed": 413}, "training": {"steps": STEPS, "prunings": 2}, "seconds": 3.5,
    }  # fmt: skip


def rows(sparsity: float) -> list[dict[str, Any]]:
    """metrics.jsonl of STEPS updates with two prunings and an evaluation."""
    found: list[dict[str, Any]] = []
    for step in range(STEPS):
        if step in (10, 20):
            level = sparsity * step / 20
            found.append(
                {"step": step, "pruning": {"sparsity": level, "churn": 0.1, "layers": dict.fromkeys(MATRICES, level)}}
            )
        if step == 30:
            found.append({"step": step, "eval": {"accuracy": 0.7}})
        found.append(
            {"step": step, "loss": 1 / (step + 1), "phase": "prune", "lr": 0.1 * (step % 20), "sparsity": sparsity}
        )
    return found


def touch_later(path: Path) -> None:
    """Some file systems' clocks are coarser than a test is fast."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
