"""The database goes away, slows down or refuses, before the call, after the answer and in the middle of a COMMIT."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import FAST_POSTGRES, ServerProcess
from tests.faults.conftest import NewScene
from tests.faults.databases import read_only, refuse_pairs, take_pairs, writes_held
from tests.faults.proxy import Proxy
from tests.faults.scene import Scene
from worker.policy.verdicts import AttemptOutcome
from worker.store import GrantStatus, open_store

pytestmark = pytest.mark.slow_suite

POSTGRESQL = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)


@pytest.fixture
def proxy(store_url: str) -> Iterator[Proxy]:
    """A proxy before this test's PostgreSQL database."""
    with Proxy(store_url) as proxy:
        yield proxy


def test_a_database_that_takes_no_claim_sends_nothing(scene: Scene, store_url: str) -> None:
    """Nobody asks TikTok for what could not be kept."""
    grant = scene.creator()

    with writes_held(store_url):
        kinds = scene.kinds(scene.refresh(grant))

    assert kinds in (["StoreUnavailableError"], ["StoreRefusedError"])
    assert scene.sent() == 0
    assert scene.judge() == {}


@POSTGRESQL
def test_a_database_that_is_down_sends_nothing(scene: Scene, proxy: Proxy) -> None:
    """Refused connections are no reason to call TikTok."""
    grant = scene.creator()
    proxy.down()

    assert scene.kinds(scene.refresh(grant, DATABASE_URL=proxy.url)) == ["StoreUnavailableError"]
    assert scene.sent() == 0
    assert scene.look(grant).generation == 1


@POSTGRESQL
def test_a_database_that_is_down_after_the_answer_gets_the_pair_when_it_is_back(
    scene: Scene, proxy: Proxy, wait_until: Callable[..., None]
) -> None:
    """The journal holds the pair, the worker goes on trying and claims nothing new meanwhile."""
    first, second = scene.creators(2)
    worker = scene.worker(
        {"do": "refresh", "ids": [first.grant_id, second.grant_id]},
        {"do": "serve", "threads": 1},
        at="post_fsync:stop@1",
        DATABASE_URL=proxy.url,
    )
    worker.stopped()
    proxy.down()
    worker.resume()
    scene.wait_for("not_ready")

    assert scene.sent() == 1, "nothing new is claimed"
    assert len(scene.kept()) == 1
    proxy.up()
    wait_until(lambda: scene.look(first).pair_generation == 2 and scene.look(second).pair_generation == 2)
    worker.finish()

    assert len(scene.world.refreshes(first)) == 1
    assert scene.judge() == {}


@POSTGRESQL
def test_a_read_only_database_sends_nothing_and_loses_nothing(
    new_scene: NewScene, new_postgres: Callable[..., ServerProcess], wait_until: Callable[..., None]
) -> None:
    """After a failover to a standby claims fail, and what was answered before is kept until it can be written."""
    url = new_postgres(*FAST_POSTGRES).url
    store = open_store(url)
    store.upgrade()
    store.close()
    scene = new_scene(database_url=url)
    before, during = scene.creators(2)
    worker = scene.worker(
        {"do": "refresh", "ids": [before.grant_id]}, {"do": "serve", "threads": 1}, at="post_fsync:stop@1"
    )
    worker.stopped()
    with read_only(url):
        worker.resume()
        scene.wait_for("left_over")
        assert scene.kinds(scene.refresh(during)) == ["StoreUnavailableError"]
        assert scene.sent() == 1
    wait_until(lambda: scene.look(before).pair_generation == 2)
    worker.finish()

    assert scene.judge() == {}


@POSTGRESQL
@pytest.mark.parametrize("commit", [1, 2], ids=["of the claim", "of the pair"])
def test_a_commit_whose_outcome_is_unknown_is_completed(scene: Scene, proxy: Proxy, commit: int) -> None:
    """The server has committed and the connection dies: writing again changes nothing, and one version is there."""
    grant = scene.creator()
    if commit == 1:
        proxy.lose_commits = 1
        worker = scene.refresh(grant, DATABASE_URL=proxy.url)
    else:
        worker = scene.refresh(grant, at="post_fsync:stop", DATABASE_URL=proxy.url)
        worker.stopped()
        proxy.lose_commits = 1
        worker.resume()
    worker.ended()

    assert proxy.lost == 1
    assert scene.judge() == {}
    pairs = [pair.generation for pair in scene.store.all_pairs()]
    assert len(pairs) == len(set(pairs))


def test_a_step_that_fails_after_the_commit_changes_nothing_that_was_committed(scene: Scene) -> None:
    """The thread dies between the commit and the journal's release: the replay finds the pair stored."""
    grant = scene.creator()

    assert scene.kinds(scene.refresh(grant, at="post_commit:raise")) == ["crashed"]
    assert scene.look(grant).pair_generation == 2
    assert scene.judge() == {}


def test_a_slow_database_keeps_its_lease_and_gets_the_pair(scene: Scene, store_url: str) -> None:
    """While one worker waits for its commit, another claims nothing."""
    grant = scene.creator()
    worker = scene.refresh(grant, at="post_fsync:stop", STORE_SECONDS="5", LEASE_SECONDS="7")
    worker.stopped()
    with writes_held(store_url):
        worker.resume()
        other = scene.refresh(grant)
        assert scene.kinds(other) in (["StoreUnavailableError"], ["StoreRefusedError"], ["skipped"])
    worker.ended()

    assert scene.kinds(worker) == ["refreshed"]
    assert scene.sent() == 1
    assert scene.judge() == {}


def test_a_row_that_is_refused_holds_up_no_other(scene: Scene) -> None:
    """One grant's pair cannot be written: its answer stays in the journal, the others are refreshed."""
    bad, good = scene.creators(2)
    refuse_pairs(scene.store, bad.grant_id)
    worker = scene.refresh(bad, good)

    assert scene.kinds(worker) == ["left_over", "refreshed"]
    assert len(scene.kept()) == 1
    take_pairs(scene.store)
    assert scene.judge() == {}
    assert scene.look(bad).status is GrantStatus.ACTIVE


def test_a_refused_row_does_not_hold_up_the_journals_of_the_dead(scene: Scene) -> None:
    """A record that the database refuses stays, and the next ones are replayed."""
    grants = scene.creators(3)
    for grant in grants:
        scene.refresh(grant, at="post_fsync:kill").ended()
    refuse_pairs(scene.store, grants[0].grant_id)
    scene.worker({"do": "replay"}).ended()

    assert [scene.look(grant).pair_generation for grant in grants] == [1, 2, 2]
    assert len(scene.kept()) == 1
    take_pairs(scene.store)
    assert scene.judge() == {}


def test_an_answer_that_a_living_worker_holds_is_not_asked_for_again(scene: Scene, store_url: str) -> None:
    """A pair waits for the database longer than its lease lasts: nobody sends the used token meanwhile."""
    grant = scene.creator()
    worker = scene.worker(
        {"do": "refresh", "ids": [grant.grant_id]}, {"do": "hold"}, at="post_fsync:stop", STORE_SECONDS="0.1"
    )
    worker.stopped()
    with writes_held(store_url):
        worker.resume()
        scene.wait_for("left_over")
    scene.end_leases()

    assert scene.kinds(scene.refresh(grant)) == ["skipped"]
    assert scene.sent() == 1
    worker.kill()
    assert scene.judge() == {}
    assert scene.store.attempts(grant.grant_id)[-1].outcome is AttemptOutcome.REFRESHED


def test_a_thread_that_failed_after_the_answer_leaves_the_pair_to_its_process(
    scene: Scene, wait_until: Callable[..., None]
) -> None:
    """An exception that nobody foresaw, between journal and commit: the living process stores the pair itself."""
    grant = scene.creator()
    worker = scene.worker(
        {"do": "refresh", "ids": [grant.grant_id]}, {"do": "serve", "threads": 1}, at="pre_commit:raise@1"
    )
    scene.wait_for("crashed")
    wait_until(lambda: scene.look(grant).pair_generation == 2)
    worker.finish()

    assert scene.sent() == 1
    assert scene.judge() == {}


@pytest.mark.parametrize("step", ["pre_journal", "post_write", "post_fsync"])
def test_a_journal_that_fails_as_nobody_foresaw_costs_no_pair(scene: Scene, step: str) -> None:
    """Whatever exception its writing ends in, the answer is read and the database gets the pair."""
    grant = scene.creator()

    assert scene.kinds(scene.refresh(grant, at=f"{step}:raise")) == ["refreshed"]
    assert scene.look(grant).pair_generation == 2
    assert scene.judge() == {}
