"""Runs a grid through the multirun: first the runs whose models others start from, then the cells."""

from __future__ import annotations

from prunebench.reproduce.grid import Grid


def run_grid(grid: Grid, config_dir: str | None, force: bool) -> dict[str, str]:
    from prunebench.compose import load_config
    from prunebench.reproduce.outcome import Finished, settle
    from prunebench.run import run
    from prunebench.validate import check

    for planned in grid.runnable:
        for words in (planned.first or {}).values():
            c = load_config(list(words))
            check(c)
            run(c)
    for planned in grid.runnable:
        planned = settle(planned, Finished(grid.outputs))
        for seed in grid.seeds:
            c = load_config(planned.seeded(seed))
            check(c)
            run(c)
    return {}
