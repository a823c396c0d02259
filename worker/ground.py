"""What all use cases share: the outside world of one process, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Event

from worker.failpoints import Failpoint
from worker.journal import Journal
from worker.limiter import Limiter
from worker.store import Store
from worker.telemetry import Hook
from worker.tiktok import TikTok
from worker.vault import Sealer


@dataclass(frozen=True)
class Ground:
    """What the use cases of a process share.

    Attributes:
        hook: takes facts.
        owner: name of this process in leases, attempts and journals.
        stop: set when the process ends.
        failpoint: called with the name of each step; does nothing outside the fault tests.
    """

    store: Store
    sealer: Sealer
    journal: Journal
    limiter: Limiter
    tiktok: TikTok
    hook: Hook
    owner: str
    stop: Event
    failpoint: Failpoint
