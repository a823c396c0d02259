"""A rehearsal with canaries: every mistake, every fault and every crash, with the real stack."""

from __future__ import annotations

import json
import os
import signal
from typing import Final
from urllib.parse import parse_qs, urlsplit

from tests.faults.databases import refuse_pairs, take_pairs, writes_held
from tests.security import canary_faults
from tests.security.canary_secrets import bad_lines, foreign_lines
from tests.security.canary_stack import DEADLINE_SECONDS, LIFE_SECONDS, CanaryStack
from worker.store import open_store

HEALTHY: Final = 12
STRIKE_SECONDS: Final = 120.0


class Rehearsal(CanaryStack):
    """Lets everything happen to a stack.

    Attributes:
        in_the_journal: bodies of answers that a killed worker left in its journal, opened with the keyring.
    """

    in_the_journal: tuple[bytes, ...] = ()

    def everything(self) -> None:
        """Let it all happen, one after the other; the stack still runs afterwards."""
        self.mistake()
        self.start()
        self.strike_all()
        self.break_the_database()
        self.lose_the_broker()
        self.crash()
        self.sandbox.control("app", {"secret": self.secrets.next_app})
        self.strike_the_app()
        self.refuse_the_app()
        self.look_around()

    def mistake(self) -> None:
        """Make every mistake of an operator with secrets: in settings, in files, and in a command's wrong place."""
        typed, port = self.secrets.typed, urlsplit(self.redis_url).port
        self.command("doctor", "--offline", REDIS_URL=f"redis://:{typed}@127.0.0.1:{port}/0", exits=1)
        self.command("doctor", "--offline", BROKER_URL=f"amqp://u:{typed}@127.0.0.1:{port}/x", exits=1)
        self.command("call", "tasks.refresh.scan_due", BROKER_URL=f"amqp://u:{typed}@127.0.0.1:1/x", exits=1)
        self.command("db", "check", DATABASE_URL=f"postgresql://u:{typed}@127.0.0.1:1/x", exits=1)
        wrong = {"REDIS_URL": f"redis://:{typed}/x@127.0.0.1:{port}/0", "LEASE_SECONDS": typed}
        self.command("worker", **wrong, exits=2)
        self.command("worker", BROKER_URL=f"amqp://u:{typed}/x@127.0.0.1:{port}/x", exits=2)
        self.command("keys", "status", KEYRING=f'{{"active": 1, "keys": {{"1": "{typed}"}}}}', exits=2)
        self.command("grants", "show", f"act.{typed}", exits=1)
        landed = f"https://localhost/callback/?code={typed}&state={typed}"
        self.command("authorize", "exchange", "-", text=landed, exits=2)
        self.command("grants", "import", "-", text=f"act.{typed},rft.{typed},someone\n", exits=2)
        self.command("grants", "import", "-", "--json", text=bad_lines(typed), exits=1)

    def import_creators(self, names: list[str]) -> None:
        """Let creators consent, and import their tokens as an operator does."""
        given = self.sandbox.grants(creators=names)
        self.command("grants", "import", "-", text="\n".join(map(json.dumps, given)), exits=0)

    def state(self) -> str:
        """Return the state of a new consent link."""
        link = json.loads(self.command("authorize", "url", "--json", exits=0))["url"]
        return str(parse_qs(urlsplit(link).query)["state"][0])

    def landing(self, creator: str) -> str:
        """Return where a creator's browser lands, with a code and the state of a link of its own in the address."""
        return self.sandbox.consent_url(creator, state=self.state())

    def strike_all(self) -> None:
        """Switch every fault on that concerns one creator, and wait until each has struck."""
        strikes = canary_faults.ordinary(self.secrets.spoken, DEADLINE_SECONDS)
        creators = canary_faults.switch_on(self.sandbox, strikes, "struck-")
        self.import_creators(
            [f"healthy-{number}" for number in range(HEALTHY)]
            + [name for call in ("refresh", "account", "revoke") for name in creators[call]]
        )
        self.command("grants", "import", "-", text=foreign_lines(self.secrets.imported, LIFE_SECONDS), exits=0)
        for creator in creators["token"]:
            self.command("authorize", "exchange", "-", "--json", text=self.landing(creator))
        state = self.state()
        spent = self.sandbox.consent_url("spender", state=state)
        self.command("authorize", "exchange", "-", text=spent, exits=0)
        self.command("authorize", "exchange", "-", text=spent, exits=2)  # the link was used
        self.command("authorize", "exchange", "-", text=spent.replace(state, self.state()), exits=1)  # the code was
        for creator in creators["revoke"]:
            # The first fails at TikTok, unless a worker has ended the grant meanwhile, and met the fault in its place.
            self.command("grants", "revoke", creator, "--yes")
            self.command("grants", "revoke", creator, "--yes", exits=0)
        self._wait_for_strikes()

    def strike_the_app(self) -> None:
        """Then the faults that concern the whole app: a spent quota first, then those that stop everyone."""
        for name, strikes in canary_faults.of_the_app(self.secrets.spoken).items():
            creators = canary_faults.switch_on(self.sandbox, strikes, f"{name}-")
            self.import_creators(creators["refresh"])
            self._wait_for_strikes()

    def refuse_the_app(self) -> None:
        """Have TikTok refuse the app's secret whoever's token it is, until the app stops refreshing."""
        message = f"client_secret {self.secrets.spoken} is wrong"
        self.sandbox.fault("code", call="refresh", code=40113, message=message)
        self.wait_until(lambda: self.logged(b'"event": "app.stopped"'), STRIKE_SECONDS)
        self.sandbox.heal()

    def _wait_for_strikes(self) -> None:
        self.wait_until(lambda: not canary_faults.still_on(self.sandbox), STRIKE_SECONDS)

    def crash(self) -> None:
        """Have workers die and crash at the worst moments, and another one find what they left."""
        self.daemon.stop(self.refresher)
        doomed = self.worker("doomed", queues="refresh", TEST_RUN="1", TEST_FAILPOINTS="post_fsync:kill@3")
        self.wait_until(lambda: doomed.status is not None, STRIKE_SECONDS)
        assert doomed.status == -signal.SIGKILL
        self.in_the_journal = tuple(self.opened_journal())
        clumsy = self.worker(
            "clumsy",
            queues="refresh",
            TEST_RUN="1",
            TEST_FAILPOINTS="pre_send:raise@2,post_recv:raise@3,pre_journal:raise@4,pre_commit:raise@5,post_commit:raise@6",
        )
        self.wait_until(lambda: clumsy.log.read_bytes().count(b'"task.crashed"') >= 4, STRIKE_SECONDS)
        os.kill(clumsy.pid, signal.SIGUSR1)
        self.wait_until(lambda: b"most recent call first" in clumsy.log.read_bytes())
        self.daemon.stop(clumsy)
        self.refresher = self.worker("refresh2", queues="refresh", METRICS_PORT=self.metrics_port)
        self.daemon.wait_ready(self.wait_until, self.refresher)

    def lose_the_broker(self) -> None:
        """Have RabbitMQ go away and come back, refuse the password, and be asked with a wrong one."""
        if self.rabbit is None:
            return
        self.rabbit.kill()
        self.wait_until(lambda: self.logged(b"message.unpublished"), STRIKE_SECONDS)
        self.command("doctor", "--offline", exits=1)
        self.command("call", "tasks.refresh.scan_due", exits=1)
        self.rabbit.start()
        self.rabbit.control("trace_on")  # it is off after a start
        self.wait_until(lambda: self.logged(b"message.published"), STRIKE_SECONDS)
        wrong = self.rabbit.url.replace(self.secrets.rabbitmq, self.secrets.typed)
        for command in (("doctor", "--offline"), ("call", "tasks.refresh.scan_due"), ("inspect", "ping")):
            self.command(*command, BROKER_URL=wrong)

    def break_the_database(self) -> None:
        """Have the database refuse one creator's pairs, and then everybody's for a while."""
        store = open_store(self.store_url, app_id=self.sandbox.options.app_id)
        try:
            grant = store.grant("healthy-0")
            refuse_pairs(store, grant.grant_id)
            self.wait_until(lambda: self.logged(b"refresh.left_over"), STRIKE_SECONDS)
            take_pairs(store)
            with writes_held(self.store_url.replace("postgresql+psycopg", "postgresql")):
                self.wait_until(lambda: self.logged(b"the database is busy"), STRIKE_SECONDS)
        finally:
            store.close()

    def look_around(self) -> None:
        """Run every command that prints something, those of Celery included."""
        for command in (
            ("grants", "list", "--json"), ("grants", "show", "healthy-1"), ("doctor",), ("inspect", "conf"),
            ("grants", "explain", "struck-0-refresh-lost"), ("grants", "explain", "foreign-0", "--json"), ("report",),
            ("inspect", "stats"),
        ):  # fmt: skip
            assert self.command(*command), f"{command} handed_out nothing"
        # The one command that prints a token; if the app was stopped a moment ago, there may be none yet.
        handed_out = ("grants", "token", "healthy-1")
        self.wait_until(lambda: self.secrets.issued in self.daemon.run(*handed_out).stdout, STRIKE_SECONDS)
