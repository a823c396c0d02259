"""The client for Python, as an application has it: installed alone, against a running desk; and the other clients."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
from evertoken_client import (
    Client,
    EvertokenError,
    NoTokenError,
    NotYetError,
    RefusedError,
    UnknownCreatorError,
)

from tests.support.desk import RunningDesk
from tests.worker.test_reader import at_work, near_its_end, plan_later

PROJECT: Final = Path(__file__).parents[2]
CLIENT: Final = PROJECT / "clients" / "python"


class Clock:
    """A clock that tests move, and that pauses move too."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.pauses.append(seconds)
        self.now += seconds


def client_of(desk: RunningDesk, **options: Any) -> Client:
    """Return a client with a key of its own."""
    return Client(desk.url, desk.consumer().key, **options)


def test_a_token_is_kept_until_its_end(desk: RunningDesk) -> None:
    """Asked again only when it has too little time left: two hand-outs in a day of calls."""
    grant = desk.world.creator()
    clock = Clock()
    client = client_of(desk, monotonic=clock)
    first = client.token(grant.creator_id, min_validity=600)

    for clock.now in range(0, 85_000, 5_000):
        assert client.token(grant.creator_id, min_validity=600) == first
    assert len(desk.services.store.hand_outs()) == 1
    clock.now = 86_000
    assert client.token(grant.creator_id, min_validity=600) == first
    assert len(desk.services.store.hand_outs()) == 2
    assert "act" not in repr(first)


def test_threads_that_want_the_same_token_ask_once(desk: RunningDesk) -> None:
    """Twenty threads, one hand-out."""
    grant = desk.world.creator()
    client = client_of(desk)
    with ThreadPoolExecutor(20) as pool:
        tokens = set(pool.map(lambda _: client.token(grant.creator_id).generation, range(20)))

    assert tokens == {1}
    assert len(desk.services.store.hand_outs()) == 1


def test_a_refused_token_is_replaced(desk: RunningDesk) -> None:
    """The report makes the refresh due, the newer token is waited for, and the old one is not handed out again."""
    grant = desk.world.creator()
    plan_later(desk.world, grant)
    client = client_of(desk)
    first = client.token(grant.creator_id)
    with at_work(desk.world):
        second = client.replacement(first)

    assert (first.generation, second.generation) == (1, 2)
    assert client.token(grant.creator_id) == second
    assert client.replacement(first) == second
    assert client.report_rejected(first) is False
    assert len(desk.world.refreshes(grant)) == 1


def test_each_problem_is_an_error_of_its_own(desk: RunningDesk) -> None:
    """What to do is the error's class; `kind` is the problem's word."""
    good, revoked, short = desk.world.creators(3)
    desk.services.store.mark_revoked(revoked.creator_id)
    near_its_end(desk.world, short, seconds=60)
    clock = Clock()
    client = client_of(desk, patience_seconds=0)
    stranger = Client(desk.url, "etk_nobody")

    for found, ask in (
        (UnknownCreatorError, lambda: client.token("nobody/..?#%")),
        (NoTokenError, lambda: client.token(revoked.creator_id)),
        (RefusedError, lambda: client.token(good.creator_id, min_validity=-1)),
        (RefusedError, lambda: stranger.token(good.creator_id)),
        (RefusedError, lambda: list(client.creators(status="dead"))),
    ):
        with pytest.raises(found) as raised:
            ask()
        assert raised.value.kind
        assert clock.pauses == []
    with pytest.raises(NoTokenError) as ended:
        client.token(revoked.creator_id)
    assert ended.value.kind == "revoked"


def test_what_may_come_back_is_asked_for_again(free_port: int) -> None:
    """A desk that is away: tried again until the patience ends; a kept token needs no desk."""
    clock = Clock()
    client = Client(f"http://127.0.0.1:{free_port}", "etk_key", patience_seconds=10, monotonic=clock, sleep=clock.sleep)

    with pytest.raises(NotYetError) as raised:
        client.token("ada")
    assert (raised.value.kind, raised.value.status) == ("unreachable", 0)
    assert len(clock.pauses) >= 5
    assert "etk_key" not in f"{raised.value!r} {client!r}"


@pytest.fixture
def odd() -> Iterator[ThreadingHTTPServer]:
    """Serve answers that no desk gives; the server keeps what it was sent."""

    class Odd(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server: Any = self.server
            server.seen.append((self.path, self.headers["Authorization"]))
            status, headers, body = server.answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Stay silent."""

    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    server.seen = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param((302, {"Location": "http://127.0.0.1:9/"}, b""), "unreadable-answer", id="a redirect"),
        pytest.param((404, {}, b"<html>"), "unreadable-answer", id="a page of a proxy"),
        pytest.param((500, {}, b"[]"), "unreadable-answer", id="a list"),
        pytest.param((200, {}, b"not json"), "unreachable", id="no JSON"),
        pytest.param((503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b""), "unreadable-answer", id="a date"),
    ],
)
def test_answers_that_no_desk_gives_are_errors_of_ours(odd: Any, answer: Any, kind: str) -> None:
    """A redirect is not followed, and nothing else than our errors is raised."""
    odd.answer = answer
    client = Client(f"http://127.0.0.1:{odd.server_address[1]}", "etk_key", patience_seconds=0)

    with pytest.raises(EvertokenError) as raised:
        client.token("ada")
    assert raised.value.kind == kind
    assert len(odd.seen) == 1


@pytest.mark.parametrize("url", ["tokens.example", "ftp://x", "http://", "https://x/?a=1", "https://x/#a"])
def test_an_unfit_address_or_key_is_refused_at_once(url: str) -> None:
    """Neither is sent anywhere."""
    with pytest.raises(ValueError, match="address"):
        Client(url, "etk_key")
    for key in ("", "a b", "a\nb", "schlüssel"):
        with pytest.raises(ValueError, match="key"):
            Client("https://tokens.example", key)


def test_the_package_alone_runs_its_readmes_example(desk: RunningDesk, tmp_path: Path) -> None:
    """Installed from the tree into a bare environment, it serves the example; no dependency comes with it."""
    grant = desk.world.creator()
    source = shutil.copytree(CLIENT, tmp_path / "source")
    target = tmp_path / "bare"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--no-index", "--target", str(target), str(source)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert (target / "evertoken_client" / "py.typed").exists()
    example = re.findall(r"<!-- example -->\n```python\n(.*?)```", (CLIENT / "README.md").read_text(), re.DOTALL)[0]
    environ = {"PYTHONPATH": str(target), "TOKENS_URL": desk.url, "TOKENS_KEY": desk.consumer().key}
    # Without site-packages: nothing of this project's environment is found.
    ran = subprocess.run(
        [sys.executable, "-S", "-c", example],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split()[1] == "1"
    assert [row.creator_id for row in desk.services.store.hand_outs()] == [grant.creator_id]


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_the_example_for_node_gets_a_token(desk: RunningDesk) -> None:
    """As the page has it."""
    grant = desk.world.creator()
    page = (PROJECT / "docs" / "tokens.md").read_text()
    example = re.findall(r"<!-- node -->\n```js\n(.*?)```", page, re.DOTALL)[0]
    script = f"{example}\ntoken({grant.creator_id!r}).then((got) => console.log(got.generation));"
    environ = {"TOKENS_URL": desk.url, "TOKENS_KEY": desk.consumer().key}
    node = shutil.which("node")
    assert node is not None
    ran = subprocess.run([node, "-e", script], env=environ, capture_output=True, text=True, check=False, timeout=60)

    assert (ran.stdout.strip(), ran.returncode) == ("1", 0), ran.stderr
