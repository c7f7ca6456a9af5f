"""Means, intervals and tests of paired comparisons. Plain numbers in, plain numbers out.

Two sources of chance are kept apart. Seeds: would the methods differ if they were trained again? Student's t interval
of the differences paired by seed. Examples: would these very models differ on other examples of the same kind?
McNemar's exact test where an example is right or wrong, else the paired bootstrap.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
FEWEST_PAIRS = 3  # with two the interval of Student's t is 12.7 standard errors wide: nothing worth printing
RESAMPLES = 10_000
RESAMPLING_SEED = 20231213  # fixed: the same runs, the same p-value
MOST_AT_ONCE = 2_000_000  # numbers in a part of the resamples' weights


@dataclass(frozen=True)
class Mean:
    """mean, sample standard deviation (None for one value) and number of values."""

    mean: float
    std: float | None
    n: int

    def __format__(self, number: str) -> str:
        """88.1 ± 0.6, each number in this format."""
        return f"{self.mean:{number}}" + ("" if self.std is None else f" ± {self.std:{number}}")


@dataclass(frozen=True)
class Interval:
    """The mean of paired differences with its interval, which is None below `FEWEST_PAIRS` pairs."""

    mean: float
    low: float | None
    high: float | None
    pairs: int

    def __format__(self, number: str) -> str:
        """-1.8 [-3.8, +0.3], each number with its sign and in this format."""
        bounds = "" if self.low is None else f" [{self.low:+{number}}, {self.high:+{number}}]"
        return f"{self.mean:+{number}}{bounds}"


def mean_std(values: Sequence[float]) -> Mean:
    """Raises ValueError for no values."""
    if not values:
        raise ValueError("no values")
    return Mean(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def paired_interval(differences: Sequence[float], level: float = LEVEL) -> Interval:
    """Student's t interval of the mean of differences, one a pair. Raises ValueError for none."""
    mean = mean_std(differences)
    if mean.n < FEWEST_PAIRS or mean.std is None:
        return Interval(mean.mean, None, None, mean.n)
    from scipy.special import stdtrit  # a fifth of the time of scipy.stats

    half = float(stdtrit(mean.n - 1, (1 + level) / 2)) * mean.std / math.sqrt(mean.n)
    return Interval(mean.mean, mean.mean - half, mean.mean + half, mean.n)


def mcnemar(differences: np.ndarray) -> float:
    """McNemar's exact test, over several pairs of models at once: two-sided p.

    With one pair it is the sign test on the examples that one model has right and the other wrong (McNemar 1947,
    exact). With several pairs, the seeds, an example's differences are added up, since seeds are scored on the same
    examples and so are not independent, and under the null hypothesis each sum is as likely with the other sign:
    Fisher's randomisation test, whose distribution is computed exactly.

    Args:
        differences: (pairs, examples) integers: 1 where only the first model is right, -1 only the second, else 0.
    """
    sums = np.abs(differences.sum(0))
    observed = abs(int(differences.sum()))
    law = np.ones(1)  # of the sum of +-size over the examples of each size, on a grid of twice the size
    for size in range(1, int(sums.max(initial=0)) + 1):
        law = _add_signs(law, size, int((sums == size).sum()))
    values = np.arange(len(law)) * 2 - (len(law) - 1)  # the law is symmetric around 0
    return float(min(1.0, law[np.abs(values) >= observed].sum()))


def _add_signs(law: np.ndarray, size: int, count: int) -> np.ndarray:
    """The law of a sum with `count` further terms, each size or -size by a fair coin; steps of 2."""
    if not count:
        return law
    from scipy.special import gammaln

    heads = np.arange(count + 1)
    log = gammaln(count + 1) - gammaln(heads + 1) - gammaln(count - heads + 1) - count * math.log(2)
    spread = np.zeros(size * count + 1)
    spread[::size] = np.exp(log)
    return np.convolve(law, spread)


def bootstrap(differences: np.ndarray) -> float:
    """Two-sided p of the paired bootstrap: how often the resampled difference has the other sign.

    Twice the smaller share of resamples at or beyond zero, the observed one counted in, so that p is never 0
    (Efron & Tibshirani 1993, chapters 13 and 16; Davison & Hinkley 1997, 4.2).

    Args:
        differences: (resamples,) of a score, both models on the same resampled examples, averaged over seeds.
    """
    below, above = int((differences <= 0).sum()), int((differences >= 0).sum())
    return min(1.0, 2 * (1 + min(below, above)) / (len(differences) + 1))


def resample_weights(examples: int, resamples: int = RESAMPLES) -> Iterator[np.ndarray]:
    """How often each example is drawn in each resample, in parts (some resamples, examples); always the same draws."""
    random = np.random.RandomState(RESAMPLING_SEED)  # its stream is frozen, Generator's is not
    rows = max(1, MOST_AT_ONCE // examples)
    for first in range(0, resamples, rows):
        count = min(rows, resamples - first)
        draws = random.randint(0, examples, (count, examples)) + np.arange(count)[:, None] * examples
        yield np.bincount(draws.ravel(), minlength=count * examples).reshape(count, examples).astype(float)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979): what is at most 0.05 stays so for all of them together."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted
