from __future__ import annotations

import pytest
import torch

from prunebench.errors import UsageError
from prunebench.sparsity.patterns import PATTERNS
from prunebench.sparsity.scopes import SCOPES


def by_hand(score: torch.Tensor, kept: int, m: int) -> list[list[bool]]:
    rows = []
    for row in score.tolist():
        mask = []
        for start in range(0, len(row), m):
            group = row[start : start + m]
            best = sorted(range(m), key=lambda i: (-group[i], i))[:kept]
            mask += [i in best for i in range(m)]
        rows.append(mask)
    return rows


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (1, 2), (1, 12)])
@pytest.mark.parametrize("scope", ["global", "uniform"])
def test_n_m_keeps_the_best_of_every_group(n: int, m: int, scope: str) -> None:
    score = torch.randn(5, 24, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    pattern = PATTERNS.build("n_m", {"n": n, "m": m})
    (mask,) = pattern.masks([score], 1 - n / m, SCOPES.build(scope))
    assert mask.tolist() == by_hand(score, n, m)
    assert pattern.holds(mask)
    assert not pattern.holds(torch.ones(5, 24, dtype=torch.bool))


def test_on_the_way_every_group_loses_alike() -> None:
    score = torch.randn(5, 24, generator=torch.Generator().manual_seed(0))
    pattern, scope = PATTERNS.build("n_m", {"n": 2, "m": 4}), SCOPES.build("global")
    kept = {sparsity: pattern.masks([score], sparsity, scope)[0].tolist() for sparsity in (0.0, 0.1, 0.25, 0.5)}
    assert kept == {s: by_hand(score, count, 4) for s, count in ((0.0, 4), (0.1, 4), (0.25, 3), (0.5, 2))}


def test_a_transposed_score_is_grouped_along_its_inputs() -> None:
    score = torch.randn(8, 6, generator=torch.Generator().manual_seed(0)).t()
    (mask,) = PATTERNS.build("n_m", {"n": 1, "m": 4}).masks([score], 0.75, SCOPES.build("global"))
    assert mask.tolist() == by_hand(score, 1, 4)


def test_inputs_must_divide_into_groups() -> None:
    with pytest.raises(UsageError, match=r"pattern 2:4 needs inputs in groups of 4, but b\.weight has 6"):
        PATTERNS.build("n_m", {"n": 2, "m": 4}).check({"a.weight": (3, 8), "b.weight": (8, 6)})
