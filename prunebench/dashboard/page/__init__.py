"""The files of the page. index.html says which scripts are read, and in which order.

They are plain scripts, not modules: a page that is opened from disk may not import.
"""

from __future__ import annotations

import re
from importlib.resources import files


def page_file(name: str) -> str:
    """The text of one of FILES, or of index.html."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


SCRIPTS = re.findall(r'<script defer src="page/(.+?)">', page_file("index.html"))
STYLE = "style.css"
FILES = dict.fromkeys(SCRIPTS, "text/javascript") | {STYLE: "text/css", "icon.svg": "image/svg+xml"}
