"""What a newcomer sees: the order that the guidelines promise, on one seed, at full length."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(recipe: str, outputs: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "prunebench", "run", f"recipe={recipe}", "--json"]
    done = subprocess.run(command, cwd=outputs, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    outputs = tmp_path_factory.mktemp("quickstart")
    return run("quickstart", outputs), run("quickstart_smc_bench", outputs)


def test_the_task_is_neither_trivial_nor_hopeless(results: tuple[dict[str, Any], dict[str, Any]]) -> None:
    dense = results[0]["dense"]["value"]
    assert 0.85 <= dense <= 0.97
    code = "import sys; sys.path.insert(0, 'scripts'); from quickstart_table import bag_of_words; print(bag_of_words())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) <= dense - 0.10


def test_the_guidelines_keep_what_the_benchmarks_way_loses(results: tuple[dict[str, Any], dict[str, Any]]) -> None:
    guided, bench = results
    assert guided["recovery"] >= 0.97
    assert bench["metric"]["value"] <= guided["metric"]["value"] - 0.10
    padding_row = 64  # zero from the start: counted among its zeros by the one, left alone by the other
    assert guided["weights"]["model_nonzero"] + padding_row == bench["weights"]["model_nonzero"]
    assert guided["sparsity"]["prunable"] == pytest.approx(0.9, abs=1e-5)
    assert guided["dense"] == bench["dense"]  # the same dense run, trained once
