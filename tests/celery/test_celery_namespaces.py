"""Two installations on one Redis and in one PostgreSQL database: neither touches what is the other's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from tests.conftest import ServerProcess
from tests.support.daemon import Daemon, daemon_settings
from tests.support.redis_user import acl, line_of_page
from tests.support.world import World
from worker.limiter.rights import OF_DOCTOR
from worker.sandbox.process import RunningSandbox
from worker.store import GrantView
from worker.vault import Keyring

pytestmark = [pytest.mark.slow_suite, pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)]

NAMES = ("one", "two")
WORK_SECONDS = 30.0


@dataclass(frozen=True)
class Installation:
    """A daemon, its view of the world, and its one creator."""

    name: str
    daemon: Daemon
    world: World
    creator: GrantView

    def done(self) -> bool:
        """Return True if its creator was refreshed and pulled."""
        seen = self.world.look(self.creator)
        return seen.pair_generation >= 1 and seen.pulled_at is not None

    def doctor(self) -> dict[str, str]:
        """Return state and detail of the doctor's checks."""
        said = json.loads(self.daemon.run("doctor", "--json", "--offline").stdout)
        return {check["check"]: f"{check['state']} {check['detail']}" for check in said["checks"]}


@pytest.fixture
def admin(new_redis: Callable[..., ServerProcess]) -> redis.Redis:
    """A Redis with a user for each installation, whose rights are the page's line with that installation's prefix."""
    client = redis.Redis(port=new_redis().port, decode_responses=True)
    for name in NAMES:
        acl(client, "ACL SETUSER", name, *line_of_page(f"evertoken-{name}:"))
    acl(client, "ACL LOG", "RESET")
    return client


@pytest.fixture
def installations(
    admin: redis.Redis, empty_database_url: str, sandbox: RunningSandbox, tmp_path: Path
) -> Iterator[list[Installation]]:
    """Two that differ in namespace, keyring and folders, and have the app and everything else in common."""
    port = admin.connection_pool.connection_kwargs["port"]
    with ExitStack() as stack:
        made = []
        for name in NAMES:
            folder = tmp_path / name
            folder.mkdir()
            settings = daemon_settings(
                sandbox, folder, NAMESPACE=name, DATABASE_URL=empty_database_url, KEYRING=Keyring.new().to_json(),
                REDIS_URL=f"redis://{name}:PASSWORD@127.0.0.1:{port}/0",
            )  # fmt: skip
            daemon = stack.enter_context(Daemon(folder, settings, warm=True))
            upgraded = daemon.run("db", "upgrade")
            assert upgraded.returncode == 0, upgraded.stderr
            world = stack.enter_context(closing(World(sandbox, daemon.environ)))
            made.append(Installation(name, daemon, world, world.creator(scope="user.info.basic")))
        yield made


def test_each_refreshes_only_its_own_and_nothing_of_one_reaches_the_other(
    admin: redis.Redis, installations: list[Installation], wait_until: Callable[..., None]
) -> None:
    """Refreshes, queues, events, brake, pauses, presence, doctor and purging end at the namespace's border."""
    one, two = installations
    listener = admin.pubsub()  # type: ignore[no-untyped-call]  # redis-py has no type here
    listener.psubscribe("*")

    running = [(each.daemon.worker(each.name), each.daemon.beat()) for each in installations]
    for each, children in zip(installations, running, strict=True):
        each.daemon.wait_ready(wait_until, *children)
    for each in installations:
        wait_until(each.done, WORK_SECONDS)
        assert each.world.services.store.fleet_status().total == 1
        assert len(each.world.services.store.workers_seen(60)) == 1
    ours = one.doctor()
    assert ours["workers"] == "ok 1 answered: one@test"
    assert ours["redis"].startswith("ok answers")

    two.daemon.stop(*running[1])
    assert two.daemon.run("call", "tasks.refresh.scan_due").returncode == 0
    waiting = admin.llen("evertoken-two:refresh")
    assert waiting
    assert one.world.services.store.pull_brake("TikTok refuses the app", probe_seconds=60)
    one.world.services.limiter.punish("minute", 60)
    assert one.daemon.run("purge", "-f").returncode == 0

    assert admin.llen("evertoken-two:refresh") == waiting
    theirs = two.doctor()
    assert theirs["workers"].startswith("fail none answered")
    assert theirs["brake"].startswith("ok")
    assert theirs["quota"].startswith("ok not paused")

    one.daemon.stop(*running[0])
    for each in installations:
        assert each.world.verdict(each.creator).sound
    borders = tuple(f"evertoken-{name}:" for name in NAMES)
    assert [key for key in map(str, admin.keys("*")) if not key.startswith(borders)] == []
    heard = set()
    while (message := listener.get_message(timeout=0.1)) is not None:
        heard |= {str(message["channel"])} if message["type"] == "pmessage" else set()
    listener.close()
    assert {channel.partition("/")[0] for channel in heard} == set(borders)
    refused = acl(admin, "ACL LOG")
    assert isinstance(refused, list)
    assert [(entry["username"], entry["object"]) for entry in refused if entry["object"] not in OF_DOCTOR] == []
