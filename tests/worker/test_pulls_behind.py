"""Pulls right after a refresh, and when they are left to the scan, on both databases."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.world import World

NewWorld = Callable[..., World]


def test_refreshed_grants_are_pulled_at_once_unless_pulls_are_behind(new_world: NewWorld) -> None:
    """No message is added to those that nobody works off; the scan finds the grants when somebody does."""
    world = new_world(SCAN_SECONDS="10")
    scanner, store = world.services.scanner, world.services.store
    first, second = world.creators(2)
    world.services.refresher.refresh(first.grant_id)
    assert [message.ids for message in scanner.pulls_of([first.grant_id])] == [(first.grant_id,)]

    world.sql("UPDATE grants SET next_pull_at = next_pull_at - 31000 WHERE next_pull_at IS NOT NULL")
    world.services.refresher.refresh(second.grant_id)

    assert scanner.pulls_of([second.grant_id]) == []
    assert [message.ids for message in scanner.pulls()] == [(first.grant_id, second.grant_id)]
    assert world.services.puller.pull(first.grant_id).kind == "pulled"
    assert not store.pulls_wait(30)
    assert [message.ids for message in scanner.pulls_of([second.grant_id])] == [(second.grant_id,)]


def test_no_pull_is_published_if_nothing_was_refreshed(new_world: NewWorld) -> None:
    """A batch that found nothing due leaves no message."""
    assert new_world().services.scanner.pulls_of([]) == []
