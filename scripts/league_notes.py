"""What the league table (docs/league.json) says about a method: its place in each part, what it is good and bad at."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from league_table import RESULTS, VARIANTS

PARTS = {
    "one_shot": "in one shot",
    "tuned": "with one epoch of training afterwards",
    "trained": "as a whole training at quickstart scale",
}
BASELINES = ("one_shot_only", "magnitude_2_4", "gradual")  # magnitude, in each part and at each sparsity
SAME = {"quickstart": "bert_smc_90"}  # the same method at another scale
WORDS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
POINTS, TIMES = 2.0, 2.0  # differences from magnitude that are worth a word


@dataclass(frozen=True)
class Place:
    """Where a line of the league table stands among those of the same part and sparsity; means over seeds."""

    method: str
    part: str
    sparsity: float
    rank: int
    count: int
    score: float  # per cent, like `dense`
    dense: float
    seconds: float
    peak_mb: float
    baseline: Place | None = None

    @property
    def compared(self) -> bool:
        return self.baseline is not None and self.baseline.method != self.method

    @property
    def rival(self) -> str:
        return "gradual" if self.part == "trained" else "magnitude"

    @property
    def points(self) -> float:
        """Above the baseline."""
        return self.score - self.baseline.score if self.baseline else 0.0

    def sentence(self) -> str:
        compared = [f"{_apart(self.score - self.dense)} dense"]
        if self.compared:
            compared.insert(0, f"{_apart(self.points)} {self.rival}")
        label = f"`{self.method}` {PARTS[self.part]} at {100 * self.sparsity:.0f} %"
        place = f"{_ordinal(self.rank)} of {self.count}" if self.count > 1 else "the only one"
        cost = f"{_duration(self.seconds)}, {self.peak_mb / 1000:.1f} GB"
        return f"- {label}: {place}, {self.score:.1f}, {' and '.join(compared)}; {cost}."

    def cell(self) -> str:
        return f"{self.rank} of {self.count}" if self.count > 1 else "the only one"

    def virtues(self, good: bool) -> Iterable[str]:
        """What it is much better (or worse) at than its baseline."""
        if self.baseline is None or not self.compared:
            return
        sign, where = 1 if good else -1, f"{PARTS[self.part]} at {100 * self.sparsity:.0f} %"
        if sign * self.points >= POINTS:
            yield f"accuracy {where} ({self.points:+.1f} points)"
        for what, own, other in (
            ("time", self.seconds, self.baseline.seconds),
            ("memory", self.peak_mb, self.baseline.peak_mb),
        ):
            if (other / own if good else own / other) >= TIMES:
                yield f"{what} {where} ({_times(own / other)} times {self.rival}'s)"


class Standings:
    """All places. `lines` are those of docs/league.json."""

    explanation = (
        "Places are those of our league table among methods at the same sparsity,\nbest first. Cards call good or bad "
        f"what differs from magnitude (whole trainings: from\n`gradual`) by {POINTS:g} points, or {TIMES:g} times in "
        "time or memory."
    )
    headings = ("one shot", "one epoch after", "whole training")

    def __init__(self, lines: Iterable[Mapping[str, Any]]) -> None:
        self.places = list(_places(lines))

    @classmethod
    def read(cls, path: Path = RESULTS) -> Self:
        """Without the file there are no places."""
        return cls(json.loads(path.read_text()) if path.is_file() else [])

    def of(self, recipe: str) -> list[Place]:
        """The places of a recipe and of what the league table makes of it by an override."""
        own = [place for place in self.places if _recipe(place.method) == recipe]
        return sorted(own, key=lambda place: ([*PARTS].index(place.part), place.method))

    def ranks(self, recipe: str) -> list[str]:
        """A cell for each part."""
        own = {place.part: place for place in self.of(recipe) if place.method in (recipe, *SAME)}
        return [own[part].cell() if part in own else "" for part in PARTS]

    def notes(self, recipe: str) -> str:
        """The section of a card."""
        places = self.of(recipe)
        if not places:
            return "It has no line there, so nothing is said about what it is good and bad at."
        lines = [place.sentence() for place in places]
        if not any(place.compared for place in places):
            own = any(place.baseline for place in places)
            lines.append("- The others are compared with it." if own else "- No magnitude pruning to compare it with.")
            return "\n".join(lines)
        for word, good in (("Good at", True), ("Bad at", False)):
            found = [virtue for place in places for virtue in place.virtues(good)]
            lines.append(f"- **{word}**: {', '.join(found) or 'nothing that stands out'}.")
        return "\n".join(lines)


def _recipe(method: str) -> str:
    return SAME.get(method, VARIANTS.get(method, (method, []))[0])


def _places(lines: Iterable[Mapping[str, Any]]) -> Iterable[Place]:
    groups: dict[tuple[str, float], dict[str, list[Mapping[str, Any]]]] = {}
    for line in lines:
        group = groups.setdefault((line["part"], round(line["sparsity"], 2)), {})
        group.setdefault(line["method"], []).append(line)
    for part in PARTS:
        for (of, sparsity), methods in sorted(groups.items()):
            if of == part:
                yield from _ranked(part, sparsity, methods)


def _ranked(part: str, sparsity: float, methods: Mapping[str, list[Mapping[str, Any]]]) -> Iterable[Place]:
    means = {
        name: {key: statistics.fmean(line[key] for line in lines) for key in ("score", "dense", "peak_mb")}
        | {"seconds": min(line["seconds"] for line in lines)}
        for name, lines in methods.items()
    }
    order = sorted(means, key=lambda name: (-means[name]["score"], name))
    found = {}
    for rank, name in enumerate(order, 1):
        mean = means[name]
        found[name] = Place(
            name, part, sparsity, rank, len(order), 100 * mean["score"], 100 * mean["dense"], mean["seconds"],
            mean["peak_mb"],
        )  # fmt: skip
    baseline = next((found[name] for name in BASELINES if name in found), None)
    return [Place(**{**vars(place), "baseline": baseline}) for place in found.values()]


def _apart(points: float) -> str:
    return f"{abs(points):.1f} points {'above' if points >= 0 else 'below'}"


def _ordinal(rank: int) -> str:
    return WORDS[rank - 1] if rank <= len(WORDS) else f"number {rank}"


def _times(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
