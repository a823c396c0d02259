"""Keys of Celery in Redis that somebody gave another type: the key is named, with the cure, and nothing else is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.daemon import Daemon
from worker.celery import app
from worker.limiter.rights import spoilt_keys

pytestmark = pytest.mark.slow_suite

NewDaemon = Callable[..., Daemon]
READY_SECONDS = 40
STOPS_WORKERS = ["refresh", "unacked", "unacked_index"]
"""What a running worker uses all the time; the others matter when it starts, or is asked something."""
OTHERS = [
    "pull\x06\x169", "_kombu.binding.evertoken", "_kombu.binding.celery.pidbox", "_kombu.binding.reply.celery.pidbox",
    "_kombu.binding.celeryev", "_kombu.binding_permanent.evertoken", "_kombu.binding_deadlines",
]  # fmt: skip


def facts(log: Path, *names: str) -> list[dict[str, Any]]:
    """Return the lines of a log with these facts."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] in names]


def doctor(daemon: Daemon) -> dict[str, dict[str, str]]:
    """Return what the doctor says, by check."""
    return {check["check"]: check for check in json.loads(daemon.run("doctor", "--json", "--offline").stdout)["checks"]}


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_key_of_another_type_is_named_once_and_its_end_too(
    new_daemon: NewDaemon, redis_url: str, wait_until: Callable[..., None]
) -> None:
    """One line when it begins, one when it is over, no stack, and messages are taken again; for each such key."""
    daemon = new_daemon(SCAN_SECONDS="0.3")
    worker, beat = daemon.worker(), daemon.beat()
    daemon.wait_ready(wait_until, worker, beat)
    with redis.Redis.from_url(redis_url) as client:
        for number, name in enumerate(STOPS_WORKERS, 1):
            key = f"evertoken:{name}"
            client.delete(key)
            client.set(key, "x")
            wait_until(lambda number=number: len(facts(worker.log, "broker.spoilt")) == number, READY_SECONDS)
            if name == "unacked":
                reported = doctor(daemon)
            client.delete(key)
            wait_until(lambda number=number: len(facts(worker.log, "broker.mended")) == number, READY_SECONDS)
        client.delete("evertoken:refresh")
        client.lpush("evertoken:refresh", "garbage")
        wait_until(lambda: facts(worker.log, "message.refused"), READY_SECONDS)

    assert [line["keys"] for line in facts(worker.log, "broker.spoilt")] == [
        f"evertoken:{key}" for key in STOPS_WORKERS
    ]
    assert worker.status is beat.status is None
    for child in (worker, beat):
        assert "Traceback" not in child.log.read_text()
    assert len(worker.log.read_text().splitlines()) < 120
    assert reported["redis"]["state"] == "fail"
    assert "redis-cli DEL evertoken:unacked`" in reported["redis"]["detail"]
    assert {reported[check]["state"] for check in ("workers", "queues", "beat")} == {"skip"}


@pytest.mark.slow_suite
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_worker_that_starts_beside_a_spoilt_key_waits_and_can_be_ended(
    new_daemon: NewDaemon, redis_url: str, wait_until: Callable[..., None]
) -> None:
    """It names the key, ends at once when asked, and starts to work when the key is gone."""
    daemon = new_daemon()
    with redis.Redis.from_url(redis_url) as client:
        client.set("evertoken:_kombu.binding.evertoken", "x")
        ended = daemon.worker("ended")
        wait_until(lambda: facts(ended.log, "broker.spoilt"), READY_SECONDS)
        daemon.stop(ended)
        worker = daemon.worker()
        wait_until(lambda: facts(worker.log, "broker.spoilt"), READY_SECONDS)
        client.delete("evertoken:_kombu.binding.evertoken")
        daemon.wait_ready(wait_until, worker)

    assert "Traceback" not in worker.log.read_text() + ended.log.read_text()


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_beat_names_once_what_one_queue_does_not_take(
    new_daemon: NewDaemon, redis_url: str, wait_until: Callable[..., None]
) -> None:
    """That other queues take messages is no all-clear for the one that does not."""
    beat = (daemon := new_daemon(SCAN_SECONDS="0.2")).beat()
    with redis.Redis.from_url(redis_url) as client:
        client.set("evertoken:refresh", "x")
        daemon.wait_ready(wait_until, beat)
        wait_until(lambda: client.llen("evertoken:pull") >= 5, READY_SECONDS)
        client.delete("evertoken:refresh")
        wait_until(lambda: facts(beat.log, "message.published"), READY_SECONDS)

    reported = facts(beat.log, "message.unpublished", "message.published")
    assert [line["event"] for line in reported] == ["message.unpublished", "message.published"]
    assert reported[0]["task"] == "tasks.refresh.scan_due"


def test_every_key_of_a_running_worker_is_looked_at(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is found when it has another type, a list as well as a text; as Celery makes them none is."""
    monkeypatch.setattr(app.conf, "broker_url", redis_url)
    with redis.Redis.from_url(redis_url) as client:
        assert spoilt_keys(client, app.amqp.queues, "evertoken:") == []
        for name in STOPS_WORKERS + OTHERS:
            client.set(f"evertoken:{name}", "x")
        assert set(spoilt_keys(client, app.amqp.queues, "evertoken:")) == {
            f"evertoken:{name}" for name in STOPS_WORKERS + OTHERS
        }
        client.flushall()
        client.lpush("evertoken:unacked", "x")
        client.hset("evertoken:refresh", "a", "b")
        assert set(spoilt_keys(client, app.amqp.queues, "evertoken:")) == {"evertoken:unacked", "evertoken:refresh"}


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_celery_has_no_key_that_is_not_looked_at(
    new_daemon: NewDaemon, redis_url: str, wait_until: Callable[..., None]
) -> None:
    """What a worker, beat and the doctor make in Redis has our prefix and is known here, so a new kombu is noticed."""
    daemon = new_daemon(SCAN_SECONDS="0.3")
    worker, beat = daemon.worker(), daemon.beat()
    daemon.wait_ready(wait_until, worker, beat)
    doctor(daemon)
    with redis.Redis.from_url(redis_url) as client:
        made, until = set[str](), time.monotonic() + 2
        while time.monotonic() < until:
            made |= {key.decode() for key in client.scan_iter()}
        assert [key for key in made if not key.startswith("evertoken:")] == []
        ours = {key for key in made if key.startswith("evertoken:limit:")}
        short_lived = {key for key in made if key.endswith((".reply.celery.pidbox", "unacked_mutex"))}
        daemon.stop(worker, beat)  # they would write their keys while these are spoilt
        client.flushall()
        for key in made - ours - short_lived:
            client.hset(key, "a", "b") if not key.endswith(":unacked") else client.set(key, "x")
        assert made - ours - short_lived - set(spoilt_keys(client, app.amqp.queues, "evertoken:")) == set()
