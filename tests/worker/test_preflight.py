"""What a worker looks at before it claims anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.world import World
from worker.errors import JournalError, NotReadyError, StoreUnavailableError
from worker.vault import Keyring

NewWorld = Callable[..., World]


def test_a_ready_world_passes(new_world: NewWorld) -> None:
    """With a migrated database, the right keys and a journal, a worker may start, again and again."""
    world = new_world()
    world.creator()

    world.services.preflight.enter()
    world.another().preflight.enter()


def test_a_database_that_is_not_migrated_is_named_with_the_command(
    new_world: NewWorld, empty_database_url: str
) -> None:
    """The worker says which migration is missing and how to run it."""
    services = new_world().another(DATABASE_URL=empty_database_url)

    with pytest.raises(NotReadyError, match="db upgrade"):
        services.preflight.enter()


def test_a_keyring_without_a_key_in_use_is_refused(new_world: NewWorld) -> None:
    """A worker that could not open the pairs never starts, so it never sends."""
    world = new_world()
    world.creator()
    other = Keyring.new()
    renamed = Keyring(active=7, keys={7: other.keys[1]}, fingerprint_key=other.fingerprint_key)

    with pytest.raises(NotReadyError, match="lacks key 1"):
        world.another(KEYRING=renamed.to_json()).preflight.enter()


def test_another_key_of_the_same_number_is_refused(new_world: NewWorld) -> None:
    """The sentinel shows a wrong key, even if no pair is stored yet."""
    world = new_world()
    world.services.preflight.enter()

    with pytest.raises(NotReadyError, match="key 1 is not the one"):
        world.another(KEYRING=Keyring.new().to_json()).preflight.enter()


def test_a_readers_keyring_starts_no_worker(new_world: NewWorld, keyring: Keyring) -> None:
    """A worker that could seal nothing would lose the first pair that it gets, so it says what it needs and ends."""
    reader = new_world().another(KEYRING=keyring.reader().to_json())

    with pytest.raises(NotReadyError, match="use the keyring of the workers"):
        reader.preflight.enter()


def test_a_journal_that_cannot_be_written_is_refused(new_world: NewWorld, tmp_path: Path) -> None:
    """A journal folder that is no folder stops the start."""
    (tmp_path / "occupied").write_text("a file")

    with pytest.raises(JournalError):
        new_world().another(JOURNAL_DIR=str(tmp_path / "occupied")).preflight.enter()


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_file_that_is_away_is_an_outage_and_no_old_schema(new_world: NewWorld, tmp_path: Path) -> None:
    """A worker ends at tables that it does not run on; a file that is not there for a moment it outlives."""
    world = new_world()
    world.services.preflight.enter()
    path = world.services.store.path
    assert path is not None
    away = path.rename(tmp_path / "away")

    with pytest.raises(StoreUnavailableError, match="there is no file"):
        world.services.preflight.check_schema()

    away.rename(path)
    world.services.preflight.check_schema()
