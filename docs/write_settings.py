"""Write docs/settings.md from worker/settings.py; with `--check`, only say whether it is up to date."""  # noqa: INP001 - a script beside the page that it writes

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from worker.settings import Settings
from worker.sources import PREFIX

PAGE: Final = Path(__file__).with_name("settings.md")
WORDS: Final = {"ge": "at least", "gt": "above", "le": "at most"}
HEAD: Final = """\
# Settings

This page is generated from `worker/settings.py` by `make docs`.

Every setting is read from the environment, otherwise from a file `.env` in the working folder. For each name there is
also `NAME_FILE`: the path of a file that holds the value. A value takes precedence over its file. An unknown
`EVERTOKEN_` name, a missing value or two contradictory values stop the process at its start, with a sentence that names
them.

Blanks, line breaks, a byte order mark, invisible characters and one pair of plain quotes around a value or a file's
content are removed. An invisible character inside a value is refused. Variables that Kubernetes sets for a service
named `evertoken` or `evertoken-...`, such as a port `tcp://10.0.0.1:80`, are ignored.

| name | default | what it is |
|---|---|---|
"""
TAIL: Final = """
Traces and errors leave a process if variables that are not ours say so: those of OpenTelemetry (`OTEL_...`) and Sentry
(`SENTRY_DSN`), read from the environment alone. [operations.md](operations.md#traces-and-errors-elsewhere) names them.
"""


def settings_page() -> str:
    """Return the whole page as Markdown."""
    rows = []
    for name, default, text in settings_table():
        shown = f" `{default}`" if default and default != "(required)" else f" {default}".rstrip()
        rows.append(f"| `{name}` |{shown} | {text.replace('|', chr(92) + '|')} |")
    return HEAD + "\n".join(rows) + "\n" + TAIL


def settings_table() -> list[tuple[str, str, str]]:
    """Return name, default and description of every setting, in the order of the class."""
    return [
        (PREFIX + field.upper(), _shown_default(info.default, required=info.is_required()), _described(info))
        for field, info in Settings.model_fields.items()
    ]


def _described(info: FieldInfo) -> str:
    """Return what a setting is and which values it takes."""
    text = info.description or ""
    if get_origin(info.annotation) is Literal:
        text += " One of " + ", ".join(f"`{choice}`" for choice in get_args(info.annotation)) + "."
    bounds = {name: getattr(each, name) for each in info.metadata for name in WORDS if hasattr(each, name)}
    if bounds:
        limits = " and ".join(f"{word} {bounds[name]:g}" for name, word in WORDS.items() if name in bounds)
        text += f" {limits[0].upper()}{limits[1:]}."
    return text


def _shown_default(default: Any, *, required: bool) -> str:
    if required:
        return "(required)"
    if default is None:
        return ""
    if isinstance(default, tuple):
        return ",".join(default)
    return f"{default:.4f}" if isinstance(default, float) and default % 1 else str(default)


def main(arguments: list[str]) -> int:
    """Write the page, or compare it; return the exit status."""
    page = settings_page()
    if "--check" not in arguments:
        PAGE.write_text(page, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page:
        return 0
    sys.stderr.write("docs/settings.md is not what the code says; write it again with `make docs`\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
