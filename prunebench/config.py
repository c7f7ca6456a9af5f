"""Every setting of prunebench: its type, its default and what it means. YAML in conf/ holds only what differs.

The dataclasses are Hydra's structured configs, so a wrong key or type is refused while composing. They are not frozen
(Hydra merges into them); `prunebench.plan` freezes what a run does. Ranges and contradictions: `prunebench.validate`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

LONGEST_TAG = 64  # characters, of wandb


@dataclass
class ModelConfig:
    """Which pretrained encoder (or decoder) to start from."""

    name: str = MISSING  # hub name or folder
    revision: str | None = None  # branch, tag or commit of a hub name
    tokenizer: str | None = None  # hub name or folder; default: the model's own
    config: dict[str, Any] = field(default_factory=dict)  # what is known of the HF config, for `plan`
    from_config: bool = False  # build from `config` with random weights: no hub, no folder


@dataclass
class DatasetConfig:
    """A dataset by hub name or local files, and how its task family reads it."""

    name: str = MISSING
    task: str = MISSING  # a module of prunebench.tasks: classification, language_modelling, multiple_choice, ...
    hub: str | None = None
    hub_config: str | None = None
    revision: str | None = None
    train_file: str | None = None  # csv, tsv, json, jsonl, parquet or txt, also .gz; instead of `hub`
    validation_file: str | None = None
    train_split: str = "train"
    validation_splits: list[str] = field(default_factory=lambda: ["validation"])
    header: bool = True  # false: the first line of a csv or tsv is data, and columns go by number: "0", "1", ...
    text_columns: list[str] = field(default_factory=list)  # one or two; empty: found by their usual names
    label_column: str = "label"  # sequence to sequence: of the targets
    labels: list[str] | None = None  # label names in the order of their ids; default: read from the data
    regression: bool = False
    metrics: list[str] = field(default_factory=list)
    metric: str = ""  # the primary one, with which dense and sparse are compared
    max_length: int = 128  # tokens
    doc_stride: int = 128  # tokens that neighbouring windows share (question answering)
    max_answer_length: int = 30  # tokens (question answering)
    n_best: int = 20  # start and end positions tried for an answer (question answering)
    objective: str = "auto"  # of language modelling: causal, masked, or auto: what the model was made for
    stride: int | None = None  # tokens by which windows advance when a causal model is scored; default: half a window
    max_target_length: int = 64  # tokens of a target, learned and generated (sequence to sequence)
    prefix: str = ""  # before every source (sequence to sequence): T5's "translate English to German: "
    separator: str | None = "\n"  # between rows of text (language modelling); null: the tokenizer's end of a text
    choices: int | None = None  # of a question (multiple choice); default: as many as the first row has
    margin_alpha: float = 5.0  # loss = -q + alpha * max(0, c - q + beta) (span scoring)
    margin_beta: float = 0.4
    limit: int | None = None  # a fixed random subset of so many training examples
    validation_limit: int | None = None  # the same for every validation split
    holdout: int | None = None  # validate on so many training examples, taken out of training
    examples: dict[str, int] = field(default_factory=dict)  # published number of examples by split, for `plan`
    windows: dict[str, int] = field(default_factory=dict)  # question answering: measured number of windows by split
    params: dict[str, Any] = field(default_factory=dict)  # of a synthetic task


@dataclass
class CriterionConfig:
    """How much a weight matters: a function of prunebench.sparsity.criteria and its own settings."""

    name: str = "magnitude"
    params: dict[str, Any] = field(default_factory=dict)


@dataclass
class ScopeConfig:
    """How the budget of weights is shared among the matrices: a class of prunebench.sparsity.scopes."""

    name: str = "global"
    floor: float = 0.0  # smallest share of weights every matrix keeps
    params: dict[str, Any] = field(default_factory=dict)


@dataclass
class PatternConfig:
    """Which weights live and die together: unstructured, block (m neighbouring inputs), n_m (n kept of every m)."""

    name: str = "unstructured"
    n: int | None = None
    m: int | None = None


@dataclass
class AxisConfig:
    """The name of a class on one of the further axes, and its own settings; none: nothing happens there."""

    name: str = "none"
    params: dict[str, Any] = field(default_factory=dict)


@dataclass
class AdaptersConfig:
    """Low-rank adapters of pruned matrices, which learn instead of them in phases with train: perp, and are merged."""

    kind: str = "mask"  # mask, scale or prune, see prunebench.retraining
    rank: int = 16
    alpha: float = 32.0  # the adapters' product counts alpha / rank times


@dataclass
class CalibrationConfig:
    """Training examples that a pruning looks at, chosen by the seed. Null: what the method itself suggests."""

    examples: int | None = None
    batch_size: int | None = None  # a gradient is that of so many examples


@dataclass
class PhaseConfig:
    """A stretch of training. Its length is `epochs`, or `units` of the dense recipe (trainer.epochs)."""

    name: str = "train"
    epochs: float | None = None
    units: float = 1.0
    repeat: int = 1
    scaled: bool = False  # repeat n(s) times, see ScheduleConfig.units_per_halving
    prune: bool = False  # inside the pruning window
    hold: bool = False  # prunings are at the target already: nothing more goes, but masks may still change (regrowth)
    restart_lr: bool = True  # start a new learning-rate cycle (a rewind); false: go on with the previous one
    reset_optimizer: bool = False  # forget the optimizer's moments at the start
    release: bool = False  # begin dense again: pruned weights take part once more, from zero (AC/DC)
    # begin with other weights and the mask kept: "start" (those the run began with), "scratch" (new random ones), or
    # the name of an earlier phase (those at its end)
    rewind: str | None = None
    train: str = "all"  # what learns: all, head (with the pooler), or perp (also biases, norms and pruning.adapters)
    only_from: str | None = None  # "pretrained": only when the run starts there (its weights are not fine-tuned yet)


@dataclass
class ScheduleConfig:
    """Phases, and how sparsity rises over the window from the first to the last phase that prunes.

    The first pruning is at the start of the window, the last at its end, where the target is reached.
    """

    name: str = "dense"
    phases: list[PhaseConfig] = field(default_factory=lambda: [PhaseConfig()])
    units_per_halving: float = 1.0  # c in n(s) = max(1, ceil(c * log2(1 / (1 - s))))
    initial_sparsity: float | None = None  # of the first pruning, cut at the target
    initial_fraction: float | None = None  # the same as a share of the target; at most one of the two
    curve: str = "cubic"  # cubic, linear or geometric
    # at most one of these two; neither: at the start of every pruning phase and at the end of the last
    prunings_per_epoch: float | None = None
    prune_every: int | None = None  # at multiples of so many steps
    lr: float | None = None  # instead of trainer.lr and trainer.final_lr
    final_lr: float | None = None
    peak_decay: float = 1.0  # each restart begins at this times the peak before


@dataclass
class PruningConfig:
    """Guideline 1: what is pruned, and by which criterion, scope, pattern and schedule."""

    components: list[str] = field(default_factory=lambda: ["encoder"])  # encoder, pooler, embeddings, head; or all
    budget_from: list[str] | None = None  # take as many weights as `sparsity` of these components, from `components`
    criterion: CriterionConfig = field(default_factory=CriterionConfig)
    scope: ScopeConfig = field(default_factory=ScopeConfig)
    pattern: PatternConfig = field(default_factory=PatternConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    # what improves a mask without changing its size: prunebench.sparsity.refinements
    refinement: AxisConfig = field(default_factory=AxisConfig)
    # what changes the weights that stay to make up for the pruned ones: prunebench.sparsity.updates
    update: AxisConfig = field(default_factory=AxisConfig)
    # what exchanges weights after each pruning: prunebench.sparsity.regrowth
    regrowth: AxisConfig = field(default_factory=AxisConfig)
    # what training steps do besides gradient descent: prunebench.sparsity.dynamics
    dynamics: AxisConfig = field(default_factory=AxisConfig)
    adapters: AdaptersConfig = field(default_factory=AdaptersConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    keep_zeros: bool = False  # weights that are zero at the start stay so: transfer of a sparse model (fixed masks)
    dropout: float | None = None  # of the run that prunes, instead of trainer.dropout, which its dense run keeps


@dataclass
class DistillationConfig:
    """Guideline 3: L = (1 - hardness) * task + hardness * temperature^2 * KL(teacher || student) + hidden terms."""

    teacher: str = "auto"  # auto: the dense model of the same seed; none; a folder or hub name
    hardness: float = 0.0  # 0: no distillation; 1: labels are never used
    temperature: float | str = 1.0  # or "auto": from the teacher's own confidence
    hidden: str = "none"  # also the output of every layer: squarehead (relative squared error) or mse
    hidden_weight: float = 1.0
    cache_gb: float = 4.0  # keep the teacher's logits on disk up to this size, else compute them online


@dataclass
class TrainerConfig:
    """The dense recipe, which is the unit of every schedule, and how it is computed."""

    epochs: float = 3.0
    lr: float = 5e-5
    final_lr: float = 0.0
    warmup: float = 0.0  # share of a learning-rate cycle
    batch_size: int = 32  # examples in an optimizer step, over all devices and accumulation
    accumulation: int = 1  # parts a batch is computed in; the result is the same but for rounding and dropout
    eval_batch_size: int = 128
    weight_decay: float = 0.0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    max_grad_norm: float = 1.0  # 0: no clipping
    precision: str = "auto"  # fp32, bf16, fp16; auto: bf16 on GPUs that have it, else fp32
    dropout: float | None = None  # instead of the model's own
    eval_every: float | None = None  # epochs; default: at the end of every phase (keep=best: of every epoch)
    keep: str = "last"  # which weights are exported: last, or best among evaluations at the final sparsity
    max_steps: int | None = None  # stop every schedule's clock here, for smoke runs
    log_every: int = 10  # steps
    checkpoint_minutes: float = 5.0
    checkpoint_steps: int | None = None
    device: str = "auto"  # auto, cpu, cuda, mps
    threads: int | None = None  # of the CPU; default: torch's choice. Small models are fastest with one


@dataclass
class TrackerConfig:
    """Where metrics go besides metrics.jsonl, which is always written."""

    name: str = "local"  # local or wandb
    project: str = "prunebench"
    entity: str | None = None
    group: str | None = None  # default: the runs that differ in nothing but the seed
    tags: list[str] = field(default_factory=list)  # besides recipe, dataset, model, sparsity, criterion, sweep


@dataclass
class LauncherConfig:
    """What computes the members of a sweep (`run -m`). No part of a run: it changes no result."""

    name: str = "local"  # local (one after another), joblib, submitit_local, slurm, ray
    n_jobs: int | None = None  # members at a time; default: joblib one a GPU, clusters all that they have room for
    params: dict[str, Any] = field(default_factory=dict)  # submitit's parameters, or arguments of ray.init


@dataclass
class SearchConfig:
    """How a sweep chooses its members. No part of a run."""

    name: str = "none"  # none: every combination of the values; optuna
    runs: int = 20  # the budget
    seed: int = 1  # of the sampler
    params: dict[str, str] = field(default_factory=dict)  # setting -> its values, as a command line has them


@dataclass
class RunConfig:
    """One run, completely."""

    name: str = "${recipe}"  # folder below `outputs`
    recipe: str = "custom"  # filled in from the choice on the command line
    sparsity: float = 0.0  # share of zeros among the prunable weights at the end
    seed: int = 1
    start: str = "pretrained"  # teacher, pretrained, or the folder of a fine-tuned model
    outputs: str = "outputs"
    model: ModelConfig = field(default_factory=ModelConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    pruning: PruningConfig = field(default_factory=PruningConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
