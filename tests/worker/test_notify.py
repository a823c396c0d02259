"""Delivering notices to the operator's address."""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Barrier, Event, Thread
from typing import Any

import pytest

from tests.support.ground import silent
from worker.notices.delivery import BATCH, BATCH_SECONDS, TIMEOUT_SECONDS, Notifier
from worker.store import Store, open_store
from worker.store.notices import HOLD_SECONDS
from worker.telemetry import Fact
from worker.vault import Token


class Receiver(HTTPServer):
    """An operator's web hook that keeps what it gets and answers as told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = 204
        self.got: list[tuple[dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        """Where to post."""
        return f"http://127.0.0.1:{self.server_port}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        """Keep the request."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.answer)
        if self.server.answer == 307:
            self.send_header("Location", self.server.url.replace("/hook", "/elsewhere"))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Stay silent."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Run a receiver."""
    server = Receiver()
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def notifier_of(store: Store, receiver: Receiver, facts: list[Fact] | None = None) -> Notifier:
    """Return a notifier to the receiver."""
    hook = (facts if facts is not None else []).append
    return Notifier(store=store, hook=hook, url=receiver.url, secret=Token("key-CANARY"), wall_clock=lambda: 1_000)


def test_a_notice_is_delivered_once_and_signed(store: Store, receiver: Receiver) -> None:
    """The receiver can check who sent it and that nothing was changed, and gets it once."""
    store.raise_alarm("alarm:1", "app_stopped", "the secret is refused")

    assert notifier_of(store, receiver).deliver() == 1
    assert notifier_of(store, receiver).deliver() == 0

    [(headers, body)] = receiver.got
    signed = b".".join((b"alarm:1", b"1000", body))
    expected = base64.b64encode(hmac.digest(b"key-CANARY", signed, sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["webhook-id"] == "alarm:1"
    assert json.loads(body)["kind"] == "app_stopped"
    assert "CANARY" not in f"{headers}{body!r}"


@pytest.mark.parametrize("answer", [500, 404, 307])
def test_a_notice_that_is_not_accepted_is_tried_again_later(store: Store, receiver: Receiver, answer: int) -> None:
    """It stays pending with a later time; a redirect is not followed."""
    store.raise_alarm("alarm:1", "app_stopped", "x")
    receiver.answer = answer
    facts: list[Fact] = []

    assert notifier_of(store, receiver, facts).deliver() == 0

    assert len(receiver.got) == 1
    assert [fact.fields["reason"] for fact in facts] == [f"HTTP {answer}"]
    assert store.undelivered_notices()[0].failures == 1
    assert store.pending_notices(10) == []


def test_a_slow_receiver_does_not_hold_a_round_for_longer_than_its_notices_are_held(
    store: Store, receiver: Receiver
) -> None:
    """What is left of a round waits for the next one, so that no second process posts the same notices."""
    for number in range(3):
        store.raise_alarm(f"alarm:{number}", "app_stopped", "x")
    seconds = iter((0.0, 5.0, 26.0))
    slow = Notifier(store=store, hook=silent, url=receiver.url, secret=Token("k"), monotonic=lambda: next(seconds))

    assert slow.deliver() == 1
    assert len(receiver.got) == 1
    assert store.undelivered_count() == 2


def test_a_receiver_that_is_away_costs_nothing_but_time(store: Store, receiver: Receiver) -> None:
    """A refused connection is a failed try and no exception."""
    store.raise_alarm("alarm:1", "app_stopped", "x")
    nowhere = Notifier(store=store, hook=silent, url="http://127.0.0.1:9/", secret=Token("k"))

    assert nowhere.deliver() == 0
    assert store.undelivered_count() == 1


def test_without_an_address_notices_wait_in_the_database(store: Store) -> None:
    """Nothing is lost where no address is set: `doctor` shows what waits."""
    store.raise_alarm("alarm:1", "app_stopped", "x")

    assert Notifier(store=store, hook=silent, url=None, secret=None).deliver() == 0
    assert store.undelivered_count() == 1


def test_a_receiver_that_drips_is_left_at_the_deadline(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that comes a byte at a time holds no thread for longer than one delivery may take."""
    monkeypatch.setattr("worker.notices.delivery.TIMEOUT_SECONDS", 0.5)
    store.raise_alarm("alarm:1", "app_stopped", "x")
    facts: list[Fact] = []
    closing = Event()

    def drip(door: socket.socket) -> None:
        connection, _ = door.accept()
        with connection, contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 204 No Content\r\n" + b"X: y\r\n" * 1000:
                connection.sendall(bytes([byte]))
                if closing.wait(0.02):
                    return

    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = Thread(target=drip, args=(door,))
        thread.start()
        url = f"http://127.0.0.1:{door.getsockname()[1]}/"
        began = time.monotonic()
        assert Notifier(store=store, hook=facts.append, url=url, secret=Token("k")).deliver() == 0
        assert time.monotonic() - began < 5
        closing.set()
        thread.join()

    assert [fact.fields["reason"] for fact in facts] == ["it did not answer in time"]
    assert store.undelivered_count() == 1


def test_one_round_of_deliveries_runs_at_a_time(store: Store) -> None:
    """While a receiver keeps a round waiting, the next one is over at once and holds no second thread."""
    store.raise_alarm("alarm:1", "app_stopped", "x")
    facts: list[Fact] = []
    with socket.create_server(("127.0.0.1", 0)) as door:
        notifier = Notifier(
            store=store, hook=facts.append, url=f"http://127.0.0.1:{door.getsockname()[1]}/", secret=Token("k")
        )
        accepted: list[int] = []
        first = Thread(target=lambda: accepted.append(notifier.deliver()))
        first.start()
        receiver, _ = door.accept()
        store.raise_alarm("alarm:2", "app_stopped", "x")
        began = time.monotonic()

        assert notifier.deliver() == 0
        assert time.monotonic() - began < 2
        assert store.pending_notices(10) != [], "the second round took nothing"

        with receiver:
            receiver.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            first.join()
    assert accepted == [1]
    store.raise_alarm("alarm:3", "app_stopped", "x")
    notifier.deliver()
    assert [fact.name for fact in facts] == ["notice.delivered", "notice.failed"], "the next round went out"


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_two_workers_at_once_post_each_notice_once(store_url: str, receiver: Receiver, database_kind: str) -> None:
    """A round claims its notices for longer than it may last, so the rounds of other processes find others or none."""
    with ExitStack() as opened:
        stores = [opened.enter_context(closing(open_store(store_url))) for _ in range(4)]
        keys = [f"alarm:{number}" for number in range(3 * BATCH)]
        for key in keys:
            stores[0].raise_alarm(key, "app_stopped", "x")
        together = Barrier(len(stores))

        def work(store: Store) -> int:
            together.wait(10)
            return notifier_of(store, receiver).deliver()

        with ThreadPoolExecutor(len(stores)) as workers:
            accepted = sum(workers.map(work, stores))

    posted = [headers["webhook-id"] for headers, _ in receiver.got]
    assert sorted(posted) == sorted(keys)
    assert accepted == len(keys)


def test_a_round_ends_before_its_claim_does() -> None:
    """The last delivery of a round may begin at its end and take its whole time."""
    assert BATCH_SECONDS + TIMEOUT_SECONDS < HOLD_SECONDS
