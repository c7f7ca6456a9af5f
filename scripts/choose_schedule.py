"""Measures the defaults of the guidelines' schedule: first step, curve, frequency, start; on a split of training data.

    ../shared/models/get_minilm
    python scripts/choose_schedule.py ../shared/data/glue/SST-2

MiniLM (all-MiniLM-L6-v2: a distilled BERT, then tuned for sentence embeddings) on a fixed subset of SST-2's training
sentences at 90 % of the encoder; the score is accuracy on 2,000 other training sentences, never on the dev set. One
setting is changed at a time. A score has a standard error of 0.8 points, so small differences say nothing. What is
finished is skipped, so it can be stopped and continued.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from prunebench.compose import load_config
from prunebench.run import run

SCHEDULE = "pruning.schedule"
VARIANTS: dict[str, list[str]] = {
    "base": [],
    "first step 0": [f"{SCHEDULE}.initial_fraction=0"],
    "first step 0.33 s": [f"{SCHEDULE}.initial_fraction=0.33"],
    "first step 0.78 s": [f"{SCHEDULE}.initial_fraction=0.78"],
    "2 prunings an epoch": [f"{SCHEDULE}.prunings_per_epoch=2"],
    "pruning at restarts only": [f"{SCHEDULE}.prunings_per_epoch=null"],
    "geometric from 0, at restarts only": [
        f"{SCHEDULE}.curve=geometric",
        f"{SCHEDULE}.initial_fraction=0",
        f"{SCHEDULE}.prunings_per_epoch=null",
    ],
    "geometric": [f"{SCHEDULE}.curve=geometric"],
    "start=pretrained": ["start=pretrained"],
    "temperature 2": ["distillation.temperature=2"],
    "temperature auto": ["distillation.temperature=auto"],
    "hardness 0.5": ["distillation.hardness=0.5"],
    "no distillation": ["distillation=none"],
}


def base(data: Path, model: Path, seed: int, outputs: str) -> list[str]:
    return [
        "recipe=bert_smc_90",
        "dataset=sst2",
        "model=hf",
        f"model.name={model}",
        f"dataset.train_file={data}/train.tsv.gz",
        f"dataset.validation_file={data}/dev.tsv",
        "dataset.limit=4000",
        "dataset.holdout=2000",
        "trainer.lr=1e-4",
        "trainer.precision=bf16",
        "trainer.dropout=0",  # dropout on a CPU is serial: it would double the time
        f"seed={seed}",
        f"outputs={outputs}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with SST-2's train.tsv.gz and dev.tsv")
    parser.add_argument("--model", type=Path, default=Path.home() / ".cache/prunebench-models/minilm-l6")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--outputs", default="outputs/choose_schedule")
    parser.add_argument("--only", nargs="*", choices=VARIANTS, help="some of the variants")
    parser.add_argument("--threads", type=int, help="torch's threads; default: its own choice")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    args = parser.parse_args()
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    rows = []
    for name in args.only or VARIANTS:
        result = run(load_config([*base(args.data, args.model, args.seed, args.outputs), *VARIANTS[name]]))
        rows.append(row(name, result))
        print(
            "{variant:36} {accuracy:.4f}  dense {dense:.4f}  {epochs:g} epochs  {seconds:.0f} s".format(**rows[-1]),
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


def row(name: str, result: dict[str, Any]) -> dict[str, Any]:
    return {
        "variant": name,
        "seed": result["seed"],
        "accuracy": result["metric"]["value"],
        "dense": result["dense"]["value"],
        "epochs": result["training"]["epochs"],
        "temperature": result["training"]["temperature"],
        "seconds": result["seconds"],
    }


if __name__ == "__main__":
    main()
