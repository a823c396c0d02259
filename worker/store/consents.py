"""Storing consents: exchanged codes and imported pairs become grants, many in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    String,
    bindparam,
    case,
    delete,
    func,
    insert,
    null,
    select,
    text,
    update,
)

from worker.store.clock import now
from worker.store.engine import Transactions, writes
from worker.store.models import ATTEMPTS, GRANTS, NOTICES, PAIRS
from worker.store.predicates import UNRESOLVED
from worker.store.rows import AnyRow, lease_is_free
from worker.store.saving import insert_unless_known, reauth_key
from worker.store.values import ConsentResult, GrantStatus, NewConsent
from worker.vault.sealing import SealedPair

Seal = Callable[[NewConsent, int, int], SealedPair]
"""Seals the pair of a consent to its place: the item, its consent and its generation. It does no input or output."""
FIRST: Final = 1


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
        newer_only: bool = False,
    ) -> list[ConsentResult]:
        """Store consents in one transaction; a few hundred at a time are fast and hold no lock for long.

        A replaced grant gets the next consent and generation and is active. What an attempt of the older consent still
        brings is kept, and never becomes current; its lease runs out by itself, so that the new pair is not refreshed
        while that attempt is under way.

        Args:
            connection: given by the decorator.
            items: what to store. Of several with the same creator the first counts; with `replace` the last.
            seal: seals an item's pair; it may be called again where the transaction is tried again.
            replace: True to replace the consent of creators who are known.
            newer_only: True to replace only what is surely older than the item, so that an old file never takes the
                place of a living pair: not a pair issued at the same time or later, nothing by an item without a
                sure date, and no grant with a refresh under way or with one in doubt that was sent after the item
                was issued.

        Returns:
            One result for each item, in the same order.
        """
        results = [ConsentResult.SKIPPED] * len(items)
        chosen: dict[str, int] = {}
        for place, item in enumerate(items):
            if replace or item.creator_id not in chosen:
                chosen[item.creator_id] = place
        known = _lock_known(connection, list(chosen))
        fresh = [items[place] for creator_id, place in chosen.items() if creator_id not in known]
        created = _create(connection, fresh, seal)
        for creator_id in created:
            results[chosen[creator_id]] = ConsentResult.CREATED
        if replace:
            # A creator who came from somewhere else between the look and the insert is known now.
            known |= _lock_known(connection, [item.creator_id for item in fresh if item.creator_id not in created])
            found = [(items[chosen[creator_id]], row) for creator_id, row in known.items()]
            verdicts = [_may_replace(item, row) if newer_only else ConsentResult.REPLACED for item, row in found]
            taken = [pair for pair, verdict in zip(found, verdicts, strict=True) if verdict is ConsentResult.REPLACED]
            _replace(connection, taken, seal)
            for (item, _), verdict in zip(found, verdicts, strict=True):
                results[chosen[item.creator_id]] = verdict
        return results


def _lock_known(connection: Connection, creator_ids: list[str]) -> dict[str, AnyRow]:
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
    rows = connection.execute(
        select(
            GRANTS.c.id,
            GRANTS.c.creator_id,
            GRANTS.c.consent,
            GRANTS.c.generation,
            GRANTS.c.pair_generation,
            GRANTS.c.issued_at,
            lease_is_free().label("free"),
            in_doubt_since.label("in_doubt_since"),
        )
        .where(GRANTS.c.creator_id.in_(creator_ids))
        .order_by(GRANTS.c.id)
        .with_for_update(key_share=True)
    )
    return {row.creator_id: row for row in rows}


def _may_replace(item: NewConsent, row: AnyRow) -> ConsentResult:
    """Return REPLACED where the item is surely newer than all that is stored or under way, else why not."""
    if not item.dated:
        return ConsentResult.UNDATED
    if item.issued_at <= row.issued_at:
        return ConsentResult.SKIPPED
    if not row.free or (row.in_doubt_since is not None and item.issued_at <= row.in_doubt_since):
        return ConsentResult.BUSY
    return ConsentResult.REPLACED


def _create(connection: Connection, items: list[NewConsent], seal: Seal) -> set[str]:
    """Insert grants and their first pairs; return the creators that were inserted."""
    if not items:
        return set()
    statement = insert_unless_known(connection, GRANTS).returning(GRANTS.c.id, GRANTS.c.creator_id)
    rows = connection.execute(
        statement.values(
            created_at=now(), updated_at=now(), next_pull_at=_now_if("pull"), unproven_since=_now_if("unproven")
        ),
        [
            _dates(item)
            | {
                "creator_id": item.creator_id,
                "consent": FIRST,
                "generation": FIRST,
                "pair_generation": FIRST,
                "status": GrantStatus.ACTIVE.value,
                "scope": item.scope,
                "reference": item.reference,
                "next_refresh_at": item.next_refresh_at,
                "jitter": item.jitter,
                "pull": item.pull,
                "unproven": item.unproven,
            }
            for item in sorted(items, key=lambda item: item.creator_id)
        ],
    )
    ids = {row.creator_id: row.id for row in rows}
    _add_pairs(
        connection, ((ids[item.creator_id], item, FIRST, FIRST) for item in items if item.creator_id in ids), seal
    )
    return set(ids)


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
                "grant_id": row.id,
                "next_consent": row.consent + 1,
                "next_generation": row.generation + 1,
                "new_scope": item.scope,
                "new_reference": item.reference,
                "due_at": item.next_refresh_at,
                "pull": item.pull,
                "unproven": item.unproven,
            }
            for item, row in found
        ],
    )
    _add_pairs(connection, ((row.id, item, row.consent + 1, row.generation + 1) for item, row in found), seal)
    keys = [reauth_key(row.id, row.consent, row.pair_generation) for _, row in found]
    connection.execute(delete(NOTICES).where(NOTICES.c.dedupe_key.in_(keys), NOTICES.c.delivered_at.is_(None)))


def _now_if(wish: str) -> ColumnElement[Any]:
    return case((bindparam(wish, type_=Boolean), now()), else_=null())


_NEXT_CONSENT: Final = (
    update(GRANTS)
    .where(GRANTS.c.id == bindparam("grant_id"))
    .values(
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
        next_pull_at=_now_if("pull"),
        unproven_since=_now_if("unproven"),
        belongs_to=None,
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
