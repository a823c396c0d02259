"""Too little and too much: no memory, odd bytes in a row, two beats, a whole fleet due at once, no time limits."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import pytest

from tests.faults.aging import run_sql
from tests.faults.scene import Scene
from worker.celery import app
from worker.policy.pacing import Message
from worker.refresh.scan import Scanner
from worker.services import build_services
from worker.settings import load_settings
from worker.store import GrantStatus

pytestmark = pytest.mark.slow_suite

FLEET = 20_000
PART = 2_000
"""So many rows are written in less time than a statement of the store may take, on a busy machine too."""
MOST_BYTES = 2_000_000
"""A scan's own objects; the ids that it publishes are a few hundred at most."""
DUE_AT_ONCE = {
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM numbers WHERE n < :last)",
    "postgresql": "WITH numbers AS (SELECT n FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n)",
}
GRANTS = """
INSERT INTO grants (creator_id, consent, generation, pair_generation, status, scope, issued_at, access_expires_at,
    next_refresh_at, jitter, created_at, updated_at)
{numbers} SELECT 'fleet ' || n, 1, 1, 1, 'active', '', 0, 4102444800000 - n, 0, 0.5, 0, 0 FROM numbers
"""


def ids_of(messages: Sequence[Message]) -> list[int]:
    """Return the grants of a scan's messages in their order."""
    return [grant_id for message in messages for grant_id in message.ids]


def test_a_worker_without_memory_loses_nothing(scene: Scene) -> None:
    """Nothing more can be allocated: a refresh fails before it is sent, or its pair is kept."""
    grants = scene.creators(3)
    ids = [grant.grant_id for grant in grants]
    worker = scene.worker(
        {"do": "refresh", "ids": ids[:1]},
        {"do": "limit", "what": "RLIMIT_AS", "number": 2**20},
        {"do": "refresh", "ids": ids[1:], "threads": 0},
    )

    assert scene.kinds(worker)[0] == "refreshed"
    assert len(scene.kinds(worker)) == len(grants)
    assert scene.judge() == {}
    assert {scene.look(grant).status for grant in grants} == {GrantStatus.ACTIVE}


@pytest.mark.parametrize("sealed", [b"", b"\0", b"\1" * 1_000_000], ids=["nothing", "a zero byte", "a megabyte"])
def test_odd_bytes_in_a_row_cost_that_row_alone(scene: Scene, sealed: bytes) -> None:
    """A batch goes on past a pair that somebody wrote over, whatever stands there."""
    odd, good = scene.creators(2)
    run_sql(scene.store, "UPDATE pairs SET sealed_refresh = :bytes WHERE grant_id = :id", bytes=sealed, id=odd.grant_id)
    worker = scene.worker({"do": "refresh", "ids": [odd.grant_id, good.grant_id]})

    assert scene.kinds(worker) == ["failed", "refreshed"]
    assert scene.world.refreshes(odd) == []
    assert scene.look(odd).status is GrantStatus.ACTIVE


def test_two_beats_are_as_good_as_one(scene: Scene) -> None:
    """Two schedulers find the same grants at the same moments, and each grant is refreshed once."""
    grants = scene.creators(20)
    settings = load_settings(scene.environ, dotenv=None)
    beats = [build_services(settings) for _ in range(2)]
    try:
        found = [ids_of(beat.scanner.refreshes()) for beat in beats]
        workers = [scene.worker({"do": "refresh", "ids": ids, "threads": 4}) for ids in found]
        for worker in workers:
            worker.ended()
        assert [ids_of(beat.scanner.refreshes()) for beat in beats] == [[], []]
    finally:
        for beat in beats:
            beat.close()

    assert (
        sorted(found[0])
        == sorted(found[1])
        == [grant.grant_id for grant in sorted(grants, key=lambda each: each.grant_id)]
    )
    assert scene.sent() == len(grants)
    assert scene.judge() == {}


def test_a_whole_fleet_due_at_once_is_handed_out_by_the_quota(scene: Scene) -> None:
    """However many are due, a scan takes what fits until the next one, those with the least time left first."""
    services = scene.world.services
    for first in range(1, FLEET, PART):
        statement = GRANTS.format(numbers=DUE_AT_ONCE[services.store.kind])
        run_sql(services.store, statement, first=first, last=first + PART - 1)
    scanner = Scanner(services.ground, per_second=10, per_minute=600, scan_seconds=10)
    scanner.refreshes()
    tracemalloc.start()
    due = ids_of(scanner.refreshes())
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert 100 <= len(due) <= 200
    assert most < MOST_BYTES
    ends = run_sql(services.store, "SELECT id FROM grants ORDER BY access_expires_at, id LIMIT :size", size=len(due))
    assert due == [row[0] for row in ends]


def test_no_clock_of_celerys_ends_a_task_between_answer_and_commit() -> None:
    """There are no time limits, threads cannot be terminated, and what bounds a refresh is its own deadline."""
    assert app.conf.task_time_limit is None
    assert app.conf.task_soft_time_limit is None
    assert app.conf.worker_pool == "threads"
    assert all(task.time_limit is None and task.soft_time_limit is None for task in app.tasks.values())
