"""The page and all of its documents in one file, which opens from disk and asks nothing of any network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import compress
from pathlib import Path
from typing import Any

from prunebench.dashboard.documents import POINTS, thinned, to_json
from prunebench.dashboard.page import SCRIPTS, STYLE, page_file
from prunebench.dashboard.store import Store
from prunebench.errors import UsageError
from prunebench.paths import write_text

BUDGET = 50_000  # bytes for each run, and for a hundred of them at least
KINDS = ("curves", "run", "predictions")


def export(store: Store, path: Path) -> list[str]:
    """Writes the report.

    Returns:
        What had to be left out to keep it small, a line each.

    Raises:
        UsageError: the file cannot be written.
    """
    docs: dict[str, Any] = {"runs": store.runs()}
    docs["runs"]["exported"] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    for name in store.ids():
        docs |= {f"{kind}/{name}": store.document(f"{kind}/{name}") for kind in KINDS}
    keys = {document["examples"] for key, document in docs.items() if key.startswith("predictions/") and document}
    docs |= {f"examples/{key}": store.document(f"examples/{key}") for key in keys}
    page, left_out = report(docs)
    try:
        write_text(path, page)
    except OSError as error:
        raise UsageError(f"--export {path}: {error.strerror}: name a file that can be written") from error
    return left_out


def report(docs: dict[str, Any]) -> tuple[str, list[str]]:
    """The page, made smaller step by step until it is small enough, and what that cost."""
    most, told = BUDGET * max(100, len(docs["runs"]["runs"])), []
    page = assemble(docs)
    for what, shrink in SHRINK.items():
        if _size(page) <= most:
            break
        shrink(docs)
        told.append(f"the report would be too large: {what}")
        page = assemble(docs)
    if _size(page) > most:
        told.append(f"the report is {_size(page) / 1e6:.1f} MB all the same, more than {most / 1e6:.0f} MB")
    return page, told


def _size(page: str) -> int:
    return len(page.encode())


def _thin_curves(docs: dict[str, Any]) -> None:
    for document in _of("curves", docs).values():
        document["updates"] = thinned(document["updates"], POINTS // 4)


def _only_disputed(docs: dict[str, Any]) -> None:
    """Leaves out the examples on which all runs say the same; nobody would look for a disagreement there."""
    for name, examples in _of("examples", docs).items():
        own = {key: one for key, one in _of("predictions", docs).items() if one["examples"] == name.partition("/")[2]}
        said = zip(*(one["predicted"] for one in own.values()), strict=True)
        kept = [len({json.dumps(value) for value in values}) > 1 for values in said]
        docs[name] = _compressed(examples, kept) | {"left_out": kept.count(False)}
        docs |= {key: _compressed(one, kept) for key, one in own.items()}


def _compressed(document: dict[str, Any], kept: list[bool]) -> dict[str, Any]:
    return {key: list(compress(v, kept)) if isinstance(v, list) else v for key, v in document.items()}


def _no_predictions(docs: dict[str, Any]) -> None:
    for key in [*_of("predictions", docs), *_of("examples", docs)]:
        del docs[key]


def _of(kind: str, docs: dict[str, Any]) -> dict[str, Any]:
    return {key: document for key, document in docs.items() if key.startswith(f"{kind}/") and document}


SHRINK: dict[str, Callable[[dict[str, Any]], None]] = {
    "learning curves have a quarter of their points": _thin_curves,
    "examples on which all runs say the same are left out": _only_disputed,
    "predictions are left out": _no_predictions,
}


def assemble(docs: dict[str, Any]) -> str:
    """One HTML page. Its policy lets exactly these scripts and this style run, by their hashes."""
    scripts = [_inline(page_file(name)) for name in SCRIPTS]
    style = page_file(STYLE)
    packed = base64.b64encode(gzip.compress(to_json(docs), 9, mtime=0)).decode()
    policy = (
        f"default-src 'none'; script-src {' '.join(_hash(script) for script in scripts)}; style-src {_hash(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>'
    body = f'<script type="application/octet-stream" id="documents">{packed}</script>\n'
    body += "\n".join(f"<script>{script}</script>" for script in scripts)
    page = re.sub(r"<link rel=.*?>\n|<script .*?></script>\n", "", page_file("index.html"))
    return page.replace("</head>", f"{head}\n</head>").replace("</body>", f"{body}\n</body>")


def _inline(script: str) -> str:
    """A script inside a page ends at the first </script, wherever that stands."""
    return re.sub(r"</(script)", r"<\\/\1", script, flags=re.IGNORECASE)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
