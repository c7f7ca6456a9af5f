"""From the files of a run to what the page shows of it: compact JSON, rounded to what an eye can see."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from prunebench.compare import Group, Run, default_phase, default_settings

POINTS = 400  # of a learning curve
MOMENTS = 60  # prunings at which the sparsity of every matrix is shown
DIGITS = 5  # significant, of a number in a plot
EVENTS = ("eval", "final", "pruning")  # rows of metrics.jsonl that are no updates
AS_THEY_ARE = ("step", "lr", "sparsity")  # of several updates that become one point the last counts, not the mean
PHASES = "pruning.schedule.phases"
NO_VARIANT = ("sparsity", "seed", "name", "recipe", "outputs")
LEVEL = re.compile(r"_\d{1,2}$")

Row = Mapping[str, Any]


def to_json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), allow_nan=False, default=str).encode()


def rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


# --- a run in the table -------------------------------------------------------------------------------------------


def run_row(run: Run, name: str, digest: str, status: str) -> dict[str, Any]:
    """What the table and the plot of scores show of a run, finished or not; settings apart."""
    result, settings = run.result, run.settings
    metric, sparsity = result.get("metric") or {}, result.get("sparsity") or {}
    weights, training = result.get("weights") or {}, result.get("training") or {}
    return {
        "id": f"{name}/{digest}",
        "name": name,
        "digest": digest,
        "status": status,
        "reason": result.get("reason"),
        "method": method_of(name, settings.get("sparsity")),
        "seed": settings.get("seed", result.get("seed")),
        "dataset": settings.get("dataset.name"),
        "metric": metric.get("name"),
        "bucket": None,
        "higher": metric.get("higher_is_better", True),
        "score": metric.get("value"),
        "dense": (result.get("dense") or {}).get("value"),
        "recovery": result.get("recovery"),
        "target": settings.get("sparsity"),
        "prunable": sparsity.get("prunable"),
        "model": sparsity.get("model"),
        "components": " + ".join(sparsity.get("components") or []),
        "nonzero": weights.get("model_nonzero"),
        "bytes": (result.get("bytes") or {}).get("compressed"),
        "steps": training.get("steps"),
        "seconds": result.get("seconds") or None,
    }


def damaged_row(name: str) -> dict[str, Any]:
    """A run whose files have another form than they should."""
    folder, _, digest = name.partition("/")
    return run_row(Run({"config": {"seed": None}}), folder, digest, "damaged")


PLACE = ("group", "variant", "bucket", "detail")


def place(group: Group) -> dict[str, Any]:
    """What a run is shown together with.

    Returns:
        `group`: runs that differ in their seed only. `variant`: groups that differ in nothing but name and sparsity.
        `bucket`: scores that may be put side by side, and in `detail` what they are of.
    """
    bench = group.bench
    settings = complete(group.settings)
    return {
        "group": group.runs[0].digest,
        "variant": _hash({key: value for key, value in settings.items() if key not in NO_VARIANT}),
        "bucket": _hash([bench.content, bench.split, bench.metric]),
        "detail": f"{bench.split}, {bench.examples:,} examples" if bench.examples else bench.split,
    }


def _hash(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def method_of(name: str, sparsity: Any) -> str:
    """bert_smc_90 and bert_smc_95 are one method at two levels."""
    at_level = isinstance(sparsity, int | float) and name.endswith(f"_{round(100 * sparsity)}")
    return LEVEL.sub("", name) if at_level else name


def complete(settings: Row) -> dict[str, Any]:
    """Settings by dotted key as they would be written today.

    One that an older run does not have is at its default (which is how its digest stayed the same). The phases of a
    schedule go by number, and of each what is not at its default: {"phases": [{"units": 2}]} -> {"phases.0.units": 2}.
    """
    every, phase = default_settings(), default_phase()
    told = {
        f"{PHASES}.{number}.{key}": value
        for number, one in enumerate(settings.get(PHASES) or [])
        for key, value in one.items()
        if key not in phase or phase[key] != value
    }
    return {key: _plain(value) for key, value in {**every, **settings, **told}.items() if key != PHASES}


def _plain(value: Any) -> Any:
    """What JSON has no word for (.inf in YAML) as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


# --- learning curves ----------------------------------------------------------------------------------------------


def curves(rows: Iterable[Row], plan: Row) -> dict[str, Any]:
    """What happened over the steps of a run.

    Args:
        rows: of metrics.jsonl.
        plan: of plan.json.

    Returns:
        `updates` (columns by name, at most POINTS long), `evals` (the same), `prunings` (step, sparsity, churn),
        `rewinds` (steps at which the learning rate starts anew), `phases` (name, start, stop) and `steps` in all.
    """
    updates: list[Row] = []
    evals: list[dict[str, Any]] = []
    prunings: list[list[Any]] = []
    for row in rows:
        if "pruning" in row:
            prunings.append([row["step"], *(rounded(row["pruning"].get(key)) for key in ("sparsity", "churn"))])
        elif scores := row.get("eval") or row.get("final"):
            evals.append({"step": row["step"], **scores})
        else:
            updates.append(row)
    phases = plan.get("phases") or []
    return {
        "updates": thinned(columns(updates), POINTS),
        "evals": columns(evals),
        "prunings": prunings,
        "rewinds": sorted({phase["start"] for phase in phases if 0 < phase["start"] == phase["lr"]["start"]}),
        "phases": [[phase["name"], phase["start"], phase["stop"]] for phase in phases],
        "steps": max((phase["stop"] for phase in phases), default=None),
    }


def columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Rows as a list for each of their numbers, null where a row has none."""
    names = dict.fromkeys(name for row in rows for name, value in row.items() if _is_number(value))
    return {name: [rounded(row.get(name)) for row in rows] for name in names}


def thinned(table: Mapping[str, list[Any]], most: int) -> dict[str, list[Any]]:
    """At most `most` points: each stands for neighbouring ones, by their mean or their last value."""
    every = max(1, -(-max(map(len, table.values()), default=0) // most))
    return {
        name: [
            rounded((_last if name in AS_THEY_ARE else _mean)(values[start : start + every]))
            for start in range(0, len(values), every)
        ]
        for name, values in table.items()
    }


def _last(values: Sequence[Any]) -> Any:
    return values[-1]


def _mean(values: Sequence[Any]) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- sparsity by matrix -------------------------------------------------------------------------------------------


def matrices(rows: Iterable[Row], masks: Path) -> dict[str, Any]:
    """`names` of the prunable matrices, and at up to MOMENTS of the `steps` with a pruning the `sparsity` of each.

    A run that pruned nothing itself but kept zeros has its masks counted, at one moment without a step.
    """
    moments = [(row["step"], row["pruning"]["layers"]) for row in rows if "layers" in row.get("pruning", {})]
    if not moments and masks.is_file():
        moments = [(None, _zeros(masks))]
    if len(moments) > MOMENTS:
        moments = [moments[round(i * (len(moments) - 1) / (MOMENTS - 1))] for i in range(MOMENTS)]
    names = list(dict.fromkeys(name for _, layers in moments for name in layers))
    return {
        "names": names,
        "steps": [step for step, _ in moments],
        "sparsity": [[rounded(layers.get(name)) for name in names] for _, layers in moments],
    }


def _zeros(masks: Path) -> dict[str, float]:
    from safetensors.numpy import load_file

    return {name: 1 - float(mask.mean()) for name, mask in load_file(masks).items() if mask.size}


# --- predictions --------------------------------------------------------------------------------------------------


def predictions(lines: Sequence[Row]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Splits predictions.jsonl into what all runs on the same data share, with its key, and the run's own part.

    Returns:
        A key; the examples: `split`, `id`, `text` and `expected`; the run's `predicted`, and in `right` how well: 1 or
        0, the F1 of an answer, None for numbers and free text.
    """
    examples = {
        "split": [line.get("split") for line in lines],
        "id": [line.get("id") for line in lines],
        "text": [line.get("text") for line in lines],
        "expected": [_expected(line) for line in lines],
    }
    key = _hash([examples[name] for name in ("split", "id", "expected")])
    own = {
        "examples": key,
        "predicted": [rounded(_predicted(line)) for line in lines],
        "right": [rounded(_right(line)) for line in lines],
    }
    return key, examples, own


def _expected(line: Row) -> Any:
    return rounded(next((line[key] for key in ("label", "answers", "target") if key in line), None))


def _predicted(line: Row) -> Any:
    """Of a window of text the mean loss of its tokens."""
    return line["nll"] / line["tokens"] if "nll" in line else line.get("prediction")


def _right(line: Row) -> Any:
    if isinstance(line.get("correct"), bool):
        return int(line["correct"])
    return line.get("f1")
