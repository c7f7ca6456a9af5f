"""Finished runs compared: means over seeds, paired differences, tests per example, in tables of what is comparable.

To be used from outside (no torch anywhere):

    load_runs(outputs) -> list[Run]             every finished run; 1,000 in a fraction of a second
    select(words, outputs) -> list[Run]         those that folders, digests, names and patterns mean
    select_sweep(word, outputs) -> (list[Run], other members)
    parse_where(text, runs) -> (Run -> bool)    a filter
    group_runs(runs) -> list[Group]             by everything but the seed; `Group.bench`: what must agree to compare
    differing(groups) -> list[str]              the settings that tell groups apart; `short_key` shortens them
    mean_std(values), paired_interval(differences)
    compare(runs, baseline=..., sort=...) -> Comparison    and `render` for the terminal, JSON, CSV, Markdown, LaTeX
"""

from prunebench.compare.comparison import Comparison, Difference, Row, Table, compare, describe
from prunebench.compare.groups import Bench, Group, differing, find_key, group_runs, short_key
from prunebench.compare.runs import Run, default_phase, default_settings, flatten, load_runs, select, select_sweep
from prunebench.compare.statistics import Interval, Mean, holm, mean_std, paired_interval
from prunebench.compare.where import parse_where

__all__ = [
    "Bench", "Comparison", "Difference", "Group", "Interval", "Mean", "Row", "Run", "Table", "compare", "default_phase",
    "default_settings", "describe",
    "differing", "find_key", "flatten", "group_runs", "holm", "load_runs", "mean_std", "paired_interval",
    "parse_where", "select", "select_sweep", "short_key",
]  # fmt: skip
