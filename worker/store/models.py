"""The tables, as SQLModel models: grants, their pairs, attempts, pulls, notices and what processes share.

Models describe the schema; the modules of the store write statements on the tables at the end of this module and return
the frozen values of `values`. No model holds a token: sealed columns are plain bytes that only the vault opens.

One idea: the schema, read from top to bottom in one place, since its tables refer to each other.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)
from sqlmodel import Field, SQLModel

from worker.policy.creator_id import LONGEST
from worker.policy.verdicts import AttemptOutcome
from worker.store.clock import Instant
from worker.store.values import GrantStatus

# Predicates of the partial indexes, and of a constraint, as SQL text that models and queries share. Queries repeat them
# word for word: SQLite uses a partial index only if it finds the index's own words in the query.
REFRESHABLE: Final = "status IN ('active', 'suspect')"
HEALTHY: Final = "status = 'active' AND failures = 0"
FAILING: Final = "status IN ('active', 'suspect') AND failures > 0"
PULL_WANTED: Final = "next_pull_at IS NOT NULL AND status IN ('active', 'suspect')"
OPEN: Final = "outcome IS NULL"
FINISHED: Final = "finished_at IS NOT NULL"
UNRESOLVED: Final = "(outcome IS NULL OR outcome = 'in_doubt')"
ASIDE: Final = "aside_at IS NOT NULL"
SUPERSEDED: Final = "superseded_at IS NOT NULL AND wiped_at IS NULL"
SEALED_OR_WIPED: Final = "wiped_at IS NOT NULL OR (sealed_access IS NOT NULL AND sealed_refresh IS NOT NULL)"
WIPED: Final = "wiped_at IS NOT NULL"
REFERENCED: Final = "reference IS NOT NULL"
UNDELIVERED: Final = "delivered_at IS NULL"
WORKING: Final = "revoked_at IS NULL"
ENDING: Final = "ending_at IS NOT NULL"
BELONGS: Final = "belongs_to IS NOT NULL"
ABOUT_A_GRANT: Final = "grant_id IS NOT NULL"
INVITES_ONE: Final = "creator_id IS NOT NULL"
UNFINISHED: Final = "finished_at IS NULL"

METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ROW_ID: Final = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only an INTEGER primary key


def _one_of(column: str, values: type[GrantStatus | AttemptOutcome]) -> CheckConstraint:
    listed = ", ".join(f"'{value.value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))


def _instant(*, null: bool = False) -> Any:
    return Field(sa_column=Column(Instant, nullable=null))


def _number(*, null: bool = False, start: str | None = None) -> Any:
    return Field(sa_column=Column(Integer, nullable=null, server_default=start))


def _text(*, null: bool = False) -> Any:
    return Field(sa_column=Column(Text, nullable=null))


def _grant_id(*, primary: bool = False, null: bool = False) -> Any:
    return Field(sa_column=Column(BigInteger, ForeignKey("grants.id"), primary_key=primary, nullable=null))


def _key_part() -> Any:
    return Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))


class Row(SQLModel):
    """Base of all tables: the metadata, with its names of constraints."""

    metadata: ClassVar[MetaData] = METADATA


class Grant(Row, table=True):
    """One creator's grant: which pair is current, when it is due, and who holds its lease.

    `generation` counts attempts and only rises; `pair_generation` is the generation of the pair that is served and
    moves only forward within a consent. `unproven_since` is set for an imported pair until TikTok has confirmed its
    owner; `belongs_to` is the owner if TikTok named another creator, and then the pair is not used. `ending_at` is when
    TikTok is next told that the grant was revoked here; it is empty once TikTok has confirmed and the pairs are wiped.
    """

    __tablename__ = "grants"
    __table_args__ = (
        _one_of("status", GrantStatus),
        CheckConstraint("pair_generation <= generation", name="pointer_behind_attempts"),
        CheckConstraint("status <> 'suspect' OR failures > 0", name="suspect_has_failed"),
        _partial("ix_grants_healthy_due", "next_refresh_at", where=HEALTHY),
        _partial("ix_grants_healthy_order", "access_expires_at", "next_refresh_at", where=HEALTHY),
        _partial("ix_grants_failing_due", "next_refresh_at", where=FAILING),
        _partial("ix_grants_failing_order", "access_expires_at", "next_refresh_at", where=FAILING),
        _partial("ix_grants_pull_wanted", "next_pull_at", where=PULL_WANTED),
        Index("ix_grants_status_id", "status", "id"),
        Index("ix_grants_app_id_creator_id", "app_id", "creator_id", unique=True),
        _partial("ix_grants_reference", "reference", where=REFERENCED),
        _partial("ix_grants_ending", "ending_at", where=ENDING),
        _partial("ix_grants_belongs_to", "belongs_to", where=BELONGS),
    )

    id: int = Field(sa_column=Column(ROW_ID, primary_key=True, autoincrement=True))
    app_id: str = Field(sa_column=Column(String(64), nullable=False, server_default=text("''")))
    creator_id: str = Field(sa_column=Column(String(LONGEST), nullable=False, unique=True))
    reference: str | None = Field(sa_column=Column(String(255), nullable=True))
    consent: int = _number()
    generation: int = _number()
    pair_generation: int = _number()
    status: str = Field(sa_column=Column(String(16), nullable=False))
    scope: str = _text()
    issued_at: datetime = _instant()
    access_expires_at: datetime = _instant()
    refresh_expires_at: datetime | None = _instant(null=True)
    next_refresh_at: datetime = _instant()
    jitter: float = Field(sa_column=Column(Double, nullable=False))
    failures: int = _number(start="0")
    last_reason: str | None = _text(null=True)
    lease_owner: str | None = _text(null=True)
    lease_until: datetime | None = _instant(null=True)
    next_pull_at: datetime | None = _instant(null=True)
    pull_failures: int = _number(start="0")
    pull_lease_owner: str | None = _text(null=True)
    pull_lease_until: datetime | None = _instant(null=True)
    pulled_at: datetime | None = _instant(null=True)
    created_at: datetime = _instant()
    updated_at: datetime = _instant()
    unproven_since: datetime | None = _instant(null=True)
    belongs_to: str | None = _text(null=True)
    ending_at: datetime | None = _instant(null=True)
    verdict: str | None = Field(sa_column=Column(String(24), nullable=True))
    checked_at: datetime | None = _instant(null=True)


class Pair(Row, table=True):
    """One pair that an answer brought; rows are only added, and are wiped long after a newer pair replaced them."""

    __tablename__ = "pairs"
    __table_args__ = (
        CheckConstraint(SEALED_OR_WIPED, name="sealed_or_wiped"),
        _partial("ix_pairs_superseded", "superseded_at", where=SUPERSEDED),
        _partial("ix_pairs_wiped", "wiped_at", where=WIPED),
    )

    grant_id: int = _grant_id(primary=True)
    consent: int = _key_part()
    generation: int = _key_part()
    sealed_access: bytes | None = Field(sa_column=Column(LargeBinary, nullable=True), repr=False)
    sealed_refresh: bytes | None = Field(sa_column=Column(LargeBinary, nullable=True), repr=False)
    key_id: int = Field(sa_column=Column(BigInteger, nullable=False))
    issued_at: datetime = _instant()
    access_expires_at: datetime = _instant()
    refresh_expires_at: datetime | None = _instant(null=True)
    stored_at: datetime = _instant()
    superseded_at: datetime | None = _instant(null=True)
    wiped_at: datetime | None = _instant(null=True)


class Attempt(Row, table=True):
    """One try to refresh; committed with the claim, so it is the record of intent.

    `aside_at` is set while an answer of it, which may hold a pair and could not be read, is kept aside in a journal.
    """

    __tablename__ = "attempts"
    __table_args__ = (
        _one_of("outcome", AttemptOutcome),
        _partial("ix_attempts_unresolved", "grant_id", "generation", where=UNRESOLVED),
        _partial("ix_attempts_open", "claimed_at", where=OPEN),
        _partial("ix_attempts_finished", "finished_at", where=FINISHED),
        _partial("ix_attempts_aside", "grant_id", where=ASIDE),
    )

    grant_id: int = _grant_id(primary=True)
    consent: int = _key_part()
    generation: int = _key_part()
    owner: str = _text()
    claimed_at: datetime = _instant()
    finished_at: datetime | None = _instant(null=True)
    outcome: str | None = Field(sa_column=Column(String(16), nullable=True))
    code: int | None = Field(sa_column=Column(BigInteger, nullable=True))
    http_status: int | None = _number(null=True)
    request_id: str | None = _text(null=True)
    reason: str | None = _text(null=True)
    aside_at: datetime | None = _instant(null=True)
    verdict: str | None = Field(sa_column=Column(String(24), nullable=True))


class Snapshot(Row, table=True):
    """The account data that one pull stored."""

    __tablename__ = "snapshots"
    __table_args__ = (Index("ix_snapshots_grant_id_id", "grant_id", "id"),)

    id: int = Field(sa_column=Column(ROW_ID, primary_key=True, autoincrement=True))
    grant_id: int = _grant_id()
    pulled_at: datetime = _instant()
    data: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))


class Notice(Row, table=True):
    """A message to people or systems, kept until it was delivered; its key prevents duplicates.

    `delivered_at` is when the first address accepted it. Only the previous version, which knows one address, uses
    `failures` and `next_try_at`.
    """

    __tablename__ = "notices"
    __table_args__ = (
        _partial("ix_notices_undelivered", "next_try_at", where=UNDELIVERED),
        Index("ix_notices_message_id", "message_id", unique=True),
        _partial("ix_notices_grant_id", "grant_id", where=ABOUT_A_GRANT),
    )

    id: int = Field(sa_column=Column(ROW_ID, primary_key=True, autoincrement=True))
    dedupe_key: str = Field(sa_column=Column(String(255), nullable=False, unique=True))
    kind: str = Field(sa_column=Column(String(64), nullable=False))
    grant_id: int | None = _grant_id(null=True)
    detail: str = _text()
    created_at: datetime = _instant()
    delivered_at: datetime | None = _instant(null=True)
    failures: int = _number(start="0")
    next_try_at: datetime = _instant()
    message_id: str | None = Field(sa_column=Column(String(64), nullable=True))
    data: dict[str, Any] | None = Field(sa_column=Column(JSON, nullable=True))


class NoticeDelivery(Row, table=True):
    """A notice on its way to one address."""

    __tablename__ = "notice_deliveries"
    __table_args__ = (_partial("ix_notice_deliveries_open", "address", "next_try_at", where=UNDELIVERED),)

    notice_id: int = Field(sa_column=Column(BigInteger, ForeignKey("notices.id", ondelete="CASCADE"), primary_key=True))
    address: str = Field(sa_column=Column(String(80), primary_key=True))
    next_try_at: datetime = _instant()
    failures: int = _number(start="0")
    delivered_at: datetime | None = _instant(null=True)
    problem: str | None = _text(null=True)


class NoticeReceiver(Row, table=True):
    """What an address of notices has asked for: a pause, or no more notices. Most addresses have no row."""

    __tablename__ = "notice_receivers"

    address: str = Field(sa_column=Column(String(80), primary_key=True))
    paused_until: datetime | None = _instant(null=True)
    disabled_at: datetime | None = _instant(null=True)


class Link(Row, table=True):
    """A consent link that was given out; its handle is a hash of the link's `state`."""

    __tablename__ = "links"
    __table_args__ = (
        Index("ix_links_ends_at", "ends_at"),
        _partial("ix_links_creator_id", "creator_id", where=INVITES_ONE),
    )

    handle: str = Field(sa_column=Column(String(64), primary_key=True))
    reference: str | None = Field(sa_column=Column(String(255), nullable=True))
    creator_id: str | None = Field(sa_column=Column(String(255), nullable=True))
    made_at: datetime = _instant()
    ends_at: datetime = _instant()
    used_at: datetime | None = _instant(null=True)


class Tombstone(Row, table=True):
    """What is left of a creator who was forgotten: a hash of the id, which only somebody who has the id recognizes.

    `grant_id` was the grant's id, which no other grant ever gets.
    """

    __tablename__ = "tombstones"
    __table_args__ = (_partial("ix_tombstones_unfinished", "grant_id", where=UNFINISHED),)

    id: int = Field(sa_column=Column(ROW_ID, primary_key=True, autoincrement=True))
    creator_hash: str = Field(sa_column=Column(String(64), nullable=False, unique=True))
    grant_id: int | None = Field(sa_column=Column(BigInteger, nullable=True))
    asked_at: datetime = _instant()
    finished_at: datetime | None = _instant(null=True)


class ContractTerm(Row, table=True):
    """A term of TikTok's contract as answers to refreshes show it; `odd_*` is another value that some have told."""

    __tablename__ = "contract_terms"

    app_id: str = Field(sa_column=Column(String(64), primary_key=True))
    term: str = Field(sa_column=Column(String(160), primary_key=True))
    value: str = _text()
    value_before: str | None = _text(null=True)
    changed_at: datetime | None = _instant(null=True)
    odd_value: str | None = _text(null=True)
    odd_ids: list[int] | None = Field(sa_column=Column(JSON(none_as_null=True), nullable=True))


class Brake(Row, table=True):
    """The single row that stops an app; a row of another app or without a reason stops nothing."""

    __tablename__ = "brake"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: int = Field(sa_column=Column(SmallInteger, primary_key=True, autoincrement=False))
    app_id: str = Field(sa_column=Column(String(64), nullable=False, server_default=text("''")))
    reason: str | None = _text(null=True)
    stopped_at: datetime | None = _instant(null=True)
    next_probe_at: datetime | None = _instant(null=True)
    released_at: datetime | None = _instant(null=True)
    held_reason: str | None = _text(null=True)
    held_at: datetime | None = _instant(null=True)


class Pause(Row, table=True):
    """A pause that a person asked for: of a reference, of a creator, or of the whole app if both are empty."""

    __tablename__ = "pauses"

    app_id: str = Field(sa_column=Column(String(64), primary_key=True))
    reference: str = Field(sa_column=Column(String(255), primary_key=True))
    creator_id: str = Field(sa_column=Column(String(LONGEST), primary_key=True))
    paused_at: datetime = _instant()


class Beat(Row, table=True):
    """The single row that says when beat's last message reached a worker."""

    __tablename__ = "beat"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: int = Field(sa_column=Column(SmallInteger, primary_key=True, autoincrement=False))
    ticked_at: datetime = _instant()


class WorkerProcess(Row, table=True):
    """A running process of the daemon, as it reported itself."""

    __tablename__ = "workers"

    instance_id: str = Field(sa_column=Column(String(64), primary_key=True))
    host: str = _text()
    pid: int = _number()
    started_at: datetime = _instant()
    last_seen_at: datetime = _instant()
    key_ids: str = _text()
    sealing_key_id: int | None = Field(sa_column=Column(BigInteger, nullable=True))
    journal_key_ids: str | None = _text(null=True)
    namespace: str | None = _text(null=True)


class Sentinel(Row, table=True):
    """A known text sealed with one key, so that a process can prove at its start that it holds that key."""

    __tablename__ = "sentinels"

    key_id: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    sealed: bytes = Field(sa_column=Column(LargeBinary, nullable=False), repr=False)


class Consumer(Row, table=True):
    """A neighbour that asks for tokens over HTTP; its key is kept as a hash, and a scope of NULL is everyone."""

    __tablename__ = "consumers"
    __table_args__ = (
        Index("ix_consumers_handle", "handle", unique=True),
        _partial("ix_consumers_working", "app_id", "name", where=WORKING, unique=True),
    )

    id: int = Field(sa_column=Column(ROW_ID, primary_key=True, autoincrement=True))
    app_id: str = Field(sa_column=Column(String(64), nullable=False))
    name: str = Field(sa_column=Column(String(64), nullable=False))
    handle: str = Field(sa_column=Column(String(16), nullable=False))
    key_hash: str = Field(sa_column=Column(String(64), nullable=False), repr=False)
    scope: dict[str, Any] | None = Field(sa_column=Column(JSON(none_as_null=True), nullable=True))
    created_at: datetime = _instant()
    last_used_at: datetime | None = _instant(null=True)
    handed_out: int = Field(sa_column=Column(BigInteger, nullable=False, server_default="0"))
    revoked_at: datetime | None = _instant(null=True)


class HandOut(Row, table=True):
    """An access token that was handed out over HTTP: to whom, whose and which, never the token.

    The grant is a number without a foreign key: the row is written after the token left, and the grant may be gone.
    """

    __tablename__ = "hand_outs"
    __table_args__ = (Index("ix_hand_outs_at", "at"), Index("ix_hand_outs_grant_id_id", "grant_id", "id"))

    id: int = Field(sa_column=Column(ROW_ID, primary_key=True, autoincrement=True))
    consumer_id: int = Field(sa_column=Column(BigInteger, ForeignKey("consumers.id"), nullable=False))
    grant_id: int = Field(sa_column=Column(BigInteger, nullable=False))
    consent: int = _number()
    generation: int = _number()
    at: datetime = _instant()


GRANTS: Final[Table] = METADATA.tables["grants"]
PAIRS: Final[Table] = METADATA.tables["pairs"]
ATTEMPTS: Final[Table] = METADATA.tables["attempts"]
SNAPSHOTS: Final[Table] = METADATA.tables["snapshots"]
TERMS: Final[Table] = METADATA.tables["contract_terms"]
TOMBSTONES: Final[Table] = METADATA.tables["tombstones"]
LINKS: Final[Table] = METADATA.tables["links"]
NOTICES: Final[Table] = METADATA.tables["notices"]
DELIVERIES: Final[Table] = METADATA.tables["notice_deliveries"]
RECEIVERS: Final[Table] = METADATA.tables["notice_receivers"]
BRAKE: Final[Table] = METADATA.tables["brake"]
PAUSES: Final[Table] = METADATA.tables["pauses"]
BEAT: Final[Table] = METADATA.tables["beat"]
WORKERS: Final[Table] = METADATA.tables["workers"]
SENTINELS: Final[Table] = METADATA.tables["sentinels"]
CONSUMERS: Final[Table] = METADATA.tables["consumers"]
HAND_OUTS: Final[Table] = METADATA.tables["hand_outs"]
