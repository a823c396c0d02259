"""Reads TikTok's answers: from the received bytes to a value, or to the typed error that status or code asks for.

First the envelope. TikTok answers application errors with HTTP 200 and a `code` (its error appendix), so the code
decides wherever an envelope can be read. Answers that never ran through the application are judged by their status
alone. Errors are raised outside of `except` blocks: a parser's error holds the body, so nothing stays chained to it.

Then what is in it. A token answer is read strictly as to whose pair it is, and leniently in everything that a pair can
live without. The names are those of the current API, of early v1.3 and of v1.2, whose answers had no envelope.

One idea: envelope and content are judged by the same rules of what counts as text, code and echo of a secret. All are
pure functions of the received bytes, so that a replay from the journal reads exactly what the live call would have.
"""

from __future__ import annotations

import json
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
from worker.policy.creator_id import is_creator_id
from worker.tiktok.codes import SUCCESS_CODES, TOKEN_INFO_CALL, Kind, kind_of, row
from worker.tiktok.parsing import (
    OPENED_LIMIT_BYTES,
    READ_LIMIT_BYTES,
    Document,
    objects_in,
    open_body,
    read_document,
    read_prefix,
    texts_in,
)
from worker.tiktok.values import RawAnswer, ReadAnswer, TokenAnswer, TokenInfo
from worker.tiktok.waits import busy_wait, quota_wait
from worker.vault.redaction import GRAM, HIDDEN, HIDING_ESCAPE, Echoes
from worker.vault.token import Token

CREATOR_NAMES: Final = ("creator_id", "open_id")
ACCESS_LIFE_NAMES: Final = ("expires_in", "expires")
REFRESH_LIFE_NAMES: Final = ("refresh_token_expires_in", "refresh_expires_in", "refresh_expires")
ABSURD_SECONDS: Final = 400 * 86400
SCOPE_LIMIT: Final = 100
TOKEN_FIELDS: Final = frozenset(
    {"access_token", "refresh_token", "scope", "token_type", *CREATOR_NAMES, *ACCESS_LIFE_NAMES, *REFRESH_LIFE_NAMES}
)
FIELD: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
DECISIVE_KEYS: Final = frozenset({"code", "data", "access_token", "refresh_token", *CREATOR_NAMES})
"""If one of these occurs twice with different values, it is unknown which one TikTok meant."""

TOKENS: Final = frozenset({"access_token", "refresh_token"})
REFRESH_IN_TEXT: Final = re.compile(r"""refresh_token[\\"']*\s*[:=>]\s*[\\"']*[^\s\\"'&,<>{}]{8,}[\s\\"'&,<>}]""")
"""A refresh token with the character that ends it, in any notation that is not JSON."""
NO_TEXT: Final = re.compile(rb"[\x00-\x08\x0e-\x1f]")
SECONDS: Final = re.compile(r"[0-9]{1,12}(\.0*)?", re.ASCII)
MOST_CODE: Final = 2**31 - 1
FIRST_REDIRECT: Final = 300
FIRST_REFUSAL: Final = 400
FIRST_TROUBLE: Final = 500

REFUSED_UNREAD: Final = frozenset({400, 401, 403, 404, 405, 406, 410, 411, 413, 414, 415, 421, 431})
"""Statuses that mean, without an envelope, that our request did not reach the application: wrong path or method."""

REQUEST_ID: Final = re.compile(r"[0-9]{8}[0-9A-Za-z_-]{0,56}")
"""TikTok's request ids begin with a UTC stamp; anything else is not a request id."""

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
        code: TikTok's code (0 or 20001), or None if the answer had no readable one, as in v1.2.
        members: the whole JSON object.
        repeated: keys that occurred twice with different values.
        request_id: TikTok's request id, or None.
        echoes: knows the secrets that were sent or received; nothing that is stored or shown may repeat them.
        frame: what was odd about the frame of the answer; None if nothing was.
        text: what was parsed.
    """

    code: int | None
    members: dict[str, Any] = field(repr=False)
    repeated: frozenset[str]
    request_id: str | None
    echoes: Echoes = field(repr=False)
    frame: str | None = None
    text: str = field(default="", repr=False)


def open_envelope(raw: RawAnswer, *, now: datetime | None = None, reads: bool = False) -> Envelope:
    """Read the envelope of an answer.

    Args:
        raw: the answer as received.
        now: aware UTC, by default the present; only needed for waits that end at a date.
        reads: True for a read of account data: it may be longer, and odd numbers in it are kept.

    Raises:
        InDoubtError: nothing complete and readable came, or TikTok's gateway failed (5xx).
        WaitError: a quota is spent (HTTP 429, or a code that says so).
        StopEveryoneError: a redirect, a path that does not exist, or a code about our app or request.
        BackOffError: TikTok's own trouble, or a code we do not know.
        AskCreatorError: the grant is gone (token calls only).
        RefreshFirstError: the access token is dead (reads only).
        GiveUpError: this one item is not available (reads only).
    """
    status = raw.http_status
    limit = READ_LIMIT_BYTES if reads else OPENED_LIMIT_BYTES
    document = read_document(raw.body, limit=limit, odd_numbers=reads) if raw.complete else "incomplete"
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
    echoes = echoes_of(raw, document.members, document.text)
    return Envelope(
        code=code,
        members=document.members,
        repeated=document.repeated,
        request_id=request_id_of(document.members, echoes),
        echoes=echoes,
        frame=document.frame,
        text=document.text,
    )


def told_of(raw: RawAnswer) -> dict[str, str | int | None]:
    """Return what a trace says of an answer: HTTP status, code, request id, and the kind of error that it is."""
    fields: dict[str, str | int | None] = {"http_status": raw.http_status}
    try:
        envelope = open_envelope(raw, reads=not raw.call.startswith("tt_user/"))
    except TikTokError as error:
        return fields | {"code": error.code, "request_id": error.request_id, "error": type(error).__name__}
    return fields | {"code": envelope.code, "request_id": envelope.request_id}


def read_code(value: Any) -> int | None:
    """Return TikTok's code, even if it came as digits in a text; None if the value cannot be a code."""
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


def echoes_of(raw: RawAnswer, members: dict[str, Any], text: str | None = None) -> Echoes:
    """Return the finder of secrets that no text about this answer may show: those that were sent or received.

    Args:
        raw: the answer as received.
        members: what was read from it.
        text: the JSON from which they were read; it can show quickly that no token is among them.
    """
    if text is not None and "_token" not in text and not HIDING_ESCAPE.search(text):
        return Echoes(raw.sent or ())
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
    """Return True for a non-empty text that can be encoded (JSON can contain half characters)."""
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
    # For an answer from the journal we do not know which secrets the message could echo.
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


def read_token_answer(raw: RawAnswer, *, now: datetime | None = None) -> TokenAnswer:
    """Read the answer to an exchange or a refresh.

    Args:
        raw: the answer as received, live or from the journal.
        now: aware UTC, by default the present; only needed for waits that end at a date.

    Returns:
        The pair. A life that is missing or absurd is None, and a remark says so; the pair is kept all the same.

    Raises:
        InDoubtError: nothing usable came; `salvage` may still find a pair in it.
        WaitError: a quota is spent.
        BackOffError: TikTok's own trouble, or a code we do not know.
        StopEveryoneError: our app, its secret, our request or our address is wrong.
        AskCreatorError: TikTok says that this grant, or this code, is no longer valid.
    """
    envelope = open_envelope(raw, now=now)
    document = Document(envelope.members, envelope.repeated)
    odd = () if envelope.frame is None else (f"the answer came as {envelope.frame}",)
    answer = _token_object(document, envelope.request_id, envelope.echoes, odd)
    if isinstance(answer, str):
        raise InDoubtError(
            f"{raw.call} was answered without a pair that can be used ({answer})",
            call=raw.call,
            code=envelope.code,
            http_status=raw.http_status,
            request_id=envelope.request_id,
        )
    return answer


def read_or_salvage(raw: RawAnswer) -> TokenAnswer | TikTokError:
    """Return the pair of an answer, even if the answer was cut off behind it, or the error that says why not."""
    try:
        return read_token_answer(raw)
    except InDoubtError as error:
        return salvage(raw) or error
    except TikTokError as error:
        return error


def salvage(raw: RawAnswer, *, named: bool = True) -> TokenAnswer | None:
    """Find a pair in an answer that could not be read as a whole: cut off, too long, or under an error's status.

    Args:
        raw: the answer as received.
        named: False to find a pair whose creator's id did not come; its `creator_id` is then empty, and nothing may be
            stored before TikTok has named its owner.

    Returns:
        The pair if both token strings and the creator's id are complete and no error code contradicts them; otherwise
        None. A life that was cut off is None.
    """
    document = read_prefix(raw.body)
    if document is None:
        return None
    code = read_code(document.members.get("code"))
    if code is not None and code not in SUCCESS_CODES:
        return None
    echoes = echoes_of(raw, document.members)
    request_id = request_id_of(document.members, echoes)
    remarks = ("salvaged from an answer that was not complete",)
    answer = _token_object(document, request_id, echoes, remarks=remarks, named=named)
    if isinstance(answer, str) or answer.refresh_token is None:
        return None
    return answer


def bears_refresh_token(raw: RawAnswer) -> bool:
    """Return True if an answer holds, or may hold, a complete refresh token, in any frame: then it must be kept.

    If nothing can be read, a text that names a refresh token counts, and so does a good answer that is not text.
    """
    document = read_document(raw.body)
    if not isinstance(document, Document):
        document = read_prefix(raw.body) or document
    if isinstance(document, Document):
        spoken = {name: value for name, value in document.members.items() if name != "message"}
        return any(is_text(found.get("refresh_token")) for found in objects_in(spoken))
    if any(REFRESH_IN_TEXT.search(text) for text in texts_in(raw.body)):
        return True
    return raw.complete and raw.http_status == HTTPStatus.OK and NO_TEXT.search(raw.body) is not None


def _tokens_in(document: Document) -> dict[str, Any]:
    """Return the object that holds the tokens: `data`, the answer itself as in v1.2, or the one inside `data`."""
    data = document.members.get("data")
    if isinstance(data, dict) and TOKENS & data.keys():
        return data
    if TOKENS & document.members.keys():
        return document.members
    whole = [found for found in objects_in(data) if found.keys() >= TOKENS]
    return whole[0] if len(whole) == 1 else document.members


def _token_object(
    document: Document,
    request_id: str | None,
    echoes: Echoes,
    remarks: tuple[str, ...] = (),
    *,
    named: bool = True,
) -> TokenAnswer | str:
    """Return the token answer in a document, or a few words on what is missing."""
    if DECISIVE_KEYS & document.repeated:
        return "a decisive key occurs twice"
    found = _tokens_in(document)
    access = found.get("access_token")
    if not is_text(access):
        return "no access token"
    anonymous = not named and all(found.get(name) is None for name in CREATOR_NAMES)
    creator = "" if anonymous else read_creator(found, echoes)
    if creator is None:
        return "no creator, or two of them"
    noted = list(remarks)
    refresh = found.get("refresh_token")
    usable = is_text(refresh)
    if refresh not in (None, "") and not usable:
        noted.append("refresh token is not a text: the old one is kept")
    if found is not document.members and found is not document.members.get("data"):
        noted.append("the tokens are in an odd place")
    if found is not document.members and read_code(document.members.get("code")) != 0:
        noted.append("the envelope's code is not 0")
    return TokenAnswer(
        creator_id=creator,
        access_token=Token(str(access)),
        refresh_token=Token(str(refresh)) if usable else None,
        access_seconds=_life(found, ACCESS_LIFE_NAMES, noted),
        refresh_seconds=_life(found, REFRESH_LIFE_NAMES, noted),
        scope=read_scope(found.get("scope"), noted, echoes),
        request_id=request_id,
        remarks=tuple(noted),
        fields=frozenset(name for name in found if name in TOKEN_FIELDS or _is_field(name, echoes)),
    )


def _is_field(name: str, echoes: Echoes) -> bool:
    return FIELD.fullmatch(name) is not None and not echoes.in_text(name)


def read_creator(found: dict[str, Any], echoes: Echoes) -> str | None:
    """Return the creator that the answer names; a bare number counts, two different ids and a secret do not."""
    named = set()
    for name in CREATOR_NAMES:
        value = found.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str) and value:
            named.add(value)
    creator = named.pop() if len(named) == 1 else ""
    return creator if is_creator_id(creator) and not echoes.whole_in_text(creator) else None


def _life(found: dict[str, Any], names: tuple[str, ...], noted: list[str]) -> int | None:
    """Return the seconds of a life under the first of its names; integral floats and digits in a text count."""
    name = next((known for known in names if found.get(known) is not None), None)
    if name is None:
        noted.append(f"{names[0]} is missing")
        return None
    value = found[name]
    if isinstance(value, str) and SECONDS.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= ABSURD_SECONDS:
        noted.append(f"{name} is not a life of 1 second to 400 days")
        return None
    return value


def read_scope(value: Any, noted: list[str], echoes: Echoes) -> tuple[str, ...] | None:
    """Return the granted scopes, sorted, without duplicates or echoes of secrets; TikTok's order is not stable."""
    if value is None:
        return None
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list):
        names = [None]
    clean = isinstance(value, str) and not echoes.in_text(value)
    usable, odd = set[str](), False
    for name in names:
        scope = name.strip() if isinstance(name, str) else ""
        if _is_scope(scope) and (clean or not echoes.in_text(scope)):
            usable.add(scope)
        elif name != "":
            odd = True
    if odd or not usable:
        noted.append("scope holds something that is not a scope")
    return tuple(sorted(usable)) or None


def _is_scope(name: str) -> bool:
    return 0 < len(name) <= SCOPE_LIMIT and name.isprintable() and " " not in name and "," not in name


def read_token_info(envelope: Envelope) -> TokenInfo:
    """Return TikTok's information on an access token; here TikTok still calls the creator's id `creator_id`.

    Raises:
        InDoubtError: the answer lacks the app or the creator.
    """
    data = envelope.members.get("data")
    if not isinstance(data, dict):
        raise _unfit(envelope, TOKEN_INFO_CALL)
    app_id, creator_id = data.get("app_id"), read_creator(data, envelope.echoes)
    if creator_id is None or isinstance(app_id, bool) or not isinstance(app_id, str | int):
        raise _unfit(envelope, TOKEN_INFO_CALL)
    return TokenInfo(
        app_id=str(app_id), creator_id=creator_id, scope=read_scope(data.get("scope"), [], envelope.echoes) or ()
    )


def read_answer(raw: RawAnswer) -> ReadAnswer:
    """Read the answer to a read of account data, without an echo of a secret.

    Raises:
        InDoubtError: the answer has no code, or no data.
        TikTokError: another one of the tree; see `open_envelope`.
    """
    envelope = open_envelope(raw, reads=True)
    data = envelope.members.get("data")
    if envelope.code is None or not isinstance(data, dict):
        raise _unfit(envelope, raw.call)
    if envelope.frame is None and envelope.echoes.is_fit(data, envelope.text):
        fit, kept = data, envelope.text.encode()
    else:
        fit = envelope.echoes.fit_to_store(data)
        kept = _keepable(raw, envelope, data, fit)
    return ReadAnswer(
        data=fit,
        request_id=envelope.request_id,
        partial=envelope.code != 0,
        repeated=envelope.repeated,
        raw=kept,
    )


def _keepable(raw: RawAnswer, envelope: Envelope, data: dict[str, Any], fit: dict[str, Any]) -> bytes:
    """Return the answer as it came if nothing in it repeats a secret; otherwise its data, written again without that.

    What was changed only because no database holds it (NUL, half characters) stays in the raw bytes.
    """
    opened, _ = open_body(raw.body, READ_LIMIT_BYTES)
    if fit == data or json.dumps(fit, default=str).count(HIDDEN) == json.dumps(data, default=str).count(HIDDEN):
        text = opened.decode("utf-8", errors="replace")
        if not envelope.echoes.part_in(text):
            return opened
    return json.dumps({"code": envelope.code, "request_id": envelope.request_id, "data": fit}, default=str).encode()


def _unfit(envelope: Envelope, call: str) -> InDoubtError:
    return InDoubtError(
        f"{call} was answered without what was asked for", call=call, code=envelope.code, request_id=envelope.request_id
    )
