"""A process's name fits into its column, however long the host's name is."""

from __future__ import annotations

import pytest

from tests.support.world import World
from worker.foundation import shortened
from worker.store import Store


@pytest.mark.parametrize("length", [1, 48, 49, 63, 64, 253])
def test_a_host_name_of_any_length_gives_a_name_that_is_taken(
    length: int, new_world: object, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process joins the living ones and claims, on both databases."""
    host = ("evertoken-worker-refresh-" + "x" * 253)[: length - 1] + "Z"
    monkeypatch.setattr("socket.gethostname", lambda: host)
    world: World = new_world()  # type: ignore[operator] # a fixture that makes worlds
    grant = world.creator()

    world.services.preflight.enter()
    world.services.refresher.refresh(grant.grant_id)

    assert world.look(grant).failures == 0
    assert len(world.services.owner) <= 64
    assert world.services.owner.startswith(host[0])
    world.services.preflight.goodbye()


def test_the_middle_of_a_long_name_is_cut_out() -> None:
    """Beginning and end stay, so that the names of one deployment's pods and of one domain's hosts differ."""
    assert shortened("short") == "short"
    assert shortened("a" * 40 + "b" * 40) == "a" * 23 + "~" + "b" * 24
