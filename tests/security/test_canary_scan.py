"""The canary scan itself: a canary that is planted is found in every form and place, and is never shown."""

from __future__ import annotations

import base64
import gzip
import http.server
import json
import secrets
import sqlite3
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import psycopg
import pytest
import redis

from tests.security.canary import Canary, Scan, forms
from tests.security.canary_faults import OF_ACCOUNT_DATA, of_the_app, ordinary
from tests.security.canary_pages import Browser, PlainClient, browser_program
from tests.security.canary_places import Events, Monitor, Place, database, files, postgres_dump, processes, redis_files
from tests.security.canary_secrets import Secrets
from worker.journal import Journal
from worker.sandbox.fault_kinds import MAKERS
from worker.sandbox.faults import FaultBook
from worker.vault import Keyring, Sealer

SECRET = "Planted" + secrets.token_hex(8)
CANARY = Canary("the planted secret", SECRET.encode())
KEY = Canary("the planted key", bytes.fromhex("00ff5c220a7f202f") + secrets.token_bytes(24))
PAGE_SECONDS = 60


def found_in(*places: Place, canary: Canary = CANARY) -> list[str]:
    """Return the names of places with a canary, once each, in their order."""
    scan = Scan([canary])
    for name, content in places:
        scan.look(name, content)
    assert not any(SECRET in str(finding) for finding in scan.findings)
    return list(dict.fromkeys(finding.place for finding in scan.findings))


def as_redis_prints(secret: bytes) -> bytes:
    """Return how MONITOR shows an argument, for bytes that are not printable."""
    return "".join(f"\\x{byte:02x}" for byte in secret).encode()


WRITINGS: dict[str, Callable[[bytes], bytes]] = {
    "as it is": bytes,
    "between others": lambda secret: b"x" * 100_000 + secret + b"y",
    "hexadecimal": lambda secret: secret.hex().encode(),
    "hexadecimal in capitals": lambda secret: secret.hex().upper().encode(),
    "base64": base64.b64encode,
    "base64 after one letter": lambda secret: base64.b64encode(b"x" + secret + b"behind"),
    "base64 after two letters": lambda secret: base64.b64encode(b"xy" + secret + b"behind it"),
    "base64 for URLs": lambda secret: base64.urlsafe_b64encode(b"tok:" + secret + b"?"),
    "a body in base64 in JSON": lambda secret: json.dumps({"body": base64.b64encode(b'["' + secret).decode()}).encode(),
    "quoted for a URL": lambda secret: quote(secret, safe="").encode(),
    "a form": lambda secret: quote_plus(secret).encode(),
    "quoted wholly": lambda secret: "".join(f"%{byte:02x}" for byte in secret).encode(),
    "printed by Python": lambda secret: repr(secret).encode(),
    "printed by Redis": as_redis_prints,
    "a list": lambda secret: json.dumps(list(secret)).encode(),
    "gzip": lambda secret: b"head" + gzip.compress(b"page " * 50 + secret) + b"tail",
    "zlib": lambda secret: zlib.compress(b"page " * 50 + secret, 9),
    "a gzip whose end was cut off": lambda secret: gzip.compress(secret + b"page " * 5000)[:-12],
}


@pytest.mark.parametrize("writing", WRITINGS)
@pytest.mark.parametrize("canary", [CANARY, KEY], ids=["text", "key"])
def test_every_form_is_found(writing: str, canary: Canary) -> None:
    """A text and a key of raw bytes are found as a program may write them, and nothing else is."""
    assert found_in(("here", WRITINGS[writing](canary.secret)), canary=canary) == ["here"]
    assert found_in(("here", WRITINGS[writing](canary.secret[::-1])), canary=canary) == []


@pytest.mark.parametrize(
    "written",
    [
        SECRET.encode("utf-16-le"),
        SECRET.encode("utf-16-be"),
        SECRET.encode("utf-16"),
        "".join(f"\\u{ord(letter):04x}" for letter in SECRET).encode(),
        "".join(f"\\u{ord(letter):04X}" for letter in SECRET).encode(),
        "".join(f"&#{ord(letter)};" for letter in SECRET).encode(),
        SECRET.upper().encode(),
        SECRET.lower().encode(),
    ],
    # Names, for each process draws a secret of its own, and processes must agree on their tests.
    ids=["utf-16-le", "utf-16-be", "utf-16", "escaped", "escaped in capitals", "html", "upper case", "lower case"],
)
def test_every_form_of_a_text_is_found(written: bytes) -> None:
    """Forms that only a text can have."""
    assert found_in(("here", b"head" + written + b"tail")) == ["here"]


def test_a_text_with_signs_is_found_if_they_are_escaped() -> None:
    """Quotes, slashes and angles are written differently in JSON, in JSON inside JSON, and in HTML."""
    text = 'pass/wo"rd<&>\\' + secrets.token_hex(4)
    canary = Canary("odd", text.encode())
    inside = json.dumps({"body": json.dumps({"password": text})})
    slashes = json.dumps(text).replace("/", "\\/")
    html = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")

    for written in (json.dumps(text), inside, slashes, html, quote(text), quote(text, safe="")):
        assert found_in(("here", written.encode()), canary=canary) == ["here"], written


def test_a_finding_names_place_and_offset_and_not_the_secret() -> None:
    """What is reported can be shown to anybody."""
    scan = Scan([CANARY, KEY])
    named = [str(finding) for finding in scan.look("a file", b"0123456789" + SECRET.encode())]

    assert named == ["a file, byte 10: the planted secret (as it is)"]
    assert SECRET not in repr(CANARY) + repr(scan.findings) + repr(Secrets())
    assert scan.seen == {"a file": 10 + len(SECRET)}


def test_no_form_is_so_short_that_chance_would_find_it() -> None:
    """A canary of a few letters is refused, and the shortest needle of any secret has eight."""
    with pytest.raises(ValueError, match="found by chance"):
        Canary("short", b"abc")

    for canary in Secrets().canaries():
        assert min(map(len, forms(canary.secret).values())) >= 8


def test_every_secret_of_a_rehearsal_has_a_canary_of_its_own() -> None:
    """No canary holds another one, so that a finding names the right one; a new rehearsal has new ones."""
    found = [canary.secret for canary in Secrets().canaries()]

    assert not [(one, other) for one in found for other in found if one is not other and one in other]
    assert len({canary.secret for canary in Secrets().canaries()} & set(found)) == 1, (
        "the tail of tokens alone is shared"
    )


def test_every_kind_of_fault_is_used_and_known_to_the_sandbox() -> None:
    """The rehearsal's list of faults is complete, and each entry is one that the sandbox takes."""
    strikes = ordinary("spoken", 1) + [strike for group in of_the_app("spoken").values() for strike in group]
    book = FaultBook(seed=1)
    for strike in strikes:
        book.add({"kind": strike.kind, "call": strike.call, "times": 1, **strike.how})

    assert {strike.kind for strike in strikes} == set(MAKERS) - OF_ACCOUNT_DATA


def test_planted_in_files(tmp_path: Path) -> None:
    """A log line, and a file that is half zeros."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "worker.log").write_text(f'{{"event": "x", "reason": "Bearer {SECRET}"}}\n')
    (tmp_path / "segment").write_bytes(b"head" + SECRET.encode() + bytes(5000))
    (tmp_path / "clean").write_bytes(b"nothing")

    assert found_in(*files(tmp_path, "the file")) == ["the file logs/worker.log", "the file segment"]


def test_planted_in_the_journal_in_clear_and_sealed(tmp_path: Path) -> None:
    """Bytes in a segment are found in clear, and sealed they are not."""
    journal = Journal(tmp_path / "journal", sealer := Sealer(Keyring.new()), owner="test")
    journal.ready()
    sealed = sealer.seal(SECRET.encode(), b"place")
    (segment,) = (tmp_path / "journal").glob("*.segment")
    with segment.open("r+b") as file:
        file.seek(4096)
        file.write(sealed)
    assert found_in(*files(tmp_path, "the file")) == []
    with segment.open("r+b") as file:
        file.seek(4096)
        file.write(SECRET.encode())

    assert found_in(*files(tmp_path, "the file")) == [f"the file journal/{segment.name}"]
    journal.close()


def test_planted_in_sqlite(tmp_path: Path) -> None:
    """A row, a blob, and a row that stands in the WAL alone, because it was deleted or overwritten since."""
    path, url = tmp_path / "e.db", f"sqlite:///{tmp_path / 'e.db'}"
    with closing(sqlite3.connect(path, isolation_level=None)) as keeps_it_open:
        keeps_it_open.execute("PRAGMA journal_mode=WAL")
        keeps_it_open.execute("PRAGMA secure_delete=ON")
        keeps_it_open.execute("CREATE TABLE t (a, b)")
        keeps_it_open.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert found_in(*database(url)) == []
        keeps_it_open.execute("INSERT INTO t VALUES (?, 1)", (SECRET,))
        assert found_in(*database(url)) == ["the database file e.db-wal", "the SQLite dump"]
        keeps_it_open.execute("DELETE FROM t")
        assert found_in(*database(url)) == ["the database file e.db-wal"]
        keeps_it_open.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert found_in(*database(url)) == []
        keeps_it_open.execute("INSERT INTO t VALUES (?, 1)", (b"x" * 20_000 + SECRET.encode(),))
        keeps_it_open.execute("PRAGMA wal_checkpoint(TRUNCATE)")

        assert "the SQLite dump" in found_in(*database(url))


def test_planted_in_postgresql(postgres_server: Any) -> None:
    """A text, and bytes, which a dump writes in hexadecimal."""
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        try:
            connection.execute("CREATE TABLE planted (a text, b bytea)")
            connection.execute("INSERT INTO planted VALUES (%s, NULL)", (SECRET,))
            assert found_in(*database(postgres_server.url)) == ["the PostgreSQL dump"]
            connection.execute("UPDATE planted SET a = NULL, b = %s", (b"x" * 9000 + SECRET.encode(),))
            assert found_in(*database(postgres_server.url)) == ["the PostgreSQL dump"]
            connection.execute("DELETE FROM planted")

            assert found_in(("the dump", postgres_dump(postgres_server.url))) == []
        finally:
            connection.execute("DROP TABLE planted")


def test_planted_in_redis(new_redis: Callable[..., Any], tmp_path: Path, wait_until: Callable[..., None]) -> None:
    """A key, a value and a long list are found in the dump; a command and an event in their records."""
    server = new_redis("--rdbcompression", "no")
    with redis.Redis.from_url(server.url) as client:
        client.set("clean", "x")
        assert found_in(*redis_files(server.url, server.folder)) == []
        encoded = base64.b64encode(b'{"args": ["' + SECRET.encode())
        for command in (
            ("SET", SECRET, "1"),
            ("SET", "k", b"x" * 50_000 + SECRET.encode()),
            ("RPUSH", "k", *[b"message"] * 1000, encoded),
        ):
            client.flushall()
            client.execute_command(*command)
            assert found_in(*redis_files(server.url, server.folder)) == ["Redis's file dump.rdb"]
        client.config_set("requirepass", "letmein99")
    address = server.url.replace("redis://", "redis://:letmein99@")
    with (
        Monitor(address, tmp_path / "monitor") as monitor,
        Events(address, tmp_path / "events") as events,
        redis.Redis.from_url(address) as client,
    ):
        client.set("k", SECRET)
        event = base64.b64encode(json.dumps([{"type": "task-failed", "uuid": "1", "args": SECRET}]).encode()).decode()
        client.publish("/0.celeryev/task.failed", json.dumps({"body": event}))
        wait_until(lambda: events.kinds["task-failed"] == 1 and monitor.commands >= 3)

    assert events.failed == ["1"]
    assert found_in(*files(tmp_path, "the record of")) == ["the record of events", "the record of monitor"]
    assert b"letmein99" not in (tmp_path / "monitor").read_bytes()


def test_planted_in_a_command_line() -> None:
    """What a process was started with can be read by everybody."""
    command = [sys.executable, "-c", "print(flush=True); input()", SECRET]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            assert len(found_in(*processes([child.pid]))) == 1
        finally:
            child.communicate(b"\n")


@contextmanager
def serving(pages: dict[str, bytes], *, packed: bool = False) -> Iterator[str]:
    """Serve pages that ask for the name `reader` and the password `letmein99`."""
    login = "Basic " + base64.b64encode(b"reader:letmein99").decode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers.get("Authorization") == login
            body = pages.get(self.path, b"no such page") if allowed else b"who are you?"
            body = gzip.compress(body) if packed and allowed else body
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Type", "application/json" if self.path.startswith("/api") else "text/html")
            self.send_header("Content-Length", str(len(body)))
            if packed and allowed:
                self.send_header("Content-Encoding", "gzip")
            if not allowed:
                self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


PAGES = {
    "/": f"<html><body><p>{SECRET}</p></body></html>".encode(),
    "/clean": b"<html><body><p>all is well</p></body></html>",
    "/table": b"""<html><body><table id=t></table><script>
        const ask = new XMLHttpRequest(); ask.open('GET', '/api/rows');
        ask.onload = () => { document.getElementById('t').innerText = JSON.parse(ask.responseText).row; };
        setTimeout(() => ask.send(), 500);</script></body></html>""",
    "/api/rows": json.dumps({"row": SECRET}).encode(),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_planted_in_a_page(packed: bool) -> None:
    """A page behind a password, and an answer of an API, packed or not."""
    client = PlainClient("reader", "letmein99")
    with serving(PAGES, packed=packed) as url:
        pages = [(path, client.get(url + path)) for path in PAGES]
        refused = PlainClient("reader", "wrong").get(url)

    assert found_in(*pages) == ["/", "/api/rows"]
    assert refused == b"who are you?"


@pytest.mark.slow_suite
@pytest.mark.browser
def test_planted_in_a_page_of_a_browser() -> None:
    """The same through a real browser, and in a table that a script of the page fetches late."""
    program = browser_program()
    assert program is not None, "these tests need Chromium"
    browser = Browser(program, "reader", "letmein99")
    with serving(PAGES, packed=True) as url:
        pages = [(path, browser.get(url + path)) for path in PAGES]

    assert found_in(*pages) == ["/", "/table", "/api/rows"]
    assert b"all is well" in dict(pages)["/clean"]
