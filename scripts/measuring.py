"""What the benchmarks share: ratios measured side by side, printed one a line and kept as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

Clock = Callable[[], float]  # seconds: time.perf_counter, or time.process_time (all threads of this process)


class Ratios:
    """Prints each ratio as it comes; `write` keeps them all."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, what: str, ratio: float, **details: float | str) -> None:
        """One line: `ratio`, what it is of, and in brackets what it comes from."""
        rounded = {key: round(value, 6) if isinstance(value, float) else value for key, value in details.items()}
        self.rows.append({"what": what, "ratio": round(ratio, 4), **rounded})
        shown = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in details.items()
        )
        print(f"{ratio:8.3f}  {what}" + (f"  ({shown})" if shown else ""), flush=True)

    def write(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        """Rows and the settings they were measured with, as JSON; nothing where `path` is None."""
        if path is not None:
            path.write_text(json.dumps({"settings": settings, "rows": self.rows}, indent=1, default=str) + "\n")


def interleaved(variants: Mapping[str, Callable[[], object]], rounds: int, clock: Clock) -> dict[str, list[float]]:
    """Seconds of each variant in each round, one after the other: what slows a round down slows all of them.

    Every second round goes backwards, so that nobody always runs behind the same neighbour.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds):
        for name in list(variants)[:: -1 if number % 2 else 1]:
            start = clock()
            variants[name]()
            seconds[name].append(clock() - start)
    return seconds


def ratio_of(above: Sequence[float], below: Sequence[float]) -> float:
    """The median over rounds of the ratio within a round."""
    return median(a / b for a, b in zip(above, below, strict=True))


def spread_of(above: Sequence[float], below: Sequence[float]) -> str:
    """The lowest and the highest ratio of a round."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return f"{min(ratios):.3f}..{max(ratios):.3f}"


def wall() -> float:
    return time.perf_counter()


def cpu() -> float:
    return time.process_time()
