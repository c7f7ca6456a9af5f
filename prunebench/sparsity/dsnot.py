"""DSnoT: exchanges of pruned for kept weights that undo the mean error of each output (Zhang et al. 2024).

Read: zyxxmu/DSnoT, lib/prune.py (prune_DSnoT), lib/layerwrapper.py, main.py (defaults). No weight changes its value.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prunebench.errors import UsageError
from prunebench.sparsity.patterns import NM, Pattern
from prunebench.sparsity.refinements import REFINEMENTS, Refinement
from prunebench.sparsity.stats import InputNorm, Sample

if TYPE_CHECKING:
    from prunebench.targets import Target


class InputMoments(InputNorm):
    """Sum, norm and variance of every input."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._sums = torch.zeros_like(self.squares)
        self._variances = torch.zeros_like(self.squares)
        self._sequences = self._tokens = 0

    def observe_inputs(self, inputs: Tensor, sequences: int) -> None:
        if len(inputs):
            super().observe_inputs(inputs, sequences)
            self._sums += inputs.sum(0)
            self._variances += inputs.var(0, unbiased=False) * len(inputs)
            self._sequences += sequences
            self._tokens += len(inputs)

    def sequence_sum(self) -> Tensor:
        """(in,), float32: the sum over the tokens of a sequence, on average."""
        return (self._sums / max(1, self._sequences)).float()

    def variance(self) -> Tensor:
        """(in,), float32: over the tokens of a batch, averaged over batches by their tokens, as the reference does."""
        return (self._variances / max(1, self._tokens)).float()


@REFINEMENTS.register("dsnot")
class DSnoT(Refinement[InputMoments]):
    """In every output, up to `cycles` exchanges of one pruned for one kept weight.

    D_ij = W_ij times the mean over sequences of the sum of input j over tokens; e_i, the sum of D_ij over what is
    pruned, is what output i lacks. In a cycle the pruned weight comes back whose D has the sign of e and the largest
    |D_ij| / var_j^variance_power, and of the kept weights whose D has the other sign the one of lowest |W_ij| ||X_j||_2
    goes; e moves towards zero by both. n:m: the kept weight of lowest |W_ij| ||X_j||_2 in the same group goes, whatever
    its sign. An output is done when |e| <= threshold or nothing is left to exchange; what was exchanged stays so.

    Differences from the reference: with n:m it takes the kept weight of lowest score by the method that chose the mask;
    where nothing is left to exchange it goes on with weights that are no candidates, so that counts may change.
    Weights pruned earlier do not come back.

    Args:
        threshold: of the error, which is a sum over the tokens of a sequence (2,048 in the reference).
        same_sign: whether an output is also done before an exchange that would turn the sign of e. Always with n:m.
        skip: "mlp" leaves all but attention projections as they are, "attention" leaves these, "none" refines all.
        pattern: that of the masks.
    """

    sample: ClassVar[Sample | None] = Sample(examples=1024, batch_size=32)
    layer_by_layer: ClassVar[bool] = True

    def __init__(
        self,
        cycles: int = 50,
        threshold: float = 0.1,
        variance_power: float = 1.0,
        same_sign: bool = False,
        skip: str = "mlp",
        pattern: Pattern | None = None,
    ) -> None:
        if skip not in ("mlp", "attention", "none"):
            raise UsageError(f"pruning.refinement.params.skip={skip}: choose mlp, attention or none")
        if pattern is not None and pattern.size > 1:
            raise UsageError(
                "refinement dsnot exchanges single weights, which would break up blocks: "
                "set pruning/pattern=unstructured or pruning/refinement=none"
            )
        self.cycles, self.threshold, self.variance_power = cycles, threshold, variance_power
        self.group = pattern.m if isinstance(pattern, NM) else None
        self.same_sign, self.skip = same_sign or self.group is not None, skip

    def stat(self, target: Target) -> InputMoments | None:
        part = "attention" if "att" in target.name.lower() else "mlp"  # attention, self_attn, SelfAttention, attn
        return None if part == self.skip else InputMoments(target)

    def refine(self, target: Target, mask: Tensor, alive: Tensor, stat: InputMoments | None) -> Tensor:
        if stat is None:
            return mask
        weight = target.matrix.float()
        effect = weight * stat.sequence_sum()
        spread = stat.variance().clamp(min=torch.finfo(torch.float32).tiny).pow(self.variance_power)
        benefit = (effect / spread).masked_fill_(mask | ~alive, 0)
        norm = (weight.abs() * stat.norm()).masked_fill_(~mask, math.inf)
        partners = _LowestOfSign(norm, effect, self.cycles) if self.group is None else _LowestOfGroup(norm, self.group)
        return self._exchange(mask, effect, _Queues(_first(-benefit), _first(benefit), self.cycles), partners)

    def _exchange(self, mask: Tensor, effect: Tensor, returning: _Queues, partners: _Partners) -> Tensor:
        mask, rows = mask.clone(), torch.arange(len(mask), device=mask.device)
        error = effect.masked_fill(mask, 0).sum(1)
        sign, active = error.sign(), torch.ones_like(error, dtype=torch.bool)
        for _ in range(self.cycles):
            active &= error.abs() > self.threshold
            back, found = returning.next(error < 0)
            gone, matched = partners.next(error < 0, back)
            after = error + effect[rows, gone] - effect[rows, back]
            exchanged = active & found & matched
            if self.same_sign:
                active &= ~exchanged | (after.sign() == sign)
                exchanged &= active
            if not bool(active.any()):
                break
            mask[rows[exchanged], back[exchanged]] = True
            mask[rows[exchanged], gone[exchanged]] = False
            error = torch.where(exchanged, after, error)
        return mask


def _first(key: Tensor) -> Tensor:
    """The negative entries of `key`; the others are no candidates."""
    return key.masked_fill(key >= 0, math.inf)


class _Queues:
    """Two queues of weights for every output: for errors above zero and for those below.

    Keys are (out, in), the lowest comes first, inf never comes. No more than `length` are asked for.
    """

    def __init__(self, above: Tensor, below: Tensor, length: int) -> None:
        length = min(length, above.shape[1])
        lowest = [key.topk(length, dim=1, largest=False) for key in (above, below)]
        self._order = torch.stack([each.indices for each in lowest])  # (2, out, length)
        self._left = torch.stack([(each.values < math.inf).sum(1) for each in lowest])  # (2, out)
        self._at = torch.zeros_like(self._left)
        self._rows = torch.arange(len(above), device=above.device)

    def next(self, low: Tensor) -> tuple[Tensor, Tensor]:
        """(out,): the next weight of every output, from the second queue where `low`; and whether there is one."""
        which = (low.long(), self._rows)
        at = self._at[which]
        self._at[which] += 1
        return self._order[(*which, at.clamp(max=self._order.shape[2] - 1))], at < self._left[which]


class _Partners(ABC):
    """The kept weights that may go, by a norm (out, in) that is inf where a weight may not."""

    @abstractmethod
    def next(self, low: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
        """(out,): what goes for weight `back` where the error is below zero (`low`) or above; whether there is any."""


class _LowestOfSign(_Partners):
    def __init__(self, norm: Tensor, effect: Tensor, length: int) -> None:
        self._queues = _Queues(norm.masked_fill(effect >= 0, math.inf), norm.masked_fill(effect <= 0, math.inf), length)

    def next(self, low: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
        return self._queues.next(low)


class _LowestOfGroup(_Partners):
    def __init__(self, norm: Tensor, group: int) -> None:
        self._norm, self._rows = norm, torch.arange(len(norm), device=norm.device)
        self._inside = torch.arange(group, device=norm.device)

    def next(self, low: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
        group = (back - back % len(self._inside)).unsqueeze(1) + self._inside
        lowest = self._norm.gather(1, group).min(1)
        gone = group[self._rows, lowest.indices]
        self._norm[self._rows, gone] = math.inf  # what is exchanged stays so
        return gone, lowest.values < math.inf
