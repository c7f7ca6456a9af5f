"""CONTRIBUTING's criterion runs as it stands there, from a package outside prunebench."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from prunebench.targets import Target

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import league_table  # noqa: E402

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`(mine/[^`]+)`\n\n```\w+\n(.*?)```", CONTRIBUTING, re.M | re.S))
COMMANDS = re.search(r"^```bash\n(pip install \./mine\n.*?)```", CONTRIBUTING, re.M | re.S)


@pytest.fixture
def plugged(tmp_path: Path) -> dict[str, str]:
    """The files of the example in a folder of their own; the environment of a process that finds them.

    What `pip install ./mine` makes of pyproject.toml is made by hand, so that nothing is installed.
    """
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    project = tomllib.loads(FILES["mine/pyproject.toml"])["project"]
    points = project["entry-points"]["prunebench.criteria"]
    info = tmp_path / "mine" / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[prunebench.criteria]\n{lines}")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "mine"), str(ROOT)]), "OMP_NUM_THREADS": "1"}


def test_a_criterion_takes_less_than_forty_lines() -> None:
    assert COMMANDS is not None and len(FILES) == 4
    assert sum(text.count("\n") for text in (*FILES.values(), COMMANDS[1])) < 40


def test_the_criterion_of_contributing_runs(tmp_path: Path, plugged: dict[str, str]) -> None:
    assert COMMANDS is not None
    (command,) = re.findall(r"^prunebench (run .*)$", COMMANDS[1], re.M)
    small = ["trainer.max_steps=20", "dataset.limit=320", "dataset.validation_limit=64", "--json"]
    words = [sys.executable, "-m", "prunebench", *shlex.split(command), *small]
    done = subprocess.run(words, cwd=tmp_path, env=plugged, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == "finished" and result["sparsity"]["prunable"] == pytest.approx(0.9, abs=1e-4)
    folder = tmp_path / "outputs" / "quickstart" / result["digest"]
    criterion = OmegaConf.load(folder / "config.yaml").pruning.criterion
    assert criterion == {"name": "l1_inputs", "params": {}}


def test_the_criterion_of_contributing_scores_by_what_it_sees(plugged: dict[str, str]) -> None:
    names: dict[str, Any] = {}
    exec(FILES["mine/l1_inputs.py"], names)
    criterion, of = names["L1Inputs"](), Target("encoder.weight", nn.Linear(16, 8), "encoder", False)
    stat = criterion.stat(of)
    inputs = torch.randn(7, 16)
    stat.observe_inputs(inputs[:3], 1)
    stat.observe_inputs(inputs[3:], 2)
    expected = [[abs(float(w)) * sum(abs(float(x)) for x in inputs[:, j]) ** 0.5 for j, w in enumerate(row)]
                for row in of.matrix]  # fmt: skip
    assert torch.allclose(criterion.score(of, stat), torch.tensor(expected), rtol=1e-5)


def test_the_league_table_takes_the_criterion_of_contributing(tmp_path: Path, plugged: dict[str, str]) -> None:
    assert COMMANDS is not None
    (command,) = re.findall(r"^python scripts/league_table.py (.*)$", COMMANDS[1], re.M)
    (method,), (folder,) = re.findall(r"--method (\S+)", command), re.findall(r"--config-dir (\S+)", command)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    for name in ("model.safetensors", "tokenizer.json"):  # only their presence is looked at
        (model / name).touch()
    rows = "".join(
        f"{text}\t{label}\n" for text, label in [("sentence", "label"), *[("good", "1"), ("bad", "0")] * 5000]
    )
    (tmp_path / "train.tsv.gz").write_bytes(gzip.compress(rows.encode()))
    (tmp_path / "dev.tsv").write_text(rows)
    for part in re.findall(r"\b(one_shot|tuned)\b", command):
        job = league_table.pruner(method, part, 1, tmp_path, model, ["--config-dir", folder])
        words = [sys.executable, "-m", "prunebench", "show", *job.words, "--json"]
        done = subprocess.run(words, cwd=tmp_path, env=plugged, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["pruning"]["criterion"]["name"] == "l1_inputs"
