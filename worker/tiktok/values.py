"""Values of TikTok's answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from worker.vault.token import Token


@dataclass(frozen=True)
class RawAnswer:
    """The bytes of an answer to a token call, as received and before anything was read from them.

    Attributes:
        call: the path of the call, such as `tt_user/oauth2/refresh_token/`.
        http_status: the HTTP status, or None if the answer was cut off before it.
        body: the bytes received, bounded; they may hold tokens and are never printed.
        complete: True if the answer ended as its framing said.
        fault: for an incomplete answer, what went wrong, in a few words without any of its bytes.
        retry_after: the Retry-After header's text, or None.
        sent: the secrets in the request, so that every text hides an echo of them; None for an answer from the
            journal, and then none of TikTok's own texts is shown.
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
    """A token object, the result of an exchange or a refresh.

    Attributes:
        creator_id: the account's id (`open_id`, or `creator_id` in older answers).
        access_token: the new access token.
        refresh_token: the new refresh token, or None if the answer held none: keep the old one.
        access_seconds: life of the access token in seconds, as in the answer; None if missing or absurd.
        refresh_seconds: seconds left of the refresh token, or None if TikTok does not say.
        scope: granted scopes, sorted and without duplicates; None if the answer named none.
        request_id: TikTok's `request_id`, or None.
        fields: names of the fields that it has.
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
    fields: frozenset[str] = frozenset()


@dataclass(frozen=True)
class TokenInfo:
    """TikTok's information on an access token, from `tt_user/token_info/get/`."""

    app_id: str
    creator_id: str
    scope: tuple[str, ...]


@dataclass(frozen=True)
class ReadAnswer:
    """The answer to a read of account data, without an echo of a secret.

    Attributes:
        data: the fields as TikTok named them; a number that cannot be represented is an `OddNumber`.
        partial: True if TikTok said that the answer is not complete (20001).
        repeated: names that occurred twice in one object with different values, so that their meaning is unknown.
        raw: the answer as it came, decompressed; if it repeated a secret, written again without that.
    """

    data: dict[str, Any]
    request_id: str | None
    partial: bool = False
    repeated: frozenset[str] = frozenset()
    raw: bytes = field(default=b"", repr=False)
