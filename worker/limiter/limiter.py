"""The limiter: one call to Redis for each permit or group of permits, and a safe own share while Redis is away.

One idea: what a process knows of the quota, of pauses and of Redis belongs together, under one lock.
"""

from __future__ import annotations

import math
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from worker.errors import QuotaScope
from worker.limiter.alone import Alone
from worker.limiter.shared import (
    LEAD_SECONDS,
    LONGEST_PAUSE,
    SILENT_SECONDS,
    Answer,
    Given,
    LimiterStatus,
    Report,
    Shared,
    Windows,
)
from worker.policy import quota

HELLO_SECONDS: Final = 1.0
"""How often a process reports to Redis that it is alive; a Redis that was away is noticed by that."""
RESERVE_SECONDS: Final = 10.0
UNKNOWN_WORKERS: Final = 8
STAY_SECONDS: Final = 60.0
"""How long a process keeps to its own share when Redis answers greetings but gives no permits."""
SAME_DEMAND_SECONDS: Final = 300.0
"""Refusals that are further apart do not count as one continuous time in which no refresh was permitted."""
RAMP_SECONDS: Final = 60.0
SECOND_RAMP_SHARE: Final = 0.05
"""Length of the ramp after a broken second, as a part of the ramp after a broken minute."""
PUNCTUAL_SECONDS: Final = 0.01
"""A request that leaves later than this after its moment is reported to Redis."""

Lane = Literal["refresh", "pull"]


def _report_nothing(name: str, fields: Mapping[str, str | float], level: str) -> None:
    """Take a fact and do nothing with it."""


@dataclass
class Permit:
    """The permission to send one request; used by one thread.

    Attributes:
        name: its name in Redis; empty once it was used, and for a permit that this process gave itself.
        leaves: monotonic seconds before which the request is not sent.
        moment: monotonic seconds at which the request is counted.
        together: all permits that were given by the same answer, this one too.
    """

    name: str
    leaves: float
    moment: float
    together: Sequence[Permit] = field(default=(), repr=False, compare=False)

    def moved(self, given: Given, now: float) -> None:
        """Take new times, which count from this instant."""
        self.leaves, self.moment = now + given.opens, now + given.lead


@dataclass(frozen=True)
class Permits:
    """The permits that were given, or how many seconds to wait before asking again."""

    given: tuple[Permit, ...]
    wait: float = 0.0


class Ceiling:
    """A hard limit on a process's own requests: never more than the quota, whatever Redis permits.

    It counts the requests in the last second and the last minute; the caller holds a lock.

    Redis decides for all processes together, and whoever can write to Redis can make it permit anything. They cannot
    reach this count. While Redis is in order, it delays a request at most by as much as an answer of Redis was late.
    """

    def __init__(self, windows: Windows) -> None:
        self._sent = [
            (windows.second, deque[float](maxlen=max(1, int(windows.per_second)))),
            (windows.minute, deque[float](maxlen=max(1, int(windows.per_minute)))),
        ]

    def admit(self, now: float) -> float:
        """Return 0 and count one request, or the seconds until there is room for it.

        Args:
            now: monotonic seconds; never less than in the call before.
        """
        for window, times in self._sent:
            while times and times[0] + window <= now:
                times.popleft()
        wait = max(times[0] + window - now if len(times) == times.maxlen else 0.0 for window, times in self._sent)
        if wait > 0:
            return wait
        for _, times in self._sent:
            times.append(now)
        return 0.0


class Limiter:
    """The app's quota, shared through Redis by every process of the app; safe between threads."""

    def __init__(
        self,
        redis_url: str,
        *,
        prefix: str = "evertoken:",
        app_id: str,
        per_second: float,
        per_minute: float,
        per_account_minute: int,
        second: float = quota.SECOND,
        minute: float = quota.MINUTE,
        ramp_seconds: float = RAMP_SECONDS,
        reserve_seconds: float = RESERVE_SECONDS,
        report: Report = _report_nothing,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Keep the arguments; Redis is called for the first permit.

        Args:
            redis_url: `redis://`, `rediss://` or `redis+socket://`.
            prefix: what each key in Redis begins with.
            app_id: TikTok's id of the app whose quota it is; each app has its own.
            per_second: requests that TikTok permits the app in a second.
            per_minute: requests that TikTok permits the app in a minute.
            per_account_minute: requests that TikTok permits in a minute for one account on one call.
            second: length of a second, in seconds; other than 1 in tests only.
            minute: length of a minute, in seconds; other than 60 in tests only.
            ramp_seconds: how long permits rise to the full pace after a pause.
            reserve_seconds: time within which the expected refreshes are to be sent.
            report: takes name, fields and level of each fact: pauses, and Redis lost and back.
            monotonic: clock of this process, in seconds.
            wall: clock that the workers share, in seconds since the epoch.
        """
        self._windows = Windows(per_second, per_minute, per_account_minute, second, minute)
        self._shared = Shared(
            redis_url, self._windows, prefix=prefix, app_id=app_id, reserve_seconds=reserve_seconds, report=report
        )
        self._alone, self._ceiling, self._report = Alone(self._windows), Ceiling(self._windows), report
        self._ramp_seconds = ramp_seconds
        self._monotonic, self._wall = monotonic, wall
        self._lock, self._last = threading.Lock(), threading.local()
        self._closed = threading.Event()
        self._greeter: threading.Thread | None = None
        self._worker, self._pid, self._epoch = "", 0, ""
        # Until a roster has come, this many workers are assumed, by every process that starts without Redis.
        self._workers, self._place = UNKNOWN_WORKERS, secrets.randbelow(UNKNOWN_WORKERS)
        self._heard_at = self._listed_at = -math.inf
        self._was_alone, self._misses, self._stay_alone_until = False, 0, -math.inf
        # The pause that TikTok gave this process, which outlives Redis's memory, and the one in Redis, which does not.
        self._pause_end, self._ramp, self._unshared = -math.inf, 0.0, False
        self._redis_pause_end, self._paused_since = -math.inf, math.inf
        self._refused_since, self._refused_at = math.inf, -math.inf
        self._given: dict[Lane, int] = {"refresh": 0, "pull": 0}
        self._denied = dict(self._given)

    def permits(
        self, *, lane: Lane, call: str, accounts: Sequence[str], start: float = 0.0, each: float = 0.0
    ) -> Permits:
        """Return permits for requests that one thread sends one after the other, or the seconds until it may ask again.

        A permit is for a moment, now or a fraction of a second ahead: call `depart` right before sending. There are
        fewer permits than accounts if the quota, or the time for which permits are given ahead, has no room for more.
        This does not sleep, and never raises because of Redis.

        Args:
            lane: refreshes go before pulls.
            call: path of the call.
            accounts: the accounts of the calls, in the order in which they are sent: ids of ours, no secrets.
            start: seconds until the first of these requests can be ready.
            each: seconds from one of them to the next.
        """
        asked = self._ask(lane=lane, call=call, accounts=accounts, start=start, each=each)
        with self._lock:
            if asked.given:
                self._given[lane] += len(asked.given)
            else:
                self._denied[lane] += 1
        return asked

    def _ask(self, *, lane: Lane, call: str, accounts: Sequence[str], start: float, each: float) -> Permits:
        now = self._monotonic()
        with self._lock:
            self._begin()
            left = self._pause_left(now)
            if left > 0 and (now < self._pause_end or not self._refused_too_long(lane, now)):
                return Permits((), left)
            if self._alone.entered:
                return self._take_alone(now, lane, call, accounts[0])
            epoch, was_alone = self._epoch, self._was_alone
        answer = self._shared.permits(
            lane=lane, call=call, accounts=accounts, start=start, each=each, epoch=epoch, was_alone=was_alone
        )
        with self._lock:
            after = self._monotonic()
            if answer is None:
                self._lose(after, self._shared.trouble)
                return self._take_alone(after, lane, call, accounts[0])
            self._was_alone = self._was_alone and not was_alone
            share = self._read(answer, after)
            if answer.wait > 0 and self._refused_too_long(lane, after):
                return self._take_alone(after, lane, call, accounts[0])
        if share:
            self._share_pause(widen=False)
        together = list[Permit]()
        together += [Permit(given.name, after + given.opens, now + given.lead, together) for given in answer.given]
        return Permits(tuple(together), answer.wait)

    def take(self, *, lane: Lane, call: str, account: str) -> float:
        """Take one permit for this thread and return 0, or return the seconds to wait; see `permits` and `depart`."""
        asked = self.permits(lane=lane, call=call, accounts=[account])
        if asked.given:
            self._last.permit = asked.given[0]
        return asked.wait

    def admit(self, *, lane: Lane, call: str, account: str, patience_seconds: float) -> float:
        """Wait for one permit and for its moment, and return 0: then send. Never raises because of Redis.

        Args:
            lane: refreshes go before pulls.
            call: path of the call.
            account: the account of the call: an id of ours, no secret.
            patience_seconds: how long to wait for a permit.

        Returns:
            0, or the seconds until a permit is likely if none will come in that time.
        """
        end = time.monotonic() + patience_seconds
        while not (asked := self.permits(lane=lane, call=call, accounts=[account])).given:
            if time.monotonic() + asked.wait > end:
                return asked.wait
            time.sleep(asked.wait)
        while wait := self.depart(asked.given[0]):
            time.sleep(wait)
        return 0.0

    def depart(self, permit: Permit | None = None) -> float:
        """Use a permit for a request that is ready: call this until it returns 0, then send.

        The work between permit and request, such as a claim, shortens the wait. If a process is delayed, requests that
        were permitted in different seconds would arrive in the same one. So a late request is noted in Redis, together
        with the rest of its group, and those after it keep their distance; a punctual request costs no call.

        Args:
            permit: the request's permit; by default the last one that this thread took.

        Returns:
            Seconds to wait before sending: a fraction of a second, and for a late request at most about one second; no
            other permit is needed.
        """
        permit, now, wait = permit or getattr(self._last, "permit", None), self._monotonic(), 0.0
        if permit is not None and permit.name and now <= permit.moment + PUNCTUAL_SECONDS:
            wait = max(0.0, permit.leaves - now)
            if not wait:
                permit.name = ""
        elif permit is not None and permit.name:
            wait = self._depart_late(permit)
        if wait > 0:
            return wait
        with self._lock:
            return self._ceiling.admit(self._monotonic())

    def _depart_late(self, permit: Permit) -> float:
        """Use a late permit now, and return the seconds to wait before sending; what follows it is late as well."""
        rest = [later for later in permit.together if later.name and later.moment > permit.moment]
        asked = [(each.name, each.moment - permit.moment) for each in (permit, *rest)]
        permit.name, began = "", self._monotonic()
        moved = self._shared.depart(asked)
        if moved is None:
            return 0.0
        for later, given in zip(rest, moved[1:], strict=True):
            later.moved(given, began)
        return moved[0].opens

    def expect(self, refreshes: int) -> None:
        """Reserve quota of the next seconds for this many due refreshes, so that pulls do not use it."""
        with self._lock:
            away = self._alone.entered
        if not away:
            self._shared.expect(refreshes)

    def punish(self, scope: QuotaScope, seconds: float) -> None:
        """Pause the whole app because TikTok said that a limit was broken; permits then rise from a small share.

        Args:
            scope: which limit; `account` pauses nothing, since each creator has a separate limit.
            seconds: how long to pause; clamped to an hour.
        """
        if scope == "account":
            return
        seconds = min(max(seconds, 0.0), LONGEST_PAUSE) if math.isfinite(seconds) else LONGEST_PAUSE
        ramp = self._ramp_seconds * (SECOND_RAMP_SHARE if scope == "second" else 1.0)
        with self._lock:
            now = self._monotonic()
            if now + seconds > self._pause_end:
                self._pause_end, self._ramp = now + seconds, ramp
            self._refused_since = math.inf
            self._note_pause(now)
        self._share_pause(widen=scope == "second")

    def status(self) -> LimiterStatus:
        """Return the state of the limiter, after asking Redis whether it answers and whether the app is paused."""
        answers, in_redis = self._shared.answers(), self._shared.pause() or 0.0
        with self._lock:
            return LimiterStatus(
                shared=answers,
                workers=self._workers,
                paused_seconds=max(in_redis, self._pause_left(self._monotonic())),
                usable_per_second=quota.usable_rate(
                    per_second=self._windows.per_second, per_minute=self._windows.per_minute
                ),
            )

    def paused_seconds(self) -> float:
        """Return how long this process gives no permit, without asking Redis; 0 if it is not paused."""
        return self._pause_left(self._monotonic())

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return by lane how many permits this process got, and how many of its questions were denied."""
        with self._lock:
            return {lane: (given, self._denied[lane]) for lane, given in self._given.items()}

    def keeps_to_own_share(self) -> bool:
        """Return whether this process keeps to its own share of the quota, because Redis gives it no usable answer."""
        return self._alone.entered

    def close(self) -> None:
        """Give this process's share back and close the connections."""
        self._closed.set()
        if self._greeter is not None and self._pid == os.getpid():
            self._greeter.join()
            if not self._alone.entered:
                self._shared.leave(self._worker)
        self._shared.close()

    def _begin(self) -> None:
        """Start the greeting thread, once in each process: a fork does not copy threads."""
        if self._pid != os.getpid():
            self._worker, self._pid = secrets.token_hex(8), os.getpid()
            self._greeter = threading.Thread(target=self._greet, args=(self._worker,), name="limiter", daemon=True)
            self._greeter.start()

    def _greet(self, worker: str) -> None:
        """Greet Redis every second, and learn of pauses; a Redis that was away is used again from then on."""
        while True:
            greets = self._monotonic() >= self._stay_alone_until
            roster = self._shared.hello(worker) if greets else None
            with self._lock:
                now = self._monotonic()
                if roster is not None:
                    self._workers, self._place, self._listed_at = roster.workers, roster.place, now
                    self._was_alone = self._was_alone or self._alone.gave
                    if self._alone.entered:
                        self._report("quota.redis_back", {}, "info")
                    self._alone.leave()
                    self._learn(roster.pause, now)
                self._note_pause(now)
                # Redis forgot the pause, or never knew of it.
                unshared = roster is not None and self._pause_end - now > roster.pause + HELLO_SECONDS
            if unshared:
                self._share_pause(widen=False)
            if self._closed.wait(HELLO_SECONDS):
                return

    def _read(self, answer: Answer, now: float) -> bool:
        """Take over the answer of Redis; return True if Redis lacks a pause that this process must share."""
        forgotten = self._epoch not in {"", answer.epoch}
        self._epoch, self._heard_at, self._misses = answer.epoch, now, 0
        self._learn(answer.pause, now)
        self._note_pause(now)
        if answer.wait == 0:
            self._refused_since = math.inf
        return (forgotten or self._unshared) and now < self._pause_end + self._ramp

    def _learn(self, pause: float, now: float) -> None:
        """Take over the pause in Redis, or its end."""
        if self._redis_pause_end > -math.inf and (pause == 0 or self._redis_pause_end <= now):
            self._refused_since = math.inf  # this pause has ended, so the next one may have its full length
        self._redis_pause_end = now + pause if pause > 0 else -math.inf

    def _refused_too_long(self, lane: Lane, now: float) -> bool:
        """Count a refusal by Redis; after an hour in which it permitted nothing, stop using it and return True.

        No pause of TikTok's lasts longer, so somebody writes to Redis what keeps everybody waiting. Refusals of pulls
        do not count, since pulls may wait for as long as refreshes need the quota.
        """
        if lane == "refresh":
            if now - self._refused_at > SAME_DEMAND_SECONDS:
                self._refused_since = now
            self._refused_since, self._refused_at = min(self._refused_since, now), now
        if now - self._refused_since < LONGEST_PAUSE:
            return False
        self._refused_since, self._redis_pause_end = math.inf, -math.inf
        self._lose(now, "permitted no refresh for an hour", stay=LONGEST_PAUSE)
        return True

    def _lose(self, now: float, reason: str, *, stay: float = 0.0) -> None:
        """Use the own share from now on.

        Args:
            now: monotonic seconds.
            reason: for the log; Redis is its subject.
            stay: seconds in which Redis is not asked again.
        """
        if self._alone.entered:
            return
        self._misses += 1
        # The second time in a row means that Redis answers greetings and gives no permits. While this process greets,
        # the others do not leave it its share.
        stay = max(stay, STAY_SECONDS) if self._misses > 1 else stay
        self._stay_alone_until = now + stay
        self._report("quota.redis_lost", {"redis": self._shared.place, "reason": reason}, "warning")
        # The others may still reach Redis. They leave us our share once we have been silent for a while, which they
        # notice within a second; what they were permitted until then must have left TikTok's second. A process that has
        # never had an answer of Redis asks once more.
        left_to_us = self._listed_at + SILENT_SECONDS + HELLO_SECONDS
        clear = max(self._heard_at, left_to_us) + self._windows.second * (1 + quota.SECOND_GUARD + LEAD_SECONDS)
        self._alone.enter(not_before=max(now, clear if self._epoch else now + 1.5 * HELLO_SECONDS))

    def _take_alone(self, now: float, lane: Lane, call: str, account: str) -> Permits:
        ramp = self._ramp if self._pause_end >= self._redis_pause_end else self._ramp_seconds
        wait = self._alone.take(
            now=now,
            wall=self._wall(),
            lane=lane,
            key=f"{call}:{account}",
            workers=self._workers,
            place=self._place,
            ramp_share=quota.ramp_share(since_pause=now - max(self._pause_end, self._redis_pause_end), ramp=ramp),
        )
        return Permits((), wait) if wait else Permits((Permit("", now, now),))

    def _pause_left(self, now: float) -> float:
        """Return the seconds until the pause ends; 0 if there is none."""
        return max(0.0, max(self._pause_end, self._redis_pause_end) - now)

    def _note_pause(self, now: float) -> None:
        """Report that a pause began, or ended."""
        left = self._pause_left(now)
        if left > 0 and self._paused_since == math.inf:
            self._paused_since = now
            told_by = "tiktok" if self._pause_end >= self._redis_pause_end else "redis"
            self._report("quota.paused", {"seconds": round(left, 1), "told_by": told_by}, "warning")
        elif left <= 0 and self._paused_since < math.inf:
            self._report("quota.resumed", {"seconds": round(now - self._paused_since, 1)}, "info")
            self._paused_since = math.inf

    def _share_pause(self, *, widen: bool) -> None:
        with self._lock:
            left, ramp = max(0.0, self._pause_end - self._monotonic()), self._ramp
        shared = self._shared.punish(seconds=left, ramp=ramp, widen=widen)
        with self._lock:
            self._unshared = not shared
