"""A comparison for the terminal, as JSON, CSV, Markdown or LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from prunebench.compare.columns import Column, columns, notes, record
from prunebench.compare.comparison import Comparison, Table, describe
from prunebench.compare.runs import flatten
from prunebench.errors import brief
from prunebench.views import rows_of

NOTHING = "There are no finished runs to compare here."


def to_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "tables": [_table_json(table) for table in comparison.tables],
        "notes": notes(comparison),
        "unfinished": [{"name": m.name, "status": m.status, "reason": m.reason} for m in comparison.unfinished],
    }


def _table_json(table: Table) -> dict[str, Any]:
    bench = table.bench
    return {
        "dataset": bench.dataset,
        "split": bench.split,
        "examples": bench.examples,
        "metric": bench.metric,
        "higher_is_better": bench.higher_is_better,
        "denominator": list(bench.components),
        "apart_by": table.apart,
        "baseline": table.baseline.name if table.baseline is not None else None,
        "test": table.test,
        "rows": [record(row, table) for row in table.rows],
    }


def to_csv(comparison: Comparison) -> str:
    """A line a row, with the table it belongs to; empty where there is no number."""
    lines = []
    for number, table in enumerate(comparison.tables, 1):
        bench = table.bench
        where = {"table": number, "dataset": bench.dataset, "split": bench.split, "metric": bench.metric,
                 "denominator": "+".join(bench.components)}  # fmt: skip
        lines += [where | _flat(record(row, table)) for row in table.rows]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    flat = flatten({key: value for key, value in values.items() if key != "settings"})
    flat |= {f"settings.{key}": value for key, value in values["settings"].items()}
    return {key: " ".join(map(str, value)) if isinstance(value, list) else value for key, value in flat.items()}


# --- for people ---------------------------------------------------------------------------------------------------


def to_terminal(comparison: Comparison, on: Console) -> RenderableType:
    """Tables with headings; one for which the terminal is too narrow is continued below."""
    parts: list[RenderableType] = [] if comparison.tables else [Text(NOTHING, style="dim")]
    for table in comparison.tables:
        parts += [Text(title(table), style="bold"), *_parts(table, on)]
    return Group(*parts, *[Text(line, style="dim") for line in notes(comparison)])


def _parts(table: Table, on: Console) -> list[RenderableType]:
    every = columns(table)
    who = [column for column in every if column.tells_who]
    blocks = [who]
    for column in every[len(who) :]:
        if blocks[-1] == who or _width(_grid(table, [*blocks[-1], column]), on) <= on.width:
            blocks[-1] = [*blocks[-1], column]
        else:
            blocks.append([*who, column])
    return [part for block in blocks for part in (_grid(table, block), Text())]


def _width(grid: RichTable, on: Console) -> int:
    """Of a grid that nothing limits."""
    return Measurement.get(on, on.options.update_width(10_000), grid).maximum


def _grid(table: Table, shown: Sequence[Column]) -> RichTable:
    cells = [[Text(brief(column.cell(row))) for column in shown] for row in table.rows]
    right = [index for index, column in enumerate(shown) if not column.tells_who]
    return rows_of([brief(column.title) for column in shown], cells, right)


def title(table: Table) -> str:
    """What the table's rows have in common, and why others are not in it."""
    apart = f" (apart: another {', another '.join(table.apart)})" if table.apart else ""
    return brief(describe(table.bench), 200) + apart


def to_markdown(comparison: Comparison) -> str:
    def table_text(table: Table) -> str:
        shown = columns(table)
        lines = [[column.title for column in shown]] + [[column.cell(row) for column in shown] for row in table.rows]
        head, *body = ["| " + " | ".join(map(_markdown, line)) + " |" for line in lines]
        rule = "|" + "|".join("---" if column.tells_who else "---:" for column in shown) + "|"
        return "\n".join([f"**{_markdown(title(table))}**", "", head, rule, *body])

    return _document(comparison, table_text, _markdown)


def _markdown(text: str) -> str:
    """Shown as it is; most renderers take HTML."""
    return re.sub(r"([\\`*|\[\]])", r"\\\1", brief(text, 400)).replace("<", "&lt;")


def to_latex(comparison: Comparison) -> str:
    r"""Tables for \usepackage{booktabs}."""

    def table_text(table: Table) -> str:
        shown = columns(table)
        lines = [[column.title for column in shown]] + [[column.cell(row) for column in shown] for row in table.rows]
        head, *body = ["    " + " & ".join(map(_latex, line)) + r" \\" for line in lines]
        align = "".join("l" if column.tells_who else "r" for column in shown)
        return "\n".join([
            r"\begin{table}", r"  \centering", rf"  \caption{{{_latex(title(table))}}}",
            rf"  \begin{{tabular}}{{{align}}}", r"    \toprule", head, r"    \midrule", *body, r"    \bottomrule",
            r"  \end{tabular}", r"\end{table}",
        ])  # fmt: skip

    return _document(comparison, table_text, lambda line: f"% {line}", first=r"% needs \usepackage{booktabs}")


LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "<": "$<$", ">": "$>$", "|": "$|$", "'": "'", **{letter: f"\\{letter}" for letter in "&%$#_"},
}  # fmt: skip


def _latex(text: str) -> str:
    escaped = "".join(LATEX.get(letter, letter) for letter in brief(text, 400))
    return re.sub(r"(?<![\w.])([+-])(?=\d)", r"$\1$", escaped)  # a hyphen is no minus


def _document(
    comparison: Comparison, table_text: Callable[[Table], str], note: Callable[[str], str], first: str = ""
) -> str:
    blocks = [table_text(table) for table in comparison.tables] or [note(NOTHING)]
    told = "\n".join(map(note, notes(comparison)))
    return "\n\n".join(part for part in (first, *blocks, told) if part) + "\n"
