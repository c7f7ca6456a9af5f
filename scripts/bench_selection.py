"""Exact global selection against torch's kthvalue and topk, on scores shaped like BERT-base's encoder.

    python scripts/bench_selection.py            # 85 M scores: a minute or two
    python scripts/bench_selection.py --small    # 1.8 M scores: seconds
    python scripts/bench_selection.py --device cuda

Prints, for random scores, for 87 % exact zeros and for scores rounded to bf16 (ties everywhere), how many times as long
kthvalue and topk take as our masks, and the most memory a selection takes beyond the scores, relative to them. The
others work on one flat tensor that already exists, and find a threshold (kthvalue) or positions (topk), not masks.

Time is elapsed time of --threads threads: the median over --repeats rounds of the ratio within a round, in which all
three take turns. Memory is the resident peak of a process of its own (Linux), or what CUDA's allocator reports.
Before anything is timed, masks of a smaller case are compared with a stable sort.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
from pathlib import Path
from statistics import median

import torch
from measuring import Ratios, interleaved, ratio_of, spread_of, wall
from torch import Tensor

from prunebench.sparsity.masks import global_masks

CASES = ("random", "zeros", "bf16")
SMALL, LARGE = (4, 192), (12, 768)  # layers, width


def scores_like_bert(layers: int, hidden: int, case: str, device: str) -> list[Tensor]:
    """Six matrices a layer. `zeros`: 87 % of the scores are exactly zero; `bf16`: rounded to bfloat16."""
    generator = torch.Generator().manual_seed(0)
    shapes = ([(hidden, hidden)] * 4 + [(4 * hidden, hidden), (hidden, 4 * hidden)]) * layers
    return [_score(shape, generator, case).to(device) for shape in shapes]


def _score(shape: tuple[int, int], generator: torch.Generator, case: str) -> Tensor:
    score = torch.randn(shape, generator=generator).abs_()
    if case == "zeros":
        return score.mul_(torch.rand(shape, generator=generator) > 0.87)
    return score.bfloat16() if case == "bf16" else score


def check(case: str, share: float, device: str) -> None:
    """Compares the masks with what a stable sort keeps; raises SystemExit where they differ."""
    scores = scores_like_bert(*SMALL, case, device)
    flat = torch.cat([score.flatten() for score in scores])
    keep = round(share * flat.numel())
    expected = torch.zeros_like(flat, dtype=torch.bool)
    expected[flat.sort(descending=True, stable=True).indices[:keep]] = True
    masks = torch.cat([mask.flatten() for mask in global_masks(scores, keep)])
    if not torch.equal(masks, expected):
        raise SystemExit(f"{case}: the masks are not those of a stable sort")


def compare(sizes: tuple[int, int], case: str, options: argparse.Namespace, ratios: Ratios) -> None:
    scores = scores_like_bert(*sizes, case, options.device)
    flat = torch.cat([score.flatten() for score in scores])
    keep = round(options.keep * flat.numel())
    kept = sum(int(mask.count_nonzero()) for mask in global_masks(scores, keep))
    if kept != keep:
        raise SystemExit(f"{case}: {kept} kept instead of {keep}")
    wait = torch.cuda.synchronize if options.device == "cuda" else int
    variants = {
        "ours": lambda: (global_masks(scores, keep), wait()),
        "kthvalue": lambda: (flat.kthvalue(flat.numel() - keep + 1), wait()),
        "topk": lambda: (flat.topk(keep), wait()),
    }
    seconds = interleaved(variants, options.repeats, wall)
    for other in ("kthvalue", "topk"):
        ratios.add(
            f"{case}: {other} / ours",
            ratio_of(seconds[other], seconds["ours"]),
            rounds=spread_of(seconds[other], seconds["ours"]),
            ours_ms=1000 * median(seconds["ours"]),
            kept=f"{kept:,} of {flat.numel():,}",
        )


def extra_memory(sizes: tuple[int, int], case: str, share: float, device: str) -> float:
    """The peak that a selection adds, masks included, over the size of the scores."""
    small = scores_like_bert(1, 64, case, device)
    global_masks(small, 1000)  # what the first call alone loads is no part of it
    scores = scores_like_bert(*sizes, case, device)
    size = sum(score.numel() * score.element_size() for score in scores)
    keep = round(share * sum(score.numel() for score in scores))
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        global_masks(scores, keep)
        return (torch.cuda.max_memory_allocated() - before) / size
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    resident = _status("VmRSS")
    global_masks(scores, keep)
    return (_status("VmHWM") - resident) / size


def _status(key: str) -> int:
    """Bytes, from what Linux knows of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def in_new_process(sizes: tuple[int, int], case: str, share: float, device: str) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(functools.partial(extra_memory, sizes, case, share, device))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a model of 1.8 M weights instead of 85 M")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default: 2)")
    parser.add_argument("--keep", type=float, default=0.1, help="share of weights to keep (default: 0.1)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the ratios there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sizes, ratios = SMALL if options.small else LARGE, Ratios()
    for case in CASES:
        check(case, options.keep, options.device)
        compare(sizes, case, options, ratios)
        if options.device == "cuda" or Path("/proc/self/clear_refs").exists():
            memory = in_new_process(sizes, case, options.keep, options.device)
            ratios.add(f"{case}: extra memory / scores", memory)
    ratios.write(options.json, vars(options))


if __name__ == "__main__":
    main()
