"""What the scores of one matrix say about how many weights it deserves."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from prunebench.sparsity.masks import CHUNK


def lamp_scores(score: Tensor, alive: int) -> Tensor:
    """Square roots of the LAMP scores of the `alive` highest scores of a matrix, 1-D, in descending order.

    A LAMP score is the squared score over the sum of squares of itself and of all that rank before it; of equal
    scores the first ranks first. Scores below zero count as zero. Sums are in float64. The root keeps the order, and
    what would be too small for float32 otherwise.
    """
    ordered = _descending(score)[:alive].clamp_(0, torch.finfo(torch.float32).max)
    largest = float(ordered[0]) if alive else 0.0
    if not largest:
        return ordered
    passed = 0.0
    for piece in torch.split(ordered, CHUNK):
        ratio = piece.double().div_(largest)
        sums = ratio.square().cumsum_(0).add_(passed)
        passed = float(sums[-1])
        piece.copy_(ratio.div_(sums.sqrt_()))
    return ordered


def effective_number(score: Tensor, alive: int, p: float, q: float) -> float:
    """(||s||_p / ||s||_q)^(pq / (q - p)), 0 < p < q: how many of `alive` scores s it takes to hold their p-norm.

    n if n of them are equal and the others zero. Scores below zero count as zero; without any above, all count.
    """
    largest = min(float(score.amax()), torch.finfo(torch.float32).max) if alive else 0.0
    if largest <= 0:
        return float(alive)
    sums = [0.0, 0.0]
    for piece in torch.split(score.reshape(-1), CHUNK):
        ratio = piece.double().clamp_(0, largest).div_(largest)
        sums = [total + float(ratio.pow(power).sum()) for total, power in zip(sums, (p, q), strict=True)]
    return math.exp((q * math.log(sums[0]) - p * math.log(sums[1])) / (q - p))


def _descending(score: Tensor) -> Tensor:
    values = score.detach().flatten().to(torch.promote_types(score.dtype, torch.float32))
    if values.is_cpu:  # numpy sorts several times as fast
        return torch.from_numpy(np.sort(values.neg().numpy())).neg_()
    return values.sort(descending=True).values
