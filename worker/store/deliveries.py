"""Notices on their way: each address that wants a notice has a row of its own for it.

Tries, failures and acceptance stand in that row, so an address that is away delays no other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, exists, func, literal, or_, select, text, update

from worker.store.clock import milliseconds, now
from worker.store.engine import Transactions, reads, writes
from worker.store.models import DELIVERIES, NOTICES, RECEIVERS, UNDELIVERED
from worker.store.notices import notice_views
from worker.store.outbox import add_unless_known, insert_notice, insert_unless_known
from worker.store.rows import brake_state
from worker.store.values import DeliveryView, NoticeView, ReceiverState
from worker.vault.webhooks import new_message_id

Kinds = frozenset[str] | None
"""The stored kinds that an address gets; None for all."""
HOLD_SECONDS: Final = 60.0
ADDRESS_DISABLED: Final = "address_disabled"
ADDRESS_ENABLED: Final = "address_enabled"
_OPEN: Final = DELIVERIES.c.delivered_at.is_(None)


class Deliveries(Transactions):
    """Deliveries of notices, and what the addresses have asked for."""

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
        """Claim notices to post to an address now, oldest first; for `HOLD_SECONDS` no other process posts them.

        Notices that the address did not accept come last, so that one which it never accepts delays no other. Notices
        about creators wait while the app is stopped.

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
        views = notice_views(connection, NOTICES.c.id.in_(failures))
        return sorted(((view, failures[view.notice_id]) for view in views), key=lambda one: one[1])

    @writes
    def release_deliveries(self, connection: Connection, address: str, notice_ids: Collection[int]) -> None:
        """Release claimed notices that were not posted."""
        claimed = and_(DELIVERIES.c.address == address, DELIVERIES.c.notice_id.in_(notice_ids), _OPEN)
        connection.execute(update(DELIVERIES).where(claimed).values(next_try_at=now()))

    @writes
    def delivery_accepted(self, connection: Connection, notice_id: int, address: str) -> None:
        """Note that an address accepted a notice."""
        # The notice first, in the order of `withdraw_requests`: in another order the two could deadlock.
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

    @writes
    def resend(self, connection: Connection, notice_id: int, addresses: Collection[str]) -> int:
        """Make a notice due again, under its id; return for how many addresses it was not due already."""
        soon = now() + milliseconds(HOLD_SECONDS)
        again = 0
        for address in addresses:
            if add_unless_known(
                connection, DELIVERIES, notice_id=notice_id, address=address, next_try_at=now(), failures=0
            ):
                again += 1
                continue
            # What is due within `HOLD_SECONDS` may be claimed at this moment.
            idle = or_(DELIVERIES.c.delivered_at.is_not(None), DELIVERIES.c.next_try_at > soon)
            again += connection.execute(
                update(DELIVERIES)
                .where(_is_delivery(notice_id, address), idle)
                .values(next_try_at=now(), failures=0, delivered_at=None, problem=None)
            ).rowcount
        return again

    @reads
    def deliveries(self, connection: Connection, notice_ids: Collection[int]) -> list[DeliveryView]:
        """Return the deliveries of notices, by address."""
        rows = select(DELIVERIES).where(DELIVERIES.c.notice_id.in_(notice_ids)).order_by(DELIVERIES.c.address)
        return [DeliveryView(**row._mapping) for row in connection.execute(rows)]  # noqa: SLF001 - the documented way to a row's columns by name

    @reads
    def closed_receivers(self, connection: Connection) -> frozenset[str]:
        """Return the addresses to which nothing is posted now, because they are disabled or asked to wait."""
        closed = or_(RECEIVERS.c.disabled_at.is_not(None), RECEIVERS.c.paused_until > now())
        return frozenset(connection.execute(select(RECEIVERS.c.address).where(closed)).scalars())

    @writes
    def pause_receiver(self, connection: Connection, address: str, until: datetime) -> None:
        """Pause an address: nothing is posted to it until this time."""
        if not add_unless_known(connection, RECEIVERS, address=address, paused_until=until):
            connection.execute(update(RECEIVERS).where(RECEIVERS.c.address == address).values(paused_until=until))

    @writes
    def disable_receiver(self, connection: Connection, address: str, detail: str) -> bool:
        """Disable an address until it is enabled, and write one alarm; return False if it was disabled already."""
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
        """Enable a disabled address, and write the all-clear; return False if it was not disabled."""
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

    @reads
    def receivers(self, connection: Connection, addresses: Sequence[str]) -> dict[str, ReceiverState]:
        """Return what each of these addresses has asked for, and what waits for it."""
        stored = {row.address: row for row in connection.execute(select(RECEIVERS))}
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
                paused_until=stored[address].paused_until if address in stored else None,
                disabled_at=stored[address].disabled_at if address in stored else None,
                waiting=waiting[address].waiting if address in waiting else 0,
                oldest_at=waiting[address].at if address in waiting else None,
            )
            for address in addresses
        }


def _is_delivery(notice_id: int, address: str) -> ColumnElement[bool]:
    return and_(DELIVERIES.c.notice_id == notice_id, DELIVERIES.c.address == address)


def _give_ids(connection: Connection, notice_ids: Collection[int]) -> None:
    """Give message ids to notices that an older version wrote without one."""
    nameless = select(NOTICES.c.id).where(NOTICES.c.id.in_(notice_ids), NOTICES.c.message_id.is_(None))
    for notice_id in connection.execute(nameless).scalars().all():
        # A claim for another address may have given it one since the SELECT.
        connection.execute(
            update(NOTICES)
            .where(NOTICES.c.id == notice_id, NOTICES.c.message_id.is_(None))
            .values(message_id=new_message_id())
        )
