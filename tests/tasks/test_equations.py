"""The value of an equation, against Python's own arithmetic on fractions."""

from __future__ import annotations

import ast
import operator
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunebench.tasks.equations import value_of

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
NUMBERS = st.one_of(st.integers(0, 99).map(str), st.decimals(0, 99, places=2).map(str))
EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda part: st.one_of(
        st.tuples(part, st.sampled_from([" + ", "-", " * ", "/"]), part).map("".join),
        part.map("( {} )".format),
        part.map("-{}".format),
    ),
    max_leaves=12,
)


def literally(node: ast.AST, text: str) -> Fraction:
    """Python's syntax tree of the expression, computed on fractions."""
    if isinstance(node, ast.BinOp):
        sides = literally(node.left, text), literally(node.right, text)
        return OPERATORS[type(node.op)](*sides)
    if isinstance(node, ast.UnaryOp):
        return -literally(node.operand, text)
    return Fraction(ast.get_source_segment(text, node) or "")


@given(EXPRESSIONS)
def test_values_are_pythons(text: str) -> None:
    text = text.replace("0" + "0", "1")  # Python takes no leading zeros
    try:
        expected = literally(ast.parse(text, mode="eval").body, text)
    except ZeroDivisionError:
        expected = None
    except SyntaxError:
        return
    assert value_of(text) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("( 76.0 - 25.0 )", 51),
        ("X=(3*4)", 12),
        ("x = 8 / 3 * 3", 8),
        ("2 - 3 - 4", -5),
        ("8 / 4 / 2", 1),
        ("2 + 3 * 4", 14),
        ("-(2)", -2),
        (".5 + 5.", Fraction(11, 2)),
        ("0.1 + 0.2", Fraction(3, 10)),
        (" 7 ", 7),
    ],
)
def test_what_has_a_value(text: str, value: Fraction) -> None:
    assert value_of(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "x", "=", "1 +", "( 1", "1 )", "1 2", "1 / 0", "1 / ( 2 - 2 )", "2 ** 3", "1e9", "__import__('os')", "X=",
     "1,000", "٣ + 1", "1 = 1", "9" * 2000, "(" * 600 + "1" + ")" * 600, "-" * 900 + "1", "2 // 1", "\\x00", "()",
     "1 + nan"],
)  # fmt: skip
def test_what_has_none(text: str) -> None:
    assert value_of(text) is None


@given(st.text(alphabet="0123456789.+-*/() x=e", max_size=40))
def test_whatever_is_generated_is_judged(text: str) -> None:
    value = value_of(text)
    assert value is None or isinstance(value, Fraction)
