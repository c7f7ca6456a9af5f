"""The value of an arithmetic expression: numbers, + - * / and parentheses. A parser of its own: nothing is ever run."""

from __future__ import annotations

import re
from fractions import Fraction

TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d*)?|\.\d+)|([-+*/()]))")
UNKNOWN = re.compile(r"\s*[A-Za-z]\s*=(.*)", re.DOTALL)  # X = ..., as some sets write it
DEEPEST, LONGEST = 50, 1000  # parentheses, characters: a generated text may be anything


def value_of(text: str) -> Fraction | None:
    """The exact value; None for what is no expression, and for a division by zero.

    Source of the grammar: the usual precedence, operators of one rank from the left, a sign before any factor.
    """
    named = UNKNOWN.fullmatch(text)
    try:
        parser = _Parser(named[1] if named else text)
        value = parser.sum(0)
        return value if parser.at_end() else None
    except (_NoExpression, ZeroDivisionError):
        return None


class _NoExpression(Exception):
    pass


class _Parser:
    """Recursive descent: sum = product {+- product}, product = factor {*/ factor}, factor = [+-] number or (sum)."""

    def __init__(self, text: str) -> None:
        self._tokens, self._at = _tokens(text), 0

    def at_end(self) -> bool:
        return self._at == len(self._tokens)

    def sum(self, depth: int) -> Fraction:
        value = self._product(depth)
        while sign := self._take("+-"):
            term = self._product(depth)
            value = value + term if sign == "+" else value - term
        return value

    def _product(self, depth: int) -> Fraction:
        value = self._factor(depth)
        while sign := self._take("*/"):
            factor = self._factor(depth)
            value = value * factor if sign == "*" else value / factor
        return value

    def _factor(self, depth: int) -> Fraction:
        if depth > DEEPEST or self.at_end():
            raise _NoExpression
        if sign := self._take("+-"):
            return self._factor(depth + 1) * (-1 if sign == "-" else 1)
        if self._take("("):
            value = self.sum(depth + 1)
            if not self._take(")"):
                raise _NoExpression
            return value
        token = self._tokens[self._at]
        if token in "*/)":
            raise _NoExpression
        self._at += 1
        return Fraction(token)

    def _take(self, signs: str) -> str | None:
        if self.at_end() or self._tokens[self._at] not in signs:
            return None
        self._at += 1
        return self._tokens[self._at - 1]


def _tokens(text: str) -> list[str]:
    """Raises _NoExpression for any other character."""
    text = text.strip()
    if len(text) > LONGEST or not text.isascii():
        raise _NoExpression
    tokens, at = [], 0
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            raise _NoExpression
        tokens.append(found[1] or found[2])
        at = found.end()
    return tokens
