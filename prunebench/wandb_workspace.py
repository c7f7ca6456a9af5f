"""A saved workspace at Weights & Biases: the panels of the dashboard that wandb has, built by wandb's own library."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stderr
from datetime import datetime
from typing import TYPE_CHECKING, Any

from prunebench.compare.groups import Group, differing, group_runs
from prunebench.compare.wandb_runs import load_wandb
from prunebench.errors import RunError, UsageError, brief, one_line

if TYPE_CHECKING:
    import wandb_workspaces.workspaces as ws

MOST_RUNS = 100  # in a panel; wandb's default is 10
SCORE, PRUNED, WHOLE = "metric/value", "sparsity/prunable", "sparsity/model"  # as tracking.WandbTracker sends them
COLUMNS = (SCORE, "dense/value", "recovery", PRUNED, WHOLE, "weights/model_nonzero", "bytes/compressed", "seconds")


def save_workspace(path: str) -> str:
    """Saves a new view of `entity/project` with panels for the finished runs there, and gives its address.

    It is never written over one that is there, which its owner may have changed by hand.

    Raises:
        UsageError: the library is missing, no key, no such form of path, or no finished run.
        RunError: wandb could not be asked, has no such project, or did not take the view.
    """
    _require_library()
    groups = group_runs(load_wandb(path))
    if not groups:
        raise UsageError(f"--wandb {path}: no finished run of prunebench there; tracker=wandb sends them")
    workspace = build(path, f"prunebench {datetime.now():%Y-%m-%d %H:%M}", groups)
    try:
        with redirect_stderr(io.StringIO()):  # where wandb tells the address too
            return str(workspace.save().url)
    except Exception as error:  # the client has errors of many kinds
        raise RunError(f"--wandb {path}: {brief(one_line(error), 300)}") from error


def _require_library() -> None:
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError as error:
        raise UsageError("dashboard --wandb needs wandb's library: pip install wandb-workspaces") from error


def build(path: str, name: str, groups: Sequence[Group]) -> ws.Workspace:
    """The workspace, not yet saved. Its table has a line for each group, in panels groups are means over seeds."""
    import wandb_workspaces.workspaces as ws

    entity, project = path.split("/")
    settings = _telling_settings(groups)
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[
            ws.Section(
                name="Score, sparsity and recovery", panels=_scores(groups), is_open=True, layout_settings=_two()
            ),
            ws.Section(name="Learning curves", panels=_curves(groups), is_open=True, layout_settings=_two()),
            ws.Section(name="What tells runs apart", panels=_differences(settings), layout_settings=_two()),
        ],
        settings=ws.WorkspaceSettings(max_runs=MOST_RUNS),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Metric("Group")],
            order=[ws.Ordering(ws.Summary(SCORE), ascending=not groups[0].bench.higher_is_better)],
            pinned_columns=[*map(_column, settings), *(f"summary:{key}" for key in COLUMNS)],
        ),
    )


def _two() -> ws.SectionLayoutSettings:
    import wandb_workspaces.workspaces as ws

    return ws.SectionLayoutSettings(columns=2, rows=3)


def _scores(groups: Sequence[Group]) -> list[Any]:
    """Each metric over both sparsities, dense runs at 0; metrics stand apart, since their scores cannot be compared."""
    import wandb_workspaces.reports.v2 as wr

    over = {PRUNED: "zeros in the pruned components", WHOLE: "zeros in the whole model"}
    plots = [
        wr.ScatterPlot(
            title=f"{metric} over the share of {what}",
            x=wr.SummaryMetric(key),
            y=wr.SummaryMetric(f"metrics/{metric}"),
        )
        for metric in _metrics(groups)
        for key, what in over.items()
    ]
    bars = wr.BarPlot(
        title="recovery: share of the dense score that is kept, mean and standard deviation over seeds",
        metrics=["recovery"],
        groupby="Group",
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        max_runs_to_show=MOST_RUNS,
        max_bars_to_show=MOST_RUNS,
    )
    return [*plots, bars]


def _curves(groups: Sequence[Group]) -> list[Any]:
    """By step, so that prunings and learning-rate rewinds stand at the same place in each."""
    import wandb_workspaces.reports.v2 as wr

    plots = {f"{metric} on the validation data": [f"eval/{metric}"] for metric in _metrics(groups)}
    plots |= {
        "training loss": ["loss"],
        "sparsity of the pruned components": ["sparsity"],
        "learning rate": ["lr"],
        "share of the mask that a pruning changed": ["pruning/churn"],
    }
    lines = [wr.LinePlot(title=title, x="Step", y=list(y), max_runs_to_show=MOST_RUNS) for title, y in plots.items()]
    return [*lines, wr.LinePlot(title="sparsity by matrix", x="Step", metric_regex="^pruning/layers/")]


def _differences(settings: Sequence[str]) -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    axes = [*map(wr.Config, settings), wr.SummaryMetric(PRUNED), wr.SummaryMetric("recovery"), wr.SummaryMetric(SCORE)]
    columns = [wr.ParallelCoordinatesPlotColumn(metric=axis) for axis in axes]
    return [
        wr.ParallelCoordinatesPlot(title="settings that differ, and what came of them", columns=columns),
        wr.RunComparer(diff_only="split"),
    ]


def _metrics(groups: Sequence[Group]) -> list[str]:
    return list(dict.fromkeys(group.bench.metric for group in groups))


def _telling_settings(groups: Sequence[Group]) -> list[str]:
    """Dotted keys: recipe, sparsity and what else tells groups apart, but for lists, which wandb has no axis for."""
    found = [key for key in differing(groups) if not any(isinstance(g.settings.get(key), list) for g in groups)]
    return list(dict.fromkeys(["recipe", "sparsity", *found]))


def _column(key: str) -> str:
    """wandb keeps {"trainer": {"lr": 1}} as {"trainer": {"value": {"lr": 1}}}."""
    first, *rest = key.split(".")
    return ".".join([f"config:{first}", "value", *rest])
