from __future__ import annotations

import json
from pathlib import Path

import pytest

from prunebench.compose import apply_settings, load_config, read_run_config
from prunebench.config import RunConfig
from prunebench.errors import UsageError

RECIPE = "recipe=bert_smc_90"


def lines_of(*overrides: str, config_dir: str | None = None) -> list[str]:
    """The lines of the error that composing raises."""
    with pytest.raises(UsageError) as caught:
        load_config(list(overrides), config_dir)
    return str(caught.value).splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A fine-tuned model's folder, as far as composing looks into it."""
    model = tmp_path / "my bert (v2)"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 8}))
    return model


# --- who wins -----------------------------------------------------------------------------------------------------


def test_a_recipe_is_a_real_config_with_its_own_name() -> None:
    config = load_config([RECIPE])
    assert isinstance(config, RunConfig)
    assert (config.recipe, config.name, config.sparsity, config.start) == ("bert_smc_90", "bert_smc_90", 0.9, "teacher")
    assert config.dataset.name == "squad"
    assert config.trainer.batch_size == 16  # comes with the dataset
    assert config.pruning.schedule.phases[0].name == "dense"


def test_the_command_line_wins_over_recipe_dataset_and_model() -> None:
    config = load_config([RECIPE, "dataset=sst2", "model=roberta_large", "sparsity=0.93", "trainer.lr=3e-4", "name=x"])
    assert (config.dataset.name, config.sparsity, config.trainer.lr, config.name) == ("sst2", 0.93, 3e-4, "x")
    assert (config.trainer.batch_size, config.recipe) == (32, "bert_smc_90")


def test_a_dataset_brings_its_own_dense_recipe() -> None:
    """oBERT's batch is 16 on SQuAD and 32 on GLUE: the recipe must not fix it."""
    assert load_config(["recipe=obert_30"]).trainer.batch_size == 16
    assert load_config(["recipe=obert_30", "dataset=sst2"]).trainer.batch_size == 32
    assert load_config(["recipe=obert_30", "dataset=sst2", "trainer.batch_size=8"]).trainer.batch_size == 8


def test_a_recipe_wins_over_the_trainers_defaults() -> None:
    assert load_config(["recipe=smc_bench_gmp", "dataset=sst2"]).trainer.betas == [0.9, 0.98]
    assert load_config(["recipe=smc_bench_gmp", "trainer.betas=[0.9,0.95]"]).trainer.betas == [0.9, 0.95]


def test_a_recipe_wins_over_axes_and_the_command_line_over_the_recipe() -> None:
    assert load_config(["recipe=gradual"]).pruning.scope.name == "uniform"
    assert load_config(["recipe=gradual", "pruning/scope=erk"]).pruning.scope.name == "erk"


@pytest.mark.parametrize("order", [[RECIPE, "dataset=rte"], ["dataset=rte", RECIPE]])
def test_the_order_of_words_does_not_matter(order: list[str]) -> None:
    assert load_config(order).dataset.name == "rte"


def test_new_keys_of_mappings_need_no_plus() -> None:
    config = load_config([RECIPE, "pruning.criterion.params.norm=2", "dataset.examples.train=100"])
    assert config.pruning.criterion.params == {"norm": 2}
    assert config.dataset.examples["train"] == 100
    assert load_config([RECIPE, "dataset=sst2", "dataset.windows={train: 7}"]).dataset.windows == {"train": 7}


def test_names_that_look_like_numbers_are_names() -> None:
    assert load_config([RECIPE, "pruning/pattern=2_4", "sparsity=0.5"]).pruning.pattern.n == 2


@pytest.mark.parametrize(("word", "value"), [("auto", "auto"), ("3", 3.0), ("5.5", 5.5), ("1e1", 10.0)])
def test_temperature_is_auto_or_a_float(word: str, value: float | str) -> None:
    temperature = load_config([RECIPE, f"distillation.temperature={word}"]).distillation.temperature
    assert temperature == value and type(temperature) is type(value)


def test_odd_paths_need_no_second_quoting() -> None:
    config = load_config([RECIPE, "dataset.train_file=/data/été (1)/it's.csv", "outputs=~/out"])
    assert config.dataset.train_file == "/data/été (1)/it's.csv"
    assert config.outputs == str(Path.home() / "out")


def test_composing_twice_gives_independent_configs() -> None:
    first, second = load_config([RECIPE]), load_config([RECIPE])
    first.pruning.components.append("head")
    first.model.config["x"] = 1
    assert second.pruning.components == ["encoder"] and "x" not in second.model.config


# --- models in folders --------------------------------------------------------------------------------------------


def test_a_folder_to_start_from_is_the_model_and_describes_itself(folder: Path) -> None:
    config = load_config([RECIPE, "dataset=sst2", f"start={folder}"])
    assert (config.start, config.model.name) == (str(folder), str(folder))
    assert config.model.config == {"model_type": "bert", "hidden_size": 8}


def test_an_explicit_model_name_stays(folder: Path) -> None:
    config = load_config([RECIPE, f"start={folder}", "model.name=owner/bert"])
    assert config.model.name == "owner/bert"
    assert config.model.config == {}  # the YAML's description is of another model


@pytest.mark.parametrize("model", ["hf", "bert_base"])
def test_a_model_folder_describes_itself_whatever_the_yaml_says(folder: Path, model: str) -> None:
    config = load_config([RECIPE, f"model={model}", f"model.name={folder}"])
    assert config.model.config == {"model_type": "bert", "hidden_size": 8}
    assert config.start == "teacher"


def test_a_missing_model_name_says_how_to_set_it() -> None:
    assert lines_of(RECIPE, "model=hf") == ["model.name is not set: add model.name=<hub name or folder>"]


# --- one line for every mistake -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("recipe=bert-smc-90", "recipe=bert-smc-90: no such recipe (did you mean 'bert_smc_90'?); "
         "prunebench ls recipes lists them"),
        ("pruning/schedule=dens", "pruning/schedule=dens: no such schedule (did you mean 'dense'?); "
         "prunebench ls schedules lists them"),
        ("trainer.epoch=3", "trainer.epoch=3: no such setting (did you mean 'trainer.epochs'?)"),
        ("epochs=3", "epochs=3: no such setting (did you mean 'trainer.epochs'?)"),
        ("lr=1", "lr=1: no such setting (did you mean 'trainer.lr'?)"),
        ("criterion=random", "criterion=random: no such setting (did you mean 'pruning/criterion'?)"),
        ("trainer.epochs=abc", "trainer.epochs=abc: expected a number"),
        ("trainer.epochs=", "trainer.epochs=: expected a number"),
        ("seed=1.5", "seed=1.5: expected a whole number"),
        ("seed=null", "seed=null: expected a whole number"),
        ("trainer.max_steps=x", "trainer.max_steps=x: expected a whole number or null"),
        ("dataset.header=perhaps", "dataset.header=perhaps: expected true or false"),
        ("trainer.betas=[1,x]", "trainer.betas=[1, 'x']: expected a list of numbers, like '[0.9,0.999]'"),
        ("trainer.epochs=[1", "trainer.epochs=[1: expected a number"),
        ("pruning.schedule=dense", "pruning.schedule=dense: pruning.schedule is a group of settings: "
         "choose it by pruning/schedule=dense"),
        ("dataset.examples.train=many", "dataset.examples.train=many: expected a whole number"),
        ("sparsity", "sparsity: expected key=value, like sparsity=0.9"),
        ("=3", "=3: expected key=value, like sparsity=0.9"),
        ("~sparsity", "~sparsity: only key=value is known here, without ~ and @"),
        ("recipe@x=dense", "recipe@x=dense: only key=value is known here, without ~ and @"),
        ("seed=1,2", "seed=1,2: several values need -m (prunebench run -m ...); quote a comma that belongs to one"),
        ("name=${nowhere}", "name=${nowhere}: Interpolation key 'nowhere' not found"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line(word: str, line: str) -> None:
    assert lines_of(RECIPE, word) == [line]


def test_all_mistakes_are_told_at_once_in_their_order() -> None:
    found = lines_of("recipe=nope", "trainer.epoch=1", "dataset=sst2", "seed=x")
    assert [line.split("=")[0] for line in found] == ["recipe", "trainer.epoch", "seed"]


# --- the user's own folder ----------------------------------------------------------------------------------------


def own(folder: Path, name: str, text: str) -> str:
    path = folder / "it's mine" / "recipe" / f"{name}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return str(path.parents[1])


def test_a_folder_of_ones_own_adds_recipes(tmp_path: Path) -> None:
    yaml = "# @package _global_\n# mine\ndefaults:\n  - bert_smc_90\n  - override /dataset: sst2\nsparsity: 0.6\n"
    config = load_config(["recipe=mine"], own(tmp_path, "mine", yaml))
    assert (config.recipe, config.sparsity, config.dataset.name, config.start) == ("mine", 0.6, "sst2", "teacher")


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        (
            "trainer: {epoch: 3}",
            ["trainer.epoch: no such setting (did you mean 'trainer.epochs'?)", "recipe/mine.yaml"],
        ),
        ("trainer: {epochs: many}", ["trainer.epochs", "many", "recipe/mine.yaml"]),
        ("trainer: {epochs: [}", ["mine.yaml, line 3: not valid YAML"]),
        ("defaults: [nope]", ["recipe/nope"]),
    ],
)
def test_mistakes_in_a_recipe_of_ones_own_are_one_line_too(tmp_path: Path, yaml: str, words: list[str]) -> None:
    folder = own(tmp_path, "mine", f"# @package _global_\n# mine\n{yaml}\n")
    (line,) = lines_of("recipe=mine", config_dir=folder)
    assert all(word in line for word in words), line


def test_an_option_of_ones_own_must_not_hide_one_of_ours(tmp_path: Path) -> None:
    folder = own(tmp_path, "dense", "# @package _global_\n")
    (line,) = lines_of("recipe=dense", config_dir=folder)
    assert "prunebench has a recipe dense of its own" in line


def test_a_missing_folder_of_ones_own_is_told() -> None:
    assert lines_of(RECIPE, config_dir="/no/such") == ["--config-dir /no/such: there is no such folder"]


# --- the config of a run ------------------------------------------------------------------------------------------


def test_a_runs_config_comes_back_from_its_file(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    config = load_config([RECIPE, "distillation.temperature=auto"])
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    assert read_run_config(tmp_path / "config.yaml") == config


def test_settings_of_a_run_can_be_changed_but_not_its_groups() -> None:
    config = load_config([RECIPE])
    changed = apply_settings(config, ["trainer.eval_batch_size=8", "dataset.validation_limit=5"])
    assert (changed.trainer.eval_batch_size, changed.dataset.validation_limit) == (8, 5)
    assert config.trainer.eval_batch_size == 128
    with pytest.raises(UsageError, match="model="):
        apply_settings(config, ["model=gpt2"])
