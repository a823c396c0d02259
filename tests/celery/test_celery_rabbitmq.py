"""RabbitMQ carries the messages and Redis counts the quota alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import amqp
import pytest

from tests.conftest import ServerProcess, _wait_until
from tests.support.daemon import READY_SECONDS, Daemon
from tests.support.rabbit import PASSWORD, USER, Rabbit
from tests.support.redis_user import line_of_page, refused, restrict
from tests.support.world import World
from worker.limiter.rights import OF_DOCTOR
from worker.sandbox.children import Child
from worker.sandbox.process import RunningSandbox
from worker.store import GrantView
from worker.watchdog import STATUS

pytestmark = [
    pytest.mark.slow_suite,
    pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True),
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("rabbitmq"),
]

BACK_SECONDS = 60.0
HUNG_SECONDS = 130.0

START = """
import sys
sys.argv = ["celery", "-A", "worker", *{arguments!r}]
import threading
from pathlib import Path
from worker import celeryconfig
{change}
from celery.__main__ import main
main()
"""
WORKER = "worker -c 2 -Q refresh,pull,default -n worker@test"
DROPS = """
from worker.channels import AmqpConnection
read = AmqpConnection.blocking_read
def drop(self, timeout=None):
    if Path("hang").exists():
        for channel in list(self.channels.values()):
            for tag in list(getattr(channel, "callbacks", ())):
                channel.basic_cancel(tag, nowait=True)
                channel.callbacks.pop(tag, None)
    return read(self, timeout)
AmqpConnection.blocking_read = drop
"""
"""The loop runs and hears heartbeats, and its queues have no taker any more."""
STANDS = """
from worker.channels import AmqpConnection
read = AmqpConnection.blocking_read
def stand(self, timeout=None):
    if Path("hang").exists() and threading.current_thread() is threading.main_thread():
        threading.Event().wait()
    return read(self, timeout)
AmqpConnection.blocking_read = stand
"""
"""The loop itself waits for what never comes."""


@pytest.fixture(scope="module")
def rabbit() -> Iterator[Rabbit]:
    """A server of this file's own; each test has a namespace of its own in it."""
    with Rabbit(_wait_until) as server:
        yield server


def checks(daemon: Daemon) -> dict[str, str]:
    """Return state and detail of the doctor's checks."""
    said = json.loads(daemon.run("doctor", "--json", "--offline").stdout)
    return {check["check"]: f"{check['state']} {check['detail']}" for check in said["checks"]}


def facts(child: Child, event: str) -> list[dict[str, object]]:
    """Return the lines of a log that report a fact."""
    lines = [json.loads(line) for line in child.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("event") == event]


@contextmanager
def refreshed(
    rabbit: Rabbit,
    new_daemon: Callable[..., Daemon],
    sandbox: RunningSandbox,
    wait_until: Callable[..., None],
    namespace: str,
) -> Iterator[tuple[Daemon, World, GrantView, Child, Child]]:
    """Yield daemon, world, a grant that was refreshed once, worker and beat, which are stopped at the end."""
    daemon = new_daemon(BROKER_URL=rabbit.url, NAMESPACE=namespace, HANG_SECONDS="4")
    assert daemon.run("db", "upgrade").returncode == 0
    with closing(World(sandbox, daemon.environ)) as world:
        grant = world.creator(scope="user.info.basic")
        worker, beat = daemon.worker(), daemon.beat()
        daemon.wait_ready(wait_until, worker, beat)
        wait_until(lambda: world.look(grant).pair_generation == 2, READY_SECONDS)
        yield daemon, world, grant, worker, beat
        daemon.stop(beat, worker)


def is_pulled(world: World, grant: GrantView) -> bool:
    """Return True if TikTok was asked for the account of this creator."""
    entries = world.sandbox.entries()
    return any(entry.creator == grant.creator_id and entry.call.endswith("business/get/") for entry in entries)


def test_a_fleet_is_refreshed_and_pulled_and_goes_on_after_a_restart(
    rabbit: Rabbit,
    new_daemon: Callable[..., Daemon],
    sandbox: RunningSandbox,
    new_redis: Callable[..., ServerProcess],
    wait_until: Callable[..., None],
) -> None:
    """While RabbitMQ is away nothing looks well; nothing is lost or sent twice, and Redis needs few rights."""
    rights = line_of_page("evertoken-restarted:", carries_messages=False)
    admin, redis_url = restrict(new_redis(), *rights)
    daemon = new_daemon(BROKER_URL=rabbit.url, REDIS_URL=redis_url, NAMESPACE="restarted")
    assert daemon.run("db", "upgrade").returncode == 0
    with closing(World(sandbox, daemon.environ)) as world:
        grants = world.creators(12, scope="user.info.basic")
        worker, beat = daemon.worker(), daemon.beat()
        daemon.wait_ready(wait_until, worker, beat)
        wait_until(lambda: all(world.look(each).pair_generation == 2 for each in grants), READY_SECONDS)
        wait_until(lambda: all(is_pulled(world, each) for each in grants), READY_SECONDS)
        before = checks(daemon)

        rabbit.kill()
        wait_until(lambda: facts(beat, "message.unpublished"), READY_SECONDS)
        called, away = daemon.run("call", "tasks.refresh.scan_due"), checks(daemon)
        for each in grants:
            world.make_due(each)
        rabbit.start()
        wait_until(lambda: all(world.look(each).pair_generation == 3 for each in grants), BACK_SECONDS)
        wait_until(lambda: facts(beat, "message.published"), BACK_SECONDS)
        daemon.stop(worker, beat)
        left = rabbit.waiting("evertoken-restarted.refresh")
        verdict, sent = world.verdict(*grants), [len(world.refreshes(each)) for each in grants]
    kept = {str(key) for key in admin.keys("*")}

    assert refused(admin) <= OF_DOCTOR
    assert before["redis"] == away["redis"] == "ok answers, and never evicts"
    assert before["rabbitmq"].startswith("ok RabbitMQ ")
    assert before["queues"].startswith("ok default 0 (1 worker), pull 0 (1 worker), refresh 0 (1 worker)")
    assert before["workers"].startswith("ok 1 answered")
    assert away["rabbitmq"].startswith("fail RabbitMQ does not serve: Connection refused")
    assert away["queues"].startswith("skip")
    assert called.returncode != 0
    assert "look at EVERTOKEN_BROKER_URL" in called.stderr
    assert verdict.sound
    assert sent == [2] * len(grants)
    assert left == 0
    assert kept
    assert all(key.startswith("evertoken-restarted:limit") for key in kept)
    logs = b"".join(path.read_bytes() for path in Path(daemon.folder, "logs").iterdir())
    said = logs + json.dumps([before, away]).encode() + called.stderr.encode() + called.stdout.encode()
    assert PASSWORD.encode() not in said
    assert b"Traceback" not in logs


@pytest.mark.parametrize(
    ("url", "said"),
    [
        pytest.param(lambda url: url.replace(PASSWORD, f"{PASSWORD}2"), "ACCESS_REFUSED", id="password"),
        pytest.param(lambda url: f"{url}no", "530", id="virtual host"),
    ],
)
def test_a_login_that_rabbitmq_refuses_is_reported_calmly_until_it_is_taken(
    url: Callable[[str], str],
    said: str,
    rabbit: Rabbit,
    new_daemon: Callable[..., Daemon],
    wait_until: Callable[..., None],
) -> None:
    """A worker waits, a beat ends with a clear line, doctor says why, and no log has a traceback or a password."""
    daemon = new_daemon(BROKER_URL=url(rabbit.url), NAMESPACE="wrong")
    assert daemon.run("db", "upgrade").returncode == 0
    worker, beat = daemon.worker(), daemon.beat()
    wait_until(lambda: worker.log.read_text().count(said) >= 2, READY_SECONDS)
    wait_until(lambda: beat.status is not None, READY_SECONDS)
    refused = checks(daemon)["rabbitmq"]
    if said == "ACCESS_REFUSED":
        rabbit.control("change_password", USER, f"{PASSWORD}2")
        try:
            daemon.wait_ready(wait_until, worker)
            wait_until(lambda: "worker@test ready" in worker.log.read_text(), READY_SECONDS)
        finally:
            rabbit.control("change_password", USER, PASSWORD)
    daemon.stop(worker)

    assert refused.startswith("fail RabbitMQ does not serve: ")
    assert "look at EVERTOKEN_BROKER_URL" in beat.log.read_text()
    logs = worker.log.read_text() + beat.log.read_text()
    assert "Traceback" not in worker.log.read_text()
    assert PASSWORD not in logs


def test_a_queue_that_somebody_deletes_is_declared_and_served_again(
    rabbit: Rabbit, new_daemon: Callable[..., Daemon], wait_until: Callable[..., None]
) -> None:
    """RabbitMQ tells the worker, which says so in its log, connects again and declares it."""
    daemon = new_daemon(BROKER_URL=rabbit.url, NAMESPACE="deleted")
    assert daemon.run("db", "upgrade").returncode == 0
    worker = daemon.worker()
    # At once: in the first tenth of a second Celery drops what RabbitMQ says of a queue.
    wait_until(lambda: b"worker@test ready" in worker.log.read_bytes(), READY_SECONDS)
    with rabbit.client() as client:
        client.channel().queue_delete("evertoken-deleted.refresh")
    wait_until(lambda: "refresh 0 (1 worker)" in checks(daemon)["queues"], READY_SECONDS)
    assert worker.status is None
    daemon.stop(worker)
    log = worker.log.read_text()
    assert "ConsumerCancelled" in log
    assert "Traceback" not in log


@pytest.mark.night
@pytest.mark.parametrize(
    "change", [pytest.param(DROPS, id="its queues have no taker"), pytest.param(STANDS, id="it stands")]
)
def test_a_worker_that_takes_no_messages_although_some_wait_ends(
    change: str,
    rabbit: Rabbit,
    new_daemon: Callable[..., Daemon],
    wait_until: Callable[..., None],
    request: pytest.FixtureRequest,
) -> None:
    """Its supervisor starts another, which gets the messages; an idle worker, before that, is left alone."""
    name = f"hung{len(request.node.name)}"
    daemon = new_daemon(BROKER_URL=rabbit.url, NAMESPACE=name, HANG_SECONDS="4")
    assert daemon.run("db", "upgrade").returncode == 0
    worker = daemon.script("worker", START.format(arguments=WORKER.split(), change=change))
    daemon.wait_ready(wait_until, worker)
    idle_since = worker_beats(daemon)
    wait_until(lambda: worker_beats(daemon) > idle_since + 6, READY_SECONDS)
    assert worker.status is None, worker.tail()

    (daemon.folder / "hang").touch()
    for _ in range(30):  # one that was asked for before the hang began is taken still
        if rabbit.waiting(f"evertoken-{name}.refresh"):
            break
        assert daemon.run("call", "tasks.refresh.scan_due").returncode == 0
    wait_until(lambda: worker.status is not None, HUNG_SECONDS)

    log = worker.log.read_text()
    assert worker.status == STATUS, log
    assert log.count('"event": "worker.hangs"') == 1
    (daemon.folder / "hang").unlink()
    another = daemon.worker("another")
    daemon.wait_ready(wait_until, another)
    wait_until(lambda: rabbit.waiting(f"evertoken-{name}.refresh") == 0, READY_SECONDS)
    daemon.stop(another)


def worker_beats(daemon: Daemon) -> float:
    """Return when the worker's heartbeat file was last touched, in seconds."""
    return (daemon.folder / "run" / "worker-worker@test").stat().st_mtime


@pytest.mark.night
def test_rabbitmq_away_or_frozen_ends_neither_worker_nor_beat(
    rabbit: Rabbit, new_daemon: Callable[..., Daemon], sandbox: RunningSandbox, wait_until: Callable[..., None]
) -> None:
    """For longer than the limit it answers nobody, with all connections open; then both go on as the same processes."""
    with refreshed(rabbit, new_daemon, sandbox, wait_until, "frozen") as (_, world, grant, worker, beat):
        rabbit.pause()
        try:
            wait_until(lambda: facts(beat, "message.unpublished"), BACK_SECONDS)
            wait_until(lambda: b"Connection to broker lost" in worker.log.read_bytes(), BACK_SECONDS)
        finally:
            rabbit.resume()
        world.make_due(grant)
        wait_until(lambda: world.look(grant).pair_generation == 3, BACK_SECONDS)
        wait_until(lambda: facts(beat, "message.published"), BACK_SECONDS)
        assert (worker.status, beat.status) == (None, None), worker.tail() + beat.tail()
    assert b".hangs" not in worker.log.read_bytes() + beat.log.read_bytes()


@pytest.mark.night
def test_an_alarm_of_rabbitmq_is_reported_and_ends_nobody(
    rabbit: Rabbit, new_daemon: Callable[..., Daemon], sandbox: RunningSandbox, wait_until: Callable[..., None]
) -> None:
    """While it lacks memory or disk it takes no messages: beat and doctor say so, and afterwards refreshing goes on."""
    with refreshed(rabbit, new_daemon, sandbox, wait_until, "alarmed") as (daemon, world, grant, worker, beat):
        rabbit.control("set_disk_free_limit", "1000000000000000")
        try:
            wait_until(lambda: facts(beat, "broker.blocked") and facts(beat, "message.unpublished"), BACK_SECONDS)
            said = checks(daemon)
            world.make_due(grant)
        finally:
            rabbit.control("set_disk_free_limit", "1MB")
        wait_until(lambda: facts(beat, "broker.unblocked") and facts(beat, "message.published"), BACK_SECONDS)
        wait_until(lambda: world.look(grant).pair_generation == 3, BACK_SECONDS)
        assert (worker.status, beat.status) == (None, None), worker.tail() + beat.tail()
    assert len(facts(beat, "broker.blocked")) == 1
    assert said["rabbitmq"].startswith(
        "fail RabbitMQ does not serve: it takes no messages: an alarm for memory or disk"
    )


@pytest.mark.night
def test_a_worker_refuses_what_is_no_message_and_waits_for_a_queue_of_another_kind(
    rabbit: Rabbit, new_daemon: Callable[..., Daemon], sandbox: RunningSandbox, wait_until: Callable[..., None]
) -> None:
    """Whoever may write to RabbitMQ can neither end the worker nor let it run what is not ours."""
    daemon = new_daemon(BROKER_URL=rabbit.url, NAMESPACE="strange")
    assert daemon.run("db", "upgrade").returncode == 0
    queue = "evertoken-strange.refresh"
    with rabbit.client() as client, closing(World(sandbox, daemon.environ)) as world:
        channel = client.channel()
        channel.queue_declare(queue, durable=False, auto_delete=False)
        worker = daemon.worker()
        wait_until(lambda: facts(worker, "broker.spoilt"), READY_SECONDS)
        said = checks(daemon)
        channel.queue_delete(queue)
        daemon.wait_ready(wait_until, worker)
        for message in (
            amqp.Message("junk"),
            amqp.Message(
                "[[], {}, {}]", content_type="application/x-python-serialize", application_headers={"task": "a"}
            ),
            amqp.Message(b"\xff\xfe", content_encoding="binary", application_headers={"compression": "zlib"}),
            amqp.Message("x" * 200_000, content_type="application/json"),
        ):
            channel.basic_publish(message, exchange="", routing_key=queue)
        wait_until(lambda: len(facts(worker, "message.refused")) == 4, READY_SECONDS)
        grant = world.creator(scope="user.info.basic")
        assert daemon.run("call", "tasks.refresh.scan_due").returncode == 0
        wait_until(lambda: world.look(grant).pair_generation == 2, READY_SECONDS)
        assert worker.status is None
        daemon.stop(worker)
    assert said["rabbitmq"].startswith(f"fail {queue} of a kind that Celery cannot use: delete them")
    assert [line["keys"] for line in facts(worker, "broker.mended")] == [queue]
    assert b"Traceback" not in worker.log.read_bytes()
