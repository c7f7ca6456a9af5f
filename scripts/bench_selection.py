"""Time exact global selection against torch's kthvalue and topk, on scores shaped like BERT-base's encoder.

Prints one line a case: milliseconds of each method and how many times as long the others take. The others are timed
on one flat tensor that already exists, and find a threshold (kthvalue) or positions (topk), not masks.

    python scripts/bench_selection.py            # 85 M scores, a few minutes
    python scripts/bench_selection.py --small    # 1.8 M scores, seconds
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from prunebench.sparsity.masks import global_masks


def scores_like_bert(layers: int, hidden: int, case: str) -> list[Tensor]:
    """Six matrices a layer. `zeros`: 87 % of the scores are exactly zero; `bf16`: rounded, so ties everywhere."""
    generator = torch.Generator().manual_seed(0)
    shapes = ([(hidden, hidden)] * 4 + [(4 * hidden, hidden), (hidden, 4 * hidden)]) * layers
    scores = [torch.randn(shape, generator=generator).abs_() for shape in shapes]
    if case == "zeros":
        return [score.mul_(torch.rand(score.shape, generator=generator) > 0.87) for score in scores]
    return [score.bfloat16() for score in scores] if case == "bf16" else scores


def milliseconds(function: Callable[[], object], repeats: int) -> float:
    """The fastest of `repeats` calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a model of 1.8 M weights instead of 85 M")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default: 2)")
    parser.add_argument("--keep", type=float, default=0.1, help="share of weights to keep (default: 0.1)")
    parser.add_argument("--repeats", type=int, default=3, help="calls of which the fastest counts (default: 3)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    layers, hidden = (4, 192) if options.small else (12, 768)
    for case in ("normal", "zeros", "bf16"):
        scores = scores_like_bert(layers, hidden, case)
        flat = torch.cat([score.flatten() for score in scores])
        keep = round(options.keep * flat.numel())
        ours = milliseconds(lambda s=scores, k=keep: global_masks(s, k), options.repeats)  # type: ignore[misc]
        kthvalue = milliseconds(lambda f=flat, k=keep: f.kthvalue(f.numel() - k + 1), options.repeats)  # type: ignore[misc]
        topk = milliseconds(lambda f=flat, k=keep: f.topk(k), options.repeats)  # type: ignore[misc]
        print(
            f"{case:7} {flat.numel():>11,} scores, keep {options.keep:.0%}: ours {ours:7.0f} ms; "
            f"kthvalue {kthvalue:7.0f} ms ({kthvalue / ours:.1f}x); topk {topk:7.0f} ms ({topk / ours:.1f}x)",
            flush=True,
        )


if __name__ == "__main__":
    main()
