"""A database that answers nobody: the desk lives, and refuses what would only wait."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
import requests

from tests.support.desk import RunningDesk
from worker.desk import web
from worker.desk.app import THREADS
from worker.store import Store

ASKED = THREADS + 30


def test_a_database_that_hangs_holds_neither_the_checks_nor_everybody(
    new_desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While every thread waits for a statement, both checks answer, and requests behind the first ones are refused."""
    monkeypatch.setattr(web, "MOST_WAITING", 10)
    desk: RunningDesk = new_desk()
    neighbour, goes_on = desk.consumer(), Event()
    assert neighbour.get("creators").status_code == 200

    def hang(*_: Any, **__: Any) -> list[Any]:
        assert goes_on.wait(60)
        return []

    monkeypatch.setattr(Store, "grants_in_scope", hang)
    with ThreadPoolExecutor(ASKED) as clients:
        asked = [clients.submit(neighbour.get, "creators") for _ in range(ASKED)]
        try:
            deadline = time.monotonic() + 30
            while sum(each.done() for each in asked) < ASKED - THREADS - 10:
                assert time.monotonic() < deadline
            assert requests.get(f"{desk.url}/healthz", timeout=5).text == "alive\n"
            assert requests.get(f"{desk.url}/readyz", timeout=5).text == "ready\n"
            refused = [each.result() for each in asked if each.done()]
        finally:
            goes_on.set()

    assert {(each.status_code, each.headers["Retry-After"]) for each in refused} == {(503, "5")}
    assert all(each.json()["type"] == "urn:evertoken:problem:busy" for each in refused)
    assert [each.result().status_code for each in asked].count(200) == THREADS + 10
