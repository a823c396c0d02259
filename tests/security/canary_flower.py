"""Flower as a person or a program sees it: every page, every answer of its API, and what each must show."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Protocol
from urllib.parse import quote

from tests.security.canary_pages import TRIES, PlainClient
from tests.security.canary_places import Place


class Client(Protocol):
    """Fetches a page: a browser, or a plain client.

    Attributes:
        runs_scripts: whether the page is given as its scripts have left it.
    """

    runs_scripts: bool

    def get(self, url: str) -> bytes:
        """Return the page."""


def pages(
    client: Client, plain: PlainClient, url: str, workers: Sequence[str], tasks: Sequence[str], *, broker: str = "redis"
) -> Iterator[Place]:
    """Yield every page of Flower's and every answer of its API.

    Args:
        client: fetches them.
        plain: fetches what the tasks' page asks for, which is no page.
        url: Flower's address.
        workers: names of workers.
        tasks: ids of tasks, each with pages of its own.
        broker: the scheme of the broker's address.
    """
    # This asks every worker, which takes longer than a browser in a hurry waits; the pages then show what it brought.
    yield "what Flower asks the workers", plain.get(f"{url}/api/workers?refresh=1")
    for path, shown in expected(workers, tasks, runs_scripts=client.runs_scripts, broker=broker).items():
        # Chromium prints no DOM for JSON that is not to be sniffed, so the API is read as a program reads it.
        page = _shows(plain if path.startswith("/api/") else client, url + path, shown.encode())
        assert shown.encode() in page, f"{path} does not show {shown}: {page[:300]!r}"
        yield f"Flower's {path}", page
    rows = "draw=1&start=0&length=1000&search[value]=&order[0][column]=0&order[0][dir]=asc&columns[0][data]=name"
    yield "the rows of Flower's tasks", plain.get(f"{url}/tasks/datatable?{rows}")


def _shows(client: Client, url: str, shown: bytes) -> bytes:
    """Return a page; one whose scripts had not brought the text in time is asked for again."""
    page = b""
    for _ in range(TRIES):
        page = client.get(url)
        if shown in page:
            break
    return page


def expected(
    workers: Sequence[str], tasks: Sequence[str], *, runs_scripts: bool, broker: str = "redis"
) -> dict[str, str]:
    """Return every path with a text that is on its page and on no page of an error."""
    paths = {
        "/": workers[0],
        "/workers": workers[0],
        "/tasks": "task-uuid-full" if runs_scripts else "Task history",  # the first is in rows alone
        "/broker": f"{broker}://",
        "/metrics": "flower_events_total",
        "/healthcheck": "OK",
        "/api/workers": "broker_transport_options",
        "/api/tasks?limit=10000": "task",
        "/api/queues/length": "active_queues",
        "/api/task/types": "tasks.refresh.scan_due",
        "/nowhere": "page not found",
    }
    for worker in workers:
        paths[f"/worker/{quote(worker)}"] = "broker_url"
        paths[f"/api/workers?workername={quote(worker)}"] = worker
    for task in tasks:
        paths[f"/task/{task}"] = task
        paths[f"/api/task/info/{task}"] = task
        paths[f"/api/task/result/{task}"] = ""  # there are no results, and Flower says so by its status alone
    return paths


def one_task_of_each_kind(plain: PlainClient, url: str) -> list[str]:
    """Return ids of tasks: of each name in each state the one with the longest arguments."""
    served = json.loads(plain.get(f"{url}/api/tasks?limit=10000"))
    longest_last = sorted(served.values(), key=lambda task: len(task["args"] or ""))
    chosen = {(task["name"], task["state"]): str(task["uuid"]) for task in longest_last if task["name"] is not None}
    return list(chosen.values())
