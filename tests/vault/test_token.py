"""A token shows its fingerprint, and its text only to who asks for it by name."""

from __future__ import annotations

import ast
import copy
import dataclasses
import io
import json
import logging
import marshal
import pickle
import pprint
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pydantic
import pytest
import structlog
from celery.utils.saferepr import saferepr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu.utils import json as kombu_json
from rich.console import Console
from rich.pretty import pretty_repr
from rich.traceback import Traceback

from worker.vault import Token, use_fingerprint_key

UNHURRIED = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

PROJECT = Path(__file__).parents[2]
CANARY = "act.kestrel-0123456789abcdef!4821.va"


@dataclasses.dataclass(frozen=True)
class Holder:
    """Something that holds a token, as our values do."""

    token: Token
    number: int = 1


class Model(pydantic.BaseModel):
    """A pydantic model that holds a token, as the settings do."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    token: Token
    number: int = 1


def fail(error: Exception) -> NoReturn:
    """Raise an error."""
    raise error


def caught(token: Token) -> RuntimeError:
    """Return an error whose frames hold a token in several variables."""
    held = Holder(token)
    try:
        fail(RuntimeError(f"failed with {token} in {held}"))
    except RuntimeError as error:
        return error


def traced(token: Token) -> str:
    """Return the standard library's traceback with the locals of every frame."""
    return "".join(traceback.TracebackException.from_exception(caught(token), capture_locals=True).format())


def traced_by_rich(token: Token) -> str:
    """Return rich's traceback with the locals of every frame."""
    error, rendered = caught(token), io.StringIO()
    trace = Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True)
    Console(file=rendered, width=300).print(trace)
    assert "held" in rendered.getvalue()
    return rendered.getvalue()


def traced_by_pytest(token: Token) -> str:
    """Return what pytest prints of a failure with `--showlocals`."""
    rendered = str(pytest.ExceptionInfo.from_exception(caught(token)).getrepr(style="long", showlocals=True))
    assert "held" in rendered
    return rendered


def refused_by_pydantic(token: Token) -> str:
    """Return pydantic's error for a wrong input that holds a token."""
    with pytest.raises(pydantic.ValidationError) as refused:
        Model.model_validate({"token": token, "number": {"wrong": token}})
    return f"{refused.value} {refused.value!r} {refused.value.errors()}"


SHOWN: dict[str, Callable[[Token], str]] = {
    "str": str,
    "repr": repr,
    "ascii": ascii,
    "format": lambda token: format(token, ">60"),
    "f-string": lambda token: f"{token} {token!r} {token!s:>40}",
    "percent": lambda token: "%s %r" % (token, token),  # noqa: UP031 - this way of formatting is tried
    "str.format": lambda token: "{} {0!r}".replace("{}", "{0}").format(token),
    "in a dataclass": lambda token: repr(Holder(token)),
    "in containers": lambda token: repr([(token,), {token: {token}}]),
    "in an exception": lambda token: repr(ValueError(token)) + str(ValueError(token)),
    "traceback with locals": traced,
    "rich traceback with locals": traced_by_rich,
    "pytest with locals": traced_by_pytest,
    "celery": lambda token: str(saferepr((1, {"token": token}))),
    "pprint": lambda token: pprint.pformat({"token": token}),
    "rich": lambda token: pretty_repr({"token": token, "held": Holder(token)}),
    "json with default": lambda token: json.dumps({"token": token}, default=str),
    "pydantic repr": lambda token: repr(Model(token=token)) + str(Model(token=token).model_dump()),
    "pydantic error": refused_by_pydantic,
    "structlog": lambda token: str(structlog.processors.JSONRenderer(default=str)(None, "info", {"token": token})),
    "structlog console": lambda token: structlog.dev.ConsoleRenderer(colors=False)(
        None, "info", {"event": "x", "token": token}
    ),
    "structlog key value": lambda token: structlog.processors.KeyValueRenderer()(None, "info", {"token": token}),
}


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_whatever_prints_a_token_shows_its_fingerprint(show: Callable[[Token], str]) -> None:
    """No way of printing shows the text or a part of it."""
    shown = show(Token(CANARY))

    assert f"<token {Token(CANARY).fingerprint}>" in shown
    assert "kestrel" not in shown
    assert "4821" not in shown


REFUSED: dict[str, Callable[[Token], object]] = {
    "pickle": pickle.dumps,
    "old pickle": lambda token: pickle.dumps(token, 0),
    "pickle in a dataclass": lambda token: pickle.dumps(Holder(token)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "asdict": lambda token: dataclasses.asdict(Holder(token)),
    "vars": vars,
    "marshal": marshal.dumps,  # type: ignore[dict-item] # what a mistake would try
    "json": json.dumps,
    "kombu": kombu_json.dumps,
    "pydantic json": lambda token: Model(token=token).model_dump_json(),
    "len": len,
    "iter": list,
    "getstate": lambda token: token.__getstate__(),
    "bytes": bytes,
    "concatenation": lambda token: "x" + token,  # type: ignore[operator] # what a mistake would try
}


@pytest.mark.parametrize("serialise", REFUSED.values(), ids=REFUSED)
def test_what_would_carry_a_token_away_is_refused(serialise: Callable[[Token], object]) -> None:
    """Serialising fails with an error that shows nothing."""
    with pytest.raises((TypeError, ValueError)) as caught:
        serialise(Token(CANARY))

    assert "kestrel" not in "".join(traceback.format_exception(caught.value))


def test_a_log_record_shows_the_fingerprint(caplog: pytest.LogCaptureFixture) -> None:
    """Standard logging prints tokens in messages, arguments and exceptions as fingerprints."""
    token = Token(CANARY)
    try:
        fail(ValueError(token))
    except ValueError:
        logging.getLogger("test").exception("failed with %s and %r", token, {"token": token})

    assert token.fingerprint in caplog.text
    assert "kestrel" not in caplog.text


def test_an_empty_token_is_refused() -> None:
    """An empty text is no secret."""
    with pytest.raises(ValueError, match="cannot be empty"):
        Token("")


def test_a_token_is_true() -> None:
    """`token or other` takes the token, although the token has no length."""
    token = Token(CANARY)

    assert (token or Token("other")) is token


@UNHURRIED
@given(left=st.text(min_size=1), right=st.text(min_size=1))
def test_tokens_compare_by_their_text(left: str, right: str) -> None:
    """Equal texts are equal tokens with equal hashes and fingerprints; a text is no token."""
    assert (Token(left) == Token(right)) == (left == right)
    assert (Token(left).fingerprint == Token(right).fingerprint) == (left == right)
    assert hash(Token(left)) == hash(Token(left))
    assert Token(left) != left
    assert Token(left).reveal() == left


def test_half_a_surrogate_pair_prints() -> None:
    """JSON can bring text that has no UTF-8; a token of it still prints and compares."""
    token = Token(json.loads('"act.\\ud800"'))

    assert str(token) == f"<token {token.fingerprint}>"
    assert token == Token("act.\ud800")


def test_fingerprints_depend_on_their_key_and_hashes_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that share a keyring show the same fingerprint; a token in a set is found after the key came."""
    from worker.vault import token as module  # noqa: PLC0415 - the key of the process is put back after the test

    monkeypatch.setattr(module._FingerprintKey, "value", b"a" * 32)
    token = Token(CANARY)
    known, first = {token}, token.fingerprint
    use_fingerprint_key(b"b" * 32)
    second = token.fingerprint
    use_fingerprint_key(b"a" * 32)

    assert first != second
    assert token.fingerprint == first
    assert len(first) == 12
    use_fingerprint_key(b"b" * 32)
    assert token in known


def test_few_places_ask_for_the_text() -> None:
    """From the parser of an answer to the sealer a token stays a token; whoever opens another way says so here."""
    found = {
        f"{path.relative_to(PROJECT)}"
        for folder in ("worker", "tasks")
        for path in (PROJECT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "reveal"
    }

    assert found == {
        "worker/vault/sealing.py",  # to seal it
        "worker/tiktok/client.py",  # to send it
        "worker/tiktok/transport.py",  # to send it in a header
        "worker/vault/redaction.py",  # to find echoes of it
        "worker/reading.py",  # the keyring, to read it
        "worker/vault/webhooks.py",  # the key of a signature
        "worker/tokens/__init__.py",  # what a neighbour asked for
        "worker/cli/grants.py",  # what an operator asked for
        "worker/cli/grants_export.py",  # to seal it for a recipient
        "worker/cli/consumers.py",  # to print a new key, once
        "worker/desk/api.py",  # to hand it out
        "worker/desk/sessions.py",  # the operators' password, to compare it
        "worker/settings.py",  # to refuse one that cannot be a secret
        "worker/refresh/attempt.py",  # to send each token once
        "worker/consent/importer.py",  # to find lines that bear the same token
        "worker/consent/import_fields.py",  # to refuse what cannot be a token
        "worker/cli/checks_places.py",  # to find a secret that is too short
        "worker/cli/demo_verdict.py",  # to compare the demo's pairs with the sandbox's ledger
    }
