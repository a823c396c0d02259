"""`evertoken desk` as a process of its own: it starts with its secrets alone, answers, and ends when it is asked to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.daemon import Daemon
from tests.support.desk import PASSWORD, SECRET
from tests.support.systemd import Systemd
from tests.support.world import World

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def daemon(new_world: Callable[..., World], tmp_path: Path, free_port: int) -> Iterator[Daemon]:
    """The commands of a world, for a desk on a free port."""
    with Daemon(tmp_path, new_world().environ | {"EVERTOKEN_DESK_PORT": str(free_port)}) as started:
        yield started


def test_the_desk_says_what_it_lacks(daemon: Daemon) -> None:
    """Exit 2 and one sentence that names both secrets; no traceback."""
    ended = daemon.run("desk")

    assert ended.returncode == 2
    assert "EVERTOKEN_DESK_SECRET is missing" in ended.stderr
    assert "EVERTOKEN_DESK_PASSWORD is missing" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow_suite
def test_the_desk_starts_answers_and_ends(daemon: Daemon, wait_until: Callable[..., None], systemd: Systemd) -> None:
    """It says where it listens, hands out by a key of the command, feeds the watchdog of its unit, and ends with 0."""
    daemon.environ |= {"EVERTOKEN_DESK_SECRET": SECRET, "EVERTOKEN_DESK_PASSWORD": PASSWORD}
    daemon.environ |= {"NOTIFY_SOCKET": systemd.address}
    added = json.loads(daemon.run("consumers", "add", "shop", "--all", "--json").stdout)
    url = f"http://127.0.0.1:{daemon.environ['EVERTOKEN_DESK_PORT']}"
    child: Any = daemon._start("desk", "desk")

    def ready() -> bool:
        assert child.status is None, child.tail()
        return b"desk.started" in child.log.read_bytes()

    wait_until(ready, 90)
    assert requests.get(f"{url}/readyz", timeout=30).text == "ready\n"
    answer = requests.get(f"{url}/v1/creators", headers={"Authorization": f"Bearer {added['key']}"}, timeout=30)
    assert answer.json() == {"creators": [], "next_after": None}
    assert systemd.fed(90), "systemd would kill the desk every three minutes"
    wait_until(Path(daemon.environ["EVERTOKEN_RUN_DIR"], "desk").exists)
    daemon.stop(child)
    assert child.status == 0, child.tail()
    log = child.log.read_text()
    assert "desk.ended" in log
    assert added["key"] not in log
    assert "CANARY" not in log
