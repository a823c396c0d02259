"""Pauses: what a person has paused is neither claimed, scanned nor pulled, and nothing of it is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.support.claims import claim_one
from worker.errors import NotFoundError, PausedError, UnknownCreatorError
from worker.store import GrantCondition, Paused, PauseView, open_store

if TYPE_CHECKING:
    from tests.store.conftest import Fleet

NAMED = {"app": {}, "reference": {"reference": "acme"}, "creator": {"creator_id": "ada"}}


@pytest.fixture(params=NAMED)
def rule(request: pytest.FixtureRequest) -> dict[str, str]:
    """Each kind of pause."""
    return NAMED[request.param]


@pytest.fixture
def crowd(fleet: Fleet) -> Fleet:
    """Ada of acme, whom every pause covers, and Bob, who is due as she is."""
    fleet.add("ada", reference="acme")
    fleet.add("bob")
    for creator_id in ("ada", "bob"):
        fleet.store.request_pull(creator_id)
    return fleet


def _due(fleet: Fleet) -> set[str]:
    return {fleet.store.grant_by_id(found.grant_id).creator_id for found in fleet.store.due(10)}


def _pulls(fleet: Fleet) -> set[str]:
    return {fleet.store.grant_by_id(grant_id).creator_id for grant_id in fleet.store.due_pulls(10)}


def test_what_is_paused_is_left_alone_until_it_is_resumed(crowd: Fleet, rule: dict[str, str]) -> None:
    """Scans, claims and pulls leave it out, also by force; its row stays as it was, and resumed it is due as before."""
    store, before = crowd.store, crowd.store.grant("ada")
    others = {"bob"} if rule else set()

    store.pause(**rule)

    assert (_due(crowd), _pulls(crowd)) == (others, others)
    assert store.due_count() == len(others)
    assert store.claimable([before.grant_id]).due == ()
    assert claim_one(store, before.grant_id, owner="a worker", lease_seconds=60, force=True) is None
    assert store.claim_pull(before.grant_id, owner="a worker", lease_seconds=60) is None
    assert store.grant("ada").paused_since is not None
    listed = [grant.creator_id for grant in store.grants(condition=GrantCondition.PAUSED)]
    assert listed == (["ada"] if rule else ["ada", "bob"])

    store.resume(**rule)

    assert (_due(crowd), _pulls(crowd)) == ({"ada", "bob"}, {"ada", "bob"})
    assert store.grant("ada") == before


def test_a_pause_and_its_end_may_be_asked_for_twice(crowd: Fleet, rule: dict[str, str]) -> None:
    """The second call changes nothing: the pause keeps its time, and an end ends nothing else."""
    many = 1 if rule else 2

    assert crowd.store.pause(**rule) == Paused(changed=True, grants=many, still_paused=many, under_way=0)
    since = crowd.store.grant("ada").paused_since
    assert crowd.store.pause(**rule) == Paused(changed=False, grants=many, still_paused=many, under_way=0)
    assert crowd.store.grant("ada").paused_since == since
    assert crowd.store.resume(**rule) == Paused(changed=True, grants=many, still_paused=0, under_way=0)
    assert crowd.store.resume(**rule) == Paused(changed=False, grants=many, still_paused=0, under_way=0)


def test_grants_that_come_later_are_paused_too(crowd: Fleet) -> None:
    """A pause of the app or of a reference covers whoever authorizes after it, and who authorizes again."""
    crowd.store.pause(reference="acme")
    crowd.add("cleo", reference="acme")
    crowd.add("ada", replace=True, reference="acme")
    assert _due(crowd) == {"bob"}
    crowd.store.pause()
    crowd.add("dan")

    assert _due(crowd) == set()
    assert crowd.store.fleet_status().paused == 4


def test_an_attempt_that_is_under_way_when_the_pause_comes_keeps_its_pair(crowd: Fleet, rule: dict[str, str]) -> None:
    """The lease is told, extended and released as usual, and the pair that comes is served."""
    claim = crowd.claim(crowd.store.grant("ada").grant_id)

    assert crowd.store.pause(**rule).under_way == 1
    assert crowd.store.extend_lease(claim, 60)
    assert crowd.save(claim, "new")

    assert crowd.store.grant("ada").pair_generation == claim.generation
    assert crowd.store.pause(**rule).under_way == 0


def test_one_pause_does_not_end_another(crowd: Fleet) -> None:
    """A grant is paused as long as any pause covers it, since the first of them began."""
    crowd.store.pause(creator_id="ada")
    since = crowd.store.grant("ada").paused_since
    crowd.store.pause()

    assert crowd.store.grant("ada").paused_since == since
    assert crowd.store.resume(creator_id="ada").still_paused == 1
    (left,) = crowd.store.pauses()
    assert left == PauseView("", "", left.paused_at)


def test_a_request_for_what_is_paused_is_refused(crowd: Fleet, rule: dict[str, str]) -> None:
    """Neither a refresh nor a pull is marked; the sentence says since when, and what ends it."""
    store = crowd.store
    store.pause(**rule)
    before = store.grant("ada")

    for ask in (store.request_refresh, store.request_pull):
        with pytest.raises(PausedError, match=r"ada is paused since .* UTC, until somebody runs `evertoken grants res"):
            ask("ada")
    assert store.grant("ada") == before


def test_a_paused_grant_is_counted_as_such_and_no_longer_as_due(crowd: Fleet) -> None:
    """No alarm speaks of grants that nobody refreshes; the end of their tokens is told apart from the others'."""
    crowd.store.pause(creator_id="ada")
    found = crowd.store.fleet_status()

    assert (found.paused, found.due, found.fresh) == (1, 1, 0)
    assert found.paused_seconds_left == pytest.approx(86_400, abs=60)
    crowd.store.pause()
    assert (crowd.store.fleet_status().due, crowd.store.fleet_status().oldest_due_seconds) == (0, 0)
    assert crowd.store.due_seconds() == 0


def test_what_does_not_exist_cannot_be_paused(crowd: Fleet) -> None:
    """A mistyped creator or reference is a sentence, and no rule stays."""
    with pytest.raises(UnknownCreatorError):
        crowd.store.pause(creator_id="nobody")
    with pytest.raises(NotFoundError, match="no grant has the reference nowhere"):
        crowd.store.pause(reference="nowhere")
    assert crowd.store.pauses() == []


def test_another_apps_pause_stops_nothing(crowd: Fleet, store_url: str) -> None:
    """A pause belongs to its app, as grants do."""
    other = open_store(store_url, app_id="another app")
    try:
        other.pause()
        assert _due(crowd) == {"ada", "bob"}
        assert (len(other.pauses()), crowd.store.pauses()) == (1, [])
    finally:
        other.close()


def test_a_forgotten_creators_pause_goes_too(crowd: Fleet, forget: Callable[[str], None]) -> None:
    """The rule names the creator, so it is deleted with all else."""
    crowd.store.pause(creator_id="ada")
    forget("ada")

    assert crowd.store.pauses() == []


@pytest.fixture
def forget(fleet: Fleet) -> Callable[[str], None]:
    """Forget a creator altogether."""

    def act(creator_id: str) -> None:
        grant_id = fleet.store.begin_forgetting(creator_id)
        assert grant_id is not None
        while fleet.store.delete_some_rows(grant_id, 100):
            pass
        assert fleet.store.end_forgetting(grant_id)

    return act
