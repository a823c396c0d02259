"""Finds out that a worker or beat hangs, and ends it, so that its supervisor starts another.

An idle worker asks Redis for messages all the time and gets an answer every second, with or without a message. If
none comes for two minutes, although a thread is free and Redis serves other clients, the worker hangs. RabbitMQ sends
messages by itself: a worker hangs if none comes although some wait for it, or if it hears no heartbeat either. A
broker, or a host, that is away is no evidence: a restart would not help. A thread of its own looks, so that it sees a
loop that stands still. While all is well it touches the heartbeat file and feeds systemd's watchdog.
"""

from __future__ import annotations

import faulthandler
import math
import mmap
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from worker.policy.hanging import LOOKS, Evidence, Progress
from worker.telemetry import Fact, report

STATUS: Final = os.EX_TEMPFAIL
"""Exit status of a process that ended because it hung."""
WELL, MOVED, CLOCK = 0, 8, struct.Struct("d")
"""Where the shared memory has the time at which the process was last well, and last moved; 0 until then."""
HUNG: Final = -1.0
FEED_SECONDS: Final = 30
"""How often desk and exporter feed systemd's watchdog and touch their file: a fraction of what both are asked for."""
HEARTBEAT: Final = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe without a reader is an error
_unwritten: Final[set[str]] = set()  # heartbeat files that could not be written the last time
_unfed: Final = threading.Event()  # set while systemd's watchdog cannot be fed


class Watchdog:
    """The watch over one process."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._signs = 0
        self._clocks = mmap.mmap(-1, 2 * CLOCK.size)
        self._over = threading.Event()
        self._hang_seconds = 0.0
        self._look: Callable[[], None] = feed

    def begin(self, hang_seconds: float) -> None:
        """Feed systemd's watchdog from now on, so that a long start is not taken for a hang.

        Args:
            hang_seconds: the time after which a process that could work and does not is known to hang.
        """
        self._hang_seconds = hang_seconds
        self._clocks = mmap.mmap(-1, 2 * CLOCK.size)  # shared with children, which answer /healthz for their worker
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def moved(self) -> None:
        """Note a sign of work."""
        self._signs += 1
        self.heard()

    def heard(self) -> None:
        """Note that the broker said something, if only that it is there."""
        CLOCK.pack_into(self._clocks, MOVED, time.monotonic())

    def judge(
        self,
        hangs: Fact,
        *,
        busy: Callable[[], bool],
        could_work: Callable[[bool], bool],
        alive: Callable[[], None],
        end: Callable[[], None],
    ) -> None:
        """Judge from now on whether the process works.

        Args:
            hangs: what to report when it hangs.
            busy: returns True if no thread is free.
            could_work: asks what the process depends on, and returns True if the process could work; it gets `busy`.
            alive: called at each look that finds the process well.
            end: ends the process when it hangs; it may take long.
        """
        evidence, last = Evidence(self._hang_seconds), Progress(-1)

        def look() -> None:
            nonlocal last
            progress = Progress(self._signs, busy())
            able = progress != last or could_work(progress.busy)  # if it moved, nobody has to be asked
            last = progress
            if evidence.hangs(time.monotonic(), progress if able else None):
                self.stop()
                CLOCK.pack_into(self._clocks, WELL, HUNG)
                report(hangs)
                with suppress(ValueError, OSError, AttributeError):  # standard error may be closed
                    faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr, all_threads=True)
                end()
                return
            CLOCK.pack_into(self._clocks, WELL, time.monotonic())
            alive()
            feed()

        self._look = look

    def stop(self) -> None:
        """Judge no more, because the process ends."""
        self._over.set()

    def well(self) -> bool:
        """Return False if this process, or the worker that is its parent, hangs, or if nobody watches it any more."""
        well_at: float = CLOCK.unpack_from(self._clocks, WELL)[0]
        return well_at == 0 or time.monotonic() - well_at < self._hang_seconds

    def silent_seconds(self) -> float:
        """Return the seconds since the broker last said something; NaN before the first time."""
        moved_at: float = CLOCK.unpack_from(self._clocks, MOVED)[0]
        return time.monotonic() - moved_at if moved_at else math.nan

    def _run(self) -> None:
        while True:
            self._look()
            if self._over.wait(self._hang_seconds / LOOKS):
                return


def touch(folder: Path, name: str) -> None:
    """Set the modification time of a file in the run folder, to show that this process lives.

    A link in its place is not followed, so that nobody who may write to the folder can make or touch other files.
    An error is logged once and not raised: Celery would take it for a lost connection, or end beat.
    """
    path = folder / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, HEARTBEAT, 0o644)
        try:
            os.utime(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if name not in _unwritten:
            report(Fact("heartbeat.unwritten", {"file": str(path), "reason": error.strerror or ""}, level="error"))
        _unwritten.add(name)
    else:
        _unwritten.discard(name)


def feed() -> None:
    """Feed systemd's watchdog, if it watches this process: one datagram to the socket that it named.

    An error is logged once until feeding succeeds, and not raised: systemd itself ends a process that it does not hear.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
            notifier.setblocking(False)
            notifier.sendto(b"WATCHDOG=1", "\0" + address[1:] if address.startswith("@") else address)
    except BlockingIOError:  # systemd is slow; the next datagram comes in time
        return
    except OSError as error:
        if not _unfed.is_set():
            report(Fact("watchdog.unfed", {"socket": address, "reason": error.strerror or str(error)}, level="warning"))
        _unfed.set()
    else:
        _unfed.clear()


watchdog: Final = Watchdog()
"""The watch over this process."""
