"""Imports go down only. What stands in the lowest layer works without torch, and so do the verbs built on it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "prunebench"
HEAVY = {"torch", "transformers", "datasets", "accelerate", "evaluate", "sklearn", "scipy", "numpy", "wandb"}

LAYERS = [  # plain values; models, tasks and sparsity; what a run is made of; the conductor; the command line
    "errors config paths signals curves plan sizes results identity digest options report sweep_record",
    "models targets optim distill retraining slices batches progress devices tasks sparsity cache",
    "overrides compose facts contradictions validate preview drawing views plan_view listing clean compare "
    "wandb_workspace checkpoint evaluate tracking export teacher calibrate train context assemble scoring sweep_time",
    "run soup",
    "parsing launchers sweep_view sweep search reproduce doctor dashboard verbs cli __main__",
]
LAYER = {name: level for level, names in enumerate(LAYERS) for name in names.split()}
PLAIN = (
    "overrides compose facts contradictions validate preview drawing views plan_view listing clean parsing cli verbs"
)
MODULES = sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    """The name that LAYERS has for a module: its own, or that of its subpackage."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, everywhere: bool) -> Iterator[str]:
    """Modules that a file imports: at its top, or also inside functions; not those for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree)) if everywhere else tree.body
    typing_only = {id(node) for block in nodes if _is_for_types(block) for node in ast.walk(block)}
    for node in nodes:
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            yield str(node.module)
            if node.module == "prunebench":
                yield from (f"prunebench.{alias.name}" for alias in node.names)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def ours(path: Path, everywhere: bool) -> Iterator[str]:
    for name in imports(path, everywhere):
        if name.startswith("prunebench."):
            module = name.split(".")[1]
            if (PACKAGE / f"{module}.py").is_file() or (PACKAGE / module).is_dir():
                yield module


def test_every_module_has_a_layer() -> None:
    modules = {part(path) for path in MODULES} - {"__init__"}
    assert modules == set(LAYER), "give new modules a layer in LAYERS, and take out those that are gone"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_down_only(path: Path) -> None:
    level = LAYER.get(part(path), 0)
    above = {name for name in ours(path, everywhere=True) if LAYER[name] > level}
    assert not above


def test_there_are_no_circles() -> None:
    uses = {part(path): set(ours(path, everywhere=True)) - {part(path)} for path in MODULES if path.parent == PACKAGE}
    while free := [name for name, used in uses.items() if not used & uses.keys()]:
        for name in free:
            del uses[name]
    assert not uses, f"modules that import each other, and what stands on them: {uses}"


@pytest.mark.parametrize("name", LAYERS[0].split())
def test_the_lowest_layer_is_light(name: str) -> None:
    assert not {module.split(".")[0] for module in imports(PACKAGE / f"{name}.py", everywhere=True)} & HEAVY


@pytest.mark.parametrize("name", PLAIN.split())
def test_what_answers_at_once_imports_nothing_heavy(name: str) -> None:
    assert not {module.split(".")[0] for module in imports(PACKAGE / f"{name}.py", everywhere=False)} & HEAVY


def test_parts_take_plain_values() -> None:
    """RunConfig stays above models, tasks and sparsity, so that they can be used without it."""
    for path in MODULES:
        if LAYER.get(part(path)) == 1:
            names = [node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)]
            assert "RunConfig" not in names, path.name
