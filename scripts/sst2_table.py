"""The table of the README: what each guideline is worth on MiniLM and SST-2. Stop it and start it again as you like.

    ../shared/models/get_minilm
    python scripts/sst2_table.py ../shared/data/glue/SST-2            # hours; goes on where it was stopped
    python scripts/sst2_table.py ../shared/data/glue/SST-2 --show     # prints the table from what there is
    python scripts/sst2_table.py ../shared/data/glue/SST-2 --plot     # and draws it (pip install 'prunebench[plots]')
    python scripts/sst2_table.py ../shared/data/glue/SST-2 --choose   # how the learning rate was chosen

A fixed random subset of 10,000 training sentences, the whole dev set for the score. All rows have the same optimizer,
batch and learning rate, so that a row differs from the one before in one guideline. The learning rate was chosen by
--choose: on 2,000 other training sentences, never on dev. Every finished run is a line of docs/sst2_table.json (or
docs/sst2_choice.json); a line that is there is not computed again. Times are of one thread beside other work.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from prunebench.compare import mean_std, paired_interval
from prunebench.compose import load_config
from prunebench.paths import locked, write_text
from prunebench.run import run

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "sst2_table.json"
CHOICE = ROOT / "docs" / "sst2_choice.json"
PLOT = ROOT / "docs" / "sst2_table.svg"

SHORT = ["pruning/schedule=smc_bench_gmp", "pruning.schedule.prune_every=100", "start=pretrained"]
PLAIN = ["distillation=none"]
EVERYWHERE = ["pruning.components=[all]"]
AS_MANY = ["pruning.budget_from=[encoder]"]


@dataclass(frozen=True)
class Row:
    """A way to prune: what it changes in the recipe bert_smc_90."""

    name: str
    overrides: list[str]
    levels: tuple[float, ...] = (0.9, 0.97)


DENSE = "dense"
LR = "2e-4"  # of every row but the dense one; chosen among LRS
LRS = ("1e-4", "2e-4", "4e-4")
ROWS = (
    Row(DENSE, ["recipe=dense"], levels=(0.0,)),
    Row("SMC-Bench's way: that share of every matrix", [*EVERYWHERE, *SHORT, *PLAIN]),
    Row("SMC-Bench's way, as many weights left as below", [*EVERYWHERE, *AS_MANY, *SHORT, *PLAIN]),
    Row("guideline 1: the encoder alone", [*SHORT, *PLAIN]),
    Row("guidelines 1, 2: and the longer schedule", PLAIN),
    Row("guidelines 1, 2, 3: and distillation", []),
    Row("one-shot from the dense model, then one unit", ["pruning/schedule=one_shot", *PLAIN]),
)  # fmt: skip


def base(data: Path, model: Path, outputs: str) -> list[str]:
    """The settings of all rows."""
    return [
        "recipe=bert_smc_90",
        "dataset=sst2",
        "model=hf",
        f"model.name={model}",
        f"dataset.train_file={data}/train.tsv.gz",
        f"dataset.validation_file={data}/dev.tsv",
        "dataset.limit=10000",
        "trainer.lr=1e-4",
        "trainer.precision=bf16",
        f"outputs={outputs}",
    ]


def jobs(seeds: list[int]) -> list[tuple[Row, float, int]]:
    """Row, level and seed of every run: 90 % with all seeds, then 97 % with the first."""
    first = [(row, level, seed) for seed in seeds for row in ROWS for level in row.levels if level < 0.97]
    return first + [(row, 0.97, seeds[0]) for row in ROWS if 0.97 in row.levels]


def settings(row: Row, level: float, seed: int, lr: str = LR) -> list[str]:
    """What makes this run differ from the others; by this a line of the results is known."""
    pruned = [] if row.name == DENSE else [f"sparsity={level:g}", "pruning.dropout=0", f"pruning.schedule.lr={lr}"]
    return [*row.overrides, *pruned, f"seed={seed}"]


def composed(common: list[str], own: list[str]) -> list[str]:
    """A recipe of the row's own takes the place of the common one."""
    if any(word.startswith("recipe=") for word in own):
        common = [word for word in common if not word.startswith("recipe=")]
    return [*common, *own]


def read(path: Path) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
    return lines


def add(path: Path, line: dict[str, Any]) -> None:
    """Two of this script may be at work, with different seeds."""
    with locked(path.with_name(f".{path.name}.lock")):
        lines = [other for other in read(path) if other["settings"] != line["settings"]]
        text = ",\n ".join(json.dumps(each) for each in [*lines, line])
        write_text(path, f"[\n {text}\n]\n")


def line_of(row: Row, level: float, own: list[str], result: dict[str, Any]) -> dict[str, Any]:
    sparsity = result["sparsity"]
    return {
        "row": row.name,
        "level": level,
        "seed": result["seed"],
        "accuracy": result["metric"]["value"],
        "encoder": sparsity["components"]["encoder"],
        "model": sparsity["model"],
        "nonzero": result["weights"]["model_nonzero"],
        "epochs": result["training"]["epochs"],
        "seconds": result["seconds"],
        "digest": result["digest"],
        "device": result["environment"]["device"],
        "settings": own,
    }


def compute(common: list[str], results: Path, row: Row, level: float, own: list[str]) -> None:
    """One run, unless its line is there."""
    if any(line["settings"] == own for line in read(results)):
        return
    line = line_of(row, level, own, run(load_config(composed(common, own))))
    add(results, line)
    print(f"{row.name}, {' '.join(own[len(row.overrides) :])}: {100 * line['accuracy']:.2f}", flush=True)


def choose(common: list[str]) -> None:
    """The learning rates at 90 % with the first seed, scored on training sentences that are left out."""
    for row in ROWS:
        for lr in LRS if row.name != DENSE else LRS[:1]:
            own = settings(row, row.levels[0], 1, lr)
            compute([*common, "dataset.holdout=2000"], CHOICE, row, row.levels[0], own)


# --- the table ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """A row of the table: percentages, points, epochs and minutes over the seeds."""

    name: str
    level: float
    accuracies: list[float]
    differences: list[float]  # to the dense model of the same seed
    lines: list[dict[str, Any]]

    def cells(self) -> list[str]:
        mean = statistics.mean
        kept = mean(a / (a - d) for a, d in zip(self.accuracies, self.differences, strict=True))
        return [
            f"{100 * self.level:g} %" if self.level else "",
            self.name,
            format(mean_std(self.accuracies), ".1f"),
            format(paired_interval(self.differences), ".1f") if self.level else "",
            f"{100 * kept:.1f} %" if self.level else "",
            f"{100 * mean(line['encoder'] for line in self.lines):.1f} %",
            f"{100 * mean(line['model'] for line in self.lines):.1f} %",
            f"{mean(line['nonzero'] for line in self.lines) / 1e6:.2f} M",
            f"{mean(line['epochs'] for line in self.lines):g}",
            f"{mean(line['seconds'] for line in self.lines) / 60:.0f} min",
            str(len(self.lines)),
        ]


HEADINGS = [
    "level", "what", "accuracy", "minus dense [95 %]", "recovery", "zeros: encoder", "model", "non-zero", "epochs",
    "time", "seeds",
]  # fmt: skip


def summaries(lines: list[dict[str, Any]]) -> list[Summary]:
    dense = {line["seed"]: 100 * line["accuracy"] for line in lines if line["row"] == DENSE}
    result = []
    for level in sorted({line["level"] for line in lines}):
        for row in ROWS:
            own = [
                line for line in lines if (line["row"], line["level"]) == (row.name, level) and line["seed"] in dense
            ]
            if own:
                accuracies = [100 * line["accuracy"] for line in own]
                differences = [a - dense[line["seed"]] for a, line in zip(accuracies, own, strict=True)]
                result.append(Summary(row.name, level, accuracies, differences, own))
    return result


def show(rows: list[Summary], markdown: bool) -> None:
    if markdown:
        print("| " + " | ".join(HEADINGS) + " |\n" + "|---" * len(HEADINGS) + "|")
        print("\n".join("| " + " | ".join(row.cells()) + " |" for row in rows))
        return
    table = Table(*HEADINGS)
    for row in rows:
        table.add_row(*row.cells())
    Console().print(table)


def plot(rows: list[Summary], path: Path) -> None:
    """A dot a seed and a stroke for the mean, row by row, with the dense model's mean as a line."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "prunebench"  # the same picture, the same bytes
    from matplotlib import pyplot

    shown = [row for row in rows if row.level in (0.0, 0.9)]
    figure, axis = pyplot.subplots(figsize=(8, 0.5 * len(shown) + 1))
    for place, row in enumerate(reversed(shown)):
        axis.plot(statistics.mean(row.accuracies), place, "|", color="#cb181d", markersize=18, markeredgewidth=2)
        axis.plot(row.accuracies, [place] * len(row.accuracies), "o", color="#08306b", markersize=5, alpha=0.7)
    axis.axvline(statistics.mean(shown[0].accuracies), color="#636363", linewidth=1, linestyle="--")
    axis.set_yticks(range(len(shown)), [row.name for row in reversed(shown)])
    axis.set_xlim(45, 92)
    axis.grid(axis="x", color="#e0e0e0", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.set_xlabel("accuracy on SST-2's dev set (%), level 90 %; a dot a seed, a stroke their mean")
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with SST-2's train.tsv.gz and dev.tsv")
    parser.add_argument("--model", type=Path, default=Path.home() / ".cache/prunebench-models/minilm-l6")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--outputs", default="outputs/sst2_table")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--choose", action="store_true", help="try the learning rates instead")
    parser.add_argument("--show", action="store_true", help="print the table only")
    parser.add_argument("--markdown", action="store_true", help="print it as Markdown")
    parser.add_argument("--plot", action="store_true", help=f"print it and draw {PLOT.relative_to(ROOT)}")
    args = parser.parse_args()
    common = base(args.data, args.model, args.outputs)
    if args.choose:
        choose(common)
        return
    if not (args.show or args.plot or args.markdown):
        for row, level, seed in jobs(args.seeds):
            compute(common, args.results, row, level, settings(row, level, seed))
    rows = summaries(read(args.results))
    show(rows, args.markdown)
    if args.plot:
        plot(rows, PLOT)


if __name__ == "__main__":
    main()
