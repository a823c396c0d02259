"""Sealing: AES-256-GCM with the key's id in the record and the record's place bound as associated data.

A record is `version u8 | algorithm u8 | key id u32 | nonce 12 bytes | ciphertext and tag`. Bytes that are moved to
another table, column, creator, consent or generation do not open. The key is named, never tried.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from worker.errors import SealError
from worker.vault.keyring import Keyring
from worker.vault.token import Token

VERSION: Final = 1
AES_256_GCM: Final = 1
NONCE_BYTES: Final = 12
ENCODING: Final = ("utf-8", "surrogatepass")
"""How texts become bytes: half a surrogate pair, which JSON can bring, must not cost a pair."""
_HEADER: Final = struct.Struct(">BBI")
_TAG_BYTES: Final = 16


@dataclass(frozen=True)
class PairPlace:
    """Where a sealed value lives: a row and a column that its bytes are bound to."""

    creator_id: str
    consent: int
    generation: int
    table: str = "pairs"
    column: str = ""


@dataclass(frozen=True)
class SealedPair:
    """A pair as it is stored: both tokens sealed with one key.

    Attributes:
        sealed_access: the sealed access token.
        sealed_refresh: the sealed refresh token.
        key_id: id of the key that sealed both.
    """

    sealed_access: bytes
    sealed_refresh: bytes
    key_id: int


class Sealer:
    """Seals and opens with a keyring; the one place where tokens at rest become tokens in memory.

    It seals with the keyring's active key, until it is told of another one that all processes hold.
    """

    def __init__(self, keyring: Keyring) -> None:
        self.keyring = keyring
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keyring.keys.items()}
        self._sealing_key_id = keyring.active

    @property
    def sealing_key_id(self) -> int:
        """Id of the key that new records are sealed with."""
        return self._sealing_key_id

    def seal_with(self, key_id: int) -> None:
        """Seal new records with another key of the keyring from now on.

        Raises:
            SealError: the keyring lacks this key.
        """
        if key_id not in self._ciphers:
            raise SealError(f"the keyring lacks key {key_id}")
        self._sealing_key_id = key_id

    def seal(self, plaintext: bytes, place: bytes) -> bytes:
        """Seal bytes with the sealing key, bound to a place.

        Args:
            plaintext: any bytes.
            place: associated data; the same bytes are needed to open.
        """
        return self._seal(self._sealing_key_id, plaintext, place)

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """Open sealed bytes.

        Raises:
            SealError: unknown format, a key that this keyring lacks, or bytes that do not belong to this place.
        """
        key_id = key_id_of(sealed)
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise SealError(f"the keyring lacks key {key_id}")
        header, rest = sealed[: _HEADER.size], sealed[_HEADER.size :]
        try:
            return cipher.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], header + place)
        except InvalidTag:
            raise SealError(f"sealed bytes do not open with key {key_id} at this place") from None

    def seal_pair(self, access: Token, refresh: Token, place: PairPlace) -> SealedPair:
        """Seal both tokens of a pair into the columns of its row."""
        # Read once: another thread may change the sealing key between the two.
        key_id = self._sealing_key_id
        access_bytes, refresh_bytes = (token.reveal().encode(*ENCODING) for token in (access, refresh))
        return SealedPair(
            sealed_access=self._seal(key_id, access_bytes, _associated(place, "sealed_access")),
            sealed_refresh=self._seal(key_id, refresh_bytes, _associated(place, "sealed_refresh")),
            key_id=key_id,
        )

    def open_access(self, pair: SealedPair, place: PairPlace) -> Token:
        """Open the access token of a pair.

        Raises:
            SealError: as for `open`.
        """
        return Token(self.open(pair.sealed_access, _associated(place, "sealed_access")).decode(*ENCODING))

    def open_refresh(self, pair: SealedPair, place: PairPlace) -> Token:
        """Open the refresh token of a pair.

        Raises:
            SealError: as for `open`.
        """
        return Token(self.open(pair.sealed_refresh, _associated(place, "sealed_refresh")).decode(*ENCODING))

    def _seal(self, key_id: int, plaintext: bytes, place: bytes) -> bytes:
        header = _HEADER.pack(VERSION, AES_256_GCM, key_id)
        nonce = os.urandom(NONCE_BYTES)
        return header + nonce + self._ciphers[key_id].encrypt(nonce, plaintext, header + place)


def key_id_of(sealed: bytes) -> int:
    """Return the id of the key that sealed these bytes.

    Raises:
        SealError: where the bytes are not a record of ours.
    """
    if len(sealed) < _HEADER.size + NONCE_BYTES + _TAG_BYTES:
        raise SealError("sealed bytes are too short to be a record")
    version, algorithm, key_id = _HEADER.unpack_from(sealed)
    if (version, algorithm) != (VERSION, AES_256_GCM):
        raise SealError(f"sealed bytes are of version {version} and algorithm {algorithm}, which are unknown here")
    return int(key_id)


def _associated(place: PairPlace, column: str) -> bytes:
    """Return the place as length-prefixed fields, so that no two places share their bytes."""
    fields = (place.table, column, place.creator_id, str(place.consent), str(place.generation))
    return b"".join(struct.pack(">I", len(raw)) + raw for raw in (field.encode(*ENCODING) for field in fields))
