"""The limiter: one question to Redis for each permit, and a safe share of one's own while Redis is away."""

from __future__ import annotations

import math
import os
import secrets
import threading
import time
from collections.abc import Callable
from typing import Final, Literal

from worker.errors import QuotaScope
from worker.limiter.alone import Alone
from worker.limiter.shared import LEAD_SECONDS, SILENT_SECONDS, Answer, LimiterStatus, Shared, Windows
from worker.policy import quota

HELLO_SECONDS: Final = 1.0
"""How often a process tells Redis that it is there; one that is away is found again by that."""
RESERVE_SECONDS: Final = 10.0
UNKNOWN_WORKERS: Final = 8
LONGEST_PAUSE: Final = 3_600.0
"""After it TikTok is asked again, whatever it said: what it counts on may be another clock than ours."""
RAMP_SECONDS: Final = 60.0
SECOND_RAMP_SHARE: Final = 0.05
"""Length of the ramp after a broken second, as a part of that after a broken minute."""
PUNCTUAL_SECONDS: Final = 0.01
"""A request that leaves later than so much after its moment is told to Redis."""

Lane = Literal["refresh", "pull"]


class Limiter:
    """The app's quota, shared through Redis by every process that names the same one; safe between threads."""

    def __init__(
        self,
        redis_url: str,
        *,
        per_second: float,
        per_minute: float,
        per_account_minute: int,
        second: float = quota.SECOND,
        minute: float = quota.MINUTE,
        ramp_seconds: float = RAMP_SECONDS,
        reserve_seconds: float = RESERVE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Make one; Redis is asked when the first permit is wanted.

        Args:
            redis_url: `redis://`, `rediss://` or `redis+socket://`.
            per_second: requests that TikTok permits the app in a second.
            per_minute: requests that TikTok permits the app in a minute.
            per_account_minute: requests that TikTok permits in a minute for one account on one call.
            second: length of a second, in seconds; other than 1 in tests only.
            minute: length of a minute, in seconds; other than 60 in tests only.
            ramp_seconds: how long permits rise to the full pace after a pause.
            reserve_seconds: within which time the refreshes expected are to be sent.
            monotonic: clock of this process, in seconds.
            wall: clock that the workers share, in seconds since the epoch.
        """
        self._windows = Windows(per_second, per_minute, per_account_minute, second, minute)
        self._shared = Shared(redis_url, self._windows, reserve_seconds=reserve_seconds)
        self._alone = Alone(self._windows)
        self._ramp_seconds = ramp_seconds
        self._monotonic, self._wall = monotonic, wall
        self._lock, self._last = threading.Lock(), threading.local()
        self._closed = threading.Event()
        self._greeter: threading.Thread | None = None
        self._worker, self._pid, self._epoch = "", 0, ""
        # Before a roster has come, so many are taken to share the quota: each of those that start without Redis does.
        self._workers, self._place = UNKNOWN_WORKERS, secrets.randbelow(UNKNOWN_WORKERS)
        self._heard_at = self._listed_at = -math.inf
        self._was_alone = False
        self._pause_end, self._ramp, self._untold = -math.inf, 0.0, False

    def take(self, *, lane: Lane, call: str, account: str) -> float:
        """Return 0 for a permit to send one request, or the seconds to wait before asking again.

        The permit is for a moment, now or a fraction of a second ahead: `depart` tells it right before sending. Asking
        does not sleep, and never raises for Redis's sake.

        Args:
            lane: refreshes go before pulls.
            call: path of the call.
            account: whose call it is: an id of ours, no secret.
        """
        now = self._monotonic()
        with self._lock:
            if now < self._pause_end:
                return self._pause_end - now
            self._begin()
            if self._alone.entered:
                return self._take_alone(now, lane, call, account)
            epoch, was_alone = self._epoch, self._was_alone
        answer = self._shared.permit(lane=lane, call=call, account=account, epoch=epoch, was_alone=was_alone)
        with self._lock:
            after = self._monotonic()
            if answer is None:
                self._lose(after)
                return self._take_alone(after, lane, call, account)
            self._was_alone = self._was_alone and not was_alone
            tell = self._read(answer, after)
        if tell:
            self._tell_pause(widen=False)
        if answer.wait > 0:
            return answer.wait
        self._last.permit, self._last.moment, self._last.leaves = answer.permit, now + answer.lead, after + answer.lead
        return 0.0

    def depart(self) -> float:
        """Tell that the request for which this thread took a permit is ready; call it until it returns 0, then send.

        What is done between permit and request, such as a claim, takes its time from the wait. A process may be held
        up all the same, and requests that were permitted in different seconds would arrive in one. A late one is noted
        in Redis, so that those after it keep their distance; a punctual one costs nothing.

        Returns:
            Seconds to wait before sending: a fraction of one, and for a late one about one at most; no other permit is
            needed.
        """
        permit, now = getattr(self._last, "permit", ""), self._monotonic()
        if not permit:
            return 0.0
        if now <= self._last.moment + PUNCTUAL_SECONDS:
            wait = float(max(0.0, self._last.leaves - now))
            self._last.permit = permit if wait else ""
            return wait
        self._last.permit = ""
        return self._shared.depart(permit) or 0.0

    def expect(self, refreshes: int) -> None:
        """Tell how many refreshes are due: so much of the quota of the next seconds is kept from pulls."""
        with self._lock:
            away = self._alone.entered
        if not away:
            self._shared.expect(refreshes)

    def punish(self, scope: QuotaScope, seconds: float) -> None:
        """Pause the whole app because TikTok said that a limit was broken; permits then rise from a small share.

        Args:
            scope: which limit; `account` pauses nothing, since the other creators have limits of their own.
            seconds: how long to pause; clamped to an hour.
        """
        if scope == "account":
            return
        seconds = min(max(seconds, 0.0), LONGEST_PAUSE) if math.isfinite(seconds) else LONGEST_PAUSE
        ramp = self._ramp_seconds * (SECOND_RAMP_SHARE if scope == "second" else 1.0)
        with self._lock:
            self._pause(seconds, ramp)
        self._tell_pause(widen=scope == "second")

    def status(self) -> LimiterStatus:
        """Return how the limiter stands; asks Redis whether it answers."""
        answers = self._shared.answers()
        with self._lock:
            return LimiterStatus(
                shared=answers,
                workers=self._workers,
                paused_seconds=max(0.0, self._pause_end - self._monotonic()),
                usable_per_second=quota.usable_rate(
                    per_second=self._windows.per_second, per_minute=self._windows.per_minute
                ),
            )

    def close(self) -> None:
        """Give this process's share back and close the connections."""
        self._closed.set()
        if self._greeter is not None and self._pid == os.getpid():
            self._greeter.join()
            if not self._alone.entered:
                self._shared.leave(self._worker)
        self._shared.close()

    def _begin(self) -> None:
        """Begin to say hello, once in a process: a fork takes no threads along."""
        if self._pid != os.getpid():
            self._worker, self._pid = secrets.token_hex(8), os.getpid()
            self._greeter = threading.Thread(target=self._greet, args=(self._worker,), name="limiter", daemon=True)
            self._greeter.start()

    def _greet(self, worker: str) -> None:
        """Tell Redis every second that this process is there; a Redis that was away is used again from then on."""
        while True:
            roster = self._shared.hello(worker)
            with self._lock:
                if roster is not None:
                    self._workers, self._place, self._listed_at = roster.workers, roster.place, self._monotonic()
                    self._was_alone = self._was_alone or self._alone.gave
                    self._alone.leave()
            if self._closed.wait(HELLO_SECONDS):
                return

    def _read(self, answer: Answer, now: float) -> bool:
        """Take in what Redis said; return whether it must be told of a pause that it does not know."""
        forgotten = self._epoch not in {"", answer.epoch}
        self._epoch, self._heard_at = answer.epoch, now
        if answer.pause > 0:
            self._pause(answer.pause, self._ramp_seconds)
        return (forgotten or self._untold) and now < self._pause_end + self._ramp

    def _lose(self, now: float) -> None:
        if self._alone.entered:
            return
        # The others may reach Redis still. They leave us our share once we have been silent for a while, and say hello
        # every second; what was permitted until then must have left TikTok's second. Who has never heard from Redis
        # asks once more.
        left_to_us = self._listed_at + SILENT_SECONDS + HELLO_SECONDS
        clear = max(self._heard_at, left_to_us) + self._windows.second * (1 + quota.SECOND_GUARD + LEAD_SECONDS)
        self._alone.enter(not_before=max(now, clear if self._epoch else now + 1.5 * HELLO_SECONDS))

    def _take_alone(self, now: float, lane: Lane, call: str, account: str) -> float:
        since, self._last.permit = now - self._pause_end, ""
        return self._alone.take(
            now=now,
            wall=self._wall(),
            lane=lane,
            key=f"{call}:{account}",
            workers=self._workers,
            place=self._place,
            ramp_share=quota.ramp_share(since_pause=since, ramp=self._ramp),
        )

    def _pause(self, seconds: float, ramp: float) -> None:
        end = self._monotonic() + seconds
        if end > self._pause_end:
            self._pause_end, self._ramp = end, ramp

    def _tell_pause(self, *, widen: bool) -> None:
        with self._lock:
            left, ramp = max(0.0, self._pause_end - self._monotonic()), self._ramp
        told = self._shared.punish(seconds=left, ramp=ramp, widen=widen)
        with self._lock:
            self._untold = not told
