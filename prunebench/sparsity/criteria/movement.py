"""Movement pruning: scores that are learned along with the weights, by which pruned weights come back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from prunebench.errors import UsageError
from prunebench.optim import load_moments, moments, set_lr
from prunebench.sparsity.criteria.base import CRITERIA, Criterion
from prunebench.sparsity.dynamics.base import Dynamics, Moment
from prunebench.sparsity.masks import count_above
from prunebench.sparsity.scopes import PerMatrix

if TYPE_CHECKING:
    from prunebench.sparsity.sparsifier import Sparsifier
    from prunebench.targets import Target


@CRITERIA.register("movement")
class Movement(Criterion[None], Dynamics):
    """The highest of scores S with dL/dS = dL/dW' * W, where W' = W * M(S) is what passes see (Sanh et al. 2020).

    S begins at zero and is trained by AdamW of its own (no decay), its learning rate `score_lr` times the share of the
    weights' rate; M keeps exactly as many weights as the plan says, also while training, and is found anew every
    `every` steps. None: every step, or every 25 where the scope compares all matrices. A pruning before the first
    update, when S says nothing, goes by magnitude.

    Parameters hold W' between updates, and W where the optimizer steps. So a pruned weight keeps its value and moves by
    what momentum it has left, and by weight decay, though its gradient is zero; it comes back with both, as in the
    source. After the last pruning of the plan scores and mask still move. Taking W over from the parameters wherever M
    keeps it makes a rewind of weights count.

    Read: huggingface/block_movement_pruning, emmental/modules (topK) and masked_run_squad.py. There the sparsity rises
    at every step and not only at prunings, a global mask is found by a threshold that is 25 steps old at most, and the
    embeddings are frozen.
    """

    revives = True
    to_the_end = True

    def __init__(self, score_lr: float = 1e-2, every: int | None = None) -> None:
        if not score_lr > 0:
            raise UsageError(f"pruning.criterion.params.score_lr={score_lr:g}: must be greater than 0")
        if every is not None and every < 1:
            raise UsageError(f"pruning.criterion.params.every={every}: must be at least 1")
        self.score_lr, self.every = score_lr, every
        self.scores: dict[str, nn.Parameter] = {}  # like the stored weight, by target
        self.weights: dict[str, Tensor] = {}  # W

    def score(self, target: Target, stat: None) -> Tensor:
        """S; before the first update, when all of S is equal, the weight's magnitude."""
        if not self.scores or not self._optimizer.state:
            return target.matrix.abs()
        return target.oriented(self.scores[target.name])

    def begin(self, model: nn.Module, sparsifier: Sparsifier) -> None:
        """Raises UsageError beside other methods that change mask or weights at prunings."""
        super().begin(model, sparsifier)
        axes = sparsifier.axes
        for axis, other in (("refinement", axes.refinement), ("update", axes.update), ("regrowth", axes.regrowth)):
            if other is not None:
                raise UsageError(f"a learned criterion moves mask and weights at every step: set pruning/{axis}=none")
        if axes.scope.sample is not None:
            raise UsageError("a learned criterion has no data at hand at every step: set pruning/scope=uniform")
        if self.every is None:
            self.every = 1 if isinstance(axes.scope, PerMatrix) or not axes.pattern.asks_scope else 25
        weights = {target.name: target.weight.detach() for target in sparsifier.targets}
        self.weights = {name: weight.clone() for name, weight in weights.items()}
        self.scores = {name: nn.Parameter(torch.zeros_like(weight)) for name, weight in weights.items()}
        real = not any(weight.is_meta for weight in weights.values())
        self._optimizer = torch.optim.AdamW(self.scores.values(), lr=self.score_lr, weight_decay=0.0, fused=real)

    def parameters(self) -> Iterable[nn.Parameter]:
        return self.scores.values()

    @torch.no_grad()
    def before_pass(self, number: int, at: Moment) -> None:
        for target in self.sparsifier.targets:
            weight, mask = self.weights[target.name], self.sparsifier.masks.get(target.name)
            weight.copy_(target.weight if mask is None else torch.where(mask, target.weight, weight))

    @torch.no_grad()
    def after_pass(self, number: int, at: Moment) -> None:
        for target in self.sparsifier.targets:
            weight = self.weights[target.name]
            if target.weight.grad is not None:
                self.scores[target.name].grad = target.weight.grad * weight
            target.weight.copy_(weight)

    @torch.no_grad()
    def after_step(self, at: Moment) -> None:
        for target in self.sparsifier.targets:
            self.weights[target.name].copy_(target.weight)
        set_lr(self._optimizer, self.score_lr * at.lr_share)
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self.sparsifier.masks:
            self._move_masks(at)

    def _move_masks(self, at: Moment) -> None:
        made, every = at.step + 1, self.every or 1
        if made % every == 0 or made == at.steps:
            self.sparsifier.update(at.sparsity)
        else:
            self.sparsifier.apply()

    @torch.no_grad()
    def after_pruning(self) -> None:
        for target in self.sparsifier.targets:
            target.weight.copy_(self.weights[target.name])
        self.sparsifier.apply()

    def state_dict(self) -> dict[str, Tensor]:
        weights = {f"{name}.weight": weight for name, weight in self.weights.items()}
        scores = {f"{name}.score": score.detach() for name, score in self.scores.items()}
        return weights | scores | moments(self._optimizer, self.scores.items())

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, score in self.scores.items():
            self.weights[name].copy_(state[f"{name}.weight"])
            score.copy_(state[f"{name}.score"])
        load_moments(self._optimizer, self.scores.items(), state)


@CRITERIA.register("soft_movement")
class SoftMovement(Movement):
    """Soft movement pruning: M keeps sigmoid(S) > threshold, and a penalty on S makes for sparsity (same paper).

    The threshold goes from 0 to `final_threshold` as the plan's sparsity goes to its target, s being the share that
    is reached, and s * final_lambda times the mean over matrices of mean sigmoid(S) is added to the loss (the loss
    that is logged is without it). The density of the source's models is whatever comes out. Here it comes out until the
    last pruning, of all matrices together, which scope global makes the same as one threshold; from there on the
    highest scores are kept, exactly as many as the run's sparsity says. The source keeps 0.5 % of each matrix:
    pruning.scope.floor=0.005.

    Read: the same files (sigmoied_threshold with l1, threshold 0.1 and lambda 400).
    """

    def __init__(
        self,
        score_lr: float = 1e-2,
        final_threshold: float = 0.1,
        final_lambda: float = 400.0,
        every: int | None = None,
    ) -> None:
        super().__init__(score_lr, every)
        if not 0 < final_threshold < 1:
            raise UsageError(f"pruning.criterion.params.final_threshold={final_threshold:g}: must be in (0, 1)")
        self.final_threshold, self.final_lambda = final_threshold, final_lambda
        self._target = 0.0  # the plan's

    def level(self, sparsity: float) -> float:
        """The share of scores below the threshold, which follows `sparsity`; the target itself is taken as it is."""
        if not 0 < sparsity < self._target:
            return sparsity
        threshold = self.final_threshold * sparsity / self._target
        bound = float(np.float32(math.log(threshold / (1 - threshold))))
        total = sum(score.numel() for score in self.scores.values())
        return (total - sum(count_above(score, bound) for score in self.scores.values())) / total

    @torch.no_grad()
    def before_pass(self, number: int, at: Moment) -> None:
        super().before_pass(number, at)
        self._target = at.target

    @torch.no_grad()
    def after_pass(self, number: int, at: Moment) -> None:
        super().after_pass(number, at)
        strength = self.final_lambda * at.sparsity / at.target / len(self.scores) if at.sparsity else 0.0
        for score in self.scores.values():
            if strength and score.grad is not None:
                share = score.sigmoid()
                score.grad.add_(share * (1 - share), alpha=strength / score.numel())

    def state_dict(self) -> dict[str, Tensor]:
        return super().state_dict() | {"target": torch.tensor(self._target, dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        super().load_state_dict(state)
        self._target = float(state["target"])
