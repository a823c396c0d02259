"""The tape: what worker processes under test record of their steps, so that the oracle knows what each had received.

A line is written with one call, so it outlasts the SIGKILL that comes a moment later. Tokens are noted by the
fingerprints of the sandbox's ledger.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from worker.egress.sockets import CURRENT, Call
from worker.sandbox.ledger import fingerprint
from worker.services import Services
from worker.settings import Settings
from worker.tiktok import RawAnswer, TikTok
from worker.vault import Token

PAIR: Final = (re.compile(rb'"refresh_token"\s*:\s*"([^"]+)"'), re.compile(rb'"access_token"\s*:\s*"[^"]+"'))


class _Steps(threading.local):
    """The step that this thread's call has reached."""

    sent: str = ""
    nth: int = 0
    call: Call | None = None
    received: str | None = None
    received_at: int = 0
    written_at: int = 0


class Tape:
    """Appends to a tape."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._steps = _Steps()

    def write(self, what: str, **fields: Any) -> None:
        """Write a line."""
        line = {"what": what, "pid": os.getpid(), "at": time.time(), **fields}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def sends(self, refresh_token: Token) -> None:
        """Note which token this thread is about to send."""
        self._steps.sent, self._steps.received = fingerprint(refresh_token.reveal()), None
        self._steps.call = None
        self._steps.nth += 1
        self.write("sending", fp=self._steps.sent, nth=self._steps.nth)

    def passes(self, name: str) -> None:
        """Note that this thread passes a failpoint.

        The note of what was received is written before the clock of the window starts, so it does not widen the
        window that is measured.
        """
        steps = self._steps
        if name == "post_claim":
            steps.nth = 0
        elif name == "post_send":
            steps.call = CURRENT.call  # the client forgets it at the call's end
            self.write("sent", fp=steps.sent, nth=steps.nth)
        elif name == "post_recv":
            steps.received = None if steps.call is None else received_pair(bytes(steps.call.received))
            self.write("over", fp=steps.received or "", old=steps.sent)
            steps.received_at = time.perf_counter_ns()
        elif name == "post_write":
            steps.written_at = time.perf_counter_ns()
        elif name == "post_fsync" and steps.received is not None:
            synced_at = time.perf_counter_ns()
            self.write(
                "journaled",
                fp=steps.received,
                written_ns=steps.written_at - steps.received_at,
                synced_ns=synced_at - steps.received_at,
            )


def received_pair(wire: bytes) -> str | None:
    """Return the fingerprint of the refresh token, if an answer's bytes hold both tokens whole."""
    refresh, access = (pattern.search(wire) for pattern in PAIR)
    return fingerprint(refresh.group(1).decode()) if refresh and access else None


class _TapedTikTok(TikTok):
    """A client that notes what it sends."""

    def __init__(self, inner: TikTok, tape: Tape) -> None:
        self.__dict__ |= inner.__dict__
        self._tape = tape

    def send_refresh(self, refresh_token: Token, *, app_secret: Token | None = None) -> RawAnswer:
        self._tape.sends(refresh_token)
        return super().send_refresh(refresh_token, app_secret=app_secret)


class TapedServices(Services):
    """A process's services, with a tape along the way."""

    def __init__(self, settings: Settings, tape: Tape) -> None:
        super().__init__(settings, pool_size=8)
        self._tape = tape

    @cached_property
    def failpoint(self) -> Callable[[str], None]:
        """The process's failpoints, noted before they strike."""
        strike = super().failpoint

        def failpoint(name: str) -> None:
            self._tape.passes(name)
            strike(name)

        return failpoint

    @cached_property
    def tiktok(self) -> TikTok:
        """The client, with a tape."""
        return _TapedTikTok(super().tiktok, self._tape)


@dataclass(frozen=True)
class Note:
    """One line of a tape.

    Attributes:
        what: `born`, `sending` (nothing has left yet), `sent`, `over` (nothing more is read), `journaled`, or `done`
            for a worker's own result.
        fp: fingerprint of the refresh token that was sent or, if both tokens came whole, received; else empty.
        old: for `over`: of the token that had been sent.
        nth: for `sending` and `sent`: which call of its attempt it is, from 1.
    """

    what: str
    pid: int
    at: float
    fp: str = ""
    old: str = ""
    nth: int = 0
    written_ns: int = 0
    synced_ns: int = 0
    grant_id: int = 0
    kind: str = ""
    reason: str = ""


def read_tape(path: Path) -> list[Note]:
    """Read a tape, also while it is being written."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [Note(**json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines()]
