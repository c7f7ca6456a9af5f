"""What the verbs print for people: listings, scores and findings, as rich renderables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from prunebench.report import score, size

if TYPE_CHECKING:
    from prunebench.clean import Waste
    from prunebench.doctor import Finding


def rows_of(headings: Sequence[str], rows: Iterable[Sequence[str | Text]], right: Sequence[int] = ()) -> Table:
    """A table without frames; `right`: columns of numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim", show_header=any(headings))
    for index, heading in enumerate(headings):
        number = index in right
        last = index == len(headings) - 1
        table.add_column(Text(heading), justify="right" if number else "left", no_wrap=not last, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def listing_view(rows: Sequence[Mapping[str, Any]], what: str | None, narrow: bool = False) -> RenderableType:
    """Options of a group; without `what` the groups; runs are told by their status, methods by what they need."""
    if not rows:
        return Text(f"There are no {what} here yet.", style="dim")
    if "status" in rows[0]:
        return runs_view(rows)
    if "needs" in rows[0]:
        return methods_view(rows, narrow)
    if what is None:
        cells = [[str(row["name"]), str(row["count"]), str(row["example"])] for row in rows]
        hint = Text(
            "\nprunebench ls recipes lists one of them; a choice goes on the command line as shown.", style="dim"
        )
        return Group(rows_of(["", "", "for example"], cells, right=(1,)), hint)
    return rows_of(["", ""], [[Text(row["name"], style="bold"), Text(row["description"])] for row in rows])


def methods_view(rows: Sequence[Mapping[str, Any]], narrow: bool) -> RenderableType:
    """A line each, or where that would be too long (`narrow`) a paragraph."""
    cells = [[row["name"], _what(row["description"]), row["needs"], row["cost"], _paper(row["source"])] for row in rows]
    if not narrow:
        return rows_of(["method", "what it is", "needs", "costs (unit: the dense training)", "source"], cells)
    pairs = [[Text(name, style="bold"), Text("\n".join([what, f"needs {needs}", f"costs {cost}", paper]))]
             for name, what, needs, cost, paper in cells]  # fmt: skip
    return rows_of(["", ""], pairs)


def _what(description: str) -> str:
    """Without the model and data that all recipes are written for."""
    return re.sub(r"^BERT-base on SQuAD( v1\.1)?,? ", "", description)


def _paper(source: str) -> str:
    """A source up to where it goes into details ("et al. 2021" does not yet)."""
    return re.split(r"[;:]\s|\.\s+(?=[A-Z])", source)[0].rstrip(".")


def runs_view(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Runs or results, a line each."""
    headings = ["run", "digest", "seed", "status", "sparsity", "score", "recovery"]
    return rows_of(headings, [_run_cells(row) for row in rows], right=(2, 4, 6))


def _run_cells(row: Mapping[str, Any]) -> list[str]:
    sparsity, metric, kept = row["sparsity"], row["metric"], row["recovery"]
    share = sparsity.get("prunable") if isinstance(sparsity, Mapping) else sparsity
    return [
        row["name"],
        row["digest"],
        "" if row["seed"] is None else str(row["seed"]),
        row["status"],
        "" if share is None else f"{100 * share:.2f} %",
        f"{metric['name']} {score(metric['value'])}" if metric else "",
        "" if kept is None else f"{100 * kept:.1f} %",
    ]


def evaluation_view(result: Mapping[str, Any]) -> RenderableType:
    """Scores, and the zeros counted from the files."""
    primary, sparsity = result["metric"]["name"], result["sparsity"]
    scores = sorted(result["metrics"].items(), key=lambda item: item[0] != primary)
    lines = [("model", str(result["model"]))] + [(name, score(value)) for name, value in scores]
    lines += [(f"zeros, {name}", f"{100 * share:.2f} %") for name, share in sparsity["components"].items()]
    lines.append(("zeros, whole model", f"{100 * sparsity['model']:.2f} %"))
    if "masked_weights_are_zero" in result:
        lines.append(("masks", "every weight that the masks prune is zero"))
    return rows_of(["", ""], [[Text(name, style="dim"), Text(value)] for name, value in lines])


def findings_view(findings: Sequence[Finding]) -> RenderableType:
    """A line each, warnings with what to do."""
    styles = {"ok": "green", "warn": "yellow"}
    cells = []
    for finding in findings:
        text = Text(finding.found)
        if finding.advice:
            text.append(f"\n{finding.advice}", style="italic")
        cells.append([Text(finding.status, style=styles[finding.status]), Text(finding.what), text])
    return rows_of(["", "", ""], cells)


def waste_view(waste: Sequence[Waste], removed: bool) -> RenderableType:
    if not waste:
        return Text("Nothing to clean.", style="dim")
    total = size(sum(item.bytes for item in waste))
    hint = f"\n{total} freed." if removed else f"\n{total} in all; prunebench clean --yes deletes them."
    cells = [[size(item.bytes), item.why, str(item.path)] for item in waste]
    return Group(rows_of(["size", "what", "path"], cells, right=(0,)), Text(hint, style="dim"))
