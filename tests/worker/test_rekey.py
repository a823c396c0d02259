"""Rotating keys: mixed fleets, re-sealing beside refreshes, and what keeps a key in use."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tests.support.ground import silent
from tests.support.world import World
from worker.errors import NotReadyError, UsageError
from worker.journal import JournalEntry
from worker.services import Services
from worker.tokens import token_reader
from worker.upkeep.presence import Presence
from worker.upkeep.rekey import RekeyReport
from worker.vault import Keyring

NewWorld = Callable[..., World]


def with_keys(keyring: Keyring, *key_ids: int, active: int) -> str:
    """Return a keyring's JSON that holds these ids; the bytes of an id are always the same."""
    keys = {key_id: keyring.keys.get(key_id, bytes([key_id]) * 32) for key_id in key_ids}
    return Keyring(active=active, keys=keys, fingerprint_key=keyring.fingerprint_key).to_json()


def keys_of_pairs(world: World) -> dict[int, int]:
    """Return how many stored pairs each key has sealed."""
    return world.services.store.key_usage()


def rotate(services: Services) -> RekeyReport:
    """Rotate by these services' keyring."""
    report = RekeyReport(services.keyring.active)
    services.rekeyer.rotate(report)
    return report


def entry() -> JournalEntry:
    """Return an answer as the journal keeps it."""
    now = datetime.now(UTC)
    return JournalEntry(
        kind="exchange", grant_id=None, creator_id=None, consent=None, generation=None, call="c", http_status=200,
        body=b"{}", complete=True, fault=None, retry_after=None, sent_at=now, received_at=now,
    )  # fmt: skip


def test_a_process_does_not_seal_with_a_key_that_another_lacks(new_world: NewWorld, keyring: Keyring) -> None:
    """With an old process about, a new active key waits; it seals once the old one has left."""
    world = new_world()
    old, new = world.services, world.another(KEYRING=with_keys(keyring, 1, 2, active=2))
    old.preflight.enter()
    new.preflight.enter()
    grant = world.creator()

    assert new.refresher.refresh(grant.grant_id).kind == "refreshed"
    assert (new.sealer.sealing_key_id, keys_of_pairs(world)) == (1, {1: 2})
    assert token_reader(old).access_token(grant.creator_id)

    old.preflight.goodbye()
    new.preflight.hello()
    world.make_due(grant)
    assert new.refresher.refresh(grant.grant_id).kind == "refreshed"
    assert (new.sealer.sealing_key_id, keys_of_pairs(world)) == (2, {1: 2, 2: 1})


def test_a_key_that_only_opens_is_not_sealed_with(new_world: NewWorld, keyring: Keyring) -> None:
    """The first step of a rotation, a readable key everywhere, changes nothing yet."""
    world = new_world(KEYRING=with_keys(keyring, 1, 2, active=1))
    world.services.preflight.enter()
    world.creator()

    assert keys_of_pairs(world) == {1: 1}
    assert set(world.services.store.sentinels()) == {1}


def test_a_process_without_a_key_in_use_does_not_enter(new_world: NewWorld, keyring: Keyring) -> None:
    """Before the first pair of a new key is stored, a process that lacks the key is refused already."""
    world = new_world(KEYRING=with_keys(keyring, 1, 2, active=2))
    world.services.preflight.enter()
    old = world.another(KEYRING=keyring.to_json())

    with pytest.raises(NotReadyError, match="lacks key 2, which other processes seal with"):
        old.preflight.enter()
    assert {worker.instance_id for worker in world.services.store.workers_seen(60)} == {world.services.owner}


def test_two_processes_without_a_common_key_do_not_both_work(new_world: NewWorld, keyring: Keyring) -> None:
    """The second is refused by the first one's sentinel."""
    world = new_world()
    world.services.preflight.enter()

    with pytest.raises(NotReadyError, match="lacks key 1"):
        world.another(KEYRING=with_keys(keyring, 2, active=2)).preflight.enter()


def test_a_process_that_cannot_read_any_more_ends(
    new_world: NewWorld, keyring: Keyring, wait_until: Callable[..., None]
) -> None:
    """A process that was silent until the others went on without it learns so at its next hello, and ends."""
    world = new_world()
    ended: list[bool] = []
    presence = Presence(
        preflight=world.services.preflight,
        forgetting=world.services.forgetting,
        hook=silent,
        on_unfit=lambda: ended.append(True),
        seconds=0.01,
    )
    presence.begin()
    world.services.store.adopt_key(2, b"sealed", living_seconds=0)
    wait_until(lambda: ended)
    presence.leave()

    assert world.services.store.workers_seen(60) == []


def test_every_pair_is_sealed_again_and_opens(new_world: NewWorld, keyring: Keyring) -> None:
    """A rotation touches the pairs of other keys alone, and a second one finds nothing to do."""
    world = new_world()
    grants = world.creators(5)
    services = world.another(KEYRING=with_keys(keyring, 1, 2, active=2))
    services.preflight.enter()
    services.refresher.refresh(grants[0].grant_id)
    assert services.rekeyer.left() == 5

    first, again = rotate(services), rotate(services)

    assert (first.resealed, first.passed_over, first.unreadable, again.resealed) == (5, 0, 0, 0)
    assert keys_of_pairs(world) == {2: 6}
    assert all(token_reader(services).access_token(grant.creator_id) for grant in grants)


def test_an_interrupted_rotation_goes_on_where_it_stopped(
    new_world: NewWorld, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch is done when it is done."""
    world = new_world()
    world.creators(6)
    services = world.another(KEYRING=with_keys(keyring, 1, 2, active=2))
    services.preflight.enter()
    monkeypatch.setattr("worker.upkeep.rekey.BATCH", 2)

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        services.rekeyer.rotate(RekeyReport(2), interrupt)
    assert keys_of_pairs(world) == {1: 4, 2: 2}

    assert rotate(services).resealed == 4


def test_a_refresh_between_reading_and_replacing_wins(
    new_world: NewWorld, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pair that changed meanwhile is left to whoever changed it."""
    world = new_world()
    grant = world.creator()
    services = world.another(KEYRING=with_keys(keyring, 1, 2, active=2))
    services.preflight.enter()
    reseal = services.store.reseal

    def late(rows: object) -> int:
        world.services.store.mark_revoked(grant.creator_id)
        return reseal(rows)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(services.store, "reseal", late)
    report = rotate(services)

    assert (report.resealed, report.passed_over) == (0, 1)
    assert keys_of_pairs(world) == {}


def test_pairs_that_do_not_open_are_left_and_named(new_world: NewWorld, keyring: Keyring) -> None:
    """One poisoned row stops nothing and is not touched."""
    world = new_world()
    bad, good = world.creators(2)
    world.sql(f"UPDATE pairs SET sealed_access = sealed_refresh WHERE grant_id = {bad.grant_id}")  # noqa: S608 - a number
    services = world.another(KEYRING=with_keys(keyring, 1, 2, active=2))
    services.preflight.enter()

    report = rotate(services)

    assert (report.resealed, report.unreadable, report.unreadable_grants) == (1, 1, [bad.grant_id])
    assert keys_of_pairs(world) == {1: 1, 2: 1}
    assert token_reader(services).access_token(good.creator_id)
    with pytest.raises(NotReadyError, match="1 stored pairs are sealed with key 1"):
        services.rekeyer.retire(1)


def test_nothing_is_sealed_again_while_a_process_lacks_the_key(new_world: NewWorld, keyring: Keyring) -> None:
    """The process in the way is named, with what to do."""
    world = new_world()
    world.creator()
    world.services.preflight.enter()
    services = world.another(KEYRING=with_keys(keyring, 1, 2, active=2))
    services.preflight.enter()

    with pytest.raises(NotReadyError, match=rf"process {os.getpid()} on .* Give them the new keyring"):
        rotate(services)
    assert keys_of_pairs(world) == {1: 1}


def test_a_key_is_kept_while_a_process_seals_with_it(new_world: NewWorld, keyring: Keyring) -> None:
    """A process that was not given the new active key yet still needs the old one."""
    world = new_world()
    behind = world.another(KEYRING=with_keys(keyring, 1, 2, active=1))
    services = world.another(KEYRING=with_keys(keyring, 1, 2, active=2))
    behind.preflight.enter()
    services.preflight.enter()

    with pytest.raises(NotReadyError, match="seals with key 1; give it the new keyring"):
        services.rekeyer.retire(1)
    behind.preflight.goodbye()
    services.rekeyer.retire(1)

    assert set(services.store.sentinels()) == {2}
    world.another(KEYRING=with_keys(keyring, 2, active=2)).preflight.enter()


def test_a_key_is_kept_while_a_journal_needs_it(new_world: NewWorld, keyring: Keyring) -> None:
    """Records in this host's journal keep their key in use."""
    world = new_world()
    world.services.preflight.enter()
    record = world.services.journal.append(entry())
    world.services.preflight.goodbye()
    services = world.another(KEYRING=with_keys(keyring, 1, 2, active=2))
    services.preflight.enter()

    with pytest.raises(NotReadyError, match="1 records in the journal of this host are sealed with key 1"):
        services.rekeyer.retire(1)
    world.services.journal.release(record)
    services.preflight.hello()
    services.rekeyer.retire(1)


def test_a_key_is_kept_while_another_hosts_journal_needs_it(new_world: NewWorld, keyring: Keyring) -> None:
    """A host whose processes fell silent with records waiting is named, until it says otherwise or is given up."""
    world = new_world()
    services = world.another(KEYRING=with_keys(keyring, 1, 2, active=2))
    say = services.store.hello
    say("lost", host="far", pid=7, key_ids=[1, 2], sealing_key_id=1, journal_key_ids=[1])
    world.sql("UPDATE workers SET last_seen_at = last_seen_at - 3600000")
    services.preflight.enter()

    with pytest.raises(NotReadyError, match=r"process 7 on far .* reported that records of key 1 wait"):
        services.rekeyer.retire(1)
    assert list(services.rekeyer.needs(1, forget_silent=True)) == []
    say("back", host="far", pid=8, key_ids=[1, 2], sealing_key_id=2)
    assert list(services.rekeyer.needs(1)) == []


def test_the_active_key_and_unknown_ones_are_not_retired(new_world: NewWorld) -> None:
    """Neither the key that seals nor one that never was."""
    services = new_world().services
    services.preflight.enter()

    with pytest.raises(NotReadyError, match="make another key active first"):
        services.rekeyer.retire(1)
    with pytest.raises(UsageError, match="there is no key 9 to retire"):
        services.rekeyer.retire(9)
