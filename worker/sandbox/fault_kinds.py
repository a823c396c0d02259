"""The kinds of faults: each reads its settings and gives a function that writes the fault into an answer's plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from worker.sandbox.wire import HTML_TYPE, TEXT_TYPE, Delivery, Reply


@dataclass(slots=True)
class Plan:
    """What happens to one answer.

    Attributes:
        kinds: the faults that strike.
        works: False if the call is not carried out at all.
        wait_first: seconds before the call is carried out.
        code: an application code and message in place of the call's own answer.
        instead: an HTTP answer in place of the envelope.
        edits: changes of the answer's data.
        altered: whether an edit touches the creator id or a token.
        padding: how many bytes of a useless field are added to the envelope.
        packed: whether the body is gzipped, even if the client did not ask for it.
        bomb: how many spaces are added after the envelope before it is gzipped.
        retired: for fields that are no longer offered, the code that answers a read that asks for them.
        partial: names that are left out of a read, which is then answered with code 20001; none for a whole answer.
        data: in place of the answer's own data, as the only member of a tuple; `ABSENT` for no such field.
        other: the account whose data a read answers, in place of the one asked for.
        stuck: whether a page repeats the cursor that was sent and says that there is more.
        rewritten: bytes of the body, each with what is put in its place.
        delivery: how the answer travels.
    """

    kinds: tuple[str, ...] = ()
    works: bool = True
    wait_first: float = 0.0
    code: tuple[int, str] | None = None
    instead: Reply | None = None
    edits: list[Callable[[dict[str, Any]], None]] = field(default_factory=list)
    altered: bool = False
    padding: int = 0
    packed: bool = False
    bomb: int = 0
    retired: dict[str, int] = field(default_factory=dict)
    partial: frozenset[str] = frozenset()
    data: tuple[Any] | None = None
    other: str | None = None
    stuck: bool = False
    rewritten: list[tuple[bytes, bytes]] = field(default_factory=list)
    delivery: Delivery = field(default_factory=Delivery)


PAGE: Final = b"<!DOCTYPE html><html><head><title>Just a moment</title></head><body><h1>Please wait</h1></body></html>"
NO_CONTENT: Final = 204
FIELDS_OFFLINE: Final = 41_002
"""TikTok's code for a field that it no longer offers."""
ABSENT: Final = object()
"""In place of a value: the field is left out."""

Maker = Callable[[Plan], None]


def _one_of(value: object, *choices: str) -> str:
    if value not in choices:
        raise ValueError(f"{value!r} is none of {', '.join(choices)}")
    return str(value)


def _number(value: object, least: float = 0) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < least:
        raise ValueError(f"a number from {least:g} is wanted")
    return value


def _lost(*, how: str = "fin", rotates: bool = True) -> Maker:
    _one_of(how, "rst", "fin")

    def make(plan: Plan) -> None:
        plan.works = plan.works and rotates
        plan.delivery.lost = how

    return make


def _slow(*, seconds: float, first: str = "work") -> Maker:
    _number(seconds)
    _one_of(first, "work", "wait")

    def make(plan: Plan) -> None:
        if first == "work":
            plan.delivery.wait += seconds
        else:
            plan.wait_first += seconds

    return make


def _drip(*, part: str = "body", seconds_per_byte: float = 0.1, bytes: int = 1) -> Maker:  # noqa: A002  # the JSON name
    _one_of(part, "head", "body", "all")
    _number(seconds_per_byte)
    _number(bytes, 1)

    def make(plan: Plan) -> None:
        plan.delivery.drip_part, plan.delivery.drip_seconds, plan.delivery.drip_bytes = part, seconds_per_byte, bytes

    return make


def _cut(*, at: int, part: str = "body", framing: str = "length", how: str = "fin") -> Maker:
    _one_of(part, "body", "all")
    _one_of(framing, "length", "chunked", "close")
    _one_of(how, "rst", "fin")
    if type(at) is not int:
        raise ValueError("at: a whole number is wanted")

    def make(plan: Plan) -> None:
        travel = plan.delivery
        travel.cut_at, travel.cut_part, travel.framing, travel.cut_how = at, part, framing, how

    return make


def _framing(*, framing: str) -> Maker:
    _one_of(framing, "length", "chunked", "close")

    def make(plan: Plan) -> None:
        plan.delivery.framing = framing

    return make


def _instead(reply: Reply, *, rotates: bool) -> Maker:
    if not isinstance(rotates, bool):
        raise TypeError("rotates: true or false is wanted")

    def make(plan: Plan) -> None:
        plan.works = plan.works and rotates
        plan.instead = reply

    return make


def _html(*, status: int = 200, rotates: bool = True) -> Maker:
    return _instead(Reply(int(_number(status, 200)), PAGE, HTML_TYPE), rotates=rotates)


def _empty(*, status: int = 200, rotates: bool = True) -> Maker:
    return _instead(Reply(int(_number(status, 200)), b""), rotates=rotates)


def _no_content(*, rotates: bool = True) -> Maker:
    return _instead(Reply(NO_CONTENT, b""), rotates=rotates)


def _status(
    *, status: int, retry_after: str | None = None, body: str = "upstream trouble", rotates: bool = False
) -> Maker:
    headers = (("Retry-After", str(retry_after)),) if retry_after is not None else ()
    return _instead(Reply(int(_number(status, 200)), body.encode(), TEXT_TYPE, headers), rotates=rotates)


def _redirect(*, location: str, status: int = 307, rotates: bool = False) -> Maker:
    return _instead(Reply(int(_number(status, 300)), b"", TEXT_TYPE, (("Location", location),)), rotates=rotates)


def _code(*, code: int, message: str = "Forced by a fault.", rotates: bool = False) -> Maker:
    if type(code) is not int:
        raise ValueError("code: a whole number is wanted")

    def make(plan: Plan) -> None:
        plan.works = plan.works and rotates
        plan.code = (code, message)

    return make


def _edit(field_name: str, value: object, *, altered: bool = False) -> Maker:
    def edit(data: dict[str, Any]) -> None:
        if value is ABSENT:
            data.pop(field_name, None)
        else:
            data[field_name] = value

    def make(plan: Plan) -> None:
        plan.edits.append(edit)
        plan.altered = plan.altered or altered

    return make


def _wrong_creator(*, creator_id: str = "someone-else") -> Maker:
    return _edit("open_id", creator_id, altered=True)


def _expires(*, value: object = ABSENT, field: str = "expires_in") -> Maker:
    return _edit(_one_of(field, "expires_in", "refresh_token_expires_in"), value)


def _refresh_token(*, value: object = ABSENT) -> Maker:
    return _edit("refresh_token", value, altered=True)


def _scope(*, value: object = ABSENT) -> Maker:
    return _edit("scope", value)


def _extra(*, fields: dict[str, Any]) -> Maker:
    if not isinstance(fields, dict):
        raise TypeError("fields: an object is wanted")
    touched = bool({"open_id", "access_token", "refresh_token"} & fields.keys())

    def make(plan: Plan) -> None:
        plan.edits.append(lambda data: data.update(fields))
        plan.altered = plan.altered or touched

    return make


def _huge(*, bytes: int) -> Maker:  # noqa: A002  # the JSON name
    _number(bytes, 1)
    return lambda plan: setattr(plan, "padding", bytes)


def _gzip() -> Maker:
    return lambda plan: setattr(plan, "packed", True)


def _gzip_bomb(*, bytes: int = 10 * 1024 * 1024) -> Maker:  # noqa: A002  # the JSON name
    _number(bytes, 1)
    return lambda plan: setattr(plan, "bomb", bytes)


def _retired(*, field: str, code: int = FIELDS_OFFLINE) -> Maker:
    if type(code) is not int:
        raise ValueError("code: a whole number is wanted")
    return lambda plan: plan.retired.update({field: code})


def _partial(*, without: list[str]) -> Maker:
    if not isinstance(without, list) or not without or not all(isinstance(name, str) for name in without):
        raise TypeError("without: a list of names is wanted")
    return lambda plan: setattr(plan, "partial", plan.partial.union(without))


def _data(*, value: object = ABSENT) -> Maker:
    def make(plan: Plan) -> None:
        plan.data, plan.altered = (value,), True

    return make


def _other_account(*, creator_id: str = "someone-else") -> Maker:
    return lambda plan: setattr(plan, "other", creator_id)


def _stuck_cursor() -> Maker:
    return lambda plan: setattr(plan, "stuck", True)


def _rewrite(*, find: str, put: str) -> Maker:
    if not find:
        raise ValueError("find: a text that is not empty is wanted")

    def make(plan: Plan) -> None:
        plan.rewritten.append((find.encode(), put.encode()))
        plan.altered = True

    return make


MAKERS: Final[dict[str, Callable[..., Maker]]] = {
    "lost": _lost,
    "slow": _slow,
    "drip": _drip,
    "cut": _cut,
    "framing": _framing,
    "html": _html,
    "empty": _empty,
    "no_content": _no_content,
    "status": _status,
    "redirect": _redirect,
    "code": _code,
    "wrong_creator": _wrong_creator,
    "expires": _expires,
    "refresh_token": _refresh_token,
    "scope": _scope,
    "extra": _extra,
    "huge": _huge,
    "gzip": _gzip,
    "gzip_bomb": _gzip_bomb,
    "retired": _retired,
    "partial": _partial,
    "data": _data,
    "other_account": _other_account,
    "stuck_cursor": _stuck_cursor,
    "rewrite": _rewrite,
}
"""Kinds of faults and what reads their settings: each gives a function that writes the fault into a plan."""
