"""Storing pairs: never refused, never backwards, and harmless a second time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from worker.errors import NotFoundError, StoreUnavailableError
from worker.policy.verdicts import AttemptOutcome
from worker.store import BroughtPair, GrantStatus

if TYPE_CHECKING:
    from tests.store.conftest import Fleet


def test_a_saved_pair_is_served_and_the_grant_is_back_on_its_schedule(fleet: Fleet) -> None:
    """Pointer, dates, lease, failures, attempt and the wish for a pull change in one transaction."""
    grant = fleet.add()
    fleet.sql("UPDATE grants SET next_pull_at = NULL")
    claim = fleet.claim(grant.grant_id)
    pair = fleet.pair("new", scope="a,b")

    saved = fleet.save_pair(claim, pair, request_id="r1")

    assert (saved.moved, saved.revived, saved.status) == (True, False, GrantStatus.ACTIVE)
    after = fleet.store.grant_by_id(grant.grant_id)
    assert (after.pair_generation, after.scope, after.failures) == (claim.generation, "a,b", 0)
    assert (after.access_expires_at, after.next_refresh_at) == (pair.access_expires_at, pair.next_refresh_at)
    assert (after.lease_owner, after.lease_until) == (None, None)
    assert fleet.store.is_pull_due(grant.grant_id)
    assert fleet.current() == b"access new"
    attempt = fleet.store.attempts(grant.grant_id)[0]
    assert (attempt.outcome, attempt.request_id) == (AttemptOutcome.REFRESHED, "r1")
    assert attempt.finished_at is not None


def test_an_answer_without_scopes_keeps_the_stored_ones(fleet: Fleet) -> None:
    """None means that TikTok did not say."""
    grant = fleet.add(scope="a,b")

    fleet.save(fleet.claim(grant.grant_id), "new")

    assert fleet.store.grant_by_id(grant.grant_id).scope == "a,b"


def test_a_pair_that_comes_after_the_lease_ran_out_is_stored_and_served(fleet: Fleet) -> None:
    """TikTok has rotated already, so the late pair is the only living one; the heir keeps its lease."""
    grant = fleet.add()
    late = fleet.claim(grant.grant_id, seconds=0)
    heir = fleet.claim(grant.grant_id)

    assert fleet.save(late, "late")

    assert fleet.current() == b"access late"
    assert fleet.lease_left(heir) > 0
    assert fleet.store.grant_by_id(grant.grant_id).generation == heir.generation


def test_an_older_pair_is_kept_and_never_takes_the_place_of_a_newer_one(fleet: Fleet) -> None:
    """The pointer moves only forward; the older pair is a version that may be tried."""
    grant = fleet.add()
    slow, quick = fleet.claim(grant.grant_id, seconds=0), fleet.claim(grant.grant_id)
    assert fleet.save(quick, "newer")
    before = fleet.store.grant_by_id(grant.grant_id)

    assert not fleet.save(slow, "older")

    assert fleet.current() == b"access newer"
    after = fleet.store.grant_by_id(grant.grant_id)
    assert (after.pair_generation, after.next_refresh_at) == (quick.generation, before.next_refresh_at)
    assert fleet.claim(grant.grant_id).kept == (3, 2, 1)
    assert {attempt.outcome for attempt in fleet.store.attempts(grant.grant_id)[1:]} == {AttemptOutcome.REFRESHED}


def test_saving_a_pair_twice_changes_nothing(fleet: Fleet) -> None:
    """A replayed journal and a commit whose end was not seen are harmless."""
    grant = fleet.add()
    claim = fleet.claim(grant.grant_id)
    pair = fleet.pair("new")
    first = fleet.save_pair(claim, pair)
    before = fleet.sql("SELECT * FROM grants"), fleet.sql("SELECT * FROM pairs ORDER BY generation")

    second = fleet.save_pair(claim, pair)

    assert first.moved
    assert second.moved
    assert before == (fleet.sql("SELECT * FROM grants"), fleet.sql("SELECT * FROM pairs ORDER BY generation"))


def test_of_two_pairs_with_one_number_the_first_is_kept(fleet: Fleet) -> None:
    """A salvaged duplicate does not replace what was stored whole."""
    grant = fleet.add()
    claim = fleet.claim(grant.grant_id)
    fleet.save(claim, "whole")

    fleet.save(claim, "salvaged")

    assert fleet.current() == b"access whole"


def test_a_pair_of_an_older_consent_is_kept_and_not_served(fleet: Fleet) -> None:
    """The creator has authorized again while the refresh was under way."""
    grant = fleet.add()
    old = fleet.claim(grant.grant_id)
    fleet.add(replace=True)

    assert not fleet.save(old, "of the old consent")

    assert fleet.current() == b"access ada/2/3"
    assert fleet.sql("SELECT count(*) FROM pairs WHERE consent = 1 AND generation = 2")[0][0] == 1


def test_a_pair_of_a_revoked_grant_is_stored_and_revives_nothing(fleet: Fleet) -> None:
    """The caller learns that it has to be revoked at TikTok too."""
    grant = fleet.add()
    claim = fleet.claim(grant.grant_id)
    fleet.store.mark_revoked("ada")

    saved = fleet.save_pair(claim, fleet.pair("late"))

    assert (saved.moved, saved.revived, saved.status) == (False, False, GrantStatus.REVOKED)
    with pytest.raises(NotFoundError):
        fleet.store.current_pair("ada")
    assert fleet.store.wipe_superseded(0, 10) == 1


def test_a_pair_revives_a_grant_that_needed_authorization_and_withdraws_the_notice(fleet: Fleet) -> None:
    """The late pair proves that the consent lives, so the request to authorize is withdrawn."""
    grant = fleet.add()
    late = fleet.claim(grant.grant_id, seconds=0)
    assert fleet.store.ask_reauth(fleet.claim(grant.grant_id), reason="gone")
    assert fleet.store.undelivered_count() == 1

    saved = fleet.save_pair(late, fleet.pair("late"))

    assert (saved.moved, saved.revived) == (True, True)
    assert fleet.store.grant_by_id(grant.grant_id).status is GrantStatus.ACTIVE
    assert fleet.store.undelivered_count() == 0


def test_a_pair_for_an_unknown_grant_is_an_error(fleet: Fleet) -> None:
    """A record of another deployment's journal is not dropped silently."""
    with pytest.raises(NotFoundError, match="no grant 404"):
        fleet.store.save_group([BroughtPair(404, 1, 2, fleet.pair("lost"))])


def test_pairs_saved_at_once_leave_the_newest_current(fleet: Fleet) -> None:
    """Late and current pairs race for the pointer, and none of them is lost."""
    rounds = 20
    grants = [fleet.add(f"creator {number}").grant_id for number in range(rounds)]
    barrier = threading.Barrier(3)
    claims = [[fleet.claim(grant_id, seconds=0) for _ in range(3)] for grant_id in grants]

    def save_each(place: int) -> None:
        for ours in claims:
            barrier.wait(20)
            fleet.save(ours[place], f"pair {place}")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(save_each, range(3)))

    for number, grant_id in enumerate(grants):
        assert fleet.current(f"creator {number}") == b"access pair 2"
        assert len(fleet.claim(grant_id).kept) == 4


@pytest.mark.as_owner
def test_one_row_whose_writing_fails_stops_no_other(fleet: Fleet) -> None:
    """A trigger refuses one grant's pair; its error is ours, and the next grant is saved."""
    bad, good = fleet.add("bad"), fleet.add("good")
    claims = fleet.claim(bad.grant_id), fleet.claim(good.grant_id)
    if fleet.store.kind == "sqlite":
        fleet.sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON pairs WHEN NEW.grant_id = 1"
            " BEGIN SELECT RAISE(ABORT, 'refused by a test'); END"
        )
    else:
        fleet.sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN RAISE EXCEPTION ''refused by a test''; END'"
        )
        fleet.sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON pairs FOR EACH ROW WHEN (NEW.grant_id = 1)"
            " EXECUTE FUNCTION refuse()"
        )

    with pytest.raises(StoreUnavailableError):
        fleet.save(claims[0], "refused")
    assert fleet.save(claims[1], "taken")

    assert fleet.current("bad") == b"access bad/1/1"
    assert fleet.store.grant("bad").lease_until is not None
