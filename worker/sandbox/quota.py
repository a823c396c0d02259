"""TikTok's quota: per second, in any minute, per creator and call, and per day, with its punishments.

Figures and punishments follow TikTok's rate-limit page (official doc 1740029171730433) as far as it is public: a broken
second ends with the second, a broken minute shuts the app out for five minutes, a broken day until 00:00 UTC.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

from worker.sandbox.options import SandboxOptions

TOO_MANY: Final = 40_100
MINUTE_SECONDS: Final = 60.0
SUSPENSION_SECONDS: Final = 300.0
DAY_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a call that is over the quota."""

    code: int
    message: str


@dataclass(slots=True)
class Quota:
    """Counts calls and refuses those over the limits; refused calls do not count against them."""

    refused: Counter[str] = field(default_factory=Counter)
    shut_until: float = 0.0
    _second: tuple[int, int] = (0, 0)
    _day: tuple[int, int] = (0, 0)
    _minute: deque[float] = field(default_factory=deque)
    _accounts: dict[tuple[str, str], deque[float]] = field(default_factory=dict)

    def take(self, options: SandboxOptions, *, now: float, call: str, creator: str | None) -> Refusal | None:
        """Count one call, or return why it is refused.

        Args:
            options: the limits in force.
            now: seconds since the epoch.
            call: path of the call.
            creator: the creator of the token or code that was sent, if it is known.
        """
        if now < self.shut_until:
            return self._refuse("suspended", "Too many requests. The app is temporarily restricted, try again later.")
        second, day = int(now), int(now // DAY_SECONDS)
        in_second = self._second[1] if self._second[0] == second else 0
        in_day = self._day[1] if self._day[0] == day else 0
        if options.quota_per_day is not None and in_day >= options.quota_per_day:
            self.shut_until = now + ((day + 1) * DAY_SECONDS - now) * options.punishment_scale
            return self._refuse("day", "Too many requests. The QPD limit of the app is reached.")
        if options.quota_per_second is not None and in_second >= options.quota_per_second:
            return self._refuse("second", "Too many requests. The QPS limit of the app is reached.")
        if options.quota_per_minute is not None and len(_recent(self._minute, now)) >= options.quota_per_minute:
            self.shut_until = now + SUSPENSION_SECONDS * options.punishment_scale
            return self._refuse(
                "minute", "Too many requests. The QPM limit of the app is reached: temporarily restricted."
            )
        if options.quota_per_account_minute is not None and creator is not None:
            calls = _recent(self._accounts.setdefault((creator, call), deque()), now)
            if len(calls) >= options.quota_per_account_minute:
                text = "Too many requests. The QPM limit of this account on this endpoint is reached."
                return self._refuse("account", text, options.quota_account_code)
            calls.append(now)
        if options.quota_per_minute is not None:
            self._minute.append(now)
        self._second, self._day = (second, in_second + 1), (day, in_day + 1)
        return None

    def _refuse(self, kind: str, message: str, code: int = TOO_MANY) -> Refusal:
        self.refused[kind] += 1
        return Refusal(code, message)


def _recent(times: deque[float], now: float) -> deque[float]:
    while times and times[0] <= now - MINUTE_SECONDS:
        times.popleft()
    return times
