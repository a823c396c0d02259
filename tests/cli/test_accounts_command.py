"""`accounts show`, `export` and `plot`: what people see, files that are whole or not there, sentences for mistakes."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from tests.store.conftest import Fleet
from tests.store.test_store_account_data import Desk
from worker.cli import account_files
from worker.cli.accounts import sparkline
from worker.errors import NotFoundError, UsageError
from worker.store import Doubt, LabelledList, Store, account_tables

pytestmark = pytest.mark.slow_suite

FULL: Final = Path("/dev/full")


@pytest.fixture
def desk(store: Store) -> Desk:
    """A creator with some data, on both databases."""
    desk = Desk(Fleet(store))
    desk.save(
        {
            "account_profiles": [{"username": "ada", "display_name": "=1+1", "followers_count": 12}],
            "account_counters": [{"followers_count": 12}],
            "account_days": [{"day": desk.back(age), "likes": age, "video_views": 10 * age} for age in range(3, 20)],
        },
        lists=[LabelledList(None, "age", (("18-24", 1.0),))],
    )
    desk.videos(
        *(
            {"item_id": f"v{number}", "video_views": number, "caption": f'a "quoted", ünïcode\nline {number}'}
            for number in range(5)
        ),
        lists=[LabelledList("v1", "retention", ((0, 1.0),), curve=True)],
    )
    return desk


def source(desk: Desk, table: str, **how: Any) -> account_files.Source:
    """Return the rows of a table."""
    return account_files.Source(desk.store, table, **{"creator_id": None, "since": None} | how)


@pytest.mark.parametrize("table", account_tables())
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_every_table_comes_back_as_it_was(desk: Desk, table: str, kind: str, tmp_path: Path) -> None:
    """What is written is read back equal: rows, columns, text, days and instants."""
    place = tmp_path / f"{table}.{kind}"

    count = account_files.write_file(source(desk, table), kind, place)

    stored = desk.rows(table)
    found = read_back(place, kind)
    assert (len(found), count) == (len(stored), len(stored))
    for row, written in zip(stored, found, strict=True):
        assert written == {name: shown(value, kind) for name, value in row.items()}


def shown(value: Any, kind: str) -> Any:
    """Return a stored value as a format holds it."""
    if kind == "parquet":
        return value
    plain = account_files._plain(value)
    if kind == "jsonl":
        return plain
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value.startswith(account_files.FORMULA) else str(plain)


def read_back(place: Path, kind: str) -> list[dict[str, Any]]:
    """Read a file as a user would."""
    if kind == "parquet":
        from pyarrow import parquet  # noqa: PLC0415 - loaded only by the tests that read such a file

        found: list[dict[str, Any]] = parquet.read_table(place).to_pylist()
        return found
    with place.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file)) if kind == "csv" else [json.loads(line) for line in file]


def test_an_export_holds_one_page_at_a_time(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the length of a table, no batch is longer than a page, and no row is missing between two."""
    monkeypatch.setattr("worker.store.account_reading.PAGE", 5)
    sizes = [len(page) for page in source(desk, "account_days").pages()]

    assert sizes == [5, 5, 5, 2]
    assert account_files.write_file(source(desk, "account_days"), "csv", tmp_path / "days.csv") == 17


def test_only_what_was_asked_for_is_exported(desk: Desk) -> None:
    """`since` is a day, and a creator is one creator."""
    Desk(desk.fleet, "bob").day(5, likes=1)

    found = [row for page in source(desk, "account_days", since=desk.back(6)).pages() for row in page]
    assert len(found) == 5
    assert source(desk, "account_days", since=desk.back(6), creator_id="bob").count() == 1


def test_rows_of_unknown_time_are_in_every_export(desk: Desk) -> None:
    """A video whose age TikTok has not told is not left out without a word."""
    old = desk.store.ping() - timedelta(days=9)
    desk.videos({"item_id": "1", "likes": 1}, {"item_id": "2", "created_at": old})

    found = source(desk, "videos", since=desk.back(6))
    place = list(found.columns).index("item_id")
    exported = {row[place] for page in found.pages() for row in page}
    assert "1" in exported
    assert "2" not in exported
    assert found.count() == len(exported)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_failed_export_leaves_no_file(desk: Desk, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up in the middle: one sentence, no half file, and what was there before is still there."""
    place = tmp_path / f"days.{kind}"
    place.write_text("before")

    def full(self: account_files.Source) -> Iterator[list[tuple[Any, ...]]]:
        yield from list(pages(self))[:1]
        raise OSError(28, "No space left on device")

    pages = account_files.Source.pages
    monkeypatch.setattr(account_files.Source, "pages", full)

    with pytest.raises(NotFoundError, match=r"days.* was not written: No space left on device"):
        account_files.write_file(source(desk, "account_days"), kind, place)

    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "days"))] == [place.name]
    assert place.read_text() == "before"


def test_a_folder_is_no_file(desk: Desk, tmp_path: Path) -> None:
    """A name that is a folder is said before anything is read."""
    with pytest.raises(UsageError, match="is a folder"):
        account_files.write_file(source(desk, "videos"), "csv", tmp_path)


@pytest.fixture
def run(desk: Desk, store_url: str, redis_url: str, keyring: Any, tmp_path: Path) -> Any:
    """Return a function that runs `evertoken accounts` as a process."""
    environ = os.environ | {
        "EVERTOKEN_TIKTOK_APP_ID": "sandbox-app",
        "EVERTOKEN_TIKTOK_APP_SECRET": "a-secret",
        "EVERTOKEN_TIKTOK_REDIRECT_URI": "https://localhost/",
        "EVERTOKEN_KEYRING": keyring.to_json(),
        "EVERTOKEN_DATABASE_URL": store_url,
        "EVERTOKEN_REDIS_URL": redis_url,
        "EVERTOKEN_JOURNAL_DIR": str(tmp_path / "journal"),
    }

    def call(*arguments: str, **how: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "celery", "-A", "worker", "accounts", *arguments]
        return subprocess.run(
            command, env=environ, text=True, check=False, timeout=300, **{"capture_output": True} | how
        )

    return call


def test_the_commands_end_in_a_sentence(desk: Desk, run: Any, tmp_path: Path) -> None:
    """A picture of one creator, all tables in a folder, and for each mistake a sentence without a traceback."""
    desk.save(doubts=[Doubt("data.metrics[].likes", "an absurd number", "1e999")], raw=b"{}", request_id="r1")
    desk.fleet.sql("DELETE FROM account_days WHERE day = :day", day=desk.back(10).isoformat())
    shown = run("show", "ada")
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"video views\W+[▁-█]{9} [▁-█]{7} ", shown.stdout), "a day without a row is a blank"
    assert "followers_count" in shown.stdout
    assert "▁" in shown.stdout
    assert "an absurd number" in shown.stdout
    assert json.loads(run("show", "ada", "--json").stdout)["profile"]["username"] == "ada"

    done = run("export", "--to", str(tmp_path / "out"), "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == sorted(account_tables())

    picture = tmp_path / "ada.png"
    drawn = run("plot", "ada", "--to", str(picture))
    assert drawn.returncode == 0, drawn.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")

    for arguments, status, words in (
        (("show", "nobody"), 1, "nobody"),
        (("export", "--table", "grants"), 2, "there is no table grants; choose from account_profiles"),
        (("export",), 2, "--to FOLDER"),
        (("export", "--table", "videos", "--since", "soon"), 2, "does not match the format"),
        (("export", "--table", "videos", "--format", "parquet"), 2, "not written to standard output"),
        (("plot", "ada", "--to", str(tmp_path / "x.gif")), 2, "must end in"),
    ):
        failed = run(*arguments)
        assert failed.returncode == status, (arguments, failed.stderr)
        assert words in failed.stderr
        assert "Traceback" not in failed.stderr


def test_a_full_or_closed_output_ends_quietly_or_in_a_sentence(run: Any) -> None:
    """`| head` is no error to complain of, and a full device is one sentence."""
    with FULL.open("w") as full:
        failed = run("export", "--table", "videos", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert failed.returncode == 1
    assert "error: No space left on device: make room where standard output leads" in failed.stderr
    assert "Traceback" not in failed.stderr

    read, write = os.pipe()
    os.close(read)
    try:
        closed = run("export", "--table", "videos", capture_output=False, stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert closed.returncode != 0
    assert "Traceback" not in closed.stderr


@pytest.mark.night
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_million_rows_take_no_more_memory_than_a_page(desk: Desk, kind: str, tmp_path: Path) -> None:
    """Every row comes back, and the peak of memory does not grow with their number."""
    columns = "creator_id, item_id, likes, caption, first_seen_at, last_seen_at"
    for first in range(0, 1_000_000, 50_000):  # a statement of all of them would take longer than one may
        desk.fleet.sql(
            f"INSERT INTO mentions ({columns})"  # noqa: S608 - numbers of this test
            f" WITH RECURSIVE n(x) AS (SELECT {first} UNION ALL SELECT x + 1 FROM n WHERE x < {first + 49_999})"
            " SELECT 'ada', 'm' || x, x, 'caption ' || x, 1000, 1000 FROM n"
        )
    tracemalloc.start()

    count = account_files.write_file(source(desk, "mentions"), kind, place := tmp_path / f"mentions.{kind}")

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 1_000_000
    assert peak < 30_000_000
    assert sum(int(row["likes"]) for row in read_back(place, kind)) == 999_999 * 500_000


def test_a_line_shows_rises_falls_and_holes() -> None:
    """The lowest block is the least value, a blank is what is missing, and a level line stays low."""
    assert sparkline([0, None, 7, 14]) == "▁ ▄█"
    assert sparkline([5, 5]) == "▁▁"
    assert sparkline([None]) == ""
    assert sparkline([-3, 4]) == "▁█"
