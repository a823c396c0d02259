"""Presence: a process reports periodically that it is alive, and checks that it may still seal and read."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Final

from worker.consent.forget import Forgetting
from worker.errors import EvertokenError, JournalError, NotReadyError, StoreRefusedError, StoreUnavailableError
from worker.telemetry import Fact, Hook
from worker.upkeep.preflight import Preflight

HELLO_SECONDS: Final = 20.0
"""Time between two reports; much shorter than the time after which a silent process counts as gone."""


def end_this_process() -> None:
    """Send SIGTERM to this process: it finishes what is under way and ends."""
    os.kill(os.getpid(), signal.SIGTERM)


class Presence:
    """Keeps a process on the list of living ones, from a separate thread."""

    def __init__(
        self,
        *,
        preflight: Preflight,
        forgetting: Forgetting,
        hook: Hook,
        on_unfit: Callable[[], None] = end_this_process,
        seconds: float = HELLO_SECONDS,
    ) -> None:
        """Start nothing yet.

        Args:
            preflight: announces this process.
            forgetting: keeps this host's journal free of forgotten creators.
            hook: where facts go.
            on_unfit: called if this process cannot read what others write or cannot run on the tables.
            seconds: time between two announcements.
        """
        self._preflight = preflight
        self._forgetting = forgetting
        self._hook = hook
        self._on_unfit = on_unfit
        self._seconds = seconds
        self._leaving = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Join the living processes, and start the thread that keeps this process on their list.

        Raises:
            NotReadyError, JournalError: this process may not work; see `Preflight.enter`.
        """
        self._preflight.enter()
        self._thread = threading.Thread(target=self._repeat, name="presence", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Leave the list; a second call does nothing.

        Raises:
            StoreUnavailableError: the database is away; the others count this process until it was silent long enough.
        """
        self._leaving.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._preflight.goodbye()

    def _repeat(self) -> None:
        while not self._leaving.wait(self._seconds):
            runs = False
            try:
                self._preflight.check_schema()
                runs = True
                self._preflight.hello()
                self._forgetting.sweep()
            except JournalError as error:
                self._hook(Fact("journal.uncleaned", {"reason": str(error)}, level="warning"))
            except StoreRefusedError as error:
                self._hook(Fact("presence.failed", {"reason": str(error)}, level="warning"))
            except StoreUnavailableError:
                continue  # the store reports its outages
            except NotReadyError as error:
                self._hook(Fact("keys.unfit" if runs else "schema.unfit", {"reason": str(error)}, level="error"))
                self._on_unfit()
            except EvertokenError as error:
                self._hook(Fact("presence.failed", {"reason": str(error)}, level="warning"))
