"""Three key rotations in one run, while workers refresh and read: nothing fails to open, and nothing comes late."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.security.rotation_fleet import Fleet, presence_of
from tests.support.daemon import daemon_settings
from tests.support.small_accounts import small_sandbox
from tests.support.world import World
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox
from worker.sandbox.verdict import REFRESH_CALL, judge
from worker.store import GrantView
from worker.upkeep.rekey import RekeyReport
from worker.vault import Keyring
from worker.vault.keyring_text import KeyringText

ROTATIONS = 3
CREATORS = 36
SPREAD_SECONDS = 1.5
"""In each rotation another third of the creators falls due, spread over these seconds from its start."""
LIFE_SECONDS = 240
WINDOW_SECONDS = LIFE_SECONDS / 3
"""A refresh is wanted after two thirds of a token's life: the rest is its window."""
CLOCK_SECONDS = 0.1
"""The sandbox writes its times down in another process."""
PATIENCE_SECONDS = 30
"""How long any single step may take on a machine that is busy with other things."""


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    """A TikTok whose access tokens live for minutes and whose used refresh tokens are dead at once."""
    with small_sandbox(SandboxOptions(rotation="strict", expires_in=LIFE_SECONDS)) as running:
        yield running


@pytest.fixture
def world(sandbox: RunningSandbox, store_url: str, redis_url: str, keyring: Keyring, tmp_path: Path) -> Iterator[World]:
    """A database with creators none of whom is due before a rotation makes them so."""
    settings = {"DATABASE_URL": store_url, "REDIS_URL": redis_url, "KEYRING": keyring.to_json()}
    made = World(sandbox, daemon_settings(sandbox, tmp_path, **settings))
    made.creators(CREATORS)
    made.sql(f"UPDATE grants SET next_refresh_at = next_refresh_at + {int(LIFE_SECONDS - WINDOW_SECONDS) * 1000}")  # noqa: S608 - a number of this file
    yield made
    made.close()


class Load:
    """The creators, a third of whom falls due in each rotation.

    Attributes:
        due_at: when each grant fell due.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._waiting = world.services.store.grants(limit=CREATORS)
        self.due_at: dict[int, datetime] = {}
        self._creators = {grant.creator_id: grant.grant_id for grant in self._waiting}

    def fall_due(self) -> set[int]:
        """Make the next third due one after the other, and return their grants."""
        third, self._waiting = self._waiting[: CREATORS // ROTATIONS], self._waiting[CREATORS // ROTATIONS :]
        start = self._world.services.store.ping()
        for number, grant in enumerate(third):
            due_at = start + timedelta(seconds=SPREAD_SECONDS * number / len(third))
            self.due_at[grant.grant_id] = due_at
            self._world.sql(
                f"UPDATE grants SET next_refresh_at = {int(due_at.timestamp() * 1000)} WHERE id = {grant.grant_id}"  # noqa: S608 - numbers
            )
        return {grant.grant_id for grant in third}

    def waited(self) -> dict[int, float]:
        """Return the seconds from falling due to the first refresh that TikTok saw, by grant."""
        waited: dict[int, float] = {}
        for entry in self._world.sandbox.entries():
            grant_id = self._creators.get(str(entry.creator))
            if entry.call == REFRESH_CALL and grant_id is not None:
                seconds = entry.time - self.due_at[grant_id].timestamp()
                if seconds >= -CLOCK_SECONDS:
                    waited.setdefault(grant_id, seconds)
        return waited


def rotate(
    fleet: Fleet, load: Load, wait_until: Callable[..., None], *, extra: GrantView, careless: bool
) -> RekeyReport:
    """Do what an operator does for one rotation, from the new key to the end of the old one.

    Args:
        fleet: the workers.
        load: creators who fall due meanwhile.
        wait_until: waits for a condition.
        extra: a grant that is refreshed and read by each worker that has the new keyring.
        careless: True for one who makes the new key active at once, while some workers do not hold it.
    """
    due = load.fall_due()
    old = fleet.change(lambda keyring: without_retired(keyring).with_new_key()[0]).active
    if not careless:
        fleet.deploy()
    new = fleet.change(lambda keyring: keyring.with_active(max(keyring.keys))).active
    fleet.deploy(extra)
    operator = fleet.operator()
    presence = presence_of(operator, fleet.facts, on_unfit=lambda: None)
    presence.begin()
    wait_until(lambda: operator.sealer.sealing_key_id == new, PATIENCE_SECONDS)
    report = RekeyReport(new)
    operator.rekeyer.rotate(report)
    # A journal record of the old key may wait for its release, or the word of it for the next hello.
    wait_until(lambda: not list(operator.rekeyer.needs(old)), PATIENCE_SECONDS)
    wait_until(lambda: due & fleet.refreshed(), PATIENCE_SECONDS)
    operator.rekeyer.retire(old)
    presence.leave()
    operator.close()
    return report


def without_retired(keyring: KeyringText) -> KeyringText:
    """Return the keyring with its active key alone: the others were retired by the rotation before."""
    for key_id in sorted(keyring.keys.keys() - {keyring.active}):
        keyring = keyring.without(key_id)
    return keyring


@pytest.mark.slow_suite
@pytest.mark.timeout(300)
def test_three_rotations_under_load_fail_no_open_and_delay_no_refresh(
    world: World, keyring: Keyring, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """Workers go on refreshing and reading through three whole rotations, one of them by a careless operator."""
    load = Load(world)
    fleet = Fleet(world, keyring.to_json(), tmp_path / "keyring.json", size=2)
    extra = world.creator()
    try:
        reports = [rotate(fleet, load, wait_until, extra=extra, careless=number == 1) for number in range(ROTATIONS)]
        fleet.change(without_retired)
        fleet.deploy()
        wait_until(lambda: load.due_at.keys() <= fleet.refreshed() and fleet.reads() > CREATORS, WINDOW_SECONDS)
    finally:
        ended = time.time()
        fleet.end()
    operator = fleet.operator()
    operator.preflight.enter()
    world.services = operator  # the first keyring opens nothing any more
    judged = judge(world.sandbox.entries(), world.stored(), until=ended)
    waited = load.waited()
    print(f"longest wait for a refresh {max(waited.values()):.2f} s; {fleet.reads()} reads")  # noqa: T201 - figures

    assert fleet.failed_opens() == []
    assert judged.sound, judged
    assert waited.keys() == load.due_at.keys()
    assert max(waited.values()) < WINDOW_SECONDS
    assert [report.key_id for report in reports] == [2, 3, 4]
    assert all(report.resealed >= CREATORS and not report.unreadable for report in reports), reports
    assert set(operator.store.sentinels()) == {4}
    assert set(operator.store.key_usage()) == {4}
