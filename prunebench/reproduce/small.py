"""`--scale small`: every reproduction in seconds. A random model of two layers, few examples, short schedules.

It shows that a grid works from end to end. Its scores say nothing about the published ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prunebench.config import RunConfig
from prunebench.reproduce import generated
from prunebench.reproduce.local import real_data

FOLDER = "small"  # below `outputs`: what is small stands apart
LENGTH = 64  # tokens
PLAIN_CRITERIA = ("magnitude", "random", "movement", "soft_movement")  # look at no examples
TRAINER = [
    "trainer.epochs=1",
    "trainer.batch_size=16",
    "trainer.accumulation=1",
    "trainer.lr=1e-3",
    "trainer.threads=1",
    "trainer.precision=fp32",
]


@dataclass(frozen=True)
class Small:
    """How a run is shrunk. `data`: a folder with real data, laid out as ../shared/data; else they are generated."""

    outputs: str
    data: Path | None = None

    @property
    def folder(self) -> str:
        """Where small runs lie."""
        return f"{self.outputs}/{FOLDER}"

    def shrink(self, config: RunConfig) -> tuple[list[str], str]:
        """The words that make a run small, but for its model, and the data that it then has."""
        files = Path(self.folder).absolute() / ".data"
        data, described = (self.data and real_data(config.dataset, self.data)) or (None, "")
        if data is None:
            data, described = generated.write(config.dataset, files), "generated data"
        return [*data, *TRAINER, *_schedule(config), f"outputs={self.folder}"], described

    def model(self, config: RunConfig) -> list[str]:
        """The words that choose a tiny model, of the family of the one that it stands for."""
        files = Path(self.folder).absolute() / ".data"
        tokenizer = generated.write_tokenizer(files, LENGTH, self.data)
        kind = config.model.config.get("model_type", "bert")
        sizes = {"model_type": kind, "vocab_size": tokenizer.size, "hidden_size": 32, "num_hidden_layers": 2,
                 "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": LENGTH + 2,
                 "type_vocab_size": 2, "pad_token_id": 0, "initializer_range": 0.15,
                 "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # fmt: skip
        shown = ", ".join(f"{name}: {value}" for name, value in sizes.items())
        return ["model=hf", f"model.name=small-{kind}", "model.from_config=true", f"model.config={{{shown}}}",
                f"model.tokenizer={tokenizer.folder}"]  # fmt: skip


def _schedule(config: RunConfig) -> Iterator[str]:
    """An epoch has four steps, and an example is looked at by no more than the data have."""
    schedule = config.pruning.schedule
    if any(phase.epochs is None and phase.units < 1 for phase in schedule.phases):
        yield "trainer.epochs=3"  # so that a tenth of the unit is a step
    if schedule.prunings_per_epoch is not None:
        yield "pruning.schedule.prunings_per_epoch=2"
    if schedule.prune_every is not None:
        yield "pruning.schedule.prune_every=2"
    if config.sparsity > 0 and config.pruning.criterion.name not in PLAIN_CRITERIA:
        yield "pruning.calibration.examples=16"
        yield "pruning.calibration.batch_size=8"
    if config.dataset.max_length > LENGTH:
        yield f"dataset.max_length={LENGTH}"
    if config.dataset.doc_stride > LENGTH // 4:
        yield f"dataset.doc_stride={LENGTH // 4}"
