"""Notices to people and systems: each is written once, and kept until it was delivered.

A notice is written in the transaction of the change that it reports (`outbox`); `deliveries` says where it was posted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    Text,
    and_,
    case,
    cast,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    type_coerce,
)

from worker.policy.contract import REFRESH_ROLLS, YES
from worker.policy.invitations import EARLIEST_DAYS, USUAL_DAYS, crowded_weeks
from worker.policy.notice_kinds import NEWS
from worker.store.clock import iso_of, milliseconds, now
from worker.store.engine import Transactions, reads, writes
from worker.store.models import DELIVERIES, GRANTS, NOTICES, PAIRS, REFRESHABLE, TERMS, UNDELIVERED
from worker.store.outbox import SOON_KEY, WARNED_DAYS, insert_notice
from worker.store.rows import AnyRow, app_of, brake_state, is_of_app
from worker.store.values import EndingWeek, NoticeView

WEEK_SECONDS: Final = 7 * 86400
YEAR_WEEKS: Final = 53
EARLY_DAYS: Final = (60, 90)
"""Within how many days a consent ends whose creator is invited before the usual time."""
_OPEN: Final = DELIVERIES.c.delivered_at.is_(None)


class Notices(Transactions):
    """Notices as they are written and looked at."""

    @writes
    def raise_alarm(
        self, connection: Connection, dedupe_key: str, kind: str, detail: str, *, grant_id: int | None = None
    ) -> bool:
        """Write a notice unless one with this key exists, delivered or not.

        Args:
            connection: given by the decorator.
            dedupe_key: unique key that prevents duplicates.
            kind: its stored kind; see `worker.policy.notice_kinds`.
            detail: safe text.
            grant_id: the grant it is about; None for the whole app.

        Returns:
            True if it is new.
        """
        return insert_notice(connection, dedupe_key, kind, detail, grant_id=grant_id)

    @writes
    def warn_of_ends(self, connection: Connection, limit: int) -> int:
        """Write notices of consents that end within 30 days, 7 days or a day, each once for a consent.

        A consent ends with its refresh token. If each refresh moves that end ahead, nothing is written while refreshes
        succeed. A consent that was given for no longer than one of these times has no notice of that time.

        Args:
            connection: given by the decorator.
            limit: most notices to write.

        Returns:
            How many notices were written.
        """
        ending = connection.execute(_ending(connection, _crowds(connection)).limit(limit)).all()
        for row in ending:
            insert_notice(
                connection,
                SOON_KEY.format(row.id, row.consent, row.days),
                REAUTH_SOON,
                f"the consent ends at {row.refresh_expires_at:%Y-%m-%d %H:%M} UTC: the creator has to authorize again",
                grant_id=row.id,
                data={"days": _told_days(row), "ends_at": iso_of(row.refresh_expires_at)},
            )
        return len(ending)

    @reads
    def ends_by_week(self, connection: Connection, *, weeks: int = YEAR_WEEKS) -> list[EndingWeek]:
        """Return how many consents end in each of the coming weeks, so that their creators have to authorize again.

        Empty if TikTok's answers show that each refresh moves the end ahead. It reads every grant once.
        """
        rolls = select(TERMS.c.value).where(TERMS.c.app_id == app_of(connection), TERMS.c.term == REFRESH_ROLLS)
        if connection.execute(rolls).scalar() == YES:
            return []
        return ends_by_week(connection, weeks=weeks)

    @reads
    def notices(
        self,
        connection: Connection,
        *,
        kinds: frozenset[str] | None = None,
        waiting: bool = False,
        reference: str | None = None,
        creator_id: str | None = None,
        before_id: int | None = None,
        limit: int = 100,
    ) -> list[NoticeView]:
        """Return a page of notices, newest first.

        Args:
            connection: given by the decorator.
            kinds: only notices of these stored kinds.
            waiting: only notices that wait for an address.
            reference: only notices about creators with this reference.
            creator_id: only notices about this creator.
            before_id: the last id of the page before.
            limit: most notices to return.
        """
        wanted: list[ColumnElement[bool]] = []
        if kinds is not None:
            wanted.append(NOTICES.c.kind.in_(kinds))
        if waiting:
            open_one = exists().where(DELIVERIES.c.notice_id == NOTICES.c.id, _OPEN)
            wanted.append(or_(text(f"notices.{UNDELIVERED}"), open_one))
        if reference is not None:
            wanted.append(GRANTS.c.reference == reference)
        if creator_id is not None:
            wanted.append(GRANTS.c.creator_id == creator_id)
        if before_id is not None:
            wanted.append(NOTICES.c.id < before_id)
        return notice_views(connection, *wanted, newest_first=True, limit=limit)

    @reads
    def notice(self, connection: Connection, name: str) -> NoticeView | None:
        """Return the notice with this message id, or with this number; None if there is none."""
        is_it = NOTICES.c.message_id == name
        if name.isascii() and name.isdigit() and len(name) <= LONGEST_NUMBER:
            is_it = or_(is_it, NOTICES.c.id == int(name))
        return next(iter(notice_views(connection, is_it)), None)

    @reads
    def notice_waits(self, connection: Connection, addresses: Sequence[str]) -> float:
        """Return for how many seconds the oldest notice has waited, for one of these addresses or for any; 0 if none.

        Notices that wait because the app is stopped are left out; without an address, so are those that need no action.
        """
        open_one = exists().where(DELIVERIES.c.notice_id == NOTICES.c.id, _OPEN, DELIVERIES.c.address.in_(addresses))
        oldest = select(func.min(NOTICES.c.created_at), now()).where(or_(text(f"notices.{UNDELIVERED}"), open_one))
        if brake_state(connection).stopped:
            oldest = oldest.where(NOTICES.c.grant_id.is_(None))
        if not addresses:
            oldest = oldest.where(NOTICES.c.kind.not_in(NEWS))
        at, current = connection.execute(oldest).one()
        return 0.0 if at is None else max(0.0, (current - at).total_seconds())

    @reads
    def undelivered_notices(
        self, connection: Connection, limit: int = 100, *, without: Collection[str] = ()
    ) -> list[NoticeView]:
        """Return notices that no address has accepted yet, oldest first; those of some kinds are left out."""
        return notice_views(connection, text(f"notices.{UNDELIVERED}"), NOTICES.c.kind.not_in(without), limit=limit)

    @reads
    def undelivered_count(self, connection: Connection, *, without: Collection[str] = ()) -> int:
        """Return how many notices no address has accepted yet; those of some kinds are left out."""
        waiting = select(func.count()).select_from(NOTICES).where(text(UNDELIVERED), NOTICES.c.kind.not_in(without))
        return connection.execute(waiting).scalar_one()


REAUTH_SOON: Final = "reauth_soon"
DAY_SECONDS: Final = 86400
MOVED_MILLISECONDS: Final = 60_000
"""Ends of a refresh token that are this close count as equal: answers give the time left, in whole seconds."""
LONGEST_NUMBER: Final = 18


def _told_days(row: AnyRow) -> int:
    """Return within how many days the consent ends, in the numbers that receivers know."""
    left = (row.refresh_expires_at - row.now) / timedelta(days=1)
    return int(row.days) if left <= row.days else next(days for days in EARLY_DAYS if left <= days)


def _crowds(connection: Connection) -> list[int]:
    """Return the coming weeks, by their numbers from now, in which too many consents end."""
    ends = {week.week: week.grants for week in ends_by_week(connection, weeks=EARLIEST_DAYS // 7 + 1)}
    if not ends:
        return []
    fleet = select(func.count()).select_from(GRANTS).where(is_of_app(connection), text(REFRESHABLE))
    return crowded_weeks(ends, fleet=connection.execute(fleet).scalar_one())


def ends_by_week(connection: Connection, *, weeks: int) -> list[EndingWeek]:
    """Return how many consents end in each of the coming weeks; weeks without an end are left out."""
    at: datetime = connection.execute(select(now())).scalar_one()
    ends_at = GRANTS.c.refresh_expires_at
    number = (type_coerce(ends_at - at, BigInteger) // milliseconds(WEEK_SECONDS)).label("number")
    counted = (
        select(number, func.count().label("grants"))
        .where(is_of_app(connection), text(REFRESHABLE), ends_at > at, ends_at < at + timedelta(weeks=weeks))
        .group_by("number")
        .order_by("number")
    )
    rows = connection.execute(counted).all()
    return [EndingWeek(int(row.number), at + timedelta(weeks=int(row.number)), row.grants) for row in rows]


def _is_early(crowds: list[int]) -> ColumnElement[bool]:
    """The consent ends in a crowded week, is not young, and its own day for an early invitation has come."""
    ends_at, day = GRANTS.c.refresh_expires_at, milliseconds(DAY_SECONDS)
    in_crowd = or_(
        *(and_(ends_at >= now() + week * 7 * day, ends_at < now() + (week + 1) * 7 * day) for week in crowds)
    )
    ahead = cast((USUAL_DAYS + (EARLIEST_DAYS - USUAL_DAYS) * GRANTS.c.jitter) * day, BigInteger)
    old = now() - (EARLIEST_DAYS - USUAL_DAYS) * day
    kept = exists().where(
        PAIRS.c.grant_id == GRANTS.c.id, PAIRS.c.consent == GRANTS.c.consent, PAIRS.c.issued_at <= old
    )
    return and_(in_crowd, ends_at <= now() + ahead, or_(kept, and_(GRANTS.c.consent == 1, GRANTS.c.created_at <= old)))


def _ending(connection: Connection, crowds: list[int]) -> Select[Any]:
    """Select grants whose refresh token ends soon, each with the days of the notice that is not written yet."""
    ends_at = GRANTS.c.refresh_expires_at
    days = case(
        *((ends_at <= now() + milliseconds(day * DAY_SECONDS), day) for day in sorted(WARNED_DAYS)),
        else_=max(WARNED_DAYS),
    )
    before = (
        select(PAIRS.c.refresh_expires_at)
        .where(
            PAIRS.c.grant_id == GRANTS.c.id,
            PAIRS.c.consent == GRANTS.c.consent,
            PAIRS.c.generation < GRANTS.c.pair_generation,
        )
        .order_by(PAIRS.c.generation.desc())
        .limit(1)
        .scalar_subquery()
    )
    moves = and_(GRANTS.c.failures == 0, before.is_not(None), before + MOVED_MILLISECONDS < ends_at)
    short = and_(before.is_(None), GRANTS.c.issued_at + cast(days, BigInteger) * milliseconds(DAY_SECONDS) >= ends_at)
    parts = SOON_KEY.split("{}")
    key = (
        literal(parts[0]) + cast(GRANTS.c.id, Text) + parts[1] + cast(GRANTS.c.consent, Text) + parts[2]
        + cast(days, Text)
    )  # fmt: skip
    soon = ends_at <= now() + milliseconds(max(WARNED_DAYS) * DAY_SECONDS)
    return select(GRANTS.c.id, GRANTS.c.consent, ends_at, days.label("days"), now().label("now")).where(
        is_of_app(connection),
        text(REFRESHABLE),
        ends_at > now(),
        or_(soon, _is_early(crowds)) if crowds else soon,
        ~exists().where(NOTICES.c.dedupe_key == key),
        ~func.coalesce(moves, False),
        ~func.coalesce(short, False),
    )


def notice_views(
    connection: Connection, *wanted: ColumnElement[bool] | Any, newest_first: bool = False, limit: int | None = None
) -> list[NoticeView]:
    """Return the notices that meet all conditions, oldest first by default."""
    rows = (
        select(
            NOTICES.c.id,
            NOTICES.c.message_id,
            NOTICES.c.dedupe_key,
            NOTICES.c.kind,
            NOTICES.c.grant_id,
            GRANTS.c.creator_id,
            GRANTS.c.reference,
            NOTICES.c.detail,
            NOTICES.c.data,
            NOTICES.c.created_at,
            NOTICES.c.delivered_at,
        )
        .outerjoin_from(NOTICES, GRANTS, GRANTS.c.id == NOTICES.c.grant_id)
        .where(*wanted)
        .order_by(NOTICES.c.id.desc() if newest_first else NOTICES.c.id)
        .limit(limit)
    )
    return [NoticeView(*row) for row in connection.execute(rows)]
