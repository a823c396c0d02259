"""What comes of one request when the other side, or the way to it, misbehaves."""

from __future__ import annotations

import gzip
import json
import logging
import os
import resource
import socket
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from worker.egress import is_shortage
from worker.egress.sockets import CURRENT
from worker.errors import ConfigurationError, InDoubtError, NotSentError, ShortageError, StopEveryoneError
from worker.tiktok import ACCOUNT_CALL, read_token_answer, salvage
from worker.vault import Token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.tiktok.conftest import Canaries, Client, Hostile, Servers


def test_refresh_sends_one_post_with_exactly_the_documented_fields(
    hostile: Hostile, client: Client, canaries: Canaries, token_body: bytes
) -> None:
    """The path ends in a slash, the body is JSON, no Access-Token header goes out, and nothing is asked compressed."""
    hostile.answer(hostile.framed(token_body))

    raw = client(hostile.url).send_refresh(Token(canaries.refresh))

    head, _, body = hostile.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /open_api/v1.3/tt_user/oauth2/refresh_token/ HTTP/1.1\r\n")
    assert json.loads(body) == {
        "client_id": "7123",
        "client_secret": canaries.secret,
        "grant_type": "refresh_token",
        "refresh_token": canaries.refresh,
    }
    assert b"\r\nAccept-Encoding: identity\r\n" in head
    assert b"\r\nContent-Type: application/json" in head
    assert b"access-token" not in head.lower()
    assert (raw.http_status, raw.body, raw.complete, raw.fault) == (200, token_body, True, None)
    assert read_token_answer(raw).creator_id == "c7e1f0a2-5b1d-4b5e-9d3a-000000000003"


def test_exchange_sends_the_code_as_auth_code(hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """The callback names it `code`, the call wants `auth_code` and the redirect address."""
    hostile.answer(hostile.framed(b"{}"))

    client(hostile.url).send_exchange(Token(canaries.code))

    assert json.loads(hostile.requests[0].partition(b"\r\n\r\n")[2]) == {
        "client_id": "7123",
        "client_secret": canaries.secret,
        "grant_type": "authorization_code",
        "auth_code": canaries.code,
        "redirect_uri": "https://example.com/back/",
    }


def test_another_app_secret_is_sent_while_it_is_being_changed(
    hostile: Hostile, client: Client, canaries: Canaries
) -> None:
    """The secret handed in goes out in place of the configured one."""
    hostile.answer(hostile.framed(b"{}"))

    client(hostile.url).send_refresh(Token(canaries.refresh), app_secret=Token("the-next-one"))

    assert b'"the-next-one"' in hostile.requests[0]
    assert canaries.secret.encode() not in hostile.requests[0]


@pytest.mark.parametrize("framing", ["framed", "chunked", "until_closed"])
def test_an_answer_cut_at_any_byte_keeps_all_that_came(
    framing: str, hostile: Hostile, client: Client, canaries: Canaries, token_body: bytes
) -> None:
    """At every offset the received body bytes are there, and a pair is salvaged as soon as both tokens came."""
    whole = getattr(hostile, framing)(token_body)
    tiktok = client(hostile.url)
    both_tokens = token_body.index(b'"', token_body.index(b'"open_id": "') + 12)

    head_end = whole.index(b"\r\n\r\n") + 4
    # The last chunk's "0" ends a chunked body, whatever is missing of the empty lines after it.
    data_end = len(whole) - (4 if framing == "chunked" else 0)

    for cut in range(data_end):
        hostile.answer(whole[:cut])
        raw = tiktok.send_refresh(Token(canaries.refresh))

        if cut >= head_end and framing != "chunked":
            assert raw.body == whole[head_end:cut]
            assert (salvage(raw) is not None) == (len(raw.body) > both_tokens)
        assert raw.complete == (framing == "until_closed" and cut >= head_end)
        assert (raw.fault is None) == raw.complete
        with pytest.raises(InDoubtError):
            read_token_answer(raw)

    assert len(hostile.requests) == data_end


@pytest.mark.parametrize("part", ["head", "body"])
def test_dripping_answer_ends_at_the_deadline(
    part: str, hostile: Hostile, client: Client, canaries: Canaries, token_body: bytes
) -> None:
    """A byte at a time is never too late for a single read; the whole call ends in time all the same."""
    whole = hostile.framed(token_body)
    steady = 0 if part == "head" else whole.index(b"\r\n\r\n") + 4
    hostile.answer(whole[:steady], *(bytes([byte]) for byte in whole[steady:]), every=0.02)
    began = time.monotonic()

    raw = client(hostile.url, deadline_seconds=0.6, connect_seconds=0.3).send_refresh(Token(canaries.refresh))

    assert 0.5 < time.monotonic() - began < 3
    assert (raw.complete, raw.fault) == (False, "no complete answer within 0.6 s")
    assert len(raw.body) > 5
    assert whole[steady:].startswith(raw.body)


def test_silent_server_ends_at_the_deadline(hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """A request that is taken and never answered is in doubt, not unsent."""
    hostile.behave = lambda _connection, _request: hostile.halt.wait(10)
    began = time.monotonic()

    raw = client(hostile.url, deadline_seconds=0.4, connect_seconds=0.2).send_refresh(Token(canaries.refresh))

    assert time.monotonic() - began < 3
    assert (raw.http_status, raw.body, raw.complete) == (None, b"", False)


def test_endless_interim_answers_end_at_the_deadline(hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """A stream of `100 Continue` is an answer that never comes."""
    hostile.answer(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 1000, every=0.01)
    began = time.monotonic()

    raw = client(hostile.url, deadline_seconds=0.4, connect_seconds=0.2).send_refresh(Token(canaries.refresh))

    assert time.monotonic() - began < 3
    assert not raw.complete


def test_reset_after_the_request_is_in_doubt(hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """The body went out, so TikTok may have acted on it."""
    hostile.answer(reset=True)

    raw = client(hostile.url).send_refresh(Token(canaries.refresh))

    assert (raw.http_status, raw.body, raw.complete) == (None, b"", False)
    assert "broke before an answer came" in str(raw.fault)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed_and_marks_no_creator(
    status: int, servers: Servers, client: Client, canaries: Canaries
) -> None:
    """The second server sees nothing, not even a connection."""
    first, second = servers(), servers()
    first.answer(first.framed(b"", status=f"{status} Elsewhere", headers=f"Location: {second.url}/\r\n"))
    tiktok = client(first.url)

    raw = tiktok.send_refresh(Token(canaries.refresh))

    with pytest.raises(StopEveryoneError, match="redirect"):
        read_token_answer(raw)
    assert (second.connections, len(first.requests)) == (0, 1)


def test_redirect_with_an_endless_body_is_read_no_further_than_the_limit(
    hostile: Hostile, client: Client, canaries: Canaries
) -> None:
    """The body of a redirect is bounded like any other."""
    hostile.answer(b"HTTP/1.1 307 Elsewhere\r\nLocation: /there\r\nConnection: close\r\n\r\n", *[b"x" * 65536] * 160)

    raw = client(hostile.url).send_refresh(Token(canaries.refresh))

    assert (raw.http_status, len(raw.body), raw.complete) == (307, 65536, False)


def test_ten_megabytes_are_cut_at_the_limit(hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """The prefix is kept and the answer says why it is not complete."""
    hostile.answer(hostile.framed(b"7" * 10_000_000))

    raw = client(hostile.url).send_refresh(Token(canaries.refresh))

    assert (raw.body, raw.complete, raw.fault) == (b"7" * 65536, False, "longer than 65536 bytes")


def test_unasked_compression_is_kept_as_received_and_opened_within_bounds(
    hostile: Hostile, client: Client, canaries: Canaries, token_body: bytes
) -> None:
    """The bytes stay what they were, for the journal; reading them opens them."""
    packed = gzip.compress(token_body)
    hostile.answer(hostile.framed(packed, headers="Content-Encoding: gzip\r\n"))
    tiktok = client(hostile.url)

    raw = tiktok.send_refresh(Token(canaries.refresh))

    assert raw.body == packed
    assert read_token_answer(raw).access_seconds == 86400


def test_compression_bomb_does_not_go_off(hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """Fifty megabytes in fifty kilobytes are in doubt, at the cost of one."""
    hostile.answer(hostile.framed(gzip.compress(b" " * 50_000_000), headers="Content-Encoding: gzip\r\n"))
    tiktok = client(hostile.url)

    raw = tiktok.send_refresh(Token(canaries.refresh))

    with pytest.raises(InDoubtError, match="compressed and too long"):
        read_token_answer(raw)
    assert salvage(raw) is None


@pytest.mark.parametrize("lines", [None, 2])
def test_pair_swallowed_by_a_broken_head_is_kept_and_never_logged(
    lines: int | None, hostile: Hostile, client: Client, token_body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the empty line the body counts as a header; its bytes are kept and urllib3 does not log them."""
    caplog.set_level(logging.DEBUG)
    body = json.dumps(json.loads(token_body), indent=lines).encode()
    hostile.answer(b"HTTP/1.1 200 OK\r\nServer: x\r\n" + body + b"\r\n\r\n")

    raw = client(hostile.url).send_refresh(Token("rft.old"))

    found = salvage(raw)
    assert found is not None
    assert found.access_token.reveal() == "act.hZ83exampleNow!5320.va"
    assert "act." not in caplog.text
    assert "rft." not in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x16\x03\x01\x00\xff", id="tls-bytes"),
        pytest.param(b"ICY 200 OK\r\n\r\n", id="other-protocol"),
        pytest.param(b"HTTP/1.1 twohundred\r\n\r\n", id="bad-status"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300 + b"\r\n", id="too-many-headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70000 + b"\r\n\r\n", id="too-long-header"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="bad-chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello", id="two-lengths"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", id="negative-length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", id="no-length"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", id="no-content"),
    ],
)
def test_anything_that_is_no_answer_is_in_doubt(
    answer: bytes, hostile: Hostile, client: Client, canaries: Canaries
) -> None:
    """Whatever comes back, sending raises nothing and reading raises what means in doubt."""
    hostile.answer(answer)
    tiktok = client(hostile.url)

    raw = tiktok.send_refresh(Token(canaries.refresh))

    with pytest.raises(InDoubtError):
        read_token_answer(raw)


def test_refused_connection_was_not_sent(client: Client, canaries: Canaries, free_port: int) -> None:
    """Nobody listens, so nothing left; no exception of the libraries stays chained."""
    with pytest.raises(NotSentError) as caught:
        client(f"http://127.0.0.1:{free_port}/open_api").send_refresh(Token(canaries.refresh))

    assert "refused" in str(caught.value)
    assert caught.value.__context__ is None
    assert canaries.refresh not in "".join(traceback.format_exception(caught.value))


def test_unknown_host_was_not_sent(client: Client, canaries: Canaries) -> None:
    """A name that is not resolved means that nothing was sent."""
    with pytest.raises(NotSentError, match="not sent"):
        client("https://tiktok.invalid/open_api").send_refresh(Token(canaries.refresh))


def test_connecting_that_is_never_accepted_was_not_sent(client: Client, canaries: Canaries) -> None:
    """A full backlog leaves the connection hanging until the time for connecting is over."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = []
        for _ in range(4):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(listener.getsockname())
        began = time.monotonic()
        with pytest.raises(NotSentError, match="in time"):
            client(f"http://127.0.0.1:{listener.getsockname()[1]}/x", connect_seconds=0.3).send_refresh(
                Token(canaries.refresh)
            )
        assert time.monotonic() - began < 3
        for each in waiting:
            each.close()


def test_connection_lost_before_the_body_left_was_not_sent(
    hostile: Hostile, client: Client, canaries: Canaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If only the head was sent, TikTok cannot have acted on anything."""
    whole_send = socket.socket.sendall

    def broken(self: socket.socket, data: Any, flags: int = 0) -> None:
        if bytes(data).startswith(b"POST"):
            raise ConnectionResetError
        whole_send(self, data, flags)

    monkeypatch.setattr("socket.socket.sendall", broken, raising=False)

    with pytest.raises(NotSentError, match="before the request's body"):
        client(hostile.url).send_refresh(Token(canaries.refresh))


def test_proxies_of_the_environment_are_not_asked(
    servers: Servers, client: Client, canaries: Canaries, monkeypatch: pytest.MonkeyPatch, token_body: bytes
) -> None:
    """A proxy set for the whole machine would be handed the app secret."""
    target, proxy = servers(), servers()
    target.answer(target.framed(token_body))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://localhost:{proxy.port}")
    monkeypatch.delenv("no_proxy", raising=False)

    raw = client(target.url).send_refresh(Token(canaries.refresh))

    assert raw.complete
    assert (proxy.connections, len(target.requests)) == (0, 1)


def test_the_first_token_calls_of_a_process_connect_for_themselves(
    hostile: Hostile, client: Client, canaries: Canaries, token_body: bytes
) -> None:
    """Nothing shows yet that this server keeps idle connections: one that it closed would put a refresh in doubt."""

    def behave(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(hostile.framed(token_body))
        return True

    hostile.behave = behave
    tiktok = client(hostile.url)

    answers = [tiktok.send_refresh(Token(canaries.refresh)) for _ in range(3)]

    assert all(answer.complete for answer in answers)
    assert (hostile.connections, len(hostile.requests)) == (3, 3)


def test_reads_share_a_connection_and_survive_its_end(hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """A kept connection is used again while it lives, and replaced once the peer has closed it."""
    closed = threading.Event()

    def behave(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(hostile.framed(b'{"code":0,"data":{"username":"a"}}', headers="Set-Cookie: a=b\r\n"))
        if len(hostile.requests) == 2:
            connection.shutdown(socket.SHUT_RDWR)
            closed.set()
            return False
        return True

    hostile.behave = behave
    tiktok = client(hostile.url)

    for number in range(4):
        found = tiktok.read(Token(canaries.access), ACCOUNT_CALL, "c1", {"fields": ["username"]})
        assert found.data == {"username": "a"}
        if number == 1:
            assert closed.wait(5)

    assert (hostile.connections, len(hostile.requests)) == (2, 4)
    assert not any(b"cookie" in request.lower() for request in hostile.requests)


def test_each_thread_has_its_own_connection_and_close_ends_them_all(
    hostile: Hostile, client: Client, canaries: Canaries
) -> None:
    """Threads do not wait for one another, and after closing nothing is sent any more."""
    together = threading.Barrier(3)

    def behave(connection: socket.socket, _request: bytes) -> bool:
        together.wait(5)
        connection.sendall(hostile.framed(b'{"code":0,"data":{}}'))
        return True

    hostile.behave = behave
    tiktok = client(hostile.url)
    threads = [
        threading.Thread(target=tiktok.read, args=(Token(canaries.access), ACCOUNT_CALL, "c", {"fields": ["username"]}))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    tiktok.close()

    with pytest.raises(NotSentError, match="closed"):
        tiktok.send_refresh(Token(canaries.refresh))
    assert hostile.connections == 3


def test_failpoints_stand_on_either_side_of_the_answer(
    hostile: Hostile, client: Client, canaries: Canaries, token_body: bytes
) -> None:
    """The first is reached when the server has the request, the second when the last byte has come."""
    seen: list[tuple[str, int]] = []
    hostile.answer(hostile.framed(token_body))

    client(hostile.url, failpoint=lambda name: seen.append((name, len(hostile.requests)))).send_refresh(
        Token(canaries.refresh)
    )

    assert [name for name, _ in seen] == ["post_send", "post_recv"]
    assert seen[1][1] == 1


def test_failpoint_that_raises_after_sending_is_a_broken_connection(
    hostile: Hostile, client: Client, canaries: Canaries, token_body: bytes
) -> None:
    """The request is out, so nothing but an answer in doubt may come of it."""

    def fail(name: str) -> None:
        if name == "post_send":
            raise RuntimeError

    hostile.answer(hostile.framed(token_body))

    raw = client(hostile.url, failpoint=fail).send_refresh(Token(canaries.refresh))

    assert (raw.http_status, raw.complete) == (None, False)


@pytest.mark.parametrize(
    "address",
    [
        "http://business-api.tiktok.com/open_api",
        "http://127.0.0.1.example.com/",
        "ftp://localhost/",
        "https://user:CANARY@example.com/",
        "https://example.com/?CANARY",
        "https://example.com/#CANARY",
        "https://exa mple.com/",
        "https://",
        "https://[::1/",
        "https://example.com:port/",
        "business-api.tiktok.com",
    ],
)
def test_address_that_tokens_must_not_go_to_is_refused(address: str, client: Client) -> None:
    """Only https, or http to this machine itself; the text repeats nothing of the address."""
    with pytest.raises(ConfigurationError) as caught:
        client(address)

    assert "CANARY" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/a", "http://[::1]:1/a/", "http://localhost/", "https://a.b/c"])
def test_safe_addresses_are_taken(address: str, client: Client) -> None:
    """Loopback needs no TLS; everything else has it."""
    client(address)


def test_durations_that_cannot_be_are_refused(client: Client) -> None:
    """Connecting cannot take longer than the whole call."""
    with pytest.raises(ConfigurationError):
        client("https://a.b/c", connect_seconds=50, deadline_seconds=45)


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "broken off"])
def test_nothing_of_an_answer_stays_behind(cut: bool, hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """After a call its thread keeps no byte of the answer, which may hold a pair for as long as the thread lives."""
    answer = hostile.framed(b'{"code":0,"data":{"access_token":"act.x"}}')
    hostile.answer(answer[:-5] if cut else answer)
    sender = client(hostile.url)

    assert sender.send_refresh(Token(canaries.refresh)).complete is not cut
    assert vars(CURRENT) == {}
    hostile.close()
    with pytest.raises(NotSentError):
        sender.send_refresh(Token(canaries.refresh))
    assert vars(CURRENT) == {}


@pytest.fixture
def starved() -> Iterator[None]:
    """This process has no file descriptor left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 16, hard))
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for descriptor in held:
        os.close(descriptor)


def test_our_own_want_of_descriptors_is_no_fault_of_tiktok(
    hostile: Hostile, client: Client, canaries: Canaries, request: pytest.FixtureRequest
) -> None:
    """Nothing is sent, and the error says whose fault it is; so it is with a name that is not resolved for that."""
    tiktok, unresolved = client(hostile.url), socket.gaierror(socket.EAI_AGAIN, "again")
    assert not is_shortage(unresolved)
    request.getfixturevalue("starved")

    with pytest.raises(ShortageError, match="this host has no file descriptor or no memory left"):
        tiktok.send_refresh(Token(canaries.refresh))

    assert is_shortage(unresolved)
    assert hostile.requests == []


@pytest.mark.parametrize("error", [MemoryError(), OSError(12, "no memory"), OSError(105, "no buffer")])
def test_our_own_want_of_memory_is_none_either(error: Exception) -> None:
    """A refused connection is TikTok's affair, these are not."""
    assert is_shortage(error)
    assert not is_shortage(ConnectionRefusedError(111, "refused"))
