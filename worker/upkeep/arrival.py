"""Arrival: a worker that starts while its database server is away waits for it, as it waits for Redis."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from worker.errors import StoreRefusedError, StoreUnavailableError
from worker.ground import Ground
from worker.telemetry import Fact

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 15.0


def arrive(ground: Ground, enter: Callable[[], None], *, alive: Callable[[], None]) -> None:
    """Enter as soon as the database server answers; each try that finds it away is logged.

    A SQLite file that is missing is not waited for, since nothing brings it back by itself.

    Args:
        ground: what all use cases share.
        enter: joins the living processes; it may be called again after it failed.
        alive: called before each pause, to show that the process lives.

    Raises:
        NotReadyError, JournalError: this process may not work; the database has answered.
        StoreUnavailableError: SQLite's file is away.
    """
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            enter()
        except StoreRefusedError:
            raise
        except StoreUnavailableError as error:
            if ground.store.path is not None:
                raise
            ground.hook(Fact("store.awaited", {"reason": str(error), "again_in_seconds": pause}, level="warning"))
        else:
            return
        alive()
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
