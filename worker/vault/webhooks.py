"""Signatures of notices, as the Standard Webhooks specification has them.

A secret is `whsec_` and the base64 of 24 to 64 bytes, which are the key. The signature is the HMAC-SHA256 of
`id.timestamp.body`, written `v1,` and its base64. While a secret is replaced there are two signatures, with a space
between them, and a receiver accepts a notice if one of them is good.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from worker.vault.token import Token

PREFIX: Final = "whsec_"
KEY_BYTES: Final = 32
LEAST_KEY_BYTES: Final = 24
MOST_KEY_BYTES: Final = 64
ID_BYTES: Final = 18


def new_webhook_secret() -> str:
    """Return a new secret: `whsec_` and the base64 of 32 random bytes."""
    return PREFIX + base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def new_message_id() -> str:
    """Return a new id of a message: `msg_` and 144 random bits, as letters, digits, `-` and `_`."""
    return f"msg_{secrets.token_urlsafe(ID_BYTES)}"


def webhook_key(secret: Token) -> bytes:
    """Return the key of a secret.

    Args:
        secret: `whsec_` and base64, with or without its padding; of any other secret the text in UTF-8 is the key.

    Raises:
        ValueError: what follows `whsec_` is not the base64 of 24 to 64 bytes; the text shows nothing of it.
    """
    if not secret.reveal().startswith(PREFIX):
        return secret.reveal().encode()
    text = secret.reveal().removeprefix(PREFIX).rstrip("=")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"what follows {PREFIX} is not base64") from None
    if not LEAST_KEY_BYTES <= len(key) <= MOST_KEY_BYTES:
        raise ValueError(
            f"what follows {PREFIX} is the base64 of {len(key)} bytes, and a key has {LEAST_KEY_BYTES} to "
            f"{MOST_KEY_BYTES}"
        )
    return key


class WebhookSigner:
    """Signs messages with one secret, or with two while one takes the place of the other."""

    def __init__(self, secrets: Sequence[Token]) -> None:
        """Read the keys.

        Raises:
            ValueError: as for `webhook_key`.
        """
        self._keys = [webhook_key(secret) for secret in secrets]

    def headers(self, message_id: str, stamp: int, body: bytes) -> dict[str, str]:
        """Return the three headers of a message.

        Args:
            message_id: the same for each try of a message.
            stamp: seconds since the epoch at which this try is made.
            body: what is posted.
        """
        signed = b".".join((message_id.encode(), str(stamp).encode(), body))
        signatures = (base64.b64encode(hmac.digest(key, signed, sha256)).decode() for key in self._keys)
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(stamp),
            "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
        }
