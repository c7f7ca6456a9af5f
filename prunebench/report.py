"""How a finished run is shown in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

SPARSE = 0.01  # a smaller share of zeros comes about by itself
NO_SPEEDUP = "Unstructured zeros alone do not make a dense PyTorch model faster; they save space once compressed."


def panel(result: Mapping[str, Any], folder: str) -> Panel:
    """The panel at the end of a run.

    Args:
        result: what result.json holds.
        folder: the run's folder.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for label, value in rows(result, folder):
        table.add_row(label, value)
    parts: list[RenderableType] = [table]
    if result["sparsity"]["target"] > 0 or result["sparsity"]["prunable"] >= SPARSE:
        parts += [Text(), Text(NO_SPEEDUP, style="italic")]
    parts += [Text(f"warning: {warning}", style="yellow") for warning in result["warnings"]]
    title = f"{result['name']}  seed {result['seed']}  {result['digest']}"
    return Panel(Group(*parts), title=title, title_align="left", expand=False, padding=(1, 2))


def rows(result: Mapping[str, Any], folder: str) -> list[tuple[str, str]]:
    """Label and value of every line of the panel."""
    metric, sparsity, weights = result["metric"], result["sparsity"], result["weights"]
    lines = [("dense " + metric["name"], score(result["dense"]["value"]))]
    sparse = ("sparse " + metric["name"], f"{score(metric['value'])}  ({metric['weights']} weights)")
    if sparsity["target"] > 0:
        kept = result["recovery"]
        of = "of dense" if metric.get("higher_is_better", True) else "(dense / sparse, since lower is better)"
        lines += [sparse, ("recovery", "not defined" if kept is None else f"{100 * kept:.1f} % {of}")]
    elif sparsity["prunable"] >= SPARSE:  # it came with zeros and kept them: there is no dense run beside it
        lines = [sparse]
    if sparse in lines:
        lines += [
            ("sparsity", f"{100 * sparsity['prunable']:.2f} % of {' + '.join(sparsity['components'])}"),
            ("", f"{100 * sparsity['model']:.2f} % of the whole model"),
        ]
    lines += members(result)
    sizes = result["bytes"]
    lines += [
        ("other scores", "  ".join(f"{name} {score(value)}" for name, value in others(result)) or "none"),
        ("non-zero weights", f"{weights['model_nonzero']:,} of {weights['model']:,}"),
        ("size", f"{size(sizes['dense'])} dense, {size(sizes['compressed'])} compressed as {sizes['format']}"),
        ("time", duration(result["seconds"])),
        ("model", f"{folder}/{result['model']}"),
    ]
    if result["wandb"]:
        lines.append(("wandb", result["wandb"]))
    return [(label, value) for label, value in lines if (label, value) != ("other scores", "none")]


def members(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The scores of a soup's members, to compare it with."""
    training = result["training"]
    found = [
        f"{score(value)}  {name}{'' if name in training['used'] else '  (left out)'}"
        for name, value in training.get("members", {}).items()
    ]
    return [("" if index else "members", line) for index, line in enumerate(found)]


def others(result: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [(name, value) for name, value in result["metrics"].items() if name != result["metric"]["name"]]


def score(value: float) -> str:
    """Scores between 0 and 1 with four digits, percentages with two."""
    return f"{value:.4f}" if abs(value) <= 1 else f"{value:.2f}"


def size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
