"""`prunebench run -m seed=1,2,3`: Hydra's own multirun, one member after another, each a run like any other."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from prunebench.compose import one_line_errors, register_schema, search_path
from prunebench.options import find_options
from prunebench.overrides import check_overrides, swept_keys
from prunebench.paths import conf_dir

QUIET = (  # prunebench says what there is to say; multirun.yaml gets a folder of its own for each sweep
    "hydra/job_logging=disabled",
    "hydra/hydra_logging=disabled",
    "hydra.sweep.dir=${outputs}/.sweeps/${now:%Y%m%d-%H%M%S}",
)


def sweep(overrides: list[str], config_dir: str | None, member: Callable[[list[str], str], Any]) -> None:
    """Calls `member` with the overrides of each member of the sweep, and with those that make it differ, as its name.

    Args:
        member: what it returns is what Hydra's sweepers optimise; what it raises ends the sweep.

    Raises:
        UsageError: the command line's mistakes, one line each, before the first member starts.
    """
    checked = check_overrides(overrides, find_options(config_dir), sweep=True)
    register_schema()
    keys = swept_keys(checked)

    def job(_: DictConfig) -> Any:
        words = list(HydraConfig.get().overrides.task)
        name = " ".join(word for word in words if word.lstrip("+").partition("=")[0] in keys)
        return member(words, name.replace("'", "") or "sweep")

    main = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(job)
    with _command_line(["-m", *QUIET, *search_path(config_dir), *checked]), one_line_errors(config_dir):
        main()


@contextmanager
def _command_line(arguments: list[str]) -> Iterator[None]:
    """Hydra reads sys.argv, and with HYDRA_FULL_ERROR it raises errors instead of printing them."""
    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = ["prunebench", *arguments], "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full
