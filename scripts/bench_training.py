"""What pruning and distillation cost our training loop, and what the loop costs beside Hugging Face's Trainer.

    python scripts/bench_training.py fixed           # rivals' ground, see below: minutes
    python scripts/bench_training.py base            # BERT-base's shape: about an hour on two cores
    python scripts/bench_training.py fixed base --json docs/speed_training.json
    python scripts/bench_training.py fixed base --small    # both grounds shrunk, to try the script: a minute

Grounds: `fixed`, where fixed costs show (BERT of 4 layers and width 128, batches of 8 x 16 tokens, one thread, CPU
time), and `base` (12 layers, width 768, batches of 8 x 128 tokens, two threads, elapsed time; --batch 32 for the usual
batch, of which the same pruning is a smaller part). Text is random ids; dropout is off, since on a CPU it is serial and
would only make everything else look cheap.

Variants, each through `prunebench.train.train` with its log, checkpoint and the guidelines' schedule as in a real run:
dense; pruning to 90 % with ten prunings an epoch of ten times --every steps, gradients masked at every step;
`torch.nn.utils.prune` in the same loop and at the same steps and levels (global_unstructured, as its users write it);
distillation from cached logits; distillation from a teacher that runs online. And transformers.Trainer on the dense
work.

A variant is run for --steps steps in each of --rounds rounds, all variants in turn, backwards in every second round. A
step lasts from one call of `collate` to the next, so that all that happens in between counts: pruning, log, optimizer.
The first two steps of a run, which allocate, do not count. A run's cost is the median of its plain steps plus, where it
prunes, the median of what steps with a pruning take more, divided by --every. A ratio is the median over rounds.

Neural Compressor and SparseML need other versions of torch and transformers than this environment has.
"""

from __future__ import annotations

import argparse
import copy
import gc
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from measuring import Clock, Ratios, cpu, ratio_of, spread_of, wall
from torch import Tensor, nn
from torch.nn.utils import prune

from prunebench import progress
from prunebench.assemble import make_sparsifier
from prunebench.compose import load_config
from prunebench.config import RunConfig
from prunebench.devices import make_accelerator
from prunebench.distill import cached_logits
from prunebench.plan import make_plan
from prunebench.sparsity.sparsifier import Update
from prunebench.targets import Target, find_targets
from prunebench.tasks.base import Encoded, Feature
from prunebench.tasks.classification import ClassificationTask
from prunebench.teacher import CachedTeacher, OnlineTeacher
from prunebench.tracking import LocalTracker, Tracker
from prunebench.train import Distillation, Job, train

VOCABULARY = 2000
UNITS = 5  # the guidelines' at 90 %: four of pruning and one of recovery


@dataclass(frozen=True)
class Ground:
    """Where is measured."""

    name: str
    layers: int
    width: int
    batch: int
    length: int  # tokens
    threads: int
    clock: Clock
    steps: int  # of one run
    rounds: int
    every: int  # steps between two prunings

    def model(self) -> Any:
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=max(2, self.width // 64),
            intermediate_size=4 * self.width,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        return transformers.BertForSequenceClassification(config)

    def config(self, recipe: str) -> RunConfig:
        """`recipe`'s settings, for a run of `steps` steps in epochs of ten times `every`."""
        epochs = self.steps / (10 * self.every)
        return load_config([
            f"recipe={recipe}",
            "dataset=sst2",
            f"trainer.batch_size={self.batch}",
            f"trainer.epochs={epochs if recipe == 'dense' else epochs / UNITS}",
            "trainer.precision=fp32",
            "trainer.device=cpu",
            f"trainer.threads={self.threads}",
            "trainer.checkpoint_minutes=1000",  # only the one at the end, which is after the last step that counts
            "trainer.eval_every=1000",  # the same
        ])  # fmt: skip


GROUNDS = {
    "fixed": Ground("fixed", 4, 128, 8, 16, threads=1, clock=cpu, steps=100, rounds=20, every=10),
    "base": Ground("base", 12, 768, 8, 128, threads=2, clock=wall, steps=20, rounds=5, every=10),
}


class TimedTask(ClassificationTask):
    """Notes when each batch is asked for."""

    def __init__(self, config: RunConfig, clock: Clock) -> None:
        super().__init__(config.dataset)
        self._clock = clock
        self.times: list[float] = []

    def collate(self, features: Sequence[Feature], pad_to_multiple_of: int = 8) -> dict[str, Tensor]:
        self.times.append(self._clock())
        return super().collate(features, pad_to_multiple_of)


def make_data(ground: Ground) -> Encoded:
    """An epoch of random text, every example as long as the ground says."""
    random = np.random.default_rng(0)
    examples = 10 * ground.every * ground.batch
    columns: dict[str, np.ndarray] = {
        "input_ids": random.integers(1, VOCABULARY, examples * ground.length).astype(np.int32),
        "labels": random.integers(0, 2, examples),
    }
    return Encoded(np.arange(examples + 1) * ground.length, columns, "random", 0)


# --- variants: each returns the cost of a step in seconds -------------------------------------------------------------


@dataclass
class Bench:
    """One ground with its data; every method is one run of one variant, with a new model."""

    ground: Ground
    data: Encoded
    folder: Path
    prunings: dict[str, list[float]] = field(default_factory=dict)  # seconds that a pruning takes, by variant
    plain: dict[str, list[float]] = field(default_factory=dict)  # seconds of a step without pruning

    def dense(self) -> float:
        return self._ours("dense", self.ground.model())

    def pruning(self) -> float:
        return self._ours("pruning", self.ground.model(), recipe="bert_smc_90")

    def torch_prune(self) -> float:
        model = self.ground.model()
        return self._ours("torch_prune", model, recipe="bert_smc_90", sparsifier=TorchPrune(find_targets(model)))

    def cached_teacher(self) -> float:
        logits = cached_logits(self.folder / "logits", lambda: random_logits(len(self.data)))
        return self._ours("cached", self.ground.model(), teacher=CachedTeacher(logits))

    def online_teacher(self) -> float:
        model = self.ground.model()
        return self._ours("online", model, teacher=copy.deepcopy(model).eval())

    def _ours(
        self, name: str, model: Any, *, recipe: str = "dense", sparsifier: Any = None, teacher: Any = None
    ) -> float:
        config = self.ground.config(recipe)
        task = TimedTask(config, self.ground.clock)
        plan = make_plan(config, len(self.data))
        accelerator = make_accelerator("fp32", "cpu", self.ground.threads)
        if isinstance(teacher, nn.Module):
            teacher = OnlineTeacher(teacher, task, None, accelerator.autocast)
        trackers: list[Tracker] = []
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:

            def start(step: int) -> list[Tracker]:
                trackers.append(LocalTracker(Path(folder) / "metrics.jsonl", step))
                return trackers

            train(
                Job(
                    title=name,
                    model=model,
                    task=task,
                    data=self.data,
                    plan=plan,
                    sparsifier=sparsifier or make_sparsifier(config, model),
                    settings=config.trainer,
                    seed=1,
                    distillation=None if teacher is None else Distillation(teacher, hardness=1.0, temperature=5.5),
                    accelerator=accelerator,
                    state=Path(folder) / "state",
                    trackers=start,
                    evaluate=lambda model: {"accuracy": 0.0},
                )
            )
            for tracker in trackers:
                tracker.close()
        return self._cost(name, task.times, [step for step, _ in plan.prunings])

    def trainer(self) -> float:
        """transformers.Trainer with the same batches (in another order), optimizer, schedule and clipping."""
        config = self.ground.config("dense")
        task = TimedTask(config, self.ground.clock)
        settings = config.trainer
        torch.set_num_threads(self.ground.threads)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            arguments = transformers.TrainingArguments(
                output_dir=folder,
                max_steps=self.ground.steps,
                per_device_train_batch_size=settings.batch_size,
                learning_rate=settings.lr,
                lr_scheduler_type="linear",
                weight_decay=settings.weight_decay,
                max_grad_norm=settings.max_grad_norm,
                optim="adamw_torch_fused",
                logging_strategy="no",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
                remove_unused_columns=False,
            )
            trainer = transformers.Trainer(
                self.ground.model(), arguments, data_collator=task.collate, train_dataset=Examples(self.data)
            )
            trainer.remove_callback(transformers.PrinterCallback)
            trainer.train()
        return self._cost("trainer", task.times, [])

    def _cost(self, name: str, times: Sequence[float], pruned_at: Sequence[int]) -> float:
        """Seconds a step; what a pruning adds to its step is shared by `every` steps."""
        lasted: dict[int, float] = dict(enumerate(np.diff(times).tolist()))
        ended = {step - 1: lasted[step - 1] for step in pruned_at if step - 1 in lasted and step > 2}
        plain: float = median(seconds for step, seconds in lasted.items() if step >= 2 and step not in ended)
        self.plain.setdefault(name, []).append(plain)
        if not ended:
            return plain
        pruning: float = median(ended.values()) - plain
        self.prunings.setdefault(name, []).append(pruning)
        return plain + pruning / self.ground.every


def random_logits(examples: int) -> list[dict[str, np.ndarray]]:
    values = np.random.default_rng(1).normal(size=(examples, 2)).astype(np.float32)
    return [{"logits": row} for row in values]


class Examples(torch.utils.data.Dataset[Feature]):
    """`Encoded` as the Trainer's DataLoader takes it."""

    def __init__(self, data: Encoded) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Feature:
        return self._data.batch([index])[0]


class TorchPrune:
    """torch.nn.utils.prune behind the methods that the loop calls: weights become `weight_orig * weight_mask`."""

    sample = None  # it looks at no data
    axes = SimpleNamespace(regrowth=None)

    def __init__(self, targets: Sequence[Target]) -> None:
        self._modules = [(target.module, "weight") for target in targets]
        self._total = sum(target.weight.numel() for target in targets)
        self._pruned = 0

    def update(self, sparsity: float, *_: Any) -> Update:
        """global_unstructured counts what it is to prune beyond what is pruned already."""
        more = round(sparsity * self._total) - self._pruned
        prune.global_unstructured(self._modules, pruning_method=prune.L1Unstructured, amount=more)
        self._pruned += more
        return Update(sparsity, self._pruned / self._total, more / self._total, {}, ())

    def mask_gradients(self) -> None:
        """Autograd does."""

    def zero_moments(self, optimizer: Any) -> None:
        """Needless: what happens to pruned entries of `weight_orig` shows nowhere."""

    def state_dict(self) -> Mapping[str, Tensor]:
        return {}


# --- the report -------------------------------------------------------------------------------------------------------


def measure(ground: Ground, variants: Sequence[str], ratios: Ratios) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(ground, make_data(ground), Path(folder))
        runs: dict[str, Callable[[], float]] = {name: getattr(bench, name) for name in variants}
        costs: dict[str, list[float]] = {name: [] for name in variants}
        for number in range(ground.rounds):
            for name in variants[:: -1 if number % 2 else 1]:
                costs[name].append(runs[name]())
                gc.collect()
        for name in variants[1:]:
            report(bench, name, costs, ratios)


def report(bench: Bench, name: str, costs: Mapping[str, list[float]], ratios: Ratios) -> None:
    ground, dense = bench.ground, costs["dense"]
    details: dict[str, float | str] = {"rounds": spread_of(costs[name], dense), "dense ms": 1000 * median(dense)}
    if name in bench.prunings:
        details["step without pruning"] = ratio_of(bench.plain[name], dense)
        details["a pruning"] = ratio_of(bench.prunings[name], dense)
        details["every"] = f"{ground.every} steps"
    ratios.add(f"{ground.name}: {name} / dense", ratio_of(costs[name], dense), **details)


def chosen_ground(name: str, options: argparse.Namespace) -> Ground:
    values = vars(GROUNDS[name])
    if options.small:
        values = values | {"layers": 2, "width": 64, "steps": 20, "rounds": 2, "every": 4}
    given = {key: getattr(options, key) for key in ("steps", "rounds", "every", "batch", "threads")}
    ground = Ground(**(values | {key: value for key, value in given.items() if value is not None}))
    if ground.steps % UNITS or ground.steps < 2 * UNITS:
        raise SystemExit(f"--steps {ground.steps}: a multiple of {UNITS}, at least {2 * UNITS}")
    return ground


VARIANTS = ("dense", "pruning", "torch_prune", "trainer", "cached_teacher", "online_teacher")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grounds", nargs="+", choices=GROUNDS)
    parser.add_argument("--only", nargs="*", choices=VARIANTS[1:], help="some of the variants, beside dense")
    parser.add_argument("--small", action="store_true", help="2 layers of width 64, two rounds of 20 steps")
    parser.add_argument("--steps", type=int, help="of one run (default: 100 fixed, 20 base)")
    parser.add_argument("--rounds", type=int, help="runs of each variant (default: 20 fixed, 5 base)")
    parser.add_argument("--every", type=int, help="steps between two prunings (default: 10)")
    parser.add_argument("--batch", type=int, help="examples in a batch (default: 8)")
    parser.add_argument("--threads", type=int, help="torch's (default: 1 fixed, 2 base)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the ratios there")
    options = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    progress.console.quiet = True
    ratios = Ratios()
    grounds = [chosen_ground(name, options) for name in options.grounds]
    for ground in grounds:
        measure(ground, ["dense", *(options.only or VARIANTS[1:])], ratios)
    ratios.write(options.json, {ground.name: vars(ground) | {"clock": ground.clock.__name__} for ground in grounds})


if __name__ == "__main__":
    main()
