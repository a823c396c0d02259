"""What TikTok's answers become."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from worker.vault.token import Token


@dataclass(frozen=True)
class RawAnswer:
    """The bytes of an answer to a token call, as received and before anything was read from them.

    Attributes:
        call: the path of the call, such as `tt_user/oauth2/refresh_token/`.
        http_status: the HTTP status, or None where the answer broke off before one was read.
        body: the bytes received, bounded; they may hold tokens and are never printed.
        complete: True where the answer ended as its framing said.
        fault: for an incomplete answer, what went wrong in a few words without any of its bytes.
        retry_after: the Retry-After header's text, or None.
        sent: the secrets that the request held, so that an echo of them is hidden from every text; None for an
            answer that comes back from the journal, and then nothing that TikTok worded is shown.
    """

    call: str
    http_status: int | None
    body: bytes = field(repr=False)
    complete: bool
    fault: str | None = None
    retry_after: str | None = None
    sent: tuple[Token, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class TokenAnswer:
    """A token object: what exchange and refresh bring.

    Attributes:
        creator_id: the account's id (`open_id`, or `creator_id` in older answers).
        access_token: the new access token.
        refresh_token: the new refresh token, or None where the answer held none: keep the old one.
        access_seconds: life of the access token in seconds as the answer said it; None where missing or absurd.
        refresh_seconds: seconds left of the refresh token, or None if TikTok does not say.
        scope: granted scopes, sorted and without duplicates; None where the answer named none.
        request_id: TikTok's `request_id`, or None.
        remarks: what was odd about the answer, in words fit for a log; holds no value of a token.
    """

    creator_id: str
    access_token: Token
    refresh_token: Token | None
    access_seconds: int | None
    refresh_seconds: int | None
    scope: tuple[str, ...] | None
    request_id: str | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class TokenInfo:
    """What `tt_user/token_info/get/` says of an access token."""

    app_id: str
    creator_id: str
    scope: tuple[str, ...]


@dataclass(frozen=True)
class AccountData:
    """What `business/get/` brought: the fields as TikTok named them."""

    data: dict[str, Any]
    request_id: str | None
