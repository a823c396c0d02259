"""What our commands print: tables or JSON, one sentence for an error, and exit statuses that scripts can rely on.

Exit status 0: done. 1: a finding, such as something unhealthy or missing. 2: wrong use. 130: interrupted.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click
from celery.bin.base import CeleryCommand

from worker.errors import (
    ConfigurationError,
    EvertokenError,
    NotReadyError,
    SealError,
    StoreUnavailableError,
    UsageError,
)
from worker.policy import wording

if TYPE_CHECKING:
    from worker.services import Services
    from worker.settings import Settings

FINDING: Final = 1
WRONG_USE: Final = 2
INTERRUPTED: Final = 130
APP_NAME: Final = "evertoken"
WIDTH_WITHOUT_TERMINAL: Final = 240
"""Columns of a table that is piped into a file: wide enough that nothing is cut."""

_NO_ROOM: Final = "make room where standard output leads or temporary files go"
_OTHER_KEYRING: Final = "is EVERTOKEN_KEYRING the one that workers use? `celery -A worker doctor` says what it opens"
_DASHED_ID: Final = re.compile("-[^-].")
moment: Final = wording.moment
span: Final = wording.span
until: Final = wording.until
_F = TypeVar("_F", bound=Callable[..., Any])


class Number(click.FloatRange):
    """A finite number within bounds; NaN would pass every comparison with a bound."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a number that can be used here", param, ctx)
        return number


def keep_short_helps_whole(group: click.Group) -> None:
    """Make a group's help show the whole first sentence of each command's help, which click would cut."""
    for command in group.commands.values():
        if not command.short_help and command.help:
            first = command.help.partition("\n\n")[0].partition("\f")[0].partition(". ")[0]
            command.short_help = " ".join(first.split()).rstrip(".")


class Group(click.Group):
    """A group of commands whose help shows the whole first sentence of each command."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands below the group."""
        keep_short_helps_whole(self)
        super().format_commands(ctx, formatter)


class Command(CeleryCommand):  # type: ignore[misc]  # celery ships no types
    """A command that runs only with our app and ends with an exit status and a sentence, never with a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; our errors and Ctrl-C become exit statuses."""
        try:
            refuse_other_app(ctx)
            return super().invoke(ctx)
        except SealError as error:
            fail(f"{error}; {_OTHER_KEYRING}")
        except EvertokenError as error:
            fail(str(error), wrong_use=isinstance(error, UsageError | ConfigurationError))
        except BrokenPipeError:  # the reader, such as `head`, has closed the pipe: click ends silently
            raise
        except OSError as error:  # a file or a connection; Python's text names it, but for an open file
            full = error.filename is None and error.errno in {errno.ENOSPC, errno.EDQUOT}
            fail(f"{error.strerror}: {_NO_ROOM}" if full else str(error))
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(INTERRUPTED)


class CreatorCommand(Command):
    """A command that takes a creator's id, which may begin with a dash; so it has no options of one letter."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; one that begins with a single dash and has more than one letter is the id."""
        ctx.ignore_unknown_options = any(_DASHED_ID.match(argument) for argument in args)
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


def json_option(function: _F) -> _F:
    """Add `--json` to a command; its value arrives as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(function)


def refuse_other_app(ctx: click.Context) -> None:
    """Refuse to run under another Celery app, such as the default one of `celery` without `-A worker`.

    Raises:
        UsageError: its text has the command line that works.
    """
    app = getattr(ctx.obj, "app", None)
    if getattr(app, "main", None) != APP_NAME:
        raise UsageError(f"this command belongs to Evertoken's app: run `celery -A worker {_typed(ctx)}`")


def fail(sentence: str, *, wrong_use: bool = False) -> NoReturn:
    """Print one sentence on standard error and exit: 2 for wrong use, 1 for a finding."""
    click.echo(printable(f"error: {sentence}"), err=True)
    sys.exit(WRONG_USE if wrong_use else FINDING)


def note(sentence: str) -> None:
    """Print one sentence on standard error, so that standard output holds only the result."""
    click.echo(printable(sentence), err=True)


def say(sentence: str) -> None:
    """Print one sentence, which may contain foreign text: no control character of it reaches the terminal."""
    click.echo(printable(sentence))


def printable(text: str) -> str:
    """Replace control characters, direction marks and half characters with `?`; line ends stay."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)


def settings() -> Settings:
    """Read the settings.

    Raises:
        ConfigurationError: a setting is missing, or settings contradict each other.
    """
    from worker.settings import load_settings  # noqa: PLC0415 - Celery loads this module on every start

    dotenv = Path(".env")
    try:
        return load_settings(dotenv=dotenv)
    except ConfigurationError as error:
        if dotenv.exists() or " is missing" not in str(error):
            raise
        raise ConfigurationError(f"{error}; there is no file .env in the current folder {Path.cwd()}") from None


@contextmanager
def services(*, changes_pairs: bool = False, fit: bool = True) -> Iterator[Services]:
    """Build the services for one command and close them after it.

    Facts of level warning and above go to standard error; the command itself prints the rest.

    Args:
        changes_pairs: True for a command that seals or sends tokens: it needs what a worker needs, a migrated
            database, a journal that can be written and the keyring that sealed what is stored.
        fit: False for a command that says itself what is wrong with the tables, or needs none. Any other refuses tables
            that this version does not run with, before it reads or writes one.

    Raises:
        ConfigurationError: as for `settings`.
        NotReadyError: the database's tables are too old or too new; the text says what to do.
        JournalError: a command that changes pairs cannot run here.
    """
    from worker.hardening import (  # noqa: PLC0415 - as above
        keep_memory_private,
        refuse_debug_switches,
    )
    from worker.services import build_services  # noqa: PLC0415 - Celery loads this module on every start
    from worker.telemetry import configure_logging, install_last_words  # noqa: PLC0415 - as above

    read = settings()
    configure_logging(log_format="console", level="WARNING")
    keep_memory_private()
    install_last_words()
    if changes_pairs and not read.sandboxed:
        refuse_debug_switches(os.environ)
    built = build_services(read)
    try:
        if fit:
            _refuse_unfit(built)
        if changes_pairs:
            built.presence.begin()
        yield built
    finally:
        if changes_pairs:
            with suppress(StoreUnavailableError):
                built.presence.leave()
        built.close()


def _refuse_unfit(built: Services) -> None:
    """Refuse tables that this version does not run with.

    Raises:
        NotReadyError: the text names both migrations and the command that helps.
    """
    with suppress(StoreUnavailableError):  # whatever needs a database that is away or missing says so
        state = built.store.schema_state()
        if not state.runs and not built.store.is_missing:
            raise NotReadyError(str(state))


def print_json(value: object) -> None:
    """Print one JSON document: dataclasses as objects, instants as ISO 8601 in UTC.

    Letters of all scripts stay readable. Unprintable characters, such as control characters, direction marks and half
    characters, are escaped: programs get them unchanged, and no terminal acts on them.
    """
    document = json.dumps(plain(value), indent=2, ensure_ascii=False)
    click.echo("".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in document))


def plain(value: object) -> Any:
    """Convert a value to types of JSON.

    Raises:
        TypeError: the type has no agreed text; so no secret is printed by accident.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a {type(value).__name__} is not printed")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Print a table for people; title, heads and cells are shown literally, never read as markup."""
    from rich.console import Console  # noqa: PLC0415 - Celery loads this module on every start
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(title=None if title is None else Text(_cell(title)), title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(Text(_cell(column)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    colour = getattr(click.get_current_context(silent=True), "obj", None)
    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    Console(file=sys.stdout, width=width, no_color=bool(getattr(colour, "no_color", False))).print(table)


def counted(count: int, thing: str) -> str:
    """Return a count with its noun for people; give the noun in the singular, one that takes an s."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, datetime):
        return moment(value)
    text = str(value.value) if isinstance(value, Enum) else str(value)
    return printable(text).replace("\n", "?")


def _typed(ctx: click.Context) -> str:
    return ctx.command_path.partition(" ")[2] or ctx.info_name or ""
