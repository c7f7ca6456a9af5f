"""Finding criteria, scopes and patterns by name, ours and those of other installed packages. No torch."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from prunebench.errors import UsageError, brief, did_you_mean

T = TypeVar("T")
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


class Registry(Generic[T]):
    """Names of one kind of thing ("criterion") and the classes behind them.

    A class of ours is entered with `@registry.register(name)`. Another package enters its own through the entry
    point group (`[project.entry-points."prunebench.criteria"] mine = "package.module:Mine"`); ours win.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        def enter(cls: type[T]) -> type[T]:
            if name in self._classes:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._classes[name] = cls
            return cls

        return enter

    def names(self) -> list[str]:
        """All names; other packages are listed without being imported."""
        return sorted({*self._classes, *self._installed()})

    def check(self, name: str, params: Mapping[str, Any] | None = None, **offered: Any) -> type[T]:
        """The class behind `name`, after checking what it would be built with.

        Raises:
            UsageError: the name is unknown, its package cannot be imported, it does not take one of `params`, or it
                needs a setting that is neither in `params` nor offered.
        """
        cls = self._find(name)
        accepted = _settings(cls)
        defaults = {key: parameter.default for key, parameter in accepted.items()}
        optional = [key for key, parameter in accepted.items() if "None" in str(parameter.annotation)]
        for problem in setting_problems(f"{self.kind} {name}", params or {}, defaults, optional):
            raise UsageError(problem)
        for key, parameter in accepted.items():
            if parameter.default is parameter.empty and key not in {**offered, **(params or {})}:
                raise UsageError(f"{self.kind} {name} needs the setting '{key}'")
        return cls

    def build(self, name: str, params: Mapping[str, Any] | None = None, **offered: Any) -> T:
        """An instance of `name` with the settings `params`, and with what is `offered` where it takes it.

        `params` are what a user wrote, so each must be known; `offered` is what every one of this kind may use
        (a seed, say). `params` win. Errors as in `check`.
        """
        cls = self.check(name, params, **offered)
        accepted = _settings(cls)
        return cls(**{key: value for key, value in offered.items() if key in accepted} | dict(params or {}))

    def _find(self, name: str) -> type[T]:
        if name in self._classes:
            return self._classes[name]
        point = self._installed().get(name)
        if point is None:
            hint = did_you_mean(name, self.names())
            raise UsageError(f"unknown {self.kind} '{name}'{hint}: choose from {', '.join(self.names())}")
        try:
            cls: type[T] = point.load()
        except Exception as error:
            raise UsageError(f"{self.kind} {name} ({point.value}) cannot be imported: {error}") from error
        return cls

    def _installed(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}


def setting_problems(
    what: str, params: Mapping[str, Any], defaults: Mapping[str, Any], optional: Collection[str]
) -> Iterator[str]:
    """What is wrong with names and types of `params`, a line each. `optional`: those that may be null."""
    for key, value in params.items():
        if key not in defaults:
            takes = f"it takes {', '.join(defaults)}" if defaults else "it takes none"
            yield f"{what} has no setting '{key}'{did_you_mean(key, defaults)}: {takes}"
        elif not ((value is None and key in optional) or _fits(value, defaults[key])):
            yield f"{what}: {key}={brief(value)} must be {WORDS[type(defaults[key])]}"


def _fits(value: Any, default: Any) -> bool:
    """Whether a value is of the type of its default, as far as that says anything."""
    kind = type(default)
    return kind not in WORDS or type(value) is kind or (kind is float and type(value) is int)


def _settings(cls: type) -> dict[str, inspect.Parameter]:
    """What the constructor takes by name; **kwargs would swallow misspelt settings, so they do not count."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {key: value for key, value in inspect.signature(cls).parameters.items() if value.kind in by_name}


def import_modules(package: str, path: Iterable[str]) -> None:
    """Imports every module of a package, so that each can enter what it defines: a new one needs no other file."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
