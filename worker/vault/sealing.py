"""Sealing: AES-256-GCM under a key derived for each record, bound to the record's place by associated data.

A record is `version u8 | algorithm u8 | key id u32 | nonce | ciphertext and tag`. The key is named, never tried.

| algorithm | nonce | key of the cipher | associated data, behind the header |
|---|---|---|---|
| 1 | 12 bytes | the key of the keyring itself | table, column, creator, consent, generation |
| 2 | 24 bytes | HKDF-Expand(key of the use, nonce) | table, column, app, creator, consent, generation |

Algorithm 1 belongs to the keyring's keys without a prefix, algorithm 2 to its `root:` and `access:` keys. A key has one
algorithm for its whole life. Bytes that are moved to another place or another use do not open.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from worker.errors import KeyMissingError, SealError
from worker.vault.keyring import Keyring, Use, key_of_use
from worker.vault.token import Token

VERSION: Final = 1
DIRECT: Final = 1
DERIVED: Final = 2
NONCE_BYTES: Final = {DIRECT: 12, DERIVED: 24}
ENCODING: Final = ("utf-8", "surrogatepass")
"""How texts become bytes: half a surrogate pair, which JSON can contain, must not cost a pair of tokens."""
_HEADER: Final = struct.Struct(">BBI")
_LENGTH: Final = struct.Struct(">I")
_GCM_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_RECORD: Final = b"evertoken record "


@dataclass(frozen=True)
class PairPlace:
    """The place of a sealed pair: the row that its bytes are bound to, each token with its column."""

    creator_id: str
    consent: int
    generation: int
    table: str = "pairs"


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


class _Ciphers(Protocol):
    """The ciphers of a key, one for each record."""

    algorithm: int

    def of(self, nonce: bytes) -> AESGCM:
        """Return the cipher of one record."""


class _Direct:
    """The key itself seals each record: at most 2^32 of them."""

    algorithm = DIRECT

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def of(self, nonce: bytes) -> AESGCM:
        """Return the one cipher."""
        del nonce
        return self._cipher


class _Derived:
    """A key is derived for each record from the key of the use and the record's 24 random bytes."""

    algorithm = DERIVED

    def __init__(self, key: bytes) -> None:
        self._keyed = HMAC(key, SHA256())

    def of(self, nonce: bytes) -> AESGCM:
        """Return the cipher of the record with this nonce.

        A key as long as one hash is one block of HKDF-Expand (RFC 5869, section 2.3), and that is one HMAC.
        """
        block = self._keyed.copy()
        block.update(_RECORD + nonce + b"\x01")
        return AESGCM(block.finalize())


class Sealer:
    """Seals and opens with a keyring; the only place where tokens at rest become tokens in memory.

    It seals with the keyring's active key until `seal_with` names another one that all processes hold.
    """

    def __init__(self, keyring: Keyring, *, app_id: str = "") -> None:
        """Make the sealer of a keyring.

        Args:
            keyring: the keys.
            app_id: TikTok's client id of the app that the pairs belong to; not needed if no pair is sealed.
        """
        self.keyring = keyring
        self._app_id = app_id
        self._ciphers = dict(_ciphers(keyring))
        self._sealing_key_id = keyring.active
        self._begins: dict[tuple[int, Use, str], bytes] = {}

    @property
    def sealing_key_id(self) -> int:
        """Id of the key that new records are sealed with."""
        return self._sealing_key_id

    def seal_with(self, key_id: int) -> None:
        """Seal new records with another key of the keyring from now on.

        Raises:
            SealError: the keyring lacks this key.
        """
        if key_id not in self.keyring.keys:
            raise KeyMissingError(f"the keyring lacks key {key_id}")
        self._sealing_key_id = key_id

    def seal(self, plaintext: bytes, place: bytes) -> bytes:
        """Seal bytes that are not a column of a pair, with the sealing key, bound to a place.

        Args:
            plaintext: any bytes.
            place: associated data; opening needs the same bytes.

        Raises:
            SealError: the keyring opens access tokens only.
        """
        return self._seal(self._sealing_key_id, Use.RECORD, plaintext, place)

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """Open what `seal` sealed.

        Raises:
            SealError: the format is unknown, this keyring lacks the key, or the bytes do not belong to this place.
        """
        return self._open(Use.RECORD, sealed, place)

    def seal_pair(self, access: Token, refresh: Token, place: PairPlace) -> SealedPair:
        """Seal both tokens of a pair into the columns of its row.

        Raises:
            SealError: the keyring opens access tokens only.
        """
        # Read once: another thread may change the sealing key between the two.
        key_id = self._sealing_key_id
        return SealedPair(
            sealed_access=self._seal(key_id, Use.ACCESS, access.reveal().encode(*ENCODING), place),
            sealed_refresh=self._seal(key_id, Use.REFRESH, refresh.reveal().encode(*ENCODING), place),
            key_id=key_id,
        )

    def open_access(self, pair: SealedPair, place: PairPlace) -> Token:
        """Open the access token of a pair.

        Raises:
            SealError: as for `open`.
        """
        return self.open_access_token(pair.sealed_access, place)

    def open_access_token(self, sealed: bytes, place: PairPlace) -> Token:
        """Open an access token from its own column; errors are those of `open`."""
        return Token(self._open(Use.ACCESS, sealed, place).decode(*ENCODING))

    def open_refresh(self, pair: SealedPair, place: PairPlace) -> Token:
        """Open the refresh token of a pair.

        Raises:
            SealError: as for `open`, or the keyring opens access tokens only.
        """
        return Token(self._open(Use.REFRESH, pair.sealed_refresh, place).decode(*ENCODING))

    def _seal(self, key_id: int, use: Use, plaintext: bytes, place: PairPlace | bytes) -> bytes:
        ciphers = self._ciphers_of(key_id, use)
        header = _HEADER.pack(VERSION, ciphers.algorithm, key_id)
        nonce = os.urandom(NONCE_BYTES[ciphers.algorithm])
        bound = header + self._associated(ciphers.algorithm, use, place)
        return header + nonce + ciphers.of(nonce).encrypt(nonce[-_GCM_NONCE_BYTES:], plaintext, bound)

    def _open(self, use: Use, sealed: bytes, place: PairPlace | bytes) -> bytes:
        algorithm, key_id = _header_of(sealed)
        ciphers = self._ciphers_of(key_id, use, algorithm)
        if ciphers.algorithm != algorithm:
            raise SealError(f"sealed bytes are of algorithm {algorithm}, and key {key_id} is not of that kind")
        end = _HEADER.size + NONCE_BYTES[algorithm]
        nonce, bound = sealed[_HEADER.size : end], sealed[: _HEADER.size] + self._associated(algorithm, use, place)
        try:
            return ciphers.of(nonce).decrypt(nonce[-_GCM_NONCE_BYTES:], sealed[end:], bound)
        except InvalidTag:
            raise SealError(f"sealed bytes do not open with key {key_id} at this place") from None

    def _ciphers_of(self, key_id: int, use: Use, algorithm: int = DERIVED) -> _Ciphers:
        ciphers = self._ciphers.get((key_id, use))
        if ciphers is not None:
            return ciphers
        if key_id in self.keyring.keys:
            raise SealError("this is a reader's keyring: it opens access tokens and nothing else, and seals nothing")
        if not self.keyring.for_readers:
            raise KeyMissingError(f"the keyring lacks key {key_id}")
        if algorithm == DIRECT:
            raise KeyMissingError(
                f"key {key_id} seals records itself, so no reader's keyring can hold it; this token opens after "
                "`celery -A worker keys rotate` with a newer key"
            )
        raise KeyMissingError(
            f"this reader's keyring lacks key {key_id}: write it again with `celery -A worker keys reader`, from the "
            "keyring that workers use, and start this application again with it"
        )

    def _associated(self, algorithm: int, use: Use, place: PairPlace | bytes) -> bytes:
        """Return a pair's place as length-prefixed fields, so that no two places share their bytes."""
        if isinstance(place, bytes):
            return place
        kind = (algorithm, use, place.table)
        begin = self._begins.get(kind)
        if begin is None:
            app = (self._app_id,) if algorithm == DERIVED else ()
            fields = (place.table, f"sealed_{use.value}", *app)
            begin = self._begins[kind] = b"".join(_field(field.encode(*ENCODING)) for field in fields)
        creator = _field(place.creator_id.encode(*ENCODING))
        return begin + creator + _field(b"%d" % place.consent) + _field(b"%d" % place.generation)


def _field(raw: bytes) -> bytes:
    """Return a field with its length before it."""
    return _LENGTH.pack(len(raw)) + raw


def key_id_of(sealed: bytes) -> int:
    """Return the id of the key that sealed these bytes.

    Raises:
        SealError: the bytes are not a record of ours.
    """
    return _header_of(sealed)[1]


def _header_of(sealed: bytes) -> tuple[int, int]:
    """Return algorithm and key id of a record."""
    if len(sealed) < _HEADER.size:
        raise SealError("sealed bytes are too short to be a record")
    version, algorithm, key_id = _HEADER.unpack_from(sealed)
    if version != VERSION or algorithm not in NONCE_BYTES:
        raise SealError(f"sealed bytes are of version {version} and algorithm {algorithm}, which are unknown here")
    if len(sealed) < _HEADER.size + NONCE_BYTES[algorithm] + _TAG_BYTES:
        raise SealError("sealed bytes are too short to be a record")
    return algorithm, key_id


def _ciphers(keyring: Keyring) -> Iterator[tuple[tuple[int, Use], _Ciphers]]:
    """Yield the ciphers of each key, by its id and use."""
    for key_id, key in keyring.keys.items():
        if keyring.for_readers:
            yield (key_id, Use.ACCESS), _Derived(key)
            continue
        direct = _Direct(key) if key_id in keyring.direct else None
        for use in Use:
            yield (key_id, use), direct or _Derived(key_of_use(key, use))
