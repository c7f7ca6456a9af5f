"""What `prunebench plan` prints for people: header, phases, curves, components. 80 columns are enough."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from prunebench.config import PruningConfig
from prunebench.digest import prunes
from prunebench.drawing import Axis, plot
from prunebench.paths import free_bytes
from prunebench.preview import (
    PhaseRow,
    Preview,
    component_rows,
    disk_bytes,
    final_sparsity,
    model_weights,
    phase_rows,
    prunings_known,
)
from prunebench.report import size
from prunebench.views import rows_of

SIDE_BY_SIDE = 100  # columns from which on the two plots stand beside each other


def can_show(console: Console) -> bool:
    """Whether the terminal takes more than ASCII."""
    return "utf" in console.encoding.lower()


def plan_view(shown: Preview, console: Console) -> RenderableType:
    """Header, phases, the two curves and the components."""
    pretty = can_show(console)
    parts: list[RenderableType] = [Text(_title(shown), style="bold"), _indented(_summary(shown)), Text()]
    parts += [_phases(shown, pretty), Text(), _curves(shown, console.width, pretty), Text()]
    parts += [_components(shown)]
    return Group(*parts)


def _indented(table: Table) -> Table:
    table.pad_edge = True
    table.padding = (0, 2, 0, 2)
    return table


def _title(shown: Preview) -> str:
    config = shown.config
    what = "its zeros kept" if config.pruning.keep_zeros else "dense"
    what = f"{percent(config.sparsity)} pruned" if prunes(config) else what
    return f"{config.name}: {config.model.name} on {config.dataset.name}, {what}, seed {config.seed}"


# --- the header ---------------------------------------------------------------------------------------------------


def _summary(shown: Preview) -> Table:
    lines = [("start", _start(shown)), ("training data", _data(shown)), ("training", _training(shown))]
    if shown.dense_epochs:
        lines.append(("", f"+ the dense model first, unless it is there: {number(shown.dense_epochs)} epochs"))
    lines += [("method", text) for text in [_method(shown.config.pruning, prunes(shown.config))] if text]
    lines += [("sparsity", line) for line in _sparsity(shown)[:1]] + [("", line) for line in _sparsity(shown)[1:]]
    lines += [("disk", line) for line in _disk(shown)[:1]] + [("", line) for line in _disk(shown)[1:]]
    lines += [("note", note) for note in shown.notes]
    table = Table.grid()
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in lines:
        table.add_row(label, value)
    return table


def _start(shown: Preview) -> str:
    start, seed = shown.config.start, shown.config.seed
    words = {"teacher": f"the dense model of seed {seed}", "pretrained": "the pretrained weights"}
    if shown.config.model.from_config and start == "pretrained":
        return "random weights"
    return words.get(start, f"{start}, the dense model of this run")


def _data(shown: Preview) -> str:
    data = shown.data
    return f"{data.count:,} {data.unit}" if data.count is not None else f"number of {data.unit} unknown {data.why}"


def _training(shown: Preview) -> str:
    plan, unit = shown.plan, shown.config.trainer.epochs
    prunings = prunings_known(shown)
    steps = f"{plan.steps:,} steps" if shown.counted else "steps unknown"
    ratio = f", {number(plan.epochs / unit)} x dense fine-tuning" if prunes(shown.config) else ""
    times = ", number of prunings unknown" if prunings is None else f", {prunings} pruning{'s' * (prunings != 1)}"
    return f"{number(plan.epochs)} epochs ({steps}){ratio}{times if prunes(shown.config) else ''}"


def _method(pruning: PruningConfig, prunes: bool) -> str:
    """The choices on all axes that have a say, and what learns where that is not everything."""
    pattern = f"{pruning.pattern.n}:{pruning.pattern.m}" if pruning.pattern.name == "n_m" else pruning.pattern.name
    chosen = [pruning.criterion.name, f"scope {pruning.scope.name}", pattern] if prunes else []
    for axis in ("refinement", "update", "regrowth", "dynamics") if prunes else ():
        name = getattr(pruning, axis).name
        chosen += [f"{axis} {name}"] if name != "none" else []
    learning = {phase.train for phase in pruning.schedule.phases}
    if "perp" in learning:
        chosen.append(
            f"adapters of rank {pruning.adapters.rank} ({pruning.adapters.kind}) learn beside biases and norms"
        )
    if learning == {"head"}:
        chosen.append("the head alone learns")
    return ", ".join(chosen)


def _sparsity(shown: Preview) -> list[str]:
    config, final = shown.config, final_sparsity(shown)
    if not prunes(config):
        return ["that of the model it starts from" if config.pruning.keep_zeros else "none"]
    of = " + ".join(config.pruning.components) if config.pruning.components != ["all"] else "all matrices"
    first = "unknown" if final["prunable"] is None else percent(final["prunable"])
    if final["model"] is None:
        return [f"{first} of {of} (the share of the whole model is unknown)"]
    return [f"{first} of {of}, {percent(final['model'])} of the whole model"]


def _disk(shown: Preview) -> list[str]:
    parts = disk_bytes(shown)
    if parts is None:
        return ["unknown before the model is read"]
    after = sum(value for name, value in parts.items() if name != "checkpoints")
    running = after + parts["checkpoints"]
    what = ", ".join(f"{name} {size(value)}" for name, value in parts.items() if value)
    free = free_bytes(shown.config.outputs)
    enough = f"{size(free)} free" if free > running else f"only {size(free)} free: choose other outputs, or make room"
    return [f"at most {size(running)} while it runs, {size(after)} after; {enough}", f"({what})"]


# --- the tables ---------------------------------------------------------------------------------------------------


def _phases(shown: Preview, pretty: bool) -> Table:
    arrow = " → " if pretty else " -> "
    headings = ["phase", "epochs", "steps", "learning rate", "sparsity", "prunings"]
    rows = [_phase(row, shown, arrow) for row in phase_rows(shown.plan)]
    return rows_of(headings, rows, right=(1, 2, 5))


def _phase(row: PhaseRow, shown: Preview, arrow: str) -> list[str]:
    epochs = number((row.stop - row.start) / shown.plan.steps_per_epoch)
    name = row.name if row.repeat == 1 else f"{row.name}, {row.repeat} times"
    steps = f"{row.stop - row.start:,}" if shown.counted else "?"
    lr = f"{row.lr_from:.3g}{arrow}{row.lr_to:.3g}" if row.stop > row.start else "-"
    before, after = percent(row.sparsity_from), percent(row.sparsity_to)
    sparsity = after if before == after else f"{before}{arrow}{after}"
    prunings = "" if not row.prunings else "?" if prunings_known(shown) is None else f"{row.prunings}"
    return [name, epochs, steps, lr, sparsity, prunings]


def _components(shown: Preview) -> RenderableType:
    rows = component_rows(shown)
    if not rows:
        return Text("The model's sizes are unknown before it is read: no table of components.", style="dim")
    cells = [
        [
            row.name.replace("_", " "),
            "unknown" if row.weights is None else f"{row.weights:,}",
            "" if row.share is None else f"{100 * row.share:.2f} %",
            "pruned" if row.pruned else "kept",
            "by score" if row.zeros is None else f"{row.zeros:,}" if row.zeros else "",
        ]
        for row in rows
    ]
    total = model_weights(shown.sizes) if shown.sizes else None
    if total is not None:
        cells.append(["whole model", f"{total:,}", "", "", ""])
    return rows_of(["component", "weights", "share", "", "zeros at the end"], cells, right=(1, 2, 4))


# --- the curves ---------------------------------------------------------------------------------------------------


def _curves(shown: Preview, width: int, pretty: bool) -> RenderableType:
    plan = shown.plan
    if plan.steps == 0:
        return Text("No training: there is no curve to draw.", style="dim")
    beside = width >= SIDE_BY_SIDE and prunes(shown.config)
    each = min((width - 4) // 2 if beside else width - 2, 76)
    x = Axis("0", f"{number(plan.epochs)} epochs" + (f", {plan.steps:,} steps" if shown.counted else ""))
    peak = max(phase.lr.peak for phase in plan.phases)
    lr = plot("learning rate", lambda at: plan.lr(int(at * plan.steps)), peak, x, Axis("0", f"{peak:.3g}"),
              width=each, unicode=pretty, style="cyan")  # fmt: skip
    if not prunes(shown.config):
        return lr
    target = plan.prunings[-1][1]
    sparsity = plot("sparsity", _sparsity_curve(shown), target, x, Axis("0", percent(target)),
                    width=each, unicode=pretty, style="green")  # fmt: skip
    if not beside:
        return Group(lr, Text(), sparsity)
    table = Table.grid(padding=(0, 2))
    table.add_row(lr, sparsity)
    return table


def _sparsity_curve(shown: Preview) -> Callable[[float], float]:
    """Sparsity by the share of steps that have passed; looked up once, since there may be thousands of prunings."""
    plan = shown.plan
    releases = [(phase.start, 0.0) for phase in plan.phases if phase.release]
    bounds = [*sorted([*plan.prunings, *releases]), (plan.steps + 1, plan.prunings[-1][1])]

    def curve(at: float) -> float:
        step = at * plan.steps
        return next((level for (here, level), (there, _) in pairwise(bounds) if here <= step < there), 0.0)

    return curve


def percent(share: float) -> str:
    """Two digits behind the point at most: 90 %, 87.5 %, 70.06 %."""
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + " %"


def number(value: float) -> str:
    """As few digits as say it: 8, 0.7, 2.25."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value >= 0.1 or not value else f"{value:.2g}"
