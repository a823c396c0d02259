"""From rows to the frozen values that the store hands out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, exists, false, func, literal, or_, select

from worker.policy.verdicts import AttemptOutcome
from worker.store.clock import now
from worker.store.engine import APP
from worker.store.models import ATTEMPTS, BRAKE, GRANTS, PAIRS, PAUSES
from worker.store.values import AttemptView, BrakeState, CurrentPair, GrantStatus, GrantView, ServedPair
from worker.vault.sealing import SealedPair

AMONG: Final = {"postgresql": "id = ANY(:ids)", "sqlite": "id IN (SELECT value FROM json_each(:ids))"}
"""A condition that a row's id is one of many, as SQL text whose length does not depend on their number."""
UNSAID: Final = ""
"""The app of a grant that was stored by a version that did not know apps."""
AnyRow = Row[*tuple[Any, ...]]
"""A row of any columns."""

PAIR_BYTES: Final = (PAIRS.c.sealed_access, PAIRS.c.sealed_refresh, PAIRS.c.key_id)
CURRENT_PAIR: Final = (
    GRANTS.c.id,
    GRANTS.c.creator_id,
    GRANTS.c.status,
    GRANTS.c.scope,
    GRANTS.c.unproven_since,
    GRANTS.c.belongs_to,
    PAIRS.c.consent,
    PAIRS.c.generation,
    PAIRS.c.issued_at,
    PAIRS.c.access_expires_at,
    PAIRS.c.refresh_expires_at,
    *PAIR_BYTES,
    now().label("now"),
)

_EARLIER: Final = PAIRS.alias("earlier")
SERVED_PAIR: Final = (
    GRANTS.c.id,
    GRANTS.c.creator_id,
    GRANTS.c.status,
    GRANTS.c.consent,
    GRANTS.c.pair_generation,
    GRANTS.c.next_refresh_at,
    GRANTS.c.failures,
    GRANTS.c.belongs_to,
    GRANTS.c.issued_at,
    GRANTS.c.access_expires_at,
    PAIRS.c.sealed_access,
    exists(_EARLIER.c.grant_id)  # not `*`, which needs the right to read every column
    .where(
        _EARLIER.c.grant_id == GRANTS.c.id,
        _EARLIER.c.consent == GRANTS.c.consent,
        _EARLIER.c.generation < GRANTS.c.pair_generation,
    )
    .label("refreshed"),
    func.coalesce(GRANTS.c.lease_until > now(), false()).label("leased"),
    now().label("now"),
)
"""The columns that a reader of access tokens needs; `OF_READER` grants its role these and no others."""

BRAKE_STATE: Final = (
    BRAKE.c.reason,
    BRAKE.c.stopped_at,
    BRAKE.c.next_probe_at,
    BRAKE.c.held_reason,
    BRAKE.c.held_at,
)
"""Columns of `BrakeState`, in its order."""


def among(connection: Connection, ids: Sequence[int]) -> Any:
    """Return ids as the parameter of `AMONG`."""
    return list(ids) if connection.dialect.name == "postgresql" else json.dumps(list(ids))


def app_of(connection: Connection) -> str:
    """Return the app whose grants this connection's store reads and writes."""
    return str(connection.get_execution_options()[APP])


def is_of_app(connection: Connection) -> ColumnElement[bool]:
    """The grant belongs to the store's app; a grant of a version that did not know apps names none, and belongs too."""
    return GRANTS.c.app_id.in_((UNSAID, app_of(connection)))


def is_of_named_app() -> ColumnElement[bool]:
    """As `is_of_app`, of a statement that is made once: it is run with the app as its parameter `of_app`."""
    return GRANTS.c.app_id.in_((literal(UNSAID), bindparam("of_app")))


def is_paused(connection: Connection) -> ColumnElement[bool]:
    """A pause covers the grant. The rules do not depend on the row, so a database reads them once for a statement."""
    ours = PAUSES.c.app_id == app_of(connection)
    references = select(PAUSES.c.reference).where(ours, PAUSES.c.reference != "")
    return or_(
        exists().where(ours, PAUSES.c.reference == "", PAUSES.c.creator_id == ""),
        GRANTS.c.creator_id.in_(select(PAUSES.c.creator_id).where(ours)),
        func.coalesce(GRANTS.c.reference.in_(references), false()),
    )


def paused_since(connection: Connection) -> ColumnElement[datetime | None]:
    """Return since when the grant has been paused; NULL if it is not."""
    covers = or_(
        and_(PAUSES.c.reference == "", PAUSES.c.creator_id == ""),
        PAUSES.c.creator_id == GRANTS.c.creator_id,
        and_(PAUSES.c.reference != "", PAUSES.c.reference == GRANTS.c.reference),
    )
    since = select(func.min(PAUSES.c.paused_at)).where(PAUSES.c.app_id == app_of(connection), covers)
    return since.scalar_subquery().correlate(GRANTS).label("paused_since")


def brakes_app(connection: Connection) -> ColumnElement[bool]:
    """The brake's row belongs to the store's app, or names no app yet."""
    return BRAKE.c.app_id.in_((UNSAID, app_of(connection)))


def brake_state(connection: Connection) -> BrakeState:
    """Return whether refreshing is stopped for the store's app."""
    row = connection.execute(select(*BRAKE_STATE).where(brakes_app(connection))).first()
    return BrakeState() if row is None else BrakeState(*row)


def lease_is_free() -> ColumnElement[bool]:
    """Nobody holds the lease for a refresh of the grant."""
    return or_(GRANTS.c.lease_until.is_(None), GRANTS.c.lease_until <= now())


def pull_lease_is_free() -> ColumnElement[bool]:
    """Nobody holds the lease for a pull of the grant's account data."""
    return or_(GRANTS.c.pull_lease_until.is_(None), GRANTS.c.pull_lease_until <= now())


def served_pair(row: AnyRow) -> ServedPair:
    """Return what a reader sees, from the columns of `SERVED_PAIR`."""
    return ServedPair(
        grant_id=row.id,
        creator_id=row.creator_id,
        consent=row.consent,
        generation=row.pair_generation,
        status=GrantStatus(row.status),
        sealed_access=bytes(row.sealed_access),
        issued_at=row.issued_at,
        access_expires_at=row.access_expires_at,
        refreshed=row.refreshed,
        coming_at=row.now if row.leased else row.next_refresh_at,
        failing=row.failures > 0,
        belongs_to=row.belongs_to,
        now=row.now,
    )


def is_current_pair() -> ColumnElement[bool]:
    """The pair is the one that its grant points to."""
    return and_(
        PAIRS.c.grant_id == GRANTS.c.id,
        PAIRS.c.consent == GRANTS.c.consent,
        PAIRS.c.generation == GRANTS.c.pair_generation,
    )


def is_attempt(grant_id: int, consent: int, generation: int) -> ColumnElement[bool]:
    """The row is this attempt."""
    return and_(ATTEMPTS.c.grant_id == grant_id, ATTEMPTS.c.consent == consent, ATTEMPTS.c.generation == generation)


def sealed_pair(row: AnyRow) -> SealedPair:
    """Return the sealed tokens of a row that was not wiped."""
    return SealedPair(
        sealed_access=bytes(row.sealed_access), sealed_refresh=bytes(row.sealed_refresh), key_id=row.key_id
    )


def current_pair(row: AnyRow) -> CurrentPair:
    """Return the pair that is served, from the columns of `CURRENT_PAIR`."""
    return CurrentPair(
        grant_id=row.id,
        creator_id=row.creator_id,
        consent=row.consent,
        generation=row.generation,
        status=GrantStatus(row.status),
        sealed=sealed_pair(row),
        issued_at=row.issued_at,
        access_expires_at=row.access_expires_at,
        refresh_expires_at=row.refresh_expires_at,
        scope=row.scope,
        now=row.now,
        unproven=row.unproven_since is not None,
        belongs_to=row.belongs_to,
    )


def grant_columns(connection: Connection) -> tuple[Any, ...]:
    """Return the columns of `grant_view`: the grant, and since when it has been paused."""
    return *GRANTS.c, paused_since(connection)


def grant_view(row: AnyRow) -> GrantView:
    """Return a grant as people look at it."""
    columns = dict(row._mapping)  # noqa: SLF001 - the documented way to a row's columns by name
    for hidden in ("app_id", "pull_lease_owner", "pull_lease_until", "checked_at"):
        del columns[hidden]
    return GrantView(grant_id=columns.pop("id"), status=GrantStatus(columns.pop("status")), **columns)


def attempt_view(row: AnyRow) -> AttemptView:
    """Return one attempt of a grant's history."""
    columns = dict(row._mapping)  # noqa: SLF001 - the documented way to a row's columns by name
    del columns["grant_id"]
    outcome = columns.pop("outcome")
    return AttemptView(outcome=None if outcome is None else AttemptOutcome(outcome), **columns)
