"""The quota while its Redis fails over: nothing is sent twice over, and the new master counts for all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from tests.conftest import APP_ID
from tests.support.sentinels import SENTINEL_PASSWORD, SERVICE, Watched
from worker.limiter import Limiter

pytestmark = pytest.mark.slow_suite

PER_SECOND = 5
BACK_SECONDS = 20.0


@pytest.fixture
def watched(wait_until: Callable[..., None]) -> Iterator[Watched]:
    """A master with a replica, and three Sentinels that know both."""
    with Watched() as servers:
        wait_until(servers.settled, 20)
        yield servers


def test_no_second_has_more_than_the_quota_while_the_master_dies(
    watched: Watched, new_limiter: Callable[..., Limiter], wait_until: Callable[..., None]
) -> None:
    """The new master gives permits only once those that it may not know of have left the second."""
    facts: list[str] = []
    limiter = new_limiter(
        watched.url, per_second=PER_SECOND, per_minute=60_000, report=lambda name, *_: facts.append(name)
    )
    sent: list[float] = []
    enough = threading.Event()

    def send() -> None:
        while not enough.is_set():
            if limiter.admit(lane="refresh", call="call/", account="a", patience_seconds=0.5) == 0:
                sent.append(time.monotonic())

    sender = threading.Thread(target=send)
    sender.start()
    try:
        wait_until(lambda: len(sent) >= 2 * PER_SECOND)
        watched.servers[0].process.kill()
        wait_until(lambda: "quota.master_changed" in facts, BACK_SECONDS)
        changed = time.monotonic()
        wait_until(lambda: len([at for at in sent if at > changed]) >= 2 * PER_SECOND, BACK_SECONDS)
    finally:
        enough.set()
        sender.join()

    assert all(later - earlier > 0.99 for earlier, later in zip(sent, sent[PER_SECOND:], strict=False))
    assert limiter.status().shared
    with watched.client(watched.servers[1]) as client:
        assert client.exists(f"evertoken:limit:{APP_ID}:app")


def test_a_master_that_changes_without_an_outage_is_taken_for_one_that_knows_less(
    watched: Watched, new_limiter: Callable[..., Limiter], wait_until: Callable[..., None]
) -> None:
    """A planned failover is over in a moment, so no call fails; the next permit still waits for two seconds."""
    limiter = new_limiter(watched.url)
    assert limiter.take(lane="refresh", call="call/", account="a") == 0
    with redis.Redis(port=watched.sentinels[0].port, password=SENTINEL_PASSWORD) as sentinel:
        sentinel.execute_command("SENTINEL FAILOVER", SERVICE)

    def demoted() -> bool:
        with watched.client(watched.servers[0]) as client:
            return bool(client.info("replication")["role"] == "slave")

    wait_until(demoted, BACK_SECONDS)

    assert limiter.take(lane="refresh", call="call/", account="a") > 1
