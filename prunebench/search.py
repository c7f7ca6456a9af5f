"""Optuna chooses the members of a sweep, one batch after another, until a budget of runs is spent.

Optuna itself, not Hydra's sweeper for it, which needs optuna below 3. The study is a file of the sweep's folder
(Optuna's journal, so that its own tools read it). Each proposal has a sampler of its own, seeded by its number: what is
proposed depends on the trials so far only, not on how often the search was stopped. Trials are runs like any other, so
none is computed twice, whatever becomes of the study.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from prunebench.compose import load_config
from prunebench.config import RunConfig
from prunebench.errors import UsageError, brief
from prunebench.launchers import Outcome, check_package, members_at_a_time
from prunebench.options import find_options
from prunebench.overrides import check_overrides, find_type, key_of
from prunebench.progress import say, silence
from prunebench.sweep import Member, OnResult, Prepared, Sweep, SweepOutcome, is_ours, member_of, outcome_of, prepare
from prunebench.sweep_view import search_header
from prunebench.validate import check

DIGITS = 4  # significant ones of a proposed number
JOURNAL = "optuna.journal"


@dataclass(frozen=True)
class Dimension:
    """A setting that is searched: one of `choices`, or a number from `low` to `high`."""

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: int | None = None  # whole numbers only
    log: bool = False

    def distribution(self) -> Any:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution(self.choices)
        if self.step is not None:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=1 if self.log else self.step)
        return FloatDistribution(self.low, self.high, log=self.log)

    def word(self, value: Any) -> str:
        return f"{self.key}={value if self.choices or self.step is not None else f'{value:.{DIGITS}g}'}"

    def corners(self) -> list[str]:
        """Words whose settings are sound if all are: every choice, or both ends."""
        values = self.choices or ([int(self.low), int(self.high)] if self.step is not None else [self.low, self.high])
        return [self.word(value) for value in values]

    def __str__(self) -> str:
        if self.choices:
            return f"{self.key} among {', '.join(self.choices)}"
        return f"{self.key} from {self.low:g} to {self.high:g}{' (logarithmic)' if self.log else ''}"


def search(
    words: Sequence[str],
    settings: RunConfig,
    *,
    command: Sequence[str],
    config_dir: str | None,
    force: bool,
    on_result: OnResult = lambda result: None,
) -> SweepOutcome:
    """`run -m search=...`.

    Args:
        words: as `sweep.swept_words` gives them.
        settings: composed with the words that have one value.

    Raises:
        UsageError: a mistake in the space or at its ends, before the first run starts.
    """
    check_package("search", settings.search.name)
    dimensions = space(words, settings, config_dir)
    swept = {dimension.key for dimension in dimensions}
    fixed = [word for word in all_words(words, settings) if key_of(word) not in swept]
    if "recipe" in swept:
        raise UsageError("recipe: a search takes one recipe; sweep its settings")
    prepare(_corners(fixed, dimensions), config_dir)
    with Sweep(command, settings, config_dir=config_dir, force=force, title="search") as sweep:
        say("\n".join(search_header(sweep.record.id, [str(one) for one in dimensions], settings.search.runs)))
        sweep.expected = settings.search.runs
        _Search(sweep, dimensions, fixed, settings, config_dir, force, on_result).run()
    return outcome_of(sweep)


def all_words(words: Sequence[str], settings: RunConfig) -> list[str]:
    """What the command line says of a run, and search.params of what it does not, with one value or several."""
    given = [word for word in words if not is_ours(word)]
    told = {key_of(word) for word in given}
    return [*given, *(f"{key}={values}" for key, values in settings.search.params.items() if key not in told)]


def space(words: Sequence[str], settings: RunConfig, config_dir: str | None) -> list[Dimension]:
    """What search.params and the command line sweep; the command line wins."""
    checked = check_overrides(all_words(words, settings), find_options(config_dir), sweep=True)
    parsed = [OverridesParser.create().parse_override(word) for word in checked]
    found = [_dimension(override) for override in parsed if override.is_sweep_override()]
    if not found:
        example = "'trainer.lr=tag(log,interval(1e-5,1e-3))'"
        raise UsageError(f"search={settings.search.name}: nothing to search: give a setting several values, {example}")
    return found


def _dimension(override: Override) -> Dimension:
    key, values = override.key_or_group, override._value
    if key == "seed":
        raise UsageError("seed: a search compares runs of one seed; give it one value")
    if isinstance(values, IntervalSweep):
        low, high = float(values.start or 0), float(values.end or 0)
        whole = find_type(key) is int
        problem = not low < high or ("log" in values.tags and low <= 0)
        if problem:
            raise UsageError(f"{brief(override.input_line)}: the interval must rise, a logarithmic one from above 0")
        return Dimension(key, low=low, high=high, step=1 if whole else None, log="log" in values.tags)
    if isinstance(values, RangeSweep) and isinstance(values.start, int) and isinstance(values.step, int):
        steps = list(range(values.start, int(values.stop or 0), values.step)) if values.step > 0 else []
        if not steps:
            raise UsageError(f"{brief(override.input_line)}: the range must rise")
        return Dimension(key, low=steps[0], high=steps[-1], step=values.step, log="log" in values.tags)
    return Dimension(key, choices=tuple(str(word) for word in override.sweep_string_iterator()))


def _corners(fixed: Sequence[str], dimensions: Sequence[Dimension]) -> list[Member]:
    """A member for every end of every dimension, the others at their first."""
    first = [dimension.corners()[0] for dimension in dimensions]
    members = []
    for index, dimension in enumerate(dimensions):
        for corner in dimension.corners():
            chosen = [*first[:index], corner, *first[index + 1 :]]
            members.append(Member(corner, (*fixed, *chosen)))
    return members


class _Search:
    """Asks Optuna, computes a batch, tells Optuna, until the budget is spent."""

    def __init__(
        self,
        sweep: Sweep,
        dimensions: Sequence[Dimension],
        fixed: Sequence[str],
        settings: RunConfig,
        config_dir: str | None,
        force: bool,
        on_result: OnResult,
    ) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._sweep, self._dimensions, self._fixed, self._settings = sweep, dimensions, fixed, settings.search
        self._config_dir, self._on_result = config_dir, on_result
        journal = sweep.folder.root / JOURNAL
        if force:
            journal.unlink(missing_ok=True)
        # the score is told so that more is better, whatever the metric
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))),
            study_name="search",
            direction="maximize",
            load_if_exists=True,
        )

    def run(self) -> None:
        from optuna.trial import TrialState

        known = self._study.get_trials(deepcopy=False)
        self._compute([trial for trial in known if trial.state == TrialState.COMPLETE])  # their runs are finished
        self._sweep.add_failed([self._member(trial) for trial in known if trial.state == TrialState.FAIL])
        self._compute(
            [self._whole(trial) for trial in known if trial.state == TrialState.RUNNING]
        )  # when it was stopped
        at_a_time = members_at_a_time(self._sweep.settings) or self._settings.runs
        while (left := self._settings.runs - len(self._study.get_trials(deepcopy=False))) > 0:
            self._compute([self._ask() for _ in range(min(left, at_a_time))])
        self._tell_best()

    def _ask(self) -> Any:
        self._sample_for(len(self._study.get_trials(deepcopy=False)))
        return self._study.ask({one.key: one.distribution() for one in self._dimensions})

    def _sample_for(self, number: int) -> None:
        import optuna

        self._study.sampler = optuna.samplers.TPESampler(
            seed=(self._settings.seed + number) % 2**32,
            constant_liar=True,  # the others of its batch are not back yet
        )

    def _whole(self, trial: Any) -> Any:
        """A trial with all of its values; some lack where it was stopped while they were proposed."""
        import optuna

        if all(one.key in trial.params for one in self._dimensions):
            return trial
        self._sample_for(trial.number)
        whole = optuna.trial.Trial(self._study, trial._trial_id)
        for one in self._dimensions:
            whole._suggest(one.key, one.distribution())
        return whole

    def _compute(self, trials: Sequence[Any]) -> None:
        if not trials:
            return
        members = [self._member(trial) for trial in trials]
        with silence():
            prepared = prepare(members, self._config_dir)
        self._sweep.add(prepared)
        for trial, one, outcome in zip(trials, prepared, self._sweep.run(prepared, self._on_result), strict=True):
            self._tell(trial, one, outcome)

    def _member(self, trial: Any) -> Member:
        chosen = [one.word(trial.params[one.key]) for one in self._dimensions]
        return member_of([*self._fixed, *chosen], [one.key for one in self._dimensions])

    def _tell(self, trial: Any, one: Prepared, outcome: Outcome) -> None:
        from optuna.trial import TrialState

        if outcome.result is None:
            self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            return
        metric = outcome.result["metric"]
        value = metric["value"] if metric["higher_is_better"] else -metric["value"]
        self._study.tell(trial.number, value, skip_if_finished=True)

    def _tell_best(self) -> None:
        results = {index: result["metric"] for index, result in self._sweep.results.items()}
        if not results:
            return
        best = max(results, key=lambda i: results[i]["value"] * (1 if results[i]["higher_is_better"] else -1))
        metric, member = results[best], self._sweep.record.members[best]
        say(f"best of {len(results)}: {member.name} ({metric['name']} {metric['value']:.4g}), in {member.run}")


def single_values(words: Sequence[str], config_dir: str | None) -> RunConfig:
    """The settings that the words with one value make: those on launcher and search are read from here."""
    parsed = [(word, OverridesParser.create().parse_override(word)) for word in words]
    config = load_config([word for word, override in parsed if not override.is_sweep_override()], config_dir)
    check(config)
    return config
