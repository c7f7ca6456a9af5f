"""The wheel holds everything: it works from an unrelated folder, without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_wheel_works_without_the_checkout(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), "."]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    zipfile.ZipFile(next(tmp_path.glob("*.whl"))).extractall(site)
    assert not (site / "tests").exists()
    assert (site / "prunebench" / "dashboard" / "page" / "vendor" / "echarts.min.js").is_file()
    environment = os.environ | {"PYTHONPATH": str(site)}
    code = (
        "import prunebench, sys; assert prunebench.__file__.startswith(sys.argv[1]); from prunebench.cli import main; "
    )
    run = [sys.executable, "-c", code + "sys.exit(main(['plan', 'recipe=bert_smc_90', '--json']))", str(site)]
    done = subprocess.run(run, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sparsity"]["target"] == 0.9
