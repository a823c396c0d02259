"""The due scan: order, fair shares, and reading by index only what it returns."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from worker.policy.verdicts import AttemptOutcome

if TYPE_CHECKING:
    from tests.store.conftest import Fleet

HOUR = timedelta(hours=1)


def _names(fleet: Fleet, limit: int = 100) -> list[str]:
    return [fleet.store.grant_by_id(found.grant_id).creator_id for found in fleet.store.due(limit)]


def _fail(fleet: Fleet, creator_id: str) -> None:
    claim = fleet.claim(fleet.store.grant(creator_id).grant_id)
    fleet.store.release(
        claim, outcome=AttemptOutcome.NOT_SENT, next_refresh_at=fleet.soon(0), reason="no way out", failed=True
    )


@pytest.fixture(params=["few", "crowd"])
def way(request: pytest.FixtureRequest, fleet: Fleet) -> str:
    """Both ways of reading must give the same order: sorting few in memory, and walking a crowd by its index."""
    if request.param == "crowd":
        fleet.store.few = 0
    return str(request.param)


def test_least_time_left_goes_first(fleet: Fleet, way: str) -> None:
    """What ends within minutes goes first, what has ended already comes next, then the rest by time left."""
    now = fleet.store.ping()
    ends: dict[str, datetime] = {
        "in five hours": now + 5 * HOUR,
        "an hour ago": now - HOUR,
        "in two minutes": now + timedelta(minutes=2),
        "in an hour": now + HOUR,
        "two hours ago": now - 2 * HOUR,
        "in eight minutes": now + timedelta(minutes=8),
    }
    for name, end in ends.items():
        fleet.add(name, access_expires_at=end)

    expected = [
        "in two minutes",
        "in eight minutes",
        "two hours ago",
        "an hour ago",
        "in an hour",
        "in five hours",
    ]
    assert _names(fleet) == expected
    assert _names(fleet, 3) == expected[:3]


def test_what_is_not_due_or_leased_or_ended_is_left_out(fleet: Fleet, way: str) -> None:
    """A grant is due while its window has begun, it is active, and no lease is held."""
    fleet.add("due")
    fleet.add("later", next_refresh_at=fleet.soon(3600))
    fleet.claim(fleet.add("leased").grant_id)
    fleet.claim(fleet.add("lease ran out").grant_id, seconds=0)
    fleet.add("revoked")
    fleet.store.mark_revoked("revoked")
    fleet.store.ask_reauth(fleet.claim(fleet.add("asked").grant_id), reason="gone")

    assert sorted(_names(fleet)) == ["due", "lease ran out"]
    assert fleet.store.due_count() == 2


def test_failing_grants_take_a_bounded_share_while_healthy_ones_wait(fleet: Fleet, way: str) -> None:
    """A heap of dead creators never delays the living."""
    for number in range(20):
        fleet.add(f"healthy {number}", access_expires_at=fleet.soon(7200))
        fleet.add(f"failing {number}", access_expires_at=fleet.soon(3600))
        _fail(fleet, f"failing {number}")

    found = fleet.store.due(10)

    assert [grant.failures > 0 for grant in found] == [False] * 9 + [True]
    assert len(fleet.store.due(30)) == 30
    assert fleet.store.due_count() == 40


def test_failing_grants_fill_the_room_that_healthy_ones_leave(fleet: Fleet, way: str) -> None:
    """After an outage, when everything has failed once, the whole batch is theirs, most urgent first."""
    for number in range(6):
        fleet.add(f"failing {number}", access_expires_at=fleet.soon(7200 - 600 * number))
        _fail(fleet, f"failing {number}")
    fleet.add("healthy")

    assert _names(fleet, 4) == ["healthy", "failing 5", "failing 4", "failing 3"]


def test_healthy_grants_fill_the_room_that_failing_ones_leave(fleet: Fleet, way: str) -> None:
    """No part of a batch is kept free."""
    for number in range(12):
        fleet.add(f"healthy {number}")

    assert len(fleet.store.due(10)) == 10


def _grow(fleet: Fleet, rows: int, *, window_seconds: int) -> None:
    """Add grants by one statement, due in the last seconds of their lives; then let the database count them."""
    now = int(fleet.store.ping().timestamp() * 1000)
    if fleet.store.kind == "sqlite":
        fleet.sql(
            "CREATE TABLE numbers AS WITH RECURSIVE counted(n) AS"
            " (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < :rows) SELECT n FROM counted",
            rows=rows,
        )
    else:
        fleet.sql("CREATE TABLE numbers AS SELECT n FROM generate_series(1, CAST(:rows AS int)) AS n", rows=rows)
    fleet.sql(
        "INSERT INTO grants (creator_id, consent, generation, pair_generation, status, scope, issued_at, jitter,"
        " access_expires_at, next_refresh_at, failures, next_pull_at, created_at, updated_at)"
        " SELECT 'crowd ' || n, 1, 1, 1, 'active', '', :now, 0.5, :now + n * 1000,"
        " :now + n * 1000 - :window, CASE WHEN n % 50 = 0 THEN 1 ELSE 0 END,"
        " CASE WHEN n % 100 = 0 THEN :now END, :now, :now FROM numbers",
        rows=rows,
        now=now,
        window=window_seconds * 1000,
    )
    fleet.sql(
        "INSERT INTO pairs (grant_id, consent, generation, sealed_access, sealed_refresh, key_id, issued_at,"
        " access_expires_at, stored_at)"
        " SELECT id, 1, 1, :sealed, :sealed, 1, issued_at, access_expires_at, issued_at FROM grants",
        sealed=b"sealed",
    )
    fleet.sql(
        "INSERT INTO attempts (grant_id, consent, generation, owner, claimed_at, finished_at, outcome)"
        " SELECT id, 1, 1, 'a', issued_at, issued_at, 'refreshed' FROM grants"
    )
    fleet.sql("ANALYZE")


def _plans(fleet: Fleet, act: Any) -> list[str]:
    """Return the database's plan of each statement that `act` runs."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    engine = fleet.store._engine()
    event.listen(engine, "before_cursor_execute", note)
    act()
    event.remove(engine, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN " if fleet.store.kind == "sqlite" else "EXPLAIN "
    plans = []
    with engine.connect() as connection:
        for statement, parameters in seen:
            if statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
                rows = connection.exec_driver_sql(explain + statement, parameters)
                plans.append("\n".join(str(row[-1]) for row in rows))
        connection.rollback()
    return plans


def _reads_whole_table(plan: str) -> bool:
    return any(
        "Seq Scan on" in line or (line.startswith("SCAN") and "USING" not in line and "CONSTANT ROW" not in line)
        for line in plan.splitlines()
    )


@pytest.mark.as_owner
def test_the_scan_and_the_claim_go_by_the_partial_indexes(fleet: Fleet, way: str) -> None:
    """At any size the due scan and the claim read by index; a crowd is walked in order and never sorted."""
    _grow(fleet, 20_000, window_seconds=100_000 if way == "crowd" else 100)

    scan = _plans(fleet, lambda: fleet.store.due(20))
    claim = _plans(fleet, lambda: fleet.claim(5_000))
    pulls = _plans(fleet, lambda: fleet.store.due_pulls(20))

    assert not [plan for plan in scan + claim + pulls if _reads_whole_table(plan)]
    indexes = "\n".join(scan)
    assert "ix_grants_healthy_due" in indexes
    assert "ix_grants_failing_due" in indexes
    assert ("ix_grants_healthy_order" in indexes) == (way == "crowd")
    if way == "crowd":
        walks = [plan for plan in scan if "healthy_order" in plan]
        assert not [plan for plan in walks if "Sort" in plan or "TEMP B-TREE" in plan]
    assert "ix_grants_pull_wanted" in "\n".join(pulls)


@pytest.mark.as_owner
def test_old_rows_are_found_by_index(fleet: Fleet) -> None:
    """Upkeep of a great fleet reads about as much as it wipes and deletes."""
    _grow(fleet, 20_000, window_seconds=100)
    fleet.sql(
        "INSERT INTO pairs (grant_id, consent, generation, sealed_access, sealed_refresh, key_id, issued_at,"
        " access_expires_at, stored_at, superseded_at, wiped_at)"
        " SELECT id, 1, 0, NULL, NULL, 1, issued_at, access_expires_at, issued_at, issued_at, issued_at FROM grants"
        " WHERE id % 2 = 0"
    )
    fleet.sql("ANALYZE")

    plans = _plans(
        fleet,
        lambda: (
            fleet.store.wipe_superseded(3600, 50),
            fleet.store.prune_attempts(3600, 50),
            fleet.store.prune_pairs(3600, 50),
        ),
    )

    assert not [plan for plan in plans if _reads_whole_table(plan)]
    for index in ("ix_pairs_superseded", "ix_attempts_finished", "ix_pairs_wiped"):
        assert index in "\n".join(plans)
