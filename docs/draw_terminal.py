# ruff: noqa: INP001 - a script beside the pages
"""Draw what a terminal shows as an SVG.

The README's picture: `make demo` in a tmux of 112 columns and 60 lines, and when it has ended from another terminal

    tmux capture-pane -e -p | .venv/bin/python docs/draw_terminal.py make demo > docs/images/demo.svg
"""

from __future__ import annotations

import io
import re
import sys

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text


def drawn(screen: str, title: str) -> str:
    """Return the picture; it names no font that would be fetched from another host."""
    lines = Text.from_ansi(screen.rstrip()).split(allow_blank=True)
    width = max(line.cell_len for line in lines)
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in lines:
        console.print(line, no_wrap=True, overflow="ignore", crop=False)
    svg = console.export_svg(title=title, theme=MONOKAI, unique_id="terminal")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code", "DejaVu Sans Mono, Menlo, Consolas")


if __name__ == "__main__":
    sys.stdout.write(drawn(sys.stdin.read(), " ".join(sys.argv[1:])))
