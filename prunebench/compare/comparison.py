"""Groups of runs side by side: what is comparable in one table, every row against the dense model and a baseline."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prunebench.compare.examples import ExampleTests
from prunebench.compare.groups import Bench, Group, differing, find_key, group_runs, is_number
from prunebench.compare.runs import Run, is_called
from prunebench.compare.statistics import Interval, Mean, holm, mean_std, paired_interval
from prunebench.compare.where import is_filter, parse_where
from prunebench.errors import UsageError, brief, did_you_mean
from prunebench.sweep_record import MemberRecord

Pairs = Sequence[tuple[Run, Run]]


@dataclass(frozen=True)
class Difference:
    """Of a group's scores minus another's, paired by seed."""

    interval: Interval | None  # None: no seed in common
    p: float | None = None  # of the per-example test; None: predictions lack
    adjusted: float | None = None  # after Holm's correction over the column


@dataclass(frozen=True)
class Row:
    """One group. `recovery` is the mean over seeds."""

    group: Group
    score: Mean
    recovery: float | None
    to_dense: Difference | None = None  # None: this is a dense model, or there is none to compare with
    to_baseline: Difference | None = None  # None: no baseline is given, or this is it


@dataclass(frozen=True)
class Table:
    """What can be compared. `settings` are the dotted keys that tell the rows apart."""

    bench: Bench
    rows: list[Row]
    settings: list[str]
    baseline: Group | None
    test: str | None  # the per-example test's name; None: nothing could be tested
    apart: list[str]  # why it is not one with the other tables


@dataclass(frozen=True)
class Comparison:
    tables: list[Table]
    unfinished: list[MemberRecord] = field(default_factory=list)  # members of a sweep that are not among the rows


def compare(
    runs: Iterable[Run],
    *,
    baseline: str | None = None,
    sort: str | None = None,
    pool: Iterable[Run] = (),
    unfinished: Sequence[MemberRecord] = (),
) -> Comparison:
    """Tables of groups, the dense ones first, then the best score first.

    Args:
        baseline: a name, (the beginning of) a digest, name/digest or a filter, which means one group of every table.
        sort: a key as in --where; `-key` for descending.
        pool: runs among which the baseline is looked for if it is not among `runs`.
        unfinished: members of a sweep to be told of.

    Raises:
        UsageError: no such key or baseline, several, or one that is not comparable with the rest.
    """
    groups = group_runs(runs)
    order = _order(sort, groups)
    split = _tables(groups)
    chosen = _baselines(split, baseline, pool) if baseline is not None else [None] * len(split)
    tables = []
    for (bench, members), base in zip(split, chosen, strict=True):
        if base is not None and base not in members:
            members = [*members, base]
        apart = _apart(bench, [other for other, _ in split if other is not bench])
        tables.append(_table(bench, order(members), base, apart))
    return Comparison(tables, list(unfinished))


def _tables(groups: Sequence[Group]) -> list[tuple[Bench, list[Group]]]:
    """Dense groups have no denominator: they are part of every table of their metric and data."""
    benches = list(dict.fromkeys(group.bench for group in groups))
    pruned = [bench for bench in benches if bench.components]
    lone = [b for b in benches if not b.components and b not in [replace(other, components=()) for other in pruned]]
    return [
        (bench, [group for group in groups if group.bench in (bench, replace(bench, components=()))])
        for bench in [*pruned, *lone]
    ]


def _apart(bench: Bench, others: Sequence[Bench]) -> list[str]:
    """In what a table differs from some other."""
    kinds = {"content": "dataset content", "metric": "metric", "split": "split"}
    found = [what for key, what in kinds.items() if any(getattr(o, key) != getattr(bench, key) for o in others)]
    denominators = {other.components for other in (bench, *others)} - {()}
    return [*found, *(["denominator"] if bench.components and len(denominators) > 1 else [])]


# --- baseline -----------------------------------------------------------------------------------------------------


def _baselines(split: Sequence[tuple[Bench, list[Group]]], word: str, pool: Iterable[Run]) -> list[Group]:
    """The baseline of each table."""
    shown = [group for _, members in split for group in members]
    pool = list(pool)
    means = _matcher(word, [*(run for group in shown for run in group.runs), *pool])
    found = [[group for group in members if _is_meant(group, means)] for _, members in split]
    if not all(found):
        others = group_runs([*(run for group in shown for run in group.runs), *pool])
        meant = [group for group in others if _is_meant(group, means)]
        found = [own or [g for g in meant if _fits(g, bench)] for own, (bench, _) in zip(found, split, strict=True)]
        _refuse_missing(word, split, found, meant, others)
    for groups in found:
        if len(groups) > 1:
            names = ", ".join(f"{group.name} ({group.runs[0].digest})" for group in groups[:4])
            raise UsageError(
                f"--baseline {brief(word)}: {len(groups)} groups are meant by that: {names}; give a digest"
            )
    return [groups[0] for groups in found]


def _refuse_missing(
    word: str,
    split: Sequence[tuple[Bench, list[Group]]],
    found: Sequence[list[Group]],
    meant: Sequence[Group],
    others: Sequence[Group],
) -> None:
    if not meant:
        hint = did_you_mean(word, {group.name for group in others})
        raise UsageError(f"--baseline {brief(word)}: no finished run has this name or digest or fits this filter{hint}")
    for own, (bench, _) in zip(found, split, strict=True):
        if not own:
            why = ", ".join(f"another {what}" for what in _apart(bench, [meant[0].bench]))
            raise UsageError(
                f"--baseline {brief(word)} is not comparable with the runs scored by {describe(bench)} ({why}): "
                "leave those out (--where), or choose another"
            )


def _fits(group: Group, bench: Bench) -> bool:
    return group.bench in (bench, replace(bench, components=()))


def _is_meant(group: Group, means: Callable[[Run], bool]) -> bool:
    return any(map(means, group.runs))


def _matcher(word: str, runs: Sequence[Run]) -> Callable[[Run], bool]:
    if is_filter(word) and not any(run.name == word for run in runs):
        return parse_where(word, runs, "--baseline")
    return lambda run: is_called(run, word)


def describe(bench: Bench) -> str:
    """accuracy on sst2, validation (872 examples), sparsity of encoder"""
    count = f" ({bench.examples:,} examples)" if bench.examples else ""
    zeros = f", sparsity of {' + '.join(bench.components)}" if bench.components else ""
    return f"{bench.metric} on {bench.dataset}, {bench.split or 'validation'}{count}{zeros}"


# --- rows ---------------------------------------------------------------------------------------------------------


def _order(sort: str | None, groups: Sequence[Group]) -> Callable[[Sequence[Group]], list[Group]]:
    if sort is None:
        return lambda members: sorted(members, key=_rank)
    runs = [run for group in groups for run in group.runs]
    if not runs:
        return list
    settings = {key for run in runs for key in run.settings}
    try:
        key = find_key(sort.removeprefix("-"), settings, {key for run in runs for key in run.values})
    except UsageError as error:
        raise UsageError(f"--sort {error}") from None

    def ordered(members: Sequence[Group]) -> list[Group]:
        known = [group for group in members if group.value(key) is not None]
        ranked = sorted(known, key=lambda group: _sortable(group.value(key)), reverse=sort.startswith("-"))
        return [*ranked, *(group for group in members if group not in known)]

    return ordered


def _rank(group: Group) -> tuple[bool, float]:
    score = _score(group).mean
    return not group.is_dense, -score if group.bench.higher_is_better else score


def _sortable(value: Any) -> tuple[bool, float, str]:
    """Numbers before texts."""
    return (False, float(value), "") if is_number(value) else (True, 0.0, str(value))


def _table(bench: Bench, groups: Sequence[Group], baseline: Group | None, apart: list[str]) -> Table:
    dense = {group: _dense_pairs(group) for group in groups}
    versus = {group: _pairs(group, baseline) for group in groups if baseline is not None and group is not baseline}
    tests = ExampleTests(
        {run for pairs in (*dense.values(), *versus.values()) for pair in pairs for run in pair}, bench
    )
    to_dense = _differences({g: _to_dense(g) for g in groups if not g.is_dense}, dense, tests)
    to_baseline = _differences(
        {g: [one.score - other.score for one, other in pairs] for g, pairs in versus.items()}, versus, tests
    )
    rows = [
        Row(group, _score(group), _recovery(group), to_dense.get(group), to_baseline.get(group)) for group in groups
    ]
    tested = any(d and d.p is not None for row in rows for d in (row.to_dense, row.to_baseline))
    return Table(bench, rows, differing(groups), baseline, tests.name if tested else None, apart)


def _score(group: Group) -> Mean:
    return mean_std([run.score for run in group.runs])


def _recovery(group: Group) -> float | None:
    known = [run.result["recovery"] for run in group.runs if run.result.get("recovery") is not None]
    return statistics.fmean(known) if known and not group.is_dense else None


def _to_dense(group: Group) -> list[float]:
    return [run.score - run.dense for run in group.runs if run.dense is not None]


def _dense_pairs(group: Group) -> Pairs:
    """Runs with their dense runs; none unless all of them are there."""
    pairs = [(run, dense) for run in group.runs if not group.is_dense and (dense := run.dense_run()) is not None]
    return pairs if len(pairs) == len(group.runs) else []


def _pairs(group: Group, other: Group) -> Pairs:
    return [(run, other.seeds[seed]) for seed, run in group.seeds.items() if seed in other.seeds]


def _differences(
    differences: dict[Group, list[float]], pairs: dict[Group, Pairs], tests: ExampleTests
) -> dict[Group, Difference]:
    """Intervals and tests of a column, the p-values corrected over the column."""
    raw = {group: tests.p_value(pairs[group]) if pairs[group] else None for group in differences}
    known = {group: p for group, p in raw.items() if p is not None}
    adjusted = dict(zip(known, holm(list(known.values())), strict=True))
    return {
        group: Difference(paired_interval(values) if values else None, raw[group], adjusted.get(group))
        for group, values in differences.items()
    }
