"""SparseGPT against the code of its authors, and what Wanda adds to the forward passes it looks at.

    git clone https://github.com/IST-DASLab/sparsegpt
    python scripts/bench_sparsegpt.py sparsegpt

For the shapes of BERT-base, which are those of OPT-125m: how many times as long as ours the reference's own
`SparseGPT.fasterprune` takes from the same X X^T (random correlated inputs) to the pruned weights, and the squared
error of the outputs of both, relative to that of removing everything. Then: the CPU time that Wanda adds (norms,
scores, masks) to the forward passes of its walk through a randomly initialised BERT-base of --layers layers, over that
of the passes.

Time is CPU time of --threads threads: the median over --rounds rounds of the ratio within a round, in which both take
turns. `torch.cuda.synchronize` at the end of the reference is replaced (scripts/references.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from measuring import Ratios, cpu, interleaved, ratio_of, spread_of
from references import Layer, load, random_layer, stubs
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from prunebench.sparsity.calibration import Calibration
from prunebench.sparsity.criteria import CRITERIA
from prunebench.sparsity.criteria.sparsegpt import SparseGPT
from prunebench.sparsity.patterns import Budget
from prunebench.sparsity.sparsifier import build_sparsifier
from prunebench.sparsity.stats import Gram, InputNorm, InputStat
from prunebench.targets import Target, find_targets

SHAPES = ((768, 768), (3072, 768), (768, 3072))  # (out, in): attention, first and second of the feed-forward layer
PATTERNS: tuple[tuple[str, int, int], ...] = (("50 %", 0, 0), ("2:4", 2, 4))


def linear(weight: Tensor) -> nn.Linear:
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    module.weight = nn.Parameter(weight.clone(), requires_grad=False)
    return module


def target_of(module: nn.Linear) -> Target:
    return Target("weight", module, "encoder", transposed=False)


def gram_of(layer: Layer) -> Gram:
    stat = Gram(target_of(linear(layer.weight)))
    stat.observe_inputs(layer.tokens, len(layer.inputs))
    return stat


def reference(code: Any, layer: Layer, gram: Gram, n: int, m: int) -> tuple[nn.Linear, Callable[[], object]]:
    """A module, and what prunes it."""
    module = linear(layer.weight)
    pruner = code.SparseGPT(module)
    pruner.H = 2 / len(layer.inputs) * gram.matrix

    def prune() -> None:
        with stubs():
            pruner.fasterprune(0.5, prunen=m - n, prunem=m)

    return module, prune


def ours(layer: Layer, gram: Gram, n: int, m: int) -> tuple[nn.Linear, Callable[[], object]]:
    module = linear(layer.weight)
    target, alive = target_of(module), torch.ones_like(layer.weight, dtype=torch.bool)
    budget = Budget(alive.numel() // 2, n=n, m=m) if m else Budget(alive.numel() // 2)

    def prune() -> None:
        module.weight.mul_(SparseGPT().solve(target, alive, budget, gram))

    return module, prune


def compare(code: Any, shape: tuple[int, int], rounds: int, ratios: Ratios) -> None:
    layer = random_layer(*shape, length=2 * shape[1] // 64)
    gram = gram_of(layer)
    for pattern, n, m in PATTERNS:
        theirs = [reference(code, layer, gram, n, m) for _ in range(rounds + 1)]
        mine = [ours(layer, gram, n, m) for _ in range(rounds + 1)]
        for runs in (theirs, mine):  # the first time loads libraries
            runs[-1][1]()
        turns = {"reference": iter(theirs), "ours": iter(mine)}
        seconds = interleaved({name: _next(runs) for name, runs in turns.items()}, rounds, cpu)
        ratios.add(
            f"{shape[0]} x {shape[1]}, {pattern}: reference / ours",
            ratio_of(seconds["reference"], seconds["ours"]),
            rounds=spread_of(seconds["reference"], seconds["ours"]),
            ours_ms=1000 * median(seconds["ours"]),
            error_reference=layer.error(theirs[-1][0].weight),
            error_ours=layer.error(mine[-1][0].weight),
        )


def _next(runs: Iterable[tuple[nn.Linear, Callable[[], object]]]) -> Callable[[], object]:
    runs = iter(runs)
    return lambda: next(runs)[1]()


# --- Wanda ---


class Nothing(InputStat):
    def observe_inputs(self, inputs: Tensor, sequences: int) -> None:
        pass


def make_calibration(model: nn.Module, vocabulary: int, examples: int, length: int) -> Calibration:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, vocabulary, (examples, length), generator=generator)
    lengths = torch.randint(length // 2, length + 1, (examples,), generator=generator)
    mask = (torch.arange(length) < lengths[:, None]).long()

    def batch_of(indices: np.ndarray) -> dict[str, Tensor]:
        at = torch.from_numpy(indices)
        return {"input_ids": ids[at], "attention_mask": mask[at], "labels": torch.zeros(len(at), dtype=torch.long)}

    def loss_of(batch: Any) -> Tensor:
        loss: Tensor = model(**batch).loss
        return loss

    return Calibration(model, np.arange(examples), lengths.numpy(), 32, batch_of, loss_of)


def wanda_share(layers: int, examples: int, rounds: int, ratios: Ratios) -> None:
    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=layers, vocab_size=1000)
    model = BertForSequenceClassification(config).eval()
    calibration = make_calibration(model, config.vocab_size, examples, 64)
    targets = find_targets(model)

    def passes() -> None:
        """One observer a layer, so that it is run; it does nothing."""
        for _ in calibration.layer_by_layer(targets, lambda members: [(members[0], Nothing())]):
            pass

    def wanda() -> None:
        build_sparsifier(targets, criterion="wanda", scope="row").update(0.5, calibration)

    norms = [(target, InputNorm(target)) for target in targets]
    score = CRITERIA.build("wanda").score
    for _, stat in norms:
        stat.squares += 1
    variants = {"passes": passes, "wanda": wanda, "scores": lambda: [score(target, stat) for target, stat in norms]}
    passes()
    seconds = interleaved(variants, rounds, cpu)
    added = [both - alone for both, alone in zip(seconds["wanda"], seconds["passes"], strict=True)]
    details = {"tokens": int(calibration.lengths.sum()), "passes_s": median(seconds["passes"])}
    ratios.add("Wanda: all it adds / forward passes", ratio_of(added, seconds["passes"]), **details)
    ratios.add("Wanda: scores alone / forward passes", ratio_of(seconds["scores"], seconds["passes"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="of IST-DASLab/sparsegpt")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--layers", type=int, default=2, help="of the model that Wanda walks through (default: 2)")
    parser.add_argument("--examples", type=int, default=256, help="that Wanda looks at (default: 256)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the ratios there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    code, ratios = load(options.checkout, "sparsegpt"), Ratios()
    for shape in SHAPES:
        compare(code, shape, options.rounds, ratios)
    wanda_share(options.layers, options.examples, options.rounds, ratios)
    ratios.write(options.json, vars(options))


if __name__ == "__main__":
    main()
