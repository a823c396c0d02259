"""A user of Redis with the least rights: the page's line is enough, and the doctor knows what is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from tests.support.redis_user import acl, line_of_page, refused, restrict
from worker import limiter
from worker.cli import checks_outside
from worker.cli.checks import Finding
from worker.limiter.rights import OF_DOCTOR, OF_LIMITER, missing_rights, needed_rights
from worker.settings import MessengerSettings, load

if TYPE_CHECKING:
    from tests.conftest import ServerProcess
    from tests.support.daemon import Daemon
    from worker.sandbox.process import RunningSandbox
    from worker.store import Store

EXTRA = {"acl|whoami", "acl|dryrun"}


@pytest.fixture
def restricted(new_redis: Callable[..., ServerProcess]) -> tuple[redis.Redis, str]:
    """Start a Redis with the page's user; return a client of its administrator and the user's address."""
    return restrict(new_redis(), *line_of_page())


@pytest.mark.parametrize("carries_messages", [True, False])
def test_the_page_names_what_the_doctor_asks_for(carries_messages: bool) -> None:
    """One list cannot grow without the other."""
    words = line_of_page(carries_messages=carries_messages)

    assert {word[1:] for word in words if word.startswith("+")} == {
        *needed_rights(carries_messages=carries_messages), *EXTRA,
    }  # fmt: skip
    assert any(word.startswith("&") for word in words) is carries_messages


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

    assert refused(admin) <= OF_DOCTOR


def test_every_command_of_the_scripts_is_among_the_rights() -> None:
    """A script may come to a command only once in a while, and is refused then."""
    scripts = [path.read_text() for path in Path(limiter.__file__).parent.glob("*.lua")]
    used = {name.lower() for script in scripts for name in re.findall(r"redis\.call\('(\w+)'", script)}

    assert len(used) > 10
    assert used - OF_LIMITER.keys() == set()


@pytest.mark.parametrize("prefix", ["evertoken:", "evertoken-shop:"])
def test_the_doctor_names_missing_rights(restricted: tuple[redis.Redis, str], prefix: str) -> None:
    """The command names commands, keys and channels that are refused; without ACL it says that it cannot know."""
    admin, url = restricted
    acl(admin, "ACL SETUSER", "evertoken", *line_of_page(prefix))
    client = redis.Redis.from_url(url)
    assert missing_rights(client, prefix, carries_messages=True) == ()

    for change, lacking in (
        (("-zrevrange", "-info"), ("+info", "+zrevrange")),
        (
            ("+zrevrange", "+info", "resetchannels", "&other:*"),
            (f"&{prefix}/0.celery.pidbox", f"&{prefix}/0.celeryev/*", f"&{prefix}/0.celeryev/worker.*"),
        ),
        (("resetkeys", "allchannels", "~other"), (f"~{prefix}*",)),
    ):
        acl(admin, "ACL SETUSER", "evertoken", *change)
        assert missing_rights(client, prefix, carries_messages=True) == lacking
    acl(admin, "ACL SETUSER", "evertoken", "-acl")
    assert missing_rights(client, prefix, carries_messages=True) is None


def test_beside_rabbitmq_the_doctor_asks_for_no_right_of_celerys(
    new_redis: Callable[..., ServerProcess],
) -> None:
    """Redis then counts the quota alone: with the page's shorter line nothing is missing, nor blamed, nor refused."""
    admin, url = restrict(new_redis(), *line_of_page(carries_messages=False))
    alone = load(MessengerSettings, {"EVERTOKEN_REDIS_URL": url}, dotenv=None)
    beside = alone.model_copy(update={"broker_url": "amqp://rabbit/x"})
    admin.set("evertoken:refresh", "of a type that is no queue's")

    assert checks_outside.redis(beside) == Finding("redis", "ok", "answers, and never evicts")
    assert "+brpop" in checks_outside.redis(alone).detail
    for right in sorted(OF_LIMITER.keys() - {"info"}):
        acl(admin, "ACL SETUSER", "evertoken", f"-{right}")
        assert checks_outside.redis(beside).detail.endswith(f": +{right}"), right
        acl(admin, "ACL SETUSER", "evertoken", f"+{right}")
    admin.config_set("maxmemory-policy", "allkeys-lru")
    assert "may drop counts of the quota when full" in checks_outside.redis(beside).detail
