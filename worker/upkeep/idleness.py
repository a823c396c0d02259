"""Watches refreshing itself: due grants that nobody refreshes raise one alarm, and one all-clear follows."""

from __future__ import annotations

from typing import Final

from worker.ground import Ground
from worker.telemetry import Fact

IDLE_SECONDS: Final = 300.0
"""How long a grant may be due: it waits for a scan, which comes every ten seconds, and for its place in the quota."""


class Idleness:
    """Checks that due grants are refreshed; it runs in a queue that workers without `refresh` serve too."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def watch(self) -> None:
        """Raise the alarm, or give the all-clear.

        A stopped app and a spent quota keep grants waiting too. They have alarms and facts of their own, so this raises
        none while they last.

        Raises:
            StoreUnavailableError: the database is away.
        """
        waited = self._ground.store.due_seconds()
        idle = waited > IDLE_SECONDS and not self._ground.store.attempted(within_seconds=IDLE_SECONDS)
        if idle and (self._ground.store.brake().stopped or self._ground.limiter.paused_seconds() > 0):
            return
        detail = f"grants have been due for {waited / 60:.0f} minutes, and no refresh was tried in the last five"
        if self._ground.store.note_idleness(detail if idle else None):
            if idle:
                self._ground.hook(Fact("refreshes.idle", {"due_seconds": round(waited)}, level="error"))
            else:
                self._ground.hook(Fact("refreshes.went_on", {}))
