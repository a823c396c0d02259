"""What the store tells of the whole: the fleet, the schema, processes, notices, the brake and stored pairs.

All instants are aware UTC datetimes on the database's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from worker.vault.sealing import SealedPair


@dataclass(frozen=True)
class FleetStatus:
    """Counts over all grants, on the database's clock.

    Attributes:
        fresh: serving, and the renewal window has not begun.
        due: serving, the window has begun, the access token still lives (a held lease counts as due).
        overdue: of the due ones, those in the last tenth of the token's life.
        expired: serving, and the access token has ended.
        retrying: serving grants whose last attempt failed, so that they wait for another.
        in_doubt: serving grants whose newest attempt was sent and has no complete answer, or are suspect.
        unproven: serving grants with an imported pair whose owner TikTok has not confirmed yet.
        held: grants whose imported pair is another creator's, so that it is not used.
        least_seconds_left: seconds until the next access token of a serving grant ends; None in an empty fleet.
        oldest_due_seconds: for how long the oldest due grant has been due; 0 where none is.
    """

    total: int
    by_status: dict[str, int]
    fresh: int
    due: int
    overdue: int
    expired: int
    retrying: int
    in_doubt: int
    needs_reauth: int
    unproven: int
    held: int
    least_seconds_left: float | None
    oldest_due_seconds: float


class SchemaFit(StrEnum):
    """How the tables and this code go together."""

    CURRENT = "current"
    """The tables are this code's own."""
    BEHIND = "behind"
    """An upgrade is needed."""
    NEWER = "newer"
    """A newer version migrated the tables, and this code still runs on them."""
    TOO_NEW = "too_new"
    """A newer version migrated the tables, and this code does not run on them."""


@dataclass(frozen=True)
class SchemaState:
    """The migration that the database is at, and the one that this code wants; `at` is None in an empty database."""

    at: str | None
    wanted: str
    fit: SchemaFit

    @property
    def current(self) -> bool:
        """True where nothing is left to migrate."""
        return self.fit is SchemaFit.CURRENT

    @property
    def runs(self) -> bool:
        """True if this code runs on the tables as they are."""
        return self.fit in {SchemaFit.CURRENT, SchemaFit.NEWER}

    def __str__(self) -> str:
        """Return one sentence that says what to do."""
        match self.fit:
            case SchemaFit.CURRENT:
                return f"the database is at {self.at}, the newest migration"
            case SchemaFit.BEHIND:
                at = self.at or "no migration"
                return f"the database is at {at} and must be at {self.wanted}: run `celery -A worker db upgrade`"
            case SchemaFit.NEWER:
                return f"the database is at {self.at}, a migration of a newer version; this version runs with it"
            case SchemaFit.TOO_NEW:
                return (
                    f"the database is at {self.at}, a migration of a newer version that this version (migration "
                    f"{self.wanted}) does not run with: install the newer version again, or restore the backup that "
                    "was made before the upgrade"
                )


@dataclass(frozen=True)
class StoredPair:
    """One stored pair that was not wiped, with the place that its bytes are bound to."""

    grant_id: int
    creator_id: str
    consent: int
    generation: int
    sealed: SealedPair

    @property
    def key(self) -> tuple[int, int, int]:
        """The row's key; pass the last one of a batch as `after` to get the next batch."""
        return self.grant_id, self.consent, self.generation


@dataclass(frozen=True)
class StaleAttempt:
    """An attempt without an outcome whose lease has ended: its process died, or could not say how it went."""

    grant_id: int
    consent: int
    generation: int
    owner: str
    claimed_at: datetime


@dataclass(frozen=True)
class NoticeView:
    """A notice: what to tell, and how often telling it has failed.

    Attributes:
        dedupe_key: what makes it one of a kind, such as `reauth:12:3.7`.
        creator_id: the creator it is about; None for one that concerns the whole app.
        detail: safe text.
    """

    notice_id: int
    dedupe_key: str
    kind: str
    grant_id: int | None
    creator_id: str | None
    detail: str
    created_at: datetime
    failures: int


@dataclass(frozen=True)
class BrakeState:
    """Whether refreshing is stopped for the whole app.

    Attributes:
        reason: why; None where nothing is stopped.
        next_probe_at: when the next single refresh is let through to see whether the trouble is over.
        held_reason: why no creator is asked to authorize again for now; None if they are asked as ever.
        held_at: since when.
    """

    reason: str | None = None
    stopped_at: datetime | None = None
    next_probe_at: datetime | None = None
    held_reason: str | None = None
    held_at: datetime | None = None

    @property
    def stopped(self) -> bool:
        """True where only probes are let through."""
        return self.reason is not None


@dataclass(frozen=True)
class WorkerView:
    """A process of the daemon, as it last said of itself.

    Attributes:
        key_ids: ids of the sealing keys that it holds.
        sealing_key_id: the key that it seals with; None where it has not chosen yet.
        journal_key_ids: keys of the records that wait in its host's journal.
    """

    instance_id: str
    host: str
    pid: int
    started_at: datetime
    last_seen_at: datetime
    key_ids: frozenset[int]
    sealing_key_id: int | None
    journal_key_ids: frozenset[int]
