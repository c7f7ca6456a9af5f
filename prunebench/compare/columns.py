"""What a table shows of a row: the cells for people, and the numbers for programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from prunebench.compare.comparison import Comparison, Difference, Row, Table
from prunebench.compare.groups import Group, is_number, short_key
from prunebench.report import duration, size
from prunebench.sweep_record import MemberRecord


@dataclass(frozen=True)
class Column:
    title: str
    cell: Callable[[Row], str]
    tells_who: bool = False  # name and settings; the others are numbers


def columns(table: Table) -> list[Column]:
    """Those that have something to say, in order."""
    number = _number_format(table)
    base = _baseline_name(table)
    every = [
        *_who(table),
        Column("n", lambda row: str(row.score.n)),
        Column(table.bench.metric, lambda row: format(row.score, number)),
        Column("recovery", lambda row: _percent(row.recovery, 1)),
        Column("minus dense [95 %]", lambda row: _difference(row.to_dense, row, number)),
        Column("p: dense", lambda row: _p(row.to_dense)),
        Column(f"minus {base} [95 %]", lambda row: _to_baseline(row, table, number)),
        Column(f"p: {base}", lambda row: _p(row.to_baseline)),
        Column(f"zeros: {denominator(table)}", lambda row: _percent(row.group.value("sparsity.prunable"), 2)),
        Column("zeros: model", lambda row: _percent(row.group.value("sparsity.model"), 2)),
        Column("non-zero", lambda row: _count(row.group.value("weights.model_nonzero"))),
        Column("size", lambda row: _size(bytes_of(row.group))),
        Column("time", lambda row: _time(row.group.value("seconds"))),
    ]
    return [column for column in every if any(column.cell(row) for row in table.rows)]


def denominator(table: Table) -> str:
    """In a heading of a column; the table's own has all of a long one."""
    components = table.bench.components
    return " + ".join(components) if 0 < len(components) <= 2 else "pruned part"


def _who(table: Table) -> list[Column]:
    """Name and settings; where two rows have all of them in common, also a digest."""
    names = [group.name for group in (row.group for row in table.rows)]
    recipes = {(row.group.name, row.group.recipe) for row in table.rows}
    known = {key for row in table.rows for key in row.group.runs[0].settings}
    found = [Column("run", lambda row: row.group.name, tells_who=True)]
    if len(recipes) > len(set(names)):
        found.append(Column("recipe", lambda row: row.group.recipe, tells_who=True))
    found += [_setting_column(key, short_key(key, known)) for key in table.settings]
    if len({tuple(column.cell(row) for column in found) for row in table.rows}) < len(table.rows):
        found.append(Column("digest", lambda row: row.group.runs[0].digest, tells_who=True))
    return found


def _setting_column(key: str, title: str) -> Column:
    return Column(title, lambda row: setting(row.group.settings.get(key)), tells_who=True)


def setting(value: Any) -> str:
    """A setting's value in a cell. Phases are told by their names and lengths."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if is_number(value):
        return f"{value:g}"
    if isinstance(value, list):
        return " + ".join(_phase(item) if isinstance(item, dict) else setting(item) for item in value)
    return str(value)


def _phase(phase: dict[str, Any]) -> str:
    length = f"{phase['epochs']:g} ep" if is_number(phase.get("epochs")) else f"{phase.get('units', 1):g} u"
    return f"{phase.get('name', '?')} {length}"


# --- cells --------------------------------------------------------------------------------------------------------


def _number_format(table: Table) -> str:
    """Scores between -1 and 1 with four digits, percentages and the like with two."""
    return ".4f" if all(abs(run.score) <= 1 for row in table.rows for run in row.group.runs) else ".2f"


def _difference(difference: Difference | None, row: Row, number: str) -> str:
    """How many pairs there are is told where it is not n."""
    if difference is None:
        return ""
    found = difference.interval
    if found is None:
        return "no seed in common"
    bounds = " [cannot tell]" if found.low is None else ""
    pairs = f", {found.pairs} pair{'s' * (found.pairs != 1)}" if found.pairs != row.score.n else ""
    return f"{format(found, number)}{bounds}{pairs}"


def _to_baseline(row: Row, table: Table, number: str) -> str:
    return "(baseline)" if row.group is table.baseline else _difference(row.to_baseline, row, number)


def _baseline_name(table: Table) -> str:
    """Its row says which it is, where the name alone does not."""
    names = [row.group.name for row in table.rows]
    name = table.baseline.name if table.baseline is not None else ""
    return name if names.count(name) == 1 else "baseline"


def _p(difference: Difference | None) -> str:
    if difference is None or difference.adjusted is None:
        return ""
    return "<0.001" if difference.adjusted < 0.001 else f"{difference.adjusted:.3f}"


def _percent(share: Any, digits: int) -> str:
    return f"{100 * share:.{digits}f} %" if is_number(share) else ""


def _count(count: Any) -> str:
    if not is_number(count):
        return ""
    return f"{count / 1e6:.2f} M" if count >= 1e6 else f"{count:,.0f}"


def _size(count: Any) -> str:
    return size(count) if is_number(count) else ""


def _time(seconds: Any) -> str:
    return duration(seconds) if is_number(seconds) else ""


def bytes_of(group: Group) -> Any:
    """As stored: compressed, or for a dense model, which a bitmask makes no smaller, as it is."""
    return group.value("bytes.dense" if group.is_dense else "bytes.compressed")


# --- numbers ------------------------------------------------------------------------------------------------------


def record(row: Row, table: Table) -> dict[str, Any]:
    """A row as JSON has it. Scores as the metric gives them, sparsity as shares of zeros, sizes in bytes."""
    group = row.group
    return {
        "name": group.name,
        "recipe": group.recipe,
        "dense": group.is_dense,
        "settings": {key: group.settings.get(key) for key in table.settings},
        "seeds": list(group.seeds),
        "runs": [f"{run.name}/{run.digest}" for run in group.runs],
        "score": asdict(row.score),
        "recovery": row.recovery,
        "to_dense": _numbers(row.to_dense),
        "to_baseline": _numbers(row.to_baseline),
        "sparsity": {what: group.value(f"sparsity.{what}") for what in ("target", "prunable", "model")},
        "nonzero": group.value("weights.model_nonzero"),
        "bytes": bytes_of(group),
        "seconds": group.value("seconds"),
    }


def _numbers(difference: Difference | None) -> dict[str, Any] | None:
    if difference is None:
        return None
    interval = asdict(difference.interval) if difference.interval else dict.fromkeys(("mean", "low", "high", "pairs"))
    return interval | {"p": difference.p, "p_holm": difference.adjusted}


def notes(comparison: Comparison) -> list[str]:
    """What the numbers are, only of those that are shown; and what is not among them."""
    tables = comparison.tables
    rows = [row for table in tables for row in table.rows]
    found = [d for row in rows for d in (row.to_dense, row.to_baseline) if d is not None]
    tests = " or ".join(dict.fromkeys(table.test for table in tables if table.test))
    many = any(difference.adjusted != difference.p for difference in found)
    holm = ", after Holm's correction over the column" if many else ""
    lines = []
    if any(row.score.std is not None for row in rows):
        lines.append("±: standard deviation over n seeds.")
    if found:
        lines.append(
            "[95 %]: Student's t interval of the differences paired by seed; below three pairs it cannot tell."
        )
    if tests:
        lines.append(
            f"p: {tests} per example, the seeds together{holm}. It asks whether "
            "these models differ on other examples; the interval, whether the methods differ with other seeds."
        )
    lacking = [d for d in found if d.p is None and d.interval is not None]
    if lacking:
        some = "some rows" if tests else "all rows"
        lines.append(f"No p for {some}: it needs the predictions of both runs of each pair, and a metric known here.")
    return [*lines, *map(_unfinished, comparison.unfinished)]


def _unfinished(member: MemberRecord) -> str:
    return f"Not finished: {member.name} ({member.status}{f': {member.reason}' if member.reason else ''})"
