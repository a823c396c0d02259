"""The token type: a secret text that shows only a keyed fingerprint.

Used for access tokens, refresh tokens, authorization codes and app secrets, from the parser of an answer to the
sealer. It does not hide the text from code that calls `reveal()`; it keeps the text out of everything that
prints, formats, logs, pickles or serialises by accident.
"""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256
from typing import Final, NoReturn

FINGERPRINT_HEX_DIGITS: Final = 12


class _FingerprintKey:
    """The key of fingerprints in this process: random until a keyring brings its own."""

    value: bytes = secrets.token_bytes(32)


def use_fingerprint_key(key: bytes) -> None:
    """Make fingerprints comparable between processes that share a keyring.

    Args:
        key: at least 16 bytes; never one of the sealing keys.
    """
    _FingerprintKey.value = key


class Token:
    """A secret text. `str`, `repr`, `format`, logging and tracebacks show `<token 0f3a…>`, its keyed fingerprint.

    Raises:
        ValueError: the text is empty.
        TypeError: it is pickled, copied into JSON or otherwise serialised.
    """

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        if not text:
            raise ValueError("a token cannot be empty")
        self.__text = text

    def reveal(self) -> str:
        """Return the secret itself; call it only where the next function needs the text."""
        return self.__text

    @property
    def fingerprint(self) -> str:
        """First hex digits of HMAC-SHA256 under the fingerprint key: only shows whether two secrets are equal."""
        digest = hmac.new(_FingerprintKey.value, _encoded(self.__text), sha256).hexdigest()
        return digest[:FINGERPRINT_HEX_DIGITS]

    def __repr__(self) -> str:
        return f"<token {self.fingerprint}>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Token):
            return NotImplemented
        return hmac.compare_digest(_encoded(self.__text), _encoded(other.__text))

    def __hash__(self) -> int:
        return hash(self.__text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a token is never pickled")

    def __bool__(self) -> bool:
        return True

    def __getstate__(self) -> NoReturn:
        raise TypeError("a token does not give its text away as state")

    def __len__(self) -> NoReturn:
        raise TypeError("a token does not show its length")

    def __iter__(self) -> NoReturn:
        raise TypeError("a token is not iterated")


def _encoded(text: str) -> bytes:
    """Return the text's bytes; half a surrogate pair, which JSON can contain, must not make a token unprintable."""
    return text.encode("utf-8", "surrogatepass")
