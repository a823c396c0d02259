"""The control API and the child process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from worker.sandbox.options import OptionsError, SandboxOptions
from worker.sandbox.process import RunningSandbox, SandboxError

Start = Callable[..., RunningSandbox]
Ask = Callable[..., SimpleNamespace]


def test_grants_in_bulk_bring_pairs_that_work(start: Start, ask: Ask) -> None:
    """Thousands of creators come at once, each with a pair, a scope and a ledger line of its own."""
    sandbox = start(expires_in=1000)

    grants = sandbox.grants(5000, prefix="bulk-", first=11, scope="user.info.basic", age=900, spread=True)

    assert [grant["open_id"] for grant in grants[:2]] == ["bulk-11", "bulk-12"]
    assert (grants[0]["expires_in"], grants[-1]["expires_in"]) == (1000, 100)
    assert {grant["scope"] for grant in grants} == {"user.info.basic"}
    assert len({grant["refresh_token"] for grant in grants}) == len(sandbox.entries()) == 5000
    assert ask(sandbox, "refresh", refresh_token=grants[-1]["refresh_token"]).json["code"] == 0


def test_statistics_count_calls_by_their_end(start: Start, ask: Ask) -> None:
    """The counters count codes, pairs, errors, overlaps, faults and the sandbox's own cost."""
    sandbox = start()
    token = sandbox.grants()[0]["refresh_token"]
    for _ in range(3):
        ask(sandbox, "refresh", refresh_token=token)
    sandbox.fault("status", status=503)
    ask(sandbox, "refresh", refresh_token=token)

    stats = sandbox.stats()

    assert stats["calls"] == {"tt_user/oauth2/refresh_token/": {"0": 1, "40107": 2, "http 503": 1}}
    assert [stats[name] for name in ("requests", "pairs", "errors", "overlaps", "faults")] == [4, 2, 3, 3, 1]
    assert (stats["creators"], stats["ledger_lines"]) == (1, 5)
    assert stats["cpu_seconds"] > 0
    assert stats["rss_kib"] > 1000


def test_options_change_while_it_runs(start: Start, ask: Ask) -> None:
    """Run-time options take effect with the next call; those that are fixed are refused."""
    sandbox = start(expires_in=100)
    token = sandbox.grants()[0]["refresh_token"]

    options = sandbox.change(expires_in=7, rotation="same")

    assert (options["expires_in"], "app_secret" in options) == (7, False)
    assert ask(sandbox, "refresh", refresh_token=token).json["data"]["expires_in"] == 7
    for wrong in ({"port": 1}, {"app_secret": "x"}, {"rotation": "odd"}, {"unheard": 1}):
        with pytest.raises(SandboxError):
            sandbox.change(**wrong)


def test_a_clock_with_a_first_day_stands_until_it_is_moved(start: Start) -> None:
    """Two runs with the same first day see the same moments, however long they take."""
    sandbox = start(first_day="2040-01-01")
    midnight = datetime(2040, 1, 1, tzinfo=UTC).timestamp()

    assert sandbox.advance() == midnight
    assert sandbox.advance(days=1, seconds=30) == midnight + 86_430


def test_quota_is_enforced_on_calls(start: Start, ask: Ask) -> None:
    """A broken minute answers HTTP 200 with 40100, and the statistics know which limit it was."""
    sandbox = start(quota_per_minute=2, rotation="same")
    token = sandbox.grants()[0]["refresh_token"]

    codes = [ask(sandbox, "refresh", refresh_token=token).json["code"] for _ in range(4)]

    assert codes == [0, 0, 40100, 40100]
    assert (sandbox.stats()["quota"]["minute"], sandbox.stats()["quota"]["suspended"]) == (1, 1)
    assert 290 < sandbox.stats()["suspended_for"] <= 300


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("nothing", {}),
        ("revoke", {"creator": "nobody"}),
        ("creator", {"creator": "nobody"}),
        ("clock", {"advance": -1}),
        ("clock", {}),
        ("clock", []),
        ("grants", {"number": 3}),
        ("app", {"secret": ""}),
    ],
)
def test_wrong_control_requests_get_a_sentence(shared: RunningSandbox, path: str, body: Any) -> None:
    """A control request that cannot be carried out is refused and the sandbox goes on."""
    with pytest.raises(SandboxError):
        shared.control(path, body)
    assert shared.stats()["creators"] >= 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"expires_in": 0}, "expires_in: must be at least 1"),
        ({"expires_in": True}, "expires_in: int is wanted"),
        ({"port": 70_000}, "port: must be at most 65535"),
        ({"rotation": "odd"}, "rotation: must be one of strict, grace, same"),
        ({"scopes": ()}, "scopes: at least one name"),
        ({"canary": "a b"}, "canary: only letters and digits"),
        ({"latency": "soon"}, "latency: float is wanted"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], words: str) -> None:
    """Each option is checked before anything starts."""
    with pytest.raises(OptionsError, match=words):
        SandboxOptions(**options)


def test_control_is_for_this_machine_only(start: Start) -> None:
    """A request from another address than loopback is refused."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            address = probe.getsockname()[0]
        except OSError:
            address = "127.0.0.1"
    if address.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    sandbox = start(host="0.0.0.0")  # noqa: S104  # the test is about other addresses
    with socket.create_connection((address, sandbox.port), timeout=10) as line:
        line.sendall(b"GET /_sandbox/stats HTTP/1.1\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: line.recv(4096), b""))

    assert b" 403 " in answer


def test_port_that_is_taken_is_reported(start: Start) -> None:
    """A sandbox that cannot listen does not start."""
    with pytest.raises(SandboxError, match="did not start"):
        start(port=start().port)


def test_sandbox_shares_no_code_with_what_it_tests() -> None:
    """The server and its starter load nothing of ours but the sandbox, and nothing but the standard library."""
    script = (
        "import sys; known = set(sys.modules)\n"
        "import worker.sandbox.__main__, worker.sandbox.process, worker.sandbox.verdict\n"
        "new = {name for name in sys.modules if name not in known and not name.startswith('worker.sandbox')}\n"
        "print(sorted(name for name in new if name.split('.')[0] not in sys.stdlib_module_names and name != 'worker'))"
    )

    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"


def test_shutdown_and_stop_end_the_process(start: Start, wait_until: Callable[..., None]) -> None:
    """A control request ends the sandbox; stopping it again is harmless and takes its own ledger away."""
    sandbox = start()
    sandbox.control("shutdown", {})

    wait_until(lambda: sandbox._process.poll() is not None)
    sandbox.stop()

    assert sandbox._process.returncode == 0
    assert not sandbox.ledger_path.exists()


def test_sandbox_ends_with_the_process_that_started_it(wait_until: Callable[..., None]) -> None:
    """If the starter is killed, the sandbox ends by itself."""
    script = (
        "import time; from worker.sandbox.process import start_sandbox\n"
        "s = start_sandbox(); print(s.pid, s.port, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        port = int(starter.stdout.readline().split()[1])
        starter.kill()

    def gone() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    wait_until(gone)


def test_pipelined_requests_are_answered_in_order(start: Start) -> None:
    """Several requests in one packet get their answers one after the other, a slow one holding up the next."""
    sandbox = start()
    sandbox.fault("slow", call="account", seconds=0.2, times=1)
    paths = (b"/open_api/v1.3/business/get/", b"/nowhere", b"/_sandbox/faults")
    with socket.create_connection(("127.0.0.1", sandbox.port), timeout=10) as line:
        line.sendall(b"".join(b"GET %b HTTP/1.1\r\n\r\n" % path for path in paths))
        received = b""
        while received.count(b"HTTP/1.1") < 3:
            received += line.recv(4096)

    assert received.index(b"40104") < received.index(b"404 page") < received.index(b'{"faults"')


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"A" * 70_000,
    ],
)
def test_bytes_that_are_no_request_end_the_connection(shared: RunningSandbox, request_bytes: bytes) -> None:
    """What cannot be read is answered with 400 and the connection ends."""
    with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as line:
        line.sendall(request_bytes)
        received = b""
        try:
            while chunk := line.recv(4096):
                received += chunk
        except ConnectionResetError:
            pass

    assert received.startswith(b"HTTP/1.1 400 ")


def test_stopped_sandbox_is_silent_and_goes_on(start: Start, ask: Ask) -> None:
    """Its process may be paused to play a network that swallows everything, and then carries on."""
    import signal  # noqa: PLC0415  # only here

    sandbox = start()
    os.kill(sandbox.pid, signal.SIGSTOP)
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", sandbox.port), timeout=0.2) as line:
        line.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(TimeoutError):
            line.recv(1)
    os.kill(sandbox.pid, signal.SIGCONT)

    assert ask(sandbox, "refresh", refresh_token="x").json["code"] == 40107
    assert time.monotonic() - began >= 0.2
