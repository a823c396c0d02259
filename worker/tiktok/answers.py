"""Reads token answers: strict about whose pair it is, lenient about everything that a pair can live without.

Pure functions of the received bytes, so that a replay from the journal reads exactly what the live call would have.
The names are those of the current API, of early v1.3 and of v1.2, whose answers had no envelope. Answers to the reads
of a token and of an account become values here too.
"""

from __future__ import annotations

import re
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

from worker.errors import InDoubtError, TikTokError
from worker.policy.creator_id import is_creator_id
from worker.tiktok.codes import ACCOUNT_CALL, SUCCESS_CODES, TOKEN_INFO_CALL
from worker.tiktok.envelope import Envelope, echoes_of, is_text, open_envelope, read_code, request_id_of
from worker.tiktok.parsing import Document, objects_in, read_document, read_prefix, texts_in
from worker.tiktok.values import AccountData, RawAnswer, TokenAnswer, TokenInfo
from worker.vault.redaction import Echoes
from worker.vault.token import Token

CREATOR_NAMES: Final = ("creator_id", "open_id")
ACCESS_LIFE_NAMES: Final = ("expires_in", "expires")
REFRESH_LIFE_NAMES: Final = ("refresh_token_expires_in", "refresh_expires_in", "refresh_expires")
ABSURD_SECONDS: Final = 400 * 86400
SCOPE_LIMIT: Final = 100
DECISIVE_KEYS: Final = frozenset({"code", "data", "access_token", "refresh_token", *CREATOR_NAMES})
"""Where one of these stands twice with different values, nobody can tell which one TikTok meant."""

TOKENS: Final = frozenset({"access_token", "refresh_token"})
REFRESH_IN_TEXT: Final = re.compile(r"""refresh_token[\\"']*\s*[:=>]\s*[\\"']*[^\s\\"'&,<>{}]{8,}[\s\\"'&,<>}]""")
"""A refresh token with what ends it, in any notation that is not JSON."""
NO_TEXT: Final = re.compile(rb"[\x00-\x08\x0e-\x1f]")
SECONDS: Final = re.compile(r"[0-9]{1,12}(\.0*)?", re.ASCII)


def read_token_answer(raw: RawAnswer, *, now: datetime | None = None) -> TokenAnswer:
    """Read the answer to an exchange or a refresh.

    Args:
        raw: the answer as received, live or out of the journal.
        now: aware UTC, by default the present; serves only the waits that end at a date.

    Returns:
        The pair. A life that is missing or absurd is None and a remark says so; the pair is kept all the same.

    Raises:
        InDoubtError: nothing usable came; `salvage` may still find a pair in it.
        WaitError: a quota is spent.
        BackOffError: TikTok's own trouble, or a code we do not know.
        StopEveryoneError: our app, its secret, our request or our address is wrong.
        AskCreatorError: TikTok says that this grant, or this code, is no good any more.
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
    """Return the pair of an answer, also of one that broke off behind it, or the error that says why there is none."""
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
            stored before TikTok has told whose it is.

    Returns:
        The pair where both token strings and the creator's id are there in full and no code speaks against them;
        else None. A life that the cut took away is None.
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
    """Tell whether an answer holds, or may hold, a whole refresh token, whatever its frame: then it is not let go.

    Where nothing can be read, a text that names a refresh token counts, and so does a good answer that is no text.
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
    """Return the token answer in a document, or in a few words what is missing."""
    if DECISIVE_KEYS & document.repeated:
        return "a decisive key stands there twice"
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
        noted.append("the tokens stand in an odd place")
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
    )


def read_creator(found: dict[str, Any], echoes: Echoes) -> str | None:
    """Return the one creator the answer names; a bare number counts, two different ids and a secret do not."""
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
    """Return seconds of life under the first of its names; integral floats and digits in a text count."""
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
        noted.append(f"{name} is no life of 1 second to 400 days")
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
    usable = {name.strip() for name in names if _is_scope(name) and (clean or not echoes.in_text(name))}
    if not usable or not all(name == "" or (_is_scope(name) and name.strip() in usable) for name in names):
        noted.append("scope holds something that is no scope")
    return tuple(sorted(usable)) or None


def _is_scope(name: Any) -> bool:
    return (
        isinstance(name, str)
        and 0 < len(name.strip()) <= SCOPE_LIMIT
        and name.strip().isprintable()
        and not {" ", ","} & set(name.strip())
    )


def read_token_info(envelope: Envelope) -> TokenInfo:
    """Return what TikTok says of an access token; it still names the creator `creator_id` here.

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


def read_account_data(envelope: Envelope) -> AccountData:
    """Return the fields of one account as TikTok named them, without an echo of a secret.

    Raises:
        InDoubtError: the answer has no code, or no data.
    """
    data = envelope.members.get("data")
    if envelope.code is None or not isinstance(data, dict):
        raise _unfit(envelope, ACCOUNT_CALL)
    return AccountData(envelope.echoes.fit_to_store(data), envelope.request_id)


def _unfit(envelope: Envelope, call: str) -> InDoubtError:
    return InDoubtError(
        f"{call} was answered without what was asked for", call=call, code=envelope.code, request_id=envelope.request_id
    )
