"""How long to wait after a failed attempt: full-jitter exponential, bounded by what is left of the access token."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from worker.policy.renewal import Decision

BASE: Final = timedelta(seconds=5)
CEILING: Final = timedelta(minutes=15)
PULL_CEILING: Final = timedelta(hours=6)
SHARE_OF_TIME_LEFT: Final = 10
SUSPECT_CEILING: Final = timedelta(minutes=30)
MAX_DOUBLINGS: Final = 16


def retry_at(*, now: datetime, expires_at: datetime, failures: int, draw: float) -> Decision:
    """Return when a grant is tried again after a failed attempt.

    The wait doubles from 5 s to 15 min and is never more than a tenth of the time that the access token has left,
    so tries come closer as its end nears; once it has ended the ceiling holds again.

    Args:
        now: the database's time.
        expires_at: end of the access token.
        failures: failed attempts in a row, this one included; any number, however absurd.
        draw: a fresh random number in [0, 1).
    """
    wait = _window(failures, CEILING)
    left = expires_at - now
    if left > timedelta(0):
        wait = max(min(wait, left / SHARE_OF_TIME_LEFT), BASE / 5)
    wait = wait / 2 + wait / 2 * draw
    return Decision(now + wait, f"try again in {wait.total_seconds():.0f} s, after {failures} failed attempts")


def suspect_at(*, now: datetime, expires_at: datetime, failures: int, draw: float) -> Decision:
    """Return when a suspect grant is looked at again: half of what is left, at most every 30 minutes."""
    left = max(expires_at - now, timedelta(0)) / 2
    wait = min(SUSPECT_CEILING, left) if left else _window(failures, CEILING)
    wait = max(wait * (0.75 + 0.25 * draw), BASE)
    return Decision(now + wait, f"in doubt: look again in {wait.total_seconds():.0f} s")


def pull_retry_at(*, now: datetime, failures: int, draw: float) -> Decision:
    """Return when a pull is tried again after a failure."""
    wait = _window(failures, PULL_CEILING)
    wait = wait / 2 + wait / 2 * draw
    return Decision(now + wait, f"pull again in {wait.total_seconds():.0f} s, after {failures} failures")


def _window(failures: int, ceiling: timedelta) -> timedelta:
    doublings = min(max(failures - 1, 0), MAX_DOUBLINGS)
    return min(BASE * (1 << doublings), ceiling)
