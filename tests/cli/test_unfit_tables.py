"""Every command on a database whose tables this version does not run with ends in one sentence that says what to do."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

from tests.cli.test_commands import Cli, environment
from worker.cli.exporter import Rounds
from worker.services import build_services
from worker.telemetry import Fact
from worker.telemetry.fleet import FleetMetrics

__all__ = ["environment"]

RECIPIENT = "evertoken-recipient-uuolFXzSD6PbEW1CUoh5wlhFwQVkgYJ9fqssLrzll14"
OPENS: dict[str, tuple[str, ...]] = {
    "accounts export": ("--table", "videos"),
    "accounts plot": ("c1", "--to", "c1.svg"),
    "accounts show": ("c1",),
    "alive": (),
    "authorize exchange": ("https://app.example/?code=c&state=s",),
    "authorize url": (),
    "capacity": (),
    "consumers add": ("shop", "--all"),
    "consumers audit": (),
    "consumers list": (),
    "consumers revoke": ("shop",),
    "desk": (),
    "grants aside": (),
    "grants discard": ("r", "--yes"),
    "grants explain": ("c1",),
    "grants export": ("--to", "out", "--for", RECIPIENT),
    "grants forget": ("c1", "--yes"),
    "grants import": ("-",),
    "grants list": (),
    "grants pause": ("--all",),
    "grants place": ("r", "--yes"),
    "grants pull": ("c1",),
    "grants recheck": (),
    "grants refresh": ("c1",),
    "grants resume": ("--all",),
    "grants revoke": ("c1", "--yes"),
    "grants show": ("c1",),
    "grants status": (),
    "grants token": ("c1",),
    "keys abandon": ("1", "--yes"),
    "keys retire": ("1",),
    "keys rotate": (),
    "keys status": (),
    "notices addresses": (),
    "notices enable": ("https://a.example",),
    "notices list": (),
    "notices resend": ("1",),
    "notices show": ("1",),
}
"""Each command that opens the database and needs its tables, with arguments that it takes."""
OTHERS = {
    "capacity simulate",
    "db check",
    "db roles",
    "db upgrade",
    "demo",
    "doctor",
    "exporter",
    "grants shadow",
    "keys activate",
    "keys new",
    "keys reader",
    "keys recipient",
    "notices secret",
    "sandbox serve",
}
"""Commands that need no tables, or make them, or say themselves what is wrong with them."""
TABLES = {
    "empty": "",
    "foreign": "CREATE TABLE grants (name TEXT NOT NULL); CREATE TABLE pauses (name TEXT NOT NULL)",
    "older": "CREATE TABLE alembic_version (version_num VARCHAR(32)); INSERT INTO alembic_version VALUES ('0003')",
}


def commands() -> dict[str, click.Command]:
    """Return our commands by their names; a group that runs by itself is one."""

    def within(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
        if not isinstance(command, click.Group):
            yield name, command
            return
        if command.invoke_without_command:
            yield name, command
        for each, inner in command.commands.items():
            yield from within(inner, f"{name} {each}")

    ours = [each for each in entry_points(group="celery.commands") if each.value.startswith("worker.cli")]
    return dict(pair for each in ours for pair in within(each.load(), each.name))


@pytest.fixture
def unfit(
    request: pytest.FixtureRequest, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Cli:
    """Return a runner of commands on a database with unfit tables."""
    with closing(sqlite3.connect(tmp_path / "unfit.db")) as connection:
        connection.executescript(TABLES[request.param])
    monkeypatch.setenv("EVERTOKEN_DATABASE_URL", f"sqlite:///{tmp_path / 'unfit.db'}")
    monkeypatch.setenv("EVERTOKEN_DESK_SECRET", "desk-secret-desk-secret-desk-secret")
    monkeypatch.setenv("EVERTOKEN_DESK_PASSWORD", "desk-password-desk-password")
    return Cli(environment["EVERTOKEN_REDIS_URL"])


def test_each_command_is_in_one_of_the_lists() -> None:
    """A new command is tried here, or needs no tables."""
    assert sorted(commands()) == sorted([*OPENS, *OTHERS])


@pytest.mark.parametrize("unfit", TABLES, indirect=True)
@pytest.mark.parametrize("name", sorted(OPENS))
def test_a_command_on_unfit_tables_says_what_to_do(unfit: Cli, name: str) -> None:
    """One sentence names the migrations and `db upgrade`; no traceback and no name of a class."""
    result = unfit(commands()[name], *OPENS[name], stdin="")

    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    (sentence,) = result.stderr.splitlines()
    assert re.fullmatch(r"error: the database is at .* and must be at \d+: run `celery -A worker db upgrade`", sentence)


@pytest.mark.parametrize("unfit", TABLES, indirect=True)
def test_the_exporter_goes_on_and_says_so_once(unfit: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may start before the upgrade; its line of the log names the command too."""
    facts = list[Fact]()
    monkeypatch.setattr("worker.telemetry.report", facts.append)
    services = build_services()
    rounds = Rounds(services, FleetMetrics("1", ""))
    rounds.once()
    rounds.once()
    services.close()

    (failed,) = facts
    assert failed.name == "exporter.failed"
    assert re.search("must be at .* db upgrade", str(failed.fields["reason"]))
