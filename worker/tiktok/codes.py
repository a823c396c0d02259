"""TikTok's codes as data: what each one means and what it asks of us, by the kind of call that met it.

Names and meanings are those of TikTok's error appendix (official doc 1737172488964097). What `refresh_token/` answers
for a dead refresh token was never published; 40107 is expected. A code that is not listed here never disconnects a
creator: it backs off.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

EXCHANGE_CALL: Final = "tt_user/oauth2/token/"
REFRESH_CALL: Final = "tt_user/oauth2/refresh_token/"
REVOKE_CALL: Final = "tt_user/oauth2/revoke/"
TOKEN_INFO_CALL: Final = "tt_user/token_info/get/"  # noqa: S105 - a path
ACCOUNT_CALL: Final = "business/get/"
CALLS: Final = (EXCHANGE_CALL, REFRESH_CALL, REVOKE_CALL, TOKEN_INFO_CALL, ACCOUNT_CALL)
"""The paths of all calls but those of further account data."""

SUCCESS_CODES: Final = frozenset({0, 20001})
"""Done, and partly done: what came with the latter is kept."""

TROUBLE_RANGE: Final = range(50000, 54000)
"""TikTok's own trouble: system, dependencies (51xxx), storage (52xxx), serialisation (53xxx)."""


class Kind(StrEnum):
    """What a code asks of the caller; each is one error of the tree."""

    WAIT = "wait"
    BACK_OFF = "back_off"
    STOP = "stop"
    ASK = "ask"
    REFRESH_FIRST = "refresh_first"
    GIVE_UP = "give_up"


@dataclass(frozen=True)
class Code:
    """One row of the table.

    Attributes:
        meaning: what the code says, in words fit for a log.
        exchange: what it asks for when an authorization code is exchanged.
        refresh: what it asks for on a refresh.
        read: what it asks for on a read.
    """

    meaning: str
    exchange: Kind
    refresh: Kind
    read: Kind


def _always(meaning: str, kind: Kind) -> Code:
    return Code(meaning, kind, kind, kind)


def _grant(meaning: str, read: Kind) -> Code:
    """Build a row that speaks of the grant: on exchange and refresh, only the creator can help, with a new consent."""
    return Code(meaning, Kind.ASK, Kind.ASK, read)


def _item(meaning: str) -> Code:
    """Build a row that speaks of one item: a read leaves it, a token call has no item and backs off."""
    return Code(meaning, Kind.BACK_OFF, Kind.BACK_OFF, Kind.GIVE_UP)


CODES: Final[dict[int, Code]] = {
    40000: _always("invalid parameters", Kind.STOP),
    # On a read it names one object; one creator's object must not stop the fleet.
    40001: Code("no permission for the object or endpoint", Kind.STOP, Kind.STOP, Kind.GIVE_UP),
    40002: _always("bad parameter", Kind.STOP),
    40003: _always("forbidden", Kind.STOP),
    40006: _always("version mismatch", Kind.STOP),
    40007: _item("object does not exist"),
    40008: _always("no such endpoint", Kind.STOP),
    40009: _always("not available in the sandbox", Kind.STOP),
    40010: _always("wrong domain", Kind.STOP),
    40014: _always("not available in the sandbox", Kind.STOP),
    40016: _always("rate limit of the app on this endpoint", Kind.WAIT),
    40050: _item("duplicate request"),
    40051: _always("bad version", Kind.STOP),
    40100: _always("too many requests of the app", Kind.WAIT),
    40101: Code("app id and secret do not match, or bad code", Kind.ASK, Kind.STOP, Kind.STOP),
    40102: Code("access token expired", Kind.ASK, Kind.BACK_OFF, Kind.REFRESH_FIRST),
    40103: _grant("refresh token expired", Kind.GIVE_UP),
    40104: _always("access token missing", Kind.STOP),
    40105: _grant("access token wrong or revoked", Kind.REFRESH_FIRST),
    40106: _grant("core user invalid", Kind.GIVE_UP),
    40107: _grant("refresh token invalid", Kind.GIVE_UP),
    40108: _always("bad grant type", Kind.STOP),
    40109: _always("cannot be deciphered", Kind.STOP),
    40110: Code("authorization code used, cancelled or expired", Kind.ASK, Kind.BACK_OFF, Kind.BACK_OFF),
    40113: _always("app blocked, unknown, or its secret is wrong", Kind.STOP),
    40115: Code("authorization stamp expired or of another flow", Kind.ASK, Kind.BACK_OFF, Kind.BACK_OFF),
    40116: _always("bad signature", Kind.STOP),
    40117: _always("bad method", Kind.STOP),
    40118: _always("not on the allow-list", Kind.STOP),
    40119: _always("not the same company", Kind.STOP),
    40120: _grant("TikTok user not logged in", Kind.GIVE_UP),
    40124: _always("developer profile not approved", Kind.STOP),
    40125: _always("developer lacks permission", Kind.STOP),
    # One field without its scope fails the whole read; the caller asks again with fewer fields.
    40130: _item("scope not granted"),
    40131: _grant("authorization of the TikTok user failed", Kind.GIVE_UP),
    40132: _always("rate limit by a field's value", Kind.WAIT),
    40133: _always("rate limit by account", Kind.WAIT),
    40202: _always("write conflict", Kind.BACK_OFF),
    # The sources do not say whether the cause is ours or the creator's, so these neither stop nor disconnect.
    40300: _item("access denied"),
    40301: _item("access denied"),
    40302: _item("access denied"),
    40309: _item("login needed"),
    40400: _always("no such route", Kind.STOP),
    41000: _always("the caller's address is barred", Kind.STOP),
    41001: _item("endpoint offline"),
    41002: _item("fields offline"),
    50000: _always("TikTok system error", Kind.BACK_OFF),
    50002: _always("TikTok error or timeout", Kind.BACK_OFF),
    51010: _always("TikTok internal timeout", Kind.BACK_OFF),
    51015: _always("TikTok granting service", Kind.BACK_OFF),
    51030: _always("TikTok passport service", Kind.BACK_OFF),
    51039: _always("TikTok authorization service", Kind.BACK_OFF),
    51065: _always("TikTok internal dependency", Kind.BACK_OFF),
    51305: _always("TikTok internal dependency", Kind.BACK_OFF),
    60001: _always("TikTok maintenance", Kind.BACK_OFF),
    61000: _always("too many requests in the business layer", Kind.WAIT),
}

TROUBLE: Final = _always("TikTok trouble of its own", Kind.BACK_OFF)
UNKNOWN: Final = _always("a code we do not know", Kind.BACK_OFF)

DEAD_TOKEN_CODES: Final = frozenset({40102, 40103, 40105, 40106, 40107, 40110, 40120, 40131})
"""Codes for a token that is no longer valid: after a revoke they mean success, however often it is repeated."""


def row(code: int) -> Code:
    """Return what a code means; codes beyond the table are TikTok's own trouble, or unknown."""
    if code in CODES:
        return CODES[code]
    return TROUBLE if code in TROUBLE_RANGE else UNKNOWN


def kind_of(code: int, call: str) -> Kind:
    """Return what `code` asks for when `call` met it; `call` is a path such as `tt_user/oauth2/refresh_token/`."""
    found = row(code)
    if call == EXCHANGE_CALL:
        return found.exchange
    return found.refresh if call == REFRESH_CALL else found.read
