"""Groups of runs that differ in their seed only; which settings tell groups apart; which groups may be compared."""

from __future__ import annotations

import hashlib
import json
import re
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Any, TypeGuard

from prunebench.compare.runs import Run
from prunebench.digest import NOT_IN_RESULT
from prunebench.errors import UsageError, brief, did_you_mean
from prunebench.progress import warn

ALIASES = {"score": "metric.value", "dense": "dense.value", "nonzero": "weights.model_nonzero",
           "size": "bytes.compressed"}  # fmt: skip
# settings that change no result, or that stand elsewhere
SILENT = {"seed", "name", "recipe", "outputs", "distillation.cache_gb", "trainer.threads",
          *(f"trainer.{key}" for key in NOT_IN_RESULT)}  # fmt: skip
SILENT_PARTS = ("tracker.", "launcher.", "search.", "dataset.examples.", "dataset.windows.")
BROUGHT = re.compile(r"(?:(model|dataset)\.|(.*)\.params\.|(.*)\.phases$)")
FRAME = ("model.", "dataset.", "trainer.")  # what methods are compared on; the rest is what a recipe is about


@dataclass(frozen=True)
class Bench:
    """What scores must have in common to be compared. Names and numbers of data are for people: the content counts."""

    content: str  # hash of the scored texts and answers, or the best that is known of them
    split: str
    metric: str
    components: tuple[str, ...]  # the denominator of the sparsity; () for dense runs, which have none
    higher_is_better: bool = field(default=True, compare=False)
    dataset: str = field(default="?", compare=False)
    examples: int | None = field(default=None, compare=False)


@dataclass(frozen=True, eq=False)
class Group:
    """Runs with one config but for the seed: one a seed, by seed."""

    runs: tuple[Run, ...]
    bench: Bench

    @property
    def name(self) -> str:
        return ", ".join(dict.fromkeys(run.name for run in self.runs))

    @property
    def recipe(self) -> str:
        return str(self.runs[0].result.get("recipe", self.runs[0].name))

    @property
    def is_dense(self) -> bool:
        return self.runs[0].is_dense

    @cached_property
    def seeds(self) -> dict[int, Run]:
        return {run.seed: run for run in self.runs}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Those that change results, by dotted key, folders without what leads to them."""
        return _telling(self.runs[0].settings)

    def value(self, key: str) -> Any:
        """The mean of a run's value (see `Run.values`) over the seeds, or where it is no number the first run's."""
        values = [run.values.get(key) for run in self.runs]
        numbers = [value for value in values if is_number(value)]
        return statistics.fmean(numbers) if numbers else values[0]


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Groups by everything but the seed, in the order of their first runs.

    A run that is there twice, under two names, counts once. Of two different runs of one group and seed (of earlier
    versions) the one that was read last stays, with a warning.
    """
    unique = list({run.digest: run for run in reversed(list(runs))}.values())[::-1]
    benches = _benches(unique)
    keys = _settled([run.result.get("group") or None for run in unique], [lambda run=run: _hint(run) for run in unique])
    found: dict[tuple[str, Bench], dict[int, Run]] = {}
    for run, bench, key in zip(unique, benches, keys, strict=True):
        members = found.setdefault((key, bench), {})
        if run.seed in members:
            warn(f"{members[run.seed].digest} is left out: {run.digest} has the same settings and seed")
        members[run.seed] = run
    return [Group(tuple(m[seed] for seed in sorted(m)), bench) for (_, bench), m in found.items()]


def _settled(exact: Sequence[str | None], hints: Sequence[Any]) -> list[str]:
    """What is known exactly of some things, and of the others what follows from a hint (a function each).

    A thing of which only the hint is known is taken for the one exact thing with the same hint; where there is none,
    or several, it stays by itself.
    """
    if None not in exact:
        return [str(value) for value in exact]
    told = [hint() for hint in hints]
    known: dict[str, set[str]] = {}
    for value, hint in zip(exact, told, strict=True):
        if value is not None:
            known.setdefault(hint, set()).add(value)
    candidates = [known.get(hint, set()) for hint in told]
    return [
        value if value is not None else next(iter(same)) if len(same) == 1 else f"?{hint}"
        for value, hint, same in zip(exact, told, candidates, strict=True)
    ]


def _benches(runs: Sequence[Run]) -> list[Bench]:
    evaluations = [run.evaluation for run in runs]
    contents = _settled(
        [each["content"] and f"{each['content']} {each['answers']}" for each in evaluations],
        [lambda each=each: str(each["answers"]) for each in evaluations],
    )
    return [_bench(run, content) for run, content in zip(runs, contents, strict=True)]


def _bench(run: Run, content: str) -> Bench:
    metric, evaluation = run.result["metric"], run.evaluation
    return Bench(
        content=content,
        dataset=str(run.settings.get("dataset.name", "?")),
        split=str(evaluation["split"]),
        examples=evaluation["examples"],
        metric=str(metric["name"]),
        higher_is_better=bool(metric.get("higher_is_better", True)),
        components=() if run.is_dense else tuple(sorted(run.result["sparsity"].get("components") or {})),
    )


def _hint(run: Run) -> str:
    """The settings of a run of an earlier version, which does not say the digest of its group."""
    precision = (run.result.get("environment") or {}).get("precision")
    text = json.dumps(
        [_telling(run.settings), run.result.get("recipe") == "soup" and run.digest, precision], sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _telling(settings: Mapping[str, Any]) -> dict[str, Any]:
    known = bool(settings.get("model.from_config"))
    return {
        key: _short_path(value)
        for key, value in settings.items()
        if key not in SILENT and not key.startswith(SILENT_PARTS) and (known or not key.startswith("model.config."))
    }


def _short_path(value: Any) -> Any:
    """The last part of an absolute path: other machines have the same data elsewhere."""
    return PurePath(value).name if isinstance(value, str) and value.startswith("/") else value


# --- keys ---------------------------------------------------------------------------------------------------------


def differing(groups: Sequence[Group]) -> list[str]:
    """The settings that tell groups apart.

    A setting counts if it differs between two groups of the same recipe. Between recipes, whose names say what they
    are about, only what methods are compared on counts: model, data and dense training. What a choice brings along
    (a criterion its params, a model its config) counts where two groups with the same choice differ.
    """
    recipes: dict[str, list[Group]] = {}
    for group in groups:
        recipes.setdefault(group.recipe, []).append(group)
    keys = list(dict.fromkeys(key for group in groups for key in group.settings))
    return [
        key
        for key in keys
        if any(_differs(key, same) for same in recipes.values()) or (key.startswith(FRAME) and _differs(key, groups))
    ]


def _differs(key: str, groups: Sequence[Group]) -> bool:
    """Whether groups differ in a setting; in one that a choice brings along, whether those do that made the same."""
    values: dict[Any, set[str]] = {}
    choice = _choice(key)
    for group in groups:
        values.setdefault(group.settings.get(choice), set()).add(json.dumps(group.settings.get(key), sort_keys=True))
    return any(len(found) > 1 for found in values.values())


def _choice(key: str) -> str:
    """The setting whose choice brings `key` along; "" for none."""
    brought = BROUGHT.match(key)
    return f"{brought[1] or brought[2] or brought[3]}.name" if brought and not key.endswith(".name") else ""


def find_key(word: str, settings: Collection[str], results: Collection[str] = ()) -> str:
    """The dotted key that `word` means: itself, or its end where only one has it ("hardness"; "scope": its name).

    Where both settings and results have such a key, the setting is meant.

    Raises:
        UsageError: none has it, or several have.
    """
    word = ALIASES.get(word, word)
    every = [*settings, *results]
    for key in (word, f"{word}.name"):
        if key in every:
            return key
    for keys in (settings, results):
        found = [key for key in keys if key.endswith((f".{word}", f".{word}.name"))]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(
                f"{brief(word)}: {len(found)} keys end so: {', '.join(sorted(found)[:6])}; give more of it"
            )
    ends = {key.rpartition(".")[2] for key in every}
    raise UsageError(
        f"{brief(word)}: no run has such a setting or result{did_you_mean(word, [*ALIASES, *every, *ends])}"
    )


def short_key(key: str, settings: Collection[str]) -> str:
    """The shortest end of a setting's key that `find_key` understands."""
    parts = key.removesuffix(".name").split(".") if key.count(".") else [key]
    for count in range(1, len(parts) + 1):
        word = ".".join(parts[-count:])
        try:
            if find_key(word, settings) == key:
                return word
        except UsageError:
            continue
    return key
