"""Our block-diagonal inverse Fisher matrix against one Woodbury update for each gradient, on one layer's gradients.

    python scripts/bench_fisher.py                       # a minute or two
    python scripts/bench_fisher.py --sparseml PATH       # and against a checkout of neuralmagic/sparseml
    python scripts/bench_fisher.py --mfac PATH           # and against a checkout of IST-DASLab/M-FAC

Prints, for matrices of 768x768 and 3072x768, how many times as long the one-by-one form takes to give the same scores
(v = F^-1 g; F^-1 -= v v^T / (m + g^T v), all blocks at once, float32), the largest relative error of its scores over
that of ours (of 100 blocks, against float64), and the peak of memory of both over 4 d B bytes, d being the weights and
B the block size. Gradients are sums over tokens of random outer products; they are made anew at every use, in the same
time for both, which is taken off.

Time is elapsed time of --threads threads: the median over --repeats rounds of the ratio within a round. Memory is the
resident peak of a process of its own (Linux).

1,024 gradients of BERT-base (d = 84.9 M) at B = 50: the sums take 17.0 GB, as much as for any other number of gradients
and as the inverse of the one-by-one form; the 12 gradients held back, 4.1 GB; slices in float64, some MB.

With a checkout, the share of equal mask entries at 50 % and 90 % sparsity; in brackets the largest relative difference
of the scores, and that of the weights after an update to 50 % over its largest change. What is called there, on the
same gradients:
- sparseml: `OBSPruningParamsScorer.{pre_optim_step_update,score_parameters,mask_update}` of modifier_pruning_obs.py, on
  the real scorer.py, masks unstructured and block4. Stubs, of which nothing is used: what that file imports from
  sparseml.pytorch.{sparsification.modifier, sparsification.pruning.{mask_creator,modifier_pruning_base}, utils,
  utils.logger} and sparseml.utils.
- M-FAC: `HInvFastBlock` and `HInvFastSwap`, `diag` and `mul`, of prun.py, which needs no stubs.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from fisher_references import against_mfac, against_sparseml, error_of
from measuring import Ratios, interleaved, wall
from torch import Tensor, nn

from prunebench.sparsity.criteria.second_order import OptimalBert
from prunebench.targets import Target

SHAPES = ((768, 768), (3072, 768))
TOKENS = 64
CHECKED = 100  # blocks compared with float64


@dataclass(frozen=True)
class Setting:
    shape: tuple[int, int]
    count: int
    block_size: int
    damp: float
    scale: float

    def target(self) -> Target:
        layer = nn.Linear(self.shape[1], self.shape[0], bias=False)
        torch.manual_seed(0)
        nn.init.normal_(layer.weight, std=0.02)
        return Target("w", layer, "encoder", transposed=False)

    def gradients(self) -> Iterator[Tensor]:
        """As of a linear layer: sums over tokens of error times input, some inputs being much larger than others."""
        generator = torch.Generator().manual_seed(1)
        sizes = torch.randn(self.shape[1], generator=generator).exp()
        for _ in range(self.count):
            errors = torch.randn(self.shape[0], TOKENS, generator=generator) * self.scale
            yield errors @ (torch.randn(TOKENS, self.shape[1], generator=generator) * sizes) / TOKENS

    def drain(self) -> None:
        for _ in self.gradients():
            pass


def ours(setting: Setting) -> Tensor:
    criterion: OptimalBert = OptimalBert(setting.block_size, setting.damp)
    target = setting.target()
    stat = criterion.stat(target)
    for gradient in setting.gradients():
        stat.observe_gradient(gradient)
    return criterion.score(target, stat)


def one_by_one(setting: Setting) -> Tensor:
    """The form of the references: the inverse is kept, and every gradient changes it."""
    weight = setting.target().matrix
    size = setting.block_size
    padding = -weight.numel() % size
    inverse = (torch.eye(size) / setting.damp).repeat((weight.numel() + padding) // size, 1, 1)
    for gradient in setting.gradients():
        rows = nn.functional.pad(gradient.flatten(), (0, padding)).view(-1, size, 1)
        solved = inverse @ rows
        solved /= (setting.count + rows.mT @ solved).sqrt()
        inverse.baddbmm_(solved, solved.mT, alpha=-1)
    diagonal = inverse.diagonal(dim1=1, dim2=2).flatten()[: weight.numel()]
    return weight.square() / (2 * diagonal.view(weight.shape))


def in_float64(setting: Setting) -> Tensor:
    """The scores of the first CHECKED blocks."""
    size = setting.block_size
    seen = torch.stack([gradient.flatten()[: CHECKED * size] for gradient in setting.gradients()]).double()
    rows = seen.view(setting.count, CHECKED, size).transpose(0, 1)
    fisher = rows.mT @ rows / setting.count + setting.damp * torch.eye(size, dtype=torch.float64)
    diagonal: Tensor = torch.linalg.inv(fisher).diagonal(dim1=1, dim2=2).flatten()
    return setting.target().matrix.flatten()[: CHECKED * size].double() ** 2 / (2 * diagonal)


def extra_memory(form: Callable[[Setting], Tensor], setting: Setting) -> float:
    """The peak that a form adds, over 4 d B bytes."""
    form(Setting((64, 64), 20, setting.block_size, setting.damp, setting.scale))  # what a first call alone loads
    setting.drain()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    resident = _status("VmRSS")
    form(setting)
    return (_status("VmHWM") - resident) / (4 * setting.shape[0] * setting.shape[1] * setting.block_size)


def _status(key: str) -> int:
    """Bytes, from what Linux knows of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def in_new_process(form: Callable[[Setting], Tensor], setting: Setting) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(functools.partial(extra_memory, form, setting))


def compare(setting: Setting, repeats: int, ratios: Ratios) -> None:
    variants = {
        "ours": lambda: ours(setting),
        "one by one": lambda: one_by_one(setting),
        "gradients": lambda: setting.drain(),
    }
    seconds = interleaved(variants, repeats, wall)
    net = {
        name: [a - b for a, b in zip(seconds[name], seconds["gradients"], strict=True)]
        for name in ("ours", "one by one")
    }
    rounds = sorted(b / a for a, b in zip(net["ours"], net["one by one"], strict=True))
    what = f"{setting.shape[0]}x{setting.shape[1]}"
    ratios.add(
        f"{what}: one by one / ours", rounds[len(rounds) // 2],
        rounds=f"{rounds[0]:.3f}..{rounds[-1]:.3f}", ours_s=min(net["ours"]),
    )  # fmt: skip
    expected = in_float64(setting)
    errors = [error_of(form(setting), expected) for form in (one_by_one, ours)]
    ratios.add(f"{what}: error, one by one / ours", errors[0] / errors[1], ours=f"{errors[1]:.1e}")
    for name, form in (("ours", ours), ("one by one", one_by_one)):
        if Path("/proc/self/clear_refs").exists():
            ratios.add(f"{what}: {name}, extra memory / 4dB", in_new_process(form, setting))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gradients", type=int, default=64, help="number of gradients m (default: 64)")
    parser.add_argument("--block-size", type=int, default=50, help="B (default: 50)")
    parser.add_argument("--damp", type=float, default=1e-7, help="of the block-diagonal form (default: 1e-7)")
    parser.add_argument("--scale", type=float, default=1e-3, help="of the gradients (default: 1e-3)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--sparseml", type=Path, metavar="PATH", help="a checkout of neuralmagic/sparseml")
    parser.add_argument("--mfac", type=Path, metavar="PATH", help="a checkout of IST-DASLab/M-FAC")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the ratios there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    ratios = Ratios()
    for shape in SHAPES:
        setting = Setting(shape, options.gradients, options.block_size, options.damp, options.scale)
        compare(setting, options.repeats, ratios)
    setting = Setting(SHAPES[0], options.gradients, options.block_size, options.damp, options.scale)
    if options.sparseml:
        against_sparseml(options.sparseml, setting, ratios)
    if options.mfac:
        against_mfac(options.mfac, setting, ratios)
    ratios.write(options.json, vars(options))


if __name__ == "__main__":
    main()
