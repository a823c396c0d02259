"""What is really in Redis: messages that carry ids and nothing else."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import redis

from tests.celery.conftest import CANARY
from tests.support.daemon import Daemon
from worker.sandbox.process import RunningSandbox

REFRESHED = """
import tasks.refresh, tasks.pull
from worker.services import shared_services
tasks.refresh.scan_due()
tasks.refresh.refresh_grants([grant.grant_id for grant in shared_services().store.due(10)])
tasks.pull.scan_due()
shared_services().close()
"""

RELEASED = """
import tasks.refresh
from sqlalchemy import text
from worker.services import shared_services
store = shared_services().store
due = [grant.grant_id for grant in store.due(10)]
store.pull_brake("trouble", probe_seconds=0)
for change in ("UPDATE grants SET unproven_since = NULL", "UPDATE brake SET next_probe_at = 0"):
    store.transact(lambda connection: connection.execute(text(change)).close(), writes=True)
tasks.refresh.refresh_grants(due[:1])
tasks.refresh.refresh_grants(due[1:2])
shared_services().close()
"""

pytestmark = [pytest.mark.slow_suite, pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)]


def imported(daemon: Daemon, sandbox: RunningSandbox, count: int) -> None:
    """Let creators consent, and import their tokens as a file would bring them: at the end of their lives."""
    grants = sandbox.grants(count, prefix="messages-", age=80_000)
    lines = "".join(
        json.dumps({**grant, "issued_at": int(grant["issued_at"]) - 80_000, "expires_in": 86_400}) + "\n"
        for grant in grants
    )
    result = daemon.run("grants", "import", "-", text=lines)

    assert result.returncode == 0, result.stderr


def messages(client: redis.Redis, queue: str) -> list[dict[str, Any]]:
    """Return the messages of a queue as they lie in Redis, oldest first."""
    return [json.loads(text) for text in reversed(client.lrange(f"evertoken:{queue}", 0, -1))]


def test_messages_carry_ids_and_nothing_else(
    new_daemon: Callable[..., Daemon], sandbox: RunningSandbox, redis_url: str, database_kind: str
) -> None:
    """A scan, a refresh and the pulls they ask for leave ids in Redis: no token, no creator, no name of ours."""
    daemon = new_daemon()
    imported(daemon, sandbox, 3)
    result = daemon.run_python(REFRESHED)
    assert result.returncode == 0, result.stderr

    with redis.Redis.from_url(redis_url) as client:
        refreshes, pulls = messages(client, "refresh"), messages(client, "pull")
        names = client.keys("*")
        everything = b"".join(content(client, name) for name in names) + b"".join(names)
    tasks = [message["headers"]["task"] for message in refreshes + pulls]
    bodies = [json.loads(base64.b64decode(message["body"])) for message in refreshes + pulls]

    assert tasks[0] == "tasks.refresh.refresh_grants"
    assert set(tasks[1:]) <= {"tasks.refresh.refresh_grants", "tasks.pull.pull_accounts"}
    assert "tasks.pull.pull_accounts" in tasks
    assert all(message["content-type"] == "application/json" for message in refreshes + pulls)
    assert all(not kwargs for _, kwargs, _ in bodies)
    assert sorted(bodies[0][0][0]) == [1, 2, 3]
    assert all(is_ids(arguments) for arguments, _, _ in bodies)
    assert all(set(str(message["headers"]["argsrepr"])) <= set("0123456789[](), ") for message in refreshes + pulls)
    assert CANARY.encode() not in everything
    assert b"messages-" not in everything
    assert all(name.startswith(b"evertoken:") for name in names)


def content(client: redis.Redis, name: bytes) -> bytes:
    """Return what a key holds; the bodies of messages decoded as well."""
    read: dict[Any, Callable[[], Any]] = {
        b"string": lambda: client.get(name),
        b"list": lambda: client.lrange(name, 0, -1),
        b"set": lambda: client.smembers(name),
        b"zset": lambda: client.zrange(name, 0, -1, withscores=True),
        b"hash": lambda: client.hgetall(name),
    }
    held = repr(read[client.type(name)]()).encode()
    return held + b"".join(base64.b64decode(body) for body in re.findall(rb'"body": *"([^"]+)"', held))


def test_a_scan_follows_at_once_when_the_brake_is_released(
    new_daemon: Callable[..., Daemon], sandbox: RunningSandbox, redis_url: str, database_kind: str
) -> None:
    """What waited for the brake does not wait for beat as well; a refresh that released nothing asks for no scan."""
    daemon = new_daemon()
    imported(daemon, sandbox, 3)

    result = daemon.run_python(RELEASED)

    assert result.returncode == 0, result.stderr
    with redis.Redis.from_url(redis_url) as client:
        asked = [message["headers"]["task"] for message in messages(client, "refresh")]
    assert asked == ["tasks.refresh.scan_due"]


def is_ids(arguments: Any) -> bool:
    """Return whether arguments are whole numbers, or one list of them."""
    flat = arguments[0] if len(arguments) == 1 and isinstance(arguments[0], list) else arguments
    return bool(flat) and all(type(item) is int for item in flat)
