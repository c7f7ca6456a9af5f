"""`--where "sparsity>=0.9 and dataset=sst2"`: a small language of filters, parsed, never evaluated.

    filter     = conjunction { "or" conjunction }
    conjunction = negation { "and" negation }
    negation   = "not" negation | "(" filter ")" | comparison
    comparison = key ("=" | "==" | "!=" | "<" | "<=" | ">" | ">=") value | key ["not"] "in" "(" value { "," value } ")"
    value      = number | true | false | null | word | "quoted" | 'quoted'

Keys are those of `groups.find_key`. A list (pruning.components) equals what is in it. A comparison with a run that has
no such value is false, but for != and not in.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from prunebench.compare.groups import find_key, is_number
from prunebench.compare.runs import Run
from prunebench.errors import UsageError, brief

Test = Callable[[Run], bool]
TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"[^"]*"|'[^']*')|(?P<sign><=|>=|!=|==|=|<|>|\(|\)|\[|\]|,)|(?P<word>[^\s"'<>=!()\[\],]+))"""
)
ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
EQUAL = ("=", "==", "!=")
CLOSING = {"(": ")", "[": "]"}
CONSTANTS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class _Value:
    """What stands in a filter, and what it means; a run may have it as a text all the same (a name may be 90)."""

    text: str
    meaning: Any

    def is_in(self, value: Any) -> bool:
        """Whether a run's value is this, or a list that has it."""
        if isinstance(value, list):
            return any(map(self.is_in, value))
        if isinstance(value, str):
            return value == self.text
        return isinstance(value, bool) is isinstance(self.meaning, bool) and bool(value == self.meaning)


def is_filter(text: str) -> bool:
    """Whether a word is a filter rather than a name or a digest."""
    return bool(re.search(r"[<>=]|\sin\s*[(\[]", text))


def parse_where(text: str, runs: Sequence[Run], option: str = "--where") -> Test:
    """The test that `text` describes. `runs` tell which keys there are.

    Raises:
        UsageError: where and why the text cannot be understood, or an unknown key.
    """
    return _Parser(text, runs, option).parse()


class _Parser:
    """Recursive descent over the tokens, each with the place where it begins."""

    def __init__(self, text: str, runs: Sequence[Run], option: str) -> None:
        self._text, self._runs, self._option = text, runs, option
        self._settings = {key for run in runs for key in run.settings}
        self._results = {key for run in runs for key in run.values} - self._settings
        self._tokens = self._split()
        self._next = 0

    def _split(self) -> list[tuple[str, str]]:
        """(kind, text) of each token."""
        tokens, at = [], 0
        while self._text[at:].strip():
            found = TOKEN.match(self._text, at)
            if found is None:
                self._fail(f"{brief(self._text[at:].strip()[:20])} cannot be read; is a quote missing?")
            tokens.append((str(found.lastgroup), found[0].strip()))
            at = found.end()
        return tokens

    def _fail(self, why: str) -> NoReturn:
        raise UsageError(f"{self._option} {brief(self._text)}: {why}")

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._next] if self._next < len(self._tokens) else ("end", "the end")

    def _take(self) -> tuple[str, str]:
        token = self._peek()
        self._next += 1
        return token

    def _takes(self, *texts: str) -> str | None:
        """Takes the next token if it is one of these signs or words (in any case), unquoted."""
        kind, text = self._peek()
        if kind in ("sign", "word") and text.lower() in texts:
            self._next += 1
            return text.lower()
        return None

    def parse(self) -> Test:
        test = self._any()
        if self._peek()[0] != "end":
            self._fail(f"did not expect {brief(self._peek()[1])}; join comparisons with and, or")
        return test

    def _any(self) -> Test:
        tests = [self._all()]
        while self._takes("or"):
            tests.append(self._all())
        return lambda run: any(test(run) for test in tests)

    def _all(self) -> Test:
        tests = [self._one()]
        while self._takes("and"):
            tests.append(self._one())
        return lambda run: all(test(run) for test in tests)

    def _one(self) -> Test:
        if self._takes("not"):
            test = self._one()
            return lambda run: not test(run)
        if self._takes("("):
            test = self._any()
            if not self._takes(")"):
                self._fail(f"expected ) before {brief(self._peek()[1])}")
            return test
        return self._comparison()

    def _comparison(self) -> Test:
        kind, word = self._take()
        if kind != "word":
            self._fail(f"expected a key before {brief(word)}")
        key = self._key(word)
        if self._takes("in"):
            values = self._values()
            return lambda run: any(value.is_in(run.values.get(key)) for value in values)
        if self._takes("not"):
            if not self._takes("in"):
                self._fail(f"expected in after {brief(word)} not")
            values = self._values()
            return lambda run: not any(value.is_in(run.values.get(key)) for value in values)
        sign = self._takes(*ORDER, *EQUAL)
        if sign is None:
            self._fail(f"expected =, !=, <, <=, >, >= or in after {brief(word)}, not {brief(self._peek()[1])}")
        return self._compare(word, key, str(sign), self._value())

    def _key(self, word: str) -> str:
        try:
            return find_key(word, self._settings, self._results)
        except UsageError as error:
            raise UsageError(f"{self._option} {error}") from None

    def _compare(self, word: str, key: str, sign: str, value: _Value) -> Test:
        if sign in EQUAL:
            return lambda run: value.is_in(run.values.get(key)) is (sign != "!=")
        bound, known = value.meaning, [run.values.get(key) for run in self._runs]
        if not is_number(bound) or not any(map(is_number, known)):
            self._fail(f"{sign} compares numbers, and {brief(word if is_number(bound) else value.text)} is none")
        compare = ORDER[sign]
        return lambda run: is_number(run.values.get(key)) and compare(run.values[key], bound)

    def _values(self) -> list[_Value]:
        opening = self._takes(*CLOSING)
        if opening is None:
            self._fail(f"expected ( after in, not {brief(self._peek()[1])}")
        values = [self._value()]
        while self._takes(","):
            values.append(self._value())
        if not self._takes(CLOSING[str(opening)]):
            self._fail(f"expected , or {CLOSING[str(opening)]} before {brief(self._peek()[1])}")
        return values

    def _value(self) -> _Value:
        kind, text = self._take()
        if kind == "quoted":
            return _Value(text[1:-1], text[1:-1])
        if kind != "word":
            self._fail(f"expected a value before {brief(text)}")
        if text.lower() in CONSTANTS:
            return _Value(text, CONSTANTS[text.lower()])
        try:
            return _Value(text, float(text))
        except ValueError:
            return _Value(text, text)
