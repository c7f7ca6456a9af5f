"""What is told about methods: the recipes themselves, the listing, what is refused, and what the rules know."""

from __future__ import annotations

import copy
import inspect
import json
import os
import random
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from torch import nn

from prunebench.cli import main
from prunebench.compose import load_config
from prunebench.config import AxisConfig, RunConfig, ScheduleConfig
from prunebench.contradictions import OFFERED
from prunebench.errors import UsageError
from prunebench.listing import header_fields, list_methods
from prunebench.options import Option, component_params, find_options
from prunebench.preview import preview
from prunebench.run import run
from prunebench.sparsity import axes
from prunebench.sparsity.criteria import CRITERIA, Criterion, Sample, Solver
from prunebench.sparsity.dynamics import DYNAMICS, Dynamics
from prunebench.sparsity.patterns import PATTERNS
from prunebench.sparsity.scopes import SCOPES, PerMatrix
from prunebench.sparsity.sparsifier import REFINEMENTS, REGROWTHS, UPDATES, build_sparsifier
from prunebench.sparsity.stats import GradientStat, InputStat
from prunebench.targets import Target
from prunebench.validate import problems
from tests.tiny import tiny_config

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import refusal_table  # noqa: E402

OPTIONS = find_options()
NO_METHODS = {  # recipes that are another level, another size or another task of one
    "dense", "quickstart", "quickstart_smc_bench", *(f"bert_smc_{level}" for level in (50, 70, 80, 95, 97)),
    *(name for name in OPTIONS["recipe"] if name.startswith(("smc_csqa_", "upstream_"))),
}  # fmt: skip
RECIPES = [option for name, option in OPTIONS["recipe"].items() if name not in NO_METHODS]
METHODS = {method["name"]: method for method in list_methods(None)}
each_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda option: option.name)
each_method = pytest.mark.parametrize("name", METHODS)


@cache
def config_of(name: str) -> RunConfig:
    """Not to be changed."""
    return load_config([f"recipe={name}"])


def target() -> Target:
    return Target("layer.0.attention.weight", nn.Linear(16, 8), "encoder", False)


# --- what recipes say of themselves -------------------------------------------------------------------------------


@each_recipe
def test_a_recipe_tells_idea_needs_cost_and_source(recipe: Option) -> None:
    fields = header_fields(recipe)
    assert set(fields) == {"idea", "needs", "cost", "source"}
    assert 2 <= len(re.findall(r"[.?](?: |$)", fields["idea"])) <= 5
    assert len(fields["needs"]) < 100 and len(fields["cost"]) < 110  # so that a line of the listing can be read


def test_what_is_no_method_does_not_say_so() -> None:
    assert set(METHODS) & NO_METHODS == set()


def looked_at(config: RunConfig) -> tuple[Sample | None, set[type]]:
    """The examples of a pruning, and whether it is inputs or gradients (or the loss, of which it is nothing here)."""
    pruning, calibration = config.pruning, config.pruning.calibration
    built = [CRITERIA.build(pruning.criterion.name, pruning.criterion.params, seed=0)]
    for registry, choice in ((REFINEMENTS, pruning.refinement), (UPDATES, pruning.update)):
        built += [registry.build(choice.name, choice.params)] if choice.name != "none" else []  # type: ignore[attr-defined]
    stats = [axis.stat(target()) for axis in built]
    kinds = {kind for kind in (InputStat, GradientStat) for stat in stats if isinstance(stat, kind)}
    scope = SCOPES.build(pruning.scope.name, pruning.scope.params, floor=0.0, seed=0)
    samples = [axis.sample for axis in (*built, scope) if axis.sample]
    if not samples:
        return None, kinds
    largest = max(samples, key=lambda sample: sample.examples)
    return Sample(calibration.examples or largest.examples, calibration.batch_size or largest.batch_size), kinds


@each_method
def test_needs_are_what_the_code_looks_at(name: str) -> None:
    config, needs = config_of(name), METHODS[name]["needs"]
    sample, kinds = looked_at(config)
    regrows = config.pruning.regrowth.name != "none"
    trains = preview(config, OPTIONS).plan.steps > 0
    assert ("training" in needs) == trains
    assert ("weights only" in needs) <= (sample is None and not regrows)
    assert trains or sample or needs == "weights only"
    assert ("gradient" in needs) == (GradientStat in kinds or regrows)
    assert ("forward passes" in needs) == (sample is not None and kinds != {GradientStat})
    if regrows:
        assert "1 gradient of a batch at each exchange" in needs
    if sample and "forward passes" in needs:
        assert f"forward passes of {sample.examples:,} calibration examples" in needs
    if sample and GradientStat in kinds:
        size = "single examples" if sample.batch_size == 1 else f"{sample.batch_size} examples"
        assert f"{sample.examples // sample.batch_size:,} gradients of {size}" in needs


@each_method
def test_costs_are_those_of_the_plan(name: str) -> None:
    config, cost = config_of(name), METHODS[name]["cost"]
    plan, schedule = preview(config, OPTIONS).plan, config.pruning.schedule
    units = re.match(r"([\d.]+) units?\b", cost)
    epochs = re.match(r"(\d+) epochs\b", cost)
    assert bool(units or epochs) == (plan.steps > 0) and cost.startswith("no training") == (plan.steps == 0)
    if units:
        assert float(units[1]) == pytest.approx(plan.epochs / config.trainer.epochs, rel=1e-4)
    if epochs:
        assert float(epochs[1]) == pytest.approx(plan.epochs)
    for count, rest in re.findall(r"(\d+) prunings( an epoch)?", cost):
        assert int(count) == (schedule.prunings_per_epoch if rest else len(plan.prunings))
    for count in re.findall(r"every (\d+) steps by magnitude", cost):
        assert int(count) == schedule.prune_every
    for count in re.findall(r"(\d+) rounds", cost):
        assert int(count) == len(plan.prunings)


@each_method
def test_backward_passes_are_those_of_one_pruning(name: str) -> None:
    config, found = config_of(name), re.search(r"([\d,]+) backward passes", METHODS[name]["cost"])
    sample, kinds = looked_at(config)
    assert bool(found) == (GradientStat in kinds)
    if found and sample:
        criterion = CRITERIA.build(config.pruning.criterion.name, config.pruning.criterion.params, seed=0)
        expected = criterion.recomputations * sample.examples // sample.batch_size
        assert int(found[1].replace(",", "")) == expected


# --- prunebench ls methods ----------------------------------------------------------------------------------------


def test_ls_methods_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [re.split(r"\s{2,}", line)[0] for line in lines] == ["method", *METHODS]
    wanda = next(line for line in lines if line.startswith("wanda "))
    assert METHODS["wanda"]["needs"] in wanda and METHODS["wanda"]["cost"] in wanda and "Sun et al. 2024" in wanda
    assert "BERT-base" not in "".join(line[:100] for line in lines)
    assert all(len(re.split(r"\s{3,}", line)) == 5 for line in lines)


def test_ls_methods_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "method", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(METHODS)
    assert {*rows[0]} == {"name", "description", "idea", "needs", "cost", "source", "file"}
    assert main(["ls", "--json"]) == 0
    (count,) = [row["count"] for row in json.loads(capsys.readouterr().out) if row["name"] == "methods"]
    assert count == len(METHODS)


def test_ls_methods_on_a_narrow_terminal_tells_the_same() -> None:
    from rich.console import Console

    from prunebench.views import listing_view

    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(listing_view(list_methods(None), "methods", narrow=True))
    text = " ".join(console.export_text().split())
    assert all(" ".join(METHODS[name]["cost"].split()) in text for name in METHODS)


def test_ls_methods_needs_no_torch(tmp_path: Path) -> None:
    program = "import sys; from prunebench.cli import main; main(['ls', 'methods']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, cwd=tmp_path)


def test_ones_own_methods_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe").mkdir()
    begin = "# @package _global_\n# my method\n#\n"
    paragraphs = "# Idea: one.\n# Two.\n# Needs: weights only\n# Cost: no training\n# Source: me. And more.\n"
    (tmp_path / "recipe" / "mine.yaml").write_text(f"{begin}{paragraphs}sparsity: 0.1\n")
    (tmp_path / "recipe" / "plain.yaml").write_text(f"{begin}# Source: me\nsparsity: 0.1\n")
    assert main(["ls", "methods", "--json", "--config-dir", str(tmp_path)]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == {*METHODS, "mine"}
    told = {"idea": "one. Two.", "needs": "weights only", "cost": "no training", "source": "me. And more."}
    assert {key: rows["mine"][key] for key in told} == told


# --- refusals -----------------------------------------------------------------------------------------------------

REFUSALS = refusal_table.refusals()


def test_the_refusals_are_what_the_script_writes() -> None:
    page = (ROOT / "docs" / "refusals.md").read_text(encoding="utf-8")
    assert page == refusal_table.page(), "run python scripts/method_cards.py --refusals"


def some_assignments(count: int) -> list[dict[str, Any]]:
    draw = random.Random(0)
    return [{axis: draw.choice(values) for axis, values in refusal_table.CHOICES.items()} for _ in range(count)]


def test_the_table_says_just_what_is_refused() -> None:
    """Over choices on all axes at once, not only over those that it was made from."""
    seen = set()
    for assignment in some_assignments(4000):
        expected = refusal_table.reasons(assignment)
        assert {refusal.reason for refusal in REFUSALS if refusal.meets(assignment)} == set(expected)
        seen |= set(expected)
    assert len(seen) > 0.9 * len(REFUSALS)


def test_grouping_loses_nothing() -> None:
    grouped = refusal_table.grouped(REFUSALS)
    assert len(grouped) < len(REFUSALS) / 2
    for assignment in some_assignments(1000):
        told = [re.sub(r"\*(\w+)\*", lambda axis: str(assignment[axis[1]]), refusal.reason)  # noqa: B023
                for refusal in grouped if refusal.meets(assignment)]  # fmt: skip
        assert sorted(told) == sorted(refusal_table.reasons(assignment))


def example_of(refusal: Any) -> dict[str, Any]:
    return refusal_table.DEFAULTS | {axis: values[0] for axis, values in refusal.choices.items()}


def words_of(assignment: dict[str, Any]) -> list[str]:
    names = [f"pruning.{axis}.name={assignment[axis]}" for axis in refusal_table.AXES]
    group = [f"pruning.pattern.{key}={value}" for key, value in refusal_table.GROUPS[assignment["pattern"]].items()]
    components, floor = f"pruning.components=[{assignment['components']}]", f"pruning.scope.floor={assignment['floor']}"
    schedule = f"pruning/schedule={assignment['schedule']}"
    return [*names, *group, components, floor, schedule, f"sparsity={assignment['sparsity']}"]


def configured(config: RunConfig, assignment: dict[str, Any]) -> RunConfig:
    config = copy.deepcopy(config)
    for axis in refusal_table.AXES:
        getattr(config.pruning, axis).name = assignment[axis]
    for key, value in refusal_table.GROUPS.get(assignment["pattern"], {}).items():
        setattr(config.pruning.pattern, key, value)
    config.pruning.components, config.pruning.scope.floor = [assignment["components"]], assignment["floor"]
    config.sparsity = assignment["sparsity"]
    config.pruning.schedule = schedule_of(assignment["schedule"])
    return config


def schedule_of(name: str) -> Any:
    given = OmegaConf.load(OPTIONS["pruning/schedule"][name].path)
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ScheduleConfig), given))


@pytest.fixture(scope="module")
def plain() -> RunConfig:
    return load_config(["recipe=one_shot", "dataset=sst2"])


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.reason[:60])
def test_what_is_refused_is_refused_before_a_run(refusal: Any, plain: RunConfig) -> None:
    assert refusal.reason in problems(configured(plain, example_of(refusal)))


@pytest.mark.parametrize(
    "refusal", [refusal for refusal in REFUSALS if refusal.choices.get("pattern", ("n_m",))[0] != "unstructured"][::8]
)
def test_plan_refuses_with_that_line(refusal: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assignment = example_of(refusal) | ({"pattern": "n_m"} if "pattern" not in refusal.choices else {})
    assert main(["plan", "recipe=one_shot", "dataset=sst2", *words_of(assignment)]) == 2
    assert f"prunebench: error: {refusal.reason}" in capsys.readouterr().err.splitlines()


PRUNE_FIRST = {"before_training", "from_scratch"}  # all of it before they train, as one_shot
NEVER_PRUNE = {"dense", "sparse_transfer", "sparse_transfer_linear"}


@pytest.mark.parametrize("name", sorted(set(OPTIONS["pruning/schedule"]) - NEVER_PRUNE))
def test_every_schedule_goes_with_every_criterion_scope_and_pattern(name: str, plain: RunConfig) -> None:
    schedule, choices = schedule_of(name), refusal_table.CHOICES
    for index, criterion in enumerate(choices["criterion"]):
        for pattern in choices["pattern"]:
            scope = "uniform" if pattern == "n_m" else choices["scope"][index % len(choices["scope"])]
            picked = refusal_table.DEFAULTS | {"criterion": criterion, "pattern": pattern, "scope": scope}
            other = "one_shot" if name in PRUNE_FIRST else "gradual"
            picked |= {"schedule": name if name in choices["schedule"] else other}
            config = configured(plain, picked)
            config.pruning.schedule = schedule
            assert problems(config) == refusal_table.reasons(picked)
    picked = refusal_table.DEFAULTS | {"schedule": picked["schedule"]}
    for dynamics in choices["dynamics"]:
        config = configured(plain, picked | {"dynamics": dynamics})
        config.pruning.schedule = schedule
        assert problems(config) == refusal_table.reasons(picked | {"dynamics": dynamics})


# --- what the rules know of methods is what the classes are --------------------------------------------------------


def criteria_that(test: Any) -> set[str]:
    return {name for name in CRITERIA.names() if test(CRITERIA.check(name, seed=0))}


def test_solvers() -> None:
    assert criteria_that(lambda cls: issubclass(cls, Solver)) == set(axes.SOLVERS)


def test_second_order_criteria_know_an_update() -> None:
    assert criteria_that(lambda cls: cls.compensate is not Criterion.compensate) == set(axes.SECOND_ORDER)


def refuses_groups_of_three(criterion: Any) -> bool:
    """Given Fisher blocks of 50."""
    try:
        criterion.check(3)
    except UsageError:
        return True
    return False


def test_criteria_with_fisher_blocks() -> None:
    sized = criteria_that(lambda cls: "block_size" in inspect.signature(cls).parameters)
    refusing = {name for name in sized if refuses_groups_of_three(CRITERIA.build(name, {"block_size": 50}))}
    assert refusing == set(axes.BLOCK_FISHER)
    assert all(CRITERIA.build(name).block_size == size for name, size in axes.BLOCK_FISHER.items())  # type: ignore[attr-defined]


@pytest.mark.parametrize(("m", "fits"), [(5, True), (50, True), (3, False), (100, False)])
def test_fisher_blocks_that_the_pattern_does_not_fit_are_refused_without_torch(m: int, fits: bool) -> None:
    scale = ["dataset=quickstart", "model=quickstart"]
    words = ["recipe=obert", *scale, "pruning/pattern=block4", f"pruning.pattern.m={m}"]
    found = "\n".join(problems(load_config(words)))
    assert ("Fisher blocks of 50" in found) is not fits


def test_statistics_that_the_memory_cannot_hold_are_refused_before_the_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, pruning__criterion=AxisConfig("woodfisher", {"block_size": 2000}))
    monkeypatch.setattr("prunebench.assemble.memory_of", lambda device: 10_000)
    with pytest.raises(UsageError, match=r"woodfisher keeps .* gradients of .*: lower pruning\.calibration"):
        run(config)
    assert not list((tmp_path / "outputs").glob("*/*/config.yaml"))  # no dense run either


def test_learned_criteria_are_dynamics() -> None:
    assert criteria_that(lambda cls: issubclass(cls, Dynamics)) == set(axes.LEARNED)


def test_criteria_that_look_at_inputs() -> None:
    looking = {name for name in CRITERIA.names() if isinstance(CRITERIA.build(name, seed=0).stat(target()), InputStat)}
    assert looking == set(axes.LOOK_AT_INPUTS)


def test_refinements_and_updates_that_look_at_inputs() -> None:
    """check_axes takes it for granted of all refinements, and of least_squares alone."""
    assert all(isinstance(REFINEMENTS.build(name).stat(target()), InputStat) for name in REFINEMENTS.names())
    looking = {name for name in UPDATES.names() if isinstance(UPDATES.build(name).stat(target()), InputStat)}
    assert looking == {"least_squares"}


def test_scopes_that_compare_matrices() -> None:
    assert {name for name in SCOPES.names() if not issubclass(SCOPES.check(name), PerMatrix)} == set(axes.COMPARING)


def test_dynamics_that_want_n_m() -> None:
    assert set(PATTERNS.names()) == {"unstructured", "block", "n_m"}
    wanting = set()
    for name in DYNAMICS.names():
        for pattern, group in (("unstructured", {}), ("block", {"m": 4})):
            sparsifier = build_sparsifier([target()], pattern=pattern, **group)  # type: ignore[arg-type]
            try:
                DYNAMICS.build(name, seed=0).begin(nn.Linear(1, 1), sparsifier)
            except UsageError:
                wanting.add(name)
    assert wanting == set(axes.N_M_DYNAMICS)


# --- settings of methods ------------------------------------------------------------------------------------------

REGISTRIES = {
    "criterion": CRITERIA, "scope": SCOPES, "refinement": REFINEMENTS, "update": UPDATES, "regrowth": REGROWTHS,
    "dynamics": DYNAMICS,
}  # fmt: skip


@pytest.mark.parametrize("axis", REGISTRIES)
def test_yamls_have_every_setting_of_their_class(axis: str) -> None:
    """What `plan` takes for all settings there are, with types, is what the class takes."""
    for name, params in component_params(f"pruning/{axis}").items():
        if name == "none":
            continue
        cls: Any = REGISTRIES[axis].check(name, params, seed=0, floor=0.0)
        takes = {key: value.default for key, value in inspect.signature(cls).parameters.items()}
        assert set(params) == set(takes) - set(OFFERED), name
        for key, value in params.items():
            assert value is None or takes[key] is None or type(value) is type(takes[key]), (name, key)


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        (
            "+pruning.criterion.params.block=3",
            "criterion obert has no setting 'block' (did you mean 'block_size'?): it ",
        ),
        ("pruning.criterion.params.damp=large", "criterion obert: damp=large must be a number"),
        ("pruning.criterion.params.exact=1", "criterion obert: exact=1 must be true or false"),
        ("+pruning.scope.params.p=0.5", "scope global has no setting 'p': it takes none"),
    ],
)
def test_settings_of_methods_are_checked_without_torch(word: str, problem: str) -> None:
    config = load_config(["recipe=obert", "dataset=quickstart", "model=quickstart", word])
    assert [line for line in problems(config) if line.startswith(problem)], problems(config)
