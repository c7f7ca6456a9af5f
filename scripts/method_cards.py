"""A card for every method: docs/methods/*.md, from the recipes, their settings and docs/league.json.

    python scripts/method_cards.py                  # writes docs/methods/
    python scripts/method_cards.py --refusals       # writes docs/refusals.md (see refusal_table.py)
    python scripts/method_cards.py --families       # prints the table of README.md's section "Methods"

A method is a recipe whose header has the paragraphs Idea, Needs, Cost and Source. What it is good and bad at is said by
the league table alone (scripts/league_table.py).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from prunebench.config import AdaptersConfig
from prunebench.listing import list_methods
from prunebench.options import Option, find_options
from prunebench.paths import conf_dir
from prunebench.sparsity.axes import AXES

ROOT = Path(__file__).resolve().parents[1]
CARDS = ROOT / "docs" / "methods"
REFUSALS = ROOT / "docs" / "refusals.md"
LEFT_OUT = {"name", "params", "phases", "defaults"}
NEEDED = {"criterion", "scope", "pattern", "schedule"}  # told of every method; the others where they are not none

FAMILIES = {
    "Baselines and controls": "one_shot_only one_shot random_erk random_snip_ratios from_scratch",
    "Budgets of the matrices, magnitude within them": "lamp global_mp pq_index random_search",
    "Data, but no training": (
        "wanda wanda_variant gblm dsnot sparsegpt sparsegpt_2_4 least_squares obert_one_shot diagonal_fisher"
    ),
    "Curvature of the loss": "obert woodfisher mfac mfac_full",
    "Gradients": "snip taylor gradient_magnitude",
    "Little by little during training": "gradual window_25_75 smc_bench_gmp uniform_gmp_30",
    "The same with rewinds and distillation": "bert_smc_90 gmp_star_10 gmp_star_30 obert_10 obert_30",
    "Rounds of training and pruning": "lottery_ticket lottery_ticket_early lr_rewinding",
    "Pruned weights come back": "acdc rigl granet movement soft_movement",
    "Training that prepares for pruning": "cram cram_multi cram_2_4 soft_shrinkage sr_ste gradient_flow",
    "A teacher for the layers": "squarehead hidden_states",
    "A sparse model to start from": "sparse_transfer sparse_transfer_linear",
    "Retraining after pruning": "perp sparse_soup",
}
OTHERS = "Others"
UNIT = " A unit is the task's dense training."


def cards() -> dict[Path, str]:
    """Every file of docs/methods and what is to be in it."""
    from league_notes import Standings

    methods, standings = list_methods(None), Standings.read()
    texts = {CARDS / f"{method['name']}.md": card(method, standings.notes(method["name"])) for method in methods}
    return texts | {CARDS / "README.md": index(methods, standings)}


# --- a card -------------------------------------------------------------------------------------------------------


def card(method: Mapping[str, str], notes: str) -> str:
    return f"""# {method["name"]}

{plain(method["description"])}.

{plain(method["idea"])}

```bash
{command(method["name"])}
```

- **Needs**: {plain(method["needs"])}.
- **Costs**: {plain(method["cost"])}.{UNIT if " unit" in method["cost"] else ""}
- **Source**: {plain(method["source"])}

## Settings

{"".join(_settings(method))}
## By our league table

{notes}
"""


def command(name: str) -> str:
    """As the recipe's header has it."""
    return next(line for line in find_options()["recipe"][name].header() if line.startswith("prunebench run"))


def plain(text: str) -> str:
    """Text in which Markdown finds nothing to format."""
    return re.sub(r"([*|<])", r"\\\1", text)


def chosen(recipe: Mapping[str, Any]) -> dict[str, str]:
    """The option that a recipe takes of every axis."""
    base = yaml.safe_load((conf_dir() / "config.yaml").read_text())["defaults"]
    entries = [entry for entry in (*base, *recipe.get("defaults", ())) if isinstance(entry, dict)]
    pairs = {key.removeprefix("override ").lstrip("/"): str(name) for entry in entries for key, name in entry.items()}
    return {axis: pairs[f"pruning/{axis}"] for axis in (*AXES, "schedule")} | {"distillation": pairs["distillation"]}


def _settings(method: Mapping[str, str]) -> Iterator[str]:
    recipe = yaml.safe_load(Path(method["file"]).read_text())
    options = find_options()
    for axis, name in chosen(recipe).items():
        if axis in NEEDED or name != "none":
            group = axis if axis == "distillation" else f"pruning/{axis}"
            yield _choice(group, options[group][name])
    phases = yaml.safe_load(options["pruning/schedule"][chosen(recipe)["schedule"]].path.read_text())["phases"]
    if any(phase.get("train") == "perp" for phase in phases):
        adapters = vars(AdaptersConfig())
        rows = (f"| `pruning.adapters.{key}` | `{written(value)}` |\n" for key, value in adapters.items())
        yield "**Adapters**\n\n| setting | default |\n|---|---|\n" + "".join(rows) + "\n"
    own = {key: value for key, value in flat(recipe) if key not in LEFT_OUT}
    yield "The recipe sets " + ", ".join(f"`{key}={written(value)}`" for key, value in own.items()) + ".\n"
    if re.search("example|gradient", method["needs"]):
        yield "How many examples are looked at: `pruning.calibration.examples`, `pruning.calibration.batch_size`.\n"


def _choice(group: str, option: Option) -> str:
    """What an option is, what its comments say, and its settings with their defaults."""
    said = [line for line in option.header() if line]
    text = f"**`{group}={option.name}`**: {plain(' '.join(said[:1]))}. {plain(' '.join(said[1:]))}".rstrip() + "\n\n"
    values = yaml.safe_load(option.path.read_text())
    settings = {f"params.{key}": value for key, value in (values.get("params") or {}).items()}
    settings |= {key: value for key, value in values.items() if key not in LEFT_OUT}
    if not settings:
        return text
    rows = (f"| `{group.replace('/', '.')}.{key}` | `{written(value)}` |\n" for key, value in settings.items())
    return text + "| setting | default |\n|---|---|\n" + "".join(rows) + "\n"


def flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def written(value: Any) -> str:
    """As on a command line."""
    if isinstance(value, list):
        return "[" + ",".join(written(each) for each in value) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.10g}" if isinstance(value, float) else str(value)


# --- the index ----------------------------------------------------------------------------------------------------


def index(methods: list[dict[str, str]], standings: Any) -> str:
    known = {method["name"]: method for method in methods}
    text = f"""# Methods

Written by `python scripts/method_cards.py` from the recipes and `docs/league.json`. `prunebench ls methods` prints what
they are, need and cost. A unit is the task's dense training, and the dense model itself is not counted; memory is what
comes on top of training. {standings.explanation}
"""
    for family, names in families(set(known)).items():
        text += f"\n## {family}\n\n| method | needs | costs | {' | '.join(standings.headings)} |\n|---|---|---"
        text += "|---" * len(standings.headings) + "|\n"
        for name in names:
            cells = [f"[{name}]({name}.md)", plain(known[name]["needs"]), plain(known[name]["cost"])]
            text += f"| {' | '.join([*cells, *standings.ranks(name)])} |\n"
    return text


def families(known: set[str]) -> dict[str, list[str]]:
    """The methods that there are, by family."""
    found = {family: [name for name in names.split() if name in known] for family, names in FAMILIES.items()}
    others = sorted(known - {name for names in found.values() for name in names})
    return {family: names for family, names in (found | {OTHERS: others}).items() if names}


def families_table(folder: str) -> str:
    """A line for each family, with links into `folder`."""
    text = "| family | recipes |\n|---|---|\n"
    for family, names in families({method["name"] for method in list_methods(None)}).items():
        text += f"| {family} | {', '.join(f'[{name}]({folder}/{name}.md)' for name in names)} |\n"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refusals", action="store_true", help=f"write {REFUSALS.relative_to(ROOT)}")
    parser.add_argument("--families", action="store_true", help="print README.md's table")
    args = parser.parse_args()
    if args.refusals:
        from refusal_table import page

        REFUSALS.write_text(page(), encoding="utf-8")
    elif args.families:
        print(families_table(CARDS.relative_to(ROOT).as_posix()), end="")
    else:
        write(cards())


def write(texts: Mapping[Path, str]) -> None:
    """Cards of methods that are gone go."""
    CARDS.mkdir(exist_ok=True)
    for path in set(CARDS.glob("*.md")) - set(texts):
        path.unlink()
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
