"""Three key rotations in one run, while workers refresh and read: nothing fails to open, and nothing comes late."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.security.rotation_fleet import Fleet
from tests.support.daemon import daemon_settings
from tests.support.world import World
from worker.rekey import RekeyReport
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox, start_sandbox
from worker.sandbox.verdict import REFRESH_CALL, judge
from worker.store import GrantView
from worker.vault import Keyring
from worker.vault.keyring_text import KeyringText

ROTATIONS = 3
CREATORS = 36
SPREAD_SECONDS = 12
"""The creators fall due over so many seconds, three in each."""
LIFE_SECONDS = 120
WINDOW_SECONDS = LIFE_SECONDS / 3
"""A refresh is wanted after two thirds of a token's life: the rest is its window."""


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    """A TikTok whose access tokens live for seconds and whose used refresh tokens are dead at once."""
    with start_sandbox(SandboxOptions(rotation="strict", expires_in=LIFE_SECONDS)) as running:
        yield running


@pytest.fixture
def world(sandbox: RunningSandbox, store_url: str, redis_url: str, keyring: Keyring, tmp_path: Path) -> Iterator[World]:
    """A database with creators whose refreshes are spread over the time of a life."""
    settings = {"DATABASE_URL": store_url, "REDIS_URL": redis_url, "KEYRING": keyring.to_json()}
    made = World(sandbox, daemon_settings(sandbox, tmp_path, **settings))
    made.creators(CREATORS)
    later = f"next_refresh_at + (id - id / {SPREAD_SECONDS} * {SPREAD_SECONDS}) * 1000"
    made.sql(f"UPDATE grants SET next_refresh_at = {later}")  # noqa: S608 - numbers of this file
    yield made
    made.close()


def rotate(fleet: Fleet, wait_until: Callable[..., None], *, extra: GrantView, careless: bool) -> RekeyReport:
    """Do what an operator does for one rotation, from the new key to the end of the old one.

    Args:
        extra: a grant that is refreshed and read by each worker that has the new keyring.
        careless: True for one who makes the new key active at once, while some workers do not hold it.
    """
    old = fleet.change(lambda keyring: without_retired(keyring).with_new_key()[0]).active
    if not careless:
        fleet.deploy()
    new = fleet.change(lambda keyring: keyring.with_active(max(keyring.keys))).active
    fleet.deploy(extra)
    operator = fleet.operator()
    operator.preflight.enter()
    wait_until(lambda: says_hello(operator.preflight.hello) and operator.sealer.sealing_key_id == new)
    report = RekeyReport(new)
    operator.rekeyer.rotate(report)
    # A journal record of the old key may wait for its release, or the word of it for the next hello.
    wait_until(lambda: not list(operator.rekeyer.needs(old)), 10)
    operator.rekeyer.retire(old)
    operator.preflight.goodbye()
    operator.close()
    return report


def says_hello(hello: Callable[[], None]) -> bool:
    """Say hello, which looks again which key all processes hold."""
    hello()
    return True


def without_retired(keyring: KeyringText) -> KeyringText:
    """Return the keyring with its active key alone: the others were retired by the rotation before."""
    for key_id in sorted(keyring.keys.keys() - {keyring.active}):
        keyring = keyring.without(key_id)
    return keyring


def refreshed(world: World) -> set[str]:
    """Return the creators whose refresh TikTok has seen."""
    return {str(entry.creator) for entry in world.sandbox.entries() if entry.call == REFRESH_CALL}


@pytest.mark.parametrize(
    "database_kind", ["postgresql", pytest.param("sqlite", marks=pytest.mark.slow_suite)], indirect=True
)
def test_three_rotations_under_load_fail_no_open_and_delay_no_refresh(
    world: World, keyring: Keyring, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """Workers go on refreshing and reading through three whole rotations, one of them by a careless operator."""
    due_at = {grant.creator_id: grant.next_refresh_at for grant in world.services.store.grants(limit=100)}
    fleet = Fleet(world, keyring.to_json(), tmp_path / "keyring.json", size=2)
    extra = world.creator()
    try:
        reports = [rotate(fleet, wait_until, extra=extra, careless=number == 1) for number in range(ROTATIONS)]
        fleet.change(without_retired)
        fleet.deploy()
        wait_until(lambda: due_at.keys() <= refreshed(world), SPREAD_SECONDS + WINDOW_SECONDS)
    finally:
        ended = time.time()
        fleet.end()
    operator = fleet.operator()
    operator.preflight.enter()
    world.services = operator  # the first keyring opens nothing any more
    judged = judge(world.sandbox.entries(), world.stored(), until=ended)
    late = [
        entry.time - due_at.pop(str(entry.creator)).timestamp()
        for entry in world.sandbox.entries()
        if entry.call == REFRESH_CALL and entry.creator in due_at
    ]
    print(f"latest refresh {max(late):.2f} s after it was due; {fleet.reads()} reads")  # noqa: T201 - figures

    assert fleet.failed_opens() == []
    assert judged.sound, judged
    assert due_at == {}
    assert max(late) < WINDOW_SECONDS
    assert fleet.reads() > CREATORS
    assert [report.key_id for report in reports] == [2, 3, 4]
    assert all(report.resealed >= CREATORS and not report.unreadable for report in reports), reports
    assert set(operator.store.sentinels()) == {4}
    assert set(operator.store.key_usage()) == {4}
