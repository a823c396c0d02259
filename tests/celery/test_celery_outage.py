"""Failures that Celery would log where nobody looks: an outage of the database, and the expected errors of tasks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest

from tests.faults.proxy import Proxy
from tests.support.daemon import READY_SECONDS, Daemon
from tests.support.world import World
from worker import celery
from worker.celery import EvertokenTask
from worker.errors import (
    EvertokenError,
    JournalError,
    NotReadyError,
    SealError,
    StoreRefusedError,
    StoreUnavailableError,
)
from worker.sandbox.children import Child
from worker.sandbox.process import RunningSandbox
from worker.telemetry import Fact

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = pytest.mark.slow_suite


def events(child: Child, prefix: str) -> list[str]:
    """Return the facts of a log whose names begin so, in order."""
    lines = [line for line in child.log.read_text().splitlines() if line.startswith("{")]
    return [event for line in lines if (event := json.loads(line)["event"]).startswith(prefix)]


def metric(port: int, name: str) -> float:
    """Return the value of a metric that a worker serves."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))


def refreshes_again(daemon: Daemon, sandbox: RunningSandbox, store_url: str, wait_until: Callable[..., None]) -> None:
    """Wait until the daemon has refreshed a new grant, which is stored past any proxy."""
    world = World(sandbox, daemon.environ | {"EVERTOKEN_DATABASE_URL": store_url})
    try:
        grant = world.creator()
        wait_until(lambda: world.look(grant).pair_generation > 1, READY_SECONDS)
    finally:
        world.close()


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_an_outage_of_the_database_is_two_lines_in_the_log_of_a_worker(  # noqa: PLR0917 - fixtures
    new_daemon: Callable[..., Daemon],
    postgres_server: ServerProcess,
    store_url: str,
    sandbox: RunningSandbox,
    free_port: int,
    wait_until: Callable[..., None],
    database_kind: str,
) -> None:
    """With the settings as they come; the metric shows how long it is, and afterwards the worker goes on."""
    with Proxy(store_url) as way:
        daemon = new_daemon(DATABASE_URL=way.url, METRICS_PORT=str(free_port))
        worker, beat = daemon.worker(), daemon.beat()
        daemon.wait_ready(wait_until, worker, beat)
        way.down()
        wait_until(lambda: events(worker, "store.") == ["store.unavailable"], READY_SECONDS)
        wait_until(lambda: metric(free_port, "evertoken_store_away_seconds") > 3, READY_SECONDS)
        way.up()
        wait_until(lambda: events(worker, "store.") == ["store.unavailable", "store.available"], READY_SECONDS)
        refreshes_again(daemon, sandbox, store_url, wait_until)
        assert metric(free_port, "evertoken_store_away_seconds") == 0
        assert metric(free_port, 'evertoken_facts_total{fact="store.unavailable"}') == 1
        assert metric(free_port, 'evertoken_facts_total{fact="store.available"}') == 1
        daemon.stop(beat, worker)

    assert events(worker, "task.failed") == []


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[Fact]:
    """Facts that were logged."""
    facts: list[Fact] = []
    monkeypatch.setattr(celery, "log_fact", facts.append)
    return facts


class Fickle(EvertokenTask):
    """A task that raises the given error."""

    name = "tasks.test.fickle"

    def run(self, error: Exception | None = None) -> None:
        """Raise it."""
        if error is not None:
            raise error


@pytest.fixture
def fickle() -> Iterator[Fickle]:
    """Register the task for one test, as Celery does with all tasks."""
    task = Fickle()
    celery.app.register_task(task)
    yield task
    del celery.app.tasks[task.name]


def failing(task: Any, error: Exception) -> None:
    """Run a task that fails."""
    with pytest.raises(type(error)):
        task(error)


@pytest.mark.parametrize(
    "error",
    [
        StoreRefusedError("the database lacks a table"),
        SealError("the sealed bytes do not open"),
        JournalError("the journal cannot be written"),
        NotReadyError("the keyring lacks key 2"),
        EvertokenError("something that a use case expects"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_expected_failure_of_a_task_is_a_warning_once_until_the_task_succeeds(
    error: EvertokenError, logged: list[Fact], fickle: Fickle
) -> None:
    """Celery logs expected errors at INFO, on a logger that is quiet."""
    failing(fickle, error)
    failing(fickle, error)
    assert [(fact.name, fact.level, fact.fields["reason"]) for fact in logged] == [
        ("task.failed", "warning", str(error))
    ]

    fickle()
    failing(fickle, error)
    assert len(logged) == 2
    failing(fickle, EvertokenError("another reason"))
    assert len(logged) == 3
    fickle()


def test_an_outage_is_left_to_the_store(logged: list[Fact], fickle: Fickle) -> None:
    """One cause has one line, and not one for each task."""
    failing(fickle, StoreUnavailableError("the database is not available"))

    assert logged == []
