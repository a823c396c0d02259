"""Pacing: cut a scan's ids into messages and spread them over the time until the next scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MOST: Final = 100
"""Most ids in one message: a message costs about as much for one id as for a hundred."""
SPAN_SECONDS: Final = 3.0
"""A message holds at most what the quota permits in this time, so that a worker that dies delays few grants."""
SPARE: Final = 5
OVERSUPPLY: Final = 1.2
"""Ids published for each permit: some are done by then, and the quota itself delays the surplus."""


@dataclass(frozen=True)
class Message:
    """Ids to be published together.

    Attributes:
        ids: grant ids, most urgent first.
        delay_seconds: how long after the scan they are handed to a worker.
    """

    ids: tuple[int, ...]
    delay_seconds: float


def batch_size(*, per_second: float, scan_seconds: float) -> int:
    """Return how many ids a scan publishes: a little more than the quota permits until the next scan."""
    return int(per_second * scan_seconds * OVERSUPPLY) + SPARE


def pace(ids: Sequence[int], *, per_second: float) -> list[Message]:
    """Cut ids into messages that come at the rate of the quota, the first at once.

    Args:
        ids: grant ids, most urgent first.
        per_second: permits that the quota gives in a second.
    """
    chunk = max(1, min(MOST, int(per_second * SPAN_SECONDS)))
    return [
        Message(tuple(ids[start : start + chunk]), start / (per_second * OVERSUPPLY))
        for start in range(0, len(ids), chunk)
    ]
