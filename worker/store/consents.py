"""Storing consents: exchanged codes and imported pairs become grants, many in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Connection,
    String,
    bindparam,
    case,
    func,
    insert,
    null,
    select,
    text,
    update,
)

from worker.store.clock import iso_of, now, whole_milliseconds
from worker.store.engine import Transactions, reads, writes
from worker.store.forgetting import barred
from worker.store.models import ATTEMPTS, GRANTS, PAIRS, TOMBSTONES, UNRESOLVED
from worker.store.outbox import announce_recovered, insert_notice, insert_unless_known, withdraw_requests
from worker.store.rows import PAIR_BYTES, AnyRow, app_of, lease_is_free, sealed_pair
from worker.store.values import ConsentResult, GrantStatus, Likeness, NewConsent, PairVersion
from worker.vault.sealing import SealedPair

Seal = Callable[[NewConsent, int, int], SealedPair]
"""Seals the pair of a consent to its place: the item, its consent and its generation. It does no I/O."""
Compare = Callable[[NewConsent, int, Sequence[PairVersion]], Likeness]
"""Compares an item with a creator's kept pairs, newest first; the pair of the given generation is the current one."""
FIRST: Final = 1
CONNECTED: Final = "connected"


class Consents(Transactions):
    """New and renewed consents of creators."""

    @writes
    def save_consents(
        self,
        connection: Connection,
        items: Sequence[NewConsent],
        seal: Seal,
        *,
        replace: bool,
        compare: Compare | None = None,
        announce: bool = False,
    ) -> list[ConsentResult]:
        """Store consents in one transaction; a few hundred at a time are fast and hold no lock for long.

        A replaced grant gets the next consent and generation and is active. A pair that an attempt of the older consent
        still brings is kept, and never becomes current. The lease of that attempt runs out by itself, so that the new
        pair is not refreshed while the attempt is under way.

        Args:
            connection: given by the decorator.
            items: what to store. Of several with the same creator the first counts; with `replace` the last.
            seal: seals an item's pair; it may be called again if the transaction is retried.
            replace: True to replace the consent of known creators.
            compare: compares an item with the stored pairs of its creator; it does no I/O. With it, only what is surely
                older than the item is replaced, so that an old file never replaces a valid pair: see
                `judge_consents`. None replaces without a comparison.
            announce: True to write a notice for each consent that is stored.

        Returns:
            One result for each item, in the same order.
        """
        results = [ConsentResult.KNOWN] * len(items)
        chosen: dict[str, int] = {}
        for place, item in enumerate(items):
            if replace or item.creator_id not in chosen:
                chosen[item.creator_id] = place
        known = _known(connection, list(chosen), lock=True)
        fresh = [items[place] for creator_id, place in chosen.items() if creator_id not in known]
        if compare is not None and (gone := barred(connection, fresh)):
            results = [ConsentResult.FORGOTTEN if item.creator_id in gone else ConsentResult.KNOWN for item in items]
            fresh = [item for item in fresh if item.creator_id not in gone]
        created = _create(connection, fresh, seal)
        for creator_id in created:
            results[chosen[creator_id]] = ConsentResult.CREATED
        # A creator whom another process inserted in the meantime is known now.
        late = [item.creator_id for item in fresh if item.creator_id not in created]
        known |= _known(connection, late, lock=True)
        found = [(items[chosen[creator_id]], row) for creator_id, row in known.items()]
        verdicts = _judge(connection, found, compare, replace=replace)
        taken = [pair for pair, verdict in zip(found, verdicts, strict=True) if verdict is ConsentResult.REPLACED]
        _replace(connection, taken, seal)
        for (item, _), verdict in zip(found, verdicts, strict=True):
            results[chosen[item.creator_id]] = verdict
        stored = {ConsentResult.CREATED, ConsentResult.REPLACED}
        if announce and (connected := [each for each, place in chosen.items() if results[place] in stored]):
            _announce_connected(connection, connected)
        return results

    @reads
    def judge_consents(
        self, connection: Connection, items: Sequence[NewConsent], compare: Compare, *, replace: bool
    ) -> list[ConsentResult]:
        """Return what `save_consents` would do now with items of different creators, without changing anything.

        A pair that is stored, or was stored before the current one, is never stored again, whatever its date. If the
        creator has to authorize again, or the stored pair belongs to another creator, any other pair is stored.
        Otherwise the pair must surely be newer than what is stored or under way: it needs a certain date, later than
        that of the stored pair, and no refresh that was sent after this date may be under way or in doubt.
        """
        known = _known(connection, [item.creator_id for item in items], lock=False)
        found = [(item, known[item.creator_id]) for item in items if item.creator_id in known]
        verdicts = _judge(connection, found, compare, replace=replace)
        by_creator = {item.creator_id: verdict for (item, _), verdict in zip(found, verdicts, strict=True)}
        gone = barred(connection, (item for item in items if item.creator_id not in known))
        by_creator |= dict.fromkeys(gone, ConsentResult.FORGOTTEN)
        return [by_creator.get(item.creator_id, ConsentResult.CREATED) for item in items]


def _known(connection: Connection, creator_ids: list[str], *, lock: bool) -> dict[str, AnyRow]:
    if not creator_ids:
        return {}
    in_doubt_since = (
        select(func.max(ATTEMPTS.c.claimed_at))
        .where(
            ATTEMPTS.c.grant_id == GRANTS.c.id,
            ATTEMPTS.c.consent == GRANTS.c.consent,
            ATTEMPTS.c.generation > GRANTS.c.pair_generation,
            text(UNRESOLVED),
        )
        .scalar_subquery()
    )
    rows = (
        select(
            GRANTS.c.id,
            GRANTS.c.creator_id,
            GRANTS.c.consent,
            GRANTS.c.generation,
            GRANTS.c.pair_generation,
            GRANTS.c.status,
            GRANTS.c.issued_at,
            GRANTS.c.updated_at,
            GRANTS.c.belongs_to,
            lease_is_free().label("free"),
            in_doubt_since.label("in_doubt_since"),
        )
        .where(GRANTS.c.creator_id.in_(creator_ids))
        .order_by(GRANTS.c.id)
    )
    found = connection.execute(rows.with_for_update(key_share=True) if lock else rows)
    return {row.creator_id: row for row in found}


def _judge(
    connection: Connection, found: list[tuple[NewConsent, AnyRow]], compare: Compare | None, *, replace: bool
) -> list[ConsentResult]:
    if compare is None:
        return [ConsentResult.REPLACED if replace else ConsentResult.KNOWN] * len(found)
    versions = _versions(connection, [row.id for _, row in found])
    return [
        _verdict(
            item,
            row,
            compare(item, row.pair_generation, versions.get(row.id, ())),
            replace=replace,
            comparable=row.id in versions,
        )
        for item, row in found
    ]


def _verdict(item: NewConsent, row: AnyRow, likeness: Likeness, *, replace: bool, comparable: bool) -> ConsentResult:
    dead, foreign = row.status == GrantStatus.NEEDS_REAUTH.value, row.belongs_to is not None
    verdict = ConsentResult.REPLACED
    if likeness is not Likeness.OTHER and dead:
        return ConsentResult.DEAD
    if likeness is Likeness.SAME:
        return ConsentResult.FOREIGN if foreign else ConsentResult.SAME
    if likeness is Likeness.EARLIER:
        return ConsentResult.OLDER
    if not foreign and not (dead and comparable):  # where every pair was wiped, only dates show which is newer
        verdict = _by_dates(item, row)
    wish = {ConsentResult.REPLACED, ConsentResult.UNDATED}
    return ConsentResult.KNOWN if verdict in wish and not replace else verdict


def _by_dates(item: NewConsent, row: AnyRow) -> ConsentResult:
    """Return REPLACED if the item is surely newer than all that is stored or under way, otherwise why not."""
    if not item.dated:
        return ConsentResult.UNDATED
    issued_at = whole_milliseconds(item.issued_at)  # as the database keeps it: the same instant must not seem later
    if row.status == GrantStatus.REVOKED.value and issued_at <= row.updated_at:
        return ConsentResult.REVOKED
    if issued_at <= row.issued_at:
        return ConsentResult.OLDER
    if not row.free or (row.in_doubt_since is not None and issued_at <= row.in_doubt_since):
        return ConsentResult.BUSY
    return ConsentResult.REPLACED


def _versions(connection: Connection, grant_ids: list[int]) -> dict[int, list[PairVersion]]:
    """Return the kept pairs of these grants, newest first."""
    if not grant_ids:
        return {}
    rows = connection.execute(
        select(PAIRS.c.grant_id, PAIRS.c.consent, PAIRS.c.generation, *PAIR_BYTES)
        .where(PAIRS.c.grant_id.in_(grant_ids), PAIRS.c.wiped_at.is_(None))
        .order_by(PAIRS.c.grant_id, PAIRS.c.consent.desc(), PAIRS.c.generation.desc())
    )
    versions: dict[int, list[PairVersion]] = {}
    for row in rows:
        versions.setdefault(row.grant_id, []).append(PairVersion(row.consent, row.generation, sealed_pair(row)))
    return versions


def _create(connection: Connection, items: list[NewConsent], seal: Seal) -> set[str]:
    """Insert grants and their first pairs; return the creators that were inserted."""
    if not items:
        return set()
    ordered = sorted(items, key=lambda item: item.creator_id)
    statement = insert_unless_known(connection, GRANTS).returning(GRANTS.c.id, GRANTS.c.creator_id)
    rows = connection.execute(
        statement.values(created_at=now(), updated_at=now(), next_pull_at=now(), unproven_since=_UNPROVEN_SINCE),
        [
            _dates(item)
            | {
                "app_id": app_of(connection),
                "creator_id": item.creator_id,
                "consent": FIRST,
                "generation": FIRST,
                "pair_generation": FIRST,
                "status": GrantStatus.ACTIVE.value,
                "scope": item.scope,
                "reference": item.reference,
                "next_refresh_at": item.next_refresh_at,
                "jitter": item.jitter,
                "unproven": item.unproven,
            }
            | new_id
            for item, new_id in zip(ordered, _new_ids(connection, len(ordered)), strict=True)
        ],
    )
    made = {row.creator_id: row.id for row in rows}
    _add_pairs(
        connection, ((made[item.creator_id], item, FIRST, FIRST) for item in items if item.creator_id in made), seal
    )
    return set(made)


def _new_ids(connection: Connection, count: int) -> list[dict[str, int]]:
    """Return what gives grants ids that none ever had: a late answer to a forgotten one must not meet another.

    SQLite gives the largest id away again once its row is deleted; PostgreSQL counts on.
    """
    if connection.dialect.name != "sqlite":
        return [{}] * count
    used = [
        connection.execute(select(func.max(column))).scalar() or 0 for column in (GRANTS.c.id, TOMBSTONES.c.grant_id)
    ]
    return [{"id": max(used) + number} for number in range(1, count + 1)]


def _replace(connection: Connection, found: list[tuple[NewConsent, AnyRow]], seal: Seal) -> None:
    if not found:
        return
    ids = [row.id for _, row in found]
    connection.execute(
        update(PAIRS).where(PAIRS.c.grant_id.in_(ids), PAIRS.c.superseded_at.is_(None)).values(superseded_at=now())
    )
    connection.execute(
        _NEXT_CONSENT,
        [
            _dates(item)
            | {
                "of_app": app_of(connection),
                "grant_id": row.id,
                "next_consent": row.consent + 1,
                "next_generation": row.generation + 1,
                "new_scope": item.scope,
                "new_reference": item.reference,
                "due_at": item.next_refresh_at,
                "unproven": item.unproven,
            }
            for item, row in found
        ],
    )
    _add_pairs(connection, ((row.id, item, row.consent + 1, row.generation + 1) for item, row in found), seal)
    places = [(row.id, row.consent, row.pair_generation) for _, row in found]
    withdraw_requests(connection, places)
    lost = [place for place, (_, row) in zip(places, found, strict=True) if row.status == GrantStatus.NEEDS_REAUTH]
    if lost:
        announce_recovered(connection, lost)


def _announce_connected(connection: Connection, creator_ids: list[str]) -> None:
    """Write a notice for each of these creators, who have just authorized the app."""
    columns = (GRANTS.c.id, GRANTS.c.consent, GRANTS.c.scope, GRANTS.c.refresh_expires_at)
    for row in connection.execute(select(*columns).where(GRANTS.c.creator_id.in_(creator_ids))).all():
        again = "" if row.consent == FIRST else " again"
        insert_notice(
            connection,
            f"{CONNECTED}:{row.id}:{row.consent}",
            CONNECTED,
            f"the creator authorized the app{again}",
            grant_id=row.id,
            data={
                "consent": row.consent,
                "scopes": [scope for scope in row.scope.split(",") if scope],
                "ends_at": None if row.refresh_expires_at is None else iso_of(row.refresh_expires_at),
            },
        )


_UNPROVEN_SINCE: Final = case((bindparam("unproven", type_=Boolean), now()), else_=null())
_NEXT_CONSENT: Final = (
    update(GRANTS)
    .where(GRANTS.c.id == bindparam("grant_id"))
    .values(
        app_id=bindparam("of_app"),
        consent=bindparam("next_consent"),
        generation=bindparam("next_generation"),
        pair_generation=bindparam("next_generation"),
        status=GrantStatus.ACTIVE.value,
        scope=bindparam("new_scope"),
        reference=func.coalesce(bindparam("new_reference", type_=String), GRANTS.c.reference),
        issued_at=bindparam("issued_at"),
        access_expires_at=bindparam("access_expires_at"),
        refresh_expires_at=bindparam("refresh_expires_at"),
        next_refresh_at=bindparam("due_at"),
        failures=0,
        last_reason=None,
        pull_failures=0,
        next_pull_at=now(),
        unproven_since=_UNPROVEN_SINCE,
        belongs_to=None,
        ending_at=None,
        verdict=None,
        updated_at=now(),
    )
)


def _dates(item: NewConsent) -> dict[str, Any]:
    return {
        "issued_at": item.issued_at,
        "access_expires_at": item.access_expires_at,
        "refresh_expires_at": item.refresh_expires_at,
    }


def _add_pairs(connection: Connection, places: Iterator[tuple[int, NewConsent, int, int]], seal: Seal) -> None:
    pairs = []
    for grant_id, item, consent, generation in places:
        sealed = seal(item, consent, generation)
        pairs.append(
            _dates(item)
            | {
                "grant_id": grant_id,
                "consent": consent,
                "generation": generation,
                "sealed_access": sealed.sealed_access,
                "sealed_refresh": sealed.sealed_refresh,
                "key_id": sealed.key_id,
            }
        )
    if pairs:
        connection.execute(insert(PAIRS).values(stored_at=now()), pairs)
