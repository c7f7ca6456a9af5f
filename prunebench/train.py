"""The training loop: one function that reads from top to bottom, on accelerate."""

from __future__ import annotations

import math
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from prunebench.batches import BatchOrder, share_of, step_seed
from prunebench.calibrate import make_calibration
from prunebench.checkpoint import (
    KEPT,
    Checkpoint,
    UnfinishedPruning,
    keep_newest,
    keep_only,
    load_checkpoint,
    load_checkpoint_at,
    load_model_tensors,
    model_tensors,
    save_checkpoint,
)
from prunebench.config import CalibrationConfig, TrainerConfig
from prunebench.devices import memory_advice
from prunebench.distill import distillation_loss, hidden_loss
from prunebench.errors import RunError
from prunebench.optim import forget_moments, load_moments, make_optimizer, moments, set_lr
from prunebench.paths import remove
from prunebench.plan import Phase, Plan
from prunebench.progress import TrainingProgress, say, warn
from prunebench.retraining import Adapters, freeze_others, learning_parameters
from prunebench.signals import ending_signals
from prunebench.sparsity.calibration import Calibration
from prunebench.sparsity.criteria import Sample
from prunebench.sparsity.dynamics import Dynamics, Moment
from prunebench.sparsity.sparsifier import Sparsifier
from prunebench.tasks.base import Encoded, Heads, Task
from prunebench.teacher import layer_outputs
from prunebench.tracking import Tracker


class Teacher(Protocol):
    """The dense model's heads for some training examples, shaped like the student's."""

    def __call__(self, indices: np.ndarray, batch: Mapping[str, Tensor], student: Heads) -> Heads: ...


@dataclass(frozen=True)
class Hidden:
    """Distillation of the layers' outputs, see `distill.hidden_loss`."""

    states: Callable[[Mapping[str, Tensor]], Sequence[Tensor]]  # the dense model's, for a batch
    kind: str
    weight: float


@dataclass(frozen=True)
class Distillation:
    teacher: Teacher | None  # None: no logits
    hardness: float
    temperature: float
    hidden: Hidden | None = None


@dataclass
class Trained:
    """What training left besides the weights in the model."""

    seconds: float = 0.0
    finished: bool = False  # every update was made
    best: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass
class Job:
    """Everything the loop works with; `run.py` puts it together."""

    title: str
    model: nn.Module
    task: Task
    data: Encoded
    plan: Plan
    sparsifier: Sparsifier
    settings: TrainerConfig
    seed: int
    distillation: Distillation | None
    accelerator: Accelerator
    state: Path
    trackers: Callable[[int], list[Tracker]]  # given the number of rows that were logged where training goes on
    evaluate: Callable[[nn.Module], dict[str, float]]
    sparsity_scale: float = 1.0  # weights of the budget over weights of the targets, see PruningConfig.budget_from
    dynamics: Dynamics | None = None
    adapters: Adapters | None = None  # of phases with train: perp
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    scratch: Callable[[], Mapping[str, Tensor]] = dict  # new random weights by name, for a phase that begins with them


def train(job: Job) -> Trained:
    """Runs the plan, from its beginning or from the newest checkpoint, and leaves the final weights in the model.

    Raises:
        RunError: a loss or gradient is not finite.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint was saved.
    """
    settings = job.settings
    job.model.to(job.accelerator.device)  # before anything is restored beside it
    job.sparsifier.load_state_dict(job.sparsifier.state_dict())  # masks from zeros follow their weights
    optimizer = make_optimizer(
        job.model, lr=settings.lr, weight_decay=settings.weight_decay, betas=settings.betas, eps=settings.eps
    )
    if job.dynamics is not None:
        job.dynamics.begin(job.model, job.sparsifier)
    if job.adapters is not None:
        job.adapters.begin(job.sparsifier, optimizer)
    start, rows, trained = _restore(job, optimizer)
    log = _Log(job.trackers(rows), rows, job.accelerator.scaler)
    if start:
        say(f"{job.title}: goes on at step {start} of {job.plan.steps}")
    if not trained.finished:
        _loop(job, optimizer, start, trained, log)
    if settings.keep == "best" and trained.best is not None:
        job.accelerator.wait_for_everyone()  # the main process has written it
        _load_best(job, int(trained.best["step"]))
    return trained


def _loop(job: Job, optimizer: torch.optim.Optimizer, start: int, trained: Trained, log: _Log) -> None:
    plan, settings, accelerator = job.plan, job.settings, job.accelerator
    model, prepared = accelerator.prepare(job.model, optimizer)
    order = BatchOrder(job.data.lengths, settings.batch_size, job.seed)
    saver = _Saver(job, optimizer, trained, log)
    with _stoppable() as stop, TrainingProgress(job.title, plan.steps, start) as progress:
        model.train()
        for step in range(start, plan.steps + 1):
            if step < plan.steps:  # what is due at the very end is part of what the last checkpoint holds
                stopping, saving = _agreed(accelerator, step, stop.asked, saver.due())
                if stopping or saving or (step > start and saver.due_at(step)):
                    saver.save(step)
                if stopping:
                    raise KeyboardInterrupt
            if step in plan.eval_at and step < plan.steps:
                _evaluate(job, step, trained, log, progress)
            _remember(job, step)
            if plan.is_update(step):
                _prune(job, step, optimizer, trained, log, stop)
            if step == plan.steps:
                break
            for beginning in plan.phases_starting(step):
                _begin(job, beginning, optimizer)
            phase = plan.phase(step)
            set_lr(optimizer, plan.lr(step))
            _seed(step_seed(job.seed, step, accelerator.process_index), accelerator.device)
            with memory_advice(_smaller_parts(settings, step, accelerator.num_processes)):
                row = _update(job, model, prepared, order(step), step)
            log.add(step, row | _position(plan, phase, step), examples=settings.batch_size)
            if progress.due():
                progress.update(step, log.last(), log.rate)
            if (step + 1) % settings.log_every == 0:
                log.flush()
        if plan.steps in plan.eval_at and settings.keep == "best":
            _evaluate(job, plan.steps, trained, log, progress)
        trained.finished = True
        saver.save(plan.steps)
        if stop.asked:
            raise KeyboardInterrupt


def _seed(seed: int, device: torch.device) -> None:
    """torch.manual_seed would also format a stack trace at every call, for GPUs that are not in use."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(seed)


def _agreed(accelerator: Accelerator, step: int, *flags: bool) -> list[bool]:
    """What any of the processes wants, known to all of them: one that stopped alone would leave the others waiting."""
    if accelerator.num_processes == 1:
        return list(flags)
    if step % 10:  # asking makes a GPU wait
        return [False] * len(flags)
    total = accelerator.reduce(torch.tensor(flags, dtype=torch.int32, device=accelerator.device), "sum")
    return [bool(flag) for flag in total.tolist()]


def _smaller_parts(settings: TrainerConfig, step: int, processes: int = 1) -> str:
    """What to do when an update needs too much memory."""
    size, parts = settings.batch_size, settings.accumulation
    at = f"at step {step}, where a batch of {size} is computed in {parts} part{'s' if parts > 1 else ''}"
    more = next((count for count in range(2 * parts, size + 1) if size % count == 0), None)
    if more is None or parts * processes >= size:
        return f"{at}: lower dataset.max_length, or choose a smaller model"
    return f"{at}: add trainer.accumulation={more}, which halves a part and keeps the batch, and the run goes on"


def _position(plan: Plan, phase: Phase, step: int) -> dict[str, Any]:
    return {
        "epoch": round(step / plan.steps_per_epoch, 4),
        "phase": phase.name,
        "lr": plan.lr(step),
        "sparsity": plan.sparsity(step),
    }


def _remember(job: Job, step: int) -> None:
    """Keeps the weights that a later phase begins with."""
    if step in job.plan.remembered.values() and job.accelerator.is_main_process:
        save_checkpoint(_rewind_folder(job), Checkpoint(step, {"model": model_tensors(job.model)}, {}))


def _rewind_folder(job: Job) -> Path:
    return job.state / "rewind"


def _begin(job: Job, phase: Phase, optimizer: torch.optim.Optimizer) -> None:
    """What happens at the start of a phase, after the pruning that is due there."""
    if phase.release:
        job.sparsifier.release()
    if phase.rewind == "scratch":
        load_model_tensors(job.model, job.scratch())
    elif phase.rewind is not None:
        job.accelerator.wait_for_everyone()  # the main process has written it
        kept = load_checkpoint_at(_rewind_folder(job), job.plan.remembered[phase.rewind])
        load_model_tensors(job.model, kept.tensors["model"])
    if phase.rewind is not None:
        job.sparsifier.apply()
    if phase.reset_optimizer:
        forget_moments(optimizer)
    if job.adapters is not None:
        if phase.train == "perp":
            job.adapters.start(phase.start)
        else:
            job.adapters.stop()


def _update(job: Job, model: nn.Module, optimizer: Any, indices: np.ndarray, step: int) -> dict[str, Tensor]:
    """One optimizer step on the examples `indices`.

    Returns losses as tensors that nothing waits for: means over this process's share of the batch.
    """
    accelerator, settings = job.accelerator, job.settings
    adapters, train = job.adapters, job.plan.phase(step).train
    acts = job.dynamics is not None and (job.dynamics.to_the_end or step < job.plan.last_pruning)
    dynamics = job.dynamics if acts else None
    if adapters is not None:
        adapters.before_pass()
    if dynamics is None:
        sums = _forward_and_backward(job, model, indices)
    else:
        at = _moment(job, step)
        for number in range(dynamics.passes):
            dynamics.before_pass(number, at)
            sums = _forward_and_backward(job, model, indices)
            dynamics.after_pass(number, at)
    if adapters is not None:
        adapters.take_gradients()
    if train != "all":
        freeze_others(job.model, learning_parameters(job.model, train))
    job.sparsifier.mask_gradients()
    beside = [part.parameters() for part in (dynamics, adapters) if part is not None]
    learned = [*model.parameters(), *chain.from_iterable(beside)]
    sums["grad_norm"] = accelerator.clip_grad_norm_(learned, settings.max_grad_norm or math.inf)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if adapters is not None:
        adapters.after_step()
    if dynamics is not None:
        dynamics.after_step(at)
    return sums


def _moment(job: Job, step: int) -> Moment:
    plan, scale = job.plan, job.sparsity_scale
    phase, target = plan.phase(step), plan.prunings[-1][1] if plan.prunings else 0.0
    lr = plan.lr(step)
    return Moment(
        step, plan.steps, plan.last_pruning, plan.sparsity(step) * scale, target * scale, lr, lr / phase.lr.peak
    )


def _forward_and_backward(job: Job, model: nn.Module, indices: np.ndarray) -> dict[str, Tensor]:
    """Adds the gradient of the batch's mean loss; returns this process's mean losses."""
    accelerator, settings = job.accelerator, job.settings
    mine = share_of(indices, accelerator.process_index, accelerator.num_processes)
    weight = accelerator.num_processes / len(indices)  # DDP averages over processes: this makes it the batch's mean
    if not len(mine):  # a short batch: take part in the exchange of gradients, add nothing to them
        mine, weight = indices[:1], 0.0
    parts = [part for part in np.array_split(mine, settings.accumulation) if len(part)]
    sums: dict[str, Tensor] = {}
    for number, part in enumerate(parts):
        with _sync(accelerator, model, last=number == len(parts) - 1):
            losses = _losses(job, model, part)
            accelerator.backward(losses["loss"] * (len(part) * weight))
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + loss.detach() * (len(part) / len(mine))
    return sums


def _sync(accelerator: Accelerator, model: nn.Module, last: bool) -> AbstractContextManager[Any]:
    return nullcontext() if last else accelerator.no_sync(model)


def _losses(job: Job, model: nn.Module, indices: np.ndarray) -> dict[str, Tensor]:
    """The loss and its terms: L = (1 - h) * task + h * distillation + w * hidden."""
    batch = {
        name: tensor.to(job.accelerator.device, non_blocking=True)
        for name, tensor in job.task.collate(job.data.batch(indices)).items()
    }
    distillation = job.distillation
    hidden = distillation.hidden if distillation is not None else None
    with job.accelerator.autocast():
        outputs = model(**job.task.inputs(batch), **({"output_hidden_states": True} if hidden is not None else {}))
    heads = job.task.heads(outputs, batch)
    task_loss = job.task.loss(heads, batch)
    if distillation is None:
        return {"loss": task_loss}
    losses = {"task_loss": task_loss}
    loss = _with_logits(job, distillation, indices, batch, heads, losses)
    if hidden is not None:
        states = hidden.states(batch)
        losses["hidden_loss"] = hidden_loss(layer_outputs(outputs), states, batch["attention_mask"], hidden.kind)
        loss = loss + hidden.weight * losses["hidden_loss"]
    return {"loss": loss, **losses}


def _with_logits(
    job: Job,
    distillation: Distillation,
    indices: np.ndarray,
    batch: Mapping[str, Tensor],
    heads: Heads,
    losses: dict[str, Tensor],
) -> Tensor:
    """(1 - h) * task + h * distillation, the latter of which is entered into `losses`."""
    hardness = distillation.hardness
    if distillation.teacher is None:
        return losses["task_loss"]
    teacher = distillation.teacher(indices, batch, heads)
    term = distillation_loss(heads, teacher, distillation.temperature, regression=job.task.problem == "regression")
    losses["distillation_loss"] = term
    # a hardness of one must not let a task loss that overflows in
    return hardness * term + (1 - hardness) * losses["task_loss"] if hardness < 1 else term


def _prune(job: Job, step: int, optimizer: Any, trained: Trained, log: _Log, stop: _Stop) -> None:
    log.flush()
    level = job.plan.sparsity(step) * job.sparsity_scale
    passed = step / job.plan.steps if job.plan.steps else 1.0
    calibration, unfinished = _calibration(job, step, stop), None
    if calibration is not None and job.accelerator.num_processes == 1:
        unfinished = UnfinishedPruning(job.state / "pruning", step)
    update = job.sparsifier.update(level, calibration, passed, unfinished)
    if job.dynamics is not None:
        job.dynamics.after_pruning()
    _agree_on_weights(job)
    job.sparsifier.zero_moments(optimizer)
    if job.adapters is not None and job.adapters.before:
        job.adapters.start(step)  # on what the pruning has left
    for name in update.collapsed:
        if not any(name in warning for warning in trained.warnings):
            warning = f"{name} is all but emptied since step {step} ({100 * update.density[name]:.2f} % left)"
            warn(f"{warning}; consider pruning/scope=uniform or pruning.scope.floor=0.01")
            trained.warnings.append(warning)
    layers = {name: round(1 - density, 6) for name, density in update.density.items()}
    pruning = {"sparsity": update.achieved, "churn": update.churn, "layers": layers}
    log.event(step, {"pruning": pruning})


def _calibration(job: Job, step: int, stop: _Stop) -> Calibration | None:
    sample, regrows = job.sparsifier.sample, job.sparsifier.axes.regrowth is not None
    if sample is None and not regrows:
        return None
    sample = sample or Sample(job.settings.batch_size, job.settings.batch_size)
    return make_calibration(
        job.accelerator.unwrap_model(job.model), job.task, job.data, job.accelerator, job.calibration, sample,
        seed=job.seed, step=step, on_batch=lambda: _give_up(job, stop),
    )  # fmt: skip


def _give_up(job: Job, stop: _Stop) -> None:
    """Looking at data can take long: a run that is to stop does not wait, and goes on from its checkpoint."""
    if stop.asked and job.accelerator.num_processes == 1:
        raise KeyboardInterrupt


def _agree_on_weights(job: Job) -> None:
    """All processes looked at the same examples, but may round differently: the main one's choice counts."""
    sparsifier = job.sparsifier
    if job.accelerator.num_processes == 1 or (sparsifier.sample is None and sparsifier.axes.regrowth is None):
        return
    for target in sparsifier.targets:
        broadcast(target.weight.data)
        mask = sparsifier.masks[target.name].to(torch.uint8)
        sparsifier.masks[target.name] = broadcast(mask).bool()


def _evaluate(job: Job, step: int, trained: Trained, log: _Log, progress: TrainingProgress) -> None:
    log.flush()
    try:
        metrics = job.evaluate(job.model)
    except RunError as error:
        raise RunError(f"after {step} steps: {error}") from error
    log.event(step, {"eval": metrics})
    value = metrics[job.task.metric]
    progress.note(f"step {step}: {job.task.metric} {value:.4f} at sparsity {100 * job.plan.sparsity(step - 1):.1f} %")
    if job.settings.keep == "best" and _at_final_sparsity(job.plan, step) and _better(job, value, trained.best):
        trained.best = {"step": step, "value": value}
        if job.accelerator.is_main_process:
            tensors = {"model": model_tensors(job.model), "masks": job.sparsifier.state_dict()}
            save_checkpoint(_best_folder(job), Checkpoint(step, tensors, {}))


def _best_folder(job: Job) -> Path:
    return job.state / "best"


def _at_final_sparsity(plan: Plan, step: int) -> bool:
    """Whether the weights after `step` updates already have the final mask."""
    return step > plan.last_pruning or step == plan.steps


def _better(job: Job, value: float, best: Mapping[str, Any] | None) -> bool:
    sign = 1 if job.task.higher_is_better else -1
    return best is None or sign * value > sign * float(best["value"])


def _load_best(job: Job, step: int) -> None:
    best = load_checkpoint_at(_best_folder(job), step)
    load_model_tensors(job.model, best.tensors["model"])
    job.sparsifier.load_state_dict(dict(best.tensors["masks"]))  # they may have moved since


def _restore(job: Job, optimizer: torch.optim.Optimizer) -> tuple[int, int, Trained]:
    """The step to go on from, the number of rows that had been logged there, and what training had left."""
    checkpoint, damaged, lines = load_checkpoint(job.state)
    for line in lines:
        warn(line)
    job.accelerator.wait_for_everyone()  # all have seen the damaged ones
    if job.accelerator.is_main_process:
        for folder in damaged:  # a damaged one with a high step would outlive good ones
            remove(folder)
    if checkpoint is None:
        return 0, 0, Trained()
    load_model_tensors(job.model, checkpoint.tensors["model"])
    load_moments(optimizer, job.model.named_parameters(), checkpoint.tensors["optimizer"])
    job.sparsifier.load_state_dict(dict(checkpoint.tensors["masks"]))
    if job.dynamics is not None:
        job.dynamics.load_state_dict(checkpoint.tensors["dynamics"])
    if job.adapters is not None:
        job.adapters.load_state_dict(checkpoint.tensors["adapters"])
    if job.accelerator.scaler is not None:  # fp16
        job.accelerator.scaler.load_state_dict(checkpoint.extra["scaler"])
    return checkpoint.step, checkpoint.extra["rows"], Trained(**checkpoint.extra["trained"])


class _Saver:
    """Saves by the clock and, if asked, every so many steps."""

    def __init__(self, job: Job, optimizer: torch.optim.Optimizer, trained: Trained, log: _Log) -> None:
        self._job, self._optimizer, self._trained, self._log = job, optimizer, trained, log
        self._begun, self._saved = time.monotonic(), time.monotonic()
        self._seconds, self._cost = trained.seconds, 0.0
        self._best = deque([self._best_step()], maxlen=KEPT)

    def due(self) -> bool:
        """By the clock of the process that saves. However slow the disk, that takes at most a fiftieth of the time."""
        if not self._job.accelerator.is_main_process:
            return False
        wait = max(60 * self._job.settings.checkpoint_minutes, 50 * self._cost)
        return time.monotonic() - self._saved > wait

    def due_at(self, step: int) -> bool:
        every = self._job.settings.checkpoint_steps
        return bool(every and step and step % every == 0)

    def save(self, step: int) -> None:
        self._log.flush()
        began = time.monotonic()
        job, trained = self._job, self._trained
        trained.seconds = self._seconds + began - self._begun
        tensors = {
            "model": model_tensors(job.model),
            "optimizer": moments(self._optimizer, job.model.named_parameters()),
            "masks": job.sparsifier.state_dict(),
        }
        if job.dynamics is not None:
            tensors["dynamics"] = job.dynamics.state_dict()
        if job.adapters is not None:
            tensors["adapters"] = job.adapters.state_dict()
        if job.accelerator.is_main_process:
            scaler = job.accelerator.scaler
            extra = {
                "trained": vars(trained),
                "rows": self._log.rows,
                "scaler": scaler.state_dict() if scaler is not None else None,
            }
            save_checkpoint(job.state, Checkpoint(step, tensors, extra))
            self._remove_old()
        self._saved = time.monotonic()
        self._cost = self._saved - began

    def _remove_old(self) -> None:
        """What no checkpoint that is kept needs any more."""
        keep_newest(self._job.state)
        self._best.append(self._best_step())
        keep_only(_best_folder(self._job), {step for step in self._best if step is not None})

    def _best_step(self) -> int | None:
        return int(self._trained.best["step"]) if self._trained.best else None


class _Log:
    """One row a step. Losses stay tensors until a flush, so that a GPU is not made to wait at every step."""

    def __init__(self, trackers: list[Tracker], rows: int, scaler: Any) -> None:
        """`rows` were logged before. `scaler`: of the loss in fp16, else None."""
        self._trackers, self.rows, self._scaler = trackers, rows, scaler
        self._pending: list[tuple[int, dict[str, Any]]] = []
        self._clock, self._examples = time.monotonic(), 0
        self.rate = 0.0

    def add(self, step: int, row: dict[str, Any], examples: int) -> None:
        self._pending.append((step, row))
        self._examples += examples

    def last(self) -> dict[str, Any]:
        return _numbers(self._pending[-1][1]) if self._pending else {}

    def flush(self) -> None:
        """Writes what has gathered.

        Raises:
            RunError: a loss or gradient norm among it is NaN or infinite.
        """
        if self._scaler is not None and self._pending and self._scaler.get_scale() < 1:
            raise RunError(
                f"the gradients overflow fp16 up to step {self._pending[-1][0]}, whatever the loss is scaled by: "
                "the last good checkpoint is kept; lower trainer.lr, or set trainer.precision=bf16 or fp32"
            )
        now = time.monotonic()
        if self._pending and now > self._clock:
            self.rate = self._examples / (now - self._clock)
        for step, row in self._pending:
            numbers = _numbers(row)
            _refuse_not_finite(step, numbers, self._scaler is not None)
            self._write(step, numbers | {"examples_per_second": round(self.rate, 2)})
        self._pending, self._examples, self._clock = [], 0, now

    def event(self, step: int, row: dict[str, Any]) -> None:
        """A pruning or an evaluation: after the rows before it, and without its own time in the rate."""
        self._write(step, row)
        self._clock = time.monotonic()

    def _write(self, step: int, row: dict[str, Any]) -> None:
        self.rows += 1
        for tracker in self._trackers:
            tracker.log(step, row)


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.item() if isinstance(value, Tensor) else value for name, value in row.items()}


def _refuse_not_finite(step: int, row: dict[str, Any], scaled: bool) -> None:
    """Refuses NaN and infinity; but with a scaled loss (fp16) a gradient may overflow: that step was skipped."""
    if scaled and not math.isfinite(row["grad_norm"]):
        row["grad_norm"] = None
    for name, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise RunError(
                f"{name} is {value} at step {step}: the last good checkpoint is kept; "
                "lower trainer.lr, or set trainer.precision=fp32"
            )


class _Stop:
    asked = False
    since = 0.0


@contextmanager
def _stoppable() -> Iterator[_Stop]:
    """Ctrl-C, SIGTERM and SIGHUP ask the loop to save and stop after the update it is in.

    A second Ctrl-C stops at once; not a second signal of any kind: launchers and batch systems send theirs twice.
    """
    stop = _Stop()

    def ask(number: int, _: Any) -> None:
        if stop.asked and number == signal.SIGINT and time.monotonic() > stop.since + 0.5:
            raise KeyboardInterrupt
        if not stop.asked:
            stop.asked, stop.since = True, time.monotonic()

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, *ending_signals())}
    except ValueError:  # not the main thread: whoever started the thread handles signals
        before = {}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
