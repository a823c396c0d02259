"""Which messages from the broker are refused: whoever can write to it can put anything into a queue."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

MOST_BYTES: Final = 65_536
"""Limit for a body, and for all header values together; a thousand ids take a quarter of it."""
MOST_IDS: Final = 1_000
LARGEST_ID: Final = 2**63 - 1
LATEST: Final = timedelta(hours=1)
"""How far ahead a message's time may be; a worker holds the message in memory until then."""
JSON: Final = "application/json"
FURTHER: Final = ("callbacks", "errbacks", "chain", "chord", "group")
"""Headers that make Celery call other tasks, or look for them."""


def envelope_problem(envelope: object) -> str | None:
    """Return why a message cannot be taken from its queue, or None.

    Args:
        envelope: the content of Redis, read as JSON.
    """
    return next(_problems_of_envelope(envelope), None)


def task_problem(
    headers: Mapping[str, Any],
    content_type: str | None,
    body: str | bytes,
    *,
    tasks: Mapping[str, inspect.Signature],
    now: datetime,
) -> str | None:
    """Return why a message is not a call of one of our tasks, or None.

    Args:
        headers: headers of the message.
        content_type: content type of its body.
        body: JSON of positional arguments, named arguments and what else Celery can embed.
        tasks: the tasks by their names, with their signatures.
        now: an aware instant.
    """
    problem = next(_problems_of_headers(headers, content_type, tasks, now), None)
    return problem or next(_problems_of_body(body, tasks[headers["task"]]), None)


def _problems_of_envelope(envelope: object) -> Iterator[str]:
    """Yield problems; the caller takes only the first, so each check may rely on those before it."""
    if not isinstance(envelope, dict):
        yield "it is no message"
        return
    properties, headers, body = envelope.get("properties"), envelope.get("headers") or {}, envelope.get("body")
    if not isinstance(properties, dict) or not isinstance(headers, dict) or not isinstance(body, str):
        yield "it lacks a part of a message"
        return
    info = properties.get("delivery_info")
    places = (info.get("exchange"), info.get("routing_key")) if isinstance(info, dict) else (None,)
    if not all(isinstance(text, str) for text in (properties.get("delivery_tag"), *places)):
        yield "it does not say where it goes"
    yield from _problems_of_size(headers, body)


def delivery_problem(headers: Mapping[str, Any], body: str | bytes) -> str | None:
    """Return why a message that RabbitMQ has delivered is not even decoded, or None."""
    return next(_problems_of_size(headers, body), None)


def _problems_of_size(headers: Mapping[str, Any], body: str | bytes) -> Iterator[str]:
    if headers.get("compression"):
        yield "it is compressed, which no message of Evertoken is"
    if len(body) > 2 * MOST_BYTES or sum(len(str(value)) for value in headers.values()) > MOST_BYTES:
        yield "it is too long"


def _problems_of_headers(
    headers: Mapping[str, Any], content_type: str | None, tasks: Collection[str], now: datetime
) -> Iterator[str]:
    name = headers.get("task")
    if not isinstance(name, str) or name not in tasks:
        yield "it names no task of this version"
    if not isinstance(headers.get("id"), str) or content_type != JSON:
        yield "its headers are not those of a task"
    if any(headers.get(name) for name in FURTHER):
        yield "it asks for more than one task"
    if headers.get("timelimit") not in (None, [None, None]):
        yield "it brings a time limit"
    if not all(_is_soon(headers.get(name), now) for name in ("eta", "expires")):
        yield "its time is no time, or too far ahead"


def _problems_of_body(body: str | bytes, signature: inspect.Signature) -> Iterator[str]:
    try:
        arguments, named, embedded = json.loads(body)
    except (ValueError, TypeError, RecursionError):
        arguments = named = embedded = None
    if not isinstance(arguments, list) or not isinstance(named, dict):
        yield "its body holds no arguments"
        return
    if embedded and (not isinstance(embedded, dict) or any(embedded.values())):
        yield "it asks for more than one task"
    if not all(_is_ids(value) for value in (*arguments, *named.values())):
        yield f"its arguments are not ids, or more than {MOST_IDS}"
    try:
        signature.bind(*arguments, **named)
    except TypeError:
        yield "its arguments are not those of the task"


def _is_soon(value: object, now: datetime) -> bool:
    if value is None:
        return True
    try:
        instant = datetime.fromisoformat(str(value))
    except ValueError:
        return False
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)) - now <= LATEST


def _is_ids(value: object) -> bool:
    """Return True if an argument is an id, or a list of ids that is not too long."""
    ids = value if isinstance(value, list) else [value]
    return len(ids) <= MOST_IDS and all(type(each) is int and 0 < each <= LARGEST_ID for each in ids)
