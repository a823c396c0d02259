"""A shortage of this host is no trouble of TikTok's: it stops nothing, marks nobody, and asks nobody."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from tests.support.world import World
from worker.cli.checks import shortage
from worker.egress import wire
from worker.store import GrantStatus, GrantView
from worker.telemetry import Fact


def no_descriptor(*_: Any, **__: Any) -> NoReturn:
    """Fail as a process does that can open nothing more."""
    raise OSError(errno.EMFILE, "Too many open files")


def no_memory(*_: Any, **__: Any) -> NoReturn:
    """Fail as a process does that gets no more memory."""
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


def refused(*_: Any, **__: Any) -> NoReturn:
    """Fail as the way to a proxy does that is not there."""
    raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


def no_name(*_: Any, **__: Any) -> NoReturn:
    """Fail as a resolver does that nobody serves."""
    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def try_all(world: World, monkeypatch: pytest.MonkeyPatch, trouble: Callable[..., Any]) -> list[GrantView]:
    """Try to refresh fourteen grants, each of which meets the trouble when it connects."""
    grants = world.creators(14)
    with monkeypatch.context() as patched:
        patched.setattr(wire, "connected", trouble)
        for grant in grants:
            world.services.refresher.refresh(grant.grant_id, force=True)
    assert {world.look(grant).status for grant in grants} == {GrantStatus.ACTIVE}
    return grants


@pytest.mark.parametrize("trouble", [no_descriptor, no_memory], ids=lambda each: str(each.__name__))
def test_a_shortage_of_this_host_stops_nobody_and_is_told(
    new_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, trouble: Callable[..., Any]
) -> None:
    """No brake and no notice, since other hosts can refresh; the log's line and the doctor's name the shortage."""
    world = new_world()
    facts: list[Fact] = []
    object.__setattr__(world.services.ground, "hook", facts.append)
    grants = try_all(world, monkeypatch, trouble)

    store = world.services.store
    assert (store.brake().reason, store.undelivered_notices()) == (None, [])
    assert len([fact for fact in facts if fact.name == "host.short" and fact.level == "error"]) == len(grants)
    found = shortage(world.services)
    assert (found.state, found.detail.partition(":")[0]) == (
        "fail",
        "14 refreshes of the last five minutes were not sent",
    )
    assert world.services.refresher.refresh(grants[0].grant_id, force=True).kind == "refreshed"


@pytest.mark.parametrize("trouble", [refused, no_name], ids=lambda each: str(each.__name__))
def test_a_way_that_leads_nowhere_is_not_called_trouble_of_tiktok(
    new_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, trouble: Callable[..., Any]
) -> None:
    """The brake, which spares the way, says that nothing was sent and where to look."""
    world = new_world()
    try_all(world, monkeypatch, trouble)

    reason = world.services.store.brake().reason or ""
    assert reason.startswith("TikTok was not reached (network, name server or proxy)")
    assert shortage(world.services).state == "ok"
