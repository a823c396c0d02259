"""Redis stops, dies, forgets everything or is full: refreshes go on, each once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
import redis

from tests.conftest import ServerProcess
from tests.faults.conftest import NewScene
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.slow_suite

NewRedis = Callable[..., ServerProcess]
SQLITE = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
SERVE = {"do": "serve", "threads": 2}


@SQLITE
@pytest.mark.parametrize("trouble", ["stopped", "killed"])
def test_a_redis_that_goes_away_under_a_worker_costs_only_time(
    new_scene: NewScene, new_redis: NewRedis, wait_until: Callable[..., None], trouble: str
) -> None:
    """The worker keeps to its own share of the quota, and the result of what is under way is stored."""
    server = new_redis()
    scene = new_scene(redis_url=server.url)
    grants = scene.creators(6)
    worker = scene.worker(SERVE, at="post_send:stop@2")
    worker.stopped()
    os.kill(server.pid, signal.SIGSTOP if trouble == "stopped" else signal.SIGKILL)
    worker.resume()
    wait_until(lambda: all(scene.look(grant).pair_generation == 2 for grant in grants), 20)
    assert worker.finish() == 0
    if trouble == "stopped":
        os.kill(server.pid, signal.SIGCONT)
    else:
        scene.environ["EVERTOKEN_REDIS_URL"] = new_redis().url

    assert scene.sent() == len(grants)
    assert scene.judge() == {}


@pytest.mark.slow_suite
@SQLITE
def test_a_redis_that_forgets_again_and_again_repeats_nothing(
    new_scene: NewScene, wait_until: Callable[..., None]
) -> None:
    """FLUSHALL in the middle of it: what is due is known by the database alone."""
    scene = new_scene()
    grants = scene.creators(12)
    worker = scene.worker(SERVE)
    for share in (1, 6):
        wait_until(lambda share=share: scene.sent() >= share)
        scene.flush_redis()
    wait_until(lambda: all(scene.look(grant).pair_generation == 2 for grant in grants), 20)
    worker.finish()

    assert scene.sent() == len(grants)
    assert scene.judge() == {}


@SQLITE
def test_an_empty_redis_in_place_of_the_old_one_repeats_nothing(
    new_scene: NewScene, new_redis: NewRedis, wait_until: Callable[..., None]
) -> None:
    """After a failover that lost every write, two workers go on and refresh each grant once."""
    old, new = new_redis(), new_redis()
    with Proxy(old.url) as proxy:
        scene = new_scene(redis_url=proxy.url)
        grants = scene.creators(8)
        workers = [scene.worker(SERVE) for _ in range(2)]
        wait_until(lambda: scene.sent() > 0)
        proxy.down()
        proxy.lead_to(new.url)
        proxy.up()
        wait_until(lambda: all(scene.look(grant).pair_generation == 2 for grant in grants), 20)
        for worker in workers:
            worker.finish()

        assert scene.sent() == len(grants)
        assert scene.judge() == {}


@SQLITE
def test_a_full_redis_holds_up_no_refresh(
    new_scene: NewScene, new_redis: NewRedis, wait_until: Callable[..., None]
) -> None:
    """It refuses writes: then it counts as away."""
    server = new_redis()
    scene = new_scene(redis_url=server.url)
    grants = scene.creators(3)
    with redis.Redis.from_url(server.url) as client:
        client.set("ballast", b"x" * 2_000_000)
        client.config_set("maxmemory", "1mb")

    worker = scene.worker(SERVE)
    wait_until(lambda: all(scene.look(grant).pair_generation == 2 for grant in grants), 20)
    worker.finish()

    assert scene.sent() == len(grants)
    assert scene.judge() == {}
