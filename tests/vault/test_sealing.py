"""Sealed bytes open with their key at their place, and nowhere else."""

from __future__ import annotations

import hmac
import os
import traceback
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import LargeBinary
from sqlalchemy.types import TypeDecorator

from worker.errors import KeyMissingError, SealError
from worker.vault import Keyring, PairPlace, SealedPair, Sealer, Token
from worker.vault.keyring import Use, key_of_use
from worker.vault.sealing import DERIVED, DIRECT, NONCE_BYTES, key_id_of

UNHURRIED = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

ACCESS, REFRESH = Token("act.CANARY-access"), Token("rft.CANARY-refresh")
PLACE = PairPlace(creator_id="creator-1", consent=1, generation=12)
ROOTS = Keyring(active=1, keys={1: b"k" * 32}, fingerprint_key=b"f" * 32)
BEFORE_ROOTS = replace(ROOTS, direct=frozenset({1}))
SEALED_DIRECTLY = bytes.fromhex(
    "010100000001000102030405060708090a0b0bbe80004791c83411c27eeb07a66d2b8bead3b56a35776875d3cfbbcb8f16e6fb"
)
"""An access token that was sealed at PLACE, with key 1 of BEFORE_ROOTS, by the version that had no roots."""
SEALED_BY_ROOT = bytes.fromhex(
    "010200000001000102030405060708090a0b0c0d0e0f1011121314151617"
    "19743fe82ca342655a017e5f59e7db13102c3b291b89355c43e9dfa0d654a3ca95"
)
"""The same token for app-1 as it is sealed with key 1 of ROOTS."""
KINDS = pytest.mark.parametrize("keys", [ROOTS, BEFORE_ROOTS], ids=["root", "direct"])


@pytest.fixture
def pair(sealer: Sealer) -> SealedPair:
    """A pair sealed at PLACE."""
    return sealer.seal_pair(ACCESS, REFRESH, PLACE)


def test_a_pair_opens_at_its_place(sealer: Sealer, pair: SealedPair) -> None:
    """What was sealed comes back, and the stored bytes hold none of it."""
    assert sealer.open_access(pair, PLACE) == ACCESS
    assert sealer.open_refresh(pair, PLACE) == REFRESH
    assert b"CANARY" not in pair.sealed_access + pair.sealed_refresh
    assert (pair.key_id, key_id_of(pair.sealed_access), key_id_of(pair.sealed_refresh)) == (1, 1, 1)


@UNHURRIED
@given(plaintext=st.binary(), place=st.binary())
def test_any_bytes_can_be_sealed(plaintext: bytes, place: bytes) -> None:
    """Sealing is for any bytes, and no two seals are the same bytes."""
    sealer = Sealer(Keyring.new())
    first, second = sealer.seal(plaintext, place), sealer.seal(plaintext, place)

    assert sealer.open(first, place) == plaintext
    assert first[6 : 6 + NONCE_BYTES[DERIVED]] != second[6 : 6 + NONCE_BYTES[DERIVED]]


@pytest.mark.parametrize(
    "moved",
    [
        replace(PLACE, table="other"),
        replace(PLACE, creator_id="creator-2"),
        replace(PLACE, consent=2),
        replace(PLACE, generation=13),
        replace(PLACE, consent=11, generation=2),
        replace(PLACE, creator_id="creator-11", consent=1, generation=2),
        replace(PLACE, creator_id="creator-", consent=11, generation=12),
    ],
    ids=["table", "creator", "consent", "generation", "digits moved", "digit to creator", "digit from creator"],
)
def test_bytes_moved_to_another_place_do_not_open(sealer: Sealer, pair: SealedPair, moved: PairPlace) -> None:
    """A row's bytes copied into another row, table or generation are refused, even if the joined texts are equal."""
    for open_one in (sealer.open_access, sealer.open_refresh):
        with pytest.raises(SealError, match="do not open with key 1 at this place"):
            open_one(pair, moved)


def test_swapped_columns_do_not_open(sealer: Sealer, pair: SealedPair) -> None:
    """An access token in the refresh token's column is refused, and the other way round."""
    swapped = replace(pair, sealed_access=pair.sealed_refresh, sealed_refresh=pair.sealed_access)
    for open_one in (sealer.open_access, sealer.open_refresh):
        with pytest.raises(SealError):
            open_one(swapped, PLACE)


@UNHURRIED
@given(
    fields=st.tuples(st.text(max_size=3), st.text(max_size=3)),
    others=st.tuples(st.text(max_size=3), st.text(max_size=3)),
)
def test_no_two_places_share_their_bytes(fields: tuple[str, str], others: tuple[str, str]) -> None:
    """Where a field ends is part of the place, so neighbours cannot borrow from each other."""
    sealer = Sealer(Keyring.new())
    sealed = sealer.seal_pair(ACCESS, REFRESH, replace(PLACE, table=fields[0], creator_id=fields[1]))
    place = replace(PLACE, table=others[0], creator_id=others[1])
    if fields == others:
        assert sealer.open_access(sealed, place) == ACCESS
    else:
        with pytest.raises(SealError):
            sealer.open_access(sealed, place)


@KINDS
def test_every_flipped_bit_is_noticed(keys: Keyring) -> None:
    """No bit of a record, header and nonce included, can change unnoticed; nor can bytes be cut or added."""
    sealer = Sealer(keys)
    sealed = sealer.seal(b"secret", b"place")
    changed = [
        sealed[:at] + bytes([sealed[at] ^ 1 << bit]) + sealed[at + 1 :] for at in range(len(sealed)) for bit in range(8)
    ]
    cut = [sealed[:end] for end in range(len(sealed))]

    for bad in [*changed, *cut, sealed + b"\0", b"\0" + sealed]:
        with pytest.raises(SealError) as caught:
            sealer.open(bad, b"place")
        assert "secret" not in str(caught.value)
        assert "InvalidTag" not in "".join(traceback.format_exception(caught.value))


@KINDS
def test_the_key_id_is_part_of_what_is_sealed(keys: Keyring) -> None:
    """A record that is relabelled with another id does not open, not even if the same bytes stand under that id."""
    sealer = Sealer(
        replace(
            keys, keys=dict.fromkeys((1, 2), keys.keys[1]), direct=frozenset((1, 2)) if keys.direct else keys.direct
        )
    )
    sealed = sealer.seal(b"secret", b"place")
    relabelled = sealed[:5] + b"\2" + sealed[6:]

    assert key_id_of(relabelled) == 2
    with pytest.raises(SealError, match="do not open with key 2"):
        sealer.open(relabelled, b"place")


def test_sealing_is_never_handed_to_a_key_that_is_not_there(sealer: Sealer) -> None:
    """The sealer goes on with the key that it has; otherwise the next pair could not be sealed at all."""
    with pytest.raises(SealError, match="the keyring lacks key 9"):
        sealer.seal_with(9)

    assert sealer.sealing_key_id == 1
    assert key_id_of(sealer.seal(b"secret", b"place")) == 1


def test_sealed_columns_are_plain_bytes() -> None:
    """No column type seals or opens: it could not know the row, and would print what it was given in its errors."""
    from worker.store.clock import Instant  # noqa: PLC0415 - only this test pays for importing the database
    from worker.store.models import METADATA  # noqa: PLC0415 - as above

    columns = [column for table in METADATA.sorted_tables for column in table.columns]
    sealed = {f"{column.table.name}.{column.name}": column for column in columns if column.name.startswith("sealed")}

    assert set(sealed) == {"pairs.sealed_access", "pairs.sealed_refresh", "sentinels.sealed"}
    assert {type(column.type) for column in sealed.values()} == {LargeBinary}
    assert {type(column.type) for column in columns if isinstance(column.type, TypeDecorator)} == {Instant}


def test_another_key_under_the_same_id_does_not_open(pair: SealedPair) -> None:
    """The wrong keyring is an error, not garbage."""
    with pytest.raises(SealError, match="do not open with key 1"):
        Sealer(Keyring.new()).open_access(pair, PLACE)


def test_an_unknown_key_is_named(keyring: Keyring, pair: SealedPair) -> None:
    """The error names the missing key by its id."""
    other = Keyring(active=7, keys={7: os.urandom(32)}, fingerprint_key=keyring.fingerprint_key)
    with pytest.raises(SealError, match="the keyring lacks key 1"):
        Sealer(other).open_access(pair, PLACE)


def test_old_keys_open_while_the_active_one_seals(keyring: Keyring, pair: SealedPair) -> None:
    """A rotation leaves everything readable."""
    both = Keyring(active=2, keys=keyring.keys | {2: os.urandom(32)}, fingerprint_key=keyring.fingerprint_key)
    sealer = Sealer(both, app_id="sandbox-app")

    assert sealer.sealing_key_id == 2
    assert sealer.open_refresh(pair, PLACE) == REFRESH
    assert sealer.seal_pair(ACCESS, REFRESH, PLACE).key_id == 2


def test_a_token_that_is_no_utf_8_is_kept(sealer: Sealer) -> None:
    """Half a surrogate pair in an answer does not cost the pair."""
    odd = Token("rft.\ud800")
    place = replace(PLACE, creator_id="c\udfff")

    assert sealer.open_refresh(sealer.seal_pair(ACCESS, odd, place), place) == odd


@pytest.mark.parametrize("show", [repr, str, lambda sealer: repr(vars(sealer))], ids=["repr", "str", "vars"])
def test_a_sealer_shows_no_key(sealer: Sealer, show: Callable[[Sealer], str]) -> None:
    """Printing what holds the keys shows none of them."""
    assert repr(sealer.keyring.keys[1])[2:-1] not in show(sealer)


def independent(root: bytes, use: bytes, nonce: bytes) -> AESGCM:
    """Return the cipher of a record as RFC 5869 has it, computed with the standard library alone."""
    extracted = hmac.digest(bytes(32), root, "sha256")
    of_use = hmac.digest(extracted, b"evertoken seal " + use + b"\x01", "sha256")
    return AESGCM(hmac.digest(of_use, b"evertoken record " + nonce + b"\x01", "sha256"))


def place_bytes(*fields: str) -> bytes:
    """Return fields with their lengths before them."""
    return b"".join(len(field).to_bytes(4, "big") + field.encode() for field in fields)


@pytest.mark.parametrize(("use", "open_one"), [(b"access", Sealer.open_access), (b"refresh", Sealer.open_refresh)])
def test_each_record_has_a_key_of_its_own(use: bytes, open_one: Callable[..., Token]) -> None:
    """Each column of a pair is sealed with HKDF's key for its use and its 24 random bytes, bound to app and place."""
    sealed = Sealer(ROOTS, app_id="app-1").seal_pair(Token("x"), Token("x"), PLACE)
    record = sealed.sealed_access if use == b"access" else sealed.sealed_refresh
    header, nonce, ciphertext = record[:6], record[6:30], record[30:]
    bound = header + place_bytes("pairs", f"sealed_{use.decode()}", "app-1", "creator-1", "1", "12")

    assert header == b"\x01\x02\0\0\0\x01"
    assert independent(ROOTS.keys[1], use, nonce).decrypt(nonce[12:], ciphertext, bound) == b"x"
    assert open_one(Sealer(ROOTS, app_id="app-1"), sealed, PLACE) == Token("x")


def test_what_is_stored_stays_readable() -> None:
    """The bytes of both kinds of keys, as they lie in databases, open for ever."""
    for keys, sealed in ((BEFORE_ROOTS, SEALED_DIRECTLY), (ROOTS, SEALED_BY_ROOT)):
        pair = SealedPair(sealed_access=sealed, sealed_refresh=b"", key_id=1)
        assert Sealer(keys, app_id="app-1").open_access(pair, PLACE) == ACCESS


def test_a_pair_of_another_app_does_not_open() -> None:
    """What one app's creator consented to is not read as another app's, even for the same creator."""
    sealed = Sealer(ROOTS, app_id="app-1").seal_pair(ACCESS, REFRESH, PLACE)
    for open_one in (Sealer.open_access, Sealer.open_refresh):
        with pytest.raises(SealError, match="do not open with key 1 at this place"):
            open_one(Sealer(ROOTS, app_id="app-2"), sealed, PLACE)


@pytest.mark.parametrize(("keys", "other"), [(ROOTS, BEFORE_ROOTS), (BEFORE_ROOTS, ROOTS)], ids=["root", "direct"])
def test_a_key_has_one_kind_for_its_whole_life(keys: Keyring, other: Keyring) -> None:
    """A root never seals a record itself, and a key that did is no root, whatever the record claims."""
    sealed = Sealer(keys).seal(b"secret", b"place")
    with pytest.raises(SealError, match="key 1 is not of that kind"):
        Sealer(other).open(sealed, b"place")


def test_both_kinds_of_keys_live_in_one_keyring() -> None:
    """Pairs of the older kind open while a root seals, until they are sealed again."""
    old = Sealer(BEFORE_ROOTS).seal_pair(ACCESS, REFRESH, PLACE)
    both = Sealer(replace(BEFORE_ROOTS, active=2, keys=BEFORE_ROOTS.keys | {2: b"r" * 32}), app_id="app-1")
    new = both.seal_pair(both.open_access(old, PLACE), both.open_refresh(old, PLACE), PLACE)

    assert (old.sealed_access[1], new.sealed_access[1]) == (DIRECT, DERIVED)
    assert (both.open_access(new, PLACE), both.open_refresh(new, PLACE)) == (ACCESS, REFRESH)


def test_a_readers_keyring_opens_access_tokens_alone() -> None:
    """It opens no refresh token and no record of the journal, in either column, and seals nothing."""
    whole = Sealer(ROOTS, app_id="app-1")
    pair, record = whole.seal_pair(ACCESS, REFRESH, PLACE), whole.seal(b"answer", b"place")
    reader = Sealer(ROOTS.reader(), app_id="app-1")
    swapped = replace(pair, sealed_access=pair.sealed_refresh)

    assert reader.open_access(pair, PLACE) == ACCESS
    for refused in (
        lambda: reader.open_refresh(pair, PLACE),
        lambda: reader.open(record, b"place"),
        lambda: reader.seal(b"x", b"place"),
        lambda: reader.seal_pair(ACCESS, REFRESH, PLACE),
    ):
        with pytest.raises(SealError, match="opens access tokens and nothing else"):
            refused()
    with pytest.raises(SealError, match="do not open"):
        reader.open_access(swapped, PLACE)


def test_a_readers_keyring_holds_nothing_that_opens_more() -> None:
    """Neither as a root, nor as a key that seals itself, do its bytes open a refresh token or a record."""
    whole = Sealer(ROOTS, app_id="app-1")
    pair, record = whole.seal_pair(ACCESS, REFRESH, PLACE), whole.seal(b"answer", b"place")
    keys = ROOTS.reader().keys
    assert keys == {1: key_of_use(ROOTS.keys[1], Use.ACCESS)}

    for pretended in (Keyring(1, keys, b"f" * 32), Keyring(1, keys, b"f" * 32, direct=frozenset({1}))):
        sealer = Sealer(pretended, app_id="app-1")
        with pytest.raises(SealError):
            sealer.open_refresh(pair, PLACE)
        with pytest.raises(SealError):
            sealer.open(record, b"place")


def test_a_readers_keyring_says_how_it_learns_of_a_new_key() -> None:
    """After a rotation the reader's keyring is made again; the error names the key and the command."""
    newer = Sealer(Keyring(active=2, keys={2: b"n" * 32}, fingerprint_key=b"f" * 32))
    with pytest.raises(KeyMissingError, match="lacks key 2: write it again with `celery -A worker keys reader`"):
        Sealer(ROOTS.reader()).open_access(newer.seal_pair(ACCESS, REFRESH, PLACE), PLACE)


def test_a_readers_keyring_says_which_tokens_wait_for_a_rotation() -> None:
    """No reader's keyring can hold a key that seals records itself, so making it again would not help."""
    older = Sealer(Keyring(active=2, keys={2: b"n" * 32}, fingerprint_key=b"f" * 32, direct=frozenset({2})))
    with pytest.raises(KeyMissingError, match=r"key 2 seals records itself.*after `celery -A worker keys rotate`"):
        Sealer(ROOTS.reader()).open_access(older.seal_pair(ACCESS, REFRESH, PLACE), PLACE)
