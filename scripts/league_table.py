"""The league table: every method on MiniLM and SST-2 at one sparsity. Stop it and start it again as you like.

    ../shared/models/get_minilm
    python scripts/league_table.py ../shared/data/glue/SST-2                    # goes on where it was stopped
    python scripts/league_table.py ../shared/data/glue/SST-2 --method wanda     # one method only
    python scripts/league_table.py ../shared/data/glue/SST-2 --best 5           # and seeds 2 and 3 of the best five
    python scripts/league_table.py --show                                       # prints the tables from what there is
    python scripts/league_table.py --markdown                                   # writes docs/league.md

Three parts. `one_shot`: the dense model of a fixed subset of 10,000 training sentences is pruned once and scored on all
of dev. `tuned`: the same, then one epoch (313 steps) with the mask fixed, the same for all. `trained`: methods that are
a whole training of their own, at the quickstart's scale (a BERT of 142 k weights, generated reviews) and its sparsity,
beside plain ways of training there. Scores of different parts do not compare.

Every run is a process of its own; peak memory is that process's, time is the run's without its dense model. A line of
docs/league.json that is there is not computed again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from prunebench.compare import mean_std
from prunebench.paths import locked, write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "league.json"
PAGE = ROOT / "docs" / "league.md"
SPARSITY = 0.6
N_M = 0.5
TUNED = "pruning.schedule.phases=[{name:prune,epochs:0,prune:true},{name:recover,epochs:1}]"

# recipes whose axes choose a mask (and weights) at once, with what they need at this scale
PRUNERS: dict[str, list[str]] = {
    "one_shot_only": [],
    "random_erk": [],
    "random_snip_ratios": [],
    "lamp": [],
    "global_mp": [],
    "pq_index": [],
    "random_search": [],
    "least_squares": [],
    "wanda": [],
    "wanda_variant": [],
    "gblm": [],
    "dsnot": [],
    "sparsegpt": [],
    "snip": [],
    "taylor": [],
    "gradient_magnitude": [],
    "obert_one_shot": [],
    "diagonal_fisher": [],
    "wanda_2_4": [],
    "sparsegpt_2_4": [],
    "magnitude_2_4": [],
    "woodfisher": ["pruning.calibration.examples=1600"],  # 100 of its 400 gradients: 4 GB here instead of 17
    "mfac": [],
    "mfac_full": [],
}
RETRAININGS = {"perp": TUNED.replace("epochs:1", "epochs:1,train:perp")}  # their epoch is their own, at their own rate
SCRIPTS = {"sparse_soup": ROOT / "scripts" / "sparse_soup.py"}  # many runs, composed by a script
TRAININGS: dict[str, list[str]] = {
    name: []
    for name in (
        "one_shot", "gradual", "quickstart", "smc_bench_gmp", "snip", "random_erk", "acdc", "lottery_ticket",
        "lottery_ticket_early", "lr_rewinding", "window_25_75", "from_scratch", "rigl", "granet", "movement",
        "soft_movement", "cram", "cram_multi", "cram_2_4", "soft_shrinkage", "sr_ste", "gradient_flow", "squarehead",
        "hidden_states", "sparse_soup",
    )
}  # fmt: skip
# Movement wants trained weights to start from, and the quickstart's are random (51.1 % from there); nor is its learning
# rate that of BERT.
MOVEMENT = [
    "start=teacher", "pruning.schedule.lr=1e-3", "pruning.schedule.final_lr=1e-5",
]  # fmt: skip
TRAININGS |= {"movement": MOVEMENT, "soft_movement": MOVEMENT}
# no recipes of their own: an override on another one is all they are
VARIANTS: dict[str, tuple[str, list[str]]] = {
    "wanda_2_4": ("wanda", ["pruning/pattern=2_4", "pruning/scope=uniform"]),
    "magnitude_2_4": ("one_shot_only", ["pruning/pattern=2_4", "pruning/scope=uniform"]),
}


@dataclass(frozen=True)
class Job:
    method: str
    part: str
    seed: int
    words: list[str]

    def key(self) -> tuple[str, str, int]:
        return self.method, self.part, self.seed


def pruner(method: str, part: str, seed: int, data: Path, model: Path, more: list[str]) -> Job:
    recipe, axes = VARIANTS.get(method, (method, []))
    sparsity = N_M if method.endswith("_2_4") else SPARSITY
    tuned = [RETRAININGS[method]] if method in RETRAININGS else ["pruning/schedule=one_shot", TUNED]
    schedule = ["pruning/schedule=one_shot_only"] if part == "one_shot" else tuned
    common = [
        "dataset=sst2", "model=hf", f"model.name={model}", f"dataset.train_file={data}/train.tsv.gz",
        f"dataset.validation_file={data}/dev.tsv", "dataset.limit=10000", "trainer.lr=1e-4", "trainer.precision=bf16",
        "distillation=none", "start=teacher", f"sparsity={sparsity}", "pruning.components=[encoder]",
    ]  # fmt: skip
    return Job(method, part, seed, [f"recipe={recipe}", *axes, *common, *schedule, *PRUNERS.get(method, []), *more])


def training(method: str, seed: int, more: list[str]) -> Job:
    n_m = method in ("sr_ste", "gradient_flow", "cram_2_4")
    own = [] if n_m else ["sparsity=0.9"]  # 2:4 and 1:8 have their own
    scale = [] if method == "quickstart" else ["model=quickstart", "dataset=quickstart", *own]
    words = [f"recipe={method}", *scale, "pruning.components=[encoder]", *TRAININGS.get(method, []), *more]
    return Job(method, "trained", seed, words)


def run(job: Job, outputs: str) -> dict[str, Any] | None:
    """The line of a job; None where it failed, which is told."""
    words = [
        *job.words,
        f"name={job.method}",
        f"seed={job.seed}",
        f"outputs={outputs}",
        "tracker=local",
        "trainer.threads=1",
    ]
    script = SCRIPTS.get(job.method)
    program = [str(script)] if script else ["-m", "prunebench", "run", "--force"]
    command = [sys.executable, *program, *words, "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stderr
    out, errors = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        print(f"{job.method} ({job.part}, seed {job.seed}) failed: {errors.strip().splitlines()[-1:]}", flush=True)
        return None
    result = json.loads(out)
    return {
        "method": job.method,
        "part": job.part,
        "seed": job.seed,
        "score": result["metric"]["value"],
        "dense": result["dense"]["value"],
        "sparsity": result["sparsity"]["prunable"],
        "seconds": result["seconds"],
        "peak_mb": round(usage.ru_maxrss / 1024),
        "epochs": result["training"]["epochs"],
        "digest": result["digest"],
        "settings": job.words,
    }


def read(path: Path) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
    return lines


def add(path: Path, line: dict[str, Any]) -> None:
    with locked(path.with_name(f".{path.name}.lock")):
        same = (line["method"], line["part"], line["seed"])
        lines = [each for each in read(path) if (each["method"], each["part"], each["seed"]) != same]
        text = ",\n ".join(json.dumps(each) for each in [*lines, line])
        write_text(path, f"[\n {text}\n]\n")


def compute(jobs: list[Job], results: Path, outputs: str) -> None:
    for job in jobs:
        if job.key() in {(line["method"], line["part"], line["seed"]) for line in read(results)}:
            continue
        line = run(job, outputs)
        if line is not None:
            add(results, line)
            print(
                f"{job.part} {job.method} seed {job.seed}: {100 * line['score']:.2f}, {line['seconds']:.0f} s",
                flush=True,
            )


# --- the tables ---------------------------------------------------------------------------------------------------

PARTS = {
    "one_shot": f"Pruned once, not trained afterwards ({100 * SPARSITY:g} % of the encoder; 2:4: 50 %)",
    "tuned": f"Pruned once, then one epoch with the mask fixed ({100 * SPARSITY:g} %; 2:4: 50 %)",
    "trained": "Whole trainings, at quickstart scale (90 %; SR-STE, cram_2_4: 2:4, gradient flow: 1:8)",
}
INTRODUCTION = """# League table

Made by `python scripts/league_table.py ../shared/data/glue/SST-2` (see there for what the parts are) from
`docs/league.json`; one seed unless ± says otherwise, one thread of a CPU. Dev has 872 sentences: a standard error of
about 1.2 points, so neighbours do not differ. Lines are recipes of `conf/recipe`, or overrides on one (`wanda_2_4`,
`magnitude_2_4`: see the script). Times are of the fastest seed; other work ran beside some of them.
"""
NOTES = """
## What it says, and what is open

- In one shot those lead that ask the loss (Fisher matrices, Taylor) or mend the weights (SparseGPT, least squares).
  An epoch of training takes most of that lead away.
- Global MP is magnitude here: no matrix comes near its minimum. LAMP is no better than one threshold.
- GBLM stays behind Wanda, whose score it has in it: its one constant (100) balances gradients of language modelling on
  sequences of 2,048 tokens, and was not tuned for sentences. Open.
- Random pruning with ERK densities loses far less in one shot than with SNIP's ratios, and after an epoch both are the
  same. Open; one seed.
- Gradients alone (the control gradient_magnitude) do as well in one shot as SNIP, which multiplies them by the weights,
  and worse than Taylor, which squares that product for each batch. Open: one seed.
- PERP ends below training everything by magnitude (one_shot_only in the second table): it prunes each matrix alike, not
  with one threshold; which of the two costs it more was not measured.
- The dense model of the trainings has 88.7, 92.8 and 93.2 by seed (83.4 under smc_bench_gmp's own dense recipe), after
  six epochs, so longer trainings pass it, and "minus dense" of one seed does not compare with that of three.
- Among the trainings those of the same length compare: gradual, window_25_75, acdc have 24 epochs, the lottery tickets
  72. The guidelines (quickstart) learn from the dense model alone (hardness 1), which is worse than what longer
  training on labels reaches there, so they stay near it.
- PERP retrains biases, norms, head and adapters only, after pruning each matrix alike. A soup has three phases of three
  members; its epochs and time are those of all members.
- Pruning before training (snip, random_erk) has one unit of six epochs from random weights: that is why it is so low.
- Soft movement's density is emergent until the last pruning, at which the rest goes at once. Open: its settings are
  those for SQuAD.
"""
HEADINGS = ["method", "accuracy", "minus dense", "encoder zeros", "time", "peak memory", "epochs", "seeds"]


def rows(lines: list[dict[str, Any]], part: str) -> list[list[str]]:
    """Best first."""
    methods: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        if line["part"] == part:
            methods.setdefault(line["method"], []).append(line)
    mean = statistics.mean
    ranked = sorted(methods.items(), key=lambda item: -mean(line["score"] for line in item[1]))
    return [
        [
            name,
            format(mean_std([100 * line["score"] for line in own]), ".1f"),
            f"{100 * mean(line['score'] - line['dense'] for line in own):+.1f}",
            f"{100 * mean(line['sparsity'] for line in own):.1f} %",
            _duration(min(line["seconds"] for line in own)),
            f"{mean(line['peak_mb'] for line in own) / 1000:.2f} GB",
            f"{mean(line['epochs'] for line in own):.3g}",
            str(len(own)),
        ]
        for name, own in ranked
    ]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def show(lines: list[dict[str, Any]]) -> None:
    for part, title in PARTS.items():
        table = Table(*HEADINGS, title=title, title_justify="left")
        for row in rows(lines, part):
            table.add_row(*row)
        Console().print(table)


def markdown(lines: list[dict[str, Any]]) -> str:
    text = INTRODUCTION
    for part, title in PARTS.items():
        text += f"\n## {title}\n\n| " + " | ".join(HEADINGS) + " |\n" + "|---" * len(HEADINGS) + "|\n"
        text += "".join("| " + " | ".join(row) + " |\n" for row in rows(lines, part))
    return text + NOTES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder with SST-2's train.tsv.gz and dev.tsv")
    parser.add_argument("--model", type=Path, default=Path.home() / ".cache/prunebench-models/minilm-l6")
    parser.add_argument("--method", nargs="+", help="these only; a recipe of yours, with --config-dir")
    parser.add_argument("--config-dir", help="a folder with options of yours")
    parser.add_argument("--part", choices=[*PARTS], nargs="+", default=[*PARTS])
    parser.add_argument("--best", type=int, default=0, help="also seeds 2 and 3 of so many of the best of each part")
    parser.add_argument("--outputs", default="outputs/league")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--show", action="store_true", help="print the tables only")
    parser.add_argument("--markdown", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    args = parser.parse_args()
    if args.data and not (args.show or args.markdown):
        more = ["--config-dir", args.config_dir] if args.config_dir else []
        compute(jobs_of(args, [1], None, more), args.results, args.outputs)
        if args.best:
            compute(jobs_of(args, [2, 3], best(read(args.results), args.best), more), args.results, args.outputs)
    if args.markdown:
        write_text(PAGE, markdown(read(args.results)))
    else:
        show(read(args.results))


def jobs_of(args: argparse.Namespace, seeds: list[int], only: dict[str, set[str]] | None, more: list[str]) -> list[Job]:
    jobs = []
    for seed in seeds:
        for part in args.part:
            known = {"one_shot": [*PRUNERS], "tuned": [*PRUNERS, *RETRAININGS], "trained": [*TRAININGS]}[part]
            for method in args.method or known:
                if only is not None and method not in only[part]:
                    continue
                if part == "trained":
                    jobs.append(training(method, seed, more))
                else:
                    jobs.append(pruner(method, part, seed, args.data, args.model, more))
    return jobs


def best(lines: list[dict[str, Any]], count: int) -> dict[str, set[str]]:
    return {part: {row[0] for row in rows(lines, part)[:count]} for part in PARTS}


if __name__ == "__main__":
    main()
