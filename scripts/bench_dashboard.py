"""How long the dashboard takes with many runs: python scripts/bench_dashboard.py [--runs 1000] [--points 1000]

Makes a folder of runs as prunebench leaves them, serves it, opens each view in headless Chromium, and prints seconds:
until the view is drawn, and until it has answered a click or a word in the filter. Needs playwright and Chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from prunebench.compose import load_config
from prunebench.config import RunConfig
from prunebench.paths import RunFolder, write_json, write_text

METHODS = ("bert_smc", "gmp_star", "obert", "movement", "lottery_ticket", "wanda", "rigl", "acdc", "snip", "taylor")
MATRICES = [
    f"bert.encoder.layer.{layer}.{part}.weight"
    for layer in range(12)
    for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
                 "intermediate.dense", "output.dense")
]  # fmt: skip
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")


def make_runs(outputs: Path, runs: int, points: int, examples: int) -> None:
    """Runs of ten methods at up to twenty levels, five seeds each, on one data set."""
    base = load_config(["recipe=quickstart"])
    for number in range(runs):
        method = METHODS[number // 5 % len(METHODS)]
        sparsity = round(0.5 + 0.025 * (number // (5 * len(METHODS)) % 20), 3)
        make_run(outputs, replace(base, name=method, sparsity=sparsity, seed=number % 5 + 1), number, points, examples)


def make_run(outputs: Path, config: RunConfig, number: int, points: int, examples: int) -> None:
    digest, chance = f"{number:012x}", random.Random(number)
    folder = RunFolder(outputs / config.name / digest)
    folder.root.mkdir(parents=True)
    score = 0.93 - 0.3 * config.sparsity**6 + chance.gauss(0, 0.01)
    values = asdict(config)
    write_json(folder.config, values)  # JSON is YAML
    write_json(folder.plan, {"phases": [phase(0, points // 2), phase(points // 2, points)]})
    write_json(folder.result, result_of(config, digest, score, values, examples))
    rows = [update(step, points, config.sparsity, chance) for step in range(points)]
    for step in range(points // 20, points // 2, points // 20):
        level = config.sparsity * 2 * step / points
        layers = {name: round(min(0.999, level * chance.uniform(0.9, 1.1)), 6) for name in MATRICES}
        rows.append({"step": step, "pruning": {"sparsity": level, "churn": 0.01, "layers": layers}})
    write_text(folder.metrics, "".join(json.dumps(row) + "\n" for row in sorted(rows, key=lambda row: row["step"])))
    lines = [prediction(i, chance.random() < score) for i in range(examples)]
    write_text(folder.predictions, "".join(json.dumps(line) + "\n" for line in lines))


def phase(start: int, stop: int) -> dict[str, Any]:
    return {"name": "prune", "start": start, "stop": stop, "lr": {"start": start, "stop": stop}}


def update(step: int, points: int, sparsity: float, chance: random.Random) -> dict[str, Any]:
    return {
        "step": step, "loss": 0.7 / (1 + step / 100) + chance.random() / 10, "task_loss": chance.random(),
        "distillation_loss": chance.random(), "grad_norm": chance.random(), "epoch": step / 100, "phase": "prune",
        "lr": 1e-3 * (1 - 2 * step / points % 1), "sparsity": sparsity * min(1, 2 * step / points),
        "examples_per_second": 100.0,
    }  # fmt: skip


def prediction(number: int, right: bool) -> dict[str, Any]:
    label = ("negative", "positive")[number % 2]
    said = label if right else ("positive", "negative")[number % 2]
    text = f"example {number}: " + "a film that does what films do " * 3
    line = {"split": "validation", "id": number, "text": text, "label": label, "prediction": said, "correct": right}
    return line | {"logits": [0.5, -0.5]}


def result_of(config: RunConfig, digest: str, score: float, values: dict[str, Any], examples: int) -> dict[str, Any]:
    prunable, model = 131072, 148546
    kept = round(prunable * (1 - config.sparsity))
    return {
        "status": "finished", "recipe": config.name, "name": config.name, "digest": digest, "seed": config.seed,
        "group": f"{config.name}-{config.sparsity}", "config": values,
        "evaluation": {"split": "validation", "examples": examples, "content": "made", "answers": "made"},
        "metric": {"name": "accuracy", "value": score, "higher_is_better": True, "weights": "last"},
        "metrics": {"accuracy": score}, "dense": {"value": 0.93}, "recovery": score / 0.93,
        "sparsity": {"target": config.sparsity, "prunable": config.sparsity, "model": (prunable - kept) / model,
                     "components": {"encoder": config.sparsity}},
        "weights": {"model": model, "model_nonzero": model - prunable + kept, "prunable": prunable,
                    "prunable_nonzero": kept},
        "bytes": {"dense": 4 * model, "compressed": 2 * model}, "training": {"steps": 1000, "prunings": 9},
        "seconds": 60.0, "model": "model", "warnings": [], "environment": {"precision": "fp32"}, "schema": 1,
    }  # fmt: skip


@contextmanager
def served(outputs: Path) -> Iterator[tuple[str, float]]:
    """The address of a server of `outputs`, and the processor's seconds it took to read them."""
    import uvicorn

    from prunebench.dashboard.serve import listen, make_app
    from prunebench.dashboard.store import Store

    began, store, listener = time.process_time(), Store(outputs), listen("127.0.0.1", 0)
    store.runs()
    read = time.process_time() - began
    server = uvicorn.Server(uvicorn.Config(make_app(store, "127.0.0.1", None), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/", read
    server.should_exit = True
    thread.join()


def measure(address: str, executable: str) -> dict[str, float]:
    from playwright.sync_api import sync_playwright

    seconds: dict[str, float] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        select = "&".join(f"select={name}/{i:012x}" for i, name in ((0, "bert_smc"), (5, "gmp_star"), (10, "obert")))
        views = {"scores": "", "curves": select, "layers": "", "examples": "", "differences": "", "runs": ""}
        for view, more in views.items():
            times = []
            for _ in range(3):
                page.goto("about:blank")
                began = time.perf_counter()
                page.goto(f"{address}#view={view}&{more}")
                page.wait_for_selector("main h1")
                painted(page)
                times.append(time.perf_counter() - began)
            seconds[f"open {view}"] = statistics.median(times)
        seconds["sort by score"] = timed(page, lambda: page.click("#sort-score"))
        seconds["filter"] = timed(page, lambda: page.fill("#words", "movement sparsity>=0.8"))
        page.goto(f"{address}#view=scores")
        page.wait_for_selector("canvas")
        seconds["other denominator"] = timed(page, lambda: page.click("#share-model"))
        browser.close()
    return seconds


def painted(page: Any) -> None:
    """Waits until what was drawn is on the screen."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def timed(page: Any, act: Any) -> float:
    began = time.perf_counter()
    act()
    painted(page)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--keep", metavar="DIR", help="make the runs there, and leave them; use those that are there")
    args = parser.parse_args()
    executable = os.environ.get("PRUNEBENCH_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        raise SystemExit("no Chromium: apt-get install chromium, or name it in PRUNEBENCH_CHROMIUM")
    with tempfile.TemporaryDirectory() as temporary:
        outputs = Path(args.keep or temporary) / "outputs"
        if not outputs.is_dir():
            make_runs(outputs, args.runs, args.points, args.examples)
        with served(outputs) as (address, read):
            for what, seconds in {"read the folder (processor)": read, **measure(address, executable)}.items():
                print(f"{seconds:6.2f} s  {what}")


if __name__ == "__main__":
    main()
