"""Curves in a terminal: braille dots where it can show them, plain characters where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.text import Text

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # braille bits by row and column of a cell


@dataclass(frozen=True)
class Axis:
    """Labels at the two ends."""

    low: str
    high: str


class Canvas:
    """Dots on `width` by `height` characters; the origin is at the bottom left."""

    def __init__(self, width: int, height: int, braille: bool) -> None:
        self.columns, self.rows = (2, 4) if braille else (1, 1)
        self.width, self.height, self._braille = width, height, braille
        self._cells = [[0] * width for _ in range(height)]

    @property
    def across(self) -> int:
        return self.width * self.columns

    @property
    def up(self) -> int:
        return self.height * self.rows

    def dot(self, x: int, y: int) -> None:
        row, inner_row = divmod(self.up - 1 - y, self.rows)
        column, inner_column = divmod(x, self.columns)
        self._cells[row][column] |= DOTS[inner_row][inner_column]

    def lines(self) -> list[str]:
        if self._braille:
            return ["".join(chr(0x2800 + cell) if cell else " " for cell in row) for row in self._cells]
        return ["".join("*" if cell else " " for cell in row) for row in self._cells]


def draw(curve: Callable[[float], float], top: float, width: int, height: int, braille: bool) -> list[str]:
    """`curve` of x in [0, 1), with values in [0, top], as lines of text; jumps are joined by upright strokes."""
    canvas = Canvas(width, height, braille)
    previous: int | None = None
    for x in range(canvas.across):
        value = curve((x + 0.5) / canvas.across)
        y = min(canvas.up - 1, max(0, round(value / top * (canvas.up - 1)))) if top > 0 else 0
        low, high = sorted((y, y if previous is None else previous))
        for dot in range(low, high + 1):
            canvas.dot(x, dot)
        previous = y
    return canvas.lines()


def plot(
    title: str,
    curve: Callable[[float], float],
    top: float,
    x: Axis,
    y: Axis,
    *,
    width: int,
    height: int = 6,
    unicode: bool = True,
    style: str = "cyan",
) -> Text:
    """A titled plot with axes, `width` characters wide."""
    margin = max(len(y.low), len(y.high)) + 1
    inner = width - margin - 2
    upright, corner, level = ("│", "└", "─") if unicode else ("|", "+", "-")
    text = Text(no_wrap=True)
    text.append(" " * (margin + 1) + title + "\n", style="bold")
    for row, line in enumerate(draw(curve, top, inner, height, unicode)):
        label = y.high if row == 0 else y.low if row == height - 1 else ""
        text.append(f"{label:>{margin - 1}} {upright}", style="dim")
        text.append(f"{line}\n", style=style)
    text.append(" " * margin + corner + level * inner + "\n", style="dim")
    text.append(" " * (margin + 1) + x.low + x.high.rjust(inner - len(x.low)), style="dim")
    return text
