"""What the doctor says of two installations that were given the same tables, or the same app on one Redis."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.support.world import World
from tests.worker.conftest import new_world, sandboxes
from worker.cli import checks, checks_outside
from worker.limiter.rights import others_of_app

__all__ = ["new_world", "sandboxes"]

NewWorld = Callable[..., World]


def test_two_namespaces_on_the_same_tables_are_noticed(
    new_world: NewWorld, database_kind: str, store_url: str, tmp_path: Path
) -> None:
    """While a process of the other lives; one of an older version, which does not say, is no other."""
    world = new_world()
    url = store_url if database_kind == "sqlite" else f"{store_url}?schema=public"
    other = world.another(NAMESPACE="shop", DATABASE_URL=url, JOURNAL_DIR=str(tmp_path / "other"))
    world.services.presence.begin()
    assert checks.database(world.services).state == "ok"

    other.presence.begin()
    ours, theirs = checks.database(world.services), checks.database(other)
    assert (ours.state, theirs.state) == ("fail", "fail")
    assert "with the namespace shop work on these tables too" in ours.detail
    assert "with no namespace work on these tables too" in theirs.detail

    world.sql("UPDATE workers SET namespace = NULL WHERE namespace = ''")
    assert checks.database(other).state == "ok"
    other.presence.leave()
    assert checks.database(world.services).state == "ok"


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_two_installations_of_one_app_on_one_redis_are_noticed(
    new_world: NewWorld, database_kind: str, redis_url: str, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """Its keys of the quota name the app; another app's, and ours, are no sign."""
    world = new_world()
    for services in (world.services, world.another(NAMESPACE="shop", TIKTOK_APP_ID="sandbox-appX")):
        assert services.limiter.take(lane="refresh", call="c", account="1") == 0
    assert checks_outside.quota(world.services).state == "ok"

    other = world.another(NAMESPACE="shop", JOURNAL_DIR=str(tmp_path / "other"))
    assert other.limiter.take(lane="refresh", call="c", account="1") == 0
    # A process is on the list once a thread of its limiter has greeted Redis.
    wait_until(lambda: checks_outside.quota(world.services).state == "warn")
    assert "(keys evertoken-shop:*)" in checks_outside.quota(world.services).detail
    wait_until(lambda: "(keys evertoken:*)" in checks_outside.quota(other).detail)


def test_a_user_without_the_right_to_search_is_told_nothing(redis_url: str) -> None:
    """The search is no right that a worker needs; an app's id is taken as it is written."""
    with redis.Redis.from_url(redis_url) as client:
        client.set("evertoken-a:limit:app:workers", "1")
        client.set("evertoken-b:limit:a*p:workers", "1")
        assert others_of_app(redis_url, "evertoken:", "a*p") == ["evertoken-b:"]
        client.execute_command("ACL SETUSER few on nopass ~* &* +@all -scan")
        try:
            assert others_of_app(redis_url.replace("//", "//few:x@"), "evertoken:", "app") is None
        finally:
            client.execute_command("ACL DELUSER few")
