"""Guideline 1, measured: what pruning a component costs in score, and what that saves. Stop it and start it again.

    ../shared/models/get_minilm
    python scripts/guideline1_costs.py ../shared/data/glue/SST-2    # goes on where it was stopped
    python scripts/guideline1_costs.py --markdown                   # prints the table from what there is

MiniLM on SST-2 (4,000 training sentences, all of dev). Each component alone loses 90 % of its weights at once by
magnitude, after dense training: the score then, and after one unit more of training with the mask fixed.

Saved: weights; bytes as a bitmask and the values left, of fp32; operations of a forward pass (two a weight and token in
the encoder, two a weight and text in pooler and head; looking up an embedding multiplies nothing); and measured time
of a forward pass of 32 texts of 24 tokens on one thread, with the component's matrices multiplied in compressed rows
(torch's CSR) instead of densely. A lookup reads the rows that it needs, pruned or not, so embeddings save no time.
Runs and times are lines of docs/guideline1_costs.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from experiments import MINILM, ROOT, Line, add, common_fields, compute, read
from measuring import interleaved, wall
from torch import Tensor, nn

from prunebench.compare import mean_std, paired_interval
from prunebench.models import load_model
from prunebench.targets import find_targets

RESULTS = ROOT / "docs" / "guideline1_costs.json"
SPARSITY = 0.9
COMPONENTS = ("encoder", "embeddings", "pooler", "head")
TEXTS, TOKENS = 32, 24  # SST-2's sentences have 12 tokens in training and 25 in dev
RUNS = {
    "dense": ["recipe=dense"],
    "at once": ["pruning/schedule=one_shot_only"],
    "one unit": ["pruning/schedule=one_shot"],
}
COMMON = [
    "recipe=bert_smc_90", "dataset=sst2", "model=hf", "dataset.limit=4000", "trainer.lr=1e-4", "trainer.epochs=2",
    "trainer.precision=bf16", "trainer.threads=1", "distillation=none",
]  # fmt: skip
PRUNED = ["start=teacher", "pruning.dropout=0", f"sparsity={SPARSITY}"]


def run_all(args: argparse.Namespace) -> None:
    """What has no line yet, whole seeds one after another; the times once."""
    files = [f"dataset.train_file={args.data}/train.tsv.gz", f"dataset.validation_file={args.data}/dev.tsv"]
    common = [*COMMON, *files, f"model.name={args.model}", f"outputs={args.outputs}", *args.words]
    for seed in args.seed:
        one(args.results, common, "dense", "", [*RUNS["dense"], f"seed={seed}"])
        for component in COMPONENTS:
            for run in ("one unit", "at once"):
                own = [*RUNS[run], *PRUNED, f"pruning.components=[{component}]", f"seed={seed}"]
                one(args.results, common, run, component, own)
    if not any("times" in line for line in read(args.results)):
        add(args.results, {"settings": ["times"], "times": measure(args.model)})


def one(results: Path, common: list[str], run: str, component: str, own: list[str]) -> None:
    line = compute(common, own, results, lambda result: {"run": run, "component": component, **common_fields(result)})
    if line is not None:
        print(f"{component or 'nothing'}, {run}, seed {line['seed']}: {100 * line['score']:.2f}", flush=True)


# --- time ---------------------------------------------------------------------------------------------------------


class Compressed(nn.Module):
    """A linear layer with its weights in compressed rows."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        assert isinstance(linear, nn.Linear)
        weight = linear.weight.detach()
        kept = weight.abs() >= weight.abs().flatten().kthvalue(int(SPARSITY * weight.numel())).values
        self.rows, self.bias, self.dense = (weight * kept).to_sparse_csr(), linear.bias, linear

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., in) -> (..., out)"""
        flat = inputs.reshape(-1, inputs.shape[-1])
        return (self.rows @ flat.T).T.reshape(*inputs.shape[:-1], -1) + self.bias


def measure(model: Path, rounds: int = 15) -> dict[str, Any]:
    """Milliseconds of a forward pass, dense and with one component compressed: medians, measured in turns."""
    torch.set_num_threads(1)
    network = load_model(str(model), head="AutoModelForSequenceClassification", num_labels=2, seed=1).eval()
    variants: dict[str, Callable[[], object]] = {"dense": lambda: forward(network)}
    for component in COMPONENTS:
        if component != "embeddings":
            variants[component] = compressed(model, component)
    interleaved(variants, 3, wall)  # warm
    seconds = interleaved(variants, rounds, wall)
    return {name: round(1000 * median(values), 3) for name, values in seconds.items()}


def compressed(model: Path, component: str) -> Callable[[], object]:
    network = load_model(str(model), head="AutoModelForSequenceClassification", num_labels=2, seed=1).eval()
    for target in find_targets(network, (component,)):
        parent, _, name = target.name.removesuffix(".weight").rpartition(".")
        setattr(network.get_submodule(parent), name, Compressed(target.module))
    return lambda: forward(network)


@torch.no_grad()
def forward(network: nn.Module) -> Tensor:
    ids = torch.arange(TEXTS * TOKENS).reshape(TEXTS, TOKENS) + 1000
    logits: Tensor = network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return logits


# --- the table ----------------------------------------------------------------------------------------------------

HEADINGS = [
    "component", "weights", "score at once", "after one unit", "minus dense [95 %]", "weights saved", "bytes saved",
    "operations saved", "time saved",
]  # fmt: skip


def sizes(model: Path) -> dict[str, int]:
    from prunebench.sizes import CLASSIFY, component_sizes, read_folder

    known = component_sizes(read_folder(model)[0], CLASSIFY, 2)
    assert known is not None
    return known


def operations(component: str, weights: Mapping[str, int]) -> float:
    """Multiplications and additions for a text."""
    return {"encoder": 2.0 * TOKENS, "embeddings": 0.0}.get(component, 2.0) * weights[component]


def cells(component: str, lines: list[Line], weights: Mapping[str, int]) -> list[str]:
    dense = {line["seed"]: 100 * line["score"] for line in lines if line.get("run") == "dense"}
    own = {
        run: [line for line in lines if (line.get("run"), line.get("component")) == (run, component)] for run in RUNS
    }
    lost = paired_interval([100 * line["score"] - dense[line["seed"]] for line in own["one unit"]])
    between = "" if lost.low is None else f" [{lost.low:+.1f}, {lost.high:+.1f}]"
    zeros, whole = SPARSITY * weights[component], sum(weights.values())
    saved = 4 * zeros - weights[component] / 8
    work = SPARSITY * operations(component, weights) / sum(operations(name, weights) for name in COMPONENTS)
    times: dict[str, float] = next((line["times"] for line in lines if "times" in line), {})
    spared = 1 - times.get(component, times["dense"]) / times["dense"] if times else None
    return [
        component,
        f"{weights[component] / 1e6:.3f} M ({100 * weights[component] / whole:.1f} %)",
        score(own["at once"]),
        score(own["one unit"]),
        f"{lost.mean:+.1f}{between}",
        f"{zeros / 1e6:.3f} M ({100 * zeros / whole:.1f} %)",
        f"{saved / 1e6:.2f} MB ({100 * saved / (4 * whole):.1f} %)",
        f"{100 * work:.2f} %",
        "" if spared is None else f"{100 * spared:.1f} %",
    ]


def score(lines: list[Line]) -> str:
    if not lines:
        return ""
    found = mean_std([100 * line["score"] for line in lines])
    return f"{found.mean:.1f}" + ("" if found.std is None else f" ± {found.std:.1f}")


def show(lines: list[Line], model: Path) -> None:
    weights = sizes(model)
    dense = [100 * line["score"] for line in lines if line.get("run") == "dense"]
    rows = [cells(name, lines, weights) for name in COMPONENTS if any(line.get("component") == name for line in lines)]
    print("| " + " | ".join(HEADINGS) + " |\n" + "|---" * len(HEADINGS) + "|")
    print("\n".join("| " + " | ".join(row) + " |" for row in rows))
    if dense:
        print(f"\nDense accuracy {mean(dense):.1f} over {len(dense)} seeds; {100 * SPARSITY:g} % of each pruned.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder with SST-2's train.tsv.gz and dev.tsv")
    parser.add_argument(
        "words", nargs="*", metavar="key=value", help="for a trial: dataset.limit=400 ... and --results"
    )
    parser.add_argument("--model", type=Path, default=MINILM)
    parser.add_argument("--seed", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--outputs", default="outputs/guideline1_costs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--markdown", action="store_true", help="print the table only")
    args = parser.parse_intermixed_args()
    if not args.markdown:
        if args.data is None:
            parser.error("name the folder with the data, or --markdown")
        run_all(args)
    show(read(args.results), args.model)


if __name__ == "__main__":
    main()
