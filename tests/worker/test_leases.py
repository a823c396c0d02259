"""Leases are kept while an attempt takes long, and run out if nobody keeps them."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.support.claims import claim_one
from tests.support.world import World
from worker.refresh.leases import LeaseKeeper
from worker.store import Claim
from worker.telemetry import Fact

NewWorld = Callable[..., World]


def claimed(world: World, seconds: float) -> Claim:
    """Claim a creator's grant for this many seconds."""
    claim = claim_one(world.services.store, world.creator().grant_id, owner="first", lease_seconds=seconds)
    assert claim is not None
    return claim


def test_a_lease_is_kept_while_the_attempt_takes_long(
    new_world: NewWorld, wait_until: Callable[[Callable[[], object]], None]
) -> None:
    """Long after the first lease would have ended, nobody else can claim; once nobody keeps it, it runs out."""
    world, stop = new_world(), threading.Event()
    claim = claimed(world, 1.2)
    store = world.services.store
    keeper = LeaseKeeper(store=store, hook=world.services.hook, lease_seconds=1.2, stop=stop)

    with keeper.hold([claim]):
        wait_until(lambda: (store.ping() - claim.lease_until).total_seconds() > 1)
        assert claim_one(store, claim.grant_id, owner="second", lease_seconds=1) is None
    wait_until(lambda: claim_one(store, claim.grant_id, owner="second", lease_seconds=1))

    stop.set()
    keeper.close()


def test_a_lost_lease_is_reported_and_not_taken_back(
    new_world: NewWorld, wait_until: Callable[[Callable[[], object]], None]
) -> None:
    """A holder whose lease ran out and was claimed by somebody else stops prolonging it."""
    world, stop = new_world(), threading.Event()
    claim = claimed(world, 0.05)
    store, facts = world.services.store, list[Fact]()
    wait_until(lambda: claim_one(store, claim.grant_id, owner="second", lease_seconds=60))
    keeper = LeaseKeeper(store=store, hook=facts.append, lease_seconds=0.3, stop=stop)

    with keeper.hold([claim]):
        wait_until(lambda: facts)

    assert [fact.name for fact in facts] == ["lease.lost"]
    assert store.grant_by_id(claim.grant_id).lease_owner == "second"
    stop.set()
    keeper.close()
