"""The description of the API, OpenAPI 3.1: what is served at /v1/openapi.json and kept in docs/openapi.json."""

from __future__ import annotations

from typing import Any, Final

from worker.policy.verdicts import Cause
from worker.store import GrantStatus

TEXT: Final = {"type": "string"}
INSTANT: Final = {"type": "string", "format": "date-time"}
COUNT: Final = {"type": "integer", "minimum": 1, "maximum": 2_147_483_647}
PROBLEMS: Final[dict[str, tuple[str, str]]] = {
    "400": ("The request was cut off.", "cut-off"),
    "401": ("The key is missing, wrong or revoked.", "key"),
    "404": ("There is no grant of this creator, or the consumer may not ask about it.", "unknown-creator"),
    "405": ("This method is not possible here; the header Allow lists those that are.", "method"),
    "409": (
        "There is no token and waiting does not help: `verdict` says what the state is, `cause` what is behind it.",
        "revoked, lost, held or reauth-needed",
    ),
    "413": ("The body is too large.", "too-large"),
    "422": ("A parameter or the body cannot be used; `detail` says which.", "parameter, body, validity or generation"),
    "429": ("Too many wrong keys came from this address; come back after `Retry-After` seconds.", "guessing"),
    "500": ("The stored token does not open, or an unknown error; the operator has to look.", "unreadable or internal"),
    "503": (
        "No token is valid for so long yet, the database does not answer, or too many wait: `Retry-After` says when.",
        "not-yet, database-away or busy",
    ),
}
WITH_RETRY: Final = frozenset({"429", "503"})
EVERYWHERE: Final = ("400", "401", "405", "413", "422", "429", "500", "503")


def description() -> dict[str, Any]:
    """Return the whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Evertoken: access tokens over HTTP",
            "version": "1",
            "description": (
                "Valid TikTok Business access tokens of creators, for neighbours with a key of "
                "`evertoken consumers add`. Every error is a problem (RFC 9457) with a stable `type`, "
                "`urn:evertoken:problem:` and a word."
            ),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": {
            "/v1/creators": {"get": _creators()},
            "/v1/creators/{creator_id}/token": {"parameters": [_creator_id()], "get": _token()},
            "/v1/creators/{creator_id}/rejected": {"parameters": [_creator_id()], "post": _rejected()},
            "/v1/openapi.json": {"get": _described()},
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Token": TOKEN, "Creator": CREATOR, "Problem": PROBLEM},
        },
    }


def _creator_id() -> dict[str, Any]:
    schema = TEXT | {"minLength": 1, "maxLength": 255}
    return {"name": "creator_id", "in": "path", "required": True, "schema": schema, "description": "TikTok's open_id."}


def _token() -> dict[str, Any]:
    tag = {"ETag": {"schema": TEXT, "description": "Names the consent and the generation."}}
    return {
        "operationId": "getToken",
        "summary": "Get a creator's access token",
        "description": (
            "If the token at hand has too little time left, or is the refused one, a refresh is asked for and "
            "waited for; one that is under way is joined. With `If-None-Match` the answer is 304 if the token is "
            "still the same."
        ),
        "parameters": [
            _parameter(
                "min_validity", {"type": "number", "minimum": 0, "default": 0}, "Seconds it must still be valid."
            ),
            _parameter("newer_than", COUNT, "Generation of a token that TikTok refused; only a later one is returned."),
            _parameter(
                "wait", {"type": "number", "minimum": 0, "maximum": 15, "default": 15}, "Seconds to wait at most."
            ),
            {"name": "If-None-Match", "in": "header", "schema": TEXT, "description": "The ETag of a token at hand."},
        ],
        "responses": {
            "200": _answer("The token.", _ref("Token"), tag),
            "304": {"description": "The token is the one at hand, and valid for so long.", "headers": tag},
            **_problems("404", "409"),
        },
    }


def _rejected() -> dict[str, Any]:
    body = {
        "type": "object",
        "properties": {"generation": COUNT},
        "required": ["generation"],
        "additionalProperties": False,
    }
    answer = {
        "type": "object",
        "properties": {
            "creator_id": TEXT,
            "refresh_requested": {"type": "boolean", "description": "True if this report made a refresh due."},
        },
        "required": ["creator_id", "refresh_requested"],
    }
    return {
        "operationId": "reportRejected",
        "summary": "Report that TikTok refused a token",
        "description": (
            "A refresh is then due, unless a later token is current, a refresh has just brought this one, or one is "
            "due or under way. However many report, there is one refresh."
        ),
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": _answer("Taken.", answer), **_problems("404", "409")},
    }


def _creators() -> dict[str, Any]:
    answer = {
        "type": "object",
        "properties": {
            "creators": {"type": "array", "items": _ref("Creator")},
            "next_after": {"type": ["integer", "null"], "description": "`after` of the next page; null at the end."},
        },
        "required": ["creators", "next_after"],
    }
    largest = 2**63 - 1
    return {
        "operationId": "listCreators",
        "summary": "List the creators that the consumer may ask about, without tokens",
        "parameters": [
            _parameter("status", {"type": "string", "enum": [each.value for each in GrantStatus]}, "Only these."),
            _parameter(
                "after", {"type": "integer", "minimum": 0, "maximum": largest}, "`next_after` of the page before."
            ),
            _parameter(
                "limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}, "How many at most."
            ),
        ],
        "responses": {"200": _answer("A page.", answer), **_problems()},
    }


def _described() -> dict[str, Any]:
    problems = {status: _problem(status) for status in EVERYWHERE if status not in {"401", "422", "429", "503"}}
    return {
        "operationId": "describe",
        "summary": "This document",
        "security": [],
        "responses": {"200": _answer("The document.", {"type": "object"}), **problems},
    }


def _parameter(name: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": text}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(text: str, schema: dict[str, Any], headers: dict[str, Any] | None = None) -> dict[str, Any]:
    told = {"description": text, "content": {"application/json": {"schema": schema}}}
    return told | ({"headers": headers} if headers else {})


def _problems(*further: str) -> dict[str, Any]:
    return {status: _problem(status) for status in sorted({*EVERYWHERE, *further})}


def _problem(status: str) -> dict[str, Any]:
    text, kinds = PROBLEMS[status]
    told: dict[str, Any] = {
        "description": f"{text} Type: {kinds}.",
        "content": {"application/problem+json": {"schema": _ref("Problem")}},
    }
    if status in WITH_RETRY:
        told["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "required": True}}
    return told


TOKEN: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "creator_id": TEXT,
        "access_token": TEXT,
        "expires_at": INSTANT,
        "expires_in": {"type": "integer", "description": "Whole seconds, counted where the token is kept."},
        "consent": COUNT,
        "generation": COUNT | {"description": "Number of the pair; a later pair has a higher one."},
    },
    "required": ["creator_id", "access_token", "expires_at", "expires_in", "consent", "generation"],
}
CREATOR: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "creator_id": TEXT,
        "reference": {"type": ["string", "null"], "description": "The operator's own name for the creator."},
        "status": {"type": "string", "enum": [each.value for each in GrantStatus]},
        "access_token_ends_at": {"type": ["string", "null"], "format": "date-time"},
        "refresh_token_ends_at": {"type": ["string", "null"], "format": "date-time"},
        "scopes": {"type": "array", "items": TEXT},
        "consent": COUNT,
        "generation": COUNT,
    },
    "required": [
        "creator_id", "reference", "status", "access_token_ends_at", "refresh_token_ends_at", "scopes", "consent",
        "generation",
    ],
}  # fmt: skip
PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "Stable: act by it."},
        "title": TEXT,
        "status": {"type": "integer"},
        "detail": TEXT | {"description": "A sentence for people; it may change."},
        "verdict": {"type": "string", "enum": ["revoked", "lost", "held", "reauth-needed"]},
        "cause": {"type": "string", "enum": [cause.value for cause in Cause]},
    },
    "required": ["type", "title", "status", "detail"],
}
