"""The four token calls: exchange of a code, refresh, revoke and token info; and the outcome of any call.

An outcome, before faults and framing, is TikTok's code, message and data. Codes and their meaning follow TikTok's
error appendix (official doc 1737172488964097).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from worker.sandbox.registry import IssuedPair
from worker.sandbox.world import World

NO_PERMISSION: Final = 40_001
BAD_PARAMETER: Final = 40_002
WRONG_APP: Final = 40_101
ACCESS_EXPIRED: Final = 40_102
REFRESH_EXPIRED: Final = 40_103
ACCESS_MISSING: Final = 40_104
ACCESS_WRONG: Final = 40_105
BAD_GRANT_TYPE: Final = 40_108
DEAD_CODE: Final = 40_110
APP_BLOCKED: Final = 40_113
SCOPE_MISSING: Final = 40_130
NOT_WORKED: Final = -1
"""In the ledger: a fault answered, and the call was not carried out."""


@dataclass(slots=True)
class Outcome:
    """How a call ended.

    Attributes:
        code: TikTok's application code.
        message: its text.
        data: the answer's data.
        pair: the pair that was issued or repeated.
        again: True if the pair was issued before.
    """

    code: int = 0
    message: str = "OK"
    data: dict[str, Any] = field(default_factory=dict, repr=False)
    pair: IssuedPair | None = None
    again: bool = False


class RefusedError(Exception):
    """The call is answered with an application error.

    Args:
        code: TikTok's code.
        message: TikTok's text.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.outcome = Outcome(code, message)


EXCHANGE_FIELDS: Final = ("client_id", "client_secret", "grant_type", "auth_code", "redirect_uri")
REFRESH_FIELDS: Final = ("client_id", "client_secret", "grant_type", "refresh_token")
REVOKE_FIELDS: Final = ("client_id", "client_secret", "access_token")
TOKEN_INFO_FIELDS: Final = ("app_id", "access_token")


def exchange(world: World, body: dict[str, Any] | None) -> Outcome:
    """Turn a code into a consent's first pair.

    Raises:
        RefusedError: the answer is an application error.
    """
    sent = _fields(body, EXCHANGE_FIELDS)
    _check_app(world, sent, grant_type="authorization_code")
    now = world.clock.now()
    code = world.registry.code(sent["auth_code"])
    if code is None or code.used or now >= code.expires_at:
        raise RefusedError(DEAD_CODE, "The auth_code is used, cancelled or expired.")
    if sent["redirect_uri"] != world.options.redirect_uri:
        raise RefusedError(BAD_PARAMETER, "redirect_uri: does not equal the registered one.")
    code.used = True
    options = world.options
    consent = world.registry.consent(code.creator_id, code.scope, options, now + options.refresh_expires_in)
    pair = world.registry.issue(consent, now=now, expires_in=options.expires_in)
    return Outcome(data=world.token_object(pair, now), pair=pair)


def refresh(world: World, body: dict[str, Any] | None) -> Outcome:
    """Exchange a refresh token for a new pair.

    Raises:
        RefusedError: the answer is an application error.
    """
    sent = _fields(body, REFRESH_FIELDS)
    _check_app(world, sent, grant_type="refresh_token")
    now = world.clock.now()
    dead = RefusedError(world.options.dead_refresh_code, "The refresh token is invalid.")
    old = world.registry.by_refresh(sent["refresh_token"])
    if old is None or not old.consent.alive:
        raise dead
    if now >= old.consent.refresh_expires_at:
        raise RefusedError(REFRESH_EXPIRED, "The refresh token is expired.")
    pair, again = world.registry.refresh(old, world.options, now)
    if pair is None:
        raise dead
    return Outcome(data=world.token_object(pair, now), pair=pair, again=again)


def revoke(world: World, body: dict[str, Any] | None) -> Outcome:
    """End the consent of an access token.

    Raises:
        RefusedError: the answer is an application error.
    """
    sent = _fields(body, REVOKE_FIELDS)
    _check_app(world, sent)
    live_pair(world, sent["access_token"]).consent.alive = False
    return Outcome()


def token_info(world: World, body: dict[str, Any] | None) -> Outcome:
    """Return the owner and the scopes of an access token.

    Raises:
        RefusedError: the answer is an application error.
    """
    sent = _fields(body, TOKEN_INFO_FIELDS)
    check_not_blocked(world)
    if sent["app_id"] != world.app.app_id:
        raise RefusedError(APP_BLOCKED, "The app differs from the token's app.")
    consent = live_pair(world, sent["access_token"]).consent
    scope = ",".join(sorted(consent.scope))
    return Outcome(data={"app_id": world.app.app_id, "creator_id": consent.creator.creator_id, "scope": scope})


def live_pair(world: World, access_token: str) -> IssuedPair:
    """Find the pair of an access token that is valid now.

    Raises:
        RefusedError: it is unknown, revoked or expired.
    """
    pair = world.registry.by_access(access_token)
    if pair is None or not pair.consent.alive or pair.access_dead:
        raise RefusedError(ACCESS_WRONG, "Access token is incorrect or has been revoked.")
    if world.clock.now() >= pair.access_expires_at:
        raise RefusedError(ACCESS_EXPIRED, "Access token is expired.")
    return pair


def check_not_blocked(world: World) -> None:
    """Refuse every call of a blocked app.

    Raises:
        RefusedError: the app is blocked.
    """
    if world.app.blocked:
        raise RefusedError(APP_BLOCKED, "The app is blocked.")


def _fields(body: dict[str, Any] | None, names: tuple[str, ...]) -> dict[str, str]:
    if body is None:
        raise RefusedError(BAD_PARAMETER, "The body is not a JSON object sent as application/json.")
    for name in names:
        value = body.get(name)
        if value is None or value == "":
            raise RefusedError(BAD_PARAMETER, f"{name}: Missing data for required field.")
        if not isinstance(value, str):
            raise RefusedError(BAD_PARAMETER, f"{name}: Not a valid string.")
    return body


def _check_app(world: World, sent: dict[str, str], *, grant_type: str | None = None) -> None:
    check_not_blocked(world)
    if sent["client_id"] != world.app.app_id or sent["client_secret"] not in world.app.secrets:
        raise RefusedError(WRONG_APP, "client_id and client_secret do not match.")
    if grant_type is not None and sent["grant_type"] != grant_type:
        raise RefusedError(BAD_GRANT_TYPE, "grant_type is invalid.")
