# ruff: noqa: INP001 - Sphinx looks for this name beside the pages
"""The site's configuration for Sphinx: `make site` renders the pages as they stand; a link that leads nowhere fails.

The home page is README.md and the table of contents is docs/README.md: its sections with the pages that they link.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = "```{toctree}\n:glob:\n:maxdepth: 1\n*\n```"

project = "Evertoken"
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["*.md", "docs/**.md", "clients/**.md"]
exclude_patterns = [".*", "build", "dist", "var"]
myst_heading_anchors = 4
nitpicky = True
highlight_language = "none"
smartquotes = False
html_theme = "furo"
html_title = "Evertoken"
html_copy_source = False
html_show_copyright = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]


def contents(page: str) -> str:
    """Return the table of contents that docs/README.md makes, as hidden toctrees for the home page."""
    trees = ["```{toctree}\n:hidden:\ndocs/README\n```"]
    for section in page.split("\n## ")[1:]:
        caption = section.partition("\n")[0]
        links = re.findall(r"^- \[([^\]]+)\]\(([^)]+)\.md\)", section, re.MULTILINE)
        lines = [f"{title} </{(Path('docs') / link).as_posix()}>".replace("/docs/../", "/") for title, link in links]
        trees.append("\n".join(("```{toctree}", ":hidden:", f":caption: {caption}", *lines, "```")))
    return "\n\n".join(trees)


def add_contents(_app: Any, name: str, source: list[str]) -> None:
    """Give the home page its table of contents, and the first page of a folder its other pages."""
    if name == root_doc:
        source[0] += "\n\n" + contents((ROOT / "docs/README.md").read_text(encoding="utf-8"))
    elif name.endswith("/README") and name.startswith("docs/") and name != "docs/README":
        source[0] += "\n\n" + FOLDER


def setup(app: Any) -> None:
    """Have Sphinx call us for each page that it reads."""
    app.connect("source-read", add_contents)
