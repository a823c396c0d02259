"""Flower as shipped, over a real worker: a password for everything that it shows, no secret, and nothing to set."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import redis
import requests
from flower.urls import handlers

from tests.conftest import _wait_until, find_free_port, start_redis
from tests.security.canary import Scan
from tests.security.canary_flower import expected, one_task_of_each_kind, pages
from tests.security.canary_pages import PlainClient
from tests.security.canary_secrets import Secrets
from tests.security.canary_stack import FLOWER_USER
from tests.support.daemon import Daemon, daemon_settings
from tests.support.small_accounts import small_sandbox
from worker.sandbox.children import Child
from worker.sandbox.options import SandboxOptions
from worker.store import open_store

pytestmark = [pytest.mark.slow_suite, pytest.mark.timeout(300), pytest.mark.xdist_group("flower")]

OPEN: Final = {"/metrics", "/healthcheck", "/logout"}
"""What Flower shows without a password: counters by names of tasks and workers, `OK`, and a page of goodbye."""
ODD: Final = ("two words and  more", "a:colon:and:more:", "signs %20&=+?#@/\\'\"<>", "x" * 1000)
"""Passwords of further users, each with a number for a name."""
LOOKING: Final = {"TasksDataTable"}
"""Handlers whose POST only reads."""
IDS_ONLY: Final = re.compile(r"\((\d+,|[(\[]\d+(, \d+)*,?[)\]],)?\)")
WORKER: Final = "looked-at@test"


@dataclass(frozen=True)
class Shown:
    """A Flower that looks at a worker that has worked."""

    url: str
    secrets: Secrets
    worker: Child
    flower: Child
    tasks: list[str]

    @property
    def login(self) -> tuple[str, str]:
        """The name and password that Flower was given."""
        return FLOWER_USER, self.secrets.flower


@pytest.fixture(scope="module")
def shown() -> Iterator[Shown]:
    """Start worker, beat and Flower as they are shipped, with secrets that are looked for, and let them work."""
    secrets, port = Secrets(), find_free_port()
    with (
        tempfile.TemporaryDirectory() as name,
        start_redis() as server,
        small_sandbox(SandboxOptions(canary=secrets.issued, app_secret=secrets.app, expires_in=6)) as sandbox,
    ):
        with redis.Redis.from_url(server.url) as client:
            client.config_set("requirepass", secrets.redis)
        folder = Path(name)
        settings = daemon_settings(
            sandbox,
            folder,
            DATABASE_URL=f"sqlite:///{folder / 'evertoken.db'}",
            REDIS_URL=server.url.replace("redis://", f"redis://:{secrets.redis}@"),
            KEYRING=secrets.keyring.to_json(),
            NOTICE_SECRET=secrets.notice,
        )
        store = open_store(settings["EVERTOKEN_DATABASE_URL"])
        store.upgrade()
        store.close()
        with Daemon(folder, settings) as daemon:
            users = [f"{FLOWER_USER}:{secrets.flower}", *(f"{user}:{password}" for user, password in enumerate(ODD))]
            (folder / "flower_auth").write_text("\n".join(users), encoding="utf-8")
            daemon.environ["FLOWER_BASIC_AUTH_FILE"] = str(folder / "flower_auth")
            daemon.environ |= {"FLOWER_READ_ONLY": "false", "FLOWER_COOKIE_SECRET": secrets.cookies}
            flower = daemon._start("flower", "flower", f"--port={port}", "--logging=debug")
            worker, beat = daemon.worker(WORKER.partition("@")[0]), daemon.beat()
            daemon.wait_ready(_wait_until, worker, beat)
            daemon.run("grants", "import", "-", text="\n".join(map(json.dumps, sandbox.grants(3))))
            url, plain = f"http://127.0.0.1:{port}", PlainClient(FLOWER_USER, secrets.flower)

            def has_worked() -> bool:
                served = json.loads(plain.get(f"{url}/api/tasks?limit=10000"))
                done = {task["name"] for task in served.values() if task["state"] == "SUCCESS"}
                known = json.loads(plain.get(f"{url}/api/workers?refresh=1"))
                return {"tasks.refresh.refresh_grants", "tasks.pull.pull_accounts"} <= done and "conf" in known.get(
                    WORKER, {}
                )

            _wait_until(has_worked, 60)
            yield Shown(url, secrets, worker, flower, one_task_of_each_kind(plain, url))


def paths_of_handlers() -> Iterator[tuple[str, type]]:
    """Yield every path that Flower knows, with a worker or task in its gap, and what answers there."""
    for spec in handlers[:-1]:  # the last one answers whatever is no path
        pattern, handler = (spec.regex.pattern.rstrip("$"), spec.handler_class) if hasattr(spec, "regex") else spec[:2]
        gap = WORKER if "worker" in pattern else "tasks.refresh.scan_due"
        yield re.sub(r"\(\.[+*]\)", gap, pattern).removesuffix("/?"), handler


def test_everything_that_shows_data_asks_for_the_password(shown: Shown) -> None:
    """Without it, and with a wrong one, each page and answer is refused and says nothing of what it knows."""
    asked = [path for path, _ in paths_of_handlers() if path != "/login" and "static" not in path]
    assert len(asked) >= 25
    for path in [*asked, *expected([WORKER], shown.tasks, runs_scripts=False)]:
        for login in (None, (FLOWER_USER, "wrong"), ("", "")):
            answer = requests.get(shown.url + path, auth=login, timeout=30)
            if path not in OPEN and path != "/nowhere":
                assert answer.status_code in {401, 405}, path  # 405: a path that takes nothing but a POST
            if answer.status_code != 200:
                assert WORKER not in answer.text, path


def test_odd_passwords_log_in(shown: Shown) -> None:
    """Blanks, colons, signs and length are a part of a password; its first half, or another user's, is not one."""
    for user, password in enumerate(ODD):
        for tried, status in ((password, 200), (password[:-1], 401), (ODD[user - 1], 401)):
            answer = requests.get(f"{shown.url}/workers", auth=(str(user), tried), timeout=30)
            assert answer.status_code == status, (user, tried)


def test_what_is_open_shows_no_more_than_names(shown: Shown) -> None:
    """Flower's counters and its health are for machines; their labels are names of workers and tasks."""
    scan = Scan(shown.secrets.canaries())
    for path in OPEN:
        scan.look(path, requests.get(shown.url + path, timeout=30).content)
    labels = set(re.findall(r"(\w+)=\"", requests.get(f"{shown.url}/metrics", timeout=30).text))

    assert scan.findings == []
    assert labels <= {
        "worker",
        "type",
        "task",
        "generation",
        "le",
        "implementation",
        "major",
        "minor",
        "patchlevel",
        "version",
    }


def test_no_page_and_no_answer_shows_a_secret(shown: Shown) -> None:
    """The worker's configuration is there to read, with Redis's password hidden and no secret in it."""
    plain = PlainClient(*shown.login)
    scan = Scan(shown.secrets.canaries())
    for place in pages(plain, plain, shown.url, [WORKER], shown.tasks):
        scan.look(*place)
    conf = json.loads(plain.get(f"{shown.url}/api/workers?refresh=1"))[WORKER]["conf"]

    assert [str(finding) for finding in scan.findings] == []
    assert len(scan.seen) >= 25
    assert "********@" in conf["broker_url"]
    assert conf["result_backend"] is None


def test_arguments_of_tasks_are_ids_and_results_are_nothing(shown: Shown) -> None:
    """What Flower knows of a task is its name, ids of grants and times."""
    served = json.loads(PlainClient(*shown.login).get(f"{shown.url}/api/tasks?limit=10000"))
    named = [task for task in served.values() if task["name"] is not None]

    assert any(task["args"] != "()" for task in named)
    for task in named:
        assert IDS_ONLY.fullmatch(task["args"] or "()"), task["name"]
        assert task["kwargs"] in {"{}", None}, task["name"]
        assert task["result"] in {"None", None}, task["name"]


def test_nothing_can_be_set_called_or_stopped(shown: Shown) -> None:
    """Each of Flower's ways to change something is refused, though the environment asks for the reverse."""
    changing = [
        path for path, handler in paths_of_handlers() if "post" in vars(handler) and handler.__name__ not in LOOKING
    ]
    assert len(changing) >= 13
    for path in changing:
        content = {"args": [], "workername": WORKER, "n": 1, "queue": "x", "terminate": True, "hard": 1, "soft": 1}
        assert requests.post(shown.url + path, json=content, timeout=30).status_code in {401, 403}, path
        answer = requests.post(shown.url + path, json=content, auth=shown.login, timeout=30)
        assert (answer.status_code, answer.text) == (403, "Read only mode is enabled") or answer.status_code == 403, (
            path
        )

    assert shown.worker.status is None
    stats = json.loads(PlainClient(*shown.login).get(f"{shown.url}/api/workers?refresh=1"))[WORKER]
    assert stats["stats"]["pool"]["max-concurrency"] == 4
    assert {queue["name"] for queue in stats["active_queues"]} == {"refresh", "pull", "default"}


def test_the_log_of_flower_holds_no_secret(shown: Shown) -> None:
    """At DEBUG it logs every request, and neither passwords nor the key of its cookies."""
    PlainClient(*shown.login).get(f"{shown.url}/broker")
    scan = Scan(shown.secrets.canaries())
    scan.look("Flower's log", shown.flower.log.read_bytes())

    assert scan.seen["Flower's log"] > 1000
    assert b"[D " in shown.flower.log.read_bytes()
    assert [str(finding) for finding in scan.findings] == []
