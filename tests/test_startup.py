"""Verbs that answer at once must not wait for torch: seen from outside, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.comparing import finished_run

HEAVY = ("torch", "transformers", "datasets", "accelerate", "evaluate", "wandb", "scipy", "sklearn")
PROGRAM = f"""
import sys
from prunebench.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as stop:
    status = stop.code
print("LOADED", [name for name in {HEAVY!r} if name in sys.modules], "hydra" in sys.modules, file=sys.stderr)
sys.exit(status)
"""


def loaded(folder: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "recipe=bert_smc_90", "dataset=sst2"],
        ["plan", "recipe=gmp_star_30", "--json"],
        ["show", "recipe=bert_smc_90"],
        ["run", "recipe=bert_smc_90", "sparsity=2"],
        ["run", "-m", "recipe=bert_smc_90", "seed=1,x"],
    ],
    ids=" ".join,
)
def test_composing_loads_nothing_heavy(tmp_path: Path, words: list[str]) -> None:
    status, line = loaded(tmp_path, *words)
    assert line == "LOADED [] True"
    assert status == (2 if words[0] == "run" else 0)


def test_comparing_needs_no_torch(tmp_path: Path) -> None:
    """Of scipy only the functions of Student's t, which are imported when there is an interval."""
    assert loaded(tmp_path, "compare") == (0, "LOADED [] False")
    for seed in (1, 2, 3):
        dense = finished_run(tmp_path / "outputs", name="dense", seed=seed, sparsity=0.0)
        finished_run(tmp_path / "outputs", seed=seed, dense=dense)
    assert loaded(tmp_path, "compare", "--json") == (0, "LOADED ['scipy'] False")


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["plan", "--help"],
        ["compare", "--help"],
        ["ls"],
        ["ls", "runs"],
        ["clean", "."],
        ["dashboard", "--outputs", ".", "--export", "report.html"],
    ],
    ids=" ".join,
)
def test_listing_does_not_even_load_hydra(tmp_path: Path, words: list[str]) -> None:
    assert loaded(tmp_path, *words) == (0, "LOADED [] False")
