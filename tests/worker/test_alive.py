"""The dead-man check: one command and one page answer whether the fleet was scanned and refreshed lately."""

from __future__ import annotations

from collections.abc import Callable
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.support.world import World
from worker.cli.alive import WITHIN_SECONDS, fleet_alive
from worker.cli.exporter import Rounds
from worker.telemetry.fleet import FleetMetrics
from worker.telemetry.serving import serve

NewWorld = Callable[..., World]


@pytest.fixture
def world(new_world: NewWorld) -> World:
    """A fleet of one grant that is fresh, scanned just now."""
    world = new_world()
    world.creator()
    world.sql("UPDATE grants SET next_refresh_at = access_expires_at - 3600000")
    world.services.store.note_tick()
    return world


def test_a_fleet_that_was_scanned_and_has_nothing_due_is_alive(world: World) -> None:
    """The sentence says when."""
    lives, text = fleet_alive(world.services, WITHIN_SECONDS)

    assert lives
    assert text.startswith("alive: scanned 0 s ago")


def test_a_pause_does_not_look_like_a_fleet_that_is_refreshed(world: World) -> None:
    """Nobody is woken by what a person wished, and the line says it."""
    world.services.store.pause()
    lives, text = fleet_alive(world.services, WITHIN_SECONDS)

    assert lives
    assert text.endswith("; somebody has paused grants, and these are not refreshed")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("UPDATE beat SET ticked_at = ticked_at - 660000", "no message from beat has reached a worker for"),
        ("DELETE FROM beat", "no message from beat has ever reached a worker"),
        ("UPDATE beat SET ticked_at = ticked_at + 86400000", "the database's clock was set back"),
        ("UPDATE grants SET access_expires_at = issued_at - 660000", "an access token ended 11 min"),
        (
            "UPDATE grants SET failures = 3, access_expires_at = issued_at - 660000, next_refresh_at = 9e12",
            "an access token ended 11 min",
        ),
        ("UPDATE grants SET next_refresh_at = issued_at - 660000", "a grant has been due for"),
    ],
)
def test_a_fleet_that_nobody_scans_or_refreshes_is_not_alive(world: World, wrong: str, words: str) -> None:
    """Whichever of the two is missing, it is named; the page says the same with 503."""
    rounds = Rounds(world.services, FleetMetrics("1"))
    pages = {"/alive": rounds.alive}
    port = serve(0, "127.0.0.1", rounds.metrics.registry, alive=lambda: True, report=print, pages=pages)
    with urlopen(f"http://127.0.0.1:{port}/alive", timeout=30) as answer:
        assert answer.read().startswith(b"alive: ")
    world.sql(wrong)

    assert words in fleet_alive(world.services, WITHIN_SECONDS)[1]
    with pytest.raises(HTTPError) as refused:
        urlopen(f"http://127.0.0.1:{port}/alive", timeout=30)
    with refused.value:
        assert refused.value.code == 503
        assert words in refused.value.read().decode()


@pytest.mark.parametrize(
    "waits",
    [
        "UPDATE grants SET failures = 3, access_expires_at = issued_at - 660000, next_refresh_at = issued_at + 1200000",
        "UPDATE grants SET status = 'needs_reauth', access_expires_at = issued_at - 660000",
        "UPDATE beat SET ticked_at = ticked_at + 5000",
    ],
)
def test_what_waits_as_planned_is_alive(world: World, waits: str) -> None:
    """A grant that is tried again soon, one that only its creator can help, and two readings of one clock."""
    world.sql(waits)

    assert fleet_alive(world.services, WITHIN_SECONDS)[0]


def test_a_pause_excuses_a_token_that_ended(world: World) -> None:
    """A person wished it."""
    world.sql("UPDATE grants SET access_expires_at = issued_at - 660000")
    world.services.store.pause()

    assert fleet_alive(world.services, WITHIN_SECONDS)[0]


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_the_page_says_that_the_database_is_away(new_world: NewWorld, free_port: int, database_kind: str) -> None:
    """An outage of the database is no traceback."""
    away = new_world().another(DATABASE_URL=f"postgresql://nobody@127.0.0.1:{free_port}/nothing")

    assert Rounds(away, FleetMetrics("1")).alive() == (False, "not alive: the database does not answer")
