"""The keyring is read strictly, and its errors say what is wrong without a byte of it."""

from __future__ import annotations

import base64
import json
import traceback
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.errors import ConfigurationError, UsageError
from worker.vault import Keyring

UNHURRIED = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

KEY_A, KEY_B, KEY_C = (base64.b64encode(letter * 32).decode() for letter in (b"a", b"b", b"c"))
GOOD: dict[str, Any] = {"active": 2, "keys": {"1": KEY_A, "2": KEY_B}, "fingerprint": KEY_C}


def test_a_keyring_comes_back_as_it_was() -> None:
    """What `to_json` writes, `from_json` reads; the active key may be a number or its text."""
    keyring = Keyring.from_json(json.dumps(GOOD))

    assert (keyring.active, keyring.keys) == (2, {1: b"a" * 32, 2: b"b" * 32})
    assert Keyring.from_json(keyring.to_json()) == keyring
    assert Keyring.from_json(json.dumps(GOOD | {"active": "2"})) == keyring


ROOT: dict[str, Any] = GOOD | {"keys": {"1": KEY_A, "2": f"root:{KEY_B}"}}


def test_each_key_keeps_its_kind() -> None:
    """A key without a prefix seals records itself, `root:` begins one from which keys are derived; both come back."""
    keyring = Keyring.from_json(json.dumps(ROOT))

    assert (keyring.keys, keyring.direct, keyring.for_readers) == ({1: b"a" * 32, 2: b"b" * 32}, frozenset({1}), False)
    assert json.loads(keyring.to_json()) == ROOT
    assert Keyring.new().direct == frozenset()


def test_a_readers_keyring_comes_back_as_it_was() -> None:
    """It holds the keys of access tokens of the roots, fingerprints of its own, and nothing of the other keys."""
    keyring = Keyring.from_json(json.dumps(ROOT))
    reader = keyring.reader()

    assert Keyring.from_json(reader.to_json()) == reader
    assert (reader.active, list(reader.keys), reader.for_readers) == (2, [2], True)
    assert not {*reader.keys.values(), reader.fingerprint_key} & {*keyring.keys.values(), keyring.fingerprint_key}
    assert json.loads(reader.to_json())["keys"]["2"].startswith("access:")
    assert Keyring.from_json(json.dumps(ROOT | {"active": 1})).reader().active == 2


def test_readers_get_nothing_of_keys_that_seal_everything() -> None:
    """A keyring without a root has nothing that opens access tokens alone, and says what to do."""
    with pytest.raises(UsageError, match="`keys new --add-to`, make it active, and run `keys rotate`"):
        Keyring.from_json(json.dumps(GOOD)).reader()
    with pytest.raises(UsageError, match="reader's keyring already"):
        Keyring.new().reader().reader()


def test_new_keyrings_share_nothing() -> None:
    """Every key is fresh, and the fingerprint key is no sealing key."""
    one, other = Keyring.new(), Keyring.new()

    assert len({one.keys[1], other.keys[1], one.fingerprint_key, other.fingerprint_key}) == 4
    assert Keyring.from_json(one.to_json()) == one


def test_a_keyring_prints_without_its_keys() -> None:
    """Its repr shows only the active key's id."""
    assert repr(Keyring.from_json(json.dumps(GOOD))) == "Keyring(active=2)"


def two(first: str, second: str) -> str:
    """Return a keyring whose keys 1 and 2 have these values."""
    return json.dumps(GOOD | {"keys": {"1": first, "2": second}})


CANARY = base64.b64encode(b"CANARY-CANARY-CANARY").decode()
BAD: dict[str, tuple[str, str]] = {
    "not JSON": (CANARY, "not JSON"),
    "cut JSON": (json.dumps(GOOD)[:-3], "not JSON"),
    "a list": (json.dumps([CANARY]), "names no keys"),
    "no keys": (json.dumps({"active": 1, "keys": {}, "fingerprint": CANARY}), "names no keys"),
    "keys a list": (json.dumps({"active": 1, "keys": [CANARY]}), "names no keys"),
    "id a word": (json.dumps(GOOD | {"keys": {CANARY: KEY_A}}), "is not a number"),
    "id zero": (json.dumps(GOOD | {"keys": {"0": KEY_A}}), "is not a number"),
    "id too large": (json.dumps(GOOD | {"keys": {str(2**32): KEY_A}}), "is not a number"),
    "active missing": (json.dumps({"keys": {"1": KEY_A}, "fingerprint": KEY_C}), "is not a number"),
    "active unknown": (json.dumps(GOOD | {"active": 3}), r"active key 3 is not among its keys \[1, 2\]"),
    "key too short": (json.dumps(GOOD | {"keys": {"1": KEY_A, "2": CANARY}}), "key 2 is not 32 bytes"),
    "key no base64": (json.dumps(GOOD | {"keys": {"1": KEY_A, "2": "CANARY*"}}), "key 2 is not 32 bytes"),
    "key no ASCII": (json.dumps(GOOD | {"keys": {"1": KEY_A, "2": "CANARYé"}}), "key 2 is not 32 bytes"),
    "key a number": (json.dumps(GOOD | {"keys": {"1": KEY_A, "2": 5}}), "key 2 is not 32 bytes"),
    "fingerprint missing": (json.dumps({"active": 1, "keys": {"1": KEY_A}}), "fingerprint is not 32 bytes"),
    "fingerprint a sealing key": (json.dumps(GOOD | {"fingerprint": KEY_A}), "twice"),
    "one key under two ids": (json.dumps(GOOD | {"keys": {"1": KEY_A, "2": KEY_A}}), "twice"),
    "one key of two kinds": (two(KEY_A, f"root:{KEY_A}"), "twice"),
    "one key for readers twice": (
        two(f"access:{KEY_A}", f"access:{KEY_A}"),
        "twice",
    ),
    "a reader's key among others": (two(KEY_A, f"access:{KEY_B}"), "mixes"),
    "a reader's key beside a root": (
        two(f"root:{KEY_A}", f"access:{KEY_B}"),
        "mixes",
    ),
    "an unknown kind": (two(KEY_A, f"refresh:{KEY_B}"), "key 2 is not 32 bytes"),
    "two kinds at once": (
        two(KEY_A, f"root:root:{KEY_B}"),
        "key 2 is not 32 bytes",
    ),
    "a kind and no key": (two(KEY_A, "root:"), "key 2 is not 32 bytes"),
    "a kind of fingerprints": (json.dumps(GOOD | {"fingerprint": f"root:{KEY_C}"}), "fingerprint is not 32 bytes"),
    "one id for two keys": (json.dumps(GOOD | {"keys": {"2": KEY_A, "02": KEY_B}}), "twice"),
}


@pytest.mark.parametrize(("text", "says"), BAD.values(), ids=BAD)
def test_a_wrong_keyring_is_refused_without_an_echo(text: str, says: str) -> None:
    """Each mistake has its sentence; neither it nor the traceback shows what was read."""
    with pytest.raises(ConfigurationError, match=says) as caught:
        Keyring.from_json(text)

    shown = "".join(traceback.format_exception(caught.value))
    assert not any(secret in shown for secret in ("CANARY", CANARY, KEY_A, KEY_B, KEY_C))


@UNHURRIED
@given(text=st.text() | st.builds(json.dumps, st.lists(st.none() | st.integers() | st.text())))
def test_any_text_is_a_keyring_or_refused(text: str) -> None:
    """No text raises anything else."""
    with pytest.raises(ConfigurationError):
        Keyring.from_json(text)
