"""A pause and its end on a running daemon: nothing is sent meanwhile, and then everything at the quota's pace."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.daemon import READY_SECONDS, Daemon
from tests.support.world import World
from worker.sandbox.process import RunningSandbox

pytestmark = pytest.mark.slow_suite

MANY = 30
PER_SECOND = 10


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_a_daemon_leaves_paused_grants_alone_and_resumes_at_the_quotas_pace(
    new_daemon: Callable[..., Daemon], store_url: str, sandbox: RunningSandbox, wait_until: Callable[..., None]
) -> None:
    """Scans refresh the others meanwhile; resumed, each paused grant is refreshed once, and none in a burst."""
    daemon = new_daemon(QUOTA_PER_SECOND=str(PER_SECOND), QUOTA_PER_MINUTE=str(60 * PER_SECOND))
    world = World(sandbox, daemon.environ | {"EVERTOKEN_DATABASE_URL": store_url})
    try:
        paused = world.creators(MANY)
        world.sql("UPDATE grants SET reference = 'acme'")
        world.services.store.pause(reference="acme")
        worker, beat = daemon.worker(), daemon.beat()
        others = [world.creator() for _ in range(3)]
        # Scans find these, and pass over the paused ones.
        wait_until(lambda: all(world.look(other).pair_generation > 1 for other in others), READY_SECONDS)
        assert [entry for grant in paused for entry in world.refreshes(grant)] == []

        world.services.store.resume(reference="acme")
        wait_until(lambda: all(world.look(grant).pair_generation > 1 for grant in paused), READY_SECONDS)

        sent = sorted(entry.time for grant in paused for entry in world.refreshes(grant))
        verdict = world.verdict(*paused)
        daemon.stop(beat, worker)
    finally:
        world.close()
    assert len(sent) == verdict.live_stored == MANY
    assert (verdict.refused, verdict.double_refreshes) == ({}, ())
    assert sent[-1] - sent[0] > (MANY - 2 * PER_SECOND) / PER_SECOND
