"""The dead-man check: one command and one page answer whether the fleet was scanned and refreshed lately."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.support.daemon import PROJECT
from tests.support.world import World
from worker.cli.alive import WITHIN_SECONDS, fleet_alive
from worker.cli.exporter import Rounds
from worker.telemetry.fleet import FleetMetrics
from worker.telemetry.serving import serve

NewWorld = Callable[..., World]
LINE = re.compile(r"`\*/5 \* \* \* \* (.+)`$", re.MULTILINE)
"""A line of cron's table in the page."""


@pytest.fixture
def world(new_world: NewWorld) -> World:
    """A fleet of one grant that is fresh, scanned just now."""
    world = new_world()
    world.creator()
    world.sql("UPDATE grants SET next_refresh_at = access_expires_at - 3600000")
    world.services.store.note_tick()
    return world


def test_a_fleet_that_was_scanned_and_has_nothing_due_is_alive(world: World) -> None:
    """The sentence says when."""
    lives, text = fleet_alive(world.services, WITHIN_SECONDS)

    assert lives
    assert text.startswith("alive: scanned 0 s ago")


def test_a_pause_does_not_look_like_a_fleet_that_is_refreshed(world: World) -> None:
    """Nobody is woken by what a person wished, and the line says it."""
    world.services.store.pause()
    lives, text = fleet_alive(world.services, WITHIN_SECONDS)

    assert lives
    assert text.endswith("; somebody has paused grants, and these are not refreshed")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("UPDATE beat SET ticked_at = ticked_at - 660000", "no message from beat has reached a worker for"),
        ("DELETE FROM beat", "no message from beat has ever reached a worker"),
        ("UPDATE beat SET ticked_at = ticked_at + 86400000", "the database's clock was set back"),
        ("UPDATE grants SET access_expires_at = issued_at - 660000", "an access token ended 11 min"),
        (
            "UPDATE grants SET failures = 3, access_expires_at = issued_at - 660000, next_refresh_at = 9e12",
            "an access token ended 11 min",
        ),
        ("UPDATE grants SET next_refresh_at = issued_at - 660000", "a grant has been due for"),
    ],
)
def test_a_fleet_that_nobody_scans_or_refreshes_is_not_alive(world: World, wrong: str, words: str) -> None:
    """Whichever of the two is missing, it is named; the page says the same with 503."""
    rounds = Rounds(world.services, FleetMetrics("1"))
    pages = {"/alive": rounds.alive}
    port = serve(0, "127.0.0.1", rounds.metrics.registry, alive=lambda: True, report=print, pages=pages)
    with urlopen(f"http://127.0.0.1:{port}/alive", timeout=30) as answer:
        assert answer.read().startswith(b"alive: ")
    world.sql(wrong)

    assert words in fleet_alive(world.services, WITHIN_SECONDS)[1]
    with pytest.raises(HTTPError) as refused:
        urlopen(f"http://127.0.0.1:{port}/alive", timeout=30)
    with refused.value:
        assert refused.value.code == 503
        assert words in refused.value.read().decode()


@pytest.mark.parametrize(
    "waits",
    [
        "UPDATE grants SET failures = 3, access_expires_at = issued_at - 660000, next_refresh_at = issued_at + 1200000",
        "UPDATE grants SET status = 'needs_reauth', access_expires_at = issued_at - 660000",
        "UPDATE beat SET ticked_at = ticked_at + 5000",
    ],
)
def test_what_waits_as_planned_is_alive(world: World, waits: str) -> None:
    """A grant that is tried again soon, one that only its creator can help, and two readings of one clock."""
    world.sql(waits)

    assert fleet_alive(world.services, WITHIN_SECONDS)[0]


def test_a_pause_excuses_a_token_that_ended(world: World) -> None:
    """A person wished it."""
    world.sql("UPDATE grants SET access_expires_at = issued_at - 660000")
    world.services.store.pause()

    assert fleet_alive(world.services, WITHIN_SECONDS)[0]


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_the_page_says_that_the_database_is_away(new_world: NewWorld, free_port: int, database_kind: str) -> None:
    """An outage of the database is no traceback."""
    away = new_world().another(DATABASE_URL=f"postgresql://nobody@127.0.0.1:{free_port}/nothing")

    assert Rounds(away, FleetMetrics("1")).alive() == (False, "not alive: the database does not answer")


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_the_page_says_that_the_database_answers_and_refuses(world: World, database_kind: str) -> None:
    """Whoever reads that it is away would look at a server that runs; the reason itself may name a role."""
    world.sql("ALTER TABLE beat RENAME TO other")

    lives, text = Rounds(world.services, FleetMetrics("1")).alive()

    assert not lives
    assert text == "not alive: the database refuses what it is asked; `evertoken alive` says why"


def test_a_silent_beat_and_missing_workers_are_told_apart(world: World) -> None:
    """No message arrives in either case, and another process has to be looked at."""
    world.sql("DELETE FROM beat")
    none = fleet_alive(world.services, WITHIN_SECONDS)[1]
    world.services.presence.begin()
    one = fleet_alive(world.services, WITHIN_SECONDS)[1]
    world.services.presence.leave()

    assert none.endswith("; no worker runs")
    assert one.endswith("; a worker runs, so look at beat and the broker")


class Checker(HTTPServer):
    """A hosted checker.

    Attributes:
        calls: the paths that were called.
        status: of each answer.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.calls: list[str] = []
        self.status = 200


class _Answer(BaseHTTPRequestHandler):
    server: Checker

    def do_GET(self) -> None:
        """Note the call."""
        self.server.calls.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Stay silent."""


@pytest.fixture
def checker() -> Iterator[Checker]:
    """A hosted checker that runs."""
    with Checker() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.slow_suite
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_the_lines_of_the_page_call_the_checker_or_mail_why_not(
    world: World, checker: Checker, tmp_path: Path, database_kind: str
) -> None:
    """Cron runs them with nearly no environment; they print nothing if all is well, and otherwise the reason once."""
    mails, calls = LINE.findall((PROJECT / "docs/metrics.md").read_text(encoding="utf-8"))
    (tmp_path / ".env").write_text("\n".join(f"{name}='{text}'" for name, text in world.environ.items()))
    address = f"http://127.0.0.1:{checker.server_port}/ID"

    def printed(line: str) -> str:
        program = Path(sys.executable).with_name("evertoken")
        done = subprocess.run(
            ["/bin/sh", "-c", f"cd {tmp_path} && {line.replace('evertoken', str(program))}"],
            env={"PATH": "/usr/bin:/bin", "HOME": "/", "CHECK_ADDRESS": address},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.stdout

    assert (printed(mails), printed(calls), checker.calls) == ("", "", ["/ID"])
    checker.status = 500
    assert "error: 500" in printed(calls)
    world.sql("UPDATE beat SET ticked_at = ticked_at - 660000")
    silent = [printed(mails), printed(calls)]
    world.sql("ALTER TABLE beat RENAME TO other")
    refused = [printed(mails), printed(calls)]

    assert [text.count("\n") for text in silent + refused] == [1] * 4
    assert all(text.startswith("not alive: no message from beat has reached a worker for 11 min") for text in silent)
    assert all(text.startswith("error: the database lacks a table") for text in refused)
    assert checker.calls == ["/ID"] * 2
