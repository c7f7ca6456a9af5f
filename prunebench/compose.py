"""Command line -> RunConfig, through Hydra's compose API. Whatever is wrong is said in one line, never Hydra's way."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from prunebench.config import RunConfig
from prunebench.contradictions import stands_on
from prunebench.errors import UsageError, brief
from prunebench.facts import folder_config
from prunebench.options import find_options
from prunebench.overrides import Given, SortedOut, check_overrides, given, nearest, sort_out
from prunebench.paths import conf_dir
from prunebench.validate import problems

PATHS = ("start", "outputs", "model.name", "model.tokenizer", "distillation.teacher", "dataset.train_file",
         "dataset.validation_file")  # fmt: skip
TO_SET = {"model.name": "model.name=<hub name or folder>"}


def load_config(overrides: list[str], config_dir: str | None = None) -> RunConfig:
    """Composes conf/ with the `key=value` words of a command line, which win.

    Args:
        config_dir: a folder laid out like conf/, whose options are added to ours.

    Raises:
        UsageError: what the command line (or a YAML file) has wrong, one line each; and then also what `validate`
            has to say of the rest. Of a command line that can be composed, ranges are not looked at.
    """
    words = sort_out(overrides, find_options(config_dir))
    if words.problems:
        lines = [*words.problems, *_other_problems(words, config_dir)]
        raise UsageError("\n".join(dict.fromkeys(lines)))
    return _load(words, config_dir)


def _load(words: SortedOut, config_dir: str | None) -> RunConfig:
    config = _compose([*words.sound, *search_path(config_dir)], config_dir)
    _settle_paths(config)
    _settle_model(config, given(words.sound))
    _require_all(config, words.unknown)
    with one_line_errors(config_dir):
        result = OmegaConf.to_object(config)
    assert isinstance(result, RunConfig)
    return result


def _other_problems(words: SortedOut, config_dir: str | None) -> list[str]:
    """What is wrong besides the overrides that cannot be, as far as that can be told without them."""
    try:
        return problems(_load(words, config_dir), words.unknown)
    except UsageError as error:
        return str(error).splitlines()


@cache
def register_schema() -> None:
    """Makes RunConfig known to Hydra as `schema`, which conf/config.yaml starts from."""
    ConfigStore.instance().store(name="schema", node=RunConfig)


def search_path(config_dir: str | None) -> list[str]:
    """The override that shows Hydra the user's own folder."""
    if config_dir is None:
        return []
    folder = os.path.abspath(os.path.expanduser(config_dir)).replace("\\", "\\\\").replace("'", "\\'")
    return [f"hydra.searchpath=['file://{folder}']"]


def _compose(overrides: list[str], config_dir: str | None) -> DictConfig:
    register_schema()
    with one_line_errors(config_dir, overrides):
        with _own_hydra(), initialize_config_dir(str(conf_dir()), job_name="prunebench", version_base="1.3"):
            config = compose("config", overrides, return_hydra_config=True)
        with open_dict(config):
            choices = config.pop("hydra").runtime.choices
        config.recipe = choices.recipe
        OmegaConf.resolve(config)
    return config


@contextmanager
def one_line_errors(config_dir: str | None, overrides: Sequence[str] = ()) -> Iterator[None]:
    """Turns what Hydra raises into a UsageError. `overrides` were composed: one may be to blame and not be named."""
    try:
        yield
    except RecursionError as error:
        raise UsageError(
            "a value or the defaults of a YAML file are nested too deeply, or lead back to themselves"
        ) from error
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:  # of bad defaults, the last
        raise UsageError(_in_one_line(error, config_dir, overrides)) from error


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Hydra keeps one global state; within a sweep it is in use already."""
    state = GlobalHydra.instance()
    in_use = state.hydra
    state.clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = in_use


def _in_one_line(error: Exception, config_dir: str | None, overrides: Sequence[str]) -> str:
    """What Hydra, OmegaConf or the YAML reader said of a file or an interpolation."""
    message = f"{error}\n{error.__cause__ or ''}"
    unknown = re.search(r"Key '.*' (?:is )?not in .*\n\s*full_key: (\S+)", message)
    if unknown:
        return f"{unknown[1]}: no such setting{nearest(unknown[1], find_options(config_dir))}{_source(message)}"
    if re.search(r"Cannot convert '(Dict|List)Config' to string", message):
        return f"{_source(message)[5:-1]} holds no settings by name: begin it with '# @package _global_'"
    if isinstance(error, yaml.reader.ReaderError):
        return f"{error.name}: not valid YAML ({error.reason} at character {error.position})"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: not valid YAML ({error.problem})"
    key = re.search(r"full_key: (\S+)", message)
    lines = [line.strip() for line in message.splitlines() if line.strip() and not line.startswith((" ", "\t"))]
    told = [line for line in (re.sub(r"^In '.*?':? ?(\w+ raised while.*)?", "", line) for line in lines) if line]
    interpolations = [brief(word.lstrip("+")) for word in overrides if "${" in word]
    where = f"{key[1]}: " if key else f"{interpolations[0]}: " if len(interpolations) == 1 else ""
    return f"{where}{brief((told or lines)[0], 200)}{_source(message)}"


def _source(message: str) -> str:
    """Which YAML file, where Hydra says so."""
    found = re.search(r"In '([^']+)'", message)
    return f" (in {found[1]}.yaml)" if found else ""


def _settle_paths(config: DictConfig) -> None:
    """`~` stands for the home folder; a shell replaces it only at the start of a word."""
    for key in PATHS:
        value = OmegaConf.select(config, key)
        if isinstance(value, str) and value.startswith("~"):
            OmegaConf.update(config, key, os.path.expanduser(value))  # Path's raises for unknown users


def _settle_model(config: DictConfig, asked: Given) -> None:
    """A folder to start from is the model too, and what is known of a model is what its own files say."""
    model = config.model
    if config.start not in ("teacher", "pretrained") and "model.name" not in asked:
        model.name, model.revision, model.from_config = config.start, None, False
    if model.from_config or "model.config" in asked or OmegaConf.is_missing(model, "name"):
        return
    known = folder_config(model.name)  # None: `contradictions` tells what is wrong with the folder
    if known is not None:
        _replace(model, known)
    elif "model.name" in asked or Path(model.name).is_absolute():
        _replace(model, {})  # the YAML describes another model


def _replace(model: DictConfig, known: dict[str, Any]) -> None:
    with open_dict(model):
        model.config = known


def _require_all(config: DictConfig, unknown: Collection[str]) -> None:
    """Nothing may be left without a value but what could not be read, which has been told."""
    left = OmegaConf.missing_keys(config)
    for key in left:
        OmegaConf.update(config, key, "")
    missing = sorted(key for key in left if not stands_on([key], unknown))
    if missing:
        raise UsageError("\n".join(f"{key} is not set: add {TO_SET.get(key, f'{key}=...')}" for key in missing))


def apply_settings(config: RunConfig, overrides: list[str]) -> RunConfig:
    """A finished run's config with some settings (no group choices) changed.

    Raises:
        UsageError: one line for each override that cannot be.
    """
    groups = sorted(name for name in given(overrides).names if name in find_options())
    if groups:
        raise UsageError(f"{groups[0]}=...: choose groups together with dataset=..., or change single settings only")
    merged = OmegaConf.structured(config)
    for text in check_overrides(overrides, find_options()):
        OmegaConf.update(merged, *_key_and_value(text), force_add=True)
    result = OmegaConf.to_object(merged)
    assert isinstance(result, RunConfig)
    return result


def _key_and_value(text: str) -> tuple[str, Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(text)
    return override.key_or_group, override.value()


def read_run_config(path: Path) -> RunConfig:
    """What the config.yaml of a run holds.

    Raises:
        UsageError: it was written by another version, or by hand.
    """
    with one_line_errors(None):
        result = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), OmegaConf.load(path)))
    assert isinstance(result, RunConfig)
    return result
