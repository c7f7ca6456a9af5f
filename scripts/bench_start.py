"""How soon the command line answers, and how soon a run makes its first training step.

    python scripts/bench_start.py             # about a minute
    python scripts/bench_start.py --small     # one call of each, to try the script

Prints, for verbs that need no torch, the median seconds of --repeats calls of the installed command over those of a
bare `python -c pass`, and whether torch was imported. Then the seconds from starting `run recipe=quickstart` in an
empty folder to the first row of its metrics.jsonl (data are generated, the tokenizer is trained, and the first step is
the teacher's) over those of `python -c "import torch"`. Last, which packages' imports that time goes into, as shares of
the time that the imports take together (-X importtime, self time by top-level package).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from statistics import median

from measuring import Ratios, interleaved, wall

PRUNEBENCH = str(Path(sys.executable).with_name("prunebench"))
VERBS = {
    "--help": ["--help"],
    "ls": ["ls"],
    "plan": ["plan", "recipe=bert_smc_90"],
    "show": ["show", "recipe=bert_smc_90"],
}
IMPORT = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", re.MULTILINE)  # microseconds, module


def call(*words: str, folder: str) -> str:
    """Runs a command in `folder` and returns its stderr."""
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True).stderr


def imports(*words: str, folder: str) -> dict[str, float]:
    """Seconds of importing by top-level package, of `prunebench <words>`; the longest first."""
    spent: Counter[str] = Counter()
    for microseconds, module in IMPORT.findall(call(*python(words), folder=folder)):
        spent[module.partition(".")[0]] += int(microseconds)
    return {package: total / 1e6 for package, total in spent.most_common()}


def python(words: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-X", "importtime", "-m", "prunebench", *words]


def run_words(outputs: str) -> tuple[str, ...]:
    """The quickstart, ended soon: every row is written at once, and few steps are made."""
    return ("run", "recipe=quickstart", f"outputs={outputs}", "trainer.log_every=1", "trainer.max_steps=20")


def first_step(folder: str) -> float:
    """Seconds from starting the run to the first logged step; it is stopped there."""
    with tempfile.TemporaryDirectory(dir=folder) as outputs:
        start = wall()
        process = subprocess.Popen([PRUNEBENCH, *run_words(outputs)], cwd=folder, stderr=subprocess.DEVNULL)
        try:
            while not any(path.stat().st_size for path in Path(outputs).glob("*/*/metrics.jsonl")):
                if process.poll() is not None:
                    raise SystemExit("the run ended without a step")
                time.sleep(0.005)
            return wall() - start
        finally:
            process.kill()
            process.wait()


def time_verbs(repeats: int, folder: str, ratios: Ratios) -> None:
    commands = {name: [PRUNEBENCH, *words] for name, words in VERBS.items()}
    commands["bare"] = [sys.executable, "-c", "pass"]
    variants = {name: partial(call, *words, folder=folder) for name, words in commands.items()}
    seconds = {name: median(values) for name, values in interleaved(variants, repeats, wall).items()}
    for name, words in VERBS.items():
        torch = "yes" if "torch" in imports(*words, folder=folder) else "no"
        ratios.add(f"{name} / bare python", seconds[name] / seconds["bare"], seconds=seconds[name], torch=torch)


def time_first_step(repeats: int, folder: str, ratios: Ratios) -> None:
    steps: list[float] = []
    torch: list[float] = []
    for _ in range(repeats):
        steps.append(first_step(folder))
        start = wall()
        call(sys.executable, "-c", "import torch", folder=folder)
        torch.append(wall() - start)
    ratios.add("first step of quickstart / import torch", median(steps) / median(torch), seconds=median(steps))


def share_imports(folder: str, ratios: Ratios) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as outputs:
        seconds = imports(*run_words(outputs), folder=folder)
    total = sum(seconds.values())
    for package, spent in list(seconds.items())[:12]:
        ratios.add(f"imports of a whole quickstart: {package}", spent / total, seconds=spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="calls of each verb; a third as many runs (default: 9)")
    parser.add_argument("--small", action="store_true", help="one call of each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the ratios there")
    options = parser.parse_args()
    repeats = 1 if options.small else options.repeats
    ratios = Ratios()
    with tempfile.TemporaryDirectory() as folder:
        time_verbs(repeats, folder, ratios)
        time_first_step(-(-repeats // 3), folder, ratios)
        share_imports(folder, ratios)
    ratios.write(options.json, vars(options))


if __name__ == "__main__":
    main()
