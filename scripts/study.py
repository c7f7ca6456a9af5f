"""The study: what each guideline is worth on harder tasks than SST-2. Stop it and start it again as you like.

    ../shared/models/get_minilm
    python scripts/study.py ../shared/data                          # hours; goes on where it was stopped
    python scripts/study.py ../shared/data --dataset sst2 --seed 1  # a part; several may be at work at once
    python scripts/study.py --show                                  # prints the tables from what there is
    python scripts/study.py --markdown                              # the same for docs/study.md
    python scripts/study.py --plot                                  # and draws docs/study.svg

MiniLM (all-MiniLM-L6-v2) on SST-2 with three seeds, and with one on a fixed subset of SQuAD and on those of
CommonsenseQA, WinoGrande-l, CoLA and RTE where its dense model beats chance by five standard errors; the others are
named. At 80, 90 and 95 % of the encoder: the benchmark's way, each guideline alone, all three, and one-shot, all with
equally many weights left. Every finished run is a line of docs/study.json.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from experiments import AS_MANY, EVERYWHERE, MINILM, PLAIN, ROOT, Line, common_fields, compute, read, short
from rich.console import Console
from rich.table import Table

from prunebench.compare import mean_std, paired_interval

RESULTS = ROOT / "docs" / "study.json"
PLOT = ROOT / "docs" / "study.svg"
LEVELS = (0.8, 0.9, 0.95)
STANDARD_ERRORS = 5.0  # by which a dense model must beat chance, or nothing can be seen in what pruning takes from it


@dataclass(frozen=True)
class Data:
    """A data set at the study's size. `chance`: the score of guessing; `share`: whether scores are shares."""

    name: str
    title: str
    words: list[str]
    prune_every: int  # steps, of the short training: about six prunings
    seeds: tuple[int, ...] = (1,)
    chance: float | None = None  # None: it is no question (the dense model is known to be far above)
    examples: int = 0  # of validation
    share: bool = True

    def standard_error(self) -> float:
        """Of a guesser's score: binomial, or of a correlation without any (1 / sqrt n)."""
        assert self.chance is not None
        spread = self.chance * (1 - self.chance) if self.share else 1.0
        return math.sqrt(spread / self.examples)

    def beats_chance(self, score: float) -> bool:
        return self.chance is None or score - self.chance > STANDARD_ERRORS * self.standard_error()


def files(train: str, validation: str) -> list[str]:
    return [f"dataset.train_file={{data}}/{train}", f"dataset.validation_file={{data}}/{validation}"]


COLA = ["dataset.header=false", "dataset.text_columns=['3']", "dataset.label_column='1'", "dataset.labels=['0','1']"]
DATA = (
    Data("sst2", "SST-2, 4,000 sentences",
         ["dataset=sst2", *files("glue/SST-2/train.tsv.gz", "glue/SST-2/dev.tsv"), "dataset.limit=4000",
          "trainer.epochs=2"], 30, seeds=(1, 2, 3)),
    Data("squad", "SQuAD, 4,000 questions",
         ["dataset=squad", *files("squad_v1.1/train-v1.1.json.gz", "squad_v1.1/dev-v1.1.json.gz"), "dataset.limit=4000",
          "dataset.validation_limit=1000", "dataset.max_length=192", "dataset.doc_stride=64", "trainer.epochs=2"], 60),
    Data("rte", "RTE", ["dataset=rte", *files("glue/RTE/train.tsv.gz", "glue/RTE/dev.tsv"), "trainer.epochs=3"], 25,
         chance=146 / 277, examples=277),  # the larger class of dev
    Data("cola", "CoLA", ["dataset=cola", *files("glue/CoLA/train.tsv.gz", "glue/CoLA/dev.tsv"), *COLA,
                          "trainer.epochs=2"], 60, chance=0.0, examples=1043, share=False),
    Data("winogrande", "WinoGrande-l",
         ["dataset=winogrande", *files("winogrande/train_l.jsonl.gz", "winogrande/dev.jsonl"), "trainer.epochs=2"], 60,
         chance=0.5, examples=1267),
    Data("commonsense_qa", "CommonsenseQA, 3,000 questions",
         ["dataset=commonsense_qa", 
          *files("commonsenseqa/train_rand_split.jsonl.gz", "commonsenseqa/dev_rand_split.jsonl.gz"),
          "dataset.limit=3000", "trainer.epochs=2"], 50, chance=0.2, examples=1221),
)  # fmt: skip
COMMON = ["recipe=bert_smc_90", "model=hf", "trainer.lr=1e-4", "trainer.precision=bf16", "trainer.threads=1"]
PRUNED = ["pruning.dropout=0", "pruning.schedule.lr=2e-4"]  # chosen for SST-2 by scripts/sst2_table.py --choose
DENSE = "dense"
ALL = [*EVERYWHERE, *AS_MANY]


def ways(data: Data) -> dict[str, list[str]]:
    """What each way changes in the recipe of all guidelines."""
    brief = short(data.prune_every)
    return {
        "SMC-Bench's way, as many weights": [*ALL, *brief, *PLAIN],
        "guideline 1 alone: the encoder": [*brief, *PLAIN],
        "guideline 2 alone: the longer schedule": [*ALL, *PLAIN],
        "guideline 3 alone: distillation": [*ALL, *brief],
        "guidelines 1, 2, 3": [],
        "one-shot, then one unit": ["pruning/schedule=one_shot", *PLAIN],
    }


@dataclass(frozen=True)
class Job:
    data: Data
    way: str
    level: float
    seed: int
    words: list[str]


def jobs(chosen: tuple[str, ...], seeds: tuple[int, ...]) -> Iterator[Job]:
    """Dense models first, then every way from 90 % outwards; whole seeds, so that a part of them is a table."""
    for data in (data for data in DATA if data.name in chosen):
        for seed in (seed for seed in data.seeds if seed in seeds):
            yield Job(data, DENSE, 0.0, seed, ["recipe=dense", f"seed={seed}"])
            for level in sorted(LEVELS, key=lambda level: abs(level - 0.9)):
                for way, words in ways(data).items():
                    yield Job(data, way, level, seed, [*words, *PRUNED, f"sparsity={level:g}", f"seed={seed}"])


def run_all(args: argparse.Namespace) -> None:
    """What has no line yet. A data set whose dense model does not beat chance is left at that."""
    for job in jobs(tuple(args.dataset), tuple(args.seed)):
        if job.way != DENSE and not is_worth_it(job.data, read(args.results)):
            continue
        data = [word.replace("{data}", str(args.data)) for word in job.data.words]
        common = [*COMMON, f"model.name={args.model}", *data, f"outputs={args.outputs}", *args.words]
        own = [f"dataset={job.data.name}", *job.words]  # by these a line is known
        place = {"dataset": job.data.name, "way": job.way, "level": job.level}
        line = compute(common, own, args.results, lambda result, place=place: place | common_fields(result))  # type: ignore[misc]
        if line is not None:
            print(f"{job.data.name}, {job.way}, {job.level:g}, seed {job.seed}: {line['score']:.4f}", flush=True)


def is_worth_it(data: Data, lines: list[Line]) -> bool:
    dense = [line["score"] for line in lines if (line["dataset"], line["way"]) == (data.name, DENSE)]
    return bool(dense) and data.beats_chance(dense[0])


# --- the tables ---------------------------------------------------------------------------------------------------

HEADINGS = [
    "way",
    "level",
    "score",
    "minus dense [95 %]",
    "zeros: encoder",
    "model",
    "non-zero",
    "epochs",
    "time",
    "seeds",
]


def percent(line: Mapping[str, Any]) -> float:
    return float(line["score"]) * (1 if line["dataset"] == "squad" else 100)


def cells(lines: list[Line], dense: Mapping[int, float]) -> list[str]:
    """Of the seeds of one way at one level."""
    scores = mean_std([percent(line) for line in lines])
    lost = paired_interval([percent(line) - dense[line["seed"]] for line in lines])
    spread = "" if scores.std is None else f" ± {scores.std:.1f}"
    between = "" if lost.low is None else f" [{lost.low:+.1f}, {lost.high:+.1f}]"
    return [
        lines[0]["way"],
        f"{100 * lines[0]['level']:g} %" if lines[0]["level"] else "",
        f"{scores.mean:.1f}{spread}",
        f"{lost.mean:+.1f}{between}" if lines[0]["level"] else "",
        f"{100 * mean(line['components']['encoder'] for line in lines):.1f} %",
        f"{100 * mean(line['model_sparsity'] for line in lines):.1f} %",
        f"{mean(line['nonzero'] for line in lines) / 1e6:.2f} M",
        f"{mean(line['epochs'] for line in lines):g}",
        f"{mean(line['seconds'] for line in lines) / 60:.0f} min",
        str(len(lines)),
    ]


def table(data: Data, lines: list[Line]) -> list[list[str]]:
    own = [line for line in lines if line["dataset"] == data.name]
    dense = {line["seed"]: percent(line) for line in own if line["way"] == DENSE}
    rows = []
    for level in (0.0, *LEVELS):
        for way in (DENSE, *ways(data)):
            found = [line for line in own if (line["way"], line["level"]) == (way, level) and line["seed"] in dense]
            if found:
                rows.append(cells(found, dense))
    return rows


def verdict(data: Data, lines: list[Line]) -> str:
    """Whether the dense model is good enough to lose something."""
    dense = [line for line in lines if (line["dataset"], line["way"]) == (data.name, DENSE)]
    if not dense or data.chance is None:
        return "" if dense else "not run yet"
    above = (dense[0]["score"] - data.chance) / data.standard_error()
    kept = "" if data.beats_chance(dense[0]["score"]) else f": fewer than {STANDARD_ERRORS:g}, so nothing was pruned"
    return f"dense is {above:.1f} standard errors above chance ({100 * data.chance:.1f}){kept}"


def show(lines: list[Line], markdown: bool) -> None:
    for data in DATA:
        rows, told = table(data, lines), verdict(data, lines)
        metric = next((line["metric"] for line in lines if line["dataset"] == data.name), "")
        heading = f"{data.title}{f', {metric}' if metric else ''}{f' ({told})' if told else ''}"
        if markdown:
            print(f"### {heading}\n\n| " + " | ".join(HEADINGS) + " |\n" + "|---" * len(HEADINGS) + "|")
            print("".join("| " + " | ".join(row) + " |\n" for row in rows))
        else:
            shown = Table(*HEADINGS, title=heading)
            for row in rows:
                shown.add_row(*row)
            Console().print(shown)


def plot(lines: list[Line], path: Path) -> None:
    """A panel a data set: mean score over sparsity for each way, with a band of one deviation where there are seeds."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "prunebench"  # the same picture, the same bytes
    from matplotlib import pyplot

    shown = [data for data in DATA if len(table(data, lines)) > 1]
    figure, axes = pyplot.subplots(1, max(1, len(shown)), figsize=(4.5 * max(1, len(shown)), 4), squeeze=False)
    for axis, data in zip(axes[0], shown, strict=False):
        own = [line for line in lines if line["dataset"] == data.name]
        for way in ways(data):
            _curve(axis, [line for line in own if line["way"] == way], way)
        axis.axhline(mean(percent(line) for line in own if line["way"] == DENSE), color="#636363", linestyle="--")
        axis.set(title=data.title, xlabel="% of the encoder's weights taken", ylabel=own[0]["metric"])
        axis.grid(color="#e0e0e0")
    if shown:
        axes[0][0].legend(fontsize=7)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


def _curve(axis: Any, lines: list[Line], way: str) -> None:
    by_level = {level: [percent(line) for line in lines if line["level"] == level] for level in LEVELS}
    levels = [level for level in LEVELS if by_level[level]]
    means = [mean_std(by_level[level]) for level in levels]
    places = [100 * level for level in levels]
    (curve,) = axis.plot(places, [each.mean for each in means], "o-", markersize=4, label=way)
    low, high = ([each.mean + sign * (each.std or 0.0) for each in means] for sign in (-1, 1))
    axis.fill_between(places, low, high, color=curve.get_color(), alpha=0.15)


def main() -> None:
    names = [data.name for data in DATA]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="a folder laid out as ../shared/data")
    parser.add_argument("words", nargs="*", metavar="key=value", help="for a trial: dataset.limit=64 ... and --results")
    parser.add_argument("--model", type=Path, default=MINILM)
    parser.add_argument("--dataset", nargs="+", default=names, choices=names)
    parser.add_argument("--seed", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--outputs", default="outputs/study")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--show", action="store_true", help="print the tables only")
    parser.add_argument("--markdown", action="store_true", help="print them as Markdown")
    parser.add_argument("--plot", action="store_true", help=f"print them and draw {PLOT.relative_to(ROOT)}")
    args = parser.parse_intermixed_args()
    if not (args.show or args.markdown or args.plot):
        if args.data is None:
            parser.error("name the folder with the data, or --show")
        run_all(args)
    lines = read(args.results)
    show(lines, args.markdown)
    if args.plot:
        plot(lines, PLOT)


if __name__ == "__main__":
    main()
