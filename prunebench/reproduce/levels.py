"""A number of zeros as a share of the encoder, of every matrix and of the model, and how a run is asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prunebench.config import RunConfig
from prunebench.preview import COMPONENTS, pruned_components
from prunebench.reproduce.published import Denominator
from prunebench.sparsity.counts import zeros_at

Sizes = Mapping[str, int | None] | None  # weights by component, see `facts.sizes`


@dataclass(frozen=True)
class Shares:
    """The same zeros over three denominators; None where the sizes are not known.

    `encoder` may be beyond 1: then there are more zeros than the encoder has weights.
    """

    encoder: float | None
    all: float | None  # every matrix: encoder, pooler, embeddings and head, as SMC-Bench counts
    model: float | None  # all parameters, biases and norms included


@dataclass(frozen=True)
class Asked:
    """What a run is asked for: `sparsity`, and whether it is a share of the encoder where all matrices are pruned."""

    sparsity: float
    of_encoder: bool = False

    def words(self) -> list[str]:
        return [f"sparsity={self.sparsity!r}", *(["pruning.budget_from=[encoder]"] if self.of_encoder else [])]


class Unreachable(Exception):
    """A level that a run cannot have; the message is one line."""


def shares(level: float, of: Denominator, sizes: Sizes) -> Shares:
    """The level over every denominator."""
    encoder, matrices, model = _weights(sizes)
    whole = encoder if of == "encoder" else matrices
    if whole is None:
        return Shares(level if of == "encoder" else None, level if of == "all" else None, None)
    zeros = zeros_at(level, whole)
    return Shares(*(zeros / count if count else None for count in (encoder, matrices, model)))


def asked(level: float, of: Denominator, config: RunConfig, sizes: Sizes) -> Asked:
    """How a run of `config` is asked for the level.

    Raises:
        Unreachable: it would need more zeros than the matrices that the run prunes have weights.
    """
    own = pruned_components(config, sizes)
    if own == ["encoder"] or config.pruning.components == ["encoder"]:
        return Asked(level) if of == "encoder" else Asked(_of_encoder(level, sizes))
    if config.pruning.components == ["all"]:
        return Asked(level, of_encoder=of == "encoder")
    raise Unreachable(f"the run prunes {' + '.join(own)}: levels are known for the encoder and for all matrices only")


def _of_encoder(level: float, sizes: Sizes) -> float:
    """A share of every matrix as one of the encoder."""
    encoder, matrices, _ = _weights(sizes)
    if not encoder or not matrices:
        raise Unreachable("the model's sizes are not known, so a share of all matrices is none of the encoder yet")
    zeros = zeros_at(level, matrices)
    if zeros >= encoder:
        raise Unreachable(
            f"{100 * level:.4g} % of all {matrices:,} matrix weights are {zeros:,} zeros, but the encoder has only "
            f"{encoder:,} weights: this level cannot be reached without pruning embeddings or head"
        )
    return zeros / encoder


def _weights(sizes: Sizes) -> tuple[int | None, int | None, int | None]:
    """Weights of the encoder, of all matrices, and of the model."""
    if sizes is None:
        return None, None, None
    parts = [sizes.get(name) for name in COMPONENTS]
    matrices = None if None in parts else sum(part for part in parts if part is not None)
    rest = sizes.get("norms_and_biases")
    return sizes["encoder"], matrices, None if matrices is None or rest is None else matrices + rest
