"""Looking at training examples while pruning: the inputs of every matrix, or the gradients of the loss.

Methods of whole layers prune one layer after the other, each seeing what the pruned layers before it give (SparseGPT,
Wanda). `layer_by_layer` runs every layer once for that, not the whole model once for every layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.cache_utils import Cache

from prunebench.errors import RunError, UsageError
from prunebench.sparsity.stats import InputStat
from prunebench.targets import Target, layers_of

Batch = Mapping[str, Tensor]
MASKS = ("attention_mask", "decoder_attention_mask")  # of a batch: 1 for tokens, 0 for padding
Observers = Sequence[tuple[Target, InputStat]]


@dataclass
class Calibration:
    """The model on some training examples, in eval mode (no dropout), with the plain task loss.

    batch_of: examples (indices) -> what the model and the loss need, on the model's device.
    loss_of: runs the model on it and returns the mean loss.
    autocast: the precision that `loss_of` computes in, for layers that are run by themselves.
    counting: opens a progress bar, see `progress.counting`.
    """

    model: nn.Module
    indices: np.ndarray
    lengths: np.ndarray  # of `indices`, in tokens
    batch_size: int
    batch_of: Callable[[np.ndarray], Batch]
    loss_of: Callable[[Batch], Tensor]
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    counting: Callable[[str, int], AbstractContextManager[Callable[[int], None]]] = field(
        default=lambda title, total: nullcontext(lambda done: None)
    )

    def by_length(self) -> list[np.ndarray]:
        """Batches of similar length, which need little padding."""
        order = self.indices[np.argsort(self.lengths, kind="stable")]
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    def at_random(self) -> list[np.ndarray]:
        """Batches in the order of the sample, as gradients should be drawn; a short one at the end is left out."""
        count = max(1, len(self.indices) // self.batch_size)
        return [self.indices[i * self.batch_size : (i + 1) * self.batch_size] for i in range(count)]

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        modes = {module: module.training for module in self.model.modules()}
        self.model.eval()
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode

    # --- gradients ---

    def gradients(self, targets: Sequence[Target]) -> Iterator[list[Tensor]]:
        """For every batch the gradient (out, in) of its mean loss with respect to each target, float32."""
        weights = [target.weight for target in targets]
        batches = self.at_random()
        with self._evaluating(), self.counting("gradients", len(batches)) as count:
            for indices in batches:
                with torch.enable_grad():
                    loss = self.loss_of(self.batch_of(indices))
                    found = torch.autograd.grad(loss, weights)
                _refuse_not_finite(loss)
                count(1)
                yield [target.oriented(gradient).float() for target, gradient in zip(targets, found, strict=True)]

    def loss(self) -> float:
        """The mean loss over all examples."""
        total = 0.0
        with self._evaluating(), torch.no_grad():
            for indices in self.by_length():
                total += float(self.loss_of(self.batch_of(indices))) * len(indices)
        return total / len(self.indices)

    # --- inputs ---

    def observe_inputs(self, observers: Observers) -> None:
        """Feeds the stats from one pass over the examples with the model as it is.

        Raises:
            UsageError: one is to observe an embedding table, which has no inputs.
            RunError: inputs are not finite.
        """
        batches = self.by_length()
        _refuse_tables(observers)
        with self._evaluating(), torch.no_grad(), self.counting("inputs", len(batches)) as count:
            for indices in batches:
                batch = self.batch_of(indices)
                with _watching(observers, batch):
                    self.loss_of(batch)
                count(1)

    def layer_by_layer(
        self, targets: Sequence[Target], observers_of: Callable[[list[Target]], Observers]
    ) -> Iterator[list[Target]]:
        """The targets layer by layer, once what observes them was fed; the caller prunes them and asks for the next.

        A layer's inputs are what the layers before it give as they are by then. What lies outside the repeated layers
        comes last. Errors as in `observe_inputs`.
        """
        layers, groups, rest = _by_layer(self.model, targets)
        if tables := [target for target in rest if isinstance(target.module, nn.Embedding)]:
            _refuse_tables(observers_of(tables))
        with self._evaluating(), torch.no_grad(), self.counting("layers", len(groups) + bool(rest)) as count:
            stack = _Stack.begin(self, layers) if len(groups) > 1 else None
            for number, members in enumerate(groups):
                observers = observers_of(members)
                if stack is not None:
                    stack.observe(number, observers)
                elif observers:
                    self.observe_inputs(observers)
                yield members
                if stack is not None and number + 1 < len(groups):
                    stack.advance(number)
                count(1)
            if rest:
                if observers := observers_of(rest):
                    self.observe_inputs(observers)
                yield rest
                count(1)


def _by_layer(model: nn.Module, targets: Sequence[Target]) -> tuple[list[nn.Module], list[list[Target]], list[Target]]:
    """The repeated layers in the model's order, the targets in each of them, and those in none."""
    layers, groups = layers_of(model), []
    left = list(targets)
    for layer in layers:
        inside = set(layer.modules())
        groups.append([target for target in left if target.module in inside])
        left = [target for target in left if target.module not in inside]
    while groups and not groups[-1]:  # nothing is asked of the last layers
        del groups[-1], layers[-1]
    return layers, groups, left


class _Stop(Exception):
    """Ends a forward pass where its rest is not needed."""


@dataclass
class _Call:
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    batch: Batch


class _Stack:
    """A plain stack of layers, each of which takes the output of the one before it and else the same arguments."""

    def __init__(self, layers: list[nn.Module], calls: list[_Call], autocast: Callable[[], Any]) -> None:
        self._layers, self._calls, self._autocast = layers, calls, autocast

    @classmethod
    def begin(cls, calibration: Calibration, layers: list[nn.Module]) -> _Stack | None:
        """None where they are no plain stack: one's output fed to the next is not what the model computes."""
        batches = calibration.by_length()
        if not cls._is_plain(calibration, layers, batches[-1]):  # the longest: layers may differ in how far they see
            return None
        calls = [cls._first_call(calibration, layers[0], indices) for indices in batches]
        return cls(layers, calls, calibration.autocast)

    @staticmethod
    def _first_call(calibration: Calibration, layer: nn.Module, indices: np.ndarray) -> _Call:
        batch, found = calibration.batch_of(indices), []

        def take(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found.append(
                _Call(_without_cache(args), dict(zip(kwargs, _without_cache(kwargs.values()), strict=True)), batch)
            )
            raise _Stop

        with _hook(layer.register_forward_pre_hook(take, with_kwargs=True)), suppress(_Stop):
            calibration.loss_of(batch)
        return found[0]

    @classmethod
    def _is_plain(cls, calibration: Calibration, layers: list[nn.Module], indices: np.ndarray) -> bool:
        outputs: list[Any] = []
        with _hook(layers[-1].register_forward_hook(lambda _, args, output: outputs.append(_hidden(output)))):
            calibration.loss_of(calibration.batch_of(indices))
        if len(outputs) != 1:  # layers that are used several times
            return False
        stack = cls(layers, [cls._first_call(calibration, layers[0], indices)], calibration.autocast)
        try:
            for number in range(len(layers)):
                stack.advance(number)
            found = stack._calls[0].args[0]
        except Exception:  # a layer that wants other arguments than the first
            return False
        return bool(found.shape == outputs[0].shape and torch.equal(found, outputs[0]))

    def observe(self, number: int, observers: Observers) -> None:
        if observers:
            for call in self._calls:
                with _watching(observers, call.batch), self._autocast():
                    self._layers[number](*call.args, **call.kwargs)

    def advance(self, number: int) -> None:
        """Replaces the inputs of layer `number` by its outputs."""
        for call in self._calls:
            with self._autocast():
                output = _hidden(self._layers[number](*call.args, **call.kwargs))
            if call.args:
                call.args = (output, *call.args[1:])
            else:
                call.kwargs = call.kwargs | {"hidden_states": output}


def _without_cache(values: Iterable[Any]) -> tuple[Any, ...]:
    """Arguments of a layer that is to run more than once: decoders would add to what they keep for the next token."""
    return tuple(None if isinstance(value, Cache) else value for value in values)


def _hidden(output: Any) -> Tensor:
    hidden = output[0] if isinstance(output, tuple) else output
    assert isinstance(hidden, Tensor)
    return hidden


@contextmanager
def _hook(handle: RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _watching(observers: Observers, batch: Batch) -> Iterator[None]:
    """Feeds stats with what their modules are given; tokens that a mask of theirs leaves out do not count."""
    masks = [batch[name] for name in MASKS if name in batch]
    handles = []
    for target, stat in observers:

        def feed(_: nn.Module, args: tuple[Any, ...], target: Target = target, stat: InputStat = stat) -> None:
            inputs = args[0].detach()
            tokens, sequences = _tokens(inputs, masks)
            if not bool(tokens.sum().isfinite()):  # one pass; entry by entry takes 25 times as long
                raise RunError(f"the inputs of {target.name} are not finite: did training diverge?")
            stat.observe_inputs(tokens, sequences)

        handles.append(target.module.register_forward_pre_hook(feed))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tokens(inputs: Tensor, masks: Sequence[Tensor]) -> tuple[Tensor, int]:
    """(tokens, in), float32, of what is no padding, and of how many sequences that is.

    A mask is (..., length); that of the inputs' shape holds, and inputs of other shapes are taken whole. Some layers
    flatten sequences before their linear maps (OPT), and with several choices an example is several sequences.
    """
    flat = inputs.reshape(-1, inputs.shape[-1])
    for mask in masks:
        mask = mask.reshape(-1, mask.shape[-1])
        if inputs.shape[:-1] in (mask.shape, (mask.numel(),)):
            kept = mask.flatten().nonzero().flatten()  # a bool index takes four times as long
            return flat.index_select(0, kept).float(), len(mask)
    return flat.float(), len(inputs)


def _refuse_tables(observers: Observers) -> None:
    for target, _ in observers:
        if isinstance(target.module, nn.Embedding):
            raise UsageError(
                f"{target.name} is a table, which has no inputs that pruning could look at: "
                "leave embeddings out of pruning.components, or choose another pruning/criterion"
            )


def _refuse_not_finite(loss: Tensor) -> None:
    if not bool(loss.isfinite()):
        raise RunError(f"the loss of calibration examples is {float(loss)}: did training diverge?")
