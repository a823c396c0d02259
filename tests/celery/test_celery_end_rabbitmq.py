"""A process that is asked to end does so within its bound, also beside a RabbitMQ that does not answer."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import _wait_until
from tests.support.black_hole import BlackHole
from tests.support.daemon import READY_SECONDS, Daemon, seconds_to_end
from tests.support.rabbit import Rabbit
from tests.support.world import World
from worker.consumer import CLOSING_SECONDS, GOODBYE_SECONDS
from worker.sandbox.process import RunningSandbox

pytestmark = [
    pytest.mark.slow_suite,
    pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True),
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("rabbitmq"),
]

LEASE_SECONDS: Final = 30.0
ANSWER_SECONDS: Final = 6.0
SLACK_SECONDS: Final = 10.0
"""What a busy machine may add."""
STALE_SECONDS: Final = 3.0
"""A process that touches its file every second waits for an answer if it has not done so for this long."""
NUMBERS: Final = itertools.count()
BACK_SECONDS: Final = 60.0
"""After this, RabbitMQ has given up a connection from which no heartbeat comes, and has its messages back."""


class Silence:
    """A RabbitMQ that can fall silent with all its connections open.

    Attributes:
        rabbit: the server itself.
        url: its address on the way that falls silent.
    """

    def __init__(self, rabbit: Rabbit, hole: BlackHole, how: str) -> None:
        self.rabbit = rabbit
        self.url = rabbit.url.replace(f":{rabbit.port}/", f":{hole.port}/")
        self.begin = rabbit.pause if how == "frozen" else hole.stand


@pytest.fixture(scope="module")
def rabbit() -> Iterator[Rabbit]:
    """A server of this file's own; each test has a namespace of its own in it."""
    with Rabbit(_wait_until) as server:
        yield server


@pytest.fixture
def silence(rabbit: Rabbit, request: pytest.FixtureRequest) -> Iterator[Silence]:
    """A server that freezes, or one behind a way that becomes half-open."""
    with BlackHole(rabbit.port) as hole:
        try:
            yield Silence(rabbit, hole, request.param)
        finally:
            rabbit.resume()


@pytest.mark.parametrize(
    ("pool", "busy", "silence"),
    [
        ("threads", True, "frozen"),
        ("threads", True, "half-open"),
        *(
            pytest.param(pool, busy, how, marks=pytest.mark.night)
            for how in ("frozen", "half-open")
            for pool, busy in (("threads", False), ("solo", False), ("prefork", False), ("prefork", True))
        ),
    ],
    indirect=["silence"],
)
def test_a_worker_beside_a_rabbitmq_that_does_not_answer_stores_what_it_has_and_ends(  # noqa: PLR0917 - fixtures
    pool: str,
    busy: bool,
    silence: Silence,
    new_daemon: Callable[..., Daemon],
    sandbox: RunningSandbox,
    wait_until: Callable[..., None],
    database_kind: str,
) -> None:
    """With the status 0; its row is gone, no process is left, nothing is lost, and nothing is sent twice."""
    name = f"end{next(NUMBERS)}"
    default, rabbit = f"evertoken-{name}.default", silence.rabbit
    daemon = new_daemon(BROKER_URL=silence.url, NAMESPACE=name, SCAN_SECONDS="300", UPKEEP_SECONDS="300")
    assert daemon.run("db", "upgrade").returncode == 0
    worker = daemon.worker("worker", "-P", pool)
    daemon.wait_ready(wait_until, worker)
    with closing(World(sandbox, daemon.environ)) as world:
        grant = world.creator(scope="user.info.basic")
        assert daemon.run("call", "tasks.notify.deliver", "--countdown", "500").returncode == 0
        wait_until(lambda: rabbit.waiting(default) == 0, READY_SECONDS)
        if busy:
            sandbox.fault("slow", creator=grant.creator_id, call="refresh", seconds=ANSWER_SECONDS, times=1)
            assert daemon.run("call", "tasks.refresh.scan_due").returncode == 0
            wait_until(lambda: world.look(grant).generation > 1, READY_SECONDS)
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text(encoding="utf-8").split()
        silence.begin()
        lasts = GOODBYE_SECONDS + CLOSING_SECONDS + SLACK_SECONDS + busy * ANSWER_SECONDS
        seconds_to_end(worker, lasts if pool != "prefork" or not busy else lasts + LEASE_SECONDS)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), READY_SECONDS)
        assert world.services.store.workers_seen(3600) == []
        assert world.services.journal.load()[0] == 0
        assert world.look(grant).pair_generation == 1 + busy

        rabbit.resume()
        wait_until(lambda: rabbit.waiting(default) == 1, BACK_SECONDS)
        daemon.environ["EVERTOKEN_BROKER_URL"] = rabbit.url
        daemon.wait_ready(wait_until, daemon.worker("another"))
        world.make_due(grant)
        assert daemon.run("call", "tasks.refresh.scan_due").returncode == 0
        wait_until(lambda: world.look(grant).pair_generation == 2 + busy, READY_SECONDS)
        assert len(world.refreshes(grant)) == 1 + busy
        assert world.verdict(grant).sound

    log = worker.log.read_text()
    assert worker.status == 0, log
    assert log.count('"event": "worker.goodbye_unanswered"') == 1
    assert "Traceback" not in log


@pytest.mark.parametrize("silence", ["frozen", "half-open"], indirect=True)
@pytest.mark.parametrize(("process", "most"), [("beat", 15), ("exporter", 30)])
def test_beat_and_exporter_end_within_their_bounds_beside_a_rabbitmq_that_does_not_answer(  # noqa: PLR0917 - fixtures
    process: str,
    most: float,
    silence: Silence,
    new_daemon: Callable[..., Daemon],
    free_ports: Callable[[], int],
    wait_until: Callable[..., None],
    database_kind: str,
) -> None:
    """Units, compose and chart give them no more time before they are killed; they are in the middle of a question."""
    daemon = new_daemon(BROKER_URL=silence.url, NAMESPACE="ends", EXPORTER_PORT=str(free_ports()))
    assert daemon.run("db", "upgrade").returncode == 0
    child = daemon.beat() if process == "beat" else daemon.exporter("--every", "1")
    lives = Path(daemon.environ["EVERTOKEN_RUN_DIR"], process)
    wait_until(lives.exists, READY_SECONDS)
    silence.begin()
    wait_until(lambda: time.time() - lives.stat().st_mtime > STALE_SECONDS, READY_SECONDS)
    seconds_to_end(child, most)

    assert child.status == 0, child.tail()
    assert "Traceback" not in child.log.read_text()
