"""Files of pairs that are sealed for a recipient: only the recipient's private key opens them.

A file is lines of text: a header that names app and recipient, a sealed line for each pair, and a sealed end. Its key
is of this file alone: HKDF-SHA256 over the X25519 agreement of a fresh key with the recipient's. Each line is sealed
with AES-256-GCM and bound to the header, to its number and to whether it is the end, so that a line that was changed,
moved, left out or added is noticed, and so is a file that was cut off.

Whoever has the public part can seal a file. It proves nothing about who wrote it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
from typing import Any, BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from worker.errors import UsageError

MAGIC: Final = b"evertoken export 1 "
PUBLIC: Final = "evertoken-recipient-"
PRIVATE: Final = "evertoken-recipient-key-"
KEY_BYTES: Final = 32
LONGEST_LINE: Final = 262_144
"""Bytes; a sealed line has three or four thousand."""
_PURPOSE: Final = b"evertoken export 1"
_COUNTER_BYTES: Final = 11
_NAME_BYTES: Final = 8


class Recipient:
    """The public part of a recipient's key: it seals, and opens nothing.

    Attributes:
        name: a short hash, by which people and files name the recipient.
        text: the public part as people pass it on.
    """

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.name = hashlib.sha256(raw).hexdigest()[: 2 * _NAME_BYTES]
        self.text = PUBLIC + _written(raw)

    @classmethod
    def read(cls, text: str) -> Recipient:
        """Read a public part.

        Raises:
            UsageError: it is none.
        """
        if text.startswith(PRIVATE):
            raise UsageError(f"this is a recipient's private key; give the public part, which begins with {PUBLIC}")
        raw = _read(text, PUBLIC)
        if raw is None:
            raise UsageError(
                f"this is no recipient: it begins with {PUBLIC}, and `evertoken keys recipient --out FILE` prints it"
            )
        return cls(raw)


class RecipientKey:
    """The private key of a recipient, which opens what was sealed for it."""

    def __init__(self, key: X25519PrivateKey) -> None:
        self._key = key
        self.recipient = Recipient(key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.recipient.name}>"

    @classmethod
    def new(cls) -> RecipientKey:
        """Make a fresh key."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def read(cls, text: str, name: str) -> RecipientKey:
        """Read a private key.

        Args:
            text: the content of its file.
            name: the file, for the error's text.

        Raises:
            UsageError: it is none; the text shows nothing of the content.
        """
        raw = _read(text.strip(), PRIVATE)
        if raw is None:
            raise UsageError(f"{name} holds no recipient's key: `evertoken keys recipient --out FILE` makes one")
        return cls(X25519PrivateKey.from_private_bytes(raw))

    def to_text(self) -> str:
        """Return the private key as its file holds it."""
        return PRIVATE + _written(self._key.private_bytes_raw())

    def agree(self, public: bytes) -> bytes | None:
        """Return what both ends of an agreement know; None if the other part is no proper key."""
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            return None


class ExportSealer:
    """Seals the lines of one file."""

    def __init__(self, recipient: Recipient, *, app_id: str) -> None:
        """Make the key of a new file.

        Args:
            recipient: who can open it.
            app_id: the app of the pairs.

        Raises:
            UsageError: the recipient is no proper key.
        """
        once = RecipientKey.new()
        shared = once.agree(recipient.raw)
        if shared is None:
            raise UsageError("this recipient is no proper key, so nothing can be sealed for it")
        head = {"app_id": app_id, "recipient": recipient.name, "key": _written(once.recipient.raw)}
        self.header = MAGIC + json.dumps(head).encode() + b"\n"
        self._cipher = _cipher(shared, once.recipient.raw, recipient.raw)
        self._number = 0

    def line(self, plain: bytes) -> bytes:
        """Return the next sealed line."""
        return self._seal(plain, end=False)

    def end(self) -> bytes:
        """Return the last line, without which the file does not open."""
        return self._seal(b"", end=True)

    def _seal(self, plain: bytes, *, end: bool) -> bytes:
        sealed = self._cipher.encrypt(_nonce(self._number, end=end), plain, self.header)
        self._number += 1
        return base64.b64encode(sealed) + b"\n"


class OpenedExport(io.RawIOBase):
    """The lines of a sealed file in the clear, as a stream that can be read from its start again.

    Nothing of it touches a disk. A line that does not open ends the reading with a UsageError.
    """

    def __init__(self, sealed: BinaryIO, key: RecipientKey) -> None:
        """Read the header.

        Args:
            sealed: the file.
            key: the recipient's private key.

        Raises:
            UsageError: it is no sealed file, is sealed for another recipient, or cannot be read twice.
        """
        super().__init__()
        if not sealed.seekable():
            raise UsageError("a sealed file is read twice: give its name, and no pipe")
        self._sealed = sealed
        self._header = sealed.readline(LONGEST_LINE)
        head = _head(self._header)
        if head is None:
            raise UsageError("this is no file of `evertoken grants export`, or its first line was changed")
        self.app_id, public = head["app_id"], _read(head["key"], "")
        if head["recipient"] != key.recipient.name:
            raise UsageError(
                f"the file is sealed for recipient {head['recipient']}, and this is the key of {key.recipient.name}"
            )
        shared = None if public is None else key.agree(public)
        if public is None or shared is None:
            raise UsageError("the first line of the sealed file was changed; nothing is imported")
        self._cipher = _cipher(shared, public, key.recipient.raw)
        self._start = sealed.tell()
        self._number, self._at = 0, 0
        self._left, self._ended = b"", False

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True: it can be read from its start again."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go back to the start; there is no other place to go to."""
        if (offset, whence) != (0, io.SEEK_SET):
            raise io.UnsupportedOperation("a sealed file is read from its start")
        self._begin()
        return 0

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        """Read the next bytes in the clear.

        Raises:
            UsageError: the file was changed or is cut off.
        """
        while not self._left and not self._ended:
            self._left = self._next()
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        self._at += size
        return size

    def _begin(self) -> None:
        self._sealed.seek(self._start)
        self._number, self._at, self._left, self._ended = 0, 0, b"", False

    def _next(self) -> bytes:
        line = self._sealed.readline(LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise UsageError(f"the sealed file is cut off after line {self._number + 1}; nothing is imported")
        try:
            sealed = base64.b64decode(line[:-1], validate=True)
        except binascii.Error:
            sealed = b""
        plain, end = self._open(sealed, end=False), False
        if plain is None:
            plain, end = self._open(sealed, end=True), True
        self._number += 1
        if plain is None or (end and self._sealed.read(1)):
            raise UsageError(f"line {self._number + 1} of the sealed file was changed or moved; nothing is imported")
        self._ended = end
        return plain

    def _open(self, sealed: bytes, *, end: bool) -> bytes | None:
        try:
            return self._cipher.decrypt(_nonce(self._number, end=end), sealed, self._header)
        except (InvalidTag, ValueError):
            return None


def is_sealed(stream: BinaryIO) -> bool:
    """Return whether a file that can be read twice begins as a sealed one, and leave it at its start."""
    if not stream.seekable():
        return False
    start = stream.tell()
    begins = stream.read(len(MAGIC)) == MAGIC
    stream.seek(start)
    return begins


def _head(line: bytes) -> dict[str, str] | None:
    if not line.startswith(MAGIC):
        return None
    try:
        head = json.loads(line.removeprefix(MAGIC))
    except (ValueError, RecursionError):
        return None
    known = isinstance(head, dict) and all(isinstance(head.get(name), str) for name in ("app_id", "recipient", "key"))
    return head if known else None


def _cipher(shared: bytes, once: bytes, recipient: bytes) -> AESGCM:
    return AESGCM(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=once + recipient, info=_PURPOSE).derive(shared))


def _nonce(number: int, *, end: bool) -> bytes:
    return number.to_bytes(_COUNTER_BYTES, "big") + bytes([end])


def _written(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _read(text: str, start: str) -> bytes | None:
    if not text.startswith(start):
        return None
    try:
        raw = base64.b64decode(text.removeprefix(start).encode() + b"=", altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    return raw if len(raw) == KEY_BYTES else None
