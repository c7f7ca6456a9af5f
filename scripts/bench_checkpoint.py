"""What saving costs: a checkpoint of BERT-base's size (weights, two moments, masks), written and read back.

    python scripts/bench_checkpoint.py            # 1.3 GB in a temporary folder below --place

Prints the seconds of a save over the seconds between two saves (`trainer.checkpoint_minutes`, five by default), which
is the share of a run that is spent on saving. However slow the disk, `train._Saver` keeps that share below a fiftieth.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from measuring import Ratios

from prunebench.checkpoint import Checkpoint, keep_newest, load_checkpoint, save_checkpoint
from prunebench.config import TrainerConfig

MATRIX = (768, 768)


def state(weights: int) -> dict[str, dict[str, torch.Tensor]]:
    """As many weights, in matrices of BERT-base's width."""
    names = [f"layer.{index}" for index in range(weights // (MATRIX[0] * MATRIX[1]))]
    model = {name: torch.randn(MATRIX) for name in names}
    moments = {f"{name}.{moment}": torch.randn(MATRIX) for name in names for moment in ("exp_avg", "exp_avg_sq")}
    return {"model": model, "optimizer": moments, "masks": {name: value > 0 for name, value in model.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=int, default=109_500_000, help="of the model (default: BERT-base's)")
    parser.add_argument("--repeats", type=int, default=3, help="saves of which the median counts (default: 3)")
    parser.add_argument("--place", type=Path, default=Path(), help="a folder on the disk that is measured")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    args = parser.parse_args()
    tensors, saves, ratios = state(args.weights), [], Ratios()
    with tempfile.TemporaryDirectory(dir=args.place) as place:
        for step in range(args.repeats):
            began = time.perf_counter()
            save_checkpoint(Path(place), Checkpoint(step, tensors, {}))
            keep_newest(Path(place))
            saves.append(time.perf_counter() - began)
        began = time.perf_counter()
        load_checkpoint(Path(place))
        load = time.perf_counter() - began
        size = sum(path.stat().st_size for path in Path(place).rglob("*") if path.is_file()) / min(2, args.repeats)
    every = 60 * TrainerConfig().checkpoint_minutes
    ratios.add("saving / the run", median(saves) / every, gigabytes=size / 1e9, seconds=median(saves), every=every)
    ratios.add("reading / saving", load / median(saves), seconds=load)
    ratios.write(args.json, vars(args))


if __name__ == "__main__":
    main()
