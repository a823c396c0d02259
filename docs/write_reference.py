"""Write the reference pages from the code; with `--check`, only say which are not up to date."""  # noqa: INP001 - a script beside the pages that it writes

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import click
from pydantic.fields import FieldInfo
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

import worker.store.account_models  # noqa: F401 - adds its tables to METADATA
from worker import errors, tokens
from worker.settings import Settings
from worker.sources import PREFIX
from worker.store.clock import Instant
from worker.store.models import METADATA, Row
from worker.tokens.reader import ServedToken, TokenReader

FOLDER: Final = Path(__file__).parent
DIALECT: Final = postgresql.dialect()  # type: ignore[no-untyped-call] # SQLAlchemy leaves it so
WORDS: Final = {"ge": "at least", "gt": "above", "le": "at most"}
SETTINGS_HEAD: Final = """\
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
SETTINGS_TAIL: Final = """
Traces and errors leave a process if variables that are not ours say so: those of OpenTelemetry (`OTEL_...`) and Sentry
(`SENTRY_DSN`), read from the environment alone. [operations.md](operations.md#traces-and-errors-elsewhere) names them.
"""
INSTANT: Final = "bigint, milliseconds since 1970"
COMMANDS_HEAD: Final = """\
# Commands

This page is generated from `worker/cli` by `make docs`: what `evertoken COMMAND --help` prints. Each command can also
be called as `celery -A worker COMMAND`, beside Celery's own, such as `worker`, `beat`, `inspect` and `flower`."""
TABLES_HEAD: Final = """\
# Tables

This page is generated from `worker/store/models.py` and `worker/store/account_models.py` by `make docs`.
[data.md](data.md) says what the account data means and has the views for those who read it. Only Evertoken writes into
these tables. Types are those of PostgreSQL; in SQLite they are its nearest ones."""
PYTHON_HEAD: Final = """\
# The Python API

This page is generated from `worker/tokens` and `worker/errors.py` by `make docs`. How an application uses it is in
[operations.md](operations.md#an-application-that-reads-tokens). Everything here is imported from `worker.tokens`, and
errors from `worker.errors`. By default a read waits `WAIT_SECONDS` = {wait:g} seconds for a refresh."""


def settings_page() -> str:
    """Return the whole page as Markdown."""
    rows = []
    for name, default, text in settings_table():
        shown = f" `{default}`" if default and default != "(required)" else f" {default}".rstrip()
        rows.append(f"| `{name}` |{shown} | {_cell(text)} |")
    return SETTINGS_HEAD + "\n".join(rows) + "\n" + SETTINGS_TAIL


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
        limits = " and ".join(f"{word} {bounds[name]:.12g}" for name, word in WORDS.items() if name in bounds)
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


def commands_page() -> str:
    """Return every command of ours with its arguments and options, as its `--help` has them."""
    ours = [each for each in entry_points(group="celery.commands") if each.value.startswith("worker.")]
    listed = [part for each in sorted(ours) for part in _command(each.load(), f"evertoken {each.name}", None)]
    return "\n".join([COMMANDS_HEAD, *listed]) + "\n"


def _command(command: click.Command, path: str, parent: click.Context | None) -> Iterator[str]:
    """Yield the lines about a command and those below it."""
    context = click.Context(command, info_name=path if parent is None else command.name, parent=parent)
    yield f"\n{'##' if parent is None else '###'} {path.removeprefix('evertoken ')}\n"
    yield f"    {' '.join([path, *command.collect_usage_pieces(context)])}\n"
    yield inspect.cleandoc(command.help or "").replace("\b\n", "")
    records = [param.get_help_record(context) for param in command.get_params(context)]
    rows = [record for record in records if record and record[1] and not record[0].startswith("--help")]
    if rows:
        yield "\n| option | what it does |\n|---|---|"
        yield from (f"| `{_cell(name)}` | {_cell(text)} |" for name, text in rows)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from _command(command.commands[name], f"{path} {name}", context)


def tables_page() -> str:
    """Return every table with its columns; types are PostgreSQL's."""
    parts = [TABLES_HEAD]
    for model in sorted(Row.__subclasses__(), key=lambda model: str(model.__tablename__)):
        table = METADATA.tables[str(model.__tablename__)]
        parts.append(f"\n## {table.name}\n\n{inspect.cleandoc(model.__doc__ or '')}\n")
        parts += ["| column | type | |", "|---|---|---|", *_columns(table)]
    return "\n".join(parts) + "\n"


def _columns(table: Table) -> Iterator[str]:
    for column in table.columns:
        notes = ["key"] if column.primary_key else []
        notes += [f"`{key.target_fullname}`" for key in column.foreign_keys]
        notes += ["may be NULL"] if column.nullable else []
        kind = column.type.compile(dialect=DIALECT).lower()
        yield f"| `{column.name}` | {INSTANT if isinstance(column.type, Instant) else kind} | {', '.join(notes)} |"


def python_page() -> str:
    """Return what neighbours import: the functions of `worker.tokens`, what they return, and every error."""
    described = {name: each for name, each in vars(tokens).items() if name in tokens.__all__ and callable(each)}
    described |= {f"TokenReader.{name}": each for name, each in vars(TokenReader).items() if name[0] != "_"}
    parts = [PYTHON_HEAD.format(wait=tokens.WAIT_SECONDS)]
    for name, each in described.items():
        parts.append(f"\n## {name}\n\n    {name.rpartition('.')[2]}{_signature(each)}\n\n{_text(each)}")
    parts.append(f"\n## ServedToken\n\n{_text(ServedToken)}")
    parts.append("\n## Errors\n\n| error | is a | it says |\n|---|---|---|")
    for each in vars(errors).values():
        if inspect.isclass(each) and issubclass(each, errors.EvertokenError):
            says = _cell(_text(each).partition("\n\n")[0])
            parts.append(f"| `{each.__name__}` | `{each.__bases__[0].__name__}` | {says} |")
    return "\n".join(parts) + "\n"


def _signature(function: Any) -> str:
    """Return arguments and result without quotes around their types."""
    return str(inspect.signature(function)).replace("'", "")


def _text(documented: Any) -> str:
    """Return a docstring as Markdown: the entries of its sections as a list."""
    text = inspect.cleandoc(documented.__doc__ or "")
    text = re.sub(r"^(\w+:)\n", r"\1\n\n", text.replace("\n        ", " "), flags=re.MULTILINE)
    return re.sub(
        r"^ {4}", "", re.sub(r"^ {4}(\w+(?:, \w+)*): ", r"- `\1`: ", text, flags=re.MULTILINE), flags=re.MULTILINE
    )


def _cell(text: str) -> str:
    """Return text for a cell of a table."""
    return " ".join(text.replace("|", "\\|").split())


PAGES: Final = {
    "settings.md": settings_page,
    "commands.md": commands_page,
    "tables.md": tables_page,
    "python-api.md": python_page,
}


def main(arguments: list[str]) -> int:
    """Write the pages, or compare them; return the exit status."""
    pages = {FOLDER / name: page() for name, page in PAGES.items()}
    if "--check" not in arguments:
        for path, text in pages.items():
            path.write_text(text, encoding="utf-8")
        return 0
    stale = [path.name for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for name in stale:
        sys.stderr.write(f"docs/{name} is not what the code says; write it again with `make docs`\n")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
