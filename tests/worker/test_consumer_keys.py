"""Consumers' keys: found, revoked, never stored; and the audit that is written before a token leaves."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Any, Final

import pytest

from worker.errors import StoreRefusedError, UsageError
from worker.policy.scope import ConsumerScope, read_scope
from worker.store import HandOut, Store
from worker.telemetry import Fact
from worker.tokens.audit import Audit
from worker.tokens.consumers import ConsumerKeys, add_consumer

ALL: Final = ConsumerScope(everyone=True)


class Clock:
    """A clock that tests set."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_a_key_finds_its_consumer_and_nothing_else_does(store: Store) -> None:
    """A letter more, less or changed, another's secret, nothing, and what is no text of a key find nobody."""
    shop, key = add_consumer(store, "shop", ALL)
    _, other = add_consumer(store, "blog", ALL)
    keys, text = ConsumerKeys(store), key.reveal()

    assert keys.find(text) == shop
    mixed = text[:-43] + other.reveal()[-43:]
    wrong = [
        text[:-1],
        text + "A",
        text.swapcase(),
        mixed,
        "",
        "etk_",
        f" {text}",
        text + "\n",
        "\ud800",
        "x" * 100_000,
    ]
    assert [keys.find(each) for each in wrong] == [None] * len(wrong)


def test_a_key_is_not_in_the_database(store: Store) -> None:
    """Only its hash is, and no view shows the key."""
    shop, key = add_consumer(store, "shop", ALL)
    rows = store.transact(lambda connection: connection.exec_driver_sql("SELECT * FROM consumers").all(), writes=False)

    assert key.reveal()[-43:] not in repr(rows)
    assert key.reveal() not in f"{shop!r} {key!r} {key}"
    assert shop.key_hash not in repr(shop)


def test_a_revoked_key_ends_within_a_second(store: Store) -> None:
    """A key that was found a moment ago is not looked up again; after that the database decides."""
    _, key = add_consumer(store, "shop", ALL)
    clock = Clock()
    keys = ConsumerKeys(store, monotonic=clock)
    assert keys.find(key.reveal()) is not None
    store.revoke_consumer("shop")

    clock.now = 0.9
    assert keys.find(key.reveal()) is not None
    clock.now = 1.1
    assert keys.find(key.reveal()) is None
    assert keys.find(key.reveal()) is None
    assert not keys.seen(key.reveal())


def test_an_unknown_key_takes_the_way_of_a_known_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is compared with some hash by the function that takes as long for each text."""
    _, key = add_consumer(store, "shop", ALL)
    compared: list[tuple[Any, Any]] = []

    def compare(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return bool(one == other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    keys = ConsumerKeys(store)
    keys.find("etk_" + "0" * 16 + "_" + "A" * 43)
    keys.find("no key at all")
    keys.find(key.reveal())

    assert [len(one) == len(other) == 64 for one, other in compared] == [True] * 3


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "-shop", "shop\n", "shöp", "a/b", "<b>"])
def test_an_unfit_name_is_refused(store: Store, name: str) -> None:
    """Names stand in logs, metrics and addresses."""
    with pytest.raises(UsageError, match="a consumer's name has"):
        add_consumer(store, name, ALL)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"everyone": False}, "name the creators"),
        ({"everyone": True, "creators": ["ada"]}, "not both"),
        ({"everyone": False, "creators": ["a da"]}, "a creator's id"),
        ({"everyone": False, "references": [" x"]}, "a reference has"),
        ({"everyone": False, "references": ["*"]}, "a reference has"),
        ({"everyone": False, "references": ["a*b"]}, "a reference has"),
        ({"everyone": False, "references": ["x" * 256]}, "a reference has"),
        ({"everyone": False, "creators": map(str, range(1001))}, "at most 1000 entries"),
    ],
)
def test_an_unfit_scope_is_refused(asked: dict[str, Any], expected: str) -> None:
    """Nobody gets all creators by leaving something out, and each mistake is named."""
    with pytest.raises(UsageError, match=expected):
        read_scope(**{"creators": (), "references": (), **asked})


def test_a_token_is_handed_out_although_the_audit_cannot_be_written() -> None:
    """The log has, as an error, what the row would have had."""

    class Refusing:
        def note_hand_outs(self, rows: Sequence[HandOut]) -> None:
            raise StoreRefusedError("the disk is full")

    refusing: Any = Refusing()
    facts: list[Fact] = []
    Audit(refusing, facts.append).note([HandOut(7, 8, 1, 9)])

    (fact,) = facts
    assert (fact.name, fact.level) == ("token.unaudited", "error")
    assert fact.fields == {"consumer_id": 7, "grant_id": 8, "generation": 9, "reason": "the disk is full"}
