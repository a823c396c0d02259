"""The parts of the demo: its figures, what it shows of a run, its verdict, and the uses it refuses."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from worker.cli.board import LiveBoard, PlainBoard, sparkline
from worker.cli.demo import demo
from worker.cli.demo_plan import RENEW_AT, DemoPlan
from worker.cli.demo_verdict import DemoVerdict, reach_verdict, show_verdict, stored_refresh_tokens
from worker.cli.demo_watch import Event, Watch, event_of
from worker.policy.renewal import STRETCH
from worker.sandbox.broker import queue_length
from worker.sandbox.ledger import LedgerEntry, fingerprint
from worker.sandbox.process import start_sandbox
from worker.sandbox.stack import QUEUES
from worker.store import Store
from worker.vault import Sealer

REFRESH = "tt_user/oauth2/refresh_token/"


def issued(seq: int, time: float, new: str, old: str | None = None, **more: Any) -> LedgerEntry:
    """Return a ledger line of creator c1 that issued a pair."""
    call = "control/grants" if old is None else REFRESH
    return LedgerEntry(
        seq, time, "c1", call, 1, fp_old_refresh=old, fp_new_access=f"a{new}", fp_new_refresh=new, expires_in=30, **more
    )


def verdict(entries: list[LedgerEntry], stored: dict[str, set[str]], *problems: str) -> DemoVerdict:
    """Judge a run of forty seconds that began at 1000."""
    return reach_verdict(
        entries,
        stored,
        seconds=40,
        until=1040,
        pulls=2,
        cpu_seconds=3,
        interrupted=False,
        broker="Valkey",
        problems=problems,
    )


@pytest.mark.parametrize("creators", [1, 200, 1000])
@pytest.mark.parametrize("seconds", [12, 60, 600])
def test_every_creator_is_refreshed_in_a_run_with_time_to_spare(creators: int, seconds: int) -> None:
    """A refresh is due well before the end, two if they are few, and a scan is short against a token's rest."""
    plan = DemoPlan(creators, seconds)
    latest = plan.life_seconds * (RENEW_AT + STRETCH / 2)

    assert latest < seconds * 0.7
    assert 2 * latest < seconds or creators / seconds > 10
    assert plan.scan_seconds * 4 < plan.life_seconds - latest
    assert plan.quota_per_second > 2 * plan.rate


def test_a_sparkline_is_scaled_to_its_highest_value() -> None:
    """The highest of the shown rates is a whole bar, nothing is the lowest one, and only the last ones are shown."""
    assert sparkline([100, 0, 5, 10], 3) == "▁▅█"
    assert sparkline([0, 0], 5) == "▁▁"
    assert sparkline([], 5) == ""


def test_facts_and_warnings_are_shown_and_the_rest_is_not() -> None:
    """Outcomes become sentences, others' warnings are named, and their chatter is left out."""
    line = {"timestamp": "2026-01-02T03:04:05.678Z", "level": "info", "logger": "evertoken"}
    saved = json.dumps(line | {"event": "refresh.saved", "creator_id": "c1", "generation": 3}).encode()
    warned = json.dumps(line | {"event": "lost it", "logger": "kombu", "level": "warning"}).encode()
    chatter = json.dumps(line | {"event": "received", "logger": "celery"}).encode()

    assert event_of(saved) == Event("2026-01-02T03:04:05.678Z", "refresh.saved", "info", "refreshed c1, generation 3")
    assert event_of(warned) == Event("2026-01-02T03:04:05.678Z", "kombu", "warning", "kombu: lost it")
    assert [event_of(chatter), event_of(b"not JSON"), event_of(b"3")] == [None, None, None]


def test_an_event_shows_no_token() -> None:
    """A log line that holds a token by mistake is shown without it."""
    secret = "act.1234567890abcdefABCDEF1234567890abcdef"
    line = {"event": f"access_token={secret}", "logger": "kombu", "level": "error", "timestamp": "2026-01-02T03:04:05Z"}
    event = event_of(json.dumps(line).encode())

    assert event is not None
    assert secret not in event.text


def test_a_run_that_keeps_every_pair_is_sound() -> None:
    """Every pair is counted, and so is the refresh between them."""
    result = verdict([issued(1, 1000, "r1"), issued(2, 1020, "r2", "r1")], {"c1": {"r1", "r2"}})

    assert (result.sound, result.pairs_issued, result.pairs_stored, result.lost) == (True, 2, 2, 0)
    assert (result.refreshes, result.fewest_refreshes, result.seconds_without_token) == (1, 1, 0)


@pytest.mark.parametrize(
    ("second", "stored", "field", "value"),
    [
        pytest.param(issued(2, 1020, "r2", "r1"), {"r1"}, "lost", 1, id="a pair that is not stored"),
        pytest.param(issued(2, 1020, "r2", "r1", answer="undelivered"), {"r1"}, "lost", 1, id="one that never arrived"),
        pytest.param(issued(2, 1035, "r2", "r1"), {"r1", "r2"}, "seconds_without_token", 5, id="a gap"),
        pytest.param(issued(2, 1020, "r2", "r1", under_way=True), {"r2"}, "double_refreshes", 1, id="two at a time"),
    ],
)
def test_a_run_with_a_fault_is_not_sound(second: LedgerEntry, stored: set[str], field: str, value: float) -> None:
    """A lost pair, a gap and a double refresh each make a run unsound."""
    result = verdict([issued(1, 1000, "r1"), second], {"c1": stored})

    assert (result.sound, getattr(result, field)) == (False, value)


def test_a_run_that_was_too_slow_says_so_and_what_to_try() -> None:
    """A busy machine loses no pair; the person is told that, and how to run it with less."""
    late = verdict([issued(1, 1000, "r1"), issued(2, 1035, "r2", "r1")], {"c1": {"r1", "r2"}})
    lost = verdict([issued(1, 1000, "r1"), issued(2, 1035, "r2", "r1")], {"c1": {"r1"}})
    said = []
    for result in (late, lost):
        console = Console(file=io.StringIO(), width=80)
        show_verdict(console, result)
        said.append(console.file.getvalue().strip().splitlines()[-1])  # type: ignore[attr-defined]  # it is a StringIO

    assert "no pair was lost, but 1 of 1 creators were without a valid token" in said[0]
    assert "--creators 1." in said[0]
    assert said[1] == "This run was not sound."


def test_a_run_in_which_a_part_died_is_not_sound() -> None:
    """Pairs may be whole all the same; the run is not what it says to be."""
    result = verdict([issued(1, 1000, "r1"), issued(2, 1020, "r2", "r1")], {"c1": {"r2"}}, "beat ended by itself.")
    console = Console(file=io.StringIO(), width=80)
    show_verdict(console, result)

    assert not result.sound
    assert "beat ended by itself." in console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO above


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_stored_pairs_are_opened_for_the_verdict_and_shown_on_both_boards(
    store: Store, sealer: Sealer, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """What was imported from the sandbox is found again by its fingerprint, and the boards count it."""
    from worker.consent.import_lines import Source  # noqa: PLC0415 - only this test imports tokens
    from worker.consent.importer import Importer, ImportReport  # noqa: PLC0415 - as above

    with start_sandbox() as sandbox:
        given = sandbox.grants(3)
        lines = "\n".join(json.dumps(token) for token in given).encode()
        importer = Importer(store=store, sealer=sealer, renew_at=RENEW_AT)
        importer.run(Source(io.BytesIO(lines)), report=ImportReport())
        log = tmp_path / "worker-refresh.log"
        log.write_text('{"event": "refresh.saved", "logger": "evertoken", "creator_id": "creator-1"}\n{"half', "utf-8")
        watch = Watch(store, sandbox, tmp_path)
        watch.look()
    watch.look()  # the sandbox is gone: what was seen last stays
    plan, links, shown = (
        DemoPlan(3, 60),
        lambda: {"Flower": "http://flower"},
        Console(file=io.StringIO(), width=80, force_terminal=True),
    )
    with PlainBoard(shown, links) as plain, LiveBoard(shown, plan, links) as live:
        plain.show(watch)
        live.show(watch)
    text = shown.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO above

    assert stored_refresh_tokens(store, sealer) == {
        token["open_id"]: {fingerprint(token["refresh_token"])} for token in given
    }
    assert "3 fresh, 0 due, 0 overdue, 0 expired; 0 refreshed" in text
    assert "refreshed creator-1" in text
    assert "Flower: http://flower" in text
    assert text.count("http://flower") > 1


def test_messages_that_wait_are_counted_where_celery_puts_them(redis_url: str) -> None:
    """The end of a demo waits for the queues of our configuration, under its key prefix."""
    from worker.celery import app  # noqa: PLC0415 - the other tests need no app

    with app.connection_for_write(redis_url) as connection:
        for name in ("tasks.refresh.scan_due", "tasks.pull.scan_due", "tasks.upkeep.keep_house"):
            app.send_task(name, connection=connection)

    assert queue_length(redis_url, QUEUES) == 3


def test_a_folder_with_files_is_refused(tmp_path: Path) -> None:
    """A demo never mixes its files with others."""
    (tmp_path / "mine").touch()
    app = SimpleNamespace(app=SimpleNamespace(main="evertoken"))
    result = CliRunner().invoke(demo, ["--dir", str(tmp_path)], obj=app)

    assert (result.exit_code, "holds files already; name a new folder" in result.output) == (2, True)


@pytest.mark.parametrize("options", [["--creators", "0"], ["--for", "1"], ["--flower-port", "70000"]])
def test_impossible_figures_are_refused(options: list[str]) -> None:
    """Figures out of range end with status 2 before anything starts."""
    app = SimpleNamespace(app=SimpleNamespace(main="evertoken"))

    assert CliRunner().invoke(demo, options, obj=app).exit_code == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--dir", "FILE/inside"], "cannot be made: Not a directory"),
        (["--redis-url", "localhost"], "--redis-url must look like redis://"),
        (["--redis-url", "http://localhost"], "--redis-url must look like redis://"),
        (["--redis-url", "redis://:hidden@localhost:99999"], "--redis-url must look like redis://"),
    ],
)
def test_an_impossible_place_is_refused_in_a_sentence(tmp_path: Path, options: list[str], sentence: str) -> None:
    """A folder or an address that cannot be is wrong use, and what was typed into an address is not repeated."""
    file = tmp_path / "file"
    file.touch()
    app = SimpleNamespace(app=SimpleNamespace(main="evertoken"))
    given = [option.replace("FILE", str(file)) for option in options]
    result = CliRunner().invoke(demo, given, obj=app)

    assert (result.exit_code, sentence in result.output, "hidden" in result.output) == (2, True, False)
