"""Turns a received answer into TikTok's envelope, or into the typed error that its status or code asks for.

TikTok answers application errors with HTTP 200 and a `code` (its error appendix), so the code decides wherever an
envelope can be read. Answers that never ran through the application are judged by their status alone. Errors are
raised outside of `except` blocks: a parser's error holds the body, and nothing may stay chained to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final, NoReturn

from worker.errors import (
    AskCreatorError,
    BackOffError,
    GiveUpError,
    InDoubtError,
    RefreshFirstError,
    StopEveryoneError,
    TikTokError,
    WaitError,
)
from worker.tiktok.codes import SUCCESS_CODES, Kind, kind_of, row
from worker.tiktok.parsing import Document, objects_in, read_document
from worker.tiktok.values import RawAnswer
from worker.tiktok.waits import busy_wait, quota_wait
from worker.vault.redaction import GRAM, Echoes
from worker.vault.token import Token

MOST_CODE: Final = 2**31 - 1
FIRST_REDIRECT: Final = 300
FIRST_REFUSAL: Final = 400
FIRST_TROUBLE: Final = 500

REFUSED_UNREAD: Final = frozenset({400, 401, 403, 404, 405, 406, 410, 411, 413, 414, 415, 421, 431})
"""Statuses that say without an envelope that our request never reached the application: a wrong path or method."""

REQUEST_ID: Final = re.compile(r"[0-9]{8}[0-9A-Za-z_-]{0,56}")
"""TikTok's request ids begin with a UTC stamp; nothing else is taken for one."""

SIMPLE_ERRORS: Final[dict[Kind, type[TikTokError]]] = {
    Kind.BACK_OFF: BackOffError,
    Kind.ASK: AskCreatorError,
    Kind.STOP: StopEveryoneError,
    Kind.REFRESH_FIRST: RefreshFirstError,
    Kind.GIVE_UP: GiveUpError,
}


@dataclass(frozen=True)
class Envelope:
    """An answer whose code did not ask for an error.

    Attributes:
        code: TikTok's code (0 or 20001), or None where the answer had none that can be read, as in v1.2.
        members: the whole JSON object.
        repeated: keys that stood there twice with different values.
        request_id: TikTok's request id, or None.
        echoes: knows what was sent and what the answer brought; nothing that is stored or shown may repeat that.
        frame: what was odd about the way the answer came; None where nothing was.
    """

    code: int | None
    members: dict[str, Any] = field(repr=False)
    repeated: frozenset[str]
    request_id: str | None
    echoes: Echoes = field(repr=False)
    frame: str | None = None


def open_envelope(raw: RawAnswer, *, now: datetime | None = None) -> Envelope:
    """Read the envelope of an answer.

    Args:
        raw: the answer as received.
        now: aware UTC, by default the present; serves only the waits that end at a date.

    Raises:
        InDoubtError: nothing complete and readable came, or TikTok's front door failed (5xx).
        WaitError: a quota is spent (HTTP 429, or a code that says so).
        StopEveryoneError: a redirect, or a path that is not there; and codes that mean our app or request.
        BackOffError: TikTok's own trouble, or a code we do not know.
        AskCreatorError: the grant is gone (token calls only).
        RefreshFirstError: the access token is dead (reads only).
        GiveUpError: this one item cannot be had (reads only).
    """
    status = raw.http_status
    document = read_document(raw.body) if raw.complete else "incomplete"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        _raise_busy(raw, document, now or datetime.now(UTC))
    if status is None or status >= FIRST_TROUBLE or not raw.complete:
        _raise_in_doubt(raw, f"HTTP {status}" if raw.complete else f"incomplete: {raw.fault}")
    if FIRST_REDIRECT <= status < FIRST_REFUSAL:
        raise StopEveryoneError(
            f"{raw.call} was answered with a redirect (HTTP {status}), never followed: is the base address right?",
            call=raw.call,
            http_status=status,
        )
    if isinstance(document, str):
        if status in REFUSED_UNREAD:
            _raise_unread_refusal(raw)
        _raise_in_doubt(raw, document)
    code = read_code(document.members.get("code"))
    if "code" in document.repeated:
        _raise_in_doubt(raw, "two different codes")
    if code is not None and code not in SUCCESS_CODES:
        _raise_by_code(raw, document.members, code, now or datetime.now(UTC))
    if code is None and status in REFUSED_UNREAD:
        _raise_unread_refusal(raw)
    echoes = echoes_of(raw, document.members)
    return Envelope(
        code=code,
        members=document.members,
        repeated=document.repeated,
        request_id=request_id_of(document.members, echoes),
        echoes=echoes,
        frame=document.frame,
    )


def read_code(value: Any) -> int | None:
    """Return TikTok's code, also where it came as digits in a text; None for what no code can be."""
    if (
        isinstance(value, str)
        and value.isascii()
        and value.removeprefix("-").isdigit()
        and len(value) <= len(str(MOST_CODE))
    ):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MOST_CODE:
        return None
    return value


def echoes_of(raw: RawAnswer, members: dict[str, Any]) -> Echoes:
    """Return what finds the secrets that no text about this answer may show: what was sent, and what it brought."""
    brought = [found.get(name) for found in objects_in(members) for name in ("access_token", "refresh_token")]
    texts = [text for text in brought if isinstance(text, str) and is_text(text)]
    return Echoes([*(raw.sent or ()), *map(Token, texts)])


def request_id_of(members: dict[str, Any], echoes: Echoes) -> str | None:
    """Return TikTok's request id, or None for anything that does not look like one or that echoes a secret."""
    value = members.get("request_id")
    if not isinstance(value, str) or not REQUEST_ID.fullmatch(value) or echoes.in_text(value, GRAM):
        return None
    return value


def is_text(value: Any) -> bool:
    """Tell a non-empty text that every encoding can carry (JSON can smuggle in half characters)."""
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _raise_in_doubt(raw: RawAnswer, why: str) -> NoReturn:
    raise InDoubtError(
        f"no complete answer to {raw.call} that can be read ({why})", call=raw.call, http_status=raw.http_status
    )


def _raise_unread_refusal(raw: RawAnswer) -> NoReturn:
    raise StopEveryoneError(
        f"{raw.call} was refused with HTTP {raw.http_status} before TikTok's application saw it: is the path right?",
        call=raw.call,
        http_status=raw.http_status,
    )


def _raise_busy(raw: RawAnswer, document: Document | str, now: datetime) -> NoReturn:
    members = document.members if isinstance(document, Document) else {}
    message = members.get("message")
    scope, seconds = busy_wait(
        message=message if isinstance(message, str) else "", retry_after=raw.retry_after, now=now
    )
    raise WaitError(
        f"TikTok answered {raw.call} with HTTP 429: wait {seconds:.0f} s (limit per {scope})",
        seconds=seconds,
        scope=scope,
        call=raw.call,
        code=read_code(members.get("code")),
        http_status=raw.http_status,
        request_id=request_id_of(members, echoes_of(raw, members)),
    )


def _raise_by_code(raw: RawAnswer, members: dict[str, Any], code: int, now: datetime) -> NoReturn:
    kind = kind_of(code, raw.call)
    echoes = echoes_of(raw, members)
    # Of an answer that comes back from the journal we do not know which secrets the message could echo.
    said = "" if raw.sent is None else echoes.clean_message(members.get("message"))
    text = f"TikTok answered {raw.call} with {code}, {row(code).meaning}" + (f': "{said}"' if said else "")
    about: dict[str, Any] = {
        "call": raw.call,
        "code": code,
        "http_status": raw.http_status,
        "request_id": request_id_of(members, echoes),
    }
    if kind is Kind.WAIT:
        message = members.get("message")
        scope, seconds = quota_wait(
            code=code, message=message if isinstance(message, str) else "", retry_after=raw.retry_after, now=now
        )
        raise WaitError(text, scope=scope, seconds=seconds, **about)
    raise SIMPLE_ERRORS[kind](text, **about)
