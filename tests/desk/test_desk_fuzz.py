"""The API against requests made from its own description: no server error, and no answer that it does not describe."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote, urlencode

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from jsonschema import Draft202012Validator, FormatChecker

from tests.support.desk import RunningDesk
from worker.desk.openapi import description

DOCUMENT: Final = description()
OPERATIONS: Final = [
    (path, method, operation)
    for path, way in DOCUMENT["paths"].items()
    for method, operation in way.items()
    if method in {"get", "post"}
]
TEXTS: Final = some.one_of(
    some.text(max_size=30), some.sampled_from(["", "0", "-1", "1", "15", "nan", "inf", "1e999", "active", "null", "٣"])
)
NAMES: Final = some.one_of(
    some.sampled_from(["min_validity", "newer_than", "wait", "status", "after", "limit"]), some.text(max_size=8)
)
BODIES: Final = some.one_of(
    some.binary(max_size=60),
    some.recursive(
        some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text(max_size=8),
        lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=8), inner, max_size=3),
        max_leaves=5,
    ).map(lambda value: json.dumps(value).encode()),
    some.integers().map(lambda number: json.dumps({"generation": number}).encode()),
)
HEADERS: Final = some.dictionaries(
    some.sampled_from(["If-None-Match", "Content-Type", "Accept", "X-Forwarded-For", "Range"]),
    some.text(some.characters(min_codepoint=32, max_codepoint=126), max_size=20).map(str.strip),
    max_size=2,
)


def request_of(data: some.DataObject, creator_id: str, url: str) -> tuple[str, str, dict[str, Any]]:
    """Make a request of one operation: often fit, and as often odd in a few places."""
    path, method, operation = data.draw(some.sampled_from(OPERATIONS))
    name = data.draw(some.one_of(some.just(creator_id), some.text(min_size=1, max_size=40)))
    query: list[tuple[str, str]] = []
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query" and data.draw(some.booleans()):
            schema = parameter["schema"]
            if "enum" in schema:
                fit: some.SearchStrategy[str] = some.sampled_from(schema["enum"])
            else:
                # A wait of seconds would make the test long.
                fit = some.integers(schema.get("minimum", 0), 0 if parameter["name"] == "wait" else 50).map(str)
            query.append((parameter["name"], data.draw(fit)))
    query += data.draw(some.lists(some.tuples(NAMES, TEXTS), max_size=1))
    query = [(key, "0" if key == "wait" and value not in {"-1", "nan", ""} else value) for key, value in query]
    options: dict[str, Any] = {"headers": data.draw(HEADERS)}
    if method == "post":
        options["data"] = data.draw(BODIES)
    encoded = urlencode(query, errors="surrogatepass")
    filled = path.replace("{creator_id}", quote(name, safe="", errors="surrogatepass"))
    return method, f"{url}{filled}{'?' if encoded else ''}{encoded}", options | {"operation": operation}


def check(answer: requests.Response, operation: dict[str, Any]) -> None:
    """Check that an answer is one that the description has: status, type, headers and content."""
    status = str(answer.status_code)
    assert answer.status_code < 500 or status == "503", answer.text
    assert status in operation["responses"], f"{status} is not described: {answer.request.method} {answer.url}"
    told = operation["responses"][status]
    for name, header in told.get("headers", {}).items():
        assert name in answer.headers or not header.get("required"), f"{name} is missing"
    if "content" not in told:
        assert answer.content == b""
        return
    ((kind, content),) = told["content"].items()
    assert answer.headers["Content-Type"] == kind
    schema = content["schema"] | {"components": DOCUMENT["components"]}  # where its references lead
    validator = Draft202012Validator(schema, format_checker=FormatChecker())
    errors = [error.message for error in validator.iter_errors(answer.json())]
    assert errors == []


@pytest.mark.slow_suite
@pytest.mark.timeout(300)
def test_no_request_meets_a_server_error_or_an_answer_that_is_not_described(desk: RunningDesk) -> None:
    """Requests of each operation, fit and odd; none is an error of the log either."""
    grant = desk.world.creator()
    shop = desk.consumer()
    bearing = {"Authorization": f"Bearer {shop.key}"}

    @settings(max_examples=80, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(some.data())
    def answers_as_described(data: some.DataObject) -> None:
        method, url, options = request_of(data, grant.creator_id, desk.url)
        operation, headers = options.pop("operation"), options.pop("headers")
        check(requests.request(method, url, headers=headers | bearing, timeout=30, **options), operation)

    answers_as_described()
    assert [fact.name for fact in desk.facts if fact.level == "error"] == []
