"""The `key=value` words of a command line, checked all at once before Hydra sees them.

Hydra stops at the first mistake and answers in several lines; here each mistake gets one line of its own, with what to
do. What passes is given on in Hydra's grammar.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from prunebench.config import RunConfig
from prunebench.errors import UsageError, brief, did_you_mean
from prunebench.options import Options, listing_name, listing_of

LISTS = {float: "a list of numbers, like '[0.9,0.999]'", str: "a list, like '[a,b]'"}
SET_BY = {  # group -> the settings that its options bring; every other group brings those of its own name
    "recipe": ("sparsity", "start", "model", "dataset", "pruning", "distillation", "trainer"),
    "dataset": ("dataset", "trainer"),
    "model": ("model", "trainer"),
}
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Any: "anything"}


def check_overrides(overrides: list[str], options: Options, *, sweep: bool = False) -> list[str]:
    """The overrides as Hydra takes them.

    Args:
        sweep: several values for a key are allowed, as in `seed=1,2,3`.

    Raises:
        UsageError: one line for each of the overrides that cannot be.
    """
    sorted_out = sort_out(overrides, options, sweep=sweep)
    if sorted_out.problems:
        raise UsageError("\n".join(sorted_out.problems))
    return sorted_out.sound


@dataclass(frozen=True)
class SortedOut:
    """Overrides that can be, as Hydra takes them; a line on each other one; the settings that those leave unknown."""

    sound: list[str]
    problems: list[str]
    unknown: frozenset[str]


def sort_out(overrides: list[str], options: Options, *, sweep: bool = False) -> SortedOut:
    """Tells the overrides that can be from those that cannot."""
    sound: list[str] = []
    problems: dict[str, None] = {}  # each line once, in their order
    unknown: set[str] = set()
    for text in overrides:
        try:
            sound.append(_check(text, options, sweep))
        except UsageError as error:
            problems[str(error)] = None
            unknown |= _settings_of(text.partition("=")[0].lstrip("+"), options)
    return SortedOut(sound, list(problems), frozenset(unknown) - _chosen(sound))


def _settings_of(name: str, options: Options) -> set[str]:
    """What has no value when the choice or setting `name` cannot be read; of a misspelt name what it is near to."""
    if name in options:
        return set(SET_BY.get(name, (name.partition("/")[0],)))
    if find_type(name) is not None:
        return {name}
    near = re.search(r"did you mean '(.*)'", nearest(name, options))
    return _settings_of(near[1], options) if near else set()


def _chosen(sound: list[str]) -> set[str]:
    """Groups that the command line chooses itself, whatever a recipe that cannot be read would choose."""
    names = {key_of(text) for text in sound}
    return names & {"model", "dataset"}


def key_of(word: str) -> str:
    """The setting or group that a word is about: "+a.b=1" -> "a.b"."""
    return word.lstrip("+").partition("=")[0]


def swept_keys(overrides: list[str]) -> set[str]:
    """The keys that have several values; of overrides that `check_overrides` passed."""
    parsed = (OverridesParser.create().parse_override(text) for text in overrides)
    return {override.key_or_group for override in parsed if override.is_sweep_override()}


def _check(text: str, options: Options, sweep: bool) -> str:
    override = _parse(text)
    key = override.key_or_group
    if not key:
        shown = brief(text) if text else "an empty word"
        raise UsageError(f"{shown}: expected key=value, like sparsity=0.9")
    if key == "hydra.searchpath":
        raise UsageError(f"{brief(text)}: use --config-dir")
    if key.startswith(("hydra.", "hydra/")):
        return str(override.input_line)
    if override.is_delete() or override.package is not None:
        raise UsageError(f"{brief(text)}: only key=value is known here, without ~ and @")
    values = _values(override, options, sweep)
    if key in options:
        return _check_choice(override, key, values, options)
    hint = find_type(key)
    if hint is None:
        raise UsageError(f"{brief(text)}: no such setting{nearest(key, options)}")
    for value in values:
        _check_type(key, value, hint, options)
    return _as_hydra_takes_it(override, hint)


def _as_hydra_takes_it(override: Override, hint: Any) -> str:
    """New keys of a mapping need `++`, and OmegaConf takes no whole number for `float | str`."""
    line = str(override.input_line).lstrip("+")
    if _is_whole(override.value(), hint):
        line += ".0"
    takes_any_key = typing.get_origin(hint) is dict or _is_below_mapping(override.key_or_group)
    return f"++{line}" if override.is_force_add() or takes_any_key else line


def _is_whole(value: Any, hint: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and {float, str} <= set(_alternatives(hint))


def _parse(text: str) -> Override:
    """The override; a value that is no Hydra grammar (a path with brackets, say) is taken as text."""
    parser = OverridesParser.create()
    try:
        return parser.parse_override(text)
    except (HydraException, ValueError, RecursionError) as error:  # numbers of 5,000 digits, 1,000 brackets
        key, equals, value = text.partition("=")
        hint = find_type(key.lstrip("+"))
        if hint is None or not equals:
            raise UsageError(f"{brief(text)}: expected key=value, like sparsity=0.9") from error
        if str not in _alternatives(hint):
            raise UsageError(f"{brief(text)}: expected {describe(hint)}") from error
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return parser.parse_override(f"{key}='{escaped}'")


def _values(override: Override, options: Options, sweep: bool) -> list[Any]:
    """The value, or all those of a sweep."""
    if not override.is_sweep_override():
        return [override.value()]
    if not sweep:
        raise UsageError(
            f"{brief(override.input_line)}: several values need -m (prunebench run -m ...); "
            "quote a comma that belongs to one"
        )
    if not override.is_discrete_sweep():
        return []  # left to the sweeper
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        return list(override._value.filter(list(options.get(override.key_or_group, {}))))  # type: ignore[union-attr]
    return [Override._convert_value(value) for value in override.sweep_iterator()]


def _check_choice(override: Override, group: str, values: list[Any], options: Options) -> str:
    """Names of options are text: Hydra would read 2_4 as the number 24. glob(...) is given on as what it stands for."""
    written = str(override.input_line).partition("=")[2]
    plain = override.value_type in (ValueType.ELEMENT, ValueType.SIMPLE_CHOICE_SWEEP)
    names = [name.strip(" '\"") for name in written.split(",")] if plain else [str(value) for value in values]
    for name in names:
        if name not in options[group]:
            kind, listing = listing_of(group), listing_name(group)
            hint = did_you_mean(name, options[group])
            raise UsageError(f"{group}={brief(name)}: no such {kind}{hint}; prunebench ls {listing} lists them")
    if not names:
        raise UsageError(f"{brief(override.input_line)}: no {listing_of(group)} has such a name")
    return f"{group}={','.join(repr(name) for name in names)}"


def nearest(key: str, options: Options) -> str:
    """The nearest name of a setting or group; a last part that fits counts as near: lr -> trainer.lr."""
    names = [*options, *setting_keys()]
    last = key.replace("/", ".").rpartition(".")[2]
    same_end = [name for name in names if name.replace("/", ".").rpartition(".")[2] == last]
    if same_end:
        return did_you_mean(key, same_end) or f" (did you mean '{min(same_end, key=len)}'?)"
    return did_you_mean(key, names)


# --- the schema ---------------------------------------------------------------------------------------------------


@cache
def setting_keys() -> tuple[str, ...]:
    """Every setting by its dotted key, in the order of the schema; without the items of lists."""
    return tuple(_keys(RunConfig, ""))


def _keys(schema: type, prefix: str) -> Iterator[str]:
    for name, hint in _fields(schema).items():
        if is_dataclass(hint):
            yield from _keys(typing.cast(type, hint), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


@cache
def _fields(schema: type) -> dict[str, Any]:
    hints = typing.get_type_hints(schema)
    return {field.name: hints[field.name] for field in fields(schema)}


def find_type(key: str) -> Any:
    """The type of the setting `key`; Any below a mapping; None where there is no such setting."""
    hint: Any = RunConfig
    for part in key.split("."):
        if hint is Any:
            continue
        if is_dataclass(hint):
            hint = _fields(typing.cast(type, hint)).get(part)
        elif typing.get_origin(hint) is dict:
            hint = typing.get_args(hint)[1]
        else:
            hint = None
        if hint is None:
            return None
    return hint


def _is_below_mapping(key: str) -> bool:
    parts = key.split(".")
    return any(typing.get_origin(find_type(".".join(parts[:end]))) is dict for end in range(1, len(parts)))


def _alternatives(hint: Any) -> tuple[Any, ...]:
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    return typing.get_args(hint) if union else (hint,)


def _check_type(key: str, value: Any, hint: Any, options: Options) -> None:
    if is_dataclass(hint) and not isinstance(value, dict):
        group = key.replace(".", "/")
        choice = (
            f": choose it by {group}={brief(value)}"
            if group in options
            else f", like {key}.{next(iter(_fields(typing.cast(type, hint))))}"
        )
        raise UsageError(f"{key}={_shown(value)}: {key} is a group of settings{choice}")
    if hint is Any or (isinstance(value, str) and "${" in value):
        return  # an interpolation, settled when the config is composed
    if _is_taken_wrongly(value, hint):
        raise UsageError(f"{key}={_shown(value)}: expected {describe(hint)}")
    try:
        OmegaConf.update(_scratch(), key, float(value) if _is_whole(value, hint) else value, force_add=True)
    except (OmegaConfBaseException, OverflowError) as error:  # the second of numbers that no float can hold
        wrong = re.match(r"Key '(.*)' not in '(\w+)'", str(error))
        why = f"it has no setting '{wrong[1]}'" if wrong else f"expected {describe(hint)}"
        raise UsageError(f"{key}={_shown(value)}: {why}") from error


@cache
def _scratch() -> Any:
    """A config to try values on: whether one fits does not depend on those before, and making one takes 10 ms."""
    return OmegaConf.structured(RunConfig)


def _is_taken_wrongly(value: Any, hint: Any) -> bool:
    """OmegaConf would take 2 for true, and a mapping for a text in a list."""
    if isinstance(value, list):
        texts = any(part == list[str] for part in _alternatives(hint))
        return texts and any(isinstance(item, dict | list) for item in value)
    return hint is bool and type(value) is int and value not in (0, 1)


def describe(hint: Any) -> str:
    """A type in the user's words."""
    if typing.get_origin(hint) is list:
        item = typing.get_args(hint)[0]
        return LISTS.get(item, "a list of mappings, like '[{name: dense}, {name: prune, prune: true}]'")
    if typing.get_origin(hint) is dict or is_dataclass(hint):
        return "a mapping, like '{key: value}'"
    parts = _alternatives(hint)
    if len(parts) > 1:
        return " or ".join("null" if part is type(None) else describe(part) for part in parts)
    return WORDS.get(hint, str(hint))


def _shown(value: Any) -> str:
    return "null" if value is None else brief(value)


@dataclass(frozen=True)
class Given:
    """Which keys and groups the command line names itself."""

    names: frozenset[str]

    def __contains__(self, name: str) -> bool:
        return name in self.names


def given(overrides: list[str]) -> Given:
    """Of overrides that `check_overrides` passed."""
    return Given(frozenset(key_of(text) for text in overrides))
