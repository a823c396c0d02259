"""Sealed bytes open with their key at their place, and nowhere else."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import LargeBinary
from sqlalchemy.types import TypeDecorator

from worker.errors import SealError
from worker.vault import Keyring, PairPlace, SealedPair, Sealer, Token
from worker.vault.sealing import NONCE_BYTES, key_id_of

UNHURRIED = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

ACCESS, REFRESH = Token("act.CANARY-access"), Token("rft.CANARY-refresh")
PLACE = PairPlace(creator_id="creator-1", consent=1, generation=12)


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
    assert first[6 : 6 + NONCE_BYTES] != second[6 : 6 + NONCE_BYTES]


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
    """A row's bytes copied into another row, table or generation are refused, also where the texts run together."""
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


def test_every_flipped_bit_is_noticed(sealer: Sealer) -> None:
    """No bit of a record, header and nonce included, can change unnoticed; nor can bytes be cut or added."""
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


def test_the_key_id_is_part_of_what_is_sealed(keyring: Keyring) -> None:
    """A record that is relabelled with another id does not open, not even where the same bytes stand under that id."""
    twice = Keyring(active=1, keys=dict.fromkeys((1, 2), keyring.keys[1]), fingerprint_key=keyring.fingerprint_key)
    sealer = Sealer(twice)
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
    """Which key is missing is told by its id."""
    other = Keyring(active=7, keys={7: os.urandom(32)}, fingerprint_key=keyring.fingerprint_key)
    with pytest.raises(SealError, match="the keyring lacks key 1"):
        Sealer(other).open_access(pair, PLACE)


def test_old_keys_open_while_the_active_one_seals(keyring: Keyring, pair: SealedPair) -> None:
    """A rotation leaves everything readable."""
    both = Keyring(active=2, keys=keyring.keys | {2: os.urandom(32)}, fingerprint_key=keyring.fingerprint_key)
    sealer = Sealer(both)

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
