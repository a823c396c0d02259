"""How the statements of a group find their rows: by index, whatever the statistics say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from worker.store import BroughtPair, claims, saving

if TYPE_CHECKING:
    from tests.store.conftest import Fleet

ROWS = 2000
FILL = (
    "INSERT INTO attempts (grant_id, consent, generation, owner, claimed_at, finished_at, outcome)"
    " SELECT 1, 1, 1000 + n, 'old', 0, 0, 'refreshed' FROM numbers"
)
SEQUENTIAL = "SELECT relname, seq_scan FROM pg_stat_user_tables WHERE relname IN ('attempts', 'pairs') ORDER BY relname"


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_a_fresh_install_reads_no_table_from_end_to_end(fleet: Fleet) -> None:
    """The tables were analyzed while they were empty: claims and pairs go by index all the same."""
    fleet.sql("ANALYZE")
    ids = [fleet.add(f"creator {number}").grant_id for number in range(20)]
    fleet.sql(f"WITH numbers AS (SELECT generate_series(1, {ROWS}) AS n) {FILL}")
    fleet.sql("SELECT pg_stat_force_next_flush()")
    before = fleet.sql(SEQUENTIAL)

    won = fleet.store.claim_group(ids, owner="a worker", lease_seconds=60)
    fleet.store.save_group(
        [BroughtPair(claim.grant_id, claim.consent, claim.generation, fleet.pair("new")) for claim in won]
    )
    fleet.sql("SELECT pg_stat_force_next_flush()")

    assert len(won) == 20
    assert fleet.sql(SEQUENTIAL) == before


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_sqlite_reads_no_table_from_end_to_end_after_an_analysis_of_empty_tables(fleet: Fleet) -> None:
    """Somebody ran ANALYZE on the empty file: every statement of a group searches by an index all the same."""
    fleet.sql("ANALYZE")
    fleet.add()
    statements = [*claims._SQLITE, saving.GRANTS_OF, saving.KNOWN, saving.SUPERSEDE, saving.POINT, saving.FREE]
    plans: list[str] = []
    for statement in [*statements, saving.WITHDRAW, saving.END]:
        values = dict.fromkeys(statement.compile().params, 1) | {"ids": "[1]", "keys": "[[1, 1, 1]]"}
        wanted = {name: value for name, value in values.items() if f":{name}" in str(statement)}
        plans += [row.detail for row in fleet.sql(f"EXPLAIN QUERY PLAN {statement}", **wanted)]

    assert plans
    assert [plan for plan in plans if plan.startswith("SCAN") and "json_each" not in plan] == []
