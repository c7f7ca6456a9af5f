"""The cards of docs/methods are those of the recipes and the league table, and README.md leads to all of them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from prunebench.compose import load_config
from prunebench.listing import list_methods
from prunebench.options import find_options

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import method_cards  # noqa: E402
from league_notes import Standings  # noqa: E402

OPTIONS = find_options()
METHODS = [method["name"] for method in list_methods(None)]


def test_the_cards_are_what_the_script_writes() -> None:
    cards = method_cards.cards()
    assert set(method_cards.CARDS.glob("*.md")) == set(cards)
    stale = [path.name for path, text in cards.items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "run python scripts/method_cards.py"


def test_the_readme_has_the_families() -> None:
    assert method_cards.families_table("docs/methods") in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_method_has_a_family() -> None:
    found = method_cards.families(set(METHODS))
    assert method_cards.OTHERS not in found, "give it one in scripts/method_cards.py"
    assert sorted(name for names in found.values() for name in names) == sorted(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_card_has_the_choices_that_hydra_makes(name: str) -> None:
    config = load_config([f"recipe={name}"])
    card = (method_cards.CARDS / f"{name}.md").read_text(encoding="utf-8")
    taken = dict(re.findall(r"\*\*`(?:pruning/)?(\w+)=(\w+)`\*\*", card))
    for axis in ("criterion", "scope", "pattern", "refinement", "update", "regrowth", "dynamics"):
        option = OPTIONS[f"pruning/{axis}"][taken.get(axis, "none")]
        assert f"name: {getattr(config.pruning, axis).name}\n" in option.path.read_text() + "\n"
    assert taken["schedule"] == config.pruning.schedule.name
    for key, value in config.pruning.criterion.params.items():
        assert f"| `pruning.criterion.params.{key}` | `{method_cards.written(value)}` |" in card


def line(method: str, score: float, *, part: str = "one_shot", sparsity: float = 0.6, **more: Any) -> dict[str, Any]:
    common = {"seed": 1, "dense": 0.9, "seconds": 10.0, "peak_mb": 1000}
    return {"method": method, "part": part, "score": score, "sparsity": sparsity} | common | more


LEAGUE = [
    line("one_shot_only", 0.80), line("wanda", 0.82, seconds=30.0), line("wanda", 0.84, seed=2, seconds=50.0),
    line("lamp", 0.805),
    line("snip", 0.6), line("magnitude_2_4", 0.85, sparsity=0.5), line("wanda_2_4", 0.86, sparsity=0.5, peak_mb=2500),
    line("gradual", 0.7, part="trained", sparsity=0.9),
]  # fmt: skip


def test_notes_come_from_the_league_table() -> None:
    standings = Standings(LEAGUE)
    assert standings.notes("wanda").splitlines() == [
        "- `wanda` in one shot at 60 %: first of 4, 83.0, 3.0 points above magnitude and 7.0 points below dense; "
        "30 s, 1.0 GB.",
        "- `wanda_2_4` in one shot at 50 %: first of 2, 86.0, 1.0 points above magnitude and 4.0 points below dense; "
        "10 s, 2.5 GB.",
        "- **Good at**: accuracy in one shot at 60 % (+3.0 points).",
        "- **Bad at**: time in one shot at 60 % (3.0 times magnitude's), "
        "memory in one shot at 50 % (2.5 times magnitude's).",
    ]
    assert standings.ranks("wanda") == ["1 of 4", "", ""]
    assert "**Bad at**: accuracy in one shot at 60 % (-20.0 points)" in standings.notes("snip")
    assert "fourth of 4" in standings.notes("snip")
    assert standings.notes("lamp").count("nothing that stands out") == 2
    assert "no line" in standings.notes("acdc") and "no line" in Standings([]).notes("wanda")


def test_magnitude_is_not_compared_with_itself() -> None:
    notes = Standings(LEAGUE).notes("one_shot_only")
    assert "third of 4, 80.0, 10.0 points below dense" in notes and "above magnitude" not in notes
    assert "Good at" not in notes and "The others are compared with it" in notes


def test_whole_trainings_are_compared_with_gradual() -> None:
    more = [line("acdc", 0.75, part="trained", sparsity=0.9), line("sr_ste", 0.75, part="trained", sparsity=0.5)]
    standings = Standings([*LEAGUE, *more])
    assert "first of 2, 75.0, 5.0 points above gradual and 15.0 points below dense" in standings.notes("acdc")
    assert "the only one" in standings.notes("sr_ste") and "No magnitude pruning to compare it with" in standings.notes(
        "sr_ste"
    )


def test_the_command_of_a_card_is_that_of_the_recipe() -> None:
    card = (method_cards.CARDS / "sparse_transfer.md").read_text(encoding="utf-8")
    assert "prunebench run recipe=sparse_transfer model=hf model.name=" in card
