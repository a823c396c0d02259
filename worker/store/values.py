"""Arguments and results of the store: frozen values, without sessions and plaintext secrets.

One idea: the vocabulary between the store and its callers, first for the whole fleet, then for one grant.
All instants are aware UTC datetimes on the database's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from worker.policy.contract import Term
from worker.policy.scope import ConsumerScope
from worker.policy.verdicts import AttemptOutcome
from worker.vault.sealing import SealedPair


@dataclass(frozen=True)
class FleetStatus:
    """Counts over all grants, on the database's clock.

    Attributes:
        fresh: serving, and the renewal window has not begun.
        due: serving and not paused, the window has begun, the access token is still valid (with a held lease, too).
        overdue: due grants in the last tenth of the token's life.
        expired: serving, and the access token has ended.
        retrying: serving grants, not paused, whose last attempt failed, so that they wait for another.
        in_doubt: serving grants whose newest attempt was sent and has no complete answer, or are suspect.
        unproven: serving grants with an imported pair whose owner TikTok has not confirmed yet.
        held: grants whose imported pair belongs to another creator, so that it is not used.
        aside: serving grants that wait for the operator: an unread answer that may hold their pair is kept aside.
        paused: serving grants that a person has paused; they are fresh or expired, and neither due nor retrying.
        least_seconds_left: seconds until the next access token of a serving grant ends; None in an empty fleet.
        paused_seconds_left: seconds until the next access token of a paused grant ends; None if none is paused.
        oldest_due_seconds: for how long the oldest due grant has been due; 0 if none is due.
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
    aside: int
    paused: int
    least_seconds_left: float | None
    paused_seconds_left: float | None
    oldest_due_seconds: float


class SchemaFit(StrEnum):
    """Whether the tables and this code fit together."""

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
    """The migration that the database is at, and the one that this code needs; `at` is None in an empty database."""

    at: str | None
    wanted: str
    fit: SchemaFit

    @property
    def current(self) -> bool:
        """True if nothing is left to migrate."""
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
    """An attempt without an outcome whose lease has ended: its process died, or could not record the outcome."""

    grant_id: int
    consent: int
    generation: int
    owner: str
    claimed_at: datetime


@dataclass(frozen=True)
class NoticeView:
    """A notice.

    Attributes:
        message_id: its id for receivers, the same at each try; None if an older version wrote it and nobody posted it.
        dedupe_key: unique key that prevents duplicates, such as `reauth:12:3.7`.
        kind: its stored kind; see `worker.policy.notice_kinds`.
        creator_id: the creator it is about; None for one that concerns the whole app.
        reference: the operator's own name for that creator.
        detail: safe text.
        data: further fields of its kind.
        delivered_at: when the first address accepted it.
    """

    notice_id: int
    message_id: str | None
    dedupe_key: str
    kind: str
    grant_id: int | None
    creator_id: str | None
    reference: str | None
    detail: str
    data: dict[str, Any] | None
    created_at: datetime
    delivered_at: datetime | None


@dataclass(frozen=True)
class DeliveryView:
    """A notice on its way to one address.

    Attributes:
        address: the name of the address.
        next_try_at: when it is posted next, unless it was accepted.
        failures: how often it was not accepted.
        problem: the reason of the last failure.
    """

    notice_id: int
    address: str
    next_try_at: datetime
    failures: int
    delivered_at: datetime | None
    problem: str | None


@dataclass(frozen=True)
class ReceiverState:
    """What an address of notices has asked for.

    Attributes:
        paused_until: nothing is posted before.
        disabled_at: when it answered that it is gone; nothing is posted until an operator enables it.
        waiting: how many notices wait for it.
        oldest_at: when the oldest of those was written.
    """

    paused_until: datetime | None = None
    disabled_at: datetime | None = None
    waiting: int = 0
    oldest_at: datetime | None = None


@dataclass(frozen=True)
class BrakeState:
    """Whether refreshing is stopped for the whole app.

    Attributes:
        reason: why; None if nothing is stopped.
        next_probe_at: when the next probe, a single refresh, is sent to see whether the trouble is over.
        held_reason: why no creator is asked to authorize again for now; None without a hold.
        held_at: when the hold began.
    """

    reason: str | None = None
    stopped_at: datetime | None = None
    next_probe_at: datetime | None = None
    held_reason: str | None = None
    held_at: datetime | None = None

    @property
    def stopped(self) -> bool:
        """True if only probes are sent."""
        return self.reason is not None


@dataclass(frozen=True)
class WorkerView:
    """A process of the daemon, as it last reported itself.

    Attributes:
        key_ids: ids of the sealing keys that it holds.
        sealing_key_id: the key that it seals with; None if it has not chosen yet.
        journal_key_ids: keys of the records that wait in its host's journal.
        namespace: of its installation, empty if that has none; None if an older version does not say.
    """

    instance_id: str
    host: str
    pid: int
    started_at: datetime
    last_seen_at: datetime
    key_ids: frozenset[int]
    sealing_key_id: int | None
    journal_key_ids: frozenset[int]
    namespace: str | None


class GrantStatus(StrEnum):
    """Status of a grant; only `active` and `suspect` grants are refreshed."""

    ACTIVE = "active"
    SUSPECT = "suspect"  # an attempt is in doubt and TikTok refuses what we hold; the access token is still served
    NEEDS_REAUTH = "needs_reauth"  # the creator must authorize again
    REVOKED = "revoked"  # ended on our side


class GrantCondition(StrEnum):
    """Condition of a grant at a moment, besides its status."""

    FRESH = "fresh"  # serving, and the renewal window has not begun
    DUE = "due"  # serving and not paused, the window has begun, and the access token is still valid
    OVERDUE = "overdue"  # due, and in the last tenth of the token's life
    EXPIRED = "expired"  # serving, and the access token has ended
    RETRYING = "retrying"  # serving and not paused, and the last attempt failed, so that another follows
    IN_DOUBT = "in_doubt"  # the newest attempt was sent and has no complete answer, or the grant is suspect
    UNPROVEN = "unproven"  # serving, with an imported pair whose owner TikTok has not confirmed yet
    HELD = "held"  # the imported pair belongs to another creator, so it is not used
    ASIDE = "aside"  # serving, and an unread answer that may hold a newer pair is kept aside
    PAUSED = "paused"  # serving, and left alone because a person has paused it


@dataclass(frozen=True)
class DueGrant:
    """A row of the due scan."""

    grant_id: int
    access_expires_at: datetime
    failures: int


@dataclass(frozen=True)
class PairVersion:
    """One stored pair of a grant."""

    consent: int
    generation: int
    sealed: SealedPair


@dataclass(frozen=True)
class Claim:
    """The right to refresh one grant until the lease ends, committed before it is returned.

    Attributes:
        consent: the consent that the attempt belongs to.
        generation: the number of this attempt, and of the pair that it brings.
        sealed: the current pair; None if it is missing, or came at the very moment of the claim.
        kept: generations of the stored pairs of this consent that were not wiped, newest first.
        unresolved: generations of older attempts of this consent, newer than the current pair, that have no outcome
            or ended in doubt: TikTok may have rotated the current pair for them.
        claimed_at: the database's time when the claim was committed.
        pair_generation: the generation of the pair that was current then; verdicts hold only while it still is.
        unproven: True if the current pair was imported and TikTok has not confirmed its owner yet.
    """

    grant_id: int
    creator_id: str
    consent: int
    generation: int
    owner: str
    claimed_at: datetime
    lease_until: datetime
    status: GrantStatus
    sealed: SealedPair | None
    kept: tuple[int, ...]
    unresolved: tuple[int, ...]
    failures: int
    jitter: float
    issued_at: datetime
    access_expires_at: datetime
    refresh_expires_at: datetime | None
    scope: str
    pair_generation: int
    unproven: bool = False


@dataclass(frozen=True)
class Claimable:
    """What is known right before grants are claimed.

    Attributes:
        due: ids of grants that a claim would win now.
        brake: whether refreshing is stopped for the whole app.
    """

    due: tuple[int, ...]
    brake: BrakeState


@dataclass(frozen=True)
class NewPair:
    """A pair to be stored, sealed, with its dates.

    Attributes:
        issued_at: when its life began: the time of sending, on the database's clock.
        refresh_expires_at: None if TikTok did not say.
        scope: granted scopes, sorted and comma separated; None keeps the stored ones.
        next_refresh_at: when its renewal window begins.
        refresh_kept: True if its refresh token is that of the pair before; its known end stays.
    """

    sealed: SealedPair
    issued_at: datetime
    access_expires_at: datetime
    refresh_expires_at: datetime | None
    next_refresh_at: datetime
    scope: str | None
    refresh_kept: bool = False


@dataclass(frozen=True)
class BroughtPair:
    """A pair to be stored, with the attempt that brought it.

    Attributes:
        request_id: TikTok's `request_id`, or None.
    """

    grant_id: int
    consent: int
    generation: int
    pair: NewPair
    request_id: str | None = None


@dataclass(frozen=True)
class Saved:
    """What storing a pair did.

    Attributes:
        moved: True if the grant's pointer moved to this pair; False if a newer pair or consent is current.
        revived: True if the grant was suspect or needed re-authorization, and is active again.
        status: the grant's status now; a revoked grant keeps the pair only until it is revoked at TikTok too.
    """

    grant_id: int
    moved: bool
    revived: bool
    status: GrantStatus


@dataclass(frozen=True)
class GrantView:
    """A grant as people see it, without sealed bytes.

    Attributes:
        verdict: what is behind the last failure, a word of `worker.policy.verdicts.Cause`; None after a success.
        ending_at: for a revoked grant, when TikTok is told next; None once it has confirmed and the pairs are wiped.
        paused_since: since when a person has paused it; None if nobody has.
    """

    grant_id: int
    creator_id: str
    reference: str | None
    consent: int
    generation: int
    pair_generation: int
    status: GrantStatus
    scope: str
    issued_at: datetime
    access_expires_at: datetime
    refresh_expires_at: datetime | None
    next_refresh_at: datetime
    jitter: float
    failures: int
    last_reason: str | None
    lease_owner: str | None
    lease_until: datetime | None
    next_pull_at: datetime | None
    pulled_at: datetime | None
    pull_failures: int
    created_at: datetime
    updated_at: datetime
    unproven_since: datetime | None = None
    belongs_to: str | None = None
    ending_at: datetime | None = None
    verdict: str | None = None
    paused_since: datetime | None = None


@dataclass(frozen=True)
class GrantFilter:
    """Which grants are meant: those that meet all that is not None.

    Attributes:
        ends_before: their access token ends before this instant.
        ends_within: it ends within this time from now, or has ended.
    """

    status: GrantStatus | None = None
    condition: GrantCondition | None = None
    reference: str | None = None
    ends_before: datetime | None = None
    ends_within: timedelta | None = None


class LeftOut(StrEnum):
    """Why a wish for a refresh does not make a grant due."""

    ENDED = "ended"  # no refresh will come: revoked, to authorize again, or another creator's pair
    PAUSED = "paused"
    UNDER_WAY = "under_way"  # a lease is held
    FAILING = "failing"  # the next attempt has its time by the verdict on the last
    DUE = "due"  # it is due already


@dataclass(frozen=True)
class ChosenGrant:
    """A grant that a wish makes due."""

    grant_id: int
    creator_id: str
    access_expires_at: datetime


@dataclass(frozen=True)
class Wish:
    """What a wish for refreshes does.

    Attributes:
        matching: grants that meet the filter.
        chosen: those that are made due, in the order in which their access tokens end.
        beyond_limit: those that would be, if there were no limit.
        left_out: those that are left as they are, by reason.
    """

    matching: int
    chosen: tuple[ChosenGrant, ...]
    beyond_limit: int
    left_out: dict[LeftOut, int]


@dataclass(frozen=True)
class ExportedGrant:
    """An active grant as an export takes it.

    Attributes:
        under_way: True while a refresh of it is under way, so that its pair may be dead in a moment.
    """

    reference: str | None
    under_way: bool
    pair: CurrentPair


@dataclass(frozen=True)
class PauseView:
    """A pause: of a reference, of a creator, or of the whole app if both are empty."""

    reference: str
    creator_id: str
    paused_at: datetime


@dataclass(frozen=True)
class Paused:
    """What a pause covers, after it began or ended.

    Attributes:
        changed: False if it had begun, or ended, before.
        grants: serving grants that it covers.
        still_paused: those of them that are paused now.
        under_way: those of them that are being refreshed now; these attempts end as if there were no pause.
    """

    changed: bool
    grants: int
    still_paused: int
    under_way: int


@dataclass(frozen=True)
class AttemptView:
    """One attempt in a grant's history.

    Attributes:
        verdict: what was behind its failure, a word of `worker.policy.verdicts.Cause`.
        aside_at: since when an unread answer of it is kept aside in its host's journal; None if there is none.
    """

    consent: int
    generation: int
    owner: str
    claimed_at: datetime
    finished_at: datetime | None
    outcome: AttemptOutcome | None
    code: int | None
    http_status: int | None
    request_id: str | None
    reason: str | None
    aside_at: datetime | None = None
    verdict: str | None = None


@dataclass(frozen=True)
class CurrentPair:
    """The pair that is served now, sealed, with what a reader needs to open and judge it.

    Attributes:
        unproven: True if the pair was imported and TikTok has not confirmed its owner yet.
        belongs_to: the owner, if TikTok named another creator; then the pair is neither used nor handed out.
    """

    grant_id: int
    creator_id: str
    consent: int
    generation: int
    status: GrantStatus
    sealed: SealedPair
    issued_at: datetime
    access_expires_at: datetime
    refresh_expires_at: datetime | None
    scope: str
    now: datetime
    unproven: bool = False
    belongs_to: str | None = None


@dataclass(frozen=True)
class ServedPair:
    """What a reader of access tokens sees of a creator's grant and its current pair.

    Attributes:
        refreshed: True if a refresh brought the pair, False if the consent did.
        coming_at: when a refresh is tried next; now or earlier if it is due or under way.
        failing: True if refreshes have failed since the pair came.
        belongs_to: as for `CurrentPair`.
    """

    grant_id: int
    creator_id: str
    consent: int
    generation: int
    status: GrantStatus
    sealed_access: bytes
    issued_at: datetime
    access_expires_at: datetime
    refreshed: bool
    coming_at: datetime
    failing: bool
    belongs_to: str | None
    now: datetime


@dataclass(frozen=True)
class PullClaim:
    """The right to pull one creator's account data for a bounded time.

    Attributes:
        wanted_at: the request that this pull fulfils; a later request stays open.
    """

    grant_id: int
    owner: str
    pair: CurrentPair
    pull_failures: int
    lease_until: datetime
    wanted_at: datetime


@dataclass(frozen=True)
class SnapshotView:
    """One stored pull."""

    grant_id: int
    pulled_at: datetime
    data: dict[str, Any]


@dataclass(frozen=True)
class NewConsent:
    """A creator's consent to be stored: an exchanged code or an imported pair.

    Attributes:
        creator_id: the creator's id in the answer or the import line.
        reference: the operator's own name for the creator; None keeps the stored one.
        dated: False if `issued_at` is a guess: such a pair never replaces a stored one.
        unproven: True if only a file names the owner of the pair.
    """

    creator_id: str
    scope: str
    issued_at: datetime
    access_expires_at: datetime
    refresh_expires_at: datetime | None
    next_refresh_at: datetime
    jitter: float
    dated: bool = True
    unproven: bool = False
    reference: str | None = None


@dataclass(frozen=True)
class ConsentLink:
    """A consent link that was given out.

    Attributes:
        reference: the operator's own name for the creator.
        creator_id: the only creator who may use it; None for any.
        now: the database's time.
    """

    reference: str | None
    creator_id: str | None
    ends_at: datetime
    used_at: datetime | None
    now: datetime


class ConsentResult(StrEnum):
    """What storing a consent did."""

    CREATED = "created"
    REPLACED = "replaced"
    SAME = "same"  # exactly this pair is stored
    OLDER = "older"  # a pair as new or newer is stored
    KNOWN = "known"  # the creator is known with another pair, and replacing was not requested
    UNDATED = "undated"  # the creator is known, and it is not certain which pair is newer
    BUSY = "busy"  # a refresh is under way, or one that may have brought a newer pair has no outcome yet
    DEAD = "dead"  # TikTok refused exactly this pair, and the creator was asked to authorize again
    REVOKED = "revoked"  # the grant was revoked here after the pair was issued
    FORGOTTEN = "forgotten"  # the creator was forgotten here after the pair was issued, or the item has no sure date
    FOREIGN = "foreign"  # TikTok says that exactly this pair belongs to another creator


@dataclass(frozen=True)
class EndingGrant:
    """A grant that was revoked here and whose end is not complete.

    Attributes:
        pair: the newest pair that was not wiped; None if there is none, so that TikTok need not be called.
        busy: True while a refresh or a pull of it is under way.
        waited_seconds: how long ago it was revoked.
    """

    grant_id: int
    creator_id: str
    pair: CurrentPair | None
    busy: bool
    waited_seconds: float


@dataclass(frozen=True)
class EndingsWaiting:
    """How many grants are revoked here without TikTok's word, and how many creators are not yet forgotten altogether.

    Attributes:
        oldest_at: since when the one waits that waits longest; None if none does.
    """

    revoking: int
    forgetting: int
    oldest_at: datetime | None


@dataclass(frozen=True)
class Tombstone:
    """What is kept of a creator who was forgotten.

    Attributes:
        asked_at: when an operator asked for it, on the database's clock.
        finished_at: when the last row was removed; None while some are left.
    """

    asked_at: datetime
    finished_at: datetime | None

    def covers(self, at: datetime) -> bool:
        """Return True if what came at this instant is of the time that was forgotten, not of a later consent."""
        return self.finished_at is not None and at <= self.finished_at


@dataclass(frozen=True)
class EndingWeek:
    """Consents that end in one coming week.

    Attributes:
        week: its number; 0 begins now.
        begins_at: when it begins.
    """

    week: int
    begins_at: datetime
    grants: int


@dataclass(frozen=True)
class TermView:
    """A term of TikTok's contract.

    Attributes:
        term: what holds now.
        before: what held before; None if it never changed.
        changed_at: when it changed last.
    """

    term: Term
    before: str | None
    changed_at: datetime | None


class Likeness(StrEnum):
    """How a pair compares with the stored pairs of its creator."""

    SAME = "same"  # it is the current one
    EARLIER = "earlier"  # it was stored before the current one
    KIN = "kin"  # it has the refresh token of the current one, with another access token
    OTHER = "other"


@dataclass(frozen=True)
class ConsumerView:
    """A neighbour that asks for tokens over HTTP.

    Attributes:
        handle: the public part of its key.
        key_hash: SHA-256 of the whole key, in hexadecimal.
        handed_out: how many tokens it got.
        revoked_at: when its key was revoked; None if it works.
    """

    consumer_id: int
    name: str
    handle: str
    key_hash: str = field(repr=False)
    scope: ConsumerScope
    created_at: datetime
    last_used_at: datetime | None
    handed_out: int
    revoked_at: datetime | None


@dataclass(frozen=True)
class HandOut:
    """An access token that was handed out: to whom, whose and which."""

    consumer_id: int
    grant_id: int
    consent: int
    generation: int


@dataclass(frozen=True)
class HandOutView:
    """An access token that was handed out, as people look at it; the creator is None if the grant is gone."""

    hand_out_id: int
    at: datetime
    consumer: str
    creator_id: str | None
    consent: int
    generation: int
