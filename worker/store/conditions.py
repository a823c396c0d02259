"""Conditions of a grant at a moment, besides its status: one definition for counts and lists."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, exists, or_, text

from worker.store.models import ASIDE, ATTEMPTS, GRANTS, UNRESOLVED
from worker.store.rows import is_paused, lease_is_free
from worker.store.values import GrantCondition, GrantStatus

OVERDUE_SHARE: Final = 10
"""A due grant is overdue in the last tenth of its access token's life."""


def conditions(connection: Connection, at: datetime) -> dict[GrantCondition, ColumnElement[bool]]:
    """Return each condition as SQL over a row of `grants`.

    Args:
        connection: whose store's app is asked about.
        at: the moment, on the database's clock; a value, since an expression would be computed again for every row.
    """
    grant = GRANTS.c
    serving = is_serving()
    lives = and_(serving, grant.access_expires_at > at)
    paused = is_paused(connection)
    due = and_(lives, grant.next_refresh_at <= at, ~paused)
    ends_soon = (grant.access_expires_at - at) * OVERDUE_SHARE <= grant.access_expires_at - grant.issued_at
    return {
        GrantCondition.FRESH: and_(lives, grant.next_refresh_at > at),
        GrantCondition.DUE: due,
        GrantCondition.OVERDUE: and_(due, ends_soon),
        GrantCondition.EXPIRED: and_(serving, grant.access_expires_at <= at),
        GrantCondition.RETRYING: and_(serving, grant.failures > 0, ~paused),
        GrantCondition.UNPROVEN: and_(serving, grant.unproven_since.is_not(None), grant.belongs_to.is_(None)),
        GrantCondition.HELD: and_(serving, grant.belongs_to.is_not(None)),
        GrantCondition.ASIDE: and_(serving, exists().where(kept_aside())),
        GrantCondition.PAUSED: and_(serving, paused),
        GrantCondition.IN_DOUBT: or_(
            grant.status == GrantStatus.SUSPECT.value,
            and_(
                grant.status == GrantStatus.ACTIVE.value,
                lease_is_free(),
                exists().where(newest_attempt(), text(UNRESOLVED)),
            ),
        ),
    }


def is_serving() -> ColumnElement[bool]:
    """The grant is refreshed."""
    return GRANTS.c.status.in_([GrantStatus.ACTIVE.value, GrantStatus.SUSPECT.value])


def kept_aside() -> ColumnElement[bool]:
    """The attempt is newer than its grant's pair, and an unread answer of it is kept aside."""
    return and_(
        ATTEMPTS.c.grant_id == GRANTS.c.id,
        ATTEMPTS.c.consent == GRANTS.c.consent,
        ATTEMPTS.c.generation > GRANTS.c.pair_generation,
        text(ASIDE),
    )


def newest_attempt() -> ColumnElement[bool]:
    """The attempt is the newest of its grant."""
    return and_(
        ATTEMPTS.c.grant_id == GRANTS.c.id,
        ATTEMPTS.c.consent == GRANTS.c.consent,
        ATTEMPTS.c.generation == GRANTS.c.generation,
    )
