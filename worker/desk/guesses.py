"""Counting wrong keys and passwords by address, so that nobody may guess many."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

MOST_ADDRESSES: Final = 10_000
"""Addresses that are remembered; the one that was wrong longest ago is forgotten first."""


class Guesses:
    """Allows each address a number of wrong guesses a minute; a wrong guess counts for a minute.

    An address of IPv6 counts with its whole /64, which one host has to itself. Safe to share between threads.

    Args:
        most: wrong guesses of one address.
        seconds: for how long they count.
        monotonic: clock of this process, in seconds.
    """

    def __init__(self, most: int, *, seconds: float = 60.0, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._seconds = seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()

    def wait(self, address: str) -> int:
        """Return for how many seconds an address may not guess; 0 if it may."""
        with self._lock:
            counted = self._recent(_block(address))
            if len(counted) < self._most:
                return 0
            return max(1, math.ceil(counted[-self._most] + self._seconds - self._monotonic()))

    def wrong(self, address: str) -> bool:
        """Count a wrong guess; return True if it was the last that the address may make for now."""
        block = _block(address)
        with self._lock:
            counted = self._recent(block)
            counted.append(self._monotonic())
            self._wrong[block] = counted[-self._most :]
            self._wrong.move_to_end(block)
            if len(self._wrong) > MOST_ADDRESSES:
                self._wrong.popitem(last=False)
            return len(counted) == self._most

    def right(self, address: str) -> None:
        """Forget the wrong guesses of an address that then knew the secret."""
        with self._lock:
            self._wrong.pop(_block(address), None)

    def _recent(self, block: str) -> list[float]:
        since = self._monotonic() - self._seconds
        return [at for at in self._wrong.get(block, ()) if at > since]


def _block(address: str) -> str:
    if ":" not in address:
        return address
    try:
        return str(ipaddress.IPv6Network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return address
