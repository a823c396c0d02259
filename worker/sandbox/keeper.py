"""Ends the processes it was told of when the one that told it is gone: so that a killed stack leaves nothing behind.

It reads `+PID` and `-PID` lines from standard input. While that is open it does nothing; at its end it terminates
what is still listed, the youngest first, and kills what does not go. Folders named as arguments are then removed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from typing import Final

PATIENCE_SECONDS: Final = 15.0
LOOK_SECONDS: Final = 0.1


def listed(lines: Iterable[str]) -> list[int]:
    """Read lines to their end and return the processes still listed, the oldest first."""
    pids: dict[int, None] = {}
    for line in lines:
        if line.startswith("+"):
            pids[int(line[1:])] = None
        else:
            pids.pop(int(line[1:]), None)
    return list(pids)


def end_all(pids: list[int]) -> None:
    """Terminate processes, the youngest first, and kill those that have not ended after a time."""
    left = [pid for pid in reversed(pids) if _signal(pid, signal.SIGTERM)]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while left and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        left = [pid for pid in left if _signal(pid, 0)]
    for pid in left:
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with its input, and with nothing else
    end_all(listed(sys.stdin))
    for folder in sys.argv[1:]:
        shutil.rmtree(folder, ignore_errors=True)
