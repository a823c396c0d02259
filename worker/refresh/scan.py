"""Scanning: find what is due now, and pace it so that workers get about as much as the quota permits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from worker.errors import StoreUnavailableError
from worker.ground import Ground
from worker.policy.pacing import Message, batch_size, pace
from worker.telemetry import SPANS, Span

PROBES: Final = 3
"""Ids published while the brake is on; the first that wins the probe is sent."""
SCANS_BEHIND: Final = 3
"""Pulls that have waited for this many scans are behind: those of one scan are done within two."""


class Scanner:
    """Finds due work; it only reads, so it may run twice, late, or on several hosts at once."""

    def __init__(self, ground: Ground, *, per_second: float, per_minute: float, scan_seconds: float) -> None:
        """Take what all use cases share, the quota of a second and of a minute, and the time between two scans."""
        self._ground = ground
        self._rate = min(per_second, per_minute / 60)
        self._scan_seconds = scan_seconds

    def refreshes(self) -> list[Message]:
        """Return the grants to refresh before the next scan, least time left first.

        Raises:
            StoreUnavailableError: the database does not answer; the next scan asks again.
        """
        with SPANS.over(Span("scan.refreshes")) as span:
            if self._ground.store.brake().stopped:
                due = self._ground.store.due(PROBES)
            else:
                self._ground.limiter.expect(self._ground.store.due_count())
                due = self._ground.store.due(batch_size(per_second=self._rate, scan_seconds=self._scan_seconds))
            span.fields["grants"] = len(due)
            return pace([grant.grant_id for grant in due], per_second=self._rate)

    def pulls(self) -> list[Message]:
        """Return the grants to pull before the next scan, longest wanted first.

        Raises:
            StoreUnavailableError: the database does not answer; the next scan asks again.
        """
        with SPANS.over(Span("scan.pulls")) as span:
            due = self._ground.store.due_pulls(batch_size(per_second=self._rate, scan_seconds=self._scan_seconds))
            span.fields["grants"] = len(due)
            return pace(due, per_second=self._rate)

    def pulls_of(self, ids: Sequence[int]) -> list[Message]:
        """Return the pulls to publish at once for grants that were refreshed just now.

        Nothing if pulls have waited for several scans, or the database does not answer: the scan of pulls publishes
        these too. It runs in the queue of pulls, so nothing piles up in Redis while the workers of that queue are away.
        """
        try:
            if not ids or self._ground.store.pulls_wait(SCANS_BEHIND * self._scan_seconds):
                return []
        except StoreUnavailableError:
            return []
        return [Message(message.ids, 0.0) for message in pace(ids, per_second=self._rate)]

    def expires(self, message: Message) -> float:
        """Return after how many seconds a message is stale: by then another scan has found its rows again."""
        return message.delay_seconds + self._scan_seconds
