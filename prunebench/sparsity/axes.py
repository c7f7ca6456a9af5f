"""Which choices of the axes contradict each other, and why. No torch, so that `plan` can ask.

What a rule must know of a method of ours stands in the tuples below; tests hold them against the classes. Methods of
other packages are known to be no more than a criterion that scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prunebench.sparsity.counts import as_written

AXES = {  # of pruning, and the entry points by which other packages extend them
    "criterion": "prunebench.criteria",
    "scope": "prunebench.scopes",
    "pattern": "prunebench.patterns",
    "refinement": "prunebench.refinements",
    "update": "prunebench.updates",
    "regrowth": "prunebench.regrowths",
    "dynamics": "prunebench.dynamics",
}
SOLVERS = ("sparsegpt",)  # choose mask and weights of one matrix at once
SECOND_ORDER = ("obert", "woodfisher", "diagonal_fisher", "mfac")  # know how survivors make up for losses
BLOCK_FISHER = {"obert": 50, "woodfisher": 2000}  # their block_size; blocks of the pattern must fit into those
LOOK_AT_INPUTS = ("wanda", "wanda_variant", "gblm", "sparsegpt")
LEARNED = ("movement", "soft_movement")  # scores are trained along with the weights
COMPARING = ("global", "lamp", "global_mp", "pq_index", "random_search")  # scopes that look at all matrices at once
N_M_DYNAMICS = ("sr_ste", "gradient_flow", "step_n_m")
UNSCALED = (*LEARNED, "cram", "cram_n_m", "sr_ste")  # work with gradients, which fp16 has scaled by then


@dataclass(frozen=True)
class AxisChoice:
    """The names on the axes and what else the rules look at. `sparsity` 0 means that nothing is pruned."""

    criterion: str = "magnitude"
    scope: str = "global"
    pattern: str = "unstructured"
    refinement: str = "none"
    update: str = "none"
    regrowth: str = "none"
    dynamics: str = "none"
    floor: float = 0.0
    n: int | None = None
    m: int | None = None
    fisher_block: int = 1  # weights in a diagonal block of the Fisher matrix; 1: nothing ties them together
    sparsity: float = 0.0
    components: tuple[str, ...] = ("encoder",)
    trained: tuple[str, ...] = ("all",)  # what learns in the phases that have steps, see PhaseConfig.train
    trains_before: bool = True  # whether any of them comes before the last pruning


def check_axes(choice: AxisChoice) -> list[str]:
    """What cannot work, one plain line each; empty when all is well."""
    return [
        *_floor_problems(choice),
        *_pattern_problems(choice),
        *_method_problems(choice),
        *_input_problems(choice),
        *_training_problems(choice),
    ]


def _floor_problems(choice: AxisChoice) -> Iterator[str]:
    floor, density = choice.floor, float(1 - as_written(choice.sparsity))
    if not 0 <= floor < 1:
        yield f"pruning.scope.floor={floor:g} is no share of weights: choose it in [0, 1)"
    elif floor and floor >= density:
        yield (
            f"pruning.scope.floor={floor:g} must be less than the density {density:g} that "
            f"sparsity={choice.sparsity:g} leaves"
        )


def _pattern_problems(choice: AxisChoice) -> Iterator[str]:
    n, m, pattern = choice.n, choice.m, choice.pattern
    if pattern == "n_m":
        yield from _n_m_problems(choice)
    elif pattern == "block":
        if m is None:
            yield "pattern block needs pruning.pattern.m, the weights in a block, for example m=4"
        elif m > 0 and choice.fisher_block > 1 and choice.fisher_block % m:
            yield (
                f"blocks of {m} weights do not fit Fisher blocks of {choice.fisher_block}: "
                f"set pruning.criterion.params.block_size to a multiple of {m}"
            )
        if n is not None:
            yield "pruning.pattern.n means nothing to pattern block: set pruning.pattern.name=n_m, or leave n out"
    elif pattern == "unstructured" and (n is not None or m is not None):
        yield "pruning.pattern.n and m mean nothing to pattern unstructured: set pruning.pattern.name=n_m"
    if choice.dynamics in N_M_DYNAMICS and pattern != "n_m":
        yield f"dynamics {choice.dynamics} trains towards n of every m weights: set pruning/pattern=2_4"
    if choice.regrowth != "none" and pattern != "unstructured":
        yield f"regrowth {choice.regrowth} exchanges single weights: set pruning/pattern=unstructured"
    if choice.refinement != "none" and pattern == "block":
        yield f"refinement {choice.refinement} exchanges single weights: set pruning/pattern=unstructured, or 2_4"


def _n_m_problems(choice: AxisChoice) -> Iterator[str]:
    n, m, sparsity = choice.n, choice.m, choice.sparsity
    if n is None or m is None:
        yield "pattern n_m needs pruning.pattern.n and pruning.pattern.m, for example n=2 m=4"
        return
    if not 0 < n < m:
        yield f"pattern {n}:{m} keeps {n} of every {m} weights: choose 0 < n < m"
        return
    if choice.scope not in ("global", "uniform"):
        yield (
            f"pattern {n}:{m} fixes the density of every group, so scope {choice.scope} has nothing to share out: "
            "set pruning/scope=uniform"
        )
    if choice.floor:
        yield f"pattern {n}:{m} fixes the density of every group: set pruning.scope.floor=0"
    if sparsity and abs(sparsity - (1 - n / m)) > 0.001:
        yield f"pattern {n}:{m} keeps {100 * n / m:.4g} % in every group: set sparsity={1 - n / m:.4g}"


def _method_problems(choice: AxisChoice) -> Iterator[str]:
    criterion = choice.criterion
    if criterion in SOLVERS:
        yield from _solver_problems(choice)
    if choice.update == "obs" and criterion not in SECOND_ORDER:
        yield (
            f"update obs is that of a second-order criterion, and {criterion} is none: "
            "set pruning/criterion=obert, or pruning/update=least_squares"
        )
    if choice.scope == "random_search" and (criterion in LEARNED or choice.dynamics != "none"):
        what = f"criterion {criterion}" if criterion in LEARNED else f"dynamics {choice.dynamics}"
        yield f"{what} prunes at every step, too often for scope random_search: set another pruning/scope"
    if criterion in LEARNED:
        axes = {"refinement": choice.refinement, "update": choice.update, "regrowth": choice.regrowth}
        for axis, name in axes.items():
            if name != "none":
                yield f"criterion {criterion} moves the mask at every step: set pruning/{axis}=none instead of {name}"
        if choice.dynamics != "none":
            yield f"criterion {criterion} has a dynamics of its own: set pruning/dynamics=none"


def _solver_problems(choice: AxisChoice) -> Iterator[str]:
    criterion = choice.criterion
    if choice.pattern != "n_m" and choice.scope in (*COMPARING, "row"):
        yield (
            f"criterion {criterion} prunes one matrix after the other, over all its rows, so scope {choice.scope} "
            "cannot share the budget out: set pruning/scope=uniform or erk"
        )
    for axis, name in (("update", choice.update), ("refinement", choice.refinement)):
        if name != "none":
            yield f"criterion {criterion} updates the weights itself: set pruning/{axis}=none"


def _input_problems(choice: AxisChoice) -> Iterator[str]:
    """Embedding tables are given token numbers, not vectors."""
    if not {"embeddings", "all"} & {*choice.components}:
        return
    looking: list[str] = []
    if choice.criterion in LOOK_AT_INPUTS:
        looking.append(f"criterion {choice.criterion}")
    if choice.refinement != "none":
        looking.append(f"refinement {choice.refinement}")
    if choice.update == "least_squares":
        looking.append("update least_squares")
    for what in looking:
        yield (
            f"{what} looks at the inputs of matrices, and those of embeddings are token numbers: "
            "take embeddings out of pruning.components"
        )


def _training_problems(choice: AxisChoice) -> Iterator[str]:
    """Learned scores want training, and adapters learn on weights that nothing else moves."""
    criterion, dynamics = choice.criterion, choice.dynamics
    if criterion in LEARNED and not choice.trained:
        yield (
            f"criterion {criterion} learns while the model trains, and the schedule has no training: "
            "set another pruning/schedule or pruning/criterion"
        )
    if dynamics != "none" and "perp" in choice.trained:
        yield (
            f"dynamics {dynamics} changes the weights that adapters stand on: set pruning/dynamics=none, "
            "or train=all in the phases"
        )
    elif dynamics != "none" and not choice.trains_before:
        yield (
            f"dynamics {dynamics} acts until the last pruning, before which the schedule has no training: "
            "set pruning/schedule=prune_at_end, or pruning/dynamics=none"
        )
    if criterion in LEARNED and "perp" in choice.trained:
        yield (
            f"criterion {criterion} learns from gradients of weights, of which adapters leave none: "
            "set another pruning/criterion, or train=all in the phases"
        )
