from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from prunebench.compose import load_config
from prunebench.config import PhaseConfig, PruningConfig, RunConfig, ScheduleConfig, TrainerConfig
from prunebench.errors import UsageError
from prunebench.paths import conf_dir
from prunebench.plan import make_plan, schedule_problems

LEVELS = Path(__file__).parents[1] / "docs" / "multiple_choice.md"
UNIT = TrainerConfig(epochs=2, lr=1e-4, final_lr=1e-5, batch_size=10)


def schedule(name: str) -> ScheduleConfig:
    """As conf/pruning/schedule/<name>.yaml has it."""
    settings = yaml.safe_load((Path(conf_dir()) / "pruning" / "schedule" / f"{name}.yaml").read_text())
    phases = [PhaseConfig(**phase) for phase in settings.pop("phases")]
    return ScheduleConfig(phases=phases, **settings)


def plan_of(name: str, sparsity: float = 0.9, start: str = "teacher", examples: int = 1000, **trainer: object):
    unit = TrainerConfig(**(vars(UNIT) | trainer))
    config = RunConfig(sparsity=sparsity, start=start, trainer=unit, pruning=PruningConfig(schedule=schedule(name)))
    return make_plan(config, examples)


def test_guidelines_take_a_unit_for_every_halving_and_one_to_recover() -> None:
    plan = plan_of("guidelines")
    assert plan.steps_per_epoch == 100
    assert [(phase.name, phase.start, phase.stop) for phase in plan.phases] == [
        ("prune", 0, 200),
        ("prune", 200, 400),
        ("prune", 400, 600),
        ("prune", 600, 800),
        ("recover", 800, 1000),
    ]
    assert plan.prunings[0][0] == 0
    assert plan.prunings[-1] == (800, 0.9)
    assert len(plan.prunings) == 81  # ten an epoch over eight epochs, both ends included
    assert plan.sparsity(799) < 0.9 == plan.sparsity(800)


def test_guidelines_from_the_pretrained_model_begin_with_the_dense_unit() -> None:
    plan = plan_of("guidelines", start="pretrained")
    assert plan.phases[0].name == "dense"
    assert plan.prunings[0][0] == 200
    assert plan.sparsity(199) == 0
    assert plan.epochs == 12


@pytest.mark.parametrize(("sparsity", "epochs"), [(0.5, 4), (0.7, 6), (0.8, 8), (0.9, 10), (0.95, 12), (0.97, 14)])
def test_length_follows_the_target(sparsity: float, epochs: float) -> None:
    assert plan_of("guidelines", sparsity).epochs == epochs


def test_the_learning_rate_is_rewound_at_every_unit() -> None:
    plan = plan_of("guidelines")
    for start in (0, 200, 400, 600, 800):
        assert plan.lr(start) == 1e-4
        assert plan.lr(start + 100) == pytest.approx(5.5e-5)
        assert plan.lr(start + 199) == pytest.approx(1e-5, rel=0.05)


def test_the_peak_may_change_from_unit_to_unit() -> None:
    rewinds = schedule("guidelines")
    rewinds.peak_decay = 0.5
    plan = make_plan(
        RunConfig(sparsity=0.9, start="teacher", trainer=UNIT, pruning=PruningConfig(schedule=rewinds)), 1000
    )
    assert [plan.lr(start) for start in (0, 200, 400)] == pytest.approx([1e-4, 5e-5, 2.5e-5])


def test_oberts_30_epochs_prune_where_the_learning_rate_restarts() -> None:
    plan = plan_of("obert_30", start="pretrained")
    assert plan.epochs == 30
    assert [step / 100 for step, _ in plan.prunings] == [2, 6, 10, 14, 18, 22, 26]
    assert [round(100 * level, 1) for _, level in plan.prunings] == [70.0, 78.4, 84.1, 87.5, 89.3, 89.9, 90.0]
    for step, _ in plan.prunings:
        assert plan.lr(step) == 8e-5
        assert plan.lr(step - 1) < 1e-5


def test_oberts_10_epochs_rewind_once_when_pruning_is_over() -> None:
    plan = plan_of("obert_10", start="pretrained")
    assert plan.epochs == 10
    assert [step / 100 for step, _ in plan.prunings] == [2 + i / 2 for i in range(13)]
    assert plan.prunings[0][1] == pytest.approx(0.7)
    assert plan.lr(0) == plan.lr(800) == 8e-5
    assert plan.lr(400) == pytest.approx((8e-5 + 3e-5) / 2)  # no rewind where pruning begins


def test_gmp_star_prunes_ten_times_an_epoch_between_epochs_2_and_8() -> None:
    plan = plan_of("gmp_star_10", start="pretrained")
    assert plan.epochs == 10
    assert [step for step, _ in plan.prunings] == list(range(200, 801, 10))
    assert [plan.lr(step) for step in (0, 200, 400, 600, 800)] == [1e-4] * 5
    assert plan_of("gmp_star_30", start="pretrained").last_pruning == 2800


def test_smc_bench_prunes_every_500_steps_and_once_more_at_80_percent() -> None:
    # facts/smc.md 4.3: on CommonsenseQA (3000 steps) the original prunes at 500, 1000, 1500 and 2000
    plan = plan_of("smc_bench_gmp", start="pretrained", examples=15000)
    assert plan.steps == 3000
    assert [step for step, _ in plan.prunings] == [500, 1000, 1500, 2000, 2400]
    assert plan.prunings[3][1] == pytest.approx(0.993 * 0.9, abs=1e-3)
    assert plan.prunings[4] == (2400, 0.9)


@pytest.mark.parametrize("k", range(1, 11))
def test_smc_bench_levels_are_a_lottery_tickets_rounds(k: int) -> None:
    """facts/smc.md 4.3: 1 - 0.8^k; every round prunes a fifth of what is left, and is a unit of training."""
    levels = re.search(r"smc_csqa_lottery_ticket sparsity=(\S+)", LEVELS.read_text(encoding="utf-8"))
    assert levels is not None
    sparsity = levels[1].split(",")[k - 1]
    plan = make_plan(load_config(["recipe=smc_csqa_lottery_ticket", f"sparsity={sparsity}"]), 9741)
    assert plan.steps == (k + 1) * 3000
    assert [level for _, level in plan.prunings] == pytest.approx([1 - 0.8**j for j in range(1, k + 1)])


@pytest.mark.parametrize(
    ("dataset", "examples", "steps", "warmup"),
    [("commonsense_qa", 9741, 3000, 150), ("winogrande", 40398, 23750, 2375), ("winogrande_span", 40398, 23750, 2375),
     ("race_middle", 25421, 4767, 500), ("race_high", 62445, 11709, 500)],
)  # fmt: skip
def test_smc_benchs_dense_recipes(dataset: str, examples: int, steps: int, warmup: int) -> None:
    """facts/smc.md 4.2: steps, warm-up, peak and Adam's settings of its table 3."""
    config = load_config(["recipe=dense", f"dataset={dataset}", "model=roberta_large"])
    plan = make_plan(config, examples)
    assert (plan.steps, plan.phases[0].lr.warmup, plan.phases[0].lr.peak) == (steps, warmup, 1e-5)
    trainer = config.trainer
    assert (trainer.betas, trainer.eps, trainer.weight_decay, trainer.max_grad_norm) == ([0.9, 0.98], 1e-6, 0.01, 0.0)


def test_one_shot_prunes_before_the_first_step_and_keeps_its_mask() -> None:
    plan = plan_of("one_shot")
    assert plan.prunings == ((0, 0.9),)
    assert plan.steps == 200
    assert plan.lr(0) == 1e-4


def test_one_shot_without_training_has_no_steps() -> None:
    plan = plan_of("one_shot_only")
    assert (plan.steps, plan.prunings, plan.eval_at) == (0, ((0, 0.9),), (0,))


def test_dense_is_one_unit() -> None:
    plan = plan_of("dense", sparsity=0.0, start="pretrained")
    assert (plan.steps, plan.prunings) == (200, ())


def test_max_steps_squeezes_every_phase() -> None:
    plan = plan_of("guidelines", max_steps=20)
    assert plan.steps == 20
    assert [phase.stop for phase in plan.phases] == [4, 8, 12, 16, 20]
    assert plan.prunings[-1] == (16, 0.9)
    assert len({step for step, _ in plan.prunings}) == len(plan.prunings) == 17


def test_max_steps_never_stretches() -> None:
    assert plan_of("guidelines", max_steps=10**9).steps == 1000


def test_evaluations_are_at_the_end_of_phases_or_as_often_as_asked() -> None:
    assert plan_of("guidelines").eval_at == (200, 400, 600, 800, 1000)
    assert plan_of("guidelines", eval_every=4).eval_at == (400, 800, 1000)


def test_more_prunings_than_steps_are_refused() -> None:
    with pytest.raises(UsageError, match="an epoch has only 4 steps"):
        plan_of("guidelines", examples=40)


def test_contradictions_are_known_without_data() -> None:
    def problems(sparsity: float, settings: ScheduleConfig) -> str:
        return " ".join(schedule_problems(RunConfig(sparsity=sparsity, pruning=PruningConfig(schedule=settings))))

    assert "never prunes" in problems(0.5, schedule("dense"))
    assert "nothing to prune" in problems(0.0, schedule("guidelines"))
    both = schedule("guidelines")
    both.initial_sparsity, both.prune_every = 0.5, 100
    assert problems(0.9, both).count("exclude each other") == 2
    assert problems(0.9, schedule("guidelines")) == ""


def test_a_phase_without_steps_does_not_end_a_learning_rate_cycle() -> None:
    phases = [
        PhaseConfig(name="dense"),
        PhaseConfig(name="prune", epochs=0, prune=True),
        PhaseConfig(name="recover", restart_lr=False),
    ]
    settings = RunConfig(sparsity=0.5, trainer=UNIT, pruning=PruningConfig(schedule=ScheduleConfig(phases=phases)))
    plan = make_plan(settings, 1000)
    rates = [plan.lr(step) for step in range(plan.steps)]
    assert rates == sorted(rates, reverse=True) and rates[-1] > 0
    assert plan.prunings == ((200, 0.5),)


def test_best_has_something_to_choose_among() -> None:
    assert plan_of("guidelines", keep="best").eval_at == tuple(range(100, 1001, 100))
