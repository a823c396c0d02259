"""Back-off: how long a grant waits for its next attempt, from the time that its access token has left.

A wait takes at most a part of the time left, so that a short-lived token is tried as often as a long-lived one before
it ends. Once it has ended, nothing can be saved any more, and the waits grow with the failures.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from worker.policy.renewal import Decision

BASE: Final = timedelta(seconds=5)
LEAST: Final = timedelta(seconds=1)
"""Shortest wait."""
CEILING: Final = timedelta(minutes=15)
RETRY_PARTS: Final = 10
SECOND_LOOK: Final = timedelta(minutes=5)
"""Time between a first refusal and the second look: the brake's window, so that a mass refusal is noticed before."""
SECOND_LOOK_PARTS: Final = 4
SUSPECT_CEILING: Final = timedelta(minutes=30)
SUSPECT_PARTS: Final = 2
QUOTA_PARTS: Final = 4
QUOTA_WAIT_OF_ENDED: Final = timedelta(minutes=1)
"""Short, because the limiter already pauses the whole app, and a grant without a valid token should go first."""
PULL_CEILING: Final = timedelta(hours=6)
MAX_DOUBLINGS: Final = 16


def retry_at(*, now: datetime, expires_at: datetime, failures: int, draw: float) -> Decision:
    """Return when a grant is tried again after a failed attempt.

    The wait doubles from 5 s to 15 min and is never more than a tenth of the time that the access token has left,
    so waits become shorter as its end nears; once it has ended, the ceiling holds again.

    Args:
        now: the database's time.
        expires_at: end of the access token.
        failures: failed attempts in a row, this one included; any number, however large.
        draw: a fresh random number in [0, 1).
    """
    window = _window(failures, CEILING)
    wait = _within(window, expires_at - now, RETRY_PARTS, ended=window)
    wait = wait / 2 + wait / 2 * draw
    return Decision(now + wait, f"try again in {wait.total_seconds():.0f} s, after {failures} failed attempts")


def quota_wait_at(*, now: datetime, expires_at: datetime, seconds: float) -> Decision:
    """Return when a grant that met a spent quota is tried again.

    Args:
        now: the database's time.
        expires_at: end of the access token.
        seconds: the wait that TikTok asks for; a grant waits at most a quarter of its token's time.
    """
    asked = timedelta(seconds=seconds)
    wait = _within(asked, expires_at - now, QUOTA_PARTS, ended=min(asked, QUOTA_WAIT_OF_ENDED))
    return Decision(now + wait, f"the quota is spent: try again in {wait.total_seconds():.0f} s")


def second_look_at(*, now: datetime, expires_at: datetime, failures: int) -> Decision:
    """Return when a refused grant is tried again: after five minutes, or a quarter of the time left."""
    wait = _within(SECOND_LOOK, expires_at - now, SECOND_LOOK_PARTS, ended=_window(failures, SECOND_LOOK))
    return Decision(now + wait, f"refused: look again in {wait.total_seconds():.0f} s")


def suspect_at(*, now: datetime, expires_at: datetime, failures: int, draw: float) -> Decision:
    """Return when a suspect grant is tried again: after half of the time left, but at most 30 minutes."""
    wait = _within(SUSPECT_CEILING, expires_at - now, SUSPECT_PARTS, ended=_window(failures, CEILING))
    wait = max(wait * (0.75 + 0.25 * draw), LEAST)
    return Decision(now + wait, f"in doubt: look again in {wait.total_seconds():.0f} s")


def pull_retry_at(*, now: datetime, failures: int, draw: float) -> Decision:
    """Return when a pull is tried again after a failure."""
    wait = _window(failures, PULL_CEILING)
    wait = wait / 2 + wait / 2 * draw
    return Decision(now + wait, f"pull again in {wait.total_seconds():.0f} s, after {failures} failures")


def notice_retry_at(*, now: datetime, failures: int, draw: float) -> Decision:
    """Return when a notice is posted again that its address did not accept: after 5 s first, after 15 min at last."""
    wait = _window(failures, CEILING)
    wait = wait / 2 + wait / 2 * draw
    return Decision(now + wait, f"post again in {wait.total_seconds():.0f} s, after {failures} failures")


def _within(wait: timedelta, left: timedelta, parts: int, *, ended: timedelta) -> timedelta:
    """Return a wait of at most `left / parts`, or `ended` if the token has ended."""
    return max(min(wait, left / parts), LEAST) if left > timedelta(0) else ended


def _window(failures: int, ceiling: timedelta) -> timedelta:
    doublings = min(max(failures - 1, 0), MAX_DOUBLINGS)
    return min(BASE * (1 << doublings), ceiling)
