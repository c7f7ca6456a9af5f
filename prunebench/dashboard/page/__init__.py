"""The files of the page, and the order in which its scripts are read."""

from __future__ import annotations

from importlib.resources import files

SCRIPTS = (  # plain scripts, not modules: a page that is opened from disk may not import
    "vendor/echarts.min.js",
    "state.js",
    "data.js",
    "shown.js",
    "charts.js",
    "scores.js",
    "curves.js",
    "layers.js",
    "examples.js",
    "differences.js",
    "table.js",
    "run.js",
    "sweeps.js",
    "main.js",
)
STYLE = "style.css"
FILES = {name: "text/javascript" for name in SCRIPTS} | {STYLE: "text/css", "icon.svg": "image/svg+xml"}


def page_file(name: str) -> str:
    """The text of one of FILES, or of index.html."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
