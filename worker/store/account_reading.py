"""Reading account data: what a pull must know, what people look at, and what is old enough to be deleted.

One idea: each query is short, and all of them are on the same tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Date,
    Table,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    tuple_,
    update,
)

from worker.errors import UsageError
from worker.policy import readings
from worker.store.account_models import (
    AUDIENCE,
    COMMENTS,
    CORRECTIONS,
    COUNTERS,
    DATA,
    DAYS,
    HOURS,
    MENTIONS,
    NARROWINGS,
    PROFILES,
    PROGRESS,
    QUARANTINE,
    RAW_ANSWERS,
    READINGS,
    REQUESTS,
    VIDEO_SHARES,
    VIDEOS,
)
from worker.store.account_values import EVERYTHING, AccountCosts, AccountState, LateResource, Narrowed, Progress
from worker.store.clock import Instant, milliseconds, now
from worker.store.engine import Transactions, reads, writes
from worker.store.models import GRANTS
from worker.store.rows import AnyRow, is_of_app, is_paused
from worker.store.values import GrantStatus

SCOPE_NOT_GRANTED: Final = 40130
"""TikTok's code for a field whose scope is missing; every other refusal is about the field."""
EVERYONE: Final = ""
"""The creator id of what is read once for all creators."""
ELSEWHERE: Final = 3
"""A field that TikTok has refused for this many creators is left out of the first request for the next one."""
PULLED: Final = (GrantStatus.ACTIVE.value, GrantStatus.SUSPECT.value)
"""The states of grants that are pulled."""
PAGE: Final = 2_000
"""Rows of an export that are read at once."""
FULL_HISTORY: Final = (COUNTERS, CORRECTIONS, HOURS, AUDIENCE, READINGS, VIDEO_SHARES, REQUESTS)
"""Tables that grow with time; the others have one row for each thing or day."""


class AccountReading(Transactions):
    """What pulls and people read of account data."""

    @reads
    def account_state(self, connection: Connection, creator_id: str) -> AccountState:
        """Return what is known of a creator's account data."""
        at = connection.execute(select(now())).scalar_one()
        ours = connection.execute(select(PROGRESS).where(PROGRESS.c.creator_id == creator_id))
        earliest = at.date() - timedelta(days=readings.LOOK_BACK_DAYS)
        days = select(DAYS.c.day, DAYS.c.settled, DAYS.c.read_at).where(
            DAYS.c.creator_id == creator_id, DAYS.c.day >= earliest
        )
        stored = connection.execute(days).all()
        spent = select(func.coalesce(func.sum(REQUESTS.c.requests), 0)).where(
            REQUESTS.c.creator_id == creator_id, REQUESTS.c.day == at.date()
        )
        newest = select(func.max(VIDEOS.c.created_at, type_=Instant())).where(VIDEOS.c.creator_id == creator_id)
        first = select(PROFILES.c.first_read_at).where(PROFILES.c.creator_id == creator_id)
        newest_video, first_read_at = connection.execute(
            select(newest.scalar_subquery(), first.scalar_subquery())
        ).one()
        return AccountState(
            progress={row.resource: _progress(row) for row in ours},
            narrowed=_narrowed(connection, creator_id, at),
            requests_today=connection.execute(spent).scalar_one(),
            # A second reading on the same day settles nothing.
            unsettled=min(
                (row.day for row in stored if not row.settled and row.read_at.date() < at.date()), default=None
            ),
            days=frozenset(row.day for row in stored),
            standing=frozenset(row.day for row in stored if row.settled),
            newest_video=newest_video,
            first_read_at=first_read_at,
            now=at,
        )

    @reads
    def refused_elsewhere(self, connection: Connection, creator_id: str, resource: str) -> list[str]:
        """Return the fields that TikTok refuses for several other creators although no scope is missing."""
        often = (
            select(NARROWINGS.c.field)
            .where(
                NARROWINGS.c.creator_id != creator_id,
                NARROWINGS.c.resource == resource,
                NARROWINGS.c.code != SCOPE_NOT_GRANTED,
                NARROWINGS.c.again_at > now(),
            )
            .group_by(NARROWINGS.c.field)
            .having(func.count() >= ELSEWHERE)
        )
        return list(connection.execute(often).scalars())

    @reads
    def videos_to_read_comments_of(
        self, connection: Connection, creator_id: str, *, since: datetime, limit: int
    ) -> list[str]:
        """Return the ids of videos whose number of comments has changed since they were read, newest first."""
        wanted = (
            select(VIDEOS.c.item_id)
            .where(
                VIDEOS.c.creator_id == creator_id,
                VIDEOS.c.created_at >= since,
                VIDEOS.c.vanished_at.is_(None),
                VIDEOS.c.comments > 0,
                or_(VIDEOS.c.comments_read.is_(None), VIDEOS.c.comments_read != VIDEOS.c.comments),
            )
            .order_by(VIDEOS.c.created_at.desc())
            .limit(limit)
        )
        return list(connection.execute(wanted).scalars())

    @reads
    def comments_to_read_replies_of(
        self, connection: Connection, creator_id: str, *, limit: int
    ) -> list[tuple[str, str]]:
        """Return video and comment ids of comments whose number of replies has changed since they were read."""
        wanted = (
            select(COMMENTS.c.item_id, COMMENTS.c.comment_id)
            .where(
                COMMENTS.c.creator_id == creator_id,
                COMMENTS.c.parent_comment_id.is_(None),
                COMMENTS.c.item_id.is_not(None),
                COMMENTS.c.replies > 0,
                or_(COMMENTS.c.replies_read.is_(None), COMMENTS.c.replies_read != COMMENTS.c.replies),
            )
            .order_by(COMMENTS.c.created_at.desc())
            .limit(limit)
        )
        return [(row.item_id, row.comment_id) for row in connection.execute(wanted)]

    @writes
    def take_shared(self, connection: Connection, resource: str, *, until: datetime) -> bool:
        """Take a resource that is read once for all creators, if it is due; nobody else gets it until then."""
        free = and_(PROGRESS.c.creator_id == EVERYONE, PROGRESS.c.resource == resource)
        due = update(PROGRESS).where(free, PROGRESS.c.next_at <= now()).values(next_at=until)
        if connection.execute(due).rowcount:
            return True
        if connection.execute(select(PROGRESS.c.resource).where(free)).first() is not None:
            return False
        connection.execute(insert(PROGRESS).values(creator_id=EVERYONE, resource=resource, next_at=until))
        return True

    @reads
    def account_rows(
        self, connection: Connection, name: str, *, creator_id: str | None, since: date | None, after: Sequence[Any]
    ) -> list[AnyRow]:
        """Return the next rows of a table in the order of its key.

        Args:
            connection: given by the decorator.
            name: the table.
            creator_id: of one creator only; None for all.
            since: rows of this UTC day and later only; tables without a day or an instant of their own ignore it.
            after: the key of the last row of the batch before; empty at the beginning.

        Raises:
            UsageError: there is no such table.
        """
        table = data_table(name)
        key = tuple(table.primary_key)
        wanted = select(table).order_by(*key).limit(PAGE)
        if after:
            last = (literal(value, column.type) for column, value in zip(key, after, strict=True))
            wanted = wanted.where(tuple_(*key) > tuple_(*last))
        if creator_id is not None and "creator_id" in table.c:
            wanted = wanted.where(table.c.creator_id == creator_id)
        if since is not None and (column := _time_of(table)) is not None:
            wanted = wanted.where(or_(column >= _bound(column, since), column.is_(None)))
        return list(connection.execute(wanted))

    @staticmethod
    def key_of(name: str, row: AnyRow) -> tuple[Any, ...]:
        """Return the key of a row, after which `account_rows` goes on."""
        return tuple(row._mapping[column.name] for column in data_table(name).primary_key)  # noqa: SLF001 - see below

    @reads
    def count_account_rows(
        self, connection: Connection, name: str, *, creator_id: str | None, since: date | None
    ) -> int:
        """Return how many rows an export of a table has."""
        table = data_table(name)
        wanted = select(func.count()).select_from(table)
        if creator_id is not None and "creator_id" in table.c:
            wanted = wanted.where(table.c.creator_id == creator_id)
        if since is not None and (column := _time_of(table)) is not None:
            wanted = wanted.where(or_(column >= _bound(column, since), column.is_(None)))
        return connection.execute(wanted).scalar_one()

    @reads
    def profile(self, connection: Connection, creator_id: str) -> AnyRow | None:
        """Return a creator's row of profile and counters, or None."""
        return connection.execute(select(PROFILES).where(PROFILES.c.creator_id == creator_id)).first()

    @reads
    def days_of(self, connection: Connection, creator_id: str, *, limit: int) -> list[AnyRow]:
        """Return a creator's newest days, oldest first."""
        newest = select(DAYS).where(DAYS.c.creator_id == creator_id).order_by(DAYS.c.day.desc()).limit(limit)
        return list(reversed(connection.execute(newest).all()))

    @reads
    def counters_of(self, connection: Connection, creator_id: str, *, days: int) -> list[AnyRow]:
        """Return a creator's counters of the days before the newest reading, oldest first."""
        ours = COUNTERS.c.creator_id == creator_id
        newest = select(func.max(COUNTERS.c.read_at)).where(ours).scalar_subquery()
        lately = COUNTERS.c.read_at > newest - milliseconds(days * 86_400)
        return list(connection.execute(select(COUNTERS).where(ours, lately).order_by(COUNTERS.c.read_at)))

    @reads
    def top_videos(self, connection: Connection, creator_id: str, *, limit: int) -> list[AnyRow]:
        """Return a creator's most viewed videos."""
        top = (
            select(VIDEOS)
            .where(VIDEOS.c.creator_id == creator_id, VIDEOS.c.video_views.is_not(None))
            .order_by(VIDEOS.c.video_views.desc(), VIDEOS.c.item_id)
            .limit(limit)
        )
        return list(connection.execute(top))

    @reads
    def progress_of(self, connection: Connection, creator_id: str) -> list[Progress]:
        """Return how each resource of a creator stands."""
        ours = select(PROGRESS).where(PROGRESS.c.creator_id == creator_id).order_by(PROGRESS.c.resource)
        return [_progress(row) for row in connection.execute(ours)]

    @reads
    def narrowed_of(self, connection: Connection, creator_id: str) -> list[Narrowed]:
        """Return the fields that TikTok refuses for a creator."""
        return _narrowed(connection, creator_id, connection.execute(select(now())).scalar_one())

    @reads
    def quarantine_of(self, connection: Connection, creator_id: str, *, limit: int) -> list[AnyRow]:
        """Return a creator's newest kinds of values that were not taken over."""
        ours = select(QUARANTINE).where(QUARANTINE.c.creator_id == creator_id)
        return list(connection.execute(ours.order_by(QUARANTINE.c.last_at.desc()).limit(limit)))

    @reads
    def account_costs(self, connection: Connection, *, days: int) -> list[AccountCosts]:
        """Return what each resource cost on the last full UTC days."""
        today = connection.execute(select(now())).scalar_one().date()
        costs = (
            select(REQUESTS.c.day, REQUESTS.c.resource, func.count(), func.sum(REQUESTS.c.requests))
            .where(REQUESTS.c.day >= today - timedelta(days=days), REQUESTS.c.day < today)
            .group_by(REQUESTS.c.day, REQUESTS.c.resource)
            .order_by(REQUESTS.c.day, REQUESTS.c.resource)
        )
        return [AccountCosts(row[0], row[1], row[2], int(row[3])) for row in connection.execute(costs)]

    @reads
    def late_resources(
        self, connection: Connection, needs: Mapping[str, str | None], *, seconds: float
    ) -> list[LateResource]:
        """Return the resources that have been due for more than some seconds, for creators of whom they can be read.

        What waits of a creator who has to authorize again, or who does not grant the scope, is not late: the creator
        has the next word. Nor is what a person has paused.

        Args:
            connection: given by the decorator.
            needs: the resources that are pulled, at least one, each with the scope that it needs, or None.
            seconds: from how long on they count.
        """
        scopes = literal(",").concat(GRANTS.c.scope).concat(",")
        readable = [
            and_(
                PROGRESS.c.resource == name, true() if scope is None else scopes.contains(f",{scope},", autoescape=True)
            )
            for name, scope in needs.items()
        ]
        refused = exists().where(
            NARROWINGS.c.creator_id == PROGRESS.c.creator_id,
            NARROWINGS.c.resource == PROGRESS.c.resource,
            NARROWINGS.c.field == EVERYTHING,
            NARROWINGS.c.again_at > now(),
        )
        late = (
            select(
                PROGRESS.c.resource,
                func.count(),
                func.min(PROGRESS.c.next_at, type_=Instant()),
                func.sum(case((PROGRESS.c.failures > 0, 1), else_=0)),
            )
            .join_from(PROGRESS, GRANTS, and_(GRANTS.c.creator_id == PROGRESS.c.creator_id, is_of_app(connection)))
            .where(PROGRESS.c.next_at <= now() - milliseconds(seconds))
            .where(GRANTS.c.status.in_(PULLED), or_(*readable), ~refused, ~is_paused(connection))
            .group_by(PROGRESS.c.resource)
            .order_by(PROGRESS.c.resource)
        )
        return [LateResource(row[0], row[1], row[2], int(row[3])) for row in connection.execute(late)]

    @reads
    def doubts_since(self, connection: Connection, *, seconds: float) -> tuple[int, int]:
        """Return how many kinds of values went into quarantine lately, and of how many creators."""
        recent = select(func.count(), func.count(QUARANTINE.c.creator_id.distinct())).where(
            QUARANTINE.c.last_at >= now() - milliseconds(seconds)
        )
        kinds, creators = connection.execute(recent).one()
        return kinds, creators

    @reads
    def contested(
        self, connection: Connection, *, creators: int
    ) -> list[tuple[int | None, int | None, int | None, int | None, int | None]]:
        """Return, for the newest settled day of some creators, the figures whose meaning is contested.

        Each is (`followers_count` of the day, `daily_total_followers`, the counter, new, lost).
        """
        newest = (
            select(DAYS.c.creator_id, func.max(DAYS.c.day, type_=Date()).label("day"))
            .where(DAYS.c.settled, DAYS.c.followers_count.is_not(None) | DAYS.c.daily_total_followers.is_not(None))
            .group_by(DAYS.c.creator_id)
            .limit(creators)
            .subquery()
        )
        wanted = (
            select(
                DAYS.c.followers_count,
                DAYS.c.daily_total_followers,
                PROFILES.c.followers_count.label("counter"),
                DAYS.c.daily_new_followers,
                DAYS.c.daily_lost_followers,
            )
            .join_from(DAYS, newest, and_(newest.c.creator_id == DAYS.c.creator_id, newest.c.day == DAYS.c.day))
            .join(PROFILES, PROFILES.c.creator_id == DAYS.c.creator_id)
        )
        return [(row[0], row[1], row[2], row[3], row[4]) for row in connection.execute(wanted)]

    @writes
    def prune_raw_answers(
        self, connection: Connection, *, older_than_days: float, doubtful_days: float, limit: int
    ) -> int:
        """Delete raw answers by age; those with a value in quarantine are kept longer. Return how many."""
        old = (
            select(RAW_ANSWERS.c.id)
            .where(
                or_(
                    and_(~RAW_ANSWERS.c.doubtful, RAW_ANSWERS.c.received_at <= _days_ago(older_than_days)),
                    and_(RAW_ANSWERS.c.doubtful, RAW_ANSWERS.c.received_at <= _days_ago(doubtful_days)),
                )
            )
            .limit(limit)
        )
        return connection.execute(delete(RAW_ANSWERS).where(RAW_ANSWERS.c.id.in_(old))).rowcount

    @writes
    def prune_other_people(self, connection: Connection, *, older_than_days: float, limit: int) -> int:
        """Delete comments and mentions that no answer has held for some days: they are other people's words."""
        return sum(
            _delete_old(connection, table, table.c.last_seen_at <= _days_ago(older_than_days), limit)
            for table in (COMMENTS, MENTIONS)
        )

    @writes
    def prune_account_history(self, connection: Connection, *, older_than_days: float, limit: int) -> int:
        """Delete history of account data that is older than some days; return how many rows."""
        today = connection.execute(select(now())).scalar_one().date()
        gone = 0
        for table in (*FULL_HISTORY, DAYS):
            column = _time_of(table)
            if column is not None:
                bound = _bound(column, today - timedelta(days=round(older_than_days)))
                gone += _delete_old(connection, table, column < bound, limit)
        return gone

    @writes
    def prune_doubts(self, connection: Connection, *, older_than_days: float, limit: int) -> int:
        """Delete quarantine and refused fields that nothing has confirmed for some days; return how many rows."""
        before = _days_ago(older_than_days)
        return _delete_old(connection, QUARANTINE, QUARANTINE.c.last_at <= before, limit) + _delete_old(
            connection, NARROWINGS, NARROWINGS.c.again_at <= before, limit
        )


def data_table(name: str) -> Table:
    """Return a table of account data by its name.

    Raises:
        UsageError: there is no such table; the text names those that there are.
    """
    for table in DATA:
        if table.name == name:
            return table
    raise UsageError(f"there is no table {name!r}: choose from {', '.join(table.name for table in DATA)}")


def account_tables() -> tuple[str, ...]:
    """Return the names of the tables of account data."""
    return tuple(table.name for table in DATA)


def account_columns(name: str) -> dict[str, type]:
    """Return the columns of a table of account data, each with the type of its values.

    Raises:
        UsageError: there is no such table.
    """
    return {
        column.name: datetime if isinstance(column.type, Instant) else column.type.python_type
        for column in data_table(name).c
    }


def _delete_old(connection: Connection, table: Table, old: ColumnElement[bool], limit: int) -> int:
    key = tuple(table.primary_key)
    some = select(*key).where(old).limit(limit)
    return connection.execute(delete(table).where(tuple_(*key).in_(some))).rowcount


def _time_of(table: Table) -> ColumnElement[Any] | None:
    """Return the column that says which time a row is of."""
    names = ("day", "pull_day", "read_at", "created_at", "last_seen_at")
    return next((table.c[name] for name in names if name in table.c), None)


def _bound(column: ColumnElement[Any], since: date) -> Any:
    return since if isinstance(column.type, Date) else datetime.fromisoformat(f"{since.isoformat()}T00:00:00+00:00")


def _days_ago(days: float) -> ColumnElement[Any]:
    return now() - milliseconds(days * 86_400)


def _progress(row: AnyRow) -> Progress:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for a row's values
    del values["creator_id"]
    return Progress(**values)


def _narrowed(connection: Connection, creator_id: str, at: datetime) -> list[Narrowed]:
    found = select(NARROWINGS).where(NARROWINGS.c.creator_id == creator_id)
    return [
        Narrowed(row.resource, row.field, row.scope, row.code, row.since, row.again_at, row.again_at > at)
        for row in connection.execute(found.order_by(NARROWINGS.c.resource, NARROWINGS.c.field))
    ]
