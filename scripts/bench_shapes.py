"""What lengths, dropout, attention and threads cost a training step on this CPU, at MiniLM's shape (6 layers, 384).

    python scripts/bench_shapes.py             # about a quarter of an hour on two cores
    python scripts/bench_shapes.py --small     # 2 layers of width 64, to try the script

A step is forward and backward pass of BERT for classification in batches of 32, without the optimizer. Lengths are
drawn like SST-2's (mean 13, at most 66 tokens) and put into batches by `BatchOrder`, as in a run, so that nearly every
batch has another shape. Printed ratios:

- padding: to multiples of 1 and 16 over 8 (first: the first --steps steps, when no kernel for a shape was built yet;
  later: the median round after that)
- dropout: 0.1 over 0; and one thread over --threads
- attention: fused (sdpa) over plain (eager) for batches of one length each
- waiting: threads that sleep while they wait for each other (OMP_WAIT_POLICY=passive) over threads that spin (OpenMP's
  default), and one thread over these, each alone and with another busy process beside, in a process of its own

Elapsed time, all variants in turn on the same batches, backwards in every second round; a ratio is the median over
--rounds rounds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import transformers
from measuring import Ratios, interleaved, ratio_of, spread_of, wall
from torch import Tensor

from prunebench.batches import BatchOrder

VOCABULARY, BATCH, EXAMPLES = 2000, 32, 6400
PRECISIONS = ("fp32", "bf16")
LENGTHS = (16, 64, 128, 256, 384)


def make_model(options: argparse.Namespace, attention: str = "sdpa", dropout: float = 0.0) -> Any:
    layers, width = (2, 64) if options.small else (6, 384)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        intermediate_size=4 * width,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    model = transformers.BertForSequenceClassification(config).train()
    model.set_attn_implementation(attention)
    return model


def lengths_like_sst2(examples: int) -> np.ndarray:
    """Tokens with [CLS] and [SEP]: log-normal, mean 13, from 3 to 66."""
    drawn = np.random.default_rng(0).lognormal(mean=2.35, sigma=0.62, size=examples)
    return np.clip(np.round(drawn), 3, 66).astype(int)


def step(model: Any, lengths: np.ndarray, multiple: int, precision: str) -> None:
    """Forward and backward pass over a batch of random text, padded to a multiple."""
    width = -(-int(lengths.max()) // multiple) * multiple
    ids = torch.randint(1, VOCABULARY, (len(lengths), width))
    mask = (torch.arange(width) < torch.from_numpy(lengths)[:, None]).long()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits: Tensor = model(input_ids=ids, attention_mask=mask).logits
    torch.autograd.backward(logits.float().logsumexp(-1).mean())
    model.zero_grad(set_to_none=True)


class Batches:
    """A training order; every call of `run` with the same round goes over the same batches."""

    def __init__(self, steps: int) -> None:
        self._lengths = lengths_like_sst2(EXAMPLES)
        self._order = BatchOrder(self._lengths, BATCH, seed=1)
        self._steps = steps

    def runner(self, model: Any, multiple: int, precision: str, threads: int | None = None) -> Callable[[], None]:
        """Each call runs the next --steps batches."""
        position = iter(range(0, 10**9, self._steps))

        def run() -> None:
            before = torch.get_num_threads()
            torch.set_num_threads(threads or before)
            start = next(position)
            for number in range(start, start + self._steps):
                step(model, self._lengths[self._order(number)], multiple, precision)
            torch.set_num_threads(before)

        return run


def compare_padding(options: argparse.Namespace, ratios: Ratios) -> None:
    model, batches = make_model(options), Batches(options.steps)
    for precision in PRECISIONS:
        step(model, np.full(BATCH, 72), 8, precision)  # what any first step costs; a length that no batch has
        runs = {str(multiple): batches.runner(model, multiple, precision) for multiple in (1, 8, 16)}
        seconds = interleaved(runs, 1 + options.rounds, wall)
        for multiple in ("1", "16"):
            above, below = seconds[multiple], seconds["8"]
            what = f"{precision}: padding to multiples of {multiple} / of 8"
            ratios.add(f"{what}, first", above[0] / below[0], ms=1000 * below[0] / options.steps)
            add(ratios, f"{what}, later", above[1:], below[1:], options.steps)


def compare_dropout_and_threads(options: argparse.Namespace, ratios: Ratios) -> None:
    plain, dropping, batches = make_model(options), make_model(options, dropout=0.1), Batches(options.steps)
    for precision in PRECISIONS:
        runs = {
            "plain": batches.runner(plain, 8, precision),
            "dropout": batches.runner(dropping, 8, precision),
            "one": batches.runner(plain, 8, precision, threads=1),
            "dropout, one": batches.runner(dropping, 8, precision, threads=1),
        }
        seconds = interleaved(runs, 1 + options.rounds, wall)
        values = {name: times[1:] for name, times in seconds.items()}  # the first round builds kernels
        for above, below, what in (
            ("dropout", "plain", f"dropout 0.1 / 0, {options.threads} threads"),
            ("dropout, one", "one", "dropout 0.1 / 0, one thread"),
            ("one", "plain", f"one thread / {options.threads}, without dropout"),
            ("dropout, one", "dropout", f"one thread / {options.threads}, dropout 0.1"),
        ):
            add(ratios, f"{precision}: {what}", values[above], values[below], options.steps)


def compare_attention(options: argparse.Namespace, ratios: Ratios) -> None:
    models = {name: make_model(options, attention=name) for name in ("sdpa", "eager")}
    for precision in PRECISIONS:
        for length in LENGTHS:
            lengths = np.full(max(4, 4096 // length) if length > 128 else BATCH, length)
            steps = max(1, options.steps * 16 // length)

            runs = {name: partial(repeat, steps, model, lengths, precision) for name, model in models.items()}
            seconds = interleaved(runs, 1 + options.rounds, wall)
            what = f"{precision}: sdpa / eager at {length} tokens"
            add(ratios, what, seconds["sdpa"][1:], seconds["eager"][1:], steps)


def repeat(steps: int, model: Any, lengths: np.ndarray, precision: str) -> None:
    for _ in range(steps):
        step(model, lengths, 8, precision)


def compare_waiting(options: argparse.Namespace, ratios: Ratios) -> None:
    for neighbours in (0, 1):
        with busy(neighbours):
            variants = {
                "spinning": lambda: in_child(options, options.threads, ""),
                "sleeping": lambda: in_child(options, options.threads, "passive"),
                "one": lambda: in_child(options, 1, ""),
            }
            names = list(variants)
            rounds = [{name: variants[name]() for name in names[:: -1 if i % 2 else 1]} for i in range(options.rounds)]
        beside = f"{neighbours} busy processes beside"
        spinning = [times["spinning"] for times in rounds]
        for name, what in (("sleeping", "sleeping / spinning threads"), ("one", "one thread / spinning threads")):
            add(ratios, f"fp32: {what}, {beside}", [times[name] for times in rounds], spinning, options.steps)


@contextmanager
def busy(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def in_child(options: argparse.Namespace, threads: int, policy: str) -> float:
    """Seconds of --steps steps in a new process: OpenMP reads its settings once."""
    words = [sys.executable, __file__, "--child", f"--steps={options.steps}", f"--threads={threads}"]
    environment = os.environ | ({"OMP_WAIT_POLICY": policy} if policy else {})
    done = subprocess.run(
        words + ["--small"] * options.small, env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def child(options: argparse.Namespace) -> float:
    run = Batches(options.steps).runner(make_model(options), 8, "fp32")
    run()  # builds kernels
    return interleaved({"": run}, 1, wall)[""][0]


def add(ratios: Ratios, what: str, above: list[float], below: list[float], steps: int) -> None:
    ratios.add(what, ratio_of(above, below), rounds=spread_of(above, below), ms=1000 * median(below) / steps)


PARTS = {
    "padding": compare_padding,
    "dropout": compare_dropout_and_threads,
    "attention": compare_attention,
    "waiting": compare_waiting,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--small", action="store_true", help="2 layers of width 64")
    parser.add_argument("--steps", type=int, default=30, help="batches of a round (default: 30)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--threads", type=int, default=2, help="torch's (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the ratios there")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(unknown)}")
    torch.set_num_threads(options.threads)
    if options.child:
        print(child(options))
        return
    ratios = Ratios()
    for name in options.parts or PARTS:
        PARTS[name](options, ratios)
    ratios.write(options.json, vars(options))


if __name__ == "__main__":
    main()
