"""What the running processes share: the brake that stops the whole app, and who is there."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from worker.store.clock import milliseconds, now
from worker.store.engine import Transactions, reads, writes
from worker.store.keys import keys_in_turn
from worker.store.models import BRAKE, SENTINELS, WORKERS
from worker.store.notices import insert_notice
from worker.store.reports import BrakeState, WorkerView
from worker.store.saving import add_unless_known

APP_STOPPED = "app_stopped"


class Operations(Transactions):
    """The brake and the register of processes."""

    @reads
    def brake(self, connection: Connection) -> BrakeState:
        """Return whether refreshing is stopped for the whole app."""
        row = connection.execute(select(BRAKE.c.reason, BRAKE.c.stopped_at, BRAKE.c.next_probe_at)).first()
        return BrakeState(None, None, None) if row is None else BrakeState(*row)

    def may_refresh(self, *, probe_seconds: float) -> bool:
        """Return True where a refresh may go ahead: the brake is off, or this call has won the next probe.

        Args:
            probe_seconds: time until another probe may be won.
        """
        return not self.brake().stopped or self._win_probe(probe_seconds)

    @writes
    def _win_probe(self, connection: Connection, probe_seconds: float) -> bool:
        won = connection.execute(
            update(BRAKE)
            .where(BRAKE.c.reason.is_not(None), BRAKE.c.next_probe_at <= now())
            .values(next_probe_at=now() + milliseconds(probe_seconds))
        )
        return won.rowcount == 1 or connection.execute(select(BRAKE.c.reason)).scalar() is None

    @writes
    def pull_brake(self, connection: Connection, reason: str, *, probe_seconds: float) -> bool:
        """Stop refreshing for the whole app and write the one alarm, unless it is stopped already.

        Args:
            connection: given by the decorator.
            reason: why, as safe text.
            probe_seconds: time until the first probe.

        Returns:
            True where this call stopped it.
        """
        add_unless_known(connection, BRAKE, id=1)
        stopped_at = connection.execute(
            update(BRAKE)
            .where(BRAKE.c.reason.is_(None))
            .values(reason=reason, stopped_at=now(), next_probe_at=now() + milliseconds(probe_seconds))
            .returning(BRAKE.c.stopped_at)
        ).scalar()
        if stopped_at is None:
            return False
        insert_notice(connection, f"{APP_STOPPED}:{stopped_at.isoformat()}", APP_STOPPED, reason)
        return True

    def release_brake(self) -> bool:
        """Let refreshing go on; return True where it was stopped."""
        return self.brake().stopped and self._let_go()

    @writes
    def _let_go(self, connection: Connection) -> bool:
        let_go = update(BRAKE).where(BRAKE.c.reason.is_not(None))
        return bool(connection.execute(let_go.values(reason=None, stopped_at=None, next_probe_at=None)).rowcount == 1)

    @writes
    def hello(
        self,
        connection: Connection,
        instance_id: str,
        *,
        host: str,
        pid: int,
        key_ids: Collection[int],
        sealing_key_id: int | None = None,
        journal_key_ids: Collection[int] = (),
        journal_replayed: bool = False,
    ) -> frozenset[int]:
        """Say that a process of the daemon is there; said again and again, it keeps `started_at`.

        A process that lacks a key that seals is not taken on the list, since it could not read what others write.

        Args:
            connection: given by the decorator.
            instance_id: a name that no other process ever has.
            host: its host.
            pid: its process id.
            key_ids: ids of the sealing keys that it holds.
            sealing_key_id: the one that it seals with.
            journal_key_ids: keys of the records that wait in its host's journal.
            journal_replayed: True where it has just replayed its host's journal.

        Returns:
            The keys that seal and that it lacks; empty where it is on the list.
        """
        keys_in_turn(connection)
        lacking = frozenset(connection.execute(select(SENTINELS.c.key_id)).scalars()) - frozenset(key_ids)
        if lacking:
            connection.execute(delete(WORKERS).where(WORKERS.c.instance_id == instance_id))
            return lacking
        said: dict[str, Any] = {
            "host": host,
            "pid": pid,
            "last_seen_at": now(),
            "key_ids": _listed(key_ids),
            "sealing_key_id": sealing_key_id,
            "journal_key_ids": _listed(journal_key_ids),
        }
        if journal_replayed:
            said["journal_replayed_at"] = now()
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        connection.execute(
            insert(WORKERS)
            .values(instance_id=instance_id, started_at=now(), **said)
            .on_conflict_do_update(index_elements=[WORKERS.c.instance_id], set_=said)
        )
        return lacking

    @writes
    def goodbye(self, connection: Connection, instance_id: str) -> None:
        """Say that a process of the daemon ends."""
        connection.execute(delete(WORKERS).where(WORKERS.c.instance_id == instance_id))

    @reads
    def workers_seen(self, connection: Connection, within_seconds: float) -> list[WorkerView]:
        """Return the processes that said they are there within the last seconds, by name."""
        seen = (
            select(WORKERS)
            .where(WORKERS.c.last_seen_at > now() - milliseconds(within_seconds))
            .order_by(WORKERS.c.instance_id)
        )
        return [
            WorkerView(
                instance_id=row.instance_id,
                host=row.host,
                pid=row.pid,
                started_at=row.started_at,
                last_seen_at=row.last_seen_at,
                key_ids=_read(row.key_ids),
                journal_replayed_at=row.journal_replayed_at,
                sealing_key_id=row.sealing_key_id,
                journal_key_ids=_read(row.journal_key_ids or ""),
            )
            for row in connection.execute(seen)
        ]


def _listed(key_ids: Collection[int]) -> str:
    return ",".join(str(key_id) for key_id in sorted(key_ids))


def _read(listed: str) -> frozenset[int]:
    return frozenset(int(key_id) for key_id in listed.split(",") if key_id)
