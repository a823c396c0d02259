"""Log lines: one line an event, redacted, bounded, without control characters, whatever a library logs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
START = """
import logging, sys
from worker.telemetry import Fact, configure_logging, log_fact
configure_logging(log_format=sys.argv[1], level=sys.argv[2])
log = logging.getLogger("some.library")
"""


def logged(script: str, *, form: str = "json", level: str = "INFO") -> str:
    """Run a script after the start of logging and return what it wrote on standard error."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", START + script, form, level],
        cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""
    return ended.stderr


def events(text: str) -> list[dict[str, Any]]:
    """Return JSON lines."""
    return [json.loads(line) for line in text.splitlines()]


def test_a_fact_and_a_librarys_line_look_alike() -> None:
    """Ours and theirs are JSON objects with a level, a logger and a time."""
    ours, theirs = events(logged('log_fact(Fact("a.fact", {"grant_id": 3})); log.warning("said %s", "this")'))

    assert (ours["event"], ours["grant_id"], ours["level"], ours["logger"]) == ("a.fact", 3, "info", "evertoken")
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("said this", "warning", "some.library")
    assert ours["timestamp"].endswith("Z")


def test_each_line_names_its_installation_if_there_are_several() -> None:
    """Ours, a library's and one that was too long have the namespace; without one no line has the field."""
    lines = 'log_fact(Fact("a.fact", {"installation": "forged"})); log.warning("theirs"); '
    lines += 'log.warning("%s", "x", extra={}); log_fact(Fact("long", {f"f{n}": "y" * 2000 for n in range(20)}))'
    named = logged('configure_logging(log_format="json", level="INFO", namespace="shop"); ' + lines)

    assert [event["installation"] for event in events(named)] == ["shop"] * 4
    assert "left_out" in events(named)[-1]
    assert all("installation" not in event for event in events(logged(lines))[1:])


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(
    "call",
    [
        'log.warning("act.CANARY%s rft.%s", "secret123456", "CANARYsecret")',
        'log_fact(Fact("x", {"access_token": "CANARY", "reason": "client_secret=CANARY&x=1"}))',
        'log.warning("%r", {"refresh_token": "CANARY", "nested": [{"auth_code": "CANARY"}]})',
    ],
)
def test_what_looks_like_a_secret_is_hidden(form: str, call: str) -> None:
    """The second line of defence holds for both forms, our facts and foreign lines."""
    text = logged(call, form=form)

    assert "CANARY" not in text
    assert text.count("\n") == 1


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_text_forges_a_line(form: str) -> None:
    """Line ends and terminal escapes in what others send become spaces or nothing."""
    forged = '{"event": "refresh.saved"}'
    text = logged(
        f"log.warning('one\\r\\n{forged}\\x1b[2J\\x00\\u2028two\\x85three'); "
        f"log_fact(Fact('x', {{'reason': 'a\\n{forged}\\x07b'}}))",
        form=form,
    )

    assert len(text.splitlines()) == 2
    assert not any(ord(letter) < 32 and letter != "\n" for letter in text)


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_is_bounded(form: str) -> None:
    """A text of a megabyte is cut, and an event of very many fields is logged without them."""
    text = logged(
        "log.warning('y' * 1_000_000); log_fact(Fact('many.fields', {f'f{n}': 'z' * 100 for n in range(5000)}))",
        form=form,
    )
    first, second = text.splitlines()

    assert len(first) < 3_000
    assert "more characters" in first
    assert len(second) < 1_000
    assert "many.fields" in second
    assert "5004 fields" in second or "fields, " in second


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_exception_is_logged_without_values(form: str) -> None:
    """A traceback has places and kinds, and neither the variables of frames nor the secrets of texts."""
    text = logged(
        "def deep(value):\n"
        "    hidden = 'CAN' + 'ARY in a variable'\n"
        "    raise ValueError('password=' + value)\n"
        "try:\n"
        "    deep('CAN' + 'ARY')\n"
        "except ValueError:\n"
        "    log.exception('it broke')\n",
        form=form,
    )

    assert "CANARY" not in text
    assert "in deep" in text
    assert "ValueError" in text


def test_no_statement_is_echoed_at_debug_level() -> None:
    """SQLAlchemy would log each statement, and at DEBUG each row with its sealed bytes."""
    text = logged(
        "from sqlalchemy import create_engine, text\n"
        "with create_engine('sqlite://').connect() as connection:\n"
        "    connection.execute(text('SELECT 12345678'))\n",
        level="DEBUG",
    )

    assert "12345678" not in text
    assert "SELECT" not in text


def test_loading_the_migrations_writes_no_line() -> None:
    """Alembic would log which of its plugins it has set up, in the log of each worker that starts."""
    assert logged("from alembic import command\nassert command\n", level="INFO") == ""


@pytest.mark.parametrize("form", ["json", "console"])
def test_lines_of_a_block_are_written_at_once_in_their_order_even_if_it_fails(form: str) -> None:
    """One write carries ours and a library's lines; other threads' lines and later ones are written as they come."""
    text = logged(
        "import threading\n"
        "from worker.telemetry import one_write\n"
        "writes, write = [], sys.stderr.write\n"
        "sys.stderr.write = lambda text: (writes.append(text), write(text))\n"
        "def block():\n"
        "    with one_write():\n"
        "        log_fact(Fact('first.fact'))\n"
        "        with one_write():\n"
        "            log.warning('second %s', 'client_secret=CANARY')\n"
        "        other = threading.Thread(target=log_fact, args=(Fact('from.elsewhere'),))\n"
        "        other.start(), other.join()\n"
        "        log_fact(Fact('third.fact', {'grant_id': 3}))\n"
        "        raise KeyError\n"
        "try:\n"
        "    block()\n"
        "except KeyError:\n"
        "    log_fact(Fact('last.fact'))\n"
        "assert len(writes) == 3, writes\n",
        form=form,
    )

    places = [text.index(said) for said in ("from.elsewhere", "first.fact", "second", "third.fact", "last.fact")]
    assert places == sorted(places)
    assert len(text.splitlines()) == 5
    assert "CANARY" not in text


def test_what_was_harmless_once_hides_nothing_later() -> None:
    """A text and a key that were looked at before do not make a secret pass that bears the same name."""
    first, second = events(
        logged(
            "log_fact(Fact('x', {'call': 'tt_user/oauth2/refresh_token/', 'token': 3, 'code': 0, 'odd_key': 'a'}))\n"
            "log_fact(Fact('x', {'call': 'tt_user/oauth2/refresh_token/?refresh_token=CANARY', 'token': 'CANARY',"
            " 'code': 'CANARY', 'odd_key': 'client_secret=CANARY'}))"
        )
    )

    assert (first["call"], first["token"], first["code"]) == ("tt_user/oauth2/refresh_token/", 3, 0)
    assert "CANARY" not in json.dumps(second)
    assert second["call"].startswith("tt_user/oauth2/refresh_token/")
