"""Storing pairs that answers brought: a record of what TikTok has done already, so it is never refused.

A pair becomes a version in any case: after the lease ran out, from a replayed journal, for an older consent. The
grant's pointer only moves forward: to a higher generation of the same consent. Storing a pair twice changes nothing.

A group of pairs is one transaction. On PostgreSQL a separate statement locks the rows of the grants, in the order of
their ids: a statement that locked and stored at once would see the other tables as they were before it got the lock,
and groups that lock in different orders would deadlock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, select, text, update

from worker.errors import NotFoundError
from worker.store.clock import NOW, as_milliseconds, now
from worker.store.engine import Transactions, writes
from worker.store.models import GRANTS, PAIRS
from worker.store.outbox import REAUTH_KEY, announce_recovered
from worker.store.rows import AMONG, among
from worker.store.values import BroughtPair, GrantStatus, Saved

UNWELL: Final = frozenset({GrantStatus.SUSPECT, GrantStatus.NEEDS_REAUTH})
BROUGHT: Final = {
    "grant_id": "bigint",
    "consent": "integer",
    "generation": "integer",
    "sealed_access": "bytea",
    "sealed_refresh": "bytea",
    "key_id": "bigint",
    "issued_at": "bigint",
    "access_expires_at": "bigint",
    "refresh_expires_at": "bigint",
    "next_refresh_at": "bigint",
    "scope": "text",
    "request_id": "text",
}
"""What is stored of a pair, with PostgreSQL's types."""
VERSION: Final = (
    "grant_id, consent, generation, sealed_access, sealed_refresh, key_id, issued_at, access_expires_at,"
    " refresh_expires_at"
)
LOCK: Final = text(f"SELECT id FROM grants WHERE {AMONG['postgresql']} ORDER BY id FOR NO KEY UPDATE")  # noqa: S608 - our own words, no value
ARRAYS: Final = ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in BROUGHT.items())
NOW_ON_POSTGRESQL: Final = NOW["postgresql"]
REAUTH_KEY_OF_M: Final = REAUTH_KEY.format("' || m.grant_id || '", "' || m.consent || '", "' || m.pair_generation || '")
# The pointer and the lease are in one UPDATE, because one statement changes a row only once.
STORE: Final = text(f"""
    WITH v AS MATERIALIZED (SELECT * FROM unnest({ARRAYS}) AS v({", ".join(BROUGHT)})),
    g AS MATERIALIZED (
      SELECT v.*, g.consent AS current_consent, g.pair_generation, g.status,
             g.consent = v.consent AND g.pair_generation < v.generation AND g.status <> 'revoked' AS newer
        FROM v JOIN grants g ON g.id = v.grant_id),
    added AS (
      INSERT INTO pairs ({VERSION}, stored_at, superseded_at)
      SELECT {VERSION}, {NOW_ON_POSTGRESQL}, CASE WHEN newer THEN NULL ELSE {NOW_ON_POSTGRESQL} END FROM g
      ON CONFLICT DO NOTHING RETURNING grant_id),
    m AS MATERIALIZED (SELECT g.* FROM g JOIN added USING (grant_id) WHERE newer),
    superseded AS (
      UPDATE pairs p SET superseded_at = {NOW_ON_POSTGRESQL} FROM m
       WHERE p.grant_id = m.grant_id AND p.superseded_at IS NULL
         AND (p.consent, p.generation) <> (m.consent, m.generation)),
    withdrawn AS (
      DELETE FROM notices n USING m WHERE n.dedupe_key = '{REAUTH_KEY_OF_M}' AND n.delivered_at IS NULL),
    pointed AS (
      UPDATE grants t
         SET pair_generation = coalesce(m.generation, t.pair_generation),
             status = CASE WHEN m.newer THEN 'active' ELSE t.status END,
             issued_at = coalesce(m.issued_at, t.issued_at),
             access_expires_at = coalesce(m.access_expires_at, t.access_expires_at),
             refresh_expires_at = CASE WHEN m.newer THEN m.refresh_expires_at ELSE t.refresh_expires_at END,
             next_refresh_at = coalesce(m.next_refresh_at, t.next_refresh_at),
             scope = coalesce(m.scope, t.scope),
             failures = CASE WHEN m.newer THEN 0 ELSE t.failures END,
             last_reason = CASE WHEN m.newer THEN NULL ELSE t.last_reason END,
             unproven_since = CASE WHEN m.newer THEN NULL ELSE t.unproven_since END,
             belongs_to = CASE WHEN m.newer THEN NULL ELSE t.belongs_to END,
             verdict = CASE WHEN m.newer THEN NULL ELSE t.verdict END,
             next_pull_at = CASE WHEN m.newer THEN {NOW_ON_POSTGRESQL} ELSE t.next_pull_at END,
             updated_at = CASE WHEN m.newer THEN {NOW_ON_POSTGRESQL} ELSE t.updated_at END,
             lease_owner = CASE WHEN t.generation = g.generation THEN NULL ELSE t.lease_owner END,
             lease_until = CASE WHEN t.generation = g.generation THEN NULL ELSE t.lease_until END
        FROM g LEFT JOIN m USING (grant_id)
       WHERE t.id = g.grant_id AND (m.newer OR (t.generation = g.generation AND t.lease_owner IS NOT NULL))),
    ended AS (
      UPDATE attempts a SET outcome = 'refreshed', finished_at = {NOW_ON_POSTGRESQL}, request_id = v.request_id,
             reason = NULL
        FROM v
       WHERE (a.grant_id, a.consent, a.generation) = (v.grant_id, v.consent, v.generation)
         AND (a.outcome IS NULL OR a.outcome <> 'refreshed'))
    SELECT g.grant_id, coalesce(m.newer, false) AS moved, g.current_consent, g.pair_generation, g.status
      FROM g LEFT JOIN m USING (grant_id)""")  # noqa: S608 - our own words, no value

# What SQLite does in place of that one statement; its transaction holds the write lock from its beginning.
GRANTS_OF: Final = text(
    f"SELECT id AS grant_id, consent AS current_consent, pair_generation, status FROM grants WHERE {AMONG['sqlite']}"  # noqa: S608 - our own words, no value
)
KNOWN: Final = text(
    "SELECT grant_id FROM pairs WHERE (grant_id, consent, generation) IN"
    " (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')"
    " FROM json_each(:keys))"
)
ADD: Final = text(
    f"INSERT INTO pairs ({VERSION}, stored_at, superseded_at)"  # noqa: S608 - our own words, no value
    f" VALUES (:{VERSION.replace(', ', ', :')}, {NOW['sqlite']}, CASE WHEN :newer THEN NULL ELSE {NOW['sqlite']} END)"
)
SUPERSEDE: Final = text(
    f"UPDATE pairs SET superseded_at = {NOW['sqlite']}"  # noqa: S608 - our own words, no value
    " WHERE grant_id = :grant_id AND superseded_at IS NULL AND (consent, generation) <> (:consent, :generation)"
)
POINT: Final = text(f"""
    UPDATE grants SET pair_generation = :generation, status = 'active', issued_at = :issued_at,
           access_expires_at = :access_expires_at, refresh_expires_at = :refresh_expires_at,
           next_refresh_at = :next_refresh_at, scope = coalesce(:scope, scope), failures = 0, last_reason = NULL,
           unproven_since = NULL, belongs_to = NULL, verdict = NULL, next_pull_at = {NOW["sqlite"]},
           updated_at = {NOW["sqlite"]}
     WHERE id = :grant_id""")  # noqa: S608 - our own words, no value
FREE: Final = text(
    "UPDATE grants SET lease_owner = NULL, lease_until = NULL"
    " WHERE id = :grant_id AND generation = :generation AND lease_owner IS NOT NULL"
)
REAUTH_KEY_BEFORE: Final = REAUTH_KEY.format("' || :grant_id || '", "' || :consent || '", "' || :before || '")
WITHDRAW: Final = text(f"DELETE FROM notices WHERE dedupe_key = '{REAUTH_KEY_BEFORE}' AND delivered_at IS NULL")  # noqa: S608 - our own words, no value
# A late pair turns an attempt in doubt into a refreshed one; nothing ever turns it back.
END: Final = text(
    f"UPDATE attempts SET outcome = 'refreshed', finished_at = {NOW['sqlite']}, request_id = :request_id, reason = NULL"  # noqa: S608 - our own words, no value
    " WHERE (grant_id, consent, generation) = (:grant_id, :consent, :generation)"
    " AND (outcome IS NULL OR outcome <> 'refreshed')"
)


class Saving(Transactions):
    """Storing pairs."""

    @writes
    def save_group(self, connection: Connection, brought: Sequence[BroughtPair]) -> list[Saved]:
        """Store pairs and make each current, unless a newer one or a newer consent is.

        If a pair becomes current, the grant is active again, its failures are reset, an account-data pull is due, and a
        notice that asks the creator to authorize is withdrawn if it was not delivered yet; if it was, another notice
        says that the grant recovered. A pair of a revoked grant is kept until it is revoked at TikTok too. Only the
        lease of the attempt that brought the pair is released. Of two pairs with the same number the first is kept.

        Args:
            connection: given by the decorator.
            brought: the pairs; several of one grant are stored one after the other.

        Returns:
            What was done with each, in their order.

        Raises:
            NotFoundError: there is no such grant; nothing of the group is stored.
        """
        store = _store_postgresql if connection.dialect.name == "postgresql" else _store_sqlite
        saved: dict[int, Saved] = {}
        for places in _rounds(brought):
            rows = {row.grant_id: row for row in store(connection, [_dated(connection, brought[i]) for i in places])}
            for place in places:
                item = brought[place]
                if item.grant_id not in rows:
                    raise NotFoundError(f"there is no grant {item.grant_id}")
                saved[place] = _saved(item, rows[item.grant_id])
            lost = [row for row in rows.values() if row.moved and row.status == GrantStatus.NEEDS_REAUTH]
            if lost:
                announce_recovered(
                    connection, [(row.grant_id, row.current_consent, row.pair_generation) for row in lost]
                )
            if revoked := [row.grant_id for row in rows.values() if row.status == GrantStatus.REVOKED]:
                # A pair that came after its grant was revoked here: it is to be revoked at TikTok too.
                connection.execute(update(GRANTS).where(GRANTS.c.id.in_(revoked)).values(ending_at=now()))
        return [saved[place] for place in range(len(brought))]


def _rounds(brought: Sequence[BroughtPair]) -> Iterator[list[int]]:
    """Yield the places of pairs so that each round has distinct grants: one statement changes a row once."""
    left = list(range(len(brought)))
    while left:
        first: dict[int, int] = {}
        for place in left:
            first.setdefault(brought[place].grant_id, place)
        yield list(first.values())
        taken = set(first.values())
        left = [place for place in left if place not in taken]


def _dated(connection: Connection, item: BroughtPair) -> BroughtPair:
    """Return a pair with the end of its refresh token; if the token was kept, that of the newest pair before it."""
    if not item.pair.refresh_kept or item.pair.refresh_expires_at is not None:
        return item
    ends_at = connection.execute(
        select(PAIRS.c.refresh_expires_at)
        .where(PAIRS.c.grant_id == item.grant_id, PAIRS.c.consent == item.consent, PAIRS.c.generation < item.generation)
        .order_by(PAIRS.c.generation.desc())
        .limit(1)
    ).scalar()
    return replace(item, pair=replace(item.pair, refresh_expires_at=ends_at))


def _values(item: BroughtPair) -> dict[str, Any]:
    pair, ends = item.pair, item.pair.refresh_expires_at
    return {
        "grant_id": item.grant_id,
        "consent": item.consent,
        "generation": item.generation,
        "sealed_access": pair.sealed.sealed_access,
        "sealed_refresh": pair.sealed.sealed_refresh,
        "key_id": pair.sealed.key_id,
        "issued_at": as_milliseconds(pair.issued_at),
        "access_expires_at": as_milliseconds(pair.access_expires_at),
        "refresh_expires_at": None if ends is None else as_milliseconds(ends),
        "next_refresh_at": as_milliseconds(pair.next_refresh_at),
        "scope": pair.scope,
        "request_id": item.request_id,
    }


def _store_postgresql(connection: Connection, brought: Sequence[BroughtPair]) -> Sequence[Any]:
    rows = [_values(item) for item in brought]
    connection.execute(LOCK, {"ids": [item.grant_id for item in brought]}).close()
    return connection.execute(STORE, {name: [row[name] for row in rows] for name in BROUGHT}).all()


class _Before:
    """A grant as it was before its pair was stored, and whether the pair has become current."""

    def __init__(self, row: Any, item: BroughtPair, *, known: bool) -> None:
        self.grant_id: int = row.grant_id
        self.current_consent: int = row.current_consent
        self.pair_generation: int = row.pair_generation
        self.status: str = row.status
        self.newer = (
            row.current_consent == item.consent
            and row.pair_generation < item.generation
            and row.status != GrantStatus.REVOKED
        )
        self.moved = self.newer and not known


def _store_sqlite(connection: Connection, brought: Sequence[BroughtPair]) -> Sequence[Any]:
    keys = json.dumps([(item.grant_id, item.consent, item.generation) for item in brought])
    known = set(connection.execute(KNOWN, {"keys": keys}).scalars())
    grants = {
        row.grant_id: row
        for row in connection.execute(GRANTS_OF, {"ids": among(connection, [item.grant_id for item in brought])})
    }
    before = {
        item.grant_id: _Before(grants[item.grant_id], item, known=item.grant_id in known)
        for item in brought
        if item.grant_id in grants
    }
    rows = [_values(item) for item in brought if item.grant_id in before]
    added = [row | {"newer": before[row["grant_id"]].newer} for row in rows if row["grant_id"] not in known]
    moved = [row | {"before": before[row["grant_id"]].pair_generation} for row in rows if before[row["grant_id"]].moved]
    for statement, values in (
        (ADD, added), (SUPERSEDE, moved), (POINT, moved), (WITHDRAW, moved), (FREE, rows), (END, rows),
    ):  # fmt: skip
        if values:
            connection.execute(statement, values)
    return list(before.values())


def _saved(item: BroughtPair, before: Any) -> Saved:
    status = GrantStatus(before.status)
    return Saved(
        grant_id=item.grant_id,
        moved=before.moved or (before.current_consent, before.pair_generation) == (item.consent, item.generation),
        revived=before.moved and status in UNWELL,
        status=GrantStatus.ACTIVE if before.moved else status,
    )
