from __future__ import annotations

import pytest
import torch
from fakes import make_targets

from prunebench.sparsity.criteria import CRITERIA


def test_magnitude() -> None:
    for target in make_targets():
        score = CRITERIA.build("magnitude").score(target, None)
        assert score.tolist() == [[abs(value) for value in row] for row in target.matrix.tolist()]


def test_random_depends_on_seed_and_name_alone() -> None:
    first, second, other = (CRITERIA.build("random", seed=seed) for seed in (1, 1, 2))
    before = torch.random.get_rng_state()
    targets, later = make_targets(seed=0), make_targets(seed=9)
    scores = [first.score(target, None) for target in targets]
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(123)
    for target, score in reversed(list(zip(later, scores, strict=True))):
        assert torch.equal(second.score(target, None), score)
        assert not torch.equal(other.score(target, None), score)
    assert not torch.equal(scores[0].flatten(), scores[1].flatten())
    values = torch.cat([score.flatten() for score in scores])
    assert 0 <= values.min() < 0.02 and 0.98 < values.max() < 1 and values.mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("name", ["magnitude", "random"])  # the others: test_every_combination.py
def test_scores_have_the_shape_of_the_matrix_and_leave_the_weights(name: str) -> None:
    for target in make_targets():
        before = target.weight.detach().clone()
        score = CRITERIA.build(name, seed=0).score(target, None)
        assert score.shape == target.matrix.shape and score.is_floating_point() and not score.isnan().any()
        assert torch.equal(target.weight, before)
