"""The coming load: what is sent under the quota, slice by slice, from when each grant is due next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from worker.policy.renewal import STRETCH


@dataclass(frozen=True)
class Due:
    """Grants with tokens of one life that are due in the same slice of time.

    Attributes:
        life: of the access token, in seconds.
        slice: number of the slice, counted from now.
        grants: how many.
    """

    life: float
    slice: int
    grants: int


@dataclass(frozen=True)
class Ahead:
    """Refreshes in one coming slice of time.

    Attributes:
        due: refreshes that become due in it.
        sent: refreshes that the quota permits in it.
        waiting: refreshes that wait at its end.
    """

    due: float
    sent: float
    waiting: float


def forecast(dues: Iterable[Due], *, renew_at: float, slice_seconds: float, slices: int, usable: float) -> list[Ahead]:
    """Return the refreshes of the coming slices; each refreshed grant is due again one period later.

    Args:
        dues: when the fleet is due next.
        renew_at: fraction of the life at which the renewal window begins.
        slice_seconds: length of a slice.
        slices: how many slices to compute.
        usable: requests a second that the limiter gives out.
    """
    due = [0.0] * slices
    for crowd in dues:
        period = crowd.life * renew_at / slice_seconds
        band = crowd.life * STRETCH / slice_seconds
        turn = 0
        while crowd.slice + turn * (period - band / 2) < slices:
            _spread(due, crowd.slice + turn * period, turn * band, crowd.grants)
            turn += 1
    ahead, waiting = [], 0.0
    for wanted in due:
        sent = min(waiting + wanted, usable * slice_seconds)
        waiting += wanted - sent
        ahead.append(Ahead(wanted, sent, waiting))
    return ahead


def _spread(due: list[float], middle: float, width: float, grants: float) -> None:
    """Add grants evenly to the slices of a band; a band of no width is one slice."""
    begin, end = middle - width / 2, middle + width / 2 + 1
    for number in range(max(0, int(begin)), min(len(due), int(end) + 1)):
        part = min(end, number + 1) - max(begin, number)
        due[number] += grants * max(part, 0.0) / (end - begin)
