"""The limiter's part in Redis: its keys and scripts; a method returns None or False if Redis gave no answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, TypeVar

import redis

from worker.limiter.connecting import OfMaster, connect, master_of, place_of, why_of_no_use
from worker.policy import quota

T = TypeVar("T")
Report = Callable[[str, Mapping[str, str | float], str], None]
LIMIT: Final = "limit:"
STATE: Final = "app"
SECOND: Final = "second"
EXPECTED: Final = "expected"
WORKERS: Final = "workers"
SILENT_SECONDS: Final = 3.0
"""A worker that is silent for longer may be unable to reach Redis, so its share is left to it."""
FORGET_SECONDS: Final = 60.0
QUIET_SECONDS: Final = 2.0
"""No permits for this long after Redis came back: longer than TikTok's second, and than any worker takes to notice."""
LEAD_SECONDS: Final = 0.4
"""How far ahead of now the moment of a permit may be."""
HORIZON_SECONDS: Final = 5.0
"""How far ahead denied callers get places in the queue."""
EXPECTATION_SECONDS: Final = 30.0
KEEP_SECONDS: Final = 90_000.0
"""Life of the state after its last use: longer than the longest pause."""
LONGEST_PAUSE: Final = 3_600.0
"""Seconds; after it TikTok is called again, whatever TikTok or Redis said."""
LONGEST_WAIT: Final = LONGEST_PAUSE + 600.0
"""Seconds; an answer of Redis with a longer wait does not count."""
LONGEST_DEPARTURE: Final = 30.0
"""Most seconds that a request is delayed because it leaves late."""
MOST_WORKERS: Final = 1_000
SPOILT: Final = ("spoilt limiter state", "WRONGTYPE")
"""Texts of Redis's errors when a key holds what none of our scripts writes."""
GUARD_STEP: Final = 0.05
GUARD_MOST: Final = 1.0
GUARD_LIFE_SECONDS: Final = 3600.0
"""A broken second lengthens ours by GUARD_STEP, up to GUARD_MOST in all; this fades within this time."""


@dataclass(frozen=True)
class Windows:
    """TikTok's limits and the lengths of their windows; lengths other than TikTok's are for tests.

    Attributes:
        per_second: requests of the app in a second.
        per_minute: requests of the app in a minute.
        per_account_minute: requests in a minute for one account on one call.
        second: seconds of a second.
        minute: seconds of a minute.
    """

    per_second: float
    per_minute: float
    per_account_minute: int
    second: float = quota.SECOND
    minute: float = quota.MINUTE


@dataclass(frozen=True)
class Given:
    """A permit as Redis gave it.

    Attributes:
        name: its name.
        opens: seconds until it may be used.
        lead: seconds until the moment at which it is counted.
    """

    name: str
    opens: float
    lead: float


@dataclass(frozen=True)
class Answer:
    """Redis's answer to a request for permits.

    Attributes:
        wait: 0 if a permit was given, otherwise the seconds to wait.
        epoch: names one life of Redis's memory; it changes when the memory is lost.
        pause: seconds for which nobody gets a permit; 0 if there is no pause.
        given: the permits.
    """

    wait: float
    epoch: str
    pause: float
    given: tuple[Given, ...]


@dataclass(frozen=True)
class Roster:
    """The processes that share the quota.

    Attributes:
        workers: how many there are.
        place: this process's place among them, from 0.
        pause: seconds for which nobody gets a permit; 0 if there is no pause.
    """

    workers: int
    place: int
    pause: float


@dataclass(frozen=True)
class LimiterStatus:
    """The state of the limiter, for people.

    Attributes:
        shared: True if Redis answers; False if this process keeps to its own share.
        workers: processes that share the quota, as last known.
        paused_seconds: how long nothing is permitted because TikTok said that a limit was broken, as far as this
            process or Redis knows; 0 if there is no pause.
        usable_per_second: requests a second that the limiter gives out at its full pace.
    """

    shared: bool
    workers: int
    paused_seconds: float
    usable_per_second: float


class Shared:
    """The limiter's client of Redis; never raises because of Redis."""

    def __init__(
        self, url: str, windows: Windows, *, prefix: str, app_id: str, reserve_seconds: float, report: Report
    ) -> None:
        """Connect at the first use, not yet.

        Args:
            url: as in the setting.
            windows: TikTok's limits.
            prefix: what each key begins with.
            app_id: TikTok's id of the app whose limits they are; every key contains it.
            reserve_seconds: time within which the expected refreshes are to be sent.
            report: takes name, fields and level of a fact.
        """
        pace = quota.pace_of(
            per_second=windows.per_second,
            per_minute=windows.per_minute,
            second=windows.second,
            minute=windows.minute,
        )
        self._second, self._report = windows.second, report
        self._prefix = f"{prefix}{LIMIT}{app_id}:"
        self._state, self._sent, self._expected, self._workers = (
            self._prefix + name for name in (STATE, SECOND, EXPECTED, WORKERS)
        )
        self._second_limit = max(1, int(windows.per_second))
        self._second_window = _micro(windows.second * (1 + quota.SECOND_GUARD))
        self._figures: list[str | int | float] = [
            *(_micro(seconds) for seconds in (pace.interval, pace.slack)),
            self._second_limit,
            self._second_window,
            windows.per_account_minute,
            _micro(windows.minute * (1 + quota.MINUTE_GUARD)),
            *(_micro(seconds) for seconds in (QUIET_SECONDS, HORIZON_SECONDS, reserve_seconds)),
            quota.LEAST_RAMP_SHARE,
            _micro(GUARD_LIFE_SECONDS),
            round(KEEP_SECONDS * 1000),
            _micro(LEAD_SECONDS * windows.second),
            *(_micro(seconds) for seconds in (LONGEST_PAUSE, GUARD_MOST)),
        ]
        self._client = connect(url)
        self.trouble = ""
        """Why the last script gave no answer that can be used."""
        self._master: str | None = None
        self._permit, self._punish, self._depart, self._hello = (
            self._client.register_script(_text("checked.lua") + _text(name))
            for name in ("permit.lua", "punish.lua", "depart.lua", "hello.lua")
        )

    def permits(
        self, *, lane: str, call: str, accounts: Sequence[str], start: float, each: float, epoch: str, was_alone: bool
    ) -> Answer | None:
        """Ask for permits; one round trip.

        If Sentinel has named another master meanwhile, that one may lack what the one before counted last. So it is
        asked once more, as after an outage: it gives nothing until what it lacks is out of TikTok's second.

        Args:
            lane: `refresh` or `pull`.
            call: path of the call.
            accounts: the accounts of the calls.
            start: seconds until the first permit is used.
            each: seconds from the use of one permit to that of the next.
            epoch: the last epoch that this process saw; empty if none.
            was_alone: True if this process has given permits of its own since.
        """
        keys = [
            *(self._state, self._sent, self._expected),
            *(f"{self._prefix}account:{call}:{account}" for account in accounts),
        ]
        figures = [lane, epoch, int(was_alone), *self._figures, _micro(start), _micro(each)]
        answer = self._run(self._permit, keys, figures, self._read_permits)
        if isinstance(self._client, OfMaster):
            master = master_of(self._client)
            if answer is not None and self._master not in {None, master}:
                self._report("quota.master_changed", {"master": str(master)}, "warning")
                figures[2] = 1
                answer = self._run(self._permit, keys, figures, self._read_permits)
            self._master = self._master if answer is None else master
        return answer

    def hello(self, worker: str) -> Roster | None:
        """Report that a worker is alive, and return the roster."""
        figures = [
            *(_micro(seconds) for seconds in (SILENT_SECONDS, FORGET_SECONDS)),
            quota.ALONE_SHARE,
            round(KEEP_SECONDS * 1000),
            MOST_WORKERS,
            _micro(LONGEST_PAUSE),
        ]
        return self._run(self._hello, [self._state, self._workers], [worker, *figures], _read_roster)

    def depart(self, permits: Sequence[tuple[str, float]]) -> list[Given] | None:
        """Count a late permit from now on, and move those that are used after it; one round trip.

        Args:
            permits: for each its name, and how many seconds after the first one it is ready.

        Returns:
            Each with its new times.
        """
        figures: list[Any] = [self._second_limit, self._second_window, _micro(LONGEST_PAUSE)]
        for name, after in permits:
            figures += [name, _micro(after)]

        def read(answer: Any) -> list[Given]:
            names = [name for name, _ in permits]
            times = [_within(micro, LONGEST_DEPARTURE) for micro in answer]
            return [Given(*moved) for moved in zip(names, times[::2], times[1::2], strict=True)]

        return self._run(self._depart, [self._sent], figures, read)

    def punish(self, *, seconds: float, ramp: float, widen: bool) -> bool:
        """Pause everyone.

        Args:
            seconds: for how long.
            ramp: how long permits then rise to the full pace, in seconds.
            widen: True if the second was broken: ours is lengthened.
        """
        figures = [
            *(_micro(each) for each in (seconds, ramp, GUARD_STEP if widen else 0.0, GUARD_MOST, GUARD_LIFE_SECONDS)),
            round(KEEP_SECONDS * 1000),
            _micro(LONGEST_PAUSE),
        ]
        return self._run(self._punish, [self._state], figures, bool) is True

    def expect(self, refreshes: int) -> bool:
        """Note how many refreshes are due."""
        life = round(EXPECTATION_SECONDS * 1000)
        return _answered(lambda: self._client.set(self._expected, max(refreshes, 0), px=life))

    def answers(self) -> bool:
        """Return whether Redis answers."""
        return _answered(self._client.ping)

    def pause(self) -> float | None:
        """Return the seconds of the pause in Redis, without changing it; None if Redis does not answer."""
        try:
            seconds, micro = self._client.time()
            left = float(self._client.hget(self._state, "pause") or 0) / 1e6 - seconds - micro / 1e6
        except (redis.RedisError, OSError, ValueError):
            return None
        return max(0.0, min(left, LONGEST_PAUSE)) if math.isfinite(left) else None

    def leave(self, worker: str) -> None:
        """Give a worker's share back."""
        _answered(lambda: self._client.zrem(self._workers, worker))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _run(
        self, script: Callable[..., Any], keys: list[str], figures: list[Any], read: Callable[[Any], T]
    ) -> T | None:
        """Run a script and read its answer; None if there is none, or one that none of our scripts gives.

        Keys that hold what none of our scripts writes are deleted. That costs two seconds without permits, as FLUSHALL
        does; otherwise there would be no answers until the keys expire.
        """
        try:
            return read(script(keys, figures))
        except redis.ResponseError as error:
            self.trouble = why_of_no_use(error, self._client)
            if any(text in str(error) for text in SPOILT) and _answered(lambda: self._client.delete(*keys)):
                self._report("quota.state_spoilt", {"keys": " ".join(keys)}, "warning")
        except (redis.RedisError, OSError) as error:
            self.trouble = why_of_no_use(error, self._client)
        except (ValueError, TypeError):
            self.trouble = "gives an answer that none of our scripts gives"
        return None

    @property
    def place(self) -> str:
        """Where Redis is looked for, without its password."""
        return place_of(self._client)

    def _read_permits(self, answer: Any) -> Answer:
        """Read the answer to a request for permits.

        Raises:
            ValueError, TypeError: the script gives no such answer.
        """
        wait, epoch, pause, *permits = answer
        most = LEAD_SECONDS * self._second
        given = tuple(
            Given(str(name), _within(opens, most), _within(lead, most))
            for name, opens, lead in zip(*[iter(permits)] * 3, strict=True)
        )
        wait = _within(wait, LONGEST_WAIT)
        if bool(given) != (wait == 0) or not all(permit.name for permit in given):
            raise ValueError("a permit has a name and no wait, a refusal has a wait and no name")
        return Answer(wait, str(epoch), _within(pause, LONGEST_PAUSE), given)


def _read_roster(answer: Any) -> Roster:
    workers, place, pause = answer
    if not 0 <= int(place) < int(workers) <= MOST_WORKERS:
        raise ValueError("that is no place among workers")
    return Roster(int(workers), int(place), _within(pause, LONGEST_PAUSE))


def _within(micro: Any, most: float) -> float:
    """Return seconds from an answer's microseconds.

    Raises:
        ValueError, TypeError: it is not a number from 0 to `most` seconds.
    """
    seconds = int(micro) / 1e6
    if not 0 <= seconds <= most:
        raise ValueError("out of range")
    return seconds


def _answered(command: Callable[[], object]) -> bool:
    try:
        command()
    except (redis.RedisError, OSError):
        return False
    return True


def _text(script: str) -> str:
    return files(__package__).joinpath(script).read_text(encoding="utf-8")


def _micro(seconds: float) -> int:
    return round(seconds * 1_000_000)
