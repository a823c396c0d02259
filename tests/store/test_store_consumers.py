"""Consumers in the database: names, scopes, revocation, and the rows and counts of what was handed out."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.store.conftest import Fleet
from worker.errors import NotFoundError, UsageError
from worker.policy.scope import ConsumerScope, read_scope
from worker.store import ConsumerView, HandOut, Store, open_store

ALL = ConsumerScope(everyone=True)


def add(store: Store, name: str = "shop", handle: str = "a1", scope: ConsumerScope = ALL) -> ConsumerView:
    """Store a consumer whose key has a made-up hash."""
    return store.add_consumer(name, handle=handle, key_hash=f"hash of {handle}", scope=scope)


def scope_of(creators: Iterable[str] = (), references: Iterable[str] = ()) -> ConsumerScope:
    """Return a scope of what is listed."""
    return read_scope(everyone=False, creators=creators, references=references)


def test_a_consumer_is_found_by_its_handle_until_it_is_revoked(store: Store) -> None:
    """Its scope comes back as it was given; a revoked one is only listed on demand, and its name is free again."""
    scope = scope_of(["ada"], ["shop7-*", "user-42"])
    added = add(store, scope=scope)

    assert store.consumer_of("a1") == added
    assert added.scope == scope
    assert store.consumers() == [added]
    revoked = store.revoke_consumer("shop")
    assert revoked.revoked_at is not None
    assert store.consumer_of("a1") is None
    assert store.consumers() == []
    again = add(store, handle="a2")
    assert store.consumers(revoked=True) == [revoked, again]


def test_a_name_is_taken_once(store: Store) -> None:
    """Two keys that work never have the same name, and nothing is replaced."""
    first = add(store)

    with pytest.raises(UsageError, match="there is a consumer shop already"):
        add(store, handle="a2")
    assert store.consumers() == [first]


def test_only_a_consumer_that_works_is_revoked(store: Store) -> None:
    """An unknown name, and a second revocation, are findings."""
    with pytest.raises(NotFoundError, match="there is no consumer shop"):
        store.revoke_consumer("shop")
    add(store)
    store.revoke_consumer("shop")
    with pytest.raises(NotFoundError):
        store.revoke_consumer("shop")


def test_consumers_belong_to_an_app(store: Store, store_url: str) -> None:
    """With another app's settings a key finds nobody, and a name is free."""
    add(store)
    other = open_store(store_url, app_id="another")
    try:
        assert other.consumer_of("a1") is None
        assert other.consumers() == []
        assert add(other, handle="b1").name == "shop"
        with pytest.raises(NotFoundError):
            other.revoke_consumer("nobody")
        assert store.consumer_of("a1") is not None
    finally:
        other.close()


def test_hand_outs_are_rows_and_counts(store: Store) -> None:
    """Who got whose token, which one and when, newest first; each consumer counts its own."""
    fleet = Fleet(store)
    ada, bob = fleet.add("ada").grant_id, fleet.add("bob").grant_id
    shop, blog = add(store), add(store, "blog", "b1")
    store.note_hand_outs([HandOut(shop.consumer_id, ada, 1, 1), HandOut(blog.consumer_id, ada, 1, 1)])
    store.note_hand_outs([HandOut(shop.consumer_id, bob, 1, 2)])

    rows = store.hand_outs()
    assert [(row.consumer, row.creator_id, row.generation) for row in rows] == [
        ("shop", "bob", 2), ("blog", "ada", 1), ("shop", "ada", 1),
    ]  # fmt: skip
    assert [row.consumer for row in store.hand_outs(creator_id="ada")] == ["blog", "shop"]
    assert [row.creator_id for row in store.hand_outs(consumer="shop")] == ["bob", "ada"]
    assert store.hand_outs(before_id=rows[1].hand_out_id, limit=5) == [rows[2]]
    counts = {each.name: (each.handed_out, each.last_used_at is not None) for each in store.consumers()}
    assert counts == {"blog": (1, True), "shop": (2, True)}


def test_old_hand_outs_are_pruned(store: Store) -> None:
    """Rows go in batches once they are old; the counts stay."""
    ada = Fleet(store).add("ada").grant_id
    shop = add(store)
    store.note_hand_outs([HandOut(shop.consumer_id, ada, 1, number) for number in range(1, 4)])

    assert store.prune_hand_outs(3600, 10) == 0
    assert store.prune_hand_outs(-1, 2) == 2
    assert [row.generation for row in store.hand_outs()] == [3]
    assert store.prune_hand_outs(-1, 2) == 1
    assert store.consumers()[0].handed_out == 3


@pytest.mark.parametrize(
    ("scope", "seen"),
    [
        pytest.param(ALL, ["ada", "bob", "Cid", "dan"], id="everyone"),
        pytest.param(scope_of(["ada", "nobody"]), ["ada"], id="a creator"),
        pytest.param(scope_of((), ["shop7-1"]), ["ada"], id="a reference"),
        pytest.param(scope_of((), ["shop7-*"]), ["ada", "bob"], id="references that begin alike, in these letters"),
        pytest.param(scope_of(["dan"], ["shop7-2"]), ["bob", "dan"], id="both"),
        pytest.param(scope_of((), ["%*", "_*"]), [], id="no pattern of SQL"),
    ],
)
def test_a_scope_means_the_same_in_python_and_in_sql(store: Store, scope: ConsumerScope, seen: list[str]) -> None:
    """What is listed is what may be read, one by one and as pages."""
    fleet = Fleet(store)
    for creator_id, reference in (("ada", "shop7-1"), ("bob", "shop7-2"), ("Cid", "SHOP7-3"), ("dan", None)):
        fleet.add(creator_id, reference=reference)

    assert [grant.creator_id for grant in store.grants_in_scope(scope)] == seen
    one_by_one = [
        creator_id
        for creator_id in ("ada", "bob", "Cid", "dan", "nobody")
        if store.grant_in_scope(creator_id, scope) is not None
    ]
    assert one_by_one == seen
    if seen:
        first = store.grants_in_scope(scope, limit=1)
        rest = store.grants_in_scope(scope, after_id=first[-1].grant_id)
        assert [grant.creator_id for grant in first + rest] == seen
