"""What the long experiments share: a finished run is a line of a JSON file, and what is there is not computed again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prunebench.compose import load_config
from prunebench.paths import locked, write_text
from prunebench.run import run

ROOT = Path(__file__).resolve().parents[1]
MINILM = Path.home() / ".cache/prunebench-models/minilm-l6"
PLAIN = ["distillation=none"]
EVERYWHERE = ["pruning.components=[all]"]
AS_MANY = ["pruning.budget_from=[encoder]"]

Line = dict[str, Any]


def short(prune_every: int) -> list[str]:
    """One short training, as the Sparsity-May-Cry benchmark prunes, with a pruning every so many steps."""
    return ["pruning/schedule=smc_bench_gmp", f"pruning.schedule.prune_every={prune_every}", "start=pretrained"]


def composed(common: Sequence[str], own: Sequence[str]) -> list[str]:
    """Both; what is chosen by `own`, a recipe say, takes the place of the same in `common`."""
    keys = {word.partition("=")[0] for word in own}
    return [*(word for word in common if word.partition("=")[0] not in keys), *own]


def read(path: Path) -> list[Line]:
    lines: list[Line] = json.loads(path.read_text()) if path.is_file() else []
    return lines


def add(path: Path, line: Line) -> None:
    """Two scripts may be at work on one file, with different seeds."""
    with locked(path.with_name(f".{path.name}.lock")):
        lines = [other for other in read(path) if other["settings"] != line["settings"]]
        text = ",\n ".join(json.dumps(each) for each in [*lines, line])
        write_text(path, f"[\n {text}\n]\n")


def compute(
    common: Sequence[str], own: Sequence[str], results: Path, line_of: Callable[[Mapping[str, Any]], Line]
) -> Line | None:
    """The line of a run, which is known by its `own` settings; None if it was there already."""
    if any(line["settings"] == list(own) for line in read(results)):
        return None
    line = line_of(run(load_config(composed(common, own)))) | {"settings": list(own)}
    add(results, line)
    return line


def common_fields(result: Mapping[str, Any]) -> Line:
    """Of every line: seed, scores, what is zero, cost, and where it was computed."""
    return {
        "seed": result["seed"],
        "metric": result["metric"]["name"],
        "score": result["metric"]["value"],
        "metrics": result["metrics"],
        "components": result["sparsity"]["components"],
        "model_sparsity": result["sparsity"]["model"],
        "nonzero": result["weights"]["model_nonzero"],
        "bytes": result["bytes"]["compressed"],
        "epochs": result["training"]["epochs"],
        "seconds": result["seconds"],
        "digest": result["digest"],
        "device": result["environment"]["device"],
    }
