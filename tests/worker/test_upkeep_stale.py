"""Attempts that nobody will ever end by themselves."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.claims import claim_one
from tests.support.world import World
from worker.policy.verdicts import AttemptOutcome


def test_an_attempt_whose_process_vanished_is_written_down_as_in_doubt(new_world: Callable[..., World]) -> None:
    """No attempt stays without an outcome once its lease has run out, and the doubt still counts as unresolved."""
    world = new_world()
    grant = world.creator()
    store = world.services.store
    assert claim_one(store, grant.grant_id, owner="vanished", lease_seconds=0.001) is not None

    while store.stale_attempts(1) == []:
        store.ping()
    assert world.services.upkeep.end_stale_attempts() == 1

    assert store.attempts(grant.grant_id)[0].outcome is AttemptOutcome.IN_DOUBT
    assert world.services.upkeep.end_stale_attempts() == 0
    claim = claim_one(store, grant.grant_id, owner="next", lease_seconds=5)
    assert claim is not None
    assert claim.unresolved == (2,)


def test_an_attempt_under_a_lease_is_left_alone(new_world: Callable[..., World]) -> None:
    """What is under way has no outcome yet, and that is as it should be."""
    world = new_world()
    grant = world.creator()
    claim_one(world.services.store, grant.grant_id, owner="at work", lease_seconds=60)

    assert world.services.upkeep.end_stale_attempts() == 0
    assert world.services.store.attempts(grant.grant_id)[0].outcome is None
