"""The limiter while Redis is away, stands still, loses its memory or comes back."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import redis

from tests.conftest import APP_ID, ServerProcess
from tests.support.black_hole import BlackHole
from tests.support.crowd import Crowd, gather, most_within
from tests.support.restartable import Restartable
from worker.limiter import Limiter
from worker.limiter.alone import Alone
from worker.limiter.connecting import connect
from worker.limiter.shared import Windows

pytestmark = pytest.mark.slow_suite

NewLimiter = Callable[..., Limiter]
NewRedis = Callable[..., ServerProcess]


def take(limiter: Limiter, lane: Any = "refresh", account: str | None = None) -> float:
    """Take a permit, for an account of its own unless it is named."""
    return limiter.take(lane=lane, call="call", account=account or str(time.time()))


def spend(limiter: Limiter, times: list[float], seconds: float) -> None:
    """Take and use permits as fast as they come."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        wait = take(limiter)
        if wait > 0:
            time.sleep(min(wait, 0.5))
            continue
        while ahead := limiter.depart():
            time.sleep(ahead)
        times.append(time.monotonic())


def test_without_redis_a_worker_keeps_to_its_share(free_port: int, new_limiter: NewLimiter) -> None:
    """It is neither stopped nor unlimited, and nothing is raised."""
    limiter = new_limiter(f"redis://127.0.0.1:{free_port}/0", per_second=200, per_minute=12000)
    began, given = time.monotonic(), list[float]()
    while time.monotonic() - began < 3.5:
        if take(limiter) == 0:
            given.append(time.monotonic())
    # It asks Redis twice before it relies on itself, and knows of nobody: so it might be one of eight.
    assert given[0] - began > 1
    assert 0.4 * 140 / 8 < len(given) <= 5 + 140 / 8 * (given[-1] - given[0])
    assert not limiter.status().shared


@pytest.mark.parametrize("password", ["", ":CANARY@"])
def test_who_finds_no_redis_says_where_it_looked_and_why_in_vain(
    free_port: int, new_limiter: NewLimiter, password: str
) -> None:
    """The line of the log has host and port and the plain reason, and never the password."""
    facts = list[tuple[str, dict[str, Any]]]()
    limiter = new_limiter(
        f"redis://{password}127.0.0.1:{free_port}/0", report=lambda name, fields, _: facts.append((name, dict(fields)))
    )
    take(limiter)
    (said,) = [fields for name, fields in facts if name == "quota.redis_lost"]

    assert said["redis"] == f"127.0.0.1:{free_port}"
    assert said["reason"].startswith("does not answer: ")
    assert said["reason"].endswith("Connection refused")
    assert "CANARY" not in str(said)


def test_without_redis_the_share_is_that_of_one_among_the_known(
    restartable: Restartable, wait_until: Callable[..., None]
) -> None:
    """Four workers that know of each other give out 70 % of the quota together."""
    limits: dict[str, int] = {"per_second": 40, "per_minute": 2400, "per_account_minute": 40}
    limiters = [Limiter(restartable.url, app_id=APP_ID, **limits) for _ in range(4)]  # type: ignore[arg-type]  # mypy fits a dict's values to every argument
    for limiter in limiters:
        take(limiter)
    wait_until(lambda: [limiter.status().workers for limiter in limiters] == [4, 4, 4, 4])
    restartable.kill()
    began, given = time.monotonic(), [0, 0, 0, 0]
    first = math.inf
    while time.monotonic() - min(began + 9, first) < 2.5:
        for number, limiter in enumerate(limiters):
            if take(limiter) == 0:
                given[number] += 1
                first = min(first, time.monotonic())
    took = time.monotonic() - first
    # A quarter of 28 a second, after the time in which one that is cut off alone would still be counted by the others.
    assert 3 < first - began < 6.5
    assert all(0.35 * 17 < count <= 2 + 28 / 4 * took for count in given)
    for limiter in limiters:
        limiter.close()


def test_a_redis_that_stands_still_holds_up_one_call_and_is_found_again(
    new_redis: NewRedis, new_limiter: NewLimiter, wait_until: Callable[..., None]
) -> None:
    """Only the call that finds it out waits, for a quarter of a second; later it is used again."""
    server = new_redis()
    limiter = new_limiter(server.url, per_second=100, per_minute=6000)
    assert take(limiter) == 0
    os.kill(server.pid, signal.SIGSTOP)
    began = time.monotonic()
    take(limiter)
    found_out = time.monotonic() - began
    for _ in range(50):
        take(limiter)
    after = time.monotonic() - began - found_out
    os.kill(server.pid, signal.SIGCONT)
    assert found_out < 2
    assert after < 2, "each of fifty waited"
    wait_until(lambda: not limiter._alone.entered or take(limiter) < 0)
    wait_until(lambda: take(limiter) == 0)
    assert not limiter._alone.entered


@pytest.mark.slow_suite
def test_one_that_is_cut_off_waits_until_the_others_leave_it_its_share(
    redis_server: ServerProcess, redis_url: str
) -> None:
    """Its first permit of its own comes when nobody spends its share any more: no second is overfull."""
    limits: dict[str, int] = {"per_second": 20, "per_minute": 1200, "per_account_minute": 40}
    times = list[float]()
    with BlackHole(redis_server.port) as hole:
        cut_off = Limiter(f"redis://127.0.0.1:{hole.port}/0", app_id=APP_ID, **limits)  # type: ignore[arg-type]  # mypy fits a dict's values to every argument
        other = Limiter(redis_url, app_id=APP_ID, **limits)  # type: ignore[arg-type]  # as above
        threads = [
            threading.Thread(target=spend, args=(each, times, 9.0)) for each in (cut_off, other) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        cut = threading.Timer(2.5, hole.cut)
        cut.start()
        for thread in [*threads, cut]:
            thread.join()
        cut_off.close()
        other.close()
    # One or two more are a busy machine's; its share on top of all would be seven.
    assert most_within(sorted(times), 1.0) <= 22


@pytest.mark.parametrize(
    "event",
    [
        pytest.param("killed and started empty", marks=pytest.mark.slow_suite),
        "stopped and continued",
        pytest.param("flushed", marks=pytest.mark.slow_suite),
    ],
)
def test_no_sliding_second_is_overfull_whatever_happens_to_redis(
    restartable: Restartable, event: str, wait_until: Callable[..., None]
) -> None:
    """Eight processes at full demand stay within the quota before, while and after, and are not stopped for long."""
    away = 7.0 if event.startswith("killed") else 1.2  # long enough for each to rely on itself
    seconds = 5.8 + away

    def pause(seconds: float) -> None:
        due = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() >= due)

    def meanwhile() -> None:
        pause(1.5)
        process = restartable._process
        assert process is not None
        if event == "flushed":
            with connect(restartable.url) as client:
                client.flushall()
        elif event.startswith("killed"):
            restartable.kill()
            pause(away)
            restartable.start()
        else:
            process.send_signal(signal.SIGSTOP)
            pause(away)
            process.send_signal(signal.SIGCONT)

    times = gather(Crowd(restartable.url, per_second=40, per_minute=2400), seconds=seconds, meanwhile=meanwhile)
    assert most_within(times, 1.0) <= 40
    assert sum(at > seconds - 1 for at in times) > 0.75 * 40
    assert max(later - earlier for earlier, later in pairwise(times)) < 6.5


def test_a_pause_holds_while_redis_is_away_and_is_shared_later(
    restartable: Restartable, new_limiter: NewLimiter, wait_until: Callable[..., None]
) -> None:
    """A pause that TikTok asked for is not lost with Redis: the other workers get it once Redis is back."""
    limiter, other = new_limiter(restartable.url), new_limiter(restartable.url)
    take(limiter)
    restartable.kill()
    limiter.punish("minute", 1.5)
    assert 1 < take(limiter) <= 1.5
    restartable.start()
    wait_until(lambda: not 0 < take(limiter) <= 1.5)
    with connect(restartable.url) as client:
        wait_until(lambda: take(limiter) >= 0 and client.hget(f"evertoken:limit:{APP_ID}:app", "ramp") == "60000000")
    assert take(other) > 0


def test_a_redis_that_refuses_writes_counts_as_away(new_redis: NewRedis, new_limiter: NewLimiter) -> None:
    """A full memory or a replica is trouble like any other."""
    server = new_redis()
    with redis.Redis.from_url(server.url) as client:
        client.config_set("min-replicas-to-write", 1)
    limiter = new_limiter(server.url)
    assert take(limiter) > 0
    assert limiter._alone.entered


def test_redis_is_reached_through_a_unix_socket(
    new_redis: NewRedis, new_limiter: NewLimiter, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Celery's way of writing such an address is understood, with the number of the database."""
    path = tmp_path_factory.mktemp("s") / "r.sock"
    server = new_redis("--unixsocket", str(path))
    limiter = new_limiter(f"redis+socket://{path}?virtual_host=3")
    assert take(limiter) == 0
    assert limiter.status().shared
    with redis.Redis(port=server.port, db=3) as client:
        assert client.exists(f"evertoken:limit:{APP_ID}:app")


def test_alone_a_pull_waits_behind_a_refresh_that_was_denied() -> None:
    """Refreshes go before pulls there, too."""
    alone = _alone()

    def at(seconds: float, lane: str) -> float:
        return alone.take(
            now=seconds, wall=1000 + seconds, lane=lane, key=str(seconds), workers=2, place=0, ramp_share=1.0
        )

    first = at(0.0, "refresh")
    assert at(first + 0.01, "refresh") == 0
    promised = first + 0.02 + at(first + 0.02, "refresh")
    assert at(promised + 0.01, "pull") > 0
    assert at(promised + 0.02, "refresh") == 0


def test_alone_an_account_has_a_share_of_its_own_limit() -> None:
    """With eight workers one of them sends three of forty requests for one account in a minute."""
    alone, given = _alone(), 0
    for step in range(6000):
        at = step / 100
        given += alone.take(now=at, wall=at, lane="refresh", key="a", workers=8, place=0, ramp_share=1.0) == 0
    assert given == 3


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 20, 60])
def test_alone_the_workers_turns_interleave(workers: int) -> None:
    """Whatever their number, the sliding second stays within the quota, and they use most of their share."""
    crowd = [_alone() for _ in range(workers)]
    times: list[float] = []
    for step in range(30 * 200):
        at = 1000 + step / 200
        for place, alone in enumerate(crowd):
            key = f"{place} {step}"
            if alone.take(now=at, wall=at, lane="refresh", key=key, workers=workers, place=place, ramp_share=1.0) == 0:
                times.append(at)
    assert most_within(times, 1.0) <= 10
    assert 0.6 * 10 * 30 < len(times) <= 0.71 * 10 * 30 + workers


def test_a_closed_limiter_without_redis_is_quiet(free_port: int) -> None:
    """Closing raises nothing if nothing answers."""
    limiter = Limiter(
        f"redis://127.0.0.1:{free_port}/0", app_id=APP_ID, per_second=10, per_minute=600, per_account_minute=40
    )
    limiter.expect(3)
    limiter.punish("second", 1)
    limiter.close()


def _alone() -> Alone:
    alone = Alone(Windows(per_second=10, per_minute=600, per_account_minute=40))
    alone.enter(not_before=0.0)
    return alone
