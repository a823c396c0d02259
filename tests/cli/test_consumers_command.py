"""`consumers`: keys for neighbours, as people and scripts make, list and revoke them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.cli.test_commands import cli, environment
from tests.store.conftest import Fleet
from worker.cli.consumers import consumers
from worker.store import HandOut, Store, open_store
from worker.tokens.consumers import ConsumerKeys

if TYPE_CHECKING:
    from tests.cli.test_commands import Cli

__all__ = ["cli", "environment"]


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """The store of the commands."""
    with closing(open_store(store_url, app_id="sandbox-app")) as opened:
        yield opened


def test_a_key_is_printed_once_and_works(cli: Cli, store: Store) -> None:
    """Standard output has the key alone, so that a script can keep it; the list shows only its public part."""
    added = cli(consumers, "add", "shop", "--reference", "shop7-*", "--creator", "ada")
    key = added.stdout.strip()

    found = ConsumerKeys(store).find(key)
    assert found is not None
    assert found.name == "shop"
    assert "reference shop7-*, creator ada" in added.stderr
    listed = cli(consumers, "list").stdout
    assert f"etk_{found.handle}_..." in listed
    assert key not in listed
    (shown,) = cli.json(consumers, "list")["consumers"]
    assert (shown["creators"], shown["references"], shown["all"]) == (["ada"], ["shop7-*"], False)
    assert "key" not in shown
    assert cli.json(consumers, "add", "other", "--all")["key"].startswith("etk_")


def test_wrong_use_is_said_in_a_sentence(cli: Cli) -> None:
    """No scope, both kinds, a taken name, and a name that cannot be used: exit 2, and nothing is stored."""
    cli(consumers, "add", "shop", "--all")
    for arguments in (("x",), ("x", "--all", "--creator", "ada"), ("shop", "--all"), ("a b", "--all")):
        result = cli(consumers, "add", *arguments)
        assert result.exit_code == 2, arguments
        assert result.stderr.startswith("error: ")
    assert len(cli.json(consumers, "list")["consumers"]) == 1


def test_a_consumer_is_revoked_once(cli: Cli, store: Store) -> None:
    """Its key works no more; an unknown name is a finding."""
    key = cli.json(consumers, "add", "shop", "--all")["key"]
    revoked = cli(consumers, "revoke", "shop")

    assert revoked.exit_code == 0
    assert ConsumerKeys(store).find(key) is None
    again = cli(consumers, "revoke", "shop")
    assert (again.exit_code, "there is no consumer shop" in again.stderr) == (1, True)
    assert cli.json(consumers, "list")["consumers"] == []
    assert [each["name"] for each in cli.json(consumers, "list", "--revoked")["consumers"]] == ["shop"]


def test_the_audit_is_listed_page_by_page(cli: Cli, store: Store) -> None:
    """Who got whose token and when; filters go by consumer and by creator."""
    fleet = Fleet(store)
    ada, bob = fleet.add("ada").grant_id, fleet.add("bob").grant_id
    cli(consumers, "add", "shop", "--all")
    (shop,) = store.consumers()
    store.note_hand_outs([HandOut(shop.consumer_id, ada, 1, 1), HandOut(shop.consumer_id, bob, 1, 1)])

    page = cli.json(consumers, "audit", "--limit", "1")
    assert [row["creator_id"] for row in page["hand_outs"]] == ["bob"]
    rest = cli.json(consumers, "audit", "--before", str(page["next_before"]))
    assert [row["creator_id"] for row in rest["hand_outs"]] == ["ada"]
    assert "ada" in cli(consumers, "audit", "--creator", "ada", "--consumer", "shop").stdout
    assert cli.json(consumers, "audit", "--consumer", "blog")["hand_outs"] == []
