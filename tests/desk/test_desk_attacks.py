"""What an attacker may try at the desk, one test each; docs/desk.md has the list."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests

from tests.support.desk import PASSWORD, SECRET, RunningDesk
from tests.support.surfing import Person
from worker.cli import checks_outside
from worker.cli.desk import desk as command
from worker.desk import serving
from worker.desk.guesses import Guesses
from worker.desk.lacking import refuse_lacking
from worker.desk.sessions import own_path
from worker.errors import ConfigurationError
from worker.settings import load_settings
from worker.telemetry.metrics import REGISTRY

PAGES = (
    "/ops",
    "/ops/login",
    "/ops/grants",
    "/connect/x",
    "/connected/connected",
    "/nowhere",
    "/healthz",
    "/v1/nowhere",
)
NASTY = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'"


@pytest.fixture
def operator(desk: RunningDesk) -> Person:
    """An operator who is logged in."""
    person = Person(desk)
    person.log_in()
    return person


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/", "//evil.example/ops", "/\\evil.example", "\\\\evil.example", "/ops\\@evil.example",
        "javascript:alert(1)", "/ops\r\nSet-Cookie: a=b", "http:/ops", "/opsé", "", "/callback?code=1", "ops",
        "https:///ops", " /ops", "/%2F/evil.example",
    ],
)  # fmt: skip
def test_open_redirect(desk: RunningDesk, target: str) -> None:
    """After the password nobody is led away from the operators' pages."""
    led = Person(desk).log_in(to=target)

    assert led.status_code == 303
    location = led.headers["Location"]
    assert location.startswith("/ops")
    assert not urlsplit(location).netloc
    shown = Person(desk).get(f"/ops/login?next={quote(target, safe='')}")
    assert 'value="/ops"' in shown.text
    assert own_path("/ops/grants?state=due", otherwise="/ops") == "/ops/grants?state=due"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({}, 200),
    ],
)
def test_csrf(desk: RunningDesk, operator: Person, headers: dict[str, str], status: int) -> None:
    """A form from elsewhere is refused even with the right key, one with a wrong key always; and so is a login."""
    fields = {"form_key": operator.form_key(), "days": "7"}
    assert operator.post("/ops/invite", fields, headers=headers).status_code == status
    for wrong in ({}, {"form_key": ""}, {"form_key": "0" * 64}, {"form_key": "é"}):
        assert operator.post("/ops/invite", {"days": "7"} | wrong).status_code == 403
    other = Person(desk)
    other.log_in()
    assert operator.post("/ops/invite", {"days": "7", "form_key": other.form_key()}).status_code == 403
    stranger = Person(desk).post("/ops/login", {"password": PASSWORD}, headers=headers)
    assert stranger.status_code == (403 if status == 403 else 303)
    assert operator.get("/ops/logout").status_code == 405
    (cookie,) = Person(desk).post("/ops/login", {"password": PASSWORD}).headers["Set-Cookie"].split(", evertoken")[:1]
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= {each.strip() for each in cookie.split(";")}


def test_xss_through_names_and_texts(desk: RunningDesk, operator: Person) -> None:
    """Display names, references, reasons and notices are shown as text; no page holds a script or a style."""
    grant = desk.world.creator()
    stored, quoted = desk.services.store, NASTY.replace("'", "''")
    for statement in (
        f"UPDATE grants SET reference = 'x{quoted}', last_reason = '{quoted}' WHERE id = {grant.grant_id}",  # noqa: S608 - what the test is about
        """INSERT INTO snapshots (grant_id, pulled_at, data)
        SELECT id, 1, '{"display_name": "<script>alert(1)</script>"}' FROM grants""",
    ):
        desk.world.sql(statement)
    stored.raise_alarm("1", "misfit", NASTY, grant_id=grant.grant_id)
    for path in (
        "/ops/grants", f"/ops/grants/{grant.creator_id}", "/ops/notices", f"/ops/grants?q={quote(NASTY)}", "/ops",
        f"/connected/{quote(NASTY, safe='')}", f"/ops/login?next={quote(NASTY)}",
        f"/ops/grants/{quote(NASTY, safe='')}",
    ):  # fmt: skip
        page = operator.get(path)
        assert "<script" not in page.text, path
        assert "<img" not in page.text, path
        assert " style=" not in page.text, path
        assert page.status_code in {200, 404}, path
    assert "&lt;script&gt;" in operator.get(f"/ops/grants/{grant.creator_id}").text


def test_a_new_password_ends_the_sessions_of_the_old_one(new_desk: Any) -> None:
    """Who changes a password after a leak is rid of whoever had it."""
    first = new_desk()
    person = Person(first)
    person.log_in()
    port = first.port
    assert person.get("/ops").status_code == 200
    first.close()

    person.desk = again = new_desk(DESK_PORT=str(port), DESK_PASSWORD="another-long-password")
    assert again.url == first.url
    assert person.get("/ops").status_code == 303


def test_session_fixation(desk: RunningDesk) -> None:
    """A session that a browser brings along is not taken over, and a made-up or changed one opens nothing."""
    planted = f"9999999999.{'A' * 32}.{'0' * 64}"
    victim = Person(desk)
    victim.session.cookies.set("evertoken-desk", planted)
    assert victim.get("/ops").status_code == 303
    set_cookie = victim.log_in().headers["Set-Cookie"]
    assert "A" * 32 not in set_cookie
    value = set_cookie.partition("=")[2].partition(";")[0]
    ends, middle, signature = value.split(".")
    for forged in (
        planted, f"{int(ends) + 1}.{middle}.{signature}", f"{ends}.{'B' * 32}.{signature}", value[:-1], "", "x" * 5000,
        f'"{value}', value.upper(),
    ):  # fmt: skip
        answer = requests.get(
            f"{desk.url}/ops", headers={"Cookie": f"evertoken-desk={forged}"}, allow_redirects=False, timeout=30
        )
        assert answer.status_code == 303, forged
    assert Person(desk).log_in().headers["Set-Cookie"].split(".")[1] != middle


def test_password_guessing(desk: RunningDesk) -> None:
    """After five wrong ones in a minute even the right one waits; one line of the log says so."""
    person = Person(desk)
    assert [person.log_in(f"wrong {number}").status_code for number in range(5)] == [401] * 5
    late = person.log_in()
    assert late.status_code == 429
    assert 1 <= int(late.headers["Retry-After"]) <= 60
    levels = [fact.level for fact in desk.facts if fact.name == "desk.login_failed"]
    assert levels == ["info"] * 4 + ["warning"]
    for odd in ("", "\x00", "é" * 1000):
        assert Person(desk).log_in(odd).status_code == 429


def test_guesses_are_counted_by_address_and_forgotten() -> None:
    """A minute later one more may be made; a whole network of IPv6 counts as one; the memory is bounded."""
    now = [0.0]
    guesses = Guesses(2, seconds=60, monotonic=lambda: now[0])
    assert [guesses.wrong("10.0.0.1"), guesses.wait("10.0.0.1"), guesses.wrong("10.0.0.1")] == [False, 0, True]
    assert guesses.wait("10.0.0.1") == 60
    assert guesses.wait("10.0.0.2") == 0
    now[0] = 61
    assert guesses.wait("10.0.0.1") == 0
    guesses.wrong("2001:db8::1")
    guesses.wrong("2001:db8::ffff")
    assert guesses.wait("2001:db8::2") > 0
    assert guesses.wait("2001:db8:0:1::2") == 0
    for number in range(10_050):
        guesses.wrong(f"host {number}")
    assert len(guesses._wrong) <= 10_000
    guesses.right("host 10049")
    assert guesses.wait("host 10049") == 0


def test_a_forged_way_does_not_hide_a_guesser(new_desk: Any) -> None:
    """`X-Forwarded-For` counts only from a trusted proxy, and only as far as the proxies are trusted."""
    untrusting = Person(new_desk())
    for number in range(5):
        untrusting.post("/ops/login", {"password": "x"}, headers={"X-Forwarded-For": f"10.9.9.{number}"})
    assert untrusting.log_in().status_code == 429
    trusting = Person(new_desk(untrusting.desk.world, DESK_PROXIES="127.0.0.0/8, 10.0.0.7"))
    for number in range(5):
        way = f"198.51.100.{number}, 203.0.113.9, 10.0.0.7"
        trusting.post("/ops/login", {"password": "x"}, headers={"X-Forwarded-For": way})
    blocked = trusting.post("/ops/login", {"password": PASSWORD}, headers={"X-Forwarded-For": "203.0.113.9"})
    assert blocked.status_code == 429
    free = trusting.post("/ops/login", {"password": PASSWORD}, headers={"X-Forwarded-For": "203.0.113.10"})
    assert free.status_code == 303


@pytest.mark.parametrize("host", ["evil.example", "", "127.0.0.1.evil.example", "localhost@evil.example", "[::1"])
def test_host_header(desk: RunningDesk, host: str) -> None:
    """A page is not shown under a foreign name, and no link is made of one; the API and health checks need no name."""
    for path in ("/ops/login", "/connect/x", "/callback?code=1&state=2", "/"):
        answer = requests.get(desk.url + path, headers={"Host": host}, allow_redirects=False, timeout=30)
        assert answer.status_code in {400, 421}, path
        assert "evil" not in answer.text + str(answer.headers)
    if host:
        assert requests.get(f"{desk.url}/healthz", headers={"Host": host}, timeout=30).status_code == 200
        assert requests.get(f"{desk.url}/v1/creators", headers={"Host": host}, timeout=30).status_code == 401


def test_a_second_host_header_is_refused(desk: RunningDesk) -> None:
    """Two names are no name."""
    request = (
        f"GET /ops/login HTTP/1.1\r\nHost: 127.0.0.1:{desk.port}\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    )
    assert b" 421 " in spoken(desk, request.encode())[:40]


def test_clickjacking_and_strict_headers(desk: RunningDesk) -> None:
    """Every answer forbids frames, scripts, foreign sources and caching; nothing names the server."""
    for path in PAGES:
        headers = Person(desk).get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy, path
        assert "frame-ancestors 'none'" in policy
        assert "script-src" not in policy
        assert "unsafe" not in policy
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-store"
        assert "Server" not in headers


def test_over_tls_the_cookie_is_for_tls_alone(new_desk: Any) -> None:
    """With an https address the cookie is bound to this host, and browsers are told to stay with TLS."""
    desk = new_desk(DESK_URL="https://connect.example")
    answer = Person(desk).post("/ops/login", {"password": PASSWORD}, headers={"Host": "connect.example"})

    assert answer.headers["Set-Cookie"].startswith("__Host-evertoken=")
    assert "Secure" in answer.headers["Set-Cookie"]
    assert "max-age" in answer.headers["Strict-Transport-Security"]
    own = {"Origin": "https://connect.example", "Host": "connect.example"}
    assert Person(desk).post("/ops/login", {"password": PASSWORD}, headers=own).status_code == 303


def test_a_link_preview_uses_nothing_up(desk: RunningDesk, operator: Person) -> None:
    """HEAD, as mail programs send it, is answered with 405 before anything is looked at."""
    link = operator.invite()
    creator = Person(desk)
    way_back = creator.tiktok(creator.get(link), "previewed")
    for path in (link, way_back, "/ops"):
        assert requests.head(desk.url + path, timeout=30).status_code == 405
    assert creator.get(way_back).headers["Location"] == "/connected/connected"


def test_an_endless_request_ends(desk: RunningDesk) -> None:
    """A head without an end, a body without an end and a client that says nothing are left, and others are served."""
    endless = b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + (b"X-Filler: " + b"x" * 1000 + b"\r\n") * 5000
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", desk.port), timeout=30) as connection:  # noqa: PT012 - the send or the next one meets the closed connection
        connection.sendall(endless)
        connection.sendall(endless)
    large = b"POST /ops/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 60_000
    assert b" 413 " in spoken(desk, large)[:40]
    assert requests.get(f"{desk.url}/healthz", timeout=30).status_code == 200


def test_a_silent_client_is_left(new_desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a head, no head at all, half a body: the connection is closed after the time for a request."""
    monkeypatch.setattr(serving, "REQUEST_SECONDS", 0.3)
    desk = new_desk()
    half = b"POST /ops/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 90\r\n\r\nhalf"
    for said in (b"", b"GET /healthz HTT", half):
        assert b" 200 " not in spoken(desk, said)
    both = spoken(desk, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"alive" in both


def test_slow_bodies_do_not_shut_the_desk(new_desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While all connections are taken log, count and doctor say so; those that wait for a body are left."""
    monkeypatch.setattr(serving, "MOST_CONNECTIONS", 5)
    monkeypatch.setattr(serving, "REQUEST_SECONDS", 2.0)
    desk, before = new_desk(), refused()
    slow = b"POST /ops/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 90\r\n\r\nslow"
    with ExitStack() as stack:
        for _ in range(5):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", desk.port), timeout=10))
            connection.sendall(slow)
        deadline = time.monotonic() + 30
        while requests.get(f"{desk.url}/healthz", timeout=30).status_code != 503:
            assert time.monotonic() < deadline
        assert [fact.name for fact in desk.facts if fact.name == "desk.full"] == ["desk.full"]
        assert refused() > before
        found = checks_outside.desk(desk.services)
        assert (found.state, "docs/runbook/desk-full.md" in found.detail) == ("fail", True)
        while requests.get(f"{desk.url}/healthz", timeout=30).status_code != 200:
            assert time.monotonic() < deadline


def refused() -> float:
    """Return how many requests desks of this process have refused, because all connections were taken."""
    return REGISTRY.get_sample_value("evertoken_desk_refused_total") or 0.0


def test_a_large_head_in_one_piece_is_refused(desk: RunningDesk) -> None:
    """However the pieces fall, it reaches no page."""
    large = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Filler: " + b"x" * 100_000 + b"\r\n\r\n"

    assert b" 400 " in spoken(desk, large)[:40]
    assert requests.get(f"{desk.url}/healthz", timeout=30).status_code == 200


def spoken(desk: RunningDesk, request: bytes) -> bytes:
    """Send bytes and return all that comes until the desk closes the connection, or stops for a while."""
    with socket.create_connection(("127.0.0.1", desk.port), timeout=10) as connection:
        connection.sendall(request)
        said = b""
        try:
            while part := connection.recv(65_536):
                said += part
                if b" 413 " in said[:40] or b" 421 " in said[:40]:
                    break
        except ConnectionResetError:
            pass
        return said


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"DESK_SECRET": ""}, ["EVERTOKEN_DESK_SECRET"]),
        ({"DESK_PASSWORD": ""}, ["EVERTOKEN_DESK_PASSWORD"]),
        ({"DESK_SECRET": "", "DESK_PASSWORD": ""}, ["EVERTOKEN_DESK_SECRET", "EVERTOKEN_DESK_PASSWORD"]),
    ],
)
def test_without_its_secrets_the_desk_does_not_start(new_world: Any, changes: dict[str, str], named: list[str]) -> None:
    """And says which are missing."""
    world = new_world()
    names = {"DESK_SECRET": SECRET, "DESK_PASSWORD": PASSWORD} | changes
    environ = world.environ | {f"EVERTOKEN_{name}": value for name, value in names.items()}

    with pytest.raises(ConfigurationError) as raised:
        refuse_lacking(load_settings(environ, dotenv=None))
    for name in ("EVERTOKEN_DESK_SECRET is missing", "EVERTOKEN_DESK_PASSWORD is missing"):
        assert (name in str(raised.value)) is (name.split()[0] in named)
    assert command.name == "desk"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"DESK_SECRET": "short"}, "DESK_SECRET has fewer than 32"),
        ({"DESK_PASSWORD": "short"}, "DESK_PASSWORD has fewer than 12"),
        ({"DESK_ADDRESS": "desk.example"}, "DESK_ADDRESS must be an IP address"),
        ({"DESK_URL": "http://connect.example"}, "DESK_URL must begin with https://"),
        ({"DESK_URL": "https://connect.example/desk"}, "DESK_URL must be a scheme and a host"),
        ({"DESK_PROXIES": "proxy.example"}, "DESK_PROXIES must be IP addresses"),
        ({"DESK_OPERATOR_HEADER": "Remote-User"}, "DESK_OPERATOR_HEADER needs EVERTOKEN_DESK_PROXIES"),
        ({"DESK_OPERATOR_HEADER": "a b", "DESK_PROXIES": "::1", "DESK_OPERATORS": "a"}, "the name of a header"),
    ],
)
def test_settings_of_the_desk_that_cannot_be_used_are_named(new_world: Any, changes: dict[str, str], told: str) -> None:
    """At the start, in a sentence that echoes no secret."""
    environ = new_world().environ | {f"EVERTOKEN_{name}": value for name, value in changes.items()}

    with pytest.raises(ConfigurationError, match=told) as raised:
        load_settings(environ, dotenv=None)
    assert "short" not in str(raised.value)
