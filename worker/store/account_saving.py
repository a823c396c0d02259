"""Storing a page of account data: one transaction for the rows, the doubts, the raw answer and the progress.

A value that is absent or null never erases a known one, so what TikTok stops sending stays. All writes of a kind are
one statement for many rows.

One idea: the rules of each table are steps of the one transaction that stores a page.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import date, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    Table,
    and_,
    delete,
    func,
    insert,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from worker.policy import readings
from worker.store.account_models import (
    AUDIENCE,
    COMMENTS,
    CORRECTIONS,
    COUNTERS,
    CURVES,
    DAY_FIGURES,
    DAYS,
    FIGURES,
    HOURS,
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
from worker.store.account_reading import EVERYONE
from worker.store.account_values import AccountPage, Doubt, LabelledList, PageSaved, Progress
from worker.store.clock import milliseconds, now
from worker.store.engine import Transactions, bulk_writes, writes
from worker.store.models import GRANTS, METADATA, SNAPSHOTS
from worker.store.outbox import SCOPE_KEY, SCOPE_MISSING, insert_notice
from worker.store.rows import AnyRow
from worker.store.values import GrantStatus, PullClaim

ANOTHER_ACCOUNT: Final = "of another account"
ANOTHER_CREATORS: Final = "some of these videos are stored as another creator's: see the quarantine"
BARS: Final = timedelta(days=15)
"""How long a video that was seen in one creator's list is refused in another's; whole passes come every week."""
FIRST: Final = frozenset({"first_read_at", "first_seen_at"})
"""Columns that only the first row of a key sets."""
EXAMPLE: Final = 500
IN_PART: Final = "~"
"""Beginning of the digest of a list with a point that could not be read; any other list replaces that one."""
NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
Rows = Sequence[Mapping[str, Any]]


class AccountSaving(Transactions):
    """What pulls of account data write."""

    @bulk_writes
    def save_page(
        self, connection: Connection, claim: PullClaim, page: AccountPage, *, lease_seconds: float, snapshots: int = 1
    ) -> PageSaved | None:
        """Store a page and extend the lease.

        Args:
            connection: given by the decorator.
            claim: the claim of the pull.
            page: what one answer brought.
            lease_seconds: how long the lease lasts from now.
            snapshots: how many snapshots of the grant are kept.

        Returns:
            None if another worker has the pull by now, or the grant was revoked: then nothing is stored.
        """
        lease = _extend(connection, claim, lease_seconds)
        if lease is None:
            return None
        at = connection.execute(select(now())).scalar_one()
        creator = claim.pair.creator_id
        writer = _Writer(connection, creator, at)
        rows, lists, doubts = writer.sorted_out(page)
        corrections = 0
        for name, found in rows.items():
            if name == DAYS.name:
                corrections += writer.days(found, page)
            elif name == VIDEOS.name:
                writer.videos(found, [each for each in lists if each.item_id is not None])
            else:
                writer.plain(METADATA.tables[name], found, sure=page.is_sure(name))
        writer.audience([each for each in lists if each.item_id is None])
        writer.doubts(page, doubts)
        progress, vanished, missing = page.progress, 0, 0
        if len(doubts) > len(page.doubts):
            progress = replace(progress, clean=False, problem=ANOTHER_CREATORS)
        elif page.vanish:
            vanished, missing = writer.vanish(page)
        writer.target_done(page)
        writer.progress(progress)
        writer.request(page.progress.resource, page.requests)
        if page.snapshot is not None:
            keep_snapshot(connection, claim.grant_id, page.snapshot, keep=snapshots)
        return PageSaved(
            claim=replace(claim, lease_until=lease),
            progress=progress,
            rows=sum(map(len, rows.values())),
            corrections=corrections,
            doubts=len(doubts),
            vanished=vanished,
            missing=missing,
        )

    @writes
    def save_progress(self, connection: Connection, claim: PullClaim, progress: Progress, *, requests: int = 0) -> bool:
        """Store how a resource stands that brought no page, and count the requests that were spent on it.

        Returns:
            False if another worker has the pull by now, or the grant was revoked: then nothing is stored.
        """
        if not _is_held(connection, claim):
            return False
        at = connection.execute(select(now())).scalar_one()
        writer = _Writer(connection, claim.pair.creator_id, at)
        writer.progress(progress)
        writer.request(progress.resource, requests)
        return True

    @writes
    def save_shared(self, connection: Connection, progress: Progress) -> None:
        """Store how a resource stands that is read once for all creators."""
        at = connection.execute(select(now())).scalar_one()
        _Writer(connection, EVERYONE, at).progress(progress)

    @writes
    def narrow(
        self,
        connection: Connection,
        claim: PullClaim,
        resource: str,
        fields: Mapping[str, str | None],
        *,
        code: int | None,
        again_at: datetime,
        lost: Mapping[str, str] = NOTHING,
    ) -> bool:
        """Remember fields that TikTok refuses for a creator, with a notice of each lost scope in the same transaction.

        Args:
            connection: given by the decorator.
            claim: the claim of the pull.
            resource: whose fields they are.
            fields: the scope that each of them needs, if one is known.
            code: TikTok's code.
            again_at: until when they are left out.
            lost: the safe text of a notice for each scope that the creator took back; each is written once a consent.

        Returns:
            False if another worker has the pull by now, or the grant was revoked: then nothing is stored.
        """
        if not _is_held(connection, claim):
            return False
        at = connection.execute(select(now())).scalar_one()
        row = {
            "creator_id": claim.pair.creator_id,
            "resource": resource,
            "code": code,
            "since": at,
            "again_at": again_at,
        }
        rows = [row | {"field": name, "scope": scope} for name, scope in fields.items()]
        _merge(connection, NARROWINGS, rows, keep=frozenset({"since"}))
        for scope, detail in lost.items():
            key = SCOPE_KEY.format(claim.grant_id, claim.pair.consent, scope)
            insert_notice(connection, key, SCOPE_MISSING, detail, grant_id=claim.grant_id)
        return True

    @writes
    def widen(self, connection: Connection, claim: PullClaim, resource: str, fields: Sequence[str]) -> None:
        """Forget that TikTok refused these fields: it gives them again."""
        connection.execute(
            delete(NARROWINGS).where(
                NARROWINGS.c.creator_id == claim.pair.creator_id,
                NARROWINGS.c.resource == resource,
                NARROWINGS.c.field.in_(fields),
            )
        )


def keep_snapshot(connection: Connection, grant_id: int, data: dict[str, Any], *, keep: int) -> None:
    """Insert a snapshot, and delete all but the newest ones of the grant."""
    connection.execute(insert(SNAPSHOTS).values(grant_id=grant_id, pulled_at=now(), data=data))
    newest_to_drop = (
        select(SNAPSHOTS.c.id)
        .where(SNAPSHOTS.c.grant_id == grant_id)
        .order_by(SNAPSHOTS.c.id.desc())
        .offset(keep)
        .limit(1)
        .scalar_subquery()
    )
    connection.execute(delete(SNAPSHOTS).where(SNAPSHOTS.c.grant_id == grant_id, SNAPSHOTS.c.id <= newest_to_drop))


class _Writer:
    """The writes of one transaction for one creator, all at one instant."""

    def __init__(self, connection: Connection, creator_id: str, at: datetime) -> None:
        self._connection = connection
        self._creator_id = creator_id
        self._at = at
        self._today: date = at.date()

    def sorted_out(
        self, page: AccountPage
    ) -> tuple[dict[str, list[Mapping[str, Any]]], list[LabelledList], list[Doubt]]:
        """Return rows, lists and doubts of a page, without days that are not computed and other accounts' videos."""
        rows: dict[str, list[Mapping[str, Any]]] = {name: list(found) for name, found in page.rows.items()}
        lists, doubts = list(page.lists), list(page.doubts)
        if DAYS.name in rows:
            rows[DAYS.name], gone = self.computed(rows[DAYS.name])
            rows[HOURS.name] = [row for row in rows.get(HOURS.name, ()) if row["day"] not in gone]
        if foreign := self.foreign_videos(rows.get(VIDEOS.name, ())):
            rows[VIDEOS.name] = [row for row in rows[VIDEOS.name] if row["item_id"] not in foreign]
            lists = [each for each in lists if each.item_id not in foreign]
            doubts += [Doubt("data.videos[].item_id", ANOTHER_ACCOUNT, item) for item in sorted(foreign)]
        return rows, lists, doubts

    def plain(self, table: Table, rows: Rows, *, sure: bool) -> None:
        """Store rows of a table without rules of its own: field by field, with the instants that the table has.

        A reading that is not sure leaves `read_at`, so that no older value looks like a new one.
        """
        stamps: dict[str, date] = {
            name: self._at for name in ("first_read_at", "read_at", "first_seen_at", "last_seen_at") if name in table.c
        }
        if "pull_day" in table.c:
            stamps["pull_day"] = self._today
        if table is COUNTERS:
            rows = [row for row in rows if any(value is not None for value in row.values())]
        keep = FIRST if sure else FIRST | {"read_at"}
        _merge(self._connection, table, [self._own(table) | dict(row) | stamps for row in rows], keep=keep)
        if table is PROFILES:
            self._renew_end(PROFILES, rows)

    def computed(self, rows: Rows) -> tuple[list[Mapping[str, Any]], set[date]]:
        """Return the days that TikTok has computed, and the days that it sent before it had: they have no figures."""
        good = [
            row
            for row in rows
            if readings.is_computed(row["day"], {name: row.get(name) for name in DAY_FIGURES}, read_on=self._today)
        ]
        young = self._today - timedelta(days=readings.PROVISIONAL_DAYS)
        return good, {row["day"] for row in rows if row["day"] > young} - {row["day"] for row in good}

    def days(self, rows: Rows, page: AccountPage) -> int:
        """Store days, keep corrections, and decide which of them stand; return how many settled figures changed.

        A reading confirms a day only if all of it could be read and nothing in it is new.
        """
        stored = self._stored_days([row["day"] for row in rows])
        corrections: list[dict[str, Any]] = []
        written: list[dict[str, Any]] = []
        for row in rows:
            before = stored.get(row["day"])
            stood = before is not None and before.settled
            changes, news = _changes(before, row, DAY_FIGURES), _news(before, row, DAY_FIGURES)
            if stood and not changes and not news:
                continue
            sure = page.is_sure(DAYS.name, row["day"])
            # A settled day that changed has to stand again.
            settled = not changes and (stood or (sure and not news and self._stands(row["day"], before)))
            about = self._own(CORRECTIONS) | {"day": row["day"], "read_at": self._at, "was_settled": stood}
            corrections += [about | {"field": name, "old": old, "new": new} for name, (old, new) in changes.items()]
            read_at = self._at if sure or before is None else before.read_at
            stamps = {"settled": settled, "first_read_at": self._at, "read_at": read_at}
            written.append(self._own(DAYS) | dict(row) | stamps)
        _merge(self._connection, DAYS, written)
        _merge(self._connection, CORRECTIONS, corrections)
        return sum(1 for row in corrections if row["was_settled"])

    def _stored_days(self, days: Sequence[date]) -> dict[date, AnyRow]:
        if not days:
            return {}
        span = (DAYS.c.creator_id == self._creator_id, DAYS.c.day >= min(days), DAYS.c.day <= max(days))
        return {row.day: row for row in self._connection.execute(select(DAYS).where(*span))}

    def _stands(self, day: date, before: AnyRow | None) -> bool:
        read_before = None if before is None else before.read_at.date()
        return readings.is_settled(day, read_on=self._today, read_before=read_before, changed=False)

    def foreign_videos(self, rows: Rows) -> set[str]:
        """Return which of these videos are listed as another creator's.

        A list names no owner, so the first answer may have been the wrong one: a video that is in the other list no
        longer, or that nobody has seen there for some time, bars nobody.
        """
        ids = [row["item_id"] for row in rows]
        if not ids:
            return set()
        theirs = select(VIDEOS.c.item_id).where(
            VIDEOS.c.item_id.in_(ids),
            VIDEOS.c.creator_id != self._creator_id,
            VIDEOS.c.vanished_at.is_(None),
            VIDEOS.c.last_seen_at > self._at - BARS,
        )
        return set(self._connection.execute(theirs).scalars())

    def videos(self, rows: Rows, lists: Sequence[LabelledList]) -> None:
        """Store videos, a reading for each whose figures changed, and the lists that changed.

        A reading has what was read, and nothing older: a figure that did not come is NULL in it.
        """
        if not rows:
            return
        ids = [row["item_id"] for row in rows]
        columns = [VIDEOS.c[name] for name in ("item_id", "created_at", "digests", *FIGURES)]
        stored = {
            row.item_id: row
            for row in self._connection.execute(
                select(*columns).where(VIDEOS.c.creator_id == self._creator_id, VIDEOS.c.item_id.in_(ids))
            )
        }
        by_video: dict[str, list[LabelledList]] = {}
        for each in lists:
            by_video.setdefault(str(each.item_id), []).append(each)
        written: list[dict[str, Any]] = []
        found: list[dict[str, Any]] = []
        fresh: list[LabelledList] = []
        for row in rows:
            before = stored.get(row["item_id"])
            changed = bool(_changes(before, row, FIGURES) or _news(before, row, FIGURES))
            if changed and (before is None or readings.is_live(before.created_at, now=self._at)):
                read = {name: row.get(name) for name in FIGURES}
                found.append(self._own(READINGS) | {"item_id": row["item_id"], "read_at": self._at} | read)
            digests = {} if before is None or before.digests is None else json.loads(before.digests)
            for each in by_video.get(row["item_id"], ()):
                known = digests.get(each.kind, IN_PART)
                if known != (digest := _digest(each)) and (each.whole or known.startswith(IN_PART)):
                    digests[each.kind] = digest
                    fresh.append(each)
            written.append(
                self._own(VIDEOS)
                | dict(row)
                | {"first_seen_at": self._at, "last_seen_at": self._at}
                | {"digests": json.dumps(digests, sort_keys=True)}
            )
        _merge(self._connection, VIDEOS, written, null=frozenset({"vanished_at"}))
        self._renew_end(VIDEOS, rows)
        _merge(self._connection, READINGS, [row | {"pull_day": self._today} for row in found])
        self._video_lists(fresh)

    def audience(self, lists: Sequence[LabelledList]) -> None:
        """Replace today's shares of each kind of the account's audience.

        An empty list changes nothing, nor does one with a point that could not be read, if that kind was read today.
        """
        lists = [each for each in lists if each.points]
        if not lists:
            return
        today = and_(AUDIENCE.c.creator_id == self._creator_id, AUDIENCE.c.pull_day == self._today)
        if not all(each.whole for each in lists):
            have = set(self._connection.execute(select(AUDIENCE.c.kind).where(today)).scalars())
            lists = [each for each in lists if each.whole or each.kind not in have]
        self._connection.execute(delete(AUDIENCE).where(today, AUDIENCE.c.kind.in_([each.kind for each in lists])))
        self._shares(AUDIENCE, lists)

    def doubts(self, page: AccountPage, doubts: Sequence[Doubt]) -> None:
        """Keep the raw answer, and count each kind of doubt with its newest example."""
        raw_id = None
        if page.raw is not None and (page.keeps_raw or doubts):
            raw_id = self._connection.execute(
                insert(RAW_ANSWERS)
                .values(
                    creator_id=self._creator_id,
                    call=page.call,
                    request_id=page.request_id,
                    received_at=self._at,
                    partial=page.partial,
                    doubtful=bool(doubts),
                    body=page.packed,
                )
                .returning(RAW_ANSWERS.c.id)
            ).scalar_one()
        times = Counter((doubt.path, doubt.reason) for doubt in doubts)
        examples = {(doubt.path, doubt.reason): doubt.example[:EXAMPLE] for doubt in doubts}
        rows = [
            self._own(QUARANTINE)
            | {"call": page.call, "path": path, "reason": reason, "example": examples[path, reason], "times": count}
            | {"first_at": self._at, "last_at": self._at, "raw_answer_id": raw_id}
            for (path, reason), count in times.items()
        ]
        _merge(self._connection, QUARANTINE, rows, keep=frozenset({"first_at"}), add=frozenset({"times"}))

    def vanish(self, page: AccountPage) -> tuple[int, int]:
        """Mark the videos that a whole pass did not bring; return how many, and how many were missing and not marked.

        A pass that lacks most of what is known marks nothing, unless the one before it lacked that too.
        """
        listed = (VIDEOS.c.creator_id == self._creator_id, VIDEOS.c.vanished_at.is_(None))
        gone = (*listed, VIDEOS.c.last_seen_at < page.progress.started_at)
        if not page.seen_twice:
            known, missing = (
                self._connection.execute(select(func.count()).select_from(VIDEOS).where(*where)).scalar_one()
                for where in (listed, gone)
            )
            if 2 * missing > known:
                return 0, missing
        return self._connection.execute(update(VIDEOS).where(*gone).values(vanished_at=self._at)).rowcount, 0

    def target_done(self, page: AccountPage) -> None:
        """Note that the comments of a video, or the replies to a comment, were read to their end."""
        if page.target_done is None:
            return
        if page.progress.resource == "replies":
            ours = (COMMENTS.c.creator_id == self._creator_id, COMMENTS.c.comment_id == page.target_done)
            self._connection.execute(update(COMMENTS).where(*ours).values(replies_read=COMMENTS.c.replies))
        else:
            ours = (VIDEOS.c.creator_id == self._creator_id, VIDEOS.c.item_id == page.target_done)
            self._connection.execute(
                update(VIDEOS).where(*ours).values(comments_read=VIDEOS.c.comments, comments_read_at=self._at)
            )

    def progress(self, progress: Progress) -> None:
        """Store how a resource stands, null values too."""
        row = self._own(PROGRESS) | asdict(progress)
        _merge(self._connection, PROGRESS, [row], exact=True)

    def request(self, resource: str, requests: int) -> None:
        """Count requests of today."""
        if not requests:
            return
        row = self._own(REQUESTS) | {"day": self._today, "resource": resource, "requests": requests}
        _merge(self._connection, REQUESTS, [row], add=frozenset({"requests"}))

    def _video_lists(self, lists: Sequence[LabelledList]) -> None:
        curves = [
            self._own(CURVES)
            | {"item_id": each.item_id, "kind": each.kind, "pull_day": self._today}
            | {"points": each.text}
            for each in lists
            if each.curve
        ]
        _merge(self._connection, CURVES, curves)
        shares = [each for each in lists if not each.curve]
        if shares:
            self._connection.execute(
                delete(VIDEO_SHARES).where(
                    VIDEO_SHARES.c.creator_id == self._creator_id,
                    VIDEO_SHARES.c.pull_day == self._today,
                    tuple_(VIDEO_SHARES.c.item_id, VIDEO_SHARES.c.kind).in_(
                        [(each.item_id, each.kind) for each in shares]
                    ),
                )
            )
            self._shares(VIDEO_SHARES, shares)

    def _shares(self, table: Table, lists: Sequence[LabelledList]) -> None:
        rows = [
            self._own(table)
            | ({} if each.item_id is None else {"item_id": each.item_id})
            | {"pull_day": self._today, "kind": each.kind, "label": str(label), "share": share}
            for each in lists
            for label, share in each.points
        ]
        _merge(self._connection, table, rows)

    def _renew_end(self, table: Table, rows: Rows) -> None:
        """Empty the end of a temporary address that was replaced by one without an end."""
        for column in [name for name in table.c.keys() if name.endswith("_ends_at")]:  # noqa: SIM118 - a collection
            address = column.removesuffix("_ends_at")
            endless = [row for row in rows if row.get(address) is not None and row.get(column) is None]
            keys = [row["item_id"] for row in endless if "item_id" in row]
            if endless:
                where = table.c.item_id.in_(keys) if keys else literal(value=True)
                self._connection.execute(
                    update(table).where(table.c.creator_id == self._creator_id, where).values({column: None})
                )

    def _own(self, table: Table) -> dict[str, Any]:
        return {"creator_id": self._creator_id} if "creator_id" in table.c else {}


def _extend(connection: Connection, claim: PullClaim, lease_seconds: float) -> datetime | None:
    """Extend the lease and lock the grant's row until the end of the transaction; None if the pull is not ours."""
    extended = (
        update(GRANTS)
        .where(*_of_claim(claim))
        .values(pull_lease_until=now() + milliseconds(lease_seconds))
        .returning(GRANTS.c.pull_lease_until)
    )
    return connection.execute(extended).scalar_one_or_none()


def _is_held(connection: Connection, claim: PullClaim) -> bool:
    """Lock the grant's row until the end of the transaction; return False if the pull is not ours any more."""
    held = select(GRANTS.c.id).where(*_of_claim(claim)).with_for_update()
    return connection.execute(held).scalar_one_or_none() is not None


def _of_claim(claim: PullClaim) -> tuple[ColumnElement[bool], ...]:
    return (
        GRANTS.c.id == claim.grant_id,
        GRANTS.c.creator_id == claim.pair.creator_id,
        GRANTS.c.status != GrantStatus.REVOKED.value,
        GRANTS.c.pull_lease_owner == claim.owner,
        GRANTS.c.pull_lease_until == claim.lease_until,
    )


def _merge(
    connection: Connection,
    table: Table,
    rows: Rows,
    *,
    keep: frozenset[str] = FIRST,
    add: frozenset[str] = frozenset(),
    null: frozenset[str] = frozenset(),
    exact: bool = False,
) -> None:
    """Insert rows, or change those that exist: one statement for all, field by field.

    Args:
        connection: the transaction's.
        table: the table; its primary key says which row exists.
        rows: the rows; a column that a row lacks, or that is None, keeps its stored value.
        keep: columns that an existing row keeps.
        add: columns to which the new value is added.
        null: columns that an existing row loses.
        exact: True to store None as well.
    """
    if not rows:
        return
    keys = _keys(table)
    joined: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:  # one statement cannot change a row twice
        place = joined.setdefault(tuple(row[name] for name in keys), {})
        place.update(row if exact else {name: value for name, value in row.items() if value is not None})
    names = tuple(sorted({name for row in joined.values() for name in row}))
    upsert = _upsert(connection.dialect.name, table, names, keep=keep, add=add, null=null, exact=exact)
    filled = [{name: row.get(name) for name in names} for row in joined.values()]
    # With RETURNING many rows go in one statement on both databases; without it, the driver sends one for each.
    connection.execute(upsert, filled).close()


@lru_cache
def _keys(table: Table) -> tuple[str, ...]:
    return tuple(column.name for column in table.primary_key)


@lru_cache(maxsize=256)
def _upsert(
    dialect: str,
    table: Table,
    names: tuple[str, ...],
    *,
    keep: frozenset[str],
    add: frozenset[str],
    null: frozenset[str],
    exact: bool,
) -> Executable:
    """Return the statement of `_merge` for rows with these columns."""
    keys = _keys(table)
    statement = (postgresql if dialect == "postgresql" else sqlite).insert(table)
    changes: dict[str, ColumnElement[Any]] = {}
    for name in names:
        new, old = statement.excluded[name], table.c[name]
        if name in add:
            changes[name] = old + new
        elif name not in keys and name not in keep:
            changes[name] = new if exact else func.coalesce(new, old)
    changes |= {name: literal(None, table.c[name].type) for name in null}
    upsert = (
        statement.on_conflict_do_update(index_elements=keys, set_=changes)
        if changes
        else statement.on_conflict_do_nothing(index_elements=keys)
    )
    returning: Executable = upsert.returning(table.c[keys[0]])
    return returning


def _changes(before: AnyRow | None, row: Mapping[str, Any], names: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """Return the figures that were known and are others now, with both values."""
    if before is None:
        return {}
    stored = before._mapping  # noqa: SLF001 - SQLAlchemy's public name for a row's values
    return {
        name: (stored[name], row[name])
        for name in names
        if row.get(name) is not None and stored[name] is not None and stored[name] != row[name]
    }


def _news(before: AnyRow | None, row: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Return True if a figure is known that was not before."""
    stored = {} if before is None else before._mapping  # noqa: SLF001 - as above
    return any(row.get(name) is not None and stored.get(name) is None for name in names)


def _digest(each: LabelledList) -> str:
    digest = hashlib.blake2b(each.text.encode(), digest_size=8).hexdigest()
    return digest if each.whole else f"{IN_PART}{digest}"
