from __future__ import annotations

import re
from importlib.metadata import EntryPoint

import pytest

from prunebench.errors import UsageError
from prunebench.sparsity import registry as module
from prunebench.sparsity.criteria import CRITERIA
from prunebench.sparsity.criteria.magnitude import Magnitude, Random
from prunebench.sparsity.patterns import PATTERNS
from prunebench.sparsity.registry import Registry
from prunebench.sparsity.scopes import SCOPES


class Movement:
    def __init__(self, decay: float, warmup: int = 3) -> None:
        self.decay, self.warmup = decay, warmup


@pytest.fixture
def registry() -> Registry[Movement]:
    result: Registry[Movement] = Registry("criterion", "prunebench.test")
    result.register("movement")(Movement)
    return result


def test_what_is_built_in() -> None:
    assert {"magnitude", "random"} <= set(CRITERIA.names())
    assert {"global", "uniform", "erk", "row"} <= set(SCOPES.names())
    assert {"unstructured", "n_m"} <= set(PATTERNS.names())


def test_builds_with_params_and_takes_of_the_offered_what_it_knows() -> None:
    assert isinstance(CRITERIA.build("magnitude", seed=3), Magnitude)
    built = [CRITERIA.build("random", seed=3), CRITERIA.build("random", {"seed": 5}, seed=3)]
    assert [criterion.seed for criterion in built if isinstance(criterion, Random)] == [3, 5]


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("momevent", {}, "unknown criterion 'momevent' (did you mean 'movement'?): choose from movement"),
        ("movement", {"decay": 1, "warmpu": 2}, "no setting 'warmpu' (did you mean 'warmup'?): it takes decay, warmup"),
        ("movement", {"warmup": 2}, "criterion movement needs the setting 'decay'"),
    ],
)
def test_refuses(registry: Registry[Movement], name: str, params: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        registry.build(name, params)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("criterion", "params", "words"),
    [
        ("sparsegpt", {"damp": "much"}, "criterion sparsegpt: damp=much must be a number"),
        ("sparsegpt", {"block": 1.5}, "criterion sparsegpt: block=1.5 must be a whole number"),
        ("obert", {"exact": 1}, "criterion obert: exact=1 must be true or false"),
        ("obert", {"block_size": None}, "criterion obert: block_size=None must be a whole number"),
    ],
)
def test_settings_have_the_type_of_their_default(criterion: str, params: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        CRITERIA.build(criterion, params)
    CRITERIA.check("sparsegpt", {"damp": 1})  # a whole number is a number
    CRITERIA.check("mfac", {"block_size": None})  # which says so


def test_a_name_is_taken_once(registry: Registry[Movement]) -> None:
    with pytest.raises(ValueError, match="twice"):
        registry.register("movement")(Movement)


def test_other_packages_add_theirs(registry: Registry[Movement], monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("counter", "collections:Counter", "prunebench.test"),
        EntryPoint("broken", "no_such_package:Thing", "prunebench.test"),
    ]
    monkeypatch.setattr(module, "entry_points", lambda group: points if group == "prunebench.test" else [])
    assert registry.names() == ["broken", "counter", "movement"]
    assert type(registry.build("counter")).__name__ == "Counter"
    with pytest.raises(UsageError, match=r"broken .*cannot be imported"):
        registry.build("broken")
