"""Sweeps of a tiny BERT through the real command line: words, processes, and what they leave."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from prunebench.paths import RunFolder
from tests.tiny import make_data, make_model

ROOT = Path(__file__).resolve().parents[1]


def tiny_words(folder: Path, outputs: str = "outputs") -> list[str]:
    """A run of a second at most, below `folder`."""
    model = folder / "pretrained"
    if not model.exists():
        make_model(model)
        make_data(folder)
    return [
        "recipe=one_shot", "dataset=classification", f"dataset.train_file={folder}/train.csv",
        f"dataset.validation_file={folder}/validation.csv", "dataset.max_length=32", "model=hf", f"model.name={model}",
        "trainer.batch_size=32", "trainer.epochs=1", "trainer.threads=1", "trainer.device=cpu", "sparsity=0.5",
        f"outputs={folder}/{outputs}",
    ]  # fmt: skip


def command(*words: str) -> subprocess.Popen[str]:
    """prunebench in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    whole = [sys.executable, "-m", "prunebench", *words]
    return subprocess.Popen(whole, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], object], seconds: float = 300) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it took too long"
        time.sleep(0.02)


def contents(outputs: Path, run: str) -> dict[str, str]:
    """Hashes of what a run computed."""
    folder = RunFolder(outputs / run)
    files = [folder.model / "model.safetensors", folder.masks, folder.predictions]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
