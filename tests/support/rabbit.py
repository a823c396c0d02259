"""A real RabbitMQ on loopback, that a test may stop, freeze and start again with what it holds.

It is the installed one, or Debian's packages unpacked under `build/`, which takes apt and the network, but not root.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import amqp
import pytest

from tests.conftest import ServerProcess, find_free_port, start_server
from tests.support.debian import unpacked

USER: Final = "evertoken"
PASSWORD: Final = "rabbit-CANARY"
START_SECONDS: Final = 240.0
"""It starts in some seconds, and on a machine that is busy with other tests in a minute."""
PACKAGE: Final = "rabbitmq-server"
ERLANG: Final = re.compile(r"^erlang-[\w-]+$", re.MULTILINE)
RECURSIVE: Final = (
    "--recurse",
    "--no-recommends",
    "--no-suggests",
    "--no-conflicts",
    "--no-breaks",
    "--no-replaces",
    "--no-enhances",
)
"""Options by which the names of all packages that it needs are printed, each on a line of its own."""


class Rabbit:
    """A server and the port mapper that Erlang needs, both children of the tests; leaving it ends them.

    Attributes:
        port: where it listens, for the same client before and after a restart.
        password: that of its user.
    """

    password = PASSWORD

    def __init__(self, wait_until: Callable[..., None], *settings: str) -> None:
        """Start it; settings are lines of its configuration."""
        self._home, self._root = _installed()
        self._wait_until = wait_until
        self._folder = Path(tempfile.mkdtemp(prefix="evertoken-rabbitmq-"))
        self.port, mapper = find_free_port(), find_free_port()
        self._data = self._folder / "data"
        self._data.mkdir()
        (self._folder / "environment").touch()
        (self._folder / "plugins").write_text("[].\n")
        lines = [f"listeners.tcp.1 = 127.0.0.1:{self.port}", *settings, "log.console = true", "log.file = false"]
        lines += [f"default_user = {USER}", f"default_pass = {PASSWORD}"]
        (self._folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        self._environ = {
            "HOME": str(self._folder),
            "LC_ALL": "C.UTF-8",
            "PATH": f"{self._root / 'erlang/bin'}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "ERL_ROOTDIR": str(self._root / "erlang"),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(mapper),
            "RABBITMQ_NODENAME": f"evertoken-{secrets.token_hex(4)}@localhost",
            "RABBITMQ_DIST_PORT": str(find_free_port()),
            "RABBITMQ_MNESIA_BASE": str(self._data),
            "RABBITMQ_LOG_BASE": str(self._folder / "logs"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self._folder / "environment"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none",
            "RUNNING_UNDER_SYSTEMD": "1",  # the process that was started is the server, not a shell before it
        }
        epmd = Path(tempfile.mkdtemp(prefix="evertoken-epmd-"))
        self._mapper = start_server(
            [str(self._root / "erlang/bin/epmd"), "-port", str(mapper), "-address", "127.0.0.1"],
            epmd, url="", port=mapper, stop="KILL", user=None, environ=self._environ,
        )  # fmt: skip
        self._server: ServerProcess | None = None
        self._starts = 0
        self.start()

    @property
    def url(self) -> str:
        """The address, as the setting has it."""
        return f"amqp://{USER}:{self.password}@127.0.0.1:{self.port}/%2F"

    def start(self) -> None:
        """Start it with what it held before, and wait until it lets clients in."""
        self._mapper.wait_ready(self._mapped, OSError)
        self._starts += 1
        folder = self._folder / f"run{self._starts}"
        folder.mkdir()
        program = str(self._home / "sbin/rabbitmq-server")
        self._server = start_server(
            [program], folder, url=self.url, port=self.port, stop="KILL", user=None, environ=self._environ
        )

        def answers() -> bool:
            assert self._server is not None
            if self._server.process.poll() is not None:
                pytest.fail(f"RabbitMQ ended at its start: {(folder / 'log').read_text()[-2000:]}")
            try:
                self.client().close()
            except (OSError, amqp.AMQPError):
                return False
            return True

        self._wait_until(answers, START_SECONDS)

    def kill(self) -> None:
        """Kill it."""
        if self._server is not None:
            with self._server:
                self._server.process.kill()
            self._server = None

    def pause(self) -> None:
        """Stop it as it is: its connections stay open and nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def control(self, *words: str) -> None:
        """Run a command of `rabbitmqctl`."""
        program = str(self._home / "sbin/rabbitmqctl")
        done = subprocess.run(
            [program, *words], env=self._environ, capture_output=True, text=True, timeout=START_SECONDS, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def change_password(self, password: str) -> None:
        """Give its user another password; connections that are open stay."""
        self.control("change_password", USER, password)
        self.password = password

    @property
    def folder(self) -> Path:
        """Its folder: data, and a log of each start."""
        return self._folder

    def client(self) -> Any:
        """Return a connection, opened."""
        connection = amqp.Connection(
            host=f"127.0.0.1:{self.port}", userid=USER, password=self.password, login_method="PLAIN", connect_timeout=5
        )
        connection.connect()
        return connection

    def waiting(self, queue: str) -> int:
        """Return how many messages wait in a queue."""
        with self.client() as connection:
            return int(connection.channel().queue_declare(queue, passive=True).message_count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        with self._mapper:
            pass
        shutil.rmtree(self._folder, ignore_errors=True)

    def _mapped(self) -> None:
        with socket.create_connection(("127.0.0.1", self._mapper.port), 1):
            pass

    def _signal(self, number: signal.Signals) -> None:
        assert self._server is not None
        self._server.process.send_signal(number)


def _installed() -> tuple[Path, Path]:
    """Return RabbitMQ's folder, and the one that holds Erlang's; the test is skipped if they cannot be had."""
    for root in (Path("/usr/lib"), None):
        libraries = root or unpacked(PACKAGE, ERLANG, *RECURSIVE) / "usr/lib"
        found = sorted(libraries.glob("rabbitmq/lib/rabbitmq_server-*"))
        if found and (libraries / "erlang/bin/erl").exists():
            return found[-1], libraries
    pytest.skip(f"Debian's package {PACKAGE} holds no server where it is looked for")
