"""Kills a run at random moments, again and again, until it is done; then compares it with one that nobody disturbed.

    python scripts/kill_at_random.py                  # 200 kills, some twenty minutes on an idle machine
    python scripts/kill_at_random.py --kills 20

Two of three kills are `kill -9`, the others SIGTERM and Ctrl-C. The run is the quickstart's, shortened: teacher,
tokenising, logits, pruning, export and scoring, a checkpoint every 10 steps. Equal means: sha256 of masks, predictions
and every file of the model, and the rows of metrics.jsonl but for the clock. Where something differs, the folders are
kept and the exit status is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

SIGNALS = [signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
SETTINGS = ["recipe=quickstart", "trainer.max_steps=60", "trainer.checkpoint_steps=10", "dataset.validation_limit=200"]


def start(outputs: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "prunebench", "run", *SETTINGS, f"outputs={outputs}"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


def contents(outputs: Path) -> dict[str, str]:
    """What must be equal: sha256 by file, of both runs."""
    found = {}
    for run in sorted(outputs.glob("[!.]*/*/result.json")):
        folder = run.parent
        models = (path for path in (folder / "model").rglob("*") if path.is_file())
        for path in (folder / "masks.safetensors", folder / "predictions.jsonl", *models):
            if path.exists():  # a dense run has no masks to save
                found[str(path.relative_to(outputs))] = hashlib.sha256(path.read_bytes()).hexdigest()
        found[f"{folder.name} metrics"] = hashlib.sha256(_rows(folder / "metrics.jsonl").encode()).hexdigest()
    return found


def _rows(path: Path) -> str:
    rows = (json.loads(line) for line in path.read_text().splitlines())
    return json.dumps([{key: value for key, value in row.items() if key != "examples_per_second"} for row in rows])


def wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit status, or None when it is still at work after so long."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw, place = random.Random(args.seed), Path(tempfile.mkdtemp(prefix="prunebench-kills-"))
    began = time.monotonic()
    if start(place / "undisturbed").wait() != 0:
        raise SystemExit("the undisturbed run failed: try it alone, prunebench run " + " ".join(SETTINGS))
    whole, expected = time.monotonic() - began, contents(place / "undisturbed")
    kills: Counter[str] = Counter()
    finished = 0
    while kills.total() < args.kills or (place / "killed").exists():
        process = start(place / "killed")
        status = wait(process, draw.uniform(0.2 * whole, 0.7 * whole) if kills.total() < args.kills else 3600)
        if status is None:
            how = draw.choice(SIGNALS)
            process.send_signal(how)
            process.wait()
            kills[how.name] += 1
        elif status == 0:
            finished += 1
            if contents(place / "killed") != expected:
                print(f"differs after {kills.total()} kills: {place}/killed and {place}/undisturbed are kept")
                return 1
            shutil.rmtree(place / "killed")
            print(f"{finished} runs ended as the undisturbed one, {kills.total()} kills so far", flush=True)
        elif status > 0:
            print(f"a run ended with status {status} after {kills.total()} kills: {place}/killed is kept")
            return 1
    print(f"{kills.total()} kills ({dict(kills)}), {finished} runs, all equal, {time.monotonic() - began:.0f} s")
    shutil.rmtree(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
