"""Consents: stored in batches, once for each creator, with the next numbers if they replace another."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.support.claims import claim_one
from worker.policy.verdicts import AttemptOutcome
from worker.store import ConsentResult, GrantStatus, Likeness, NewConsent
from worker.vault.sealing import SealedPair

if TYPE_CHECKING:
    from tests.store.conftest import Fleet

CREATED, REPLACED, KNOWN = ConsentResult.CREATED, ConsentResult.REPLACED, ConsentResult.KNOWN


def test_a_new_consent_becomes_an_active_grant_with_its_pair(fleet: Fleet) -> None:
    """Consent and generation begin at one, and the pair is current."""
    item = fleet.consent("ada", scope="a,b", jitter=0.25)

    assert fleet.keep([item]) == [CREATED]

    grant = fleet.store.grant("ada")
    assert (grant.consent, grant.generation, grant.pair_generation) == (1, 1, 1)
    assert (grant.status, grant.scope, grant.jitter, grant.failures) == (GrantStatus.ACTIVE, "a,b", 0.25, 0)
    assert (grant.access_expires_at, grant.refresh_expires_at) == (item.access_expires_at, item.refresh_expires_at)
    pair = fleet.store.current_pair("ada")
    assert (pair.sealed.sealed_access, pair.generation, pair.issued_at) == (b"access ada/1/1", 1, item.issued_at)
    assert fleet.store.is_pull_due(grant.grant_id)


def test_a_known_creator_is_skipped_unless_replacing_was_asked_for(fleet: Fleet) -> None:
    """An import run twice changes nothing."""
    before = fleet.add()

    assert fleet.keep([fleet.consent("ada"), fleet.consent("bob")]) == [KNOWN, CREATED]

    assert fleet.store.grant("ada") == before


def test_an_older_pair_never_takes_the_place_of_a_newer_one_if_only_newer_ones_may(fleet: Fleet) -> None:
    """Importing an old file with replacing asked for leaves the living pair alone, and takes a newer one."""
    before = fleet.add()
    older = replace(fleet.consent("ada"), issued_at=before.issued_at - timedelta(seconds=1))
    newer = replace(fleet.consent("ada"), issued_at=before.issued_at + timedelta(seconds=1))

    assert fleet.keep([older], replace=True, likeness=Likeness.OTHER) == [ConsentResult.OLDER]
    assert fleet.store.grant("ada") == before
    assert fleet.keep([newer], replace=True, likeness=Likeness.OTHER) == [REPLACED]


def test_a_replaced_grant_gets_the_next_numbers_and_starts_afresh(fleet: Fleet) -> None:
    """Failures, suspicion and the old reason are gone; the jitter stays the grant's own."""
    grant = fleet.add(jitter=0.1)
    claim = fleet.claim(grant.grant_id)
    fleet.store.suspect(claim, outcome=AttemptOutcome.REFUSED, next_refresh_at=fleet.soon(), reason="refused")
    fleet.claim(grant.grant_id)

    assert fleet.keep([fleet.consent("ada", scope="new", jitter=0.9)], replace=True) == [REPLACED]

    after = fleet.store.grant("ada")
    assert (after.consent, after.generation, after.pair_generation) == (2, 4, 4)
    assert (after.status, after.failures, after.last_reason) == (GrantStatus.ACTIVE, 0, None)
    assert (after.scope, after.jitter) == ("new", 0.1)
    assert fleet.current() == b"access ada/2/4"
    assert claim_one(fleet.store, grant.grant_id, owner="b", lease_seconds=60, force=True) is None, (
        "an attempt is under way"
    )
    fleet.sql("UPDATE grants SET lease_until = 0")
    assert fleet.claim(grant.grant_id).unresolved == ()


def test_a_new_consent_withdraws_the_request_for_it(fleet: Fleet) -> None:
    """A creator who has authorized is not asked to; a later consent may be asked for again."""
    grant = fleet.add()
    fleet.store.ask_reauth(fleet.claim(grant.grant_id), reason="gone")

    fleet.add(replace=True)

    assert fleet.store.undelivered_count() == 0
    assert fleet.store.ask_reauth(fleet.claim(grant.grant_id), reason="gone again")
    assert [notice.dedupe_key for notice in fleet.store.undelivered_notices()] == [f"reauth:{grant.grant_id}:2.3"]


def test_a_creator_twice_in_one_batch_counts_once(fleet: Fleet) -> None:
    """Without replacing the first line counts, with it the last."""
    first, second = fleet.consent("ada", scope="first"), fleet.consent("ada", scope="second")

    assert fleet.keep([first, second]) == [CREATED, KNOWN]
    assert fleet.store.grant("ada").scope == "first"
    assert fleet.keep([first, second], replace=True) == [KNOWN, REPLACED]
    assert (fleet.store.grant("ada").scope, fleet.store.grant("ada").consent) == ("second", 2)


def test_an_empty_batch_is_nothing(fleet: Fleet) -> None:
    """An import may end on a batch's edge."""
    assert fleet.keep([]) == []


def test_a_large_batch_is_stored_whole_and_each_pair_with_its_own_creator(fleet: Fleet) -> None:
    """Two thousand creators in one call; a returned id never meets another's pair."""
    names = [f"creator {number:05}" for number in range(2_000)]

    results = fleet.keep([fleet.consent("pivot"), *(fleet.consent(name) for name in reversed(names))])

    assert results == [CREATED] * 2_001
    wrong = fleet.sql("SELECT creator_id, sealed_access FROM grants JOIN pairs ON grant_id = id")
    assert not [row for row in wrong if bytes(row[1]) != f"access {row[0]}/1/1".encode()]
    assert len(wrong) == 2_001


def test_a_batch_is_stored_whole_or_not_at_all(fleet: Fleet) -> None:
    """A seal that fails in the middle leaves no half of a batch behind."""

    def fail_on_second(item: NewConsent, consent: int, generation: int) -> SealedPair:
        if item.creator_id == "ada":
            return SealedPair(b"a", b"r", 1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fleet.store.save_consents([fleet.consent("ada"), fleet.consent("bob")], fail_on_second, replace=False)

    assert fleet.store.grants() == []


def test_imports_and_exchanges_of_one_creator_at_once_end_as_one_grant(fleet: Fleet) -> None:
    """Four processes bring the same creators: each creator is created once, and every consent counts."""
    barrier = threading.Barrier(4)
    names = [f"creator {number}" for number in range(30)]

    def bring(place: int) -> list[ConsentResult]:
        items = [fleet.consent(name) for name in (names if place % 2 else reversed(names))]
        barrier.wait(20)
        return fleet.keep(items, replace=True)

    with ThreadPoolExecutor(4) as pool:
        results = [result for column in pool.map(bring, range(4)) for result in column]

    assert (results.count(CREATED), results.count(REPLACED)) == (30, 90)
    assert {grant.consent for grant in fleet.store.grants()} == {4}


def test_pages_of_grants_follow_each_other_by_id(fleet: Fleet) -> None:
    """A listing of any size is read in pages, and may be narrowed to one status."""
    for number in range(5):
        fleet.add(f"creator {number}")
    fleet.store.mark_revoked("creator 3")

    first = fleet.store.grants(limit=2)
    second = fleet.store.grants(after_id=first[-1].grant_id, limit=2)

    assert [grant.creator_id for grant in first + second] == [f"creator {number}" for number in range(4)]
    assert [grant.creator_id for grant in fleet.store.grants(status=GrantStatus.REVOKED)] == ["creator 3"]


def test_a_wish_for_a_refresh_makes_a_grant_due_unless_a_newer_pair_has_come(fleet: Fleet) -> None:
    """A read that met a dead access token asks for a refresh of just that pair."""
    grant = fleet.add(next_refresh_at=fleet.soon(3600))
    seen = fleet.store.current_pair("ada")
    assert fleet.store.request_refresh_of(seen)
    assert fleet.store.claimable([grant.grant_id]).due
    fleet.save(fleet.claim(grant.grant_id), "newer")

    assert not fleet.store.request_refresh_of(seen)

    assert not fleet.store.claimable([grant.grant_id]).due
    assert fleet.store.request_refresh("ada") == grant.grant_id
    assert fleet.store.claimable([grant.grant_id]).due


def test_revoking_wipes_every_pair_and_every_wish(fleet: Fleet) -> None:
    """Nothing is left that could be opened, refreshed or pulled."""
    grant = fleet.add()
    fleet.save(fleet.claim(grant.grant_id), "two")
    claim = fleet.claim(grant.grant_id)
    fleet.store.release(
        claim, outcome=AttemptOutcome.NOT_SENT, next_refresh_at=fleet.soon(), reason="no way out", failed=True
    )

    fleet.store.mark_revoked("ada")

    assert (
        fleet.sql("SELECT count(*) FROM pairs WHERE sealed_access IS NOT NULL OR sealed_refresh IS NOT NULL")[0][0] == 0
    )
    assert fleet.store.due(5) == []
    assert fleet.store.due_pulls(5) == []
    assert fleet.store.all_pairs() == []
