"""From a creator's consent to the second pull: real commands, worker and beat over a real Redis and both databases."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from tests.support.daemon import Daemon, daemon_settings
from tests.support.small_accounts import small_sandbox
from tests.support.world import World
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox
from worker.vault import Keyring

pytestmark = pytest.mark.slow_suite

LIFE_SECONDS = 6
CANARY = "CANARY"


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    """A TikTok whose access tokens live for seconds and whose used refresh tokens are dead at once."""
    with small_sandbox(SandboxOptions(rotation="strict", expires_in=LIFE_SECONDS, canary=CANARY)) as running:
        yield running


@pytest.fixture
def daemon(
    sandbox: RunningSandbox, store_url: str, redis_url: str, keyring: Keyring, tmp_path: Path
) -> Iterator[Daemon]:
    """A daemon over this test's database; nothing runs yet."""
    settings = daemon_settings(
        sandbox, tmp_path, DATABASE_URL=store_url, REDIS_URL=redis_url, KEYRING=keyring.to_json(), SCAN_SECONDS="0.3"
    )
    with Daemon(tmp_path, settings) as made:
        yield made


@pytest.mark.parametrize(
    "database_kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow_suite)], indirect=True
)
def test_a_consent_becomes_data_that_is_pulled_again_and_again(
    daemon: Daemon, sandbox: RunningSandbox, redis_url: str, wait_until: Callable[..., None]
) -> None:
    """A consent link leads to a grant that is pulled, refreshed before its end, and pulled again with the new token."""
    world = World(sandbox, daemon.environ)
    listener = redis.Redis.from_url(redis_url).pubsub()  # type: ignore[no-untyped-call]  # redis-py has no type here
    listener.psubscribe("*")
    try:
        worker, beat = daemon.worker(), daemon.beat()
        daemon.wait_ready(wait_until, worker, beat)
        creator_id = authorized(daemon)
        grant = world.services.store.grant(creator_id)

        def pulls_after(generation: int) -> bool:
            seen = world.services.store.grant(creator_id)
            return seen.pair_generation >= generation and (seen.pulled_at or seen.created_at) > seen.issued_at

        wait_until(lambda: pulls_after(1), LIFE_SECONDS)
        wait_until(lambda: pulls_after(3), 3 * LIFE_SECONDS)
        daemon.stop(beat)
        judged = world.verdict(grant)
        daemon.stop(worker)
        snapshots = world.services.store.snapshots(grant.grant_id)
        heard_events = b"".join(heard(listener))
    finally:
        listener.close()
        world.close()
    logs = b"".join(path.read_bytes() for path in (daemon.folder / "logs").iterdir())

    assert judged.sound, judged
    assert judged.live_stored == 1
    assert len(snapshots) >= 3
    assert all("followers_count" in snapshot.data for snapshot in snapshots)
    assert {entry.code for entry in world.refreshes(grant)} == {0}
    assert b"task-succeeded" in heard_events
    assert CANARY.encode() not in heard_events + logs


def authorized(daemon: Daemon) -> str:
    """Have a creator consent as a person would: the link, the page's redirect, and the address pasted back."""
    link = urlsplit(json.loads(daemon.run("authorize", "url", "--json").stdout)["url"])
    page = http.client.HTTPConnection(str(link.netloc), timeout=10)
    page.request("GET", f"{link.path}?{link.query}")
    answer = page.getresponse()
    landed = str(answer.headers["Location"])
    page.close()

    assert "%2A" in landed, "the code in the address is encoded"
    result = daemon.run("authorize", "exchange", "-", "--json", text=landed)
    assert result.returncode == 0, result.stderr
    return str(json.loads(result.stdout)["creator_id"])


def heard(listener: redis.client.PubSub) -> Iterator[bytes]:
    """Return what was published in Redis, such as the events that Flower shows, with their bodies decoded."""
    while (message := listener.get_message(timeout=0.1)) is not None:
        if message["type"] == "pmessage":
            yield message["data"] + base64.b64decode(json.loads(message["data"])["body"])
