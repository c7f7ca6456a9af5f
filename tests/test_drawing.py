from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunebench.drawing import Axis, Canvas, draw, plot


def dots_of(lines: list[str]) -> set[tuple[int, int]]:
    """(column, row from the top) of every dot, read from the Unicode standard's numbering of braille patterns."""
    places = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)]  # dots 1 to 8 are bits 0 to 7
    found = set()
    for row, line in enumerate(lines):
        for column, character in enumerate(line):
            bits = 0 if character == " " else ord(character) - 0x2800
            found |= {(2 * column + x, 4 * row + y) for bit, (x, y) in enumerate(places) if bits >> bit & 1}
    return found


@given(x=st.integers(0, 9), y=st.integers(0, 11))
def test_a_dot_is_where_it_was_put(x: int, y: int) -> None:
    canvas = Canvas(width=5, height=3, braille=True)
    canvas.dot(x, y)
    assert dots_of(canvas.lines()) == {(x, 11 - y)}


def test_a_falling_line_falls() -> None:
    assert draw(lambda x: 1 - x, top=1, width=4, height=4, braille=False) == [
        "**  ",
        " ** ",
        "  **",
        "   *",
    ]


def test_a_jump_is_an_upright_stroke() -> None:
    assert draw(lambda x: float(x >= 0.5), top=1, width=4, height=3, braille=False) == [
        "  **",
        "  * ",
        "*** ",
    ]


@pytest.mark.parametrize("braille", [True, False])
def test_values_beyond_the_top_stay_inside(braille: bool) -> None:
    lines = draw(lambda x: 9 * x - 3, top=1, width=6, height=3, braille=braille)
    assert [len(line) for line in lines] == [6, 6, 6]


def test_a_curve_of_zeros_lies_on_the_ground() -> None:
    assert draw(lambda x: 0.0, top=0, width=3, height=2, braille=False) == ["   ", "***"]


@pytest.mark.parametrize("width", [30, 78, 118])
@pytest.mark.parametrize("unicode", [True, False])
def test_a_plot_is_as_wide_as_it_was_asked_to_be(width: int, unicode: bool) -> None:
    x, y = Axis("0", "10 epochs"), Axis("0", "5e-05")
    lines = plot("learning rate", lambda at: at, 1.0, x, y, width=width, unicode=unicode).plain.splitlines()
    assert max(map(len, lines)) == width - 1
    assert lines[1].startswith("5e-05 ") and lines[6].startswith("    0 ")
    assert lines[-1].endswith("10 epochs") and "learning rate" in lines[0]
    assert all(line.isascii() for line in lines) is not unicode
