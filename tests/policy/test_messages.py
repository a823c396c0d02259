"""Which messages are refused, and which are taken."""

from __future__ import annotations

import inspect
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.policy.messages import FURTHER, LARGEST_ID, MOST_BYTES, MOST_IDS, envelope_problem, task_problem

NOW = datetime(2026, 11, 26, tzinfo=UTC)
TASK = "tasks.refresh.refresh_grants"
HEADERS = {"task": TASK, "id": "an id", "timelimit": [None, None], "eta": None, "expires": None}
ENVELOPE = {
    "body": "W10=",
    "headers": {},
    "properties": {"delivery_tag": "tag", "delivery_info": {"exchange": "", "routing_key": "refresh"}},
}


def anything(*_: object, **__: object) -> None:
    """Stand for a task that takes any arguments."""


def of_ids(ids: object) -> None:
    """Stand for a task that takes ids."""


def problem(
    *arguments: Any, headers: dict[str, Any] | None = None, body: str | None = None, task: Any = anything
) -> str | None:
    """Look at a message with these arguments."""
    text = json.dumps([list(arguments), {}, {"callbacks": None, "chain": None}]) if body is None else body
    tasks = {TASK: inspect.signature(task)}
    return task_problem(HEADERS | (headers or {}), "application/json", text, tasks=tasks, now=NOW)


@pytest.mark.parametrize("arguments", [(), (5,), ([1, 2, 3],), ([],), (LARGEST_ID,), (list(range(1, MOST_IDS + 1)),)])
def test_ids_are_taken(arguments: tuple[Any, ...]) -> None:
    """An id, a list of ids, or nothing."""
    assert problem(*arguments) is None


@pytest.mark.parametrize(
    "argument",
    ["5", 5.0, True, None, 0, -1, LARGEST_ID + 1, [1, "2"], [[1]], {"a": 1}, list(range(1, MOST_IDS + 2)), [None]],
)
def test_what_is_no_id_is_refused(argument: Any) -> None:
    """Bounded and typed, as a position or by name."""
    assert "not ids" in str(problem(argument))
    assert "not ids" in str(problem(body=json.dumps([[], {"ids": argument}, None])))


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"task": "celery.map"}, "no task"),
        ({"task": "tasks.refresh.later"}, "no task"),
        ({"task": [TASK]}, "no task"),
        ({"task": None}, "no task"),
        ({"id": None}, "headers"),
        ({"id": 7}, "headers"),
        ({"timelimit": [1, 1]}, "time limit"),
        ({"timelimit": 5}, "time limit"),
        ({"eta": (NOW + timedelta(hours=2)).isoformat()}, "too far ahead"),
        ({"eta": "9999-12-31T00:00:00"}, "too far ahead"),
        ({"eta": "tomorrow"}, "no time"),
        ({"expires": 5}, "no time"),
    ],
)
def test_headers_that_no_sender_of_ours_writes_are_refused(headers: dict[str, Any], said: str) -> None:
    """Tasks of Celery's own, limits and times that would change how a worker behaves."""
    assert said in str(problem(headers=headers))


@pytest.mark.parametrize("moment", [NOW - timedelta(days=1), NOW + timedelta(minutes=59)])
@pytest.mark.parametrize("name", ["eta", "expires"])
def test_a_message_may_be_put_off_for_a_while(moment: datetime, name: str) -> None:
    """With an offset, or without one as UTC."""
    assert problem(headers={name: moment.isoformat()}) is None
    assert problem(headers={name: moment.replace(tzinfo=None).isoformat()}) is None


@pytest.mark.parametrize(
    "body", ["", "5", "null", "[]", "[[1], {}]", "[1, {}, null]", "[[1], [], null]", "{", "[" * 60_000, "1" * 60_000]
)
def test_a_body_without_arguments_is_refused(body: str) -> None:
    """Whatever it is, it is no traceback."""
    assert "no arguments" in str(problem(body=body))


@pytest.mark.parametrize("embedded", [{"chain": [1]}, {"callbacks": ["x"]}, [1], "x"])
def test_a_message_asks_for_one_task(embedded: Any) -> None:
    """Celery would call what is embedded when the task has ended."""
    assert "more than one" in str(problem(body=json.dumps([[1], {}, embedded])))


@pytest.mark.parametrize("name", FURTHER)
def test_no_header_asks_for_a_further_task(name: str) -> None:
    """Celery looks there too, and what it finds need not be what it expects."""
    assert "more than one" in str(problem(5, headers={name: [1]}))


@pytest.mark.parametrize(("arguments", "named"), [([], {}), ([1, 2], {}), ([1], {"ids": [1]}), ([], {"other": [1]})])
def test_arguments_that_the_task_does_not_take_are_refused(arguments: list[int], named: dict[str, list[int]]) -> None:
    """Too few, too many, or by another name: a call would end in a traceback."""
    assert "not those of the task" in str(problem(body=json.dumps([arguments, named, None]), task=of_ids))


@pytest.mark.parametrize("part", ["properties", "body"])
@pytest.mark.parametrize("value", [None, 5, [], "missing"])
def test_an_envelope_without_a_part_is_refused(part: str, value: Any) -> None:
    """It could not even be acknowledged."""
    envelope = ENVELOPE | {part: value}
    if value == "missing":
        del envelope[part]
    assert envelope_problem(envelope) is not None


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"delivery_tag": "a"},
        {"delivery_tag": 5, "delivery_info": {"exchange": "", "routing_key": "refresh"}},
        {"delivery_tag": ["a"], "delivery_info": {"exchange": "", "routing_key": "refresh"}},
        {"delivery_tag": "a", "delivery_info": {"exchange": ""}},
        {"delivery_tag": "a", "delivery_info": []},
    ],
)
def test_an_envelope_without_a_way_is_refused(properties: dict[str, Any]) -> None:
    """The tag and the place are needed to acknowledge it."""
    assert "where it goes" in str(envelope_problem(ENVELOPE | {"properties": properties}))


def test_compressed_and_long_messages_are_refused() -> None:
    """A fifth of a megabyte can become half a gigabyte."""
    assert envelope_problem(ENVELOPE) is None
    assert "compressed" in str(envelope_problem(ENVELOPE | {"headers": {"compression": "application/x-gzip"}}))
    assert "too long" in str(envelope_problem(ENVELOPE | {"body": "x" * (2 * MOST_BYTES + 1)}))
    assert "too long" in str(envelope_problem(ENVELOPE | {"headers": {"argsrepr": "x" * (MOST_BYTES + 1)}}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


@given(value=json_values, headers=st.dictionaries(st.sampled_from([*HEADERS, "compression"]), json_values))
def test_whatever_comes_is_looked_at_without_an_error(value: Any, headers: dict[str, Any]) -> None:
    """What is looked at is a stranger's."""
    envelope_problem(value)
    envelope_problem(ENVELOPE | {"headers": headers, "properties": value})
    problem(value, headers=headers)
    problem(headers=headers, body=json.dumps(value))
