"""The canary scan: a rehearsal of the whole stack leaves no secret anywhere outside sealed bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.faults.aging import run_sql
from tests.security.canary import Scan
from tests.security.canary_faults import OF_ACCOUNT_DATA
from tests.security.canary_flower import Client, one_task_of_each_kind, pages
from tests.security.canary_pages import Browser, PlainClient, browser_program
from tests.security.canary_run import Rehearsal
from tests.security.canary_stack import FLOWER_USER
from tests.support.rabbit import Rabbit
from worker.sandbox.fault_kinds import MAKERS
from worker.store import open_store

pytestmark = [pytest.mark.slow_suite, pytest.mark.timeout(900)]

EVENTS = {"task-sent", "task-received", "task-started", "task-succeeded", "task-failed", "worker-online"}
CRASHES = (
    "task.crashed",
    "refresh.left_over",
    "journal.replayed",
    "app.stopped",
    "app.secret_switched",
    "refresh.misfit",
)


@pytest.fixture
def rehearsal(
    store_url: str,
    new_redis: Callable[..., Any],
    free_ports: Callable[[], int],
    wait_until: Callable[..., None],
    tmp_path: Path,
) -> Iterator[Rehearsal]:
    """A rehearsal over this test's database and a Redis of its own that writes down all commands."""
    server = new_redis("--appendonly", "yes", "--rdbcompression", "no")
    with Rehearsal(
        tmp_path, store_url=store_url, redis_server=server, free_ports=free_ports, wait_until=wait_until
    ) as made:
        yield made


def browser_of(rehearsal: Rehearsal) -> Browser:
    """Return a browser that knows Flower's password."""
    program = browser_program()
    assert program is not None, "these tests need Chromium"
    return Browser(program, FLOWER_USER, rehearsal.secrets.flower)


def scan_all(rehearsal: Rehearsal, client: Client) -> Scan:
    """Scan what the stack shows and has written: while it runs, and again after it has ended."""
    scan = Scan(rehearsal.secrets.canaries())
    plain = PlainClient(FLOWER_USER, rehearsal.secrets.flower)
    tasks = one_task_of_each_kind(plain, rehearsal.flower_url)
    broker = "redis" if rehearsal.rabbit is None else "amqp"
    for place in pages(client, plain, rehearsal.flower_url, rehearsal.worker_names(), tasks, broker=broker):
        scan.look(*place)
    scan.look("the worker's metrics", client.get(rehearsal.metrics_url))
    for place in rehearsal.places():
        scan.look(*place)
    rehearsal.end()
    for name, content in rehearsal.places():
        scan.look(name, content)
    return scan


def assert_rich(rehearsal: Rehearsal, scan: Scan) -> None:
    """Assert that every place that should have secrets had them, so that a leak would have been found."""
    known = rehearsal.secrets
    entries = rehearsal.sandbox.entries()
    assert {kind for entry in entries for kind in entry.faults} == set(MAKERS) - OF_ACCOUNT_DATA
    assert sum(entry.call.endswith("refresh_token/") and entry.code == 0 for entry in entries) >= 150
    opened = rehearsal.opened_pairs()
    assert sum(known.issued in token for token in opened) >= 300
    for canary in (known.spoken, known.imported):
        assert any(canary in token for token in opened)
    assert any(known.issued.encode() in body for body in rehearsal.in_the_journal)
    assert rehearsal.events.kinds.keys() >= EVENTS
    assert rehearsal.events.kinds["task-succeeded"] >= 300
    assert rehearsal.monitor.commands >= 3000
    assert len(rehearsal.notices.received) >= 3
    logs = b"".join(path.read_bytes() for path in (rehearsal.home / "logs").iterdir())
    assert logs.count(b'"level": "debug"') >= 300
    for fact in CRASHES:
        assert f'"event": "{fact}"'.encode() in logs, fact
    for start in ("the log flower", "the log beat", "the journal's file", "Redis's file dump", "Redis's file append"):
        assert any(place.startswith(start) and size > 50 for place, size in scan.seen.items()), start
    assert sum(place.startswith("Flower's") for place in scan.seen) >= 20


PLANTED = (
    "the log pull.log", "the record of events", "the record of monitor", "Redis's file dump.rdb", "the notices",
    "Redis's file appendonlydir/", "the database file evertoken.db-wal", "the SQLite dump", "what `grants show`",
    "the journal's file planted", "Flower's /api/tasks", "Flower's /api/task/info/", "Flower's /task/", "the rows of",
)  # fmt: skip


def plant(rehearsal: Rehearsal) -> None:
    """Put a secret wherever a leak would put it: a task's argument, a row, a key, a file, a command's output."""
    secret = rehearsal.secrets.typed
    rehearsal.import_creators(["healthy-0"])
    store = open_store(rehearsal.store_url)
    run_sql(
        store,
        f"UPDATE grants SET last_reason = '{secret}'",  # noqa: S608 - a text of our own
        "INSERT INTO notices (dedupe_key, kind, detail, created_at, next_try_at)"
        " SELECT 'planted', 'planted', last_reason, created_at, created_at FROM grants",
    )
    store.close()
    with redis.Redis.from_url(rehearsal.redis_url) as client:
        client.set("planted", secret)
    (rehearsal.home / "journal" / "planted").write_text(secret)
    with (rehearsal.home / "logs" / "pull.log").open("a") as log:
        log.write(f"{secret}\n")
    rehearsal.command("grants", "show", secret, exits=1)
    rehearsal.command("call", "tasks.pull.pull_account", "--args", json.dumps([secret]), exits=0)
    plain, text = PlainClient(FLOWER_USER, rehearsal.secrets.flower), secret.encode()
    rehearsal.wait_until(lambda: text in plain.get(f"{rehearsal.flower_url}/api/tasks?limit=10000"), 60)
    rehearsal.wait_until(lambda: text in b"".join(rehearsal.notices.received), 60)


def assert_planted_is_found(rehearsal: Rehearsal, client: Client) -> None:
    """Plant, scan, and assert that the secret is found in every place and no other one anywhere."""
    rehearsal.start()
    plant(rehearsal)
    findings = scan_all(rehearsal, client).findings
    places = {finding.place for finding in findings}

    assert {finding.name for finding in findings} == {"a secret that was typed into the wrong place"}
    assert [start for start in PLANTED if not any(place.startswith(start) for place in places)] == []
    assert not any(rehearsal.secrets.typed in str(finding) for finding in findings)


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_what_is_planted_in_a_running_stack_is_found_in_every_place(rehearsal: Rehearsal) -> None:
    """The scan reaches every place: a secret that the stack itself carries there is found and named."""
    assert_planted_is_found(rehearsal, PlainClient(FLOWER_USER, rehearsal.secrets.flower))


@pytest.mark.browser
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_what_is_planted_is_found_through_a_browser(rehearsal: Rehearsal) -> None:
    """The same with every page of Flower's fetched through Chromium."""
    assert_planted_is_found(rehearsal, browser_of(rehearsal))


def test_a_whole_run_leaves_no_secret_outside_sealed_bytes(
    rehearsal: Rehearsal, database_kind: str, request: pytest.FixtureRequest
) -> None:
    """Logs, database, WAL or dump, Redis, MONITOR, journal, Flower, metrics, notices, commands and events are clean."""
    rehearsal.everything()
    scan = scan_all(rehearsal, PlainClient(FLOWER_USER, rehearsal.secrets.flower))
    if database_kind == "postgresql":
        scan.look("PostgreSQL's log", (request.getfixturevalue("postgres_server").folder / "log").read_bytes())

    assert [str(finding) for finding in scan.findings] == []
    assert_rich(rehearsal, scan)
    wanted = {
        "sqlite": ["the database file evertoken.db-wal", "the SQLite dump"],
        "postgresql": ["the PostgreSQL dump"],
    }
    assert all(scan.seen[place] > 50_000 for place in wanted[database_kind])


@pytest.mark.night
@pytest.mark.timeout(1800)
@pytest.mark.xdist_group("rabbitmq")
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_whole_run_over_rabbitmq_leaves_no_secret_outside_sealed_bytes(
    store_url: str,
    new_redis: Callable[..., Any],
    free_ports: Callable[[], int],
    wait_until: Callable[..., None],
    tmp_path: Path,
) -> None:
    """The same, also of RabbitMQ's messages, data and log, with its password nowhere; it goes away in the run, too."""
    server = new_redis("--appendonly", "yes", "--rdbcompression", "no")
    with (
        Rabbit(wait_until) as rabbit,
        Rehearsal(
            tmp_path,
            store_url=store_url,
            redis_server=server,
            rabbit=rabbit,
            free_ports=free_ports,
            wait_until=wait_until,
        ) as rehearsal,
    ):
        rehearsal.everything()
        scan = scan_all(rehearsal, PlainClient(FLOWER_USER, rehearsal.secrets.flower))

        assert [str(finding) for finding in scan.findings] == []
        assert_rich(rehearsal, scan)
        record = rehearsal.events.path.read_bytes()
        for key in (b"publish.evertoken ", b"publish.evertoken.pidbox ", b"deliver.evertoken.refresh "):
            assert key in record
        for start in ("RabbitMQ's data", "RabbitMQ's log run2"):
            assert any(place.startswith(start) and size > 50 for place, size in scan.seen.items()), start


@pytest.mark.night
@pytest.mark.browser
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_browser_is_shown_no_secret(rehearsal: Rehearsal) -> None:
    """The same run, with every page of Flower's fetched through Chromium."""
    browser = browser_of(rehearsal)
    rehearsal.everything()
    scan = scan_all(rehearsal, browser)

    assert [str(finding) for finding in scan.findings] == []
    assert_rich(rehearsal, scan)
