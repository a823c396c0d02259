"""A worker whose threads were all busy takes the next messages at once."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import redis

from tests.support.daemon import Daemon

MESSAGES = 20
SHORT = """
import tasks.notify
for _ in range(%d):
    tasks.notify.deliver.apply_async(queue="default")
"""


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_no_second_passes_between_two_waves_of_messages(
    new_daemon: Callable[..., Daemon], redis_url: str, wait_until: Callable[..., None], database_kind: str
) -> None:
    """One thread works off short tasks one after the other; its loop would look again only once in a second."""
    daemon = new_daemon()
    assert daemon.run_python(SHORT % MESSAGES).returncode == 0
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen("evertoken:default") == MESSAGES
        worker = daemon.worker("worker", "-c", "1")
        daemon.wait_ready(wait_until, worker)
        wait_until(lambda: client.llen("evertoken:default") < MESSAGES, 20)
        began = time.monotonic()
        wait_until(lambda: client.llen("evertoken:default") == 0, 30)
    took = time.monotonic() - began
    daemon.stop(worker)

    assert took < MESSAGES / 2
