"""Sparse model soups in phases: prune a part of what is left, retrain copies with other seeds, average, go on.

    python scripts/sparse_soup.py recipe=sparse_soup dataset=sst2                   # 3 phases of 3 members
    python scripts/sparse_soup.py recipe=sparse_soup dataset=sst2 sparsity=0.95 --phases 5 --members 4 --greedy

Phase k of n prunes to 1 - (1 - s)^(k / n). Its members start from the average of the phase before (the first from the
dense model), keep its zeros and prune by magnitude, so that all have one mask; then each is retrained with its own
seed. Members and soups are runs of prunebench: what is finished is not done again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from prunebench.compose import load_config
from prunebench.config import PruningConfig, RunConfig
from prunebench.digest import DENSE, dense_config
from prunebench.errors import RunError, UsageError
from prunebench.paths import RunFolder
from prunebench.progress import say
from prunebench.report import panel
from prunebench.run import run
from prunebench.soup import make_soup
from prunebench.validate import check
from prunebench.verbs import show, show_json


def sparsity_of(phase: int, phases: int, sparsity: float) -> float:
    """What a phase (from 1) prunes to: each takes the same share of the weights that are left."""
    return sparsity if phase == phases else 1 - (1 - sparsity) ** (phase / phases)


def member(overrides: list[str], start: Path, sparsity: float, seed: int) -> RunConfig:
    own = [f"start='{start}'", f"sparsity={sparsity}", f"seed={seed}", "pruning.keep_zeros=true"]
    config = load_config([*overrides, *own])
    check(config)
    return config


def shares_masks(pruning: PruningConfig) -> bool:
    """Whether members that start from one model are pruned alike, whatever their seeds."""
    last = max((index for index, phase in enumerate(pruning.schedule.phases) if phase.prune), default=0)
    once = all(phase.epochs == 0 for phase in pruning.schedule.phases[: last + 1])
    seeded = (
        pruning.refinement.name != "none" or pruning.regrowth.name != "none" or pruning.scope.name == "random_search"
    )
    return once and pruning.criterion.name == "magnitude" and not seeded


def cook(overrides: list[str], phases: int, members: int, greedy: bool) -> tuple[dict[str, Any], Path]:
    """The last phase's soup: its result, with epochs and seconds of all members and soups, and its folder."""
    base = load_config(overrides)
    check(base)
    if not shares_masks(base.pruning):
        raise UsageError(
            "members need one mask, and here it would depend on their seeds: let them prune once, before they train, "
            "and by magnitude alone (pruning/criterion=magnitude pruning/schedule=one_shot); prunebench soup averages "
            "runs of other methods that start from one sparse model"
        )
    dense = run(dense_config(base))
    start = RunFolder(Path(base.outputs) / DENSE / dense["digest"]).model
    epochs = seconds = 0.0
    for phase in range(1, phases + 1):
        level = sparsity_of(phase, phases, base.sparsity)
        results = [run(member(overrides, start, level, seed)) for seed in range(base.seed, base.seed + members)]
        folders = [RunFolder(Path(base.outputs) / one["name"] / one["digest"]) for one in results]
        soup, folder = make_soup(folders, greedy=greedy, dense=dense["dense"])
        scores = ", ".join(f"{one['metric']['value']:.4f}" for one in results)
        value, name = soup["metric"]["value"], soup["metric"]["name"]
        say(f"phase {phase} of {phases}, sparsity {100 * level:.2f} %: {name} {value:.4f}, of members {scores}")
        start = folder / "model"
        epochs += sum(one["training"]["epochs"] for one in results)
        seconds += sum(one["seconds"] for one in [*results, soup])
    return {**soup, "training": {**soup["training"], "epochs": epochs}, "seconds": seconds}, folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for prunebench run")
    parser.add_argument("--phases", type=int, default=3)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--greedy", action="store_true")
    parser.add_argument("--json", action="store_true", help="print the last soup's result as JSON")
    args = parser.parse_intermixed_args()
    if args.phases < 1 or args.members < 2:
        parser.error("give at least one phase and two members")
    try:
        result, folder = cook(args.overrides, args.phases, args.members, args.greedy)
    except (UsageError, RunError) as error:
        print(error, file=sys.stderr)
        return 1
    if args.json:
        show_json(result)
    else:
        show(panel(result, str(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
