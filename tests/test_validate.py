from __future__ import annotations

from pathlib import Path

import pytest

from prunebench.compose import load_config
from prunebench.config import PhaseConfig, RunConfig
from prunebench.contradictions import positions
from prunebench.errors import UsageError
from prunebench.validate import CHOICES, COMPONENTS, RANGES, Range, check, problems


def config_of(*overrides: str) -> RunConfig:
    return load_config(["recipe=bert_smc_90", "dataset=sst2", *overrides])


def test_the_default_is_sound() -> None:
    assert problems(config_of()) == []
    check(config_of())


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1)", [0, 0.5, 0.999], [-0.1, 1, 2, float("nan"), float("inf")]),
        ("(0, inf)", [1e-9, 1e9], [0, -1, float("nan"), float("inf")]),
        ("[0, 1]", [0, 1], [1.0001, -1]),
        ("[1, inf)", [1, 10], [0, float("inf")]),
    ],
)
def test_intervals_are_as_mathematics_writes_them(interval: str, inside: list[float], outside: list[float]) -> None:
    rule = Range("x", interval)
    assert all(rule.holds(value) for value in inside)
    assert not any(rule.holds(value) for value in outside)


@pytest.mark.parametrize("rule", RANGES, ids=lambda rule: rule.key)
def test_every_range_is_told_with_key_and_value(rule: Range) -> None:
    """Beyond the lower bound by one: whole numbers and fractions alike."""
    config = config_of()
    low = float(rule.interval[1:].split(",")[0])
    *parents, name = rule.key.split(".")
    place: object = config
    for parent in parents:
        place = getattr(place, parent)
    setattr(place, name, int(low) - 1)
    (line,) = problems(config)
    assert line.startswith(f"{rule.key}={int(low) - 1}: must be ")


@pytest.mark.parametrize("key", [*CHOICES, "pruning.components"])
def test_every_choice_is_told_with_the_nearest_name(key: str) -> None:
    names = CHOICES.get(key, COMPONENTS)
    wrong = names[0] + "x"
    lines = problems(config_of(f"{key}={f'[{wrong}]' if key == 'pruning.components' else wrong}"))
    assert lines[0].startswith(f"{key}={wrong}: must be one of ") and f"did you mean '{names[0]}'" in lines[0]


def test_criteria_of_other_packages_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint, EntryPoints

    point = EntryPoint("mine", "package.module:Mine", "prunebench.criteria")
    monkeypatch.setattr("prunebench.validate.entry_points", lambda group: EntryPoints([point]).select(group=group))
    assert problems(config_of("pruning.criterion.name=mine")) == []
    assert "did you mean 'mine'?" in problems(config_of("pruning.criterion.name=mime"))[0]
    assert len(problems(config_of("pruning.scope.name=mine"))) == 1


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["trainer.lr=inf"], "trainer.lr=inf: must be a finite number, in (0, 1000000]"),
        (["sparsity=nan"], "sparsity=nan: must be a finite number, in [0, 1) (0.9 leaves a tenth of the weights)"),
        (["distillation.temperature=hot"], "distillation.temperature=hot: must be a number greater than 0, or auto"),
        (["distillation.temperature=0"], "distillation.temperature=0.0: must be a number greater than 0, or auto"),
        (["tracker.tags=['']"], "tracker.tags=[]: a tag has 1 to 64 characters"),
        (["trainer.betas=[0.9,1.0]"], "trainer.betas=[0.9,1]: must be two numbers in [0, 1), like [0.9,0.999]"),
        (["pruning.components=[]"], "pruning.components=[]: name at least one of encoder, pooler, embeddings, head"),
        (["pruning.components=[all,head]"], "pruning.components: all stands alone, it has every other component in it"),
        (["trainer.accumulation=3"], "trainer.accumulation=3 does not divide trainer.batch_size=32: choose a divisor"),
        (["distillation.teacher=none"],
         "distillation.hardness=1, but distillation.teacher=none: set it to auto, or distillation=none"),
        (["dataset.max_length=600"],
         "dataset.max_length=600: google-bert/bert-base-uncased takes at most 512 tokens; lower it to 512"),
        (["model=roberta_base", "dataset.max_length=513"],
         "dataset.max_length=513: FacebookAI/roberta-base takes at most 512 tokens; lower it to 512"),
        (["start=techer"],
         "start=techer: must be teacher, pretrained or the folder of a fine-tuned model (did you mean 'teacher'?)"),
        (["model.name=/no/such"], "model.name=/no/such: there is no such folder"),
        (["distillation.teacher=./no"], "distillation.teacher=./no: must be auto, none, a folder or owner/name"),
        (["dataset.train_file=/no/such.csv", "dataset.holdout=3"], "dataset.train_file=/no/such.csv: no such file"),
        (["pruning/pattern=2_4"], "pattern 2:4 keeps 50 % in every group: set sparsity=0.5"),
        (["model=distilbert_base", "pruning.components=[encoder,pooler]"],
         "pruning.components: distilbert/distilbert-base-uncased has no pooler for this task: leave it out"),
    ],
)  # fmt: skip
def test_one_cause_one_line(overrides: list[str], line: str) -> None:
    assert problems(config_of(*overrides)) == [line]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["sparsity=0"], "nothing to prune"),
        (["pruning/schedule=dense"], "never prunes"),
        (["trainer.final_lr=1"], "trainer.final_lr=1 is above trainer.lr=5e-05"),
        (["pruning.schedule.lr=1e-6", "trainer.final_lr=1e-5"], "is above pruning.schedule.lr=1e-06"),
        (["pruning.schedule.lr=1e-3", "pruning.schedule.final_lr=1e-5", "trainer.final_lr=1e-4"], "the dense model"),
        (["pruning.components=[pooler]", "pruning.budget_from=[encoder]"], "leaves nothing of the 589,824 in pooler"),
        (["dataset.regression=true", "dataset.metrics=[pearson]", "dataset.metric=pearson"], "exclude each other"),
    ],
)
def test_contradictions(overrides: list[str], words: str) -> None:
    (line,) = problems(config_of(*overrides))
    assert words in line


def test_a_dense_run_has_no_teacher() -> None:
    lines = problems(load_config(["recipe=dense", "start=teacher", "distillation=guidelines"]))
    assert [line.split(",")[0] for line in lines] == ["start=teacher", "distillation.hardness=1"]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/abs", ".hidden", "a\\b", "a\nb", "x" * 101, " "])
def test_names_cannot_lead_out_of_the_outputs(name: str) -> None:
    config = config_of()
    config.name = name
    assert any(line.startswith("name=") for line in problems(config))


@pytest.mark.parametrize("name", ["bert_smc_90", "my run-2", "a.b", "ünïcode", "x" * 100])
def test_plain_names_are_fine(name: str) -> None:
    config = config_of()
    config.name = name
    assert problems(config) == []


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        (PhaseConfig(epochs=-1, prune=True), "epochs=-1 must be in [0, 10000]"),
        (PhaseConfig(repeat=0, prune=True), "repeat=0 must be in [1, 1000]"),
        (PhaseConfig(only_from="start", prune=True), "only_from=start must be pretrained or null"),
        (PhaseConfig(units=float("nan"), prune=True), "units=nan must be in [0, 10000]"),
    ],
)
def test_phases(phase: PhaseConfig, words: str) -> None:
    config = config_of()
    config.pruning.schedule.phases = [phase]
    (line,) = problems(config)
    assert "pruning.schedule.phases[0]" in line and words in line


def test_values_are_checked_before_contradictions() -> None:
    """A contradiction between impossible values would only confuse."""
    lines = problems(config_of("sparsity=2", "trainer.batch_size=0", "pruning/pattern=2_4"))
    assert [line.split("=")[0] for line in lines] == ["sparsity", "trainer.batch_size"]


def test_check_raises_all_lines(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as caught:
        check(config_of("sparsity=1", f"outputs={tmp_path}/file"))
    assert len(str(caught.value).splitlines()) == 2


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    (line,) = problems(config_of(f"start={tmp_path}"))
    assert line.endswith("the folder has no config.json; give one that save_pretrained has written")


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"model_type": "bert", "max_position_embeddings": 64}, 64),
        ({"model_type": "roberta", "max_position_embeddings": 514}, 512),
        ({"model_type": "gpt2", "n_positions": 100}, 100),
        ({"model_type": "distilbert"}, 512),
        ({"model_type": "deberta-v2", "position_biased_input": False}, None),
        ({"model_type": "unheard-of", "max_position_embeddings": 5}, None),
        ({}, None),
    ],
)
def test_positions(config: dict[str, object], longest: int | None) -> None:
    assert positions(config) == longest


def test_choices_are_what_there_is() -> None:
    """validate knows names without importing torch; here they are compared with the real ones."""
    from prunebench.sparsity import criteria, patterns, scopes
    from prunebench.targets import COMPONENTS as REAL_COMPONENTS

    for key, registry in (
        ("pruning.criterion.name", criteria.CRITERIA),
        ("pruning.scope.name", scopes.SCOPES),
        ("pruning.pattern.name", patterns.PATTERNS),
    ):
        assert sorted(CHOICES[key]) == registry.names()
    assert set(COMPONENTS) == set(REAL_COMPONENTS)
