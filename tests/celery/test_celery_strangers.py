"""A worker beside strangers who write to Redis: what they leave there ends no worker and changes none."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery import Celery
from celery.worker.control import Panel

from tests.support.daemon import Daemon
from worker.broker.redis import RedisBroker
from worker.celery import app
from worker.cli import checks_outside
from worker.consumer import CONTROLS
from worker.store import Store

pytestmark = pytest.mark.slow_suite

NewDaemon = Callable[..., Daemon]
QUEUE = "evertoken:refresh"
INFO = {"exchange": "", "routing_key": "refresh"}
READY_SECONDS = 40
FLOWER = {"stats", "active_queues", "registered", "scheduled", "active", "reserved", "revoked", "conf"}
"""What Flower asks each worker, besides `enable_events`."""


def message(body: Any, *, tag: Any = "tag", encoding: str = "base64", **headers: Any) -> str:
    """Return a message as it lies in Redis."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return json.dumps({
        "body": base64.b64encode(text).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": "tasks.refresh.refresh_grants", "id": "an id"} | headers,
        "properties": {"body_encoding": encoding, "delivery_tag": tag, "delivery_info": INFO},
    })  # fmt: skip


STRANGE = [
    "garbage", "{}", "[]", "5", "null", "\x00", "[" * 50_000, '{"body": "x"}', '{"body": "W10=", "properties": {}}',
    message([[7], {}, None], tag=["a"]),
    message([[7], {}, None], encoding="none"),
    message([[7], {}, None], task=["a"]),
    message([[7], {}, None], task="celery.map"),
    message([[7], {}, None], task="tasks.of.tomorrow"),
    message([[7], {}, None], id=None),
    message([[7], {}, None], root_id=["a"], stamps=5, stamped_headers=7),
    message([[7], {}, None], eta="tomorrow"),
    message([[7], {}, None], eta="9999-12-31T00:00:00"),
    message([[7], {}, {"chain": ["x"]}]),
    message([[["7"]], {}, None]),
    message([[list(range(1, 1002))], {}, None]),
    message(b"[[" * 30_000),
    message(5),
    message(zlib.compress(b" " * 50_000_000), compression="application/x-gzip"),
]  # fmt: skip
TAKEN = message([[[999_999]], {}, None])
"""A message that is in order; the grant is not there, so it does nothing."""


def resident(pid: int) -> int:
    """Return the bytes of memory that a process holds."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


def logged(log: Path) -> list[dict[str, Any]]:
    """Return the lines of a worker's log."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_no_message_ends_a_worker(new_daemon: NewDaemon, redis_url: str, wait_until: Callable[..., None]) -> None:
    """Each message that is not ours is reported and dropped, unopened; the next one is taken."""
    worker = (daemon := new_daemon()).worker()
    daemon.wait_ready(wait_until, worker)
    with redis.Redis.from_url(redis_url) as client:
        client.lpush(QUEUE, TAKEN)
        wait_until(lambda: not client.llen(QUEUE), READY_SECONDS)
        before = resident(worker.pid)
        for strange in STRANGE:
            client.lpush(QUEUE, strange)
        client.publish("evertoken:/0.celery.pidbox", "[]")
        client.publish("evertoken:/0.celery.pidbox", "garbage")
        client.publish("evertoken:/0.celery.pidbox", "{}")
        wait_until(lambda: not client.llen(QUEUE), READY_SECONDS)
        client.lpush(QUEUE, TAKEN)
        wait_until(lambda: not client.llen(QUEUE) and not client.hlen("evertoken:unacked"), READY_SECONDS)
    refused = [line["reason"] for line in logged(worker.log) if line["event"] == "message.refused"]

    assert worker.status is None
    assert len(refused) >= len(STRANGE)
    assert any("compressed" in reason for reason in refused)
    assert resident(worker.pid) - before < 30_000_000
    assert "onnection to broker lost" not in worker.log.read_text()


@pytest.mark.slow_suite
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_no_remote_command_stops_or_slows_a_worker(
    new_daemon: NewDaemon, redis_url: str, wait_until: Callable[..., None]
) -> None:
    """Each is refused in one line without a traceback; what Flower sends is answered and leaves no error in the log."""
    worker = (daemon := new_daemon()).worker()
    daemon.wait_ready(wait_until, worker)
    remote = Celery("stranger", broker=redis_url, set_as_current=False)
    remote.conf.broker_transport_options = {"global_keyprefix": "evertoken:"}
    sent: list[tuple[str, dict[str, Any]]] = [
        ("shutdown", {}),
        ("cancel_consumer", {"queue": "refresh"}),
        ("rate_limit", {"task_name": "tasks.refresh.refresh_grants", "rate_limit": "1/h"}),
        ("time_limit", {"task_name": "tasks.refresh.refresh_grants", "hard": 0.1}),
        ("pool_shrink", {"n": 4}),
        ("revoke", {"task_id": "an id"}),
        ("disable_events", {}),
    ]
    for command, arguments in sent:
        [answer] = remote.control.broadcast(command, arguments=arguments, reply=True, limit=1, timeout=10)
        assert "error" in answer["worker@test"], command
    remote.control.broadcast("garbage")
    with remote.connection_for_write() as connection:  # what Flower's listener sends at its start
        remote.events.Receiver(connection).wakeup_workers(channel=connection.default_channel)
    look = remote.control.inspect(timeout=5)

    assert {queue["name"] for queue in look.active_queues()["worker@test"]} == {"refresh", "pull", "default"}
    assert not any("rate_limit" in task for task in look.registered("rate_limit")["worker@test"])
    assert all(getattr(look, command)() for command in FLOWER)
    assert worker.status is None
    lines = logged(worker.log)
    refused = [line["reason"] for line in lines if line["event"] == "message.refused"]
    assert refused == [
        *(f"the remote command {command} is not permitted" for command, _ in sent),
        "an unknown remote command",
    ]
    assert [line for line in lines if line["level"] == "error" or "exception" in line] == []
    remote.close()


def test_the_remote_commands_are_those_that_somebody_needs() -> None:
    """Flower's and the doctor's, and none that ends or changes a worker."""
    assert set(Panel.data) == CONTROLS == FLOWER | {"ping", "enable_events", "heartbeat"}
    assert app.conf.worker_disable_rate_limits is True


def checks(daemon: Daemon) -> dict[str, dict[str, str]]:
    """Return what the doctor says, by check."""
    return {check["check"]: check for check in json.loads(daemon.run("doctor", "--json", "--offline").stdout)["checks"]}


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_the_doctor_sees_a_queue_without_a_worker_and_when_beat_was_last_heard(
    new_daemon: NewDaemon, redis_url: str, store: Store, wait_until: Callable[..., None]
) -> None:
    """A worker of other queues is not enough; beat is heard through any worker, wherever beat runs."""
    daemon = new_daemon(SCAN_SECONDS="1")
    worker = daemon.worker("pulls", queues="pull,default")
    daemon.wait_ready(wait_until, worker)
    with redis.Redis.from_url(redis_url) as client:
        client.lpush(QUEUE, *[TAKEN] * 19)
    alone = checks(daemon)
    beat = daemon.beat()
    wait_until(lambda: store.tick_age() is not None, READY_SECONDS)
    heard = checks(daemon)
    daemon.stop(beat)
    wait_until(lambda: (store.tick_age() or 0) > 6, READY_SECONDS)
    silent = checks(daemon)

    assert alone["queues"]["state"] == "fail"
    assert "refresh 19 (0 workers)" in alone["queues"]["detail"]
    assert "start one with `-Q refresh`" in alone["queues"]["detail"]
    assert (alone["workers"]["state"], alone["beat"]["state"]) == ("ok", "warn")
    assert heard["beat"]["state"] == "ok"
    assert silent["beat"]["state"] == "fail"


def test_the_doctor_sees_a_limit_on_a_task_and_a_long_queue(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    """A worker of an older version still accepts a rate limit."""
    monkeypatch.setattr(app.conf, "broker_url", redis_url)
    looks = {
        "registered": {"old@test": ["tasks.refresh.refresh_grants [rate_limit=1/h]", "tasks.pull.scan_due"]},
        "active_queues": {"a@test": [{"name": name} for name in ("refresh", "pull", "default")]},
    }
    monkeypatch.setattr(
        type(app.control), "inspect", property(lambda _: lambda **_: SimpleNamespace(
            registered=lambda *_: looks["registered"], active_queues=lambda: looks["active_queues"]
        )),
    )  # fmt: skip
    broker = RedisBroker(redis_url, "evertoken:")
    limited, short = checks_outside.workers(app), checks_outside.queues(app, broker)
    with redis.Redis.from_url(redis_url) as client:
        client.lpush("evertoken:pull", *["x"] * 1_001)
    long = checks_outside.queues(app, broker)

    assert limited.state == "fail"
    assert "old@test runs tasks.refresh.refresh_grants [rate_limit=1/h]" in limited.detail
    assert (short.state, long.state) == ("ok", "warn")
    assert "pull 1001 (1 worker)" in long.detail
