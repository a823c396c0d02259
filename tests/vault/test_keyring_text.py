"""A keyring's file: keys are added, made active and taken out without opening those that are wrapped."""

from __future__ import annotations

import base64
import json
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.errors import ConfigurationError, NotReadyError, UsageError
from worker.vault import Keyring
from worker.vault.keyring_text import FINGERPRINT_ID, KeyringText, load_unwrap

KEYS = {number: bytes([64 + number]) * 32 for number in range(4)}
ENCODED = {number: base64.b64encode(key).decode() for number, key in KEYS.items()}
PLAIN = json.dumps({"active": 2, "keys": {"1": ENCODED[1], "2": ENCODED[2]}, "fingerprint": ENCODED[3]})
WRAPPED = json.dumps(
    {"active": 1, "keys": {"1": "wrapped:blob one", "2": ENCODED[2]}, "fingerprint": "wrapped:blob print"}
)


def fake_service(key_id: int, blob: str) -> bytes:
    """Stand in for a key service that knows two blobs."""
    return {(1, "blob one"): KEYS[1], (FINGERPRINT_ID, "blob print"): KEYS[3]}[key_id, blob]


def leaky_service(key_id: int, blob: str) -> bytes:
    """Stand in for a key service whose errors reveal too much."""
    raise RuntimeError(f"could not unwrap {blob} with CANARY")


def test_a_new_key_opens_and_does_not_seal_yet() -> None:
    """The active key stays the one that it was, and the new id is above all that ever were."""
    changed, key_id = KeyringText.read(PLAIN).with_new_key()
    keyring = Keyring.from_json(changed.to_json())

    assert (key_id, keyring.active, sorted(keyring.keys)) == (3, 2, [1, 2, 3])
    assert Keyring.from_json(changed.with_active(3).to_json()).active == 3


def test_an_id_is_never_given_twice() -> None:
    """The id of a key that was taken out stands in the file, so that it names one key for ever."""
    text, third = KeyringText.read(PLAIN).with_new_key()
    text = KeyringText.read(text.without(third).to_json())
    assert text.retired == (3,)

    assert text.with_new_key()[1] == 4


@pytest.mark.parametrize(
    ("key_id", "says"), [(2, "key 2 is active in this keyring"), (9, r"holds no key 9; it holds \[1, 2\]")]
)
def test_a_key_in_use_or_unknown_is_not_taken_out(key_id: int, says: str) -> None:
    """The active key stays, and an unknown one is named with those that are there."""
    with pytest.raises(UsageError, match=says):
        KeyringText.read(PLAIN).without(key_id)


def test_an_unknown_key_does_not_become_active() -> None:
    """A wrong number changes nothing."""
    with pytest.raises(UsageError, match="holds no key 5"):
        KeyringText.read(PLAIN).with_active(5)


@pytest.mark.parametrize("retired", [5, [1], ["x"]])
def test_retired_ids_are_numbers_that_are_not_in_use(retired: object) -> None:
    """A list that contradicts the keys is a mistake somewhere."""
    with pytest.raises(ConfigurationError):
        KeyringText.read(json.dumps(json.loads(PLAIN) | {"retired": retired}))


def test_a_key_service_unwraps_each_key_once() -> None:
    """The service is asked for each wrapped key, the fingerprints' among them, and for no other."""
    asked: list[int] = []

    def unwrap(key_id: int, blob: str) -> bytes:
        asked.append(key_id)
        return fake_service(key_id, blob)

    keyring = Keyring.from_json(WRAPPED, unwrap)

    assert (keyring.keys, keyring.fingerprint_key) == ({1: KEYS[1], 2: KEYS[2]}, KEYS[3])
    assert sorted(asked) == [FINGERPRINT_ID, 1]


def test_a_key_may_lie_in_a_file_of_its_own(tmp_path: Path) -> None:
    """What stands behind `file:` is read as base64; the error for a missing file quotes nothing."""
    (tmp_path / "key").write_text(f"{ENCODED[1]}\n")
    text = json.dumps({"active": 1, "keys": {"1": f"file:{tmp_path / 'key'}"}, "fingerprint": ENCODED[3]})
    assert Keyring.from_json(text).keys == {1: KEYS[1]}

    (tmp_path / "key").unlink()
    with pytest.raises(ConfigurationError, match=r"file of the keyring's key 1 cannot be read \(No such file"):
        Keyring.from_json(text)


def test_wrapped_keys_without_a_service_are_refused() -> None:
    """The sentence names the setting that is missing."""
    with pytest.raises(ConfigurationError, match="EVERTOKEN_KEYRING_UNWRAP is not set"):
        Keyring.from_json(WRAPPED)


def test_a_service_that_fails_is_not_quoted() -> None:
    """Its error may hold a key, so only its kind is shown, and nothing is chained."""
    with pytest.raises(NotReadyError, match=r"did not unwrap the keyring's key 1 \(RuntimeError\)") as caught:
        Keyring.from_json(WRAPPED, leaky_service)

    assert "CANARY" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("given", [b"short", ENCODED[1], None])
def test_a_service_must_give_thirty_two_bytes(given: object) -> None:
    """Whatever else it gives is refused, not used as a weak key."""
    with pytest.raises(ConfigurationError, match="did not give 32 bytes for the keyring's key 1"):
        Keyring.from_json(WRAPPED, lambda *_: given)  # type: ignore[arg-type]  # a wrong service


def test_two_blobs_of_one_key_are_found_out() -> None:
    """A key has one id and one use, even if its blobs differ."""
    with pytest.raises(ConfigurationError, match="holds a key twice"):
        Keyring.from_json(WRAPPED, lambda *_: KEYS[1])


def test_a_bare_key_is_not_added_beside_wrapped_ones() -> None:
    """Adding one would undo the wrapping; the error names the id to take."""
    with pytest.raises(UsageError, match="by hand under the id 3"):
        KeyringText.read(WRAPPED).with_new_key()


def test_changes_keep_wrapped_values_as_they_are() -> None:
    """The commands need no key service to change a file."""
    changed = json.loads(KeyringText.read(WRAPPED).with_active(2).to_json())

    assert changed == json.loads(WRAPPED) | {"active": 2}


def test_a_service_is_named_by_module_and_function() -> None:
    """The function of a setting is found, and the error names what cannot be found."""
    found = load_unwrap("base64:b64decode")
    assert found is base64.b64decode  # type: ignore[comparison-overlap]  # any function will do here

    for wrong in ("nowhere:unwrap", "base64:nothing", "base64", "base64:__doc__", ":x"):
        with pytest.raises(ConfigurationError, match="EVERTOKEN_KEYRING_UNWRAP"):
            load_unwrap(wrong)


def test_nothing_of_a_keyring_is_printed() -> None:
    """Its repr shows only ids."""
    shown = repr(KeyringText.read(PLAIN))

    assert "active=2" in shown
    assert not any(value in shown for value in ENCODED.values())


def test_the_kind_stands_before_a_wrapped_value(tmp_path: Path) -> None:
    """A root or a reader's key may lie in a file or behind a key service, as any other."""
    (tmp_path / "key").write_text(ENCODED[2])
    roots = {"active": 1, "keys": {"1": "root:wrapped:blob one", "2": f"root:file:{tmp_path / 'key'}"}}
    keyring = Keyring.from_json(json.dumps(roots | {"fingerprint": ENCODED[3]}), fake_service)
    reader = {"active": 1, "keys": {"1": "access:wrapped:blob one"}, "fingerprint": ENCODED[3]}

    assert (keyring.keys, keyring.direct) == ({1: KEYS[1], 2: KEYS[2]}, frozenset())
    assert Keyring.from_json(json.dumps(reader), fake_service).for_readers
    with pytest.raises(UsageError, match='under the id 3, with "root:" before its value'):
        KeyringText.read(json.dumps(roots | {"fingerprint": ENCODED[3]})).with_new_key()


def test_a_new_key_is_a_root() -> None:
    """Whatever the kinds of the keys before it."""
    changed, key_id = KeyringText.read(PLAIN).with_new_key()
    assert Keyring.from_json(changed.to_json()).direct == {1, 2}
    assert changed.keys[key_id].startswith("root:")


@pytest.mark.parametrize(
    "change",
    [KeyringText.with_new_key, lambda text: text.with_active(1), lambda text: text.without(2)],
    ids=["new", "activate", "retire"],
)
def test_a_readers_keyring_is_not_changed_by_hand(change: Callable[[KeyringText], object]) -> None:
    """It is made again from the keyring that workers use, so that it never holds a key that those lack."""
    reader = KeyringText.read(
        json.dumps({"active": 1, "keys": {"1": f"access:{ENCODED[1]}"}, "fingerprint": ENCODED[3]})
    )
    with pytest.raises(UsageError, match="change the one that workers use, and run `keys reader` again"):
        change(reader)
