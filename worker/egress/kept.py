"""Connections that token calls use again, once the server has shown that it leaves idle connections open.

A connection that its peer closes in the very moment of sending leaves a call in doubt, which a new connection would not
have done. So a connection is used again only within a burst of calls, half a second after its last answer at most, and
only after several others were seen to stay open for twice that time. It is looked at before the request, and once more
between the request's head and its body. A single connection that was closed early, or on which a call broke, ends this
for an hour: until then every call connects for itself.
"""

from __future__ import annotations

import math
import os
import re
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from worker.egress.proxy import END_OF_HEAD

IDLE_SECONDS: Final = 0.5
"""Longest time between two calls on one connection. Servers close idle ones after 5 s and more."""
PROOF_SECONDS: Final = 2 * IDLE_SECONDS
LATE_SECONDS: Final = 3.0
"""A witness that is looked at later than this proves nothing: by then a server may close connections."""
WITNESSES: Final = 8
"""So many connections must have stayed open before the first is used again."""
DISTRUST_SECONDS: Final = 3600.0
LIFE_SECONDS: Final = 60.0
"""An older connection is not used again: addresses and certificates change."""
LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*(?=\r\n)")
CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*(?=\r\n)")
CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")


@dataclass(frozen=True)
class _Idle:
    """A connection between two calls, and the instant of the monotonic clock since which it has had nothing to do."""

    connection: Any
    since: float


class Kept:
    """The idle connections of one process to one server; safe between threads, and empty in a forked child."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Begin without a connection, and without proof that the server keeps any."""
        self._monotonic = monotonic
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._ready: deque[_Idle] = deque()
        self._witnesses: deque[_Idle] = deque()
        self._proofs = 0
        self._distrusted_until = -math.inf

    @property
    def wanted(self) -> bool:
        """True if a connection that is answered now would stay open."""
        if self._monotonic() < self._distrusted_until:
            return False
        return self._proofs + len(self._witnesses) < WITNESSES or self._proofs >= WITNESSES

    def take(self) -> Any:
        """Return a connection that may be used again, or None."""
        with self._lock:
            self._forget_in_child()
            now, over = self._monotonic(), list[_Idle]()
            betrayed = not self._hear_witnesses(now, over)
            while self._ready and self._ready[0].since < now - IDLE_SECONDS:
                over.append(self._ready.popleft())
            found = self._ready.pop().connection if self._ready else None
        for idle in over:
            idle.connection.close()
        if betrayed or (found is not None and not is_quiet(found.sock)):
            self.distrust()
            if found is not None:
                found.close()
            return None
        return found

    def put(self, connection: Any) -> None:
        """Keep a connection whose answer was read to its last byte, or close it."""
        with self._lock:
            now = self._monotonic()
            idle = _Idle(connection, now)
            if now < self._distrusted_until or now - connection.connected_at > LIFE_SECONDS:
                pass
            elif self._proofs >= WITNESSES:
                self._ready.append(idle)
                return
            elif self._proofs + len(self._witnesses) < WITNESSES:
                self._witnesses.append(idle)
                return
        connection.close()

    def distrust(self) -> None:
        """Use no connection again for an hour, and only after new proof from then on."""
        with self._lock:
            self._distrusted_until, self._proofs = self._monotonic() + DISTRUST_SECONDS, 0
        self.close()

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            over = [*self._ready, *self._witnesses]
            self._ready.clear()
            self._witnesses.clear()
        for idle in over:
            idle.connection.close()

    def _hear_witnesses(self, now: float, over: list[_Idle]) -> bool:
        """Look at the witnesses whose time has come; return False if the server closed one."""
        while self._witnesses and self._witnesses[0].since <= now - PROOF_SECONDS:
            witness = self._witnesses.popleft()
            over.append(witness)
            if witness.since > now - LATE_SECONDS:
                if not is_quiet(witness.connection.sock):
                    return False
                self._proofs += 1
        return True

    def _forget_in_child(self) -> None:
        if self._pid != os.getpid():
            self._pid, self._ready, self._witnesses = os.getpid(), deque(), deque()


def is_quiet(source: socket.socket) -> bool:
    """Return True if the peer has neither closed a connection nor said anything on it.

    Inside TLS this reads what is no data, such as session tickets, and hears the peer's goodbye.
    """
    try:
        source.settimeout(0)
        source.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False
    return False


def end_of_answer(received: bytes | bytearray) -> int | None:
    """Return where the answer ends that these bytes begin with; None if its head does not say, or it is no HTTP 200."""
    end = received.find(END_OF_HEAD) + len(END_OF_HEAD)
    head = bytes(received[:end]).lower()
    if not head.startswith(b"http/1.1 200 ") or head.count(b"\ncontent-length") + head.count(b"\ntransfer-") != 1:
        return None
    if length := LENGTH.search(head):
        return end + int(length[1])
    size = -1 if CHUNKED.search(head) else 0
    while size:
        chunk = CHUNK.match(received, end)
        if chunk is None:
            return None
        size = int(chunk[1], 16)
        end = chunk.end() + size + 2
    return end if received.endswith(b"\r\n0\r\n\r\n") else None
