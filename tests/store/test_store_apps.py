"""Each app has its own grants and its own brake; a grant that names no app belongs to the one that there was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pytest

from tests.conftest import APP_ID
from worker.errors import UnknownCreatorError
from worker.store import Claim, ConsentResult, NewConsent, Store, open_store
from worker.vault import SealedPair


@pytest.fixture
def other(store_url: str) -> Iterator[Store]:
    """The same database as another app sees it."""
    with closing(open_store(store_url, app_id="app-2")) as opened:
        yield opened


def consent(store: Store, *creators: str, replace: bool = False) -> list[ConsentResult]:
    """Let creators consent to the store's app; their grants are due, and a pull is wanted."""
    now = store.ping()
    items = [
        NewConsent(
            creator_id=creator, scope="", issued_at=now - timedelta(hours=2),
            access_expires_at=now + timedelta(hours=1), refresh_expires_at=None,
            next_refresh_at=now - timedelta(minutes=1), jitter=0.5,
        )
        for creator in creators
    ]  # fmt: skip
    return store.save_consents(items, lambda *_: SealedPair(b"a", b"r", 1), replace=replace)


def unsaid(store: Store) -> None:
    """Make every grant one of the versions that wrote no app."""
    store.transact(lambda connection: connection.exec_driver_sql("UPDATE grants SET app_id = ''"), writes=True)


def test_no_app_sees_or_takes_the_grants_of_another(store: Store, other: Store) -> None:
    """What one app's creators consented to is not due, claimed, pulled, counted, listed or read as another's."""
    consent(store, "one", "two")
    grant_ids = [grant.grant_id for grant in store.due(10)]
    assert len(grant_ids) == 2

    assert (other.due(10), other.due_count(), other.claimable(grant_ids).due) == ([], 0, ())
    assert other.claim_group(grant_ids, owner="x", lease_seconds=9, force=True) == []
    assert (other.due_pulls(10), other.pulls_wait(0)) == ([], False)
    assert other.claim_pull(grant_ids[0], owner="x", lease_seconds=9) is None
    assert (other.fleet_status().total, other.load(slice_seconds=60), other.grants()) == (0, [], [])
    assert other.all_pairs() == []
    for look in (other.grant, other.current_pair, other.request_refresh, other.request_pull, other.mark_revoked):
        with pytest.raises(UnknownCreatorError):
            look("one")
    assert other.of_other_apps() == {APP_ID: 2}
    assert len(store.claim_group(grant_ids, owner="x", lease_seconds=9)) == 2
    assert store.of_other_apps() == {}


def test_a_grant_that_names_no_app_belongs_to_the_one_that_is_configured(store: Store) -> None:
    """Grants from before are refreshed, pulled, counted and read as before, and get their app by `say_app`."""
    consent(store, "one", "two", "three")
    unsaid(store)

    assert len(store.due(10)) == len(store.due_pulls(10)) == store.fleet_status().total == len(store.all_pairs()) == 3
    assert store.grant("one").grant_id in [claim.grant_id for claim in claims(store)]
    assert [store.say_app(2), store.say_app(2), store.say_app(2)] == [2, 1, 0]
    assert (len(store.grants()), store.of_other_apps()) == (3, {})


def claims(store: Store) -> list[Claim]:
    """Claim what is due."""
    return store.claim_group([grant.grant_id for grant in store.due(10)], owner="x", lease_seconds=9)


def test_a_new_consent_says_its_app(store: Store, other: Store) -> None:
    """A creator who agrees again, to the app that is configured now, is that app's; nothing of the other is left."""
    consent(store, "one")
    unsaid(store)

    assert consent(other, "one", replace=True) == [ConsentResult.REPLACED]
    assert (other.grant("one").consent, store.of_other_apps()) == (2, {"app-2": 1})


def test_the_brake_stops_one_app(store: Store, other: Store) -> None:
    """A wrong secret of one app says nothing about another; pulled for another, it is that one's alone."""
    assert store.pull_brake("wrong secret", probe_seconds=60)
    assert not store.pull_brake("wrong secret", probe_seconds=60)

    assert (store.brake().stopped, other.brake().stopped) == (True, False)
    assert other.may_refresh(probe_seconds=60)
    assert not store.may_refresh(probe_seconds=60)
    assert not other.release_brake()
    assert (store.claimable([]).brake.stopped, other.claimable([]).brake.stopped) == (True, False)
    assert other.pull_brake("no access", probe_seconds=60)
    assert (store.brake().stopped, other.brake().reason) == (False, "no access")
    assert other.release_brake()


def test_a_brake_from_before_stops_the_app_that_is_configured(store: Store) -> None:
    """A stop survives the upgrade, and is released as before."""
    store.pull_brake("wrong secret", probe_seconds=60)
    store.transact(lambda connection: connection.exec_driver_sql("UPDATE brake SET app_id = ''"), writes=True)

    assert store.brake().stopped
    assert store.release_brake()
