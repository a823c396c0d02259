"""Failpoints: named steps of a token's way at which the fault tests kill, stop or delay a real process.

They do nothing unless `EVERTOKEN_TEST_FAILPOINTS` is set, to `name:action` pairs separated by commas. It is accepted
only together with `EVERTOKEN_TEST_RUN=1` and a TikTok on this machine's loopback; otherwise a process does not start.
Actions: `kill` (SIGKILL), `stop` (SIGSTOP), `raise`, `sleep=SECONDS`, each with an optional `@N`: only at the N-th
pass.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from worker.errors import ConfigurationError

SWITCH: Final = "EVERTOKEN_TEST_FAILPOINTS"
TEST_RUN: Final = "EVERTOKEN_TEST_RUN"
NAMES: Final = frozenset(
    {
        "pre_claim",
        "post_claim",
        "pre_send",
        "post_send",
        "post_recv",
        "pre_journal",
        "post_write",
        "post_fsync",
        "pre_commit",
        "post_commit",
    }
)
"""The steps of a token's way."""
ENDS: Final = frozenset(
    {"end_begun", "end_at_tiktok", "end_wiped", "forget_begun", "forget_journal", "forget_rows", "forget_done"}
)
"""The steps of revoking a grant and of forgetting a creator."""

Failpoint = Callable[[str], object]


@dataclass(frozen=True)
class _Order:
    action: str
    seconds: float
    passing: int | None


class FailpointError(Exception):
    """Raised at a step that a test named; not one of our errors, so that nothing handles it."""


no_failpoint: Final[Failpoint] = frozenset[str]().__contains__
"""Does nothing; used by every process outside the fault tests."""


def failpoint_of(environ: Mapping[str, str], *, sandboxed: bool) -> Failpoint:
    """Return the failpoint function that the environment asks for.

    Args:
        environ: the environment.
        sandboxed: True if TikTok's address is on this machine's loopback.

    Raises:
        ConfigurationError: failpoints are set outside a test run or beside a real address, or cannot be read.
    """
    text = environ.get(SWITCH, "")
    if not text:
        return no_failpoint
    if not sandboxed:
        raise ConfigurationError(f"{SWITCH} is set beside a real TikTok: failpoints break a process; unset it")
    if environ.get(TEST_RUN) != "1":
        raise ConfigurationError(f"{SWITCH} is set: failpoints break a process on purpose and are for tests alone")
    orders = dict(_read(part) for part in text.split(","))
    passings: Counter[str] = Counter()
    lock = threading.Lock()

    def failpoint(name: str) -> None:
        order = orders.get(name)
        if order is None:
            return
        with lock:
            passings[name] += 1
            if order.passing not in (None, passings[name]):
                return
        _carry_out(name, order)

    return failpoint


def _read(part: str) -> tuple[str, _Order]:
    name, _, rest = part.strip().partition(":")
    rest, _, passing = rest.partition("@")
    action, _, seconds = rest.partition("=")
    if name not in NAMES | ENDS or action not in {"kill", "stop", "raise", "sleep"}:
        raise ConfigurationError(
            f"{SWITCH}: {part!r} is not one of {sorted(NAMES | ENDS)} with kill, stop, raise or sleep=S"
        )
    return name, _Order(action, float(seconds or 0), int(passing) if passing else None)


def _carry_out(name: str, order: _Order) -> None:
    if order.action == "sleep":
        time.sleep(order.seconds)
    elif order.action == "raise":
        raise FailpointError(name)
    else:
        # Sent to this thread: another thread may take a signal to the process, while this one goes on for a moment.
        signal.pthread_kill(threading.get_ident(), signal.SIGKILL if order.action == "kill" else signal.SIGSTOP)
