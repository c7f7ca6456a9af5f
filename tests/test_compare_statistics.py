"""Means, intervals and tests against independent ones: scipy's, exhaustive enumeration, and simulation."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from prunebench.compare.statistics import (
    bootstrap,
    holm,
    mcnemar,
    mean_std,
    paired_interval,
    resample_weights,
)


def test_mean_and_interval_are_scipys() -> None:
    values = [0.3, -1.2, 0.7, 2.5, -0.1]
    found = paired_interval(values)
    theirs = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))
    assert (found.mean, found.pairs) == (pytest.approx(np.mean(values)), 5)
    assert mean_std(values).std == pytest.approx(np.std(values, ddof=1))


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.6]])
def test_fewer_than_three_pairs_cannot_tell(values: list[float]) -> None:
    found = paired_interval(values)
    assert found.low is None and found.high is None and found.pairs == len(values)


def test_no_values_have_no_mean() -> None:
    with pytest.raises(ValueError):
        mean_std([])


def test_means_and_intervals_are_written_with_their_spread() -> None:
    assert f"{mean_std([88.0, 89.0]):.1f}" == "88.5 ± 0.7" and f"{mean_std([88.0]):.1f}" == "88.0"
    assert f"{paired_interval([-1.0, -2.0]):.1f}" == "-1.5"
    assert f"{paired_interval([1.0, 1.0, 1.0]):.2f}" == "+1.00 [+1.00, +1.00]"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=400))
def test_with_one_pair_mcnemar_is_the_exact_binomial_test(differences: list[int]) -> None:
    better, worse = differences.count(1), differences.count(-1)
    theirs = scipy.stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert mcnemar(np.array([differences])) == pytest.approx(theirs)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from([-1, 0, 1]), min_size=9, max_size=9), min_size=1, max_size=4))
def test_with_several_pairs_it_is_what_all_signs_give(differences: list[list[int]]) -> None:
    sums = np.array(differences).sum(0)
    signs = np.array(list(itertools.product([1, -1], repeat=len(sums))))
    expected = (np.abs(signs @ sums) >= abs(sums.sum())).mean()
    assert mcnemar(np.array(differences)) == pytest.approx(expected)


def test_with_many_examples_it_agrees_with_the_normal_law() -> None:
    random = np.random.default_rng(0)
    differences = random.choice([-1, 0, 1], (3, 20_000), p=[0.05, 0.895, 0.055])
    sums = differences.sum(0)
    normal = 2 * scipy.stats.norm.sf((abs(sums.sum()) - 0.5) / np.sqrt((sums**2).sum()))
    assert mcnemar(differences) == pytest.approx(normal, rel=0.05)


def rejections(p_of: Callable[[np.random.Generator], float], trials: int = 400) -> float:
    random = np.random.default_rng(7)
    return float(np.mean([p_of(random) <= 0.05 for _ in range(trials)]))


def models(random: np.random.Generator, better: float = 0.0) -> np.ndarray:
    """Three seeds' differences on shared examples, some hard and some easy: (3, 300)."""
    ease = random.beta(4, 1.5, 300)
    first, second = (random.random((3, 300)) < np.clip(ease + shift, 0, 1) for shift in (better, 0.0))
    return first.astype(int) - second.astype(int)


def test_mcnemar_is_wrong_no_more_often_than_it_says() -> None:
    """Under the null hypothesis 5 % of p are below 0.05; 400 trials leave a standard error of 1.1 points."""
    assert rejections(lambda random: mcnemar(models(random))) < 0.085
    assert rejections(lambda random: mcnemar(models(random, 0.08)), 100) > 0.7


def test_the_bootstrap_is_wrong_about_as_often_as_it_says() -> None:
    weights = np.concatenate(list(resample_weights(300, 1000)))
    assert rejections(lambda random: bootstrap(weights @ models(random).mean(0))) < 0.09
    assert rejections(lambda random: bootstrap(weights @ models(random, 0.08).mean(0)), 100) > 0.7


def test_resamples_draw_as_many_examples_with_replacement_and_are_always_the_same() -> None:
    weights = np.concatenate(list(resample_weights(50, 4000)))
    assert weights.shape == (4000, 50) and (weights.sum(1) == 50).all()
    assert weights.mean(0) == pytest.approx(np.ones(50), abs=0.1)
    assert weights.var() == pytest.approx(1 - 1 / 50, rel=0.05)  # of a binomial count
    assert (weights == np.concatenate(list(resample_weights(50, 4000)))).all()


def test_the_bootstraps_interval_holds_zero_where_p_is_above_its_level() -> None:
    differences = np.random.default_rng(1).normal(0.02, 0.01, 10_000)
    share = (differences <= 0).mean()
    assert bootstrap(differences) == pytest.approx(2 * share, abs=3e-4)
    assert bootstrap(np.zeros(100)) == 1.0 and bootstrap(np.ones(99)) == pytest.approx(0.02)


def literal_holm(p_values: list[float]) -> list[float]:
    """By its definition: the smallest level at which Holm's procedure rejects each."""

    def rejected(level: float) -> set[int]:
        found: set[int] = set()
        for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            if p_values[index] > level / (len(p_values) - place) + 1e-12:
                break
            found.add(index)
        return found

    levels = sorted({min(1.0, p * k) for p in p_values for k in range(1, len(p_values) + 1)} | {1.0})
    return [next((level for level in levels if i in rejected(level)), 1.0) for i in range(len(p_values))]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.02, 0.04, 0.2, 0.7, 1.0]), max_size=6))
def test_holm_is_the_step_down_procedure(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(literal_holm(p_values))
