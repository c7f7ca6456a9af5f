"""Which choices of scope, pattern and sparsity contradict each other. No torch, so that `plan` can ask."""

from __future__ import annotations

from prunebench.sparsity.counts import as_written


def check_axes(scope: str, floor: float, pattern: str, n: int | None, m: int | None, sparsity: float) -> list[str]:
    """What cannot work, one plain line each; empty when all is well. `sparsity` 0 means that nothing is pruned."""
    problems = _floor_problems(floor, sparsity)
    if pattern == "n_m":
        return problems + _n_m_problems(scope, floor, n, m, sparsity)
    if pattern == "unstructured" and (n is not None or m is not None):
        problems.append("pruning.pattern.n and m mean nothing to pattern unstructured: set pruning.pattern.name=n_m")
    return problems


def _floor_problems(floor: float, sparsity: float) -> list[str]:
    if not 0 <= floor < 1:
        return [f"pruning.scope.floor={floor:g} is no share of weights: choose it in [0, 1)"]
    density = float(1 - as_written(sparsity))
    if floor and floor >= density:
        return [
            f"pruning.scope.floor={floor:g} must be less than the density {density:g} that sparsity={sparsity:g} leaves"
        ]
    return []


def _n_m_problems(scope: str, floor: float, n: int | None, m: int | None, sparsity: float) -> list[str]:
    if n is None or m is None:
        return ["pattern n_m needs pruning.pattern.n and pruning.pattern.m, for example n=2 m=4"]
    if not 0 < n < m:
        return [f"pattern {n}:{m} keeps {n} of every {m} weights: choose 0 < n < m"]
    problems = []
    if scope in ("erk", "row"):
        problems.append(
            f"pattern {n}:{m} fixes the density of every group, so scope {scope} has nothing to share out: "
            "set pruning/scope=uniform"
        )
    if floor:
        problems.append(f"pattern {n}:{m} fixes the density of every group: set pruning.scope.floor=0")
    if sparsity and abs(sparsity - (1 - n / m)) > 0.001:
        problems.append(f"pattern {n}:{m} keeps {100 * n / m:.4g} % in every group: set sparsity={1 - n / m:.4g}")
    return problems
