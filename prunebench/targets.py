"""The prunable weights of a Hugging Face model, found by its structure.

A model's weights belong to one of four components. `encoder`: the linear weights inside the repeated transformer layers
(of encoder-decoders, of both stacks); `embeddings`: embedding tables and what projects them to the hidden size;
`pooler`: the base model's pooler; `head`: linear weights outside the base model. LayerNorm and biases belong to none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import transformers
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from prunebench.errors import UsageError, did_you_mean

COMPONENTS = ("encoder", "pooler", "embeddings", "head")


@dataclass(frozen=True)
class Target:
    """One prunable weight matrix. Weights shared by several modules are one Target, named as in named_parameters()."""

    name: str
    module: nn.Module
    component: str
    transposed: bool  # transformers' Conv1D (GPT-2) stores (in, out)

    @property
    def weight(self) -> nn.Parameter:
        """The parameter as the module stores it."""
        weight = self.module.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    @property
    def matrix(self) -> Tensor:
        """(out, in) view of the weight, (vocabulary, dimension) of an embedding; writing to it writes to the model."""
        return self.oriented(self.weight.data)

    def oriented(self, values: Tensor) -> Tensor:
        """(out, in) view of what is laid out like the stored weight (a mask, a gradient), and the other way round."""
        return values.t() if self.transposed else values


def find_targets(model: nn.Module, components: Sequence[str] = ("encoder",)) -> list[Target]:
    """The weight matrices of `components`, in the order of named_parameters(), each shared one once.

    Raises UsageError for a name outside COMPONENTS and for a component of which the model has no weights.
    """
    matrices = _matrices(model)
    present = Counter(target.component for target in matrices)
    for component in components:
        if component not in COMPONENTS:
            raise UsageError(
                f"pruning.components: unknown component '{component}'{did_you_mean(component, COMPONENTS)}; "
                f"one of {', '.join(COMPONENTS)}"
            )
        if not present[component]:
            raise UsageError(
                f"pruning.components: {type(model).__name__} has no {component} weights; it has {_describe(model)}"
            )
    return [target for target in matrices if target.component in components]


def component_sizes(model: nn.Module) -> dict[str, int]:
    """Weights by component, and norms_and_biases: all the rest. Shared ones count once; the sum is the whole model."""
    sizes = dict.fromkeys(COMPONENTS, 0)
    for target in _matrices(model):
        sizes[target.component] += target.weight.numel()
    total = sum(parameter.numel() for parameter in model.parameters())
    return sizes | {"norms_and_biases": total - sum(sizes.values())}


def _matrices(model: nn.Module) -> list[Target]:
    """Every Linear, Conv1D and Embedding weight, once, in the order of named_parameters()."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    base = _base_modules(model)
    layers = _layer_modules(base)
    found: dict[int, Target] = {}
    for path, module in model.named_modules():
        if not isinstance(module, (nn.Linear, nn.Embedding, Conv1D)):
            continue
        key = id(module.weight)
        if isinstance(module, nn.Embedding):
            component = "embeddings"
        elif module not in base:
            component = "head"
        elif module in layers:
            component = "encoder"
        else:
            component = "pooler" if "pooler" in path else "embeddings"
        if key not in found or component == "embeddings":  # a tied output layer belongs to the embeddings
            found[key] = Target(names[key], module, component, isinstance(module, Conv1D))
    order = {name: i for i, name in enumerate(names.values())}
    return sorted(found.values(), key=lambda target: order[target.name])


def _base_modules(model: nn.Module) -> set[nn.Module]:
    """The modules of the base model: what `base_model_prefix` names, else the model without its direct linear heads.

    The latter for models that keep the base's parts beside the head (T5); a base model alone has no heads, its
    direct linears project embeddings (ELECTRA) or pool (ALBERT).
    """
    base = getattr(model, getattr(model, "base_model_prefix", "") or "", model)
    modules = set(base.modules())
    alone = transformers.MODEL_MAPPING.get(type(getattr(model, "config", None)), ())
    if base is model and not isinstance(model, alone):
        modules -= {child for child in model.children() if isinstance(child, nn.Linear)}
    return modules


def _layer_modules(base: set[nn.Module]) -> set[nn.Module]:
    """All modules inside the repeated layers."""
    return {member for module in base if _is_stack(module) for member in module.modules()}


def _is_stack(module: nn.Module) -> bool:
    """A ModuleList of items of one class that contain linear maps."""
    return (
        isinstance(module, nn.ModuleList)
        and len({type(item) for item in module}) == 1
        and any(isinstance(member, (nn.Linear, Conv1D)) for member in module.modules())
    )


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The repeated layers of the base model, in its order; of lists inside lists (ALBERT's groups) the outer ones."""
    base = _base_modules(model)
    stacks = [module for module in model.modules() if module in base and _is_stack(module)]
    inner = {member for stack in stacks for member in stack.modules() if member is not stack}
    return [layer for stack in stacks if stack not in inner for layer in stack.children()]


def _describe(model: nn.Module) -> str:
    """What a model holds, in one line: its components, else its largest parameters by name and shape."""
    matrices = _matrices(model)
    parts = [[target for target in matrices if target.component == component] for component in COMPONENTS]
    held = [
        f"{part[0].component} ({len(part)} matrices, {sum(target.weight.numel() for target in part):,} weights)"
        for part in parts
        if part
    ]
    if any(target.component == "encoder" for target in matrices):
        return ", ".join(held)
    largest = sorted(model.named_parameters(), key=lambda item: -item[1].numel())[:6]
    shapes = [f"{name} {tuple(parameter.shape)}" for name, parameter in largest]
    return ", ".join([*held, f"and no repeated layers of linear maps; largest: {'; '.join(shapes)}"])


def fresh_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters of head and pooler, which start from random values where the files have none."""
    base = _base_modules(model)
    pretrained = {id(parameter) for module in base for parameter in module.parameters(recurse=False)}
    named = model.named_parameters()
    return {name for name, parameter in named if id(parameter) not in pretrained or "pooler" in name.split(".")}
