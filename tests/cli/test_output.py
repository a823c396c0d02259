"""How commands speak: exit statuses, tables, JSON, and times for people."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import click
import pytest
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from worker.cli import output
from worker.errors import ConfigurationError, EvertokenError, NotFoundError, StoreUnavailableError, UsageError
from worker.store import GrantStatus
from worker.vault import Token


def run(error: BaseException | None) -> Result:
    """Run a command that ends in this error."""

    @click.command(cls=output.Command)
    def command() -> None:
        if error is not None:
            raise error

    context = CLIContext(app=Celery("evertoken"), no_color=True, workdir=None)
    return CliRunner().invoke(command, obj=context)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param(None, 0, id="done"),
        pytest.param(NotFoundError("it is not there"), 1, id="not found"),
        pytest.param(StoreUnavailableError("it is not there"), 1, id="unhealthy"),
        pytest.param(UsageError("it is not there"), 2, id="wrong use"),
        pytest.param(ConfigurationError("it is not there"), 2, id="wrong settings"),
    ],
)
def test_errors_become_a_sentence_and_a_status(error: EvertokenError | None, status: int) -> None:
    """Each kind of our errors has its exit status, and none shows a traceback."""
    result = run(error)

    assert result.exit_code == status
    assert result.stderr == ("" if error is None else "error: it is not there\n")


def test_an_interruption_has_its_own_status() -> None:
    """Ctrl-C ends in one word and the status that shells expect."""
    result = run(KeyboardInterrupt())

    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """A pipe closed by its reader, such as `head`, ends the command without a word."""
    result = run(BrokenPipeError(errno.EPIPE, "Broken pipe"))

    assert (result.exit_code, result.stderr) == (1, "")


@dataclass(frozen=True)
class Row:
    """Something to print."""

    at: datetime
    status: GrantStatus


def test_json_has_instants_in_utc(capsys: pytest.CaptureFixture[str]) -> None:
    """Dataclasses are objects, enumerations their values, and instants ISO 8601 in UTC."""
    at = datetime(2026, 11, 23, 13, tzinfo=UTC)
    output.print_json({"rows": [Row(at, GrantStatus.ACTIVE)], "none": None})

    parsed = json.loads(capsys.readouterr().out)
    assert parsed == {"rows": [{"at": "2026-11-23T13:00:00.000Z", "status": "active"}], "none": None}


@pytest.mark.parametrize("value", [Token("act.CANARY"), {"a": Token("act.CANARY")}, b"CANARY", object()])
def test_what_has_no_agreed_text_is_not_printed(value: object) -> None:
    """A token or bytes that get into a report by mistake stop it, instead of being printed in some way."""
    with pytest.raises(TypeError) as caught:
        output.plain(value)

    assert "CANARY" not in str(caught.value)


def test_cells_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """What looks like markup is text, and control characters do not reach the terminal."""
    output.print_table(("a", "b"), [("[red]x[/red]", "\x1b[31mred"), (None, "")])

    printed = capsys.readouterr().out
    assert "[red]x[/red]" in printed
    assert "?[31mred" in printed


def test_a_piped_table_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """A long cell stays in one piece if no terminal sets the width."""
    output.print_table(("creator",), [("x" * 150,)])

    assert "x" * 150 in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0 s"),
        (59.6, "1 min"),
        (3_700, "1 h 1 min"),
        (86_400, "1 d"),
        (90_061, "1 d 1 h"),
        (-5, "-5 s"),
        (timedelta(minutes=2, seconds=3), "2 min 3 s"),
    ],
)
def test_spans_are_shown_in_two_units(value: timedelta | float | None, text: str) -> None:
    """Lengths of time are shown roughly, with a minus if they are over."""
    assert output.span(value) == text


@pytest.mark.parametrize(
    ("left", "text", "words"),
    [
        (None, "-", "-"),
        (0, "in 0 s", "ends in 0 s"),
        (3_700, "in 1 h 1 min", "ends in 1 h 1 min"),
        (timedelta(minutes=2), "in 2 min", "ends in 2 min"),
        (-77, "1 min 17 s ago", "ended 1 min 17 s ago"),
        (timedelta(minutes=-55, seconds=-42), "55 min 42 s ago", "ended 55 min 42 s ago"),
    ],
)
def test_what_has_gone_by_is_shown_in_words(left: timedelta | float | None, text: str, words: str) -> None:
    """An instant before now is shown as past, and never with a minus."""
    assert output.until(left) == text
    assert output.until(left, future="ends in {}", past="ended {} ago") == words


ODD_TEXTS = {
    "markup that ends": "[/red]",
    "markup with a link": "[link=https://evil.example]click[/link]",
    "markup with a style": "[bold red]ALARM[/]",
    "an escape": "\x1b]8;;https://evil.example\x07click",
    "a C1 control": "\x9b31mred",
    "a bidi override": "abc\u202etxt.exe",
    "an isolate": "\u2066abc\u2069",
    "a NUL": "a\x00b",
    "half a character": "a\ud800b",
    "a line separator": "a\u2028b",
}
SAFE = {*"\n", *map(chr, range(32, 127))}


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS)
def test_odd_text_stays_text_wherever_it_is_printed(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Title, head, cell, sentence and note show it as it is: no markup is read, and no control reaches the terminal."""
    output.print_table((f"h{text}", "b"), [(text, 1)], title=f"creator {text}, active")
    output.say(f"creator {text}: pulled")
    output.note(f"creator {text} is known")
    shown = capsys.readouterr()

    visible = output.printable(text).replace("\n", "?")
    assert shown.out.count(visible) >= 4
    assert f"creator {visible} is known" in shown.err
    box = set("┏━┳┓┃┡╇┩│└─┴┘")
    assert set(shown.out + shown.err) <= SAFE | box


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS)
def test_json_escapes_what_a_terminal_would_obey(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs get every character, in keys too; a terminal gets printable ones, and letters stay letters."""
    output.print_json({"creator": text, text: ["Jürgen 日本 🎉"]})
    shown = capsys.readouterr().out

    assert json.loads(shown) == {"creator": text, text: ["Jürgen 日本 🎉"]}
    assert "Jürgen 日本 🎉" in shown
    assert all(char.isprintable() or char == "\n" for char in shown)


@pytest.mark.parametrize("text", ["[/red]", "a\x9bb", "a\u202eb"], ids=["markup", "C1", "bidi"])
def test_an_error_about_odd_text_is_one_plain_sentence(text: str) -> None:
    """A creator's id in a refusal cannot change the terminal either."""
    result = run(NotFoundError(f"there is no creator {text}"))

    assert (result.exit_code, result.stderr) == (1, f"error: there is no creator {output.printable(text)}\n")
