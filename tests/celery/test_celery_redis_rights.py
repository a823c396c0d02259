"""A user of Redis with the least rights: the page's line is enough, and the doctor knows what is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from worker.limiter.rights import NEEDED, OF_DOCTOR, missing_rights

if TYPE_CHECKING:
    from tests.conftest import ServerProcess
    from tests.support.daemon import Daemon
    from worker.sandbox.process import RunningSandbox
    from worker.store import Store

ROOT = Path(__file__).parents[2]
EXTRA = {"acl|whoami", "acl|dryrun"}


def line_of_page(prefix: str = "evertoken:") -> list[str]:
    """Return the words behind `user evertoken` in docs/operations.md, for keys and channels with this prefix."""
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    found = re.search(r"^    user evertoken (.*?)\n\n", page, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1].replace("evertoken:", prefix).split()


def acl(admin: redis.Redis, *words: str) -> object:
    """Run a command about rights."""
    answer: object = admin.execute_command(*words)  # type: ignore[no-untyped-call] # redis-py has no type for it
    return answer


@pytest.fixture
def restricted(new_redis: Callable[..., ServerProcess]) -> tuple[redis.Redis, str]:
    """Start a Redis with the page's user; return a client of its administrator and the user's address."""
    server = new_redis()
    admin = redis.Redis(port=server.port, decode_responses=True)
    acl(admin, "ACL SETUSER", "evertoken", *line_of_page())
    acl(admin, "ACL LOG", "RESET")
    return admin, server.url.replace("//", "//evertoken:PASSWORD@")


def test_the_page_names_what_the_doctor_asks_for() -> None:
    """One list cannot grow without the other."""
    assert {word[1:] for word in line_of_page() if word.startswith("+")} == {*NEEDED, *EXTRA}


@pytest.mark.slow_suite
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_daemon_needs_no_other_right(  # noqa: PLR0917 - fixtures
    restricted: tuple[redis.Redis, str],
    new_daemon: Callable[..., Daemon],
    sandbox: RunningSandbox,
    store: Store,
    tmp_path: Path,
    wait_until: Callable[..., None],
) -> None:
    """Beat, a refresh, its pull, remote control, purging, the doctor and a stop are never refused what they need."""
    admin, url = restricted
    daemon = new_daemon(REDIS_URL=url)
    (token,) = sandbox.grants(1, prefix="rights-", scope="user.info.basic")
    file = tmp_path / "tokens.jsonl"
    file.write_text(json.dumps(token))
    assert daemon.run("grants", "import", str(file)).returncode == 0
    worker, beat = daemon.worker(), daemon.beat()
    daemon.wait_ready(wait_until, worker, beat)

    assert daemon.run("grants", "refresh", token["open_id"]).returncode == 0
    wait_until(lambda: b"pull.saved" in worker.log.read_bytes(), 30)
    for command in (("inspect", "ping"), ("inspect", "active_queues"), ("doctor",), ("purge", "-f")):
        ran = daemon.run(*command)
        assert "Permission" not in ran.stdout + ran.stderr
    daemon.stop(worker, beat)

    refused = acl(admin, "ACL LOG")
    assert isinstance(refused, list)
    assert {entry["object"] for entry in refused} <= OF_DOCTOR


def test_every_command_of_the_scripts_is_among_the_rights() -> None:
    """A script may come to a command only once in a while, and is refused then."""
    scripts = [path.read_text() for path in (ROOT / "worker" / "limiter").glob("*.lua")]
    used = {name.lower() for script in scripts for name in re.findall(r"redis\.call\('(\w+)'", script)}

    assert len(used) > 10
    assert used - NEEDED.keys() == set()


@pytest.mark.parametrize("prefix", ["evertoken:", "evertoken-shop:"])
def test_the_doctor_names_missing_rights(restricted: tuple[redis.Redis, str], prefix: str) -> None:
    """The command names commands, keys and channels that are refused; without ACL it says that it cannot know."""
    admin, url = restricted
    acl(admin, "ACL SETUSER", "evertoken", *line_of_page(prefix))
    client = redis.Redis.from_url(url)
    assert missing_rights(client, prefix) == ()

    for change, lacking in (
        (("-zrevrange", "-info"), ("+info", "+zrevrange")),
        (
            ("+zrevrange", "+info", "resetchannels", "&other:*"),
            (f"&{prefix}/0.celery.pidbox", f"&{prefix}/0.celeryev/*", f"&{prefix}/0.celeryev/worker.*"),
        ),
        (("resetkeys", "allchannels", "~other"), (f"~{prefix}*",)),
    ):
        acl(admin, "ACL SETUSER", "evertoken", *change)
        assert missing_rights(client, prefix) == lacking
    acl(admin, "ACL SETUSER", "evertoken", "-acl")
    assert missing_rights(client, prefix) is None
