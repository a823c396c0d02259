"""The `state` of a consent link: when it was made and a random number, signed, so that it can be checked unstored.

TikTok echoes it beside the code. It tells that a redirect belongs to a link of ours and is not stale. It is not kept,
so a redirect can be pasted twice; that gains nobody anything, because the code beside it works once.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import struct
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

NONCE_BYTES: Final = 16
FUTURE_TOLERANCE: Final = timedelta(seconds=60)
"""How far a state may seem to come from the future: two hosts' clocks differ a little."""
ASK_AGAIN: Final = "make a new link with `authorize url` and have the creator agree again"
_LABEL: Final = b"evertoken consent link state v1"
_MADE_AT: Final = struct.Struct(">Q")
_MAC_BYTES: Final = 32


def derive_key(secret: bytes) -> bytes:
    """Return the key that signs states: derived from a secret under a label that nothing else uses."""
    return hmac.new(secret, _LABEL, sha256).digest()


def sign(*, key: bytes, now: datetime, nonce: bytes) -> str:
    """Return a state.

    Args:
        key: from `derive_key`.
        now: when the link is made.
        nonce: `NONCE_BYTES` random bytes.
    """
    payload = _MADE_AT.pack(int(now.timestamp())) + nonce
    return base64.urlsafe_b64encode(payload + _mac(key, payload)).rstrip(b"=").decode()


def problem_of(state: str, *, key: bytes, now: datetime, life: timedelta) -> str | None:
    """Return what is wrong with a state that came back, in a sentence, or None.

    Args:
        state: as it stood in the redirect, decoded; empty where there was none.
        key: from `derive_key`.
        now: the time on the clock that `sign` was given.
        life: for how long a state is good.
    """
    if not state:
        return f"the redirect has no state, so it did not come from a link of ours; {ASK_AGAIN}"
    payload, mac = _split(state)
    if len(payload) != _MADE_AT.size + NONCE_BYTES or not hmac.compare_digest(mac, _mac(key, payload)):
        return f"the redirect's state was not signed with this keyring, or was changed on its way; {ASK_AGAIN}"
    age = now.timestamp() - _MADE_AT.unpack_from(payload)[0]
    if age > life.total_seconds():
        return f"the link is {age:.0f} s old and was good for {life.total_seconds():.0f} s; {ASK_AGAIN}"
    if age < -FUTURE_TOLERANCE.total_seconds():
        made = datetime.fromtimestamp(now.timestamp() - age, tz=UTC)
        return f"the link was made at {made:%H:%M:%S} UTC, which is still to come: a clock is wrong; {ASK_AGAIN}"
    return None


def _split(state: str) -> tuple[bytes, bytes]:
    try:
        signed = base64.b64decode(state + "=" * (-len(state) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b"", b""
    return signed[:-_MAC_BYTES], signed[-_MAC_BYTES:]


def _mac(key: bytes, payload: bytes) -> bytes:
    return hmac.new(key, payload, sha256).digest()
