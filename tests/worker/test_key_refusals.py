"""Keys at the wrong moment: what happens between two looks is noticed, and what is not known counts as needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.world import World
from worker.errors import NotReadyError
from worker.journal import Journal, JournalEntry
from worker.services import Services
from worker.upkeep.preflight import SENTINEL, SENTINEL_PLACE, Preflight
from worker.upkeep.rekey import Rekeyer
from worker.vault import Keyring, Sealer

NewWorld = Callable[..., World]


def with_keys(keyring: Keyring, *key_ids: int, active: int, letter: bytes = b"k") -> Keyring:
    """Return a keyring of these ids; `letter` makes the bytes of the keys that the first keyring lacks."""
    keys = {key_id: keyring.keys.get(key_id, letter * 31 + bytes([key_id])) for key_id in key_ids}
    return Keyring(active=active, keys=keys, fingerprint_key=keyring.fingerprint_key)


class EventfulJournal(Journal):
    """A journal at whose calls something happens elsewhere."""

    def __init__(self, services: Services, event: Callable[[], object]) -> None:
        super().__init__(services.settings.journal_dir, services.sealer, owner="eventful", floor_bytes=0)
        self._event = event

    def ready(self) -> None:
        """Be ready, after the event."""
        self._event()
        super().ready()

    def key_usage(self) -> dict[int, int]:
        """Count, after the event."""
        self._event()
        return super().key_usage()


def test_a_look_alone_finds_a_missing_key(new_world: NewWorld, keyring: Keyring) -> None:
    """A check that joins nobody refuses a keyring without a key in use, even if no pair is stored yet."""
    world = new_world()
    world.services.preflight.enter()
    other = world.another(KEYRING=with_keys(keyring, 2, active=2).to_json())

    with pytest.raises(NotReadyError, match="lacks key 1, which other processes seal with"):
        other.preflight.check_keyring()


def test_a_key_that_others_take_into_use_while_a_process_starts_is_tried_too(
    new_world: NewWorld, keyring: Keyring
) -> None:
    """It has a key of that number and other bytes; it learns so before it seals, and leaves the list."""
    world = new_world()
    world.services.preflight.enter()
    starting = world.another(KEYRING=with_keys(keyring, 1, 2, active=1, letter=b"x").to_json())
    sealed = Sealer(with_keys(keyring, 1, 2, active=2)).seal(SENTINEL, SENTINEL_PLACE)

    def others_go_on() -> None:
        world.services.store.adopt_key(2, sealed, living_seconds=0)

    ground = replace(starting.ground, journal=EventfulJournal(starting, others_go_on), owner="starting")
    preflight = Preflight(ground, upkeep=starting.upkeep)
    with pytest.raises(NotReadyError, match="key 2 is not the one that sealed"):
        preflight.enter()

    assert {worker.instance_id for worker in world.services.store.workers_seen(60)} == {world.services.owner}


def test_a_pair_that_comes_while_a_key_is_retired_keeps_it(new_world: NewWorld, keyring: Keyring) -> None:
    """The database has the last word: a pair of the key that was stored after the look is not left behind."""
    world = new_world()
    services = world.another(KEYRING=with_keys(keyring, 1, 2, active=2).to_json())
    services.preflight.enter()
    services.store.adopt_key(1, Sealer(keyring).seal(SENTINEL, SENTINEL_PLACE), living_seconds=0)
    rekeyer = Rekeyer(replace(services.ground, journal=EventfulJournal(services, world.creator)))

    with pytest.raises(NotReadyError, match="a pair was sealed with key 1 just now"):
        rekeyer.retire(1)
    assert set(services.store.sentinels()) == {1, 2}


def test_a_process_that_did_not_say_yet_what_it_seals_with_keeps_every_key(
    new_world: NewWorld, keyring: Keyring
) -> None:
    """Between its first word and its choice it may take any key that it holds."""
    world = new_world()
    services = world.another(KEYRING=with_keys(keyring, 1, 2, active=2).to_json())
    services.preflight.enter()
    services.store.hello("new", host="elsewhere", pid=7, key_ids={1, 2}, sealing_key_id=None, journal_key_ids=set())

    with pytest.raises(NotReadyError, match=r"process 7 on elsewhere .* seals with key 1"):
        services.rekeyer.retire(1)


def test_a_journal_that_cannot_be_read_keeps_every_key(new_world: NewWorld, keyring: Keyring, tmp_path: Path) -> None:
    """Nobody knows which keys its records need, so its host says: all of them."""
    world = new_world(JOURNAL_DIR=str(tmp_path / "broken"), KEYRING=with_keys(keyring, 1, 2, active=2).to_json())
    world.services.preflight.enter()
    world.services.journal.close()
    (tmp_path / "broken").rename(tmp_path / "gone")
    (tmp_path / "broken").touch()
    world.services.preflight.hello()
    services = world.another(JOURNAL_DIR=str(tmp_path / "journal"))

    with pytest.raises(NotReadyError, match="records of key 1 wait in the journal of its host"):
        services.rekeyer.retire(1)


def test_a_second_journal_on_a_host_is_not_forgotten(new_world: NewWorld, keyring: Keyring, tmp_path: Path) -> None:
    """A command that runs beside a worker, with a journal folder of its own, does not speak for the worker's."""
    world = new_world(KEYRING=with_keys(keyring, 1, 2, active=2).to_json())
    world.services.sealer.seal_with(1)
    now = world.services.store.ping()
    entry = JournalEntry(
        kind="exchange", grant_id=None, creator_id=None, consent=None, generation=None, call="c", http_status=200,
        body=b"{}", complete=True, fault=None, retry_after=None, sent_at=now, received_at=now,
    )  # fmt: skip
    record = world.services.journal.append(entry)
    world.services.preflight.enter()
    command = world.another(JOURNAL_DIR=str(tmp_path / "other"))
    command.preflight.enter()

    with pytest.raises(NotReadyError, match="records of key 1 wait in the journal of its host"):
        command.rekeyer.retire(1)
    world.services.journal.release(record)
    world.services.preflight.hello()
    assert list(command.rekeyer.needs(1)) == []
