"""How tables, grids and outcomes are printed: ours and the published apart at a glance, what is small in every line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunebench.plan_view import number
from prunebench.reproduce.cost import MODEL, Cost, run_hours
from prunebench.reproduce.grid import Grid, Planned
from prunebench.reproduce.levels import Shares
from prunebench.reproduce.outcome import Line, Outcome, lines
from prunebench.reproduce.published import Published, Score

VERIFIED = {
    "READ": "read in the source",
    "COMPUTED": "computed from what was read in the source",
    "DIGITISED": "digitised, that is measured off a plot (~, to as many points as stand in brackets)",
    "NONE": "none verified",
}
NOT_COMPARABLE = {
    "small": "no differences: a random model of two layers on few examples says nothing about the published scores",
    "changed": "no differences: {} is not what was published",
}
SMALL = "[small] "  # begins every line of a small grid
Rows = list[list[str]]


# --- the tables that there are ------------------------------------------------------------------------------------

SHORTLY = {"READ": "read", "COMPUTED": "computed", "DIGITISED": "digitised", "NONE": "none verified"}
LISTED = ["table", "paper", "table or figure", "published numbers", "runs, 3 seeds", "GPU hours"]


def listed(tables: Sequence[Published]) -> Rows:
    return [
        [
            table.name,
            table.paper,
            table.where,
            SHORTLY[table.verified],
            str(3 * len(table.cells)),
            _listed_hours(table),
        ]
        for table in tables
    ]


def _listed_hours(table: Published) -> str:
    return "see --plan" if table.gpu_hours is None else f"{table.gpu_hours:g} ({_listed_how(table)})"


def _listed_how(table: Published) -> str:
    stated = set(table.hours_per_epoch)
    if not stated:
        return "estimated"
    return "stated" if stated >= set(table.data) else f"stated for {', '.join(sorted(stated))}, else estimated"


def table_json(table: Published) -> dict[str, Any]:
    return {
        "name": table.name, "description": table.description, "paper": table.paper, "url": table.url,
        "where": table.where, "verified": table.verified, "cells": len(table.cells), "runs": 3 * len(table.cells),
        "gpu_hours": table.gpu_hours, "gpu_hours_are": _listed_how(table), "file": str(table.file),
    }  # fmt: skip


def header(grid: Grid) -> list[str]:
    """What the table is, and where its published numbers are from."""
    table = grid.table
    result = [f"{table.name}: {table.description}", f"{table.paper}: {table.where} ({table.url})"]
    result.append(
        f"published numbers: {VERIFIED[table.verified]}" + (f", means of {table.seeds} seeds" if table.seeds else "")
    )
    if grid.small:
        result.append(
            "small scale: random models of two layers, two levels, one seed; every way on the first data, one on others"
        )
    return result


# --- the grid -----------------------------------------------------------------------------------------------------

GRID = ["data", "way", "sparsity", "epochs", "GPU hours a run", "published"]


def planned_rows(grid: Grid) -> Rows:
    return [_planned_row(planned, grid) for planned in grid.cells]


def _planned_row(planned: Planned, grid: Grid) -> list[str]:
    cell = planned.cell
    scores = ", ".join(f"{name} {_published(score)}" for name, score in cell.scores.items() if score)
    if planned.refused:
        return [_data(planned), cell.row, sparsity(planned), "refused", "", planned.refused]
    hours = run_hours(planned.config, _stated(planned, grid)).hours
    shown = "unknown" if hours is None else f"{hours:.2g}" if hours < 10 else f"{hours:.0f}"
    return [_data(planned), cell.row, sparsity(planned), _epochs(planned), shown, scores or "none"]


def _stated(planned: Planned, grid: Grid) -> float | None:
    return None if grid.small or grid.changed else grid.table.hours_per_epoch.get(planned.cell.data)


def _epochs(planned: Planned) -> str:
    from prunebench.preview import preview

    return number(preview(planned.config, {}).plan.epochs)


def cost_lines(grid: Grid, cost: Cost) -> list[str]:
    """What the whole costs."""
    refused = len(grid.cells) - len(grid.runnable)
    own = len(grid.runnable) * len(grid.seeds)
    first = ", sparse models" if any(planned.first for planned in grid.runnable) else ""
    before = f" and {cost.runs - own} before them (dense models{first}), each once" if cost.runs > own else ""
    cells = f"{own} runs ({len(grid.runnable)} cells, {_seeds(len(grid.seeds))}){before}"
    result = [cells + (f"; {refused} cells are refused" if refused else "")]
    if grid.small:
        return [*result, "some minutes on a CPU"]
    result.append(f"about {cost.hours:,.0f} GPU hours: {cost.how}")
    if cost.unknown:
        result.append(f"without {cost.unknown} runs, of whose model or data the sizes are not known")
    if cost.stated < cost.hours:
        result.append(f"estimated: {MODEL}")
    return result


def plan_json(grid: Grid, cost: Cost) -> dict[str, Any]:
    cells = [
        {"cell": p.cell.name, "words": list(p.words), "first": {k: list(v) for k, v in (p.first or {}).items()},
         "sparsity": _shares_json(p.shares), "refused": p.refused,
         "gpu_hours": None if p.refused else run_hours(p.config, _stated(p, grid)).hours}
        for p in grid.cells
    ]  # fmt: skip
    return {"table": grid.table.name, "scale": scale(grid), "seeds": list(grid.seeds), "runs": cost.runs,
            "gpu_hours": cost.hours, "gpu_hours_are": cost.how, "cells": cells}  # fmt: skip


# --- ours beside the published ------------------------------------------------------------------------------------

COMPARED = ["data", "way", "sparsity", "metric", "ours: mean ± std (n)", "ours: 95 % interval", "published",
            "ours - published", ""]  # fmt: skip


def compared_rows(found: Sequence[Outcome], grid: Grid) -> Rows:
    return [_compared_row(line, outcome, grid) for outcome in found for line in lines(outcome, grid)]


def _compared_row(line: Line, outcome: Outcome, grid: Grid) -> list[str]:
    cell = line.planned.cell
    start = [_data(line.planned), cell.row, sparsity(line.planned), line.metric]
    published = _published(line.published)
    if line.planned.refused:
        return [*start, "refused", "", published, "", line.planned.refused]
    return [
        *start,
        _ours(line, outcome),
        _interval(line),
        published,
        _difference(line, grid),
        _mark(line, outcome, grid),
    ]


def _ours(line: Line, outcome: Outcome) -> str:
    ours = line.ours
    if ours.mean is None:
        return "not measured" if outcome.results else "none yet"
    spread = "" if ours.std is None else f" ± {ours.std:.2f}"
    return f"{ours.mean:.2f}{spread} ({len(ours.values)})"


def _interval(line: Line) -> str:
    if not line.ours.values:
        return ""
    interval = line.ours.interval
    return f"none: {_seeds(len(line.ours.values))}" if interval is None else f"[{interval[0]:.2f}, {interval[1]:.2f}]"


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count != 1)}"


def _published(score: Score | None) -> str:
    if score is None:
        return "none"
    about = "~" if score.error else ""
    spread = f" ± {score.std:g}" if score.std is not None else ""
    misread = f" (to {score.error:g})" if score.error else ""
    return f"{about}{score.value:g}{spread}{misread}"


def _difference(line: Line, grid: Grid) -> str:
    if line.difference is not None:
        return f"{line.difference:+.2f}"
    return "not comparable" if line.published and line.ours.values and not line.comparable else ""


def _mark(line: Line, outcome: Outcome, grid: Grid) -> str:
    missing = len(grid.seeds) - len(outcome.results)
    marks = {True: ["OUTSIDE our interval"], False: ["inside"], None: []}[line.outside]
    if outcome.reasons:
        marks += [f"failed: {reason}" for reason in outcome.reasons]
    elif missing and outcome.results:
        marks.append(f"{_seeds(missing)} to run")
    return "; ".join(marks)


def why_not_comparable(grid: Grid) -> list[str]:
    reasons = [NOT_COMPARABLE["small"]] if grid.small else []
    reasons += [NOT_COMPARABLE["changed"].format(", ".join(grid.changed))] if grid.changed else []
    return reasons + ([f"no differences: {grid.table.not_comparable}"] if grid.table.not_comparable else [])


def compared_json(found: Sequence[Outcome], grid: Grid) -> dict[str, Any]:
    cells = [_line_json(line, outcome) for outcome in found for line in lines(outcome, grid)]
    table = grid.table
    return {"table": table.name, "scale": scale(grid), "paper": table.paper, "url": table.url, "where": table.where,
            "verified": table.verified, "changed": list(grid.changed), "cells": cells}  # fmt: skip


def _line_json(line: Line, outcome: Outcome) -> dict[str, Any]:
    cell, score, ours = line.planned.cell, line.published, line.ours
    achieved = next((result["sparsity"] for result in outcome.results.values()), None)
    return {
        "data": cell.data, "row": cell.row, "level": cell.level, "of": cell.of,
        "sparsity": _shares_json(line.planned.shares), "achieved": achieved, "metric": line.metric,
        "scale": line.planned.scale or "full",
        "ours": {"values": list(ours.values), "seeds": list(outcome.results), "mean": ours.mean, "std": ours.std,
                 "interval": ours.interval},
        "published": vars(score) if score else None,
        "difference": line.difference, "outside_interval": line.outside,
        "refused": line.planned.refused, "failed": list(outcome.reasons),
    }  # fmt: skip


# --- shared -------------------------------------------------------------------------------------------------------


def scale(grid: Grid) -> str:
    return "small" if grid.small else "full"


def _data(planned: Planned) -> str:
    return f"{planned.cell.data} ({planned.scale})" if planned.scale else planned.cell.data


def sparsity(planned: Planned) -> str:
    """The level with its denominator, and as a share of the other one."""
    cell, shown = planned.cell, planned.shares
    if not cell.level:
        return "dense"
    names = {"encoder": ("encoder", "all matrices", shown.all), "all": ("all matrices", "encoder", shown.encoder)}
    own, other, share = names[cell.of]
    as_other = "" if share is None else f" = {_share(share)} of {other}" if share <= 1 else f" = more than the {other}"
    return f"{_share(cell.level)} of {own}{as_other}"


def _share(share: float) -> str:
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def _shares_json(shown: Shares) -> dict[str, float | None]:
    return {"encoder": shown.encoder, "all_matrices": shown.all, "model": shown.model}


def aligned(headings: Sequence[str], rows: Rows) -> list[str]:
    """Columns as wide as their longest cell. A line stays a line, in a pipe and in a terminal."""
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (headings, *rows))
    return ["   ".join(cells).rstrip() for cells in padded]


def markdown(headings: Sequence[str], rows: Rows) -> list[str]:
    cells = [headings, ["---"] * len(headings), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
