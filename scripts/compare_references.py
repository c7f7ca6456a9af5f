"""Masks and errors of our layer-wise methods beside those of the references' own code, on the same weights and inputs.

    for repo in IST-DASLab/sparsegpt locuslab/wanda zyxxmu/DSnoT RocktimJyotiDas/GBLM-Pruner; do
        git clone https://github.com/$repo checkouts/${repo#*/}
    done
    python scripts/compare_references.py checkouts

Layers of MiniLM with SST-2's tokens where they are there (../shared/models/get_minilm), correlated random numbers
otherwise. Each line: the share of mask entries that agree, how many weights both keep, and the squared error of the
outputs by both, relative to that of removing everything.

How their code is run: `SparseGPT.add_batch` and `.fasterprune` directly; the selection of the others stands inside the
drivers `prune_wanda`, `prune_DSnoT` and `prune_gblm`, so these run on a stand-in for a model of one layer, which is
called `self_attn.q_proj` and whose "tokens" are the inputs themselves. GBLM's gradients, random numbers here, go
through its class `gradient_computation`; the root and float16 that its script then applies are applied here. Stubs: the
drivers' `get_loaders` gives these inputs, and those of scripts/references.py.

Where they differ, and why:

- sparsegpt: in every block of 128 columns the reference removes what is at or below the sorted cost at index
  int(size * sparsity), one weight more than that share; the line "as many" gives us its number. What is left is
  rounding: costs next to the threshold, from float32 sums in another order. It sets weights of inputs that are
  always zero to zero; ours go first, but keep their values where the budget has room for them.
- wanda, gblm: both remove int(columns * sparsity) of a row. Equal scores: the reference removes the first, we keep it.
  gblm's gradients are float16 there, so that scores differ by up to 5e-4.
- wanda variant: the reference stops its bisection within 0.001 of the sparsity; ours is exact. The line "as many" gives
  us its number.
- dsnot: the same exchanges, rounding apart; where a queue of candidates is empty (weights that have no D of the sign
  asked for) the reference goes on with others and its counts may change. With n:m it is called with initial_method
  wanda, whose score ours always takes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from references import Layer, load, random_layer, real_layers, stubs
from torch import Tensor, nn

from prunebench.sparsity.criteria import CRITERIA
from prunebench.sparsity.criteria.sparsegpt import SparseGPT
from prunebench.sparsity.dsnot import DSnoT
from prunebench.sparsity.masks import top_mask, top_per_row
from prunebench.sparsity.patterns import PATTERNS, Budget
from prunebench.sparsity.stats import Gram, InputNorm
from prunebench.targets import Target

PATTERNS_ASKED: tuple[tuple[str, float, int, int], ...] = (("50 %", 0.5, 0, 0), ("70 %", 0.7, 0, 0), ("2:4", 0.5, 2, 4))
GRADIENTS = 8


class OneLinear(nn.Module):
    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.self_attn = nn.ModuleDict({"q_proj": linear})

    def forward(self, hidden: Tensor, attention_mask: None = None, position_ids: None = None) -> tuple[Tensor]:
        self.self_attn["q_proj"](hidden)
        return (hidden,)


class StandIn(nn.Module):
    """A causal language model of one layer, as far as the drivers look at one."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.linear = linear(layer.weight)
        self.model = nn.Module()
        self.model.layers = nn.ModuleList([OneLinear(self.linear)])
        self.config = SimpleNamespace(use_cache=False)
        self.config.hidden_size = layer.weight.shape[1]
        self.seqlen = layer.inputs.shape[1]
        self.hf_device_map: dict[str, Any] = {}

    def forward(self, hidden: Tensor) -> Any:
        return self.model.get_submodule("layers.0")(hidden, attention_mask=None, position_ids=None)


def linear(weight: Tensor) -> nn.Linear:
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    module.weight.data = weight.clone()
    return module


def target_of(layer: Layer) -> Target:
    return Target("layer.0.self_attn.q_proj.weight", linear(layer.weight), "encoder", transposed=False)


def observe(stat: Any, layer: Layer) -> Any:
    for sequence in layer.inputs:  # one by one, as the references do
        stat.observe_inputs(sequence, 1)
    return stat


def show(what: str, layer: Layer, theirs: Tensor, ours: Tensor) -> None:
    """Weights of both, pruned ones being zero."""
    equal = float(((theirs != 0) == (ours != 0)).double().mean())
    kept = f"{int((theirs != 0).sum()):,} and {int((ours != 0).sum()):,}"
    print(f"  {what:28} equal {equal:.5f}   kept {kept:23} error {layer.error(theirs):.5f} and {layer.error(ours):.5f}")


def drive(code: Any, driver: str, layer: Layer, n: int, m: int, **settings: Any) -> Tensor:
    """The weights after one of the drivers."""
    model = StandIn(layer)
    code.get_loaders = lambda *args, **named: ([(sequence.unsqueeze(0), None) for sequence in layer.inputs], None)
    args = SimpleNamespace(nsamples=len(layer.inputs), seed=0, **settings)
    with stubs(), torch.no_grad():
        getattr(code, driver)(args, model, None, torch.device("cpu"), prune_n=m - n, prune_m=m)
    return model.linear.weight.detach()


def lowest_of_rows(score: Tensor, sparsity: float, n: int, m: int) -> Tensor:
    """The mask as the drivers count."""
    if m:
        return top_per_row(score.reshape(-1, m), n).view(score.shape)
    return top_per_row(score, score.shape[1] - int(score.shape[1] * sparsity))


# --- the methods ---


def sparsegpt(checkouts: Path, layer: Layer, pattern: str, sparsity: float, n: int, m: int) -> None:
    code = load(checkouts / "sparsegpt", "sparsegpt")
    module = linear(layer.weight)
    with stubs(), torch.no_grad():
        pruner = code.SparseGPT(module)
        for sequence in layer.inputs:
            pruner.add_batch(sequence.unsqueeze(0), None)
        pruner.fasterprune(sparsity, prunen=m - n, prunem=m)
    theirs, size = module.weight.detach(), layer.weight.numel()
    keeps = {f"sparsegpt {pattern}": size - round(size * sparsity)}
    if not m:
        keeps[f"sparsegpt {pattern}, as many"] = int((theirs != 0).sum())
    for what, keep in keeps.items():
        target = target_of(layer)
        stat, alive = observe(Gram(target), layer), torch.ones_like(layer.weight, dtype=torch.bool)
        budget = Budget(keep, n=n, m=m) if m else Budget(keep)
        mask = SparseGPT().solve(target, alive, budget, stat)
        show(what, layer, theirs, target.matrix * mask)


def wanda(checkouts: Path, layer: Layer, pattern: str, sparsity: float, n: int, m: int) -> None:
    code = load(checkouts / "wanda/lib", "prune")
    target = target_of(layer)
    stat = observe(InputNorm(target), layer)
    theirs = drive(code, "prune_wanda", layer, n, m, sparsity_ratio=sparsity, use_variant=False)
    mask = lowest_of_rows(CRITERIA.build("wanda").score(target, stat), sparsity, n, m)
    show(f"wanda {pattern}", layer, theirs, layer.weight * mask)
    if not m:
        theirs = drive(code, "prune_wanda", layer, n, m, sparsity_ratio=sparsity, use_variant=True)
        score, size = CRITERIA.build("wanda_variant").score(target, stat), layer.weight.numel()
        show(f"wanda variant {pattern}", layer, theirs, layer.weight * top_mask(score, size - round(size * sparsity)))
        kept = int((theirs != 0).sum())
        show(f"wanda variant {pattern}, as many", layer, theirs, layer.weight * top_mask(score, kept))


def gblm(checkouts: Path, layer: Layer, pattern: str, sparsity: float, n: int, m: int) -> None:
    code = load(checkouts / "GBLM-Pruner/lib", "prune")
    generator = torch.Generator().manual_seed(1)
    typical = float(layer.inputs.square().sum(1).mean().sqrt())  # both terms matter
    gradients = [torch.randn(layer.weight.shape, generator=generator) * typical / 300 for _ in range(GRADIENTS)]
    for norm in ("l2", "l1"):
        with tempfile.NamedTemporaryFile(suffix=".pth") as file:
            torch.save(gblm_gradients(checkouts, layer, gradients, norm), file.name)
            settings = {"gradient_path": file.name, "gradient_inv": False, "use_variant": False}
            theirs = drive(code, "prune_gblm", layer, n, m, sparsity_ratio=sparsity, **settings)
        criterion, target = CRITERIA.build("gblm", {"norm": norm}), target_of(layer)
        stat = observe(criterion.stat(target), layer)
        for gradient in gradients:
            stat.observe_gradient(gradient)
        mask = lowest_of_rows(criterion.score(target, stat), sparsity, n, m)
        show(f"gblm {norm} {pattern}", layer, theirs, layer.weight * mask)


def gblm_gradients(checkouts: Path, layer: Layer, gradients: list[Tensor], norm: str) -> dict[str, Tensor]:
    code, model = load(checkouts / "GBLM-Pruner", "gradient_computation"), StandIn(layer)
    with stubs():
        computation = code.gradient_computation(model, 100)
        for number, gradient in enumerate(gradients, start=1):
            model.linear.weight.grad = gradient.clone()
            computation.update_gradient(model, number)
    if norm == "l1":
        return dict(computation.gradients_l1)
    return {name: squares.sqrt().half() for name, squares in computation.gradients_l2.items()}


def dsnot(checkouts: Path, layer: Layer, pattern: str, sparsity: float, n: int, m: int) -> None:
    code = load(checkouts / "DSnoT/lib", "prune")
    settings = {
        "sparsity_ratio": sparsity, "max_cycle_time": 50, "update_threshold": 0.1, "pow_of_var_regrowing": 1.0,
        "skip_layer": "mlp", "skip_sub_layer": "no_skip", "without_DSnoT": False, "without_same_sign": True,
        "get_time_overhead": False,
    }  # fmt: skip
    made = PATTERNS.build("n_m", {"n": n, "m": m}) if m else PATTERNS.build("unstructured")
    for initial in ("wanda",) if m else ("wanda", "magnitude"):
        theirs = drive(code, "prune_DSnoT", layer, n, m, initial_method=initial, **settings)
        refinement, target = DSnoT(pattern=made), target_of(layer)
        stat = observe(refinement.stat(target), layer)
        mask = lowest_of_rows(CRITERIA.build(initial).score(target, stat), sparsity, n, m)
        refined = refinement.refine(target, mask, torch.ones_like(mask), stat)
        show(f"dsnot on {initial} {pattern}", layer, theirs, layer.weight * refined)
        changed, before = float((refined ^ mask).double().mean()), layer.error(layer.weight * mask)
        print(f"  {'':28} ours changed {changed:.2%} of the mask, from an error of {before:.5f}")


METHODS = {"sparsegpt": sparsegpt, "wanda": wanda, "gblm": gblm, "dsnot": dsnot}


def layers() -> Iterator[Layer]:
    real = real_layers()
    yield from real or (random_layer(384, 384), random_layer(1536, 384), random_layer(384, 1536))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", type=Path, help="the folder that holds sparsegpt, wanda, DSnoT and GBLM-Pruner")
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS))
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for layer in layers():
        shape = " x ".join(map(str, layer.weight.shape))
        print(f"{layer.name}, {shape}, {len(layer.tokens):,} tokens in {len(layer.inputs)} sequences", flush=True)
        for name in options.methods:
            for asked in PATTERNS_ASKED:
                METHODS[name](options.checkouts, layer, *asked)


if __name__ == "__main__":
    main()
