"""Every YAML of conf/ composes, is sound, makes a plan, and says what it is."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest

from prunebench.compose import load_config
from prunebench.digest import dense_config
from prunebench.options import LISTINGS, Option, find_options
from prunebench.plan import make_plan
from prunebench.preview import preview, to_json
from prunebench.validate import problems

OPTIONS = find_options()
ALL = [option for options in OPTIONS.values() for option in options.values()]
TWO_FOUR = ["pruning/pattern=2_4", "sparsity=0.5"]
NEEDS = {  # what an option cannot do without
    "2_4": ["sparsity=0.5"],
    "4_8": ["sparsity=0.5"],
    "dense": ["recipe=dense"],
    "sr_ste": TWO_FOUR,
    "gradient_flow_linear": TWO_FOUR,
    "gradient_flow_exp": TWO_FOUR,
    "step_n_m": TWO_FOUR,
    "step_n_m_geometric": TWO_FOUR,
    "sparsegpt": ["pruning/scope=uniform"],
    "sparse_transfer": ["recipe=sparse_transfer"],
    "sparse_transfer_linear": ["recipe=sparse_transfer_linear"],
    "obs": ["pruning/criterion=obert"],
    "t5_small": ["dataset=wmt16_en_ro"],
    "bart_base": ["dataset=wmt16_en_ro"],
    "wmt16_en_ro": ["model=t5_small"],
    "svamp": ["model=t5_small"],
    "translation": ["model=bart_base"],
}
OWN_FILES = ("classification", "question_answering", "language_modelling", "translation")  # datasets that need some
PAIRS = ("svamp", "wmt16_en_ro")  # that need an encoder-decoder
EXAMPLES = 100_000  # enough for 100 prunings an epoch in batches of 256


def test_every_group_can_be_listed() -> None:
    assert set(OPTIONS) == set(LISTINGS.values())


@pytest.mark.parametrize("option", ALL, ids=lambda option: f"{option.group}={option.name}")
def test_every_option_composes_and_makes_a_plan(option: Option, tmp_path: Path) -> None:
    config = load_config([*_needs(option, tmp_path), f"{option.group}={option.name}"])
    assert problems(config) == []
    assert problems(dense_config(config)) == []  # which a run trains first
    assert make_plan(config, EXAMPLES).steps >= 0
    json.dumps(to_json(preview(config, OPTIONS)), allow_nan=False)


def _needs(option: Option, folder: Path) -> list[str]:
    base = [] if option.group == "recipe" else ["recipe=bert_smc_90"]
    if option.group == "model" and option.name == "hf":
        base.append("model.name=owner/name")
    if option.group == "model" and option.name == "quickstart":
        base.append("dataset=quickstart")
    if option.group == "dataset" and option.name in OWN_FILES:
        data = folder / "data.jsonl"
        answers = '"context": "a b", "question": "?", "answers": {"text": ["b"], "answer_start": [2]}'
        texts = '"text": "good", "source": "good", "target": "bon"'
        rows = (
            f'{{"sentence": "{word}", "label": "{i}", {texts}, {answers}}}\n' for i, word in enumerate(("bad", "good"))
        )
        data.write_text("".join(rows) * 1000)
        base += [f"dataset.train_file={data}", f"dataset.validation_file={data}"]
    if option.group == "dataset" and option.name == "multiple_choice":
        data = folder / "choices.jsonl"
        data.write_text('{"ctx": "a", "endings": ["b", "c"], "label": 1}\n' * 1000)
        base += [f"dataset.train_file={data}", "dataset.holdout=100"]
    return base + (NEEDS.get(option.name, []) if option.group != "recipe" else [])


@pytest.mark.parametrize("option", ALL, ids=lambda option: f"{option.group}={option.name}")
def test_every_option_says_in_its_first_line_what_it_is(option: Option) -> None:
    assert len(option.description()) > 10


@pytest.mark.parametrize("option", OPTIONS["recipe"].values(), ids=lambda option: option.name)
def test_every_recipe_gives_its_command_and_its_source(option: Option) -> None:
    header = "\n".join(option.header())
    assert f"prunebench run recipe={option.name}" in header
    assert option.name == "dense" or option.name.startswith("quickstart") or "Source:" in header


@pytest.mark.parametrize("option", OPTIONS["recipe"].values(), ids=lambda option: option.name)
def test_reconstructions_say_so(option: Option) -> None:
    """Of the guidelines paper only the abstract is known, and of GMP* what is remembered."""
    if "_smc_" in option.name or "gmp_star" in option.name:
        assert "reconstruction" in "\n".join(option.header())
        shown = preview(load_config([f"recipe={option.name}"]), OPTIONS)
        assert any("reconstruction" in note for note in shown.notes)


@pytest.mark.parametrize(
    ("recipe", "dataset", "model"),
    list(
        product(
            sorted(name for name in OPTIONS["recipe"] if not name.startswith("upstream_")),  # these are for text
            sorted(set(OPTIONS["dataset"]) - {*OWN_FILES, *PAIRS, "multiple_choice"}),
            ["roberta_large", "distilbert_base", "gpt2"],
        )
    )[::11],  # some of them: each recipe meets each dataset or model sooner or later
)
def test_recipes_go_with_any_dataset_and_model(recipe: str, dataset: str, model: str) -> None:
    small = "trainer.batch_size=4"  # or WNLI's epoch has fewer steps than some prune in one
    config = load_config([f"recipe={recipe}", f"dataset={dataset}", f"model={model}", small])
    if (dataset, model) == ("winogrande_span", "gpt2"):  # which cannot fill in blanks
        return
    assert problems(config) == []
    assert config.dataset.task == "synthetic" or make_plan(config, EXAMPLES).steps >= 0


@pytest.mark.parametrize("sparsity", [0.5, 0.7, 0.8, 0.9, 0.93, 0.95, 0.97])
def test_a_higher_sparsity_scales_the_schedule(sparsity: float) -> None:
    """A unit for every halving of what is left, counted by hand; one more with the mask fixed."""
    halvings = 0
    while 0.5**halvings > 1 - sparsity + 1e-12:
        halvings += 1
    config = load_config(["recipe=bert_smc_90", "dataset=sst2", f"sparsity={sparsity}"])
    plan = make_plan(config, examples=3200)
    assert plan.steps == (halvings + 1) * 2 * 100
    assert plan.prunings[-1] == (halvings * 2 * 100, sparsity)
