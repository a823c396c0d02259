"""The limiter while somebody else writes to its keys: nothing beyond the quota, and no silence of over an hour."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import APP_ID, ServerProcess
from worker.limiter import Limiter
from worker.limiter.shared import LONGEST_WAIT, Answer, Given, Shared, Windows

pytestmark = pytest.mark.slow_suite

NewLimiter = Callable[..., Limiter]
PREFIX = f"evertoken:limit:{APP_ID}:"
STATE, SECOND, EXPECTED, WORKERS = (PREFIX + name for name in ("app", "second", "expected", "workers"))
HOUR = 3_600
FIELDS = ("tat", "last", "opens", "quieted", "queue:refresh", "queue:pull", "pull", "wanted", "pause", "ramp", "guard",
          "guarded", "hasty", "share", "epoch")  # fmt: skip
ODD = ("inf", "-inf", "nan", "1e400", "-1", "-1e300", "1e300", "0x7fffffffffffffff", "abc", "", " 5", "9" * 400)
FAR = str(2**53 - 1)
Facts = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def facts() -> Facts:
    """Facts that a limiter reported, by name."""
    return []


@pytest.fixture
def limiter(redis_url: str, new_limiter: NewLimiter, facts: Facts) -> Limiter:
    """A limiter with ten requests a second that writes its facts down."""
    return new_limiter(
        redis_url, per_second=10, per_minute=600, report=lambda name, fields, _: facts.append((name, dict(fields)))
    )


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """Somebody else who may write to Redis."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def take(limiter: Limiter, lane: Any = "refresh") -> float:
    """Take a permit for an account of its own."""
    return limiter.take(lane=lane, call="call", account=str(time.monotonic_ns()))


Departure = tuple[float, float]
"""A moment before a request left and one after it: between them, the machine may have been busy elsewhere."""


def most_left_within(departures: Sequence[Departure], window: float) -> int:
    """Return how many requests certainly left within any span of this many seconds."""
    return max(
        sum(1 for _, after in departures[number:] if after < before + window)
        for number, (before, _) in enumerate(departures)
    )


def sent(limiter: Limiter, seconds: float) -> list[Departure]:
    """Send what is permitted, as fast as it is; return when each request left."""
    until, times = time.monotonic() + seconds, list[Departure]()
    while time.monotonic() < until:
        wait = take(limiter)
        if wait > 0:
            time.sleep(min(wait, 0.02))
            continue
        before = time.monotonic()
        while held := limiter.depart():
            time.sleep(held)
            before = time.monotonic()
        times.append((before, time.monotonic()))
    return times


def test_a_planted_pause_ends_with_the_memory_of_redis(
    limiter: Limiter, client: redis.Redis, facts: Facts, wait_until: Callable[..., None]
) -> None:
    """A pause in the far future is an hour at most, is reported, and FLUSHALL ends it within seconds."""
    assert take(limiter) == 0
    client.hset(STATE, "pause", FAR)
    wait_until(lambda: take(limiter) > HOUR / 2)
    assert take(limiter) <= HOUR
    assert limiter.status().paused_seconds == pytest.approx(HOUR, abs=30)
    assert limiter.paused_seconds() == pytest.approx(HOUR, abs=30)
    client.flushall()
    wait_until(lambda: take(limiter) == 0, 8)

    [(_, began), (_, ended)] = [fact for fact in facts if fact[0] in {"quota.paused", "quota.resumed"}]
    assert began["told_by"] == "redis"
    assert ended["seconds"] < HOUR / 2
    assert limiter.status().paused_seconds == limiter.paused_seconds() == 0


def test_an_idle_process_reports_a_pause_and_its_end(
    limiter: Limiter, client: redis.Redis, facts: Facts, wait_until: Callable[..., None]
) -> None:
    """Nobody has to ask for a permit to hear of it."""
    take(limiter)
    client.hset(STATE, "pause", FAR)
    wait_until(lambda: "quota.paused" in dict(facts))
    client.hdel(STATE, "pause")
    wait_until(lambda: "quota.resumed" in dict(facts))


def test_a_pause_that_tiktok_asked_for_outlives_the_memory_of_redis(
    redis_url: str, limiter: Limiter, client: redis.Redis, new_limiter: NewLimiter, wait_until: Callable[..., None]
) -> None:
    """The process that TikTok asked to pause writes it to Redis again, so the others wait as well."""
    other = new_limiter(redis_url)
    take(limiter)
    take(other)
    limiter.punish("minute", 300)
    client.flushall()
    assert 290 < take(limiter) <= 300
    wait_until(lambda: take(other) > 280)


def test_a_clock_that_ran_ahead_during_a_pause_costs_its_length(
    limiter: Limiter, client: redis.Redis, wait_until: Callable[..., None]
) -> None:
    """The instants of a clock that was a day ahead are moved back with it."""
    take(limiter)
    day = 86_400_000_000
    now = int(time.time() * 1e6)
    client.hset(STATE, mapping={"last": now + day, "tat": now + day, "pause": now + day + 3_000_000})
    wait_until(lambda: take(limiter) > 0 and limiter.paused_seconds() > 0)
    assert limiter.paused_seconds() < 10
    wait_until(lambda: take(limiter) == 0, 10)


def test_a_clock_that_was_set_back_stops_nobody(
    limiter: Limiter, client: redis.Redis, wait_until: Callable[..., None]
) -> None:
    """Who asks again and again is permitted something after a second, not after the time that the clock lost."""
    assert take(limiter) == 0
    for name in ("tat", "last", "opens"):
        client.hincrby(STATE, name, HOUR * 1_000_000)
    wait_until(lambda: take(limiter) == 0, 5)


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("field", ["tat", "pause", "share", "opens", "guard", "epoch", "last"])
def test_no_number_in_the_state_opens_the_gates(
    limiter: Limiter, client: redis.Redis, facts: Facts, field: str, value: str
) -> None:
    """What is no number in its range is no answer, is deleted, and permits nothing by itself."""
    assert take(limiter) == 0
    began, given = time.monotonic(), 0
    for _ in range(3):  # each second a greeting writes the share, perhaps before it is read
        client.hset(STATE, field, value)
        given += sum(take(limiter) == 0 for _ in range(60))
        if "quota.state_spoilt" in dict(facts):
            break
    assert given <= 10 * (1 + int(time.monotonic() - began))  # ten for each second that has begun
    assert "quota.state_spoilt" in dict(facts) or value == " 5"


def test_a_state_that_was_spoilt_is_deleted_and_reported_and_works_again(
    limiter: Limiter, client: redis.Redis, facts: Facts, wait_until: Callable[..., None]
) -> None:
    """It costs what FLUSHALL costs."""
    take(limiter)
    client.hset(STATE, "tat", "inf")
    take(limiter)
    assert client.hget(STATE, "tat") != "inf"
    wait_until(lambda: take(limiter) == 0 and not limiter.keeps_to_own_share(), 10)
    assert [name for name, _ in facts] == ["quota.state_spoilt", "quota.redis_lost", "quota.redis_back"]


@pytest.mark.parametrize(
    ("key", "kind"),
    [(STATE, "string"), (SECOND, "list"), (WORKERS, "stream"), (WORKERS, "string"), (EXPECTED, "list")],
)
def test_a_key_of_another_kind_is_deleted(
    limiter: Limiter, client: redis.Redis, wait_until: Callable[..., None], key: str, kind: str
) -> None:
    """Whatever is in the place of a key of the limiter, permits go on, and from Redis."""
    take(limiter)
    with client.pipeline() as together:  # the limiter's own thread may write the key in between
        together.delete(key)
        if kind == "string":
            together.set(key, "x")
        elif kind == "list":
            together.rpush(key, "x")
        else:
            together.xadd(key, {"a": "b"})
        together.execute()
    wait_until(lambda: take(limiter) == 0 and not limiter.keeps_to_own_share(), 12)
    wait_until(lambda: client.type(WORKERS) == "zset" and client.zscore(WORKERS, limiter._worker), 5)


def test_a_crowd_of_invented_workers_is_forgotten(
    limiter: Limiter, client: redis.Redis, wait_until: Callable[..., None]
) -> None:
    """The own share of a process that loses Redis is not made nothing by names that nobody has."""
    take(limiter)
    now = time.time() * 1e6
    client.zadd(WORKERS, {f"invented-{number}": now for number in range(1_100)})
    wait_until(lambda: client.zcard(WORKERS) == 1)
    assert limiter.status().workers < 1_000


@pytest.mark.parametrize(
    "answer",
    [
        [-1, "1", 0, "", 0],
        [0, "1", 0, "", 0],
        [5, "1", 0, "name", 0],
        [0, "1", 0, "name", 10**9],
        [0, "1", -5, "name", 0],
        [10**18, "1", 0, "", 0],
        [5, "1", 10**18, "", 0],
        [-(2**63), "1", 0, "", 0],
        ["nan", "1", 0, "", 0],
        [None, None, None, None, None],
        [],
        5,
        None,
        "OK",
    ],
)
def test_an_answer_that_no_script_gives_is_none(answer: object, redis_url: str) -> None:
    """Numbers are checked on this side as well: a server that lies permits nothing."""
    shared = Shared(
        redis_url, Windows(10, 600, 40), prefix="evertoken:", app_id=APP_ID, reserve_seconds=1, report=lambda *_: None
    )
    for name in ("_permit", "_hello", "_depart"):
        setattr(shared, name, lambda *_: answer)

    asked: dict[str, Any] = {
        "lane": "refresh",
        "call": "call",
        "accounts": ["1"],
        "epoch": "",
        "start": 0.0,
        "each": 0.0,
    }
    assert shared.permits(**asked, was_alone=False) is None
    assert shared.hello("worker") is None
    assert shared.depart([("permit", 0.0)]) is None
    shared.close()


@pytest.mark.parametrize("field", [pytest.param("pause", marks=pytest.mark.slow_suite), "opens", "tat"])
def test_redis_that_permits_nothing_for_an_hour_is_done_without(
    redis_url: str, new_limiter: NewLimiter, client: redis.Redis, field: str, wait_until: Callable[..., None]
) -> None:
    """What is planted again and again holds refreshes back for an hour; then the own share is used."""
    facts: Facts = []
    clock = [0.0]

    def now() -> float:
        return clock[0] + time.monotonic()

    limiter = new_limiter(redis_url, monotonic=now, report=lambda name, fields, _: facts.append((name, dict(fields))))
    take(limiter)
    steps = 0
    while not limiter.keeps_to_own_share():
        client.hset(STATE, field, int((time.time() + HOUR) * 1e6))
        if field == "pause":
            wait_until(lambda: limiter.paused_seconds() > HOUR - 10)
        assert take(limiter) > 0
        clock[0] += 240
        steps += 1
        assert steps < 20
    assert steps == 1 + HOUR / 240
    assert "permitted no refresh for an hour" in [fields.get("reason") for _, fields in facts]
    clock[0] += 30
    wait_until(lambda: take(limiter) == 0)
    assert limiter.keeps_to_own_share()


def test_one_refusal_now_and_then_is_no_silence(redis_url: str, new_limiter: NewLimiter) -> None:
    """A small fleet that is refused once in some hours goes on asking Redis."""
    clock = [0.0]
    limiter = new_limiter(redis_url, per_second=1, per_minute=60, monotonic=lambda: clock[0] + time.monotonic())
    for _ in range(3):
        while take(limiter) == 0:
            pass
        clock[0] += 2 * HOUR
    assert not limiter.keeps_to_own_share()


def test_a_process_that_gets_greetings_and_no_permits_uses_its_own_share(
    redis_url: str, new_limiter: NewLimiter, wait_until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis that answers one script and never the other stops nobody."""
    limiter = new_limiter(redis_url)
    take(limiter)
    monkeypatch.setattr(limiter._shared, "permits", lambda **_: None)
    wait_until(lambda: take(limiter) == 0, 12)
    assert limiter.keeps_to_own_share()


def test_no_process_sends_more_than_the_quota_whatever_redis_permits(
    limiter: Limiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts its own requests in its memory, which nobody else can write."""
    monkeypatch.setattr(limiter._shared, "permits", lambda **_: Answer(0.0, "1", 0.0, (Given("permit", 0.0, 0.0),)))
    monkeypatch.setattr(limiter._shared, "depart", lambda _: None)
    times = sent(limiter, 2.1)

    assert most_left_within(times, 1.0) <= 10
    assert len(times) >= 20


class Tamperer:
    """Writes to the limiter's keys as an example says."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def __call__(self, action: str, name: str, value: str) -> None:
        """Carry one action out; what Redis refuses is refused."""
        now = time.time() * 1e6
        try:
            match action:
                case "field":
                    self._client.hset(STATE, name, value)
                case "instant":
                    self._client.hset(STATE, name, str(int(now + float(value) * 1e6)))
                case "delete":
                    self._client.delete(*self._client.keys("evertoken:limit:*") or ["none"])
                case "forget":
                    self._client.delete(SECOND)
                    self._client.hset(STATE, mapping={"tat": 0, "opens": 0, "last": 0})
                case "score":
                    self._client.zadd(SECOND, {f"{name}-{number}": value for number in range(12)})
                case "expected":
                    self._client.set(EXPECTED, value)
                case "kind":
                    self._client.set(STATE, value)
        except redis.RedisError:
            pass


numbers = st.one_of(
    st.sampled_from(ODD),
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(repr),
    st.text(max_size=8).map(lambda text: text.encode("utf-8", "replace").decode()),
)
actions = st.one_of(
    st.tuples(st.just("field"), st.sampled_from(FIELDS), numbers),
    st.tuples(st.just("instant"), st.sampled_from(FIELDS), st.floats(-2 * HOUR, 2 * HOUR).map(repr)),
    st.tuples(st.sampled_from(["delete", "forget"]), st.just(""), st.just("")),
    st.tuples(st.sampled_from(["score", "expected", "kind"]), st.just("m"), numbers),
)


@given(example=st.lists(actions, min_size=1, max_size=6))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_written_to_its_keys_no_second_is_overfull_and_no_wait_is_longer_than_an_hour(
    example: list[tuple[str, str, str]], redis_server: ServerProcess, redis_url: str
) -> None:
    """One process never sends more than the quota, and never waits much longer than the longest pause."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.flushdb()
        tamper = Tamperer(client)
        limiter = Limiter(
            redis_url, app_id=APP_ID, per_second=5, per_minute=30, second=0.05, minute=0.3, per_account_minute=40
        )
        times = list[Departure]()
        for action in example:
            times += sent(limiter, 0.01)
            tamper(*action)
        times += sent(limiter, 0.1)
        waits = [take(limiter, lane) for lane in ("refresh", "pull")]
        limiter.close()

    assert most_left_within(times, 0.05) <= 5
    assert all(0 <= wait <= LONGEST_WAIT for wait in waits)
