"""Which choices are refused together, and why: docs/refusals.md, from what `prunebench.sparsity.axes` says.

`python scripts/method_cards.py --refusals` writes it. Every reason is asked for which other choices it would vanish
with; the axes that can make it vanish are what it is about.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prunebench.options import component_names
from prunebench.sparsity.axes import AXES, BLOCK_FISHER, AxisChoice, check_axes
from prunebench.validate import COMPONENTS

Assignment = Mapping[str, Any]  # axis -> choice
CHOICES: dict[str, tuple[Any, ...]] = {
    **{axis: component_names(f"pruning/{axis}") for axis in AXES},
    "schedule": ("gradual", "one_shot", "one_shot_only", "perp"),
    "components": (*COMPONENTS, "all"),
    "floor": (0.0, 0.05),
    "sparsity": (0.5, 0.9),
}
DEFAULTS: dict[str, Any] = {"schedule": "gradual", "components": "encoder", "floor": 0.0, "sparsity": 0.5} | {
    axis: getattr(AxisChoice(), axis) for axis in AXES
}
SCHEDULES: dict[str, dict[str, Any]] = {
    "gradual": {},
    "one_shot": {"trains_before": False},
    "one_shot_only": {"trained": (), "trains_before": False},
    "perp": {"trained": ("perp",), "trains_before": False},
}
GROUPS: dict[str, dict[str, int]] = {"n_m": {"n": 2, "m": 4}, "block": {"m": 4}}
INTRODUCTION = """# What is refused together

Written by `python scripts/method_cards.py --refusals` from `prunebench/sparsity/axes.py`. Everything else goes
together: any criterion with any scope, pattern, refinement, update, regrowth and dynamics, and all of them with every
schedule. `prunebench plan` and `prunebench run` refuse what stands here before anything is computed, and the reason is
their line.

A line of a table is refused where all of its columns are met. Names are those of `pruning.criterion.name` and so on;
`n_m` stands for 2:4 here, `block` for blocks of four inputs, and in a reason *scope* (say) for the scope at hand. Of
schedules, `one_shot` stands for those that prune before they train (`before_training`, `from_scratch`) as well.
Criteria of other packages count as such that score and look at nothing.
"""


@dataclass(frozen=True)
class Refusal:
    """Refused with `reason` where every axis has one of these choices."""

    choices: dict[str, tuple[Any, ...]]
    reason: str

    def meets(self, assignment: Assignment) -> bool:
        return all(assignment[axis] in values for axis, values in self.choices.items())


def choice_of(assignment: Assignment) -> AxisChoice:
    criterion, more = assignment["criterion"], GROUPS.get(assignment["pattern"], {})
    told = {axis: choice for axis, choice in assignment.items() if axis != "schedule"}
    told |= {"components": (assignment["components"],), "fisher_block": BLOCK_FISHER.get(criterion, 1)}
    return AxisChoice(**{**told, **SCHEDULES[assignment["schedule"]], **more})


def reasons(assignment: Assignment) -> list[str]:
    return check_axes(choice_of(assignment))


def assignments(size: int) -> Iterable[Assignment]:
    """Every choice on every `size` axes, the others standing at their defaults."""
    for axes in itertools.combinations(CHOICES, size):
        for values in itertools.product(*(CHOICES[axis] for axis in axes)):
            yield DEFAULTS | dict(zip(axes, values, strict=True))


def refusals() -> list[Refusal]:
    """One for each reason there is, with the names as they stand in it."""
    examples: dict[str, Assignment] = {}
    for assignment in assignments(3):
        for reason in reasons(assignment):
            examples.setdefault(reason, assignment)
    return [Refusal(_about(reason, example), reason) for reason, example in examples.items()]


def _about(reason: str, example: Assignment) -> dict[str, tuple[Any, ...]]:
    """The axes that can make the reason vanish, with the choices that do not."""
    found = {}
    for axis, values in CHOICES.items():
        staying = tuple(value for value in values if reason in reasons({**example, axis: value}))
        if staying != values:
            found[axis] = staying
    return found


def grouped(refused: list[Refusal]) -> list[Refusal]:
    """Those that differ in one name only become one, with the axis in place of the name."""
    for axis in CHOICES:
        groups: dict[tuple[Any, ...], list[Refusal]] = {}
        for refusal in refused:
            others = tuple((other, values) for other, values in refusal.choices.items() if other != axis)
            groups.setdefault((_general(refusal, axis), axis in refusal.choices, others), []).append(refusal)
        refused = [_merged(axis, key[0], group) for key, group in groups.items()]
    return refused


def _general(refusal: Refusal, axis: str) -> str:
    values = refusal.choices.get(axis, ())
    if len(values) != 1:
        return refusal.reason
    return re.sub(rf"(?<![\w/=]){re.escape(str(values[0]))}(?!\w)", f"*{axis}*", refusal.reason)


def _merged(axis: str, reason: str, group: list[Refusal]) -> Refusal:
    if len(group) == 1:
        return group[0]
    together = {value for refusal in group for value in refusal.choices[axis]}
    values = tuple(value for value in CHOICES[axis] if value in together)
    return Refusal({**group[0].choices, axis: values}, reason)


def page() -> str:
    """docs/refusals.md: a table for every set of axes that reasons are about."""
    tables: dict[tuple[str, ...], list[Refusal]] = {}
    for refusal in grouped(refusals()):
        axes = tuple(axis for axis in CHOICES if axis in refusal.choices)
        tables.setdefault(axes, []).append(refusal)
    text = INTRODUCTION
    for axes in sorted(tables, key=lambda axes: [list(CHOICES).index(axis) for axis in axes]):
        text += f"\n## {', '.join(axes[:-1])} and {axes[-1]}\n\n"
        text += f"| {' | '.join(axes)} | why |\n{'|---' * (len(axes) + 1)}|\n"
        text += "".join(f"| {' | '.join(_cells(refusal, axes))} |\n" for refusal in tables[axes])
    return text


def _cells(refusal: Refusal, axes: Iterable[str]) -> list[str]:
    return [", ".join(f"`{value}`" for value in refusal.choices[axis]) for axis in axes] + [refusal.reason]
