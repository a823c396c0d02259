"""What the running processes share: the brake that stops the whole app, beat's last tick, and the process list."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, delete, func, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from worker.store.clock import milliseconds, now
from worker.store.engine import Transactions, reads, writes
from worker.store.keys import keys_in_turn
from worker.store.models import ATTEMPTS, BEAT, BRAKE, FINISHED, GRANTS, NOTICES, SENTINELS, WORKERS
from worker.store.outbox import add_unless_known, insert_notice
from worker.store.rows import app_of, brake_state, brakes_app, is_of_app
from worker.store.values import BrakeState, GrantStatus, WorkerView

APP_STOPPED = "app_stopped"
APP_RESUMED = "app_resumed"
REFUSALS_HELD = "refusals_held"
REFUSALS_OVER = "refusals_over"
REFRESHES_IDLE = "refreshes_idle"
REFRESHES_GO_ON = "refreshes_go_on"

AHEAD_SECONDS = 60.0
"""A time that lies ahead by more than this was not taken from the clock as it stands."""


class Operations(Transactions):
    """The brake and the register of processes."""

    @reads
    def brake(self, connection: Connection) -> BrakeState:
        """Return whether refreshing is stopped for the whole app."""
        return brake_state(connection)

    def may_refresh(self, *, probe_seconds: float) -> bool:
        """Return True if a refresh may go ahead: the brake is off, or this call has won the next probe.

        Args:
            probe_seconds: time until another probe may be won.
        """
        return not self.brake().stopped or self._win_probe(probe_seconds)

    @writes
    def _win_probe(self, connection: Connection, probe_seconds: float) -> bool:
        won = connection.execute(
            update(BRAKE)
            .where(brakes_app(connection), BRAKE.c.reason.is_not(None), BRAKE.c.next_probe_at <= now())
            .values(next_probe_at=now() + milliseconds(probe_seconds))
        )
        return won.rowcount == 1 or not brake_state(connection).stopped

    @writes
    def pull_brake(self, connection: Connection, reason: str, *, probe_seconds: float) -> bool:
        """Stop refreshing for the whole app, unless it is stopped already.

        One alarm is written, unless the last alarm has had no all-clear yet: then it is the same trouble.

        Args:
            connection: given by the decorator.
            reason: why, as safe text.
            probe_seconds: time until the first probe.

        Returns:
            True if this call stopped it.
        """
        _take_brake(connection)
        stopped_at = connection.execute(
            update(BRAKE)
            .where(BRAKE.c.reason.is_(None))
            .values(reason=reason, stopped_at=now(), next_probe_at=now() + milliseconds(probe_seconds))
            .returning(BRAKE.c.stopped_at)
        ).scalar()
        if stopped_at is None:
            return False
        if _open_alarm(connection, APP_STOPPED, APP_RESUMED) is None:
            insert_notice(connection, f"{APP_STOPPED}:{stopped_at.isoformat()}", APP_STOPPED, reason)
        return True

    def release_brake(self) -> bool:
        """Release the brake; return True if refreshing was stopped."""
        return self.brake().stopped and self._release()

    @writes
    def _release(self, connection: Connection) -> bool:
        values = {"reason": None, "stopped_at": None, "next_probe_at": None, "released_at": now()}
        released = connection.execute(
            update(BRAKE).where(brakes_app(connection), BRAKE.c.reason.is_not(None)).values(**values)
        )
        return bool(released.rowcount == 1)

    @writes
    def announce_resumed(self, connection: Connection, *, after_seconds: float) -> bool:
        """Write the all-clear of a stop that has been over for some seconds; return True if there was one to write."""
        quiet = or_(BRAKE.c.released_at.is_(None), BRAKE.c.released_at <= now() - milliseconds(after_seconds))
        alarm = _open_alarm(connection, APP_STOPPED, APP_RESUMED)
        freed = select(BRAKE.c.id).where(brakes_app(connection), BRAKE.c.reason.is_(None), quiet)
        over = connection.execute(freed).first() is not None
        if alarm is None or not over:
            return False
        return insert_notice(connection, f"{APP_RESUMED}:{alarm}", APP_RESUMED, "refreshing goes on for all")

    @writes
    def begin_hold(self, connection: Connection, reason: str) -> bool:
        """Begin a hold, in which no creator is asked to authorize again; write one alarm; return True if it is new."""
        _take_brake(connection)
        held_at = connection.execute(
            update(BRAKE)
            .where(BRAKE.c.held_reason.is_(None))
            .values(held_reason=reason, held_at=now())
            .returning(BRAKE.c.held_at)
        ).scalar()
        return held_at is not None and insert_notice(
            connection, f"{REFUSALS_HELD}:{held_at.isoformat()}", REFUSALS_HELD, reason
        )

    def end_hold(self, *, fewest: int) -> bool:
        """End the hold if fewer grants than this are suspect, and write its all-clear; return True if it ended."""
        return self.brake().held_reason is not None and self._end_hold(fewest)

    @writes
    def _end_hold(self, connection: Connection, fewest: int) -> bool:
        suspects = select(GRANTS.c.id).where(is_of_app(connection), GRANTS.c.status == GrantStatus.SUSPECT.value)
        left = connection.execute(select(func.count()).select_from(suspects.limit(fewest).subquery())).scalar_one()
        if left >= fewest:
            return False
        held = (
            update(BRAKE)
            .where(brakes_app(connection), BRAKE.c.held_reason.is_not(None))
            .values(held_reason=None, held_at=None)
        )
        alarm = _open_alarm(connection, REFUSALS_HELD, REFUSALS_OVER)
        if connection.execute(held).rowcount != 1:
            return False
        detail = f"{left} suspect grants are left, and each is tried again" if left else "no grant is suspect"
        insert_notice(connection, f"{REFUSALS_OVER}:{alarm}", REFUSALS_OVER, detail)
        return True

    @reads
    def attempted(self, connection: Connection, *, within_seconds: float) -> bool:
        """Return whether an attempt of any grant ended within the last seconds."""
        since = now() - milliseconds(within_seconds)
        ended = select(ATTEMPTS.c.grant_id).where(text(FINISHED), ATTEMPTS.c.finished_at > since)
        return connection.execute(ended.limit(1)).first() is not None

    @writes
    def note_idleness(self, connection: Connection, detail: str | None) -> bool:
        """Write the alarm that due grants are not refreshed, or its all-clear, once each.

        Args:
            connection: given by the decorator.
            detail: what was found; None if refreshes go on.

        Returns:
            True if there was something to write.
        """
        alarm = _open_alarm(connection, REFRESHES_IDLE, REFRESHES_GO_ON)
        if (alarm is None) is (detail is None):
            return False
        if detail is None:
            return insert_notice(
                connection, f"{REFRESHES_GO_ON}:{alarm}", REFRESHES_GO_ON, "grants are refreshed again"
            )
        stamp = connection.execute(select(now())).scalar_one().isoformat()
        return insert_notice(connection, f"{REFRESHES_IDLE}:{stamp}", REFRESHES_IDLE, detail)

    @writes
    def note_tick(self, connection: Connection) -> None:
        """Note that a message from beat reached a worker now."""
        if not add_unless_known(connection, BEAT, id=1, ticked_at=now()):
            connection.execute(update(BEAT).values(ticked_at=now()))

    @reads
    def tick_age(self, connection: Connection) -> float | None:
        """Return the seconds since beat's last message reached a worker, on the database's clock; None if none did.

        Infinite if that time lies ahead: the database's clock was set back, and no message has come since.
        """
        row = connection.execute(select(BEAT.c.ticked_at, now())).first()
        if row is None:
            return None
        age = (row[1] - row[0]).total_seconds()
        return math.inf if age < -AHEAD_SECONDS else max(0.0, age)

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
    ) -> frozenset[int]:
        """Note that a process of the daemon is alive; repeated calls keep its `started_at`.

        A process that lacks a key in use is not put on the list, since it could not read what others write.

        Args:
            connection: given by the decorator.
            instance_id: a name that no other process ever has.
            host: its host.
            pid: its process id.
            key_ids: ids of the sealing keys that it holds.
            sealing_key_id: the key that it seals with.
            journal_key_ids: keys of the records that wait in its host's journal.

        Returns:
            The keys in use that it lacks; empty if it is on the list.
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
            "namespace": self._namespace or "",
        }
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        connection.execute(
            insert(WORKERS)
            .values(instance_id=instance_id, started_at=now(), **said)
            .on_conflict_do_update(index_elements=[WORKERS.c.instance_id], set_=said)
        )
        return lacking

    @writes
    def goodbye(self, connection: Connection, instance_id: str) -> None:
        """Remove a process of the daemon from the list, because it ends."""
        connection.execute(delete(WORKERS).where(WORKERS.c.instance_id == instance_id))

    @reads
    def workers_seen(self, connection: Connection, within_seconds: float) -> list[WorkerView]:
        """Return the processes that reported within the last seconds, by name."""
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
                sealing_key_id=row.sealing_key_id,
                journal_key_ids=_read(row.journal_key_ids or ""),
                namespace=row.namespace,
            )
            for row in connection.execute(seen)
        ]


def _open_alarm(connection: Connection, begin: str, end: str) -> int | None:
    """Return the id of the newest notice of the kind `begin` if no notice of the kind `end` followed it."""
    newest = select(NOTICES.c.id, NOTICES.c.kind).where(NOTICES.c.kind.in_((begin, end))).order_by(NOTICES.c.id.desc())
    row = connection.execute(newest.limit(1)).first()
    return None if row is None or row.kind == end else int(row.id)


def _take_brake(connection: Connection) -> None:
    """Make this app the owner of the only row; the state of another app's brake does not matter here."""
    add_unless_known(connection, BRAKE, id=1, app_id=app_of(connection))
    connection.execute(
        update(BRAKE)
        .where(~brakes_app(connection))
        .values(
            app_id=app_of(connection),
            reason=None,
            stopped_at=None,
            next_probe_at=None,
            released_at=None,
            held_reason=None,
            held_at=None,
        )
    )


def _listed(key_ids: Collection[int]) -> str:
    return ",".join(str(key_id) for key_id in sorted(key_ids))


def _read(listed: str) -> frozenset[int]:
    return frozenset(int(key_id) for key_id in listed.split(",") if key_id)
