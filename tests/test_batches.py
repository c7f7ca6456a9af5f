from __future__ import annotations

import numpy as np
import pytest

from prunebench.batches import BatchOrder, share_of, step_seed

LENGTHS = np.random.default_rng(0).integers(3, 60, 1003)


def epoch(order: BatchOrder, number: int) -> list[np.ndarray]:
    steps = order.steps_per_epoch
    return [order(step) for step in range(number * steps, (number + 1) * steps)]


def test_every_epoch_visits_every_example_once() -> None:
    order = BatchOrder(LENGTHS, 16, seed=1)
    for number in (0, 1, 7):
        assert sorted(np.concatenate(epoch(order, number)).tolist()) == list(range(1003))


def test_batches_are_full_but_for_one() -> None:
    order = BatchOrder(LENGTHS, 16, seed=1)
    assert sorted(len(batch) for batch in epoch(order, 0)) == [11] + [16] * 62
    assert order.steps_per_epoch == 63


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    first, again = BatchOrder(LENGTHS, 16, seed=1), BatchOrder(LENGTHS, 16, seed=1)
    first(0)
    assert np.array_equal(first(500), again(500))  # whatever was asked for before
    assert not np.array_equal(first(0), first(63))
    assert not np.array_equal(first(0), BatchOrder(LENGTHS, 16, seed=2)(0))


def test_batches_hold_examples_of_similar_length() -> None:
    def padding(batches: list[np.ndarray]) -> int:
        return sum(int((LENGTHS[batch].max() - LENGTHS[batch]).sum()) for batch in batches)

    shuffled = np.random.default_rng(1).permutation(1003)
    plain = [shuffled[start : start + 16] for start in range(0, 1003, 16)]
    assert padding(epoch(BatchOrder(LENGTHS, 16, seed=1), 0)) < 0.2 * padding(plain)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_a_batch_without_overlap(world: int) -> None:
    batch = np.arange(11)
    parts = [share_of(batch, rank, world) for rank in range(world)]
    assert np.concatenate(parts).tolist() == batch.tolist()


def test_step_seeds_differ() -> None:
    seeds = {step_seed(seed, step, rank) for seed in range(3) for step in range(50) for rank in range(2)}
    assert len(seeds) == 300
    assert step_seed(1, 2) == step_seed(1, 2)
