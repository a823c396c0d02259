"""Notices to people and systems: each is written once, and kept until it was delivered.

A notice is written in the transaction of the event that it reports. The notifier then adds one row for each address
that wants its kind, with tries, failures and acceptance: an address that is away delays no other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, exists, func, literal, or_, select, text, update

from worker.store.clock import milliseconds, now
from worker.store.engine import Transactions, reads, writes
from worker.store.models import DELIVERIES, GRANTS, NOTICES, RECEIVERS, UNDELIVERED
from worker.store.rows import brake_state
from worker.store.saving import add_unless_known, insert_unless_known
from worker.store.values import DeliveryView, NoticeView, ReceiverState
from worker.vault.webhooks import new_message_id

REAUTH_NEEDED: Final = "reauth_needed"
HOLD_SECONDS: Final = 60.0
Kinds = frozenset[str] | None
"""The stored kinds that an address gets; None for all."""


class Notices(Transactions):
    """Messages that wait for delivery."""

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
    def route_notices(self, connection: Connection, wanted: Mapping[str, Kinds]) -> None:
        """Give each notice that no address has accepted yet a delivery for each address that wants its kind.

        A notice of a kind that no address wants counts as delivered.

        Args:
            connection: given by the decorator.
            wanted: for each address the kinds that it gets.
        """
        for address, kinds in wanted.items():
            known = exists().where(DELIVERIES.c.notice_id == NOTICES.c.id, DELIVERIES.c.address == address)
            fresh = select(NOTICES.c.id, literal(address), NOTICES.c.created_at).where(text(UNDELIVERED), ~known)
            if kinds is not None:
                fresh = fresh.where(NOTICES.c.kind.in_(kinds))
            columns = [DELIVERIES.c.notice_id, DELIVERIES.c.address, DELIVERIES.c.next_try_at]
            connection.execute(insert_unless_known(connection, DELIVERIES).from_select(columns, fresh))
        of_any = [kinds for kinds in wanted.values() if kinds is not None]
        if len(of_any) == len(wanted):
            unwanted = NOTICES.c.kind.not_in(frozenset[str]().union(*of_any))
            connection.execute(update(NOTICES).where(text(UNDELIVERED), unwanted).values(delivered_at=now()))

    @writes
    def claim_deliveries(self, connection: Connection, address: str, limit: int) -> list[tuple[NoticeView, int]]:
        """Return notices to post to an address now, oldest first, and reserve them for a while.

        Notices that the address did not accept come after those that it has not seen, so that one which it never
        accepts delays no other. Notices about creators wait while the app is stopped.

        Returns:
            Each notice, and how often the address has not accepted it.
        """
        due = (
            select(DELIVERIES.c.notice_id)
            .join_from(DELIVERIES, NOTICES, NOTICES.c.id == DELIVERIES.c.notice_id)
            .where(DELIVERIES.c.address == address, _OPEN, DELIVERIES.c.next_try_at <= now())
            .order_by(DELIVERIES.c.failures, DELIVERIES.c.next_try_at, DELIVERIES.c.notice_id)
            .limit(limit)
            .with_for_update(skip_locked=True, of=DELIVERIES)
        )
        if brake_state(connection).stopped:
            due = due.where(NOTICES.c.grant_id.is_(None))
        held = connection.execute(
            update(DELIVERIES)
            .where(DELIVERIES.c.address == address, DELIVERIES.c.notice_id.in_(due))
            .values(next_try_at=now() + milliseconds(HOLD_SECONDS))
            .returning(DELIVERIES.c.notice_id, DELIVERIES.c.failures)
        )
        failures = {row.notice_id: row.failures for row in held}
        _give_ids(connection, failures)
        views = _views(connection, NOTICES.c.id.in_(failures))
        return sorted(((view, failures[view.notice_id]) for view in views), key=lambda one: one[1])

    @writes
    def release_deliveries(self, connection: Connection, address: str, notice_ids: Collection[int]) -> None:
        """Let others post claimed notices that were not posted."""
        claimed = and_(DELIVERIES.c.address == address, DELIVERIES.c.notice_id.in_(notice_ids), _OPEN)
        connection.execute(update(DELIVERIES).where(claimed).values(next_try_at=now()))

    @writes
    def delivery_accepted(self, connection: Connection, notice_id: int, address: str) -> None:
        """Note that an address accepted a notice."""
        # The notice first, as where it is withdrawn: in another order the two could wait for each other.
        connection.execute(
            update(NOTICES).where(NOTICES.c.id == notice_id, text(UNDELIVERED)).values(delivered_at=now())
        )
        connection.execute(
            update(DELIVERIES).where(_is_delivery(notice_id, address)).values(delivered_at=now(), problem=None)
        )

    @writes
    def delivery_failed(
        self, connection: Connection, notice_id: int, address: str, *, problem: str, next_try_at: datetime
    ) -> None:
        """Note that an address did not accept a notice, why, and when it is posted again."""
        connection.execute(
            update(DELIVERIES)
            .where(_is_delivery(notice_id, address))
            .values(failures=DELIVERIES.c.failures + 1, next_try_at=next_try_at, problem=problem)
        )

    @reads
    def closed_receivers(self, connection: Connection) -> frozenset[str]:
        """Return the addresses that nothing is posted to now: those that are disabled, and those that asked to wait."""
        closed = or_(RECEIVERS.c.disabled_at.is_not(None), RECEIVERS.c.paused_until > now())
        return frozenset(connection.execute(select(RECEIVERS.c.address).where(closed)).scalars())

    @writes
    def pause_receiver(self, connection: Connection, address: str, until: datetime) -> None:
        """Post nothing to an address until a time."""
        if not add_unless_known(connection, RECEIVERS, address=address, paused_until=until):
            connection.execute(update(RECEIVERS).where(RECEIVERS.c.address == address).values(paused_until=until))

    @writes
    def disable_receiver(self, connection: Connection, address: str, detail: str) -> bool:
        """Post nothing to an address until it is enabled, and write the one alarm; return False if it was disabled."""
        add_unless_known(connection, RECEIVERS, address=address)
        disabled_at = connection.execute(
            update(RECEIVERS)
            .where(RECEIVERS.c.address == address, RECEIVERS.c.disabled_at.is_(None))
            .values(disabled_at=now())
            .returning(RECEIVERS.c.disabled_at)
        ).scalar()
        if disabled_at is None:
            return False
        key = f"{ADDRESS_DISABLED}:{address}:{disabled_at.isoformat()}"
        return insert_notice(connection, key, ADDRESS_DISABLED, detail)

    @writes
    def enable_receiver(self, connection: Connection, address: str, detail: str) -> bool:
        """Post to a disabled address again, and write the all-clear; return False if it was not disabled."""
        row = connection.execute(
            select(RECEIVERS.c.disabled_at).where(RECEIVERS.c.address == address).with_for_update()
        ).first()
        if row is None or row.disabled_at is None:
            return False
        connection.execute(
            update(RECEIVERS).where(RECEIVERS.c.address == address).values(disabled_at=None, paused_until=None)
        )
        key = f"{ADDRESS_ENABLED}:{address}:{row.disabled_at.isoformat()}"
        return insert_notice(connection, key, ADDRESS_ENABLED, detail)

    @writes
    def resend(self, connection: Connection, notice_id: int, addresses: Collection[str]) -> int:
        """Post a notice again, under its id; return for how many addresses it was not about to be posted already."""
        soon = now() + milliseconds(HOLD_SECONDS)
        again = 0
        for address in addresses:
            if add_unless_known(
                connection, DELIVERIES, notice_id=notice_id, address=address, next_try_at=now(), failures=0
            ):
                again += 1
                continue
            # What is due within the hold may be on its way at this moment.
            idle = or_(DELIVERIES.c.delivered_at.is_not(None), DELIVERIES.c.next_try_at > soon)
            again += connection.execute(
                update(DELIVERIES)
                .where(_is_delivery(notice_id, address), idle)
                .values(next_try_at=now(), failures=0, delivered_at=None, problem=None)
            ).rowcount
        return again

    @reads
    def notices(
        self,
        connection: Connection,
        *,
        kinds: Kinds = None,
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
        return _views(connection, *wanted, newest_first=True, limit=limit)

    @reads
    def notice(self, connection: Connection, name: str) -> NoticeView | None:
        """Return the notice with this message id, or with this number; None if there is none."""
        is_it = NOTICES.c.message_id == name
        if name.isascii() and name.isdigit() and len(name) <= LONGEST_NUMBER:
            is_it = or_(is_it, NOTICES.c.id == int(name))
        return next(iter(_views(connection, is_it)), None)

    @reads
    def deliveries(self, connection: Connection, notice_ids: Collection[int]) -> list[DeliveryView]:
        """Return the deliveries of notices, by address."""
        rows = select(DELIVERIES).where(DELIVERIES.c.notice_id.in_(notice_ids)).order_by(DELIVERIES.c.address)
        return [DeliveryView(**row._mapping) for row in connection.execute(rows)]  # noqa: SLF001 - the documented way to a row's columns by name

    @reads
    def receivers(self, connection: Connection, addresses: Sequence[str]) -> dict[str, ReceiverState]:
        """Return what each of these addresses has asked for, and what waits for it."""
        states = {row.address: row for row in connection.execute(select(RECEIVERS))}
        waiting = {
            row.address: row
            for row in connection.execute(
                select(DELIVERIES.c.address, func.count().label("waiting"), func.min(NOTICES.c.created_at).label("at"))
                .join_from(DELIVERIES, NOTICES, NOTICES.c.id == DELIVERIES.c.notice_id)
                .where(_OPEN, DELIVERIES.c.address.in_(addresses))
                .group_by(DELIVERIES.c.address)
            )
        }
        return {
            address: ReceiverState(
                paused_until=states[address].paused_until if address in states else None,
                disabled_at=states[address].disabled_at if address in states else None,
                waiting=waiting[address].waiting if address in waiting else 0,
                oldest_at=waiting[address].at if address in waiting else None,
            )
            for address in addresses
        }

    @reads
    def notice_waits(self, connection: Connection, addresses: Sequence[str]) -> float:
        """Return for how many seconds the oldest notice has waited, for one of these addresses or for any; 0 if none.

        What waits because the app is stopped is left out.
        """
        open_one = exists().where(DELIVERIES.c.notice_id == NOTICES.c.id, _OPEN, DELIVERIES.c.address.in_(addresses))
        oldest = select(func.min(NOTICES.c.created_at), now()).where(or_(text(f"notices.{UNDELIVERED}"), open_one))
        if brake_state(connection).stopped:
            oldest = oldest.where(NOTICES.c.grant_id.is_(None))
        at, current = connection.execute(oldest).one()
        return 0.0 if at is None else max(0.0, (current - at).total_seconds())

    @reads
    def undelivered_notices(self, connection: Connection, limit: int = 100) -> list[NoticeView]:
        """Return notices that no address has accepted yet, oldest first, without holding them."""
        return _views(connection, text(f"notices.{UNDELIVERED}"), limit=limit)

    @reads
    def undelivered_count(self, connection: Connection) -> int:
        """Return how many notices no address has accepted yet."""
        return connection.execute(select(func.count()).select_from(NOTICES).where(text(UNDELIVERED))).scalar_one()


_OPEN: Final = DELIVERIES.c.delivered_at.is_(None)
ADDRESS_DISABLED: Final = "address_disabled"
ADDRESS_ENABLED: Final = "address_enabled"
LONGEST_NUMBER: Final = 18


def insert_notice(
    connection: Connection,
    dedupe_key: str,
    kind: str,
    detail: str,
    *,
    grant_id: int | None = None,
    data: Mapping[str, Any] | None = None,
) -> bool:
    """Write a notice within a transaction unless one with this key exists; return True if it is new."""
    return add_unless_known(
        connection,
        NOTICES,
        dedupe_key=dedupe_key,
        message_id=new_message_id(),
        kind=kind,
        grant_id=grant_id,
        detail=detail,
        data=None if data is None else dict(data),
        created_at=now(),
        next_try_at=now(),
    )


def _is_delivery(notice_id: int, address: str) -> ColumnElement[bool]:
    return and_(DELIVERIES.c.notice_id == notice_id, DELIVERIES.c.address == address)


def _give_ids(connection: Connection, notice_ids: Collection[int]) -> None:
    """Give ids to notices that the previous version wrote."""
    nameless = select(NOTICES.c.id).where(NOTICES.c.id.in_(notice_ids), NOTICES.c.message_id.is_(None))
    for notice_id in connection.execute(nameless).scalars().all():
        # Another address may have given it one meanwhile.
        connection.execute(
            update(NOTICES)
            .where(NOTICES.c.id == notice_id, NOTICES.c.message_id.is_(None))
            .values(message_id=new_message_id())
        )


def _views(
    connection: Connection, *wanted: ColumnElement[bool] | Any, newest_first: bool = False, limit: int | None = None
) -> list[NoticeView]:
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
