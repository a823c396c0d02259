"""The all-in-one local stack: a Redis-protocol server, the sandbox, workers, beat and Flower as child processes.

It shares no code with what it runs: it starts programs with an environment, waits until they are ready, and ends
them. It is for one machine and for rehearsals; in production somebody maintains Redis.
"""

from __future__ import annotations

import http.client
import importlib.util
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from worker.sandbox.broker import NoBrokerError, answers, forget, key_count, plan_broker, queue_length
from worker.sandbox.children import Child, Children
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox, SandboxError, start_sandbox

WORKERS: Final = {"refresh": ("refresh", 8), "pull": ("pull,default", 8)}
"""Queues and threads of each worker: two workers, as in production, so that pulls delay no refresh."""
QUEUES: Final = ("refresh", "pull", "default")
YIELDING: Final = {"worker-pull": 10, "flower": 15}
"""How much parts yield to the others when the processor is busy, as values of `nice`: refreshes come first."""
READY_SECONDS: Final = 90.0
LOOK_SECONDS: Final = 0.05
CLOSE_SECONDS: Final = 20.0
FOREIGN: Final = ("EVERTOKEN_", "CELERY_", "FLOWER_")
"""Settings of the person who starts the stack: a rehearsal never touches what they point to."""
HTTP_OK: Final = 200


class StackError(RuntimeError):
    """A part of the stack did not start; the text is one sentence for a person.

    Attributes:
        child: the process that failed; the end of its log says more.
    """

    def __init__(self, sentence: str, child: Child | None = None) -> None:
        super().__init__(sentence)
        self.child = child


class Stack:
    """A local stack; use it as a context manager or call `close`.

    Attributes:
        folder: where the parts run and keep their files; logs are in `logs` below it.
        redis_url: address of the broker.
        broker: which server that is, in words.
        sandbox: the running stand-in for TikTok.
        flower_url: Flower's address; None if Flower is not installed.
    """

    def __init__(self, folder: Path, options: SandboxOptions, *, redis_url: str | None = None) -> None:
        """Start broker and sandbox.

        Args:
            folder: an empty folder.
            options: the sandbox's options; its ledger goes into the folder.
            redis_url: a server that runs already; its database must be empty.

        Raises:
            StackError: one of them did not start.
        """
        self.folder = folder
        self.flower_url: str | None = None
        self._daemon: dict[str, Child] = {}
        self._environ: dict[str, str] = {}
        self._sandbox: RunningSandbox | None = None
        self._to_forget: str | None = None
        self._private = Path(tempfile.mkdtemp(prefix="evertoken-"))
        self._children = Children(folder / "logs", private=self._private)
        try:
            self.broker, self.redis_url = self._start_broker(redis_url)
            self._sandbox = start_sandbox(replace(options, ledger=str(folder / "ledger.jsonl")))
        except (NoBrokerError, SandboxError, OSError) as error:
            self.close()
            raise StackError(str(error)) from None
        except BaseException:
            self.close()
            raise

    @property
    def sandbox(self) -> RunningSandbox:
        """The running stand-in for TikTok."""
        if self._sandbox is None:
            raise StackError("the sandbox does not run")
        return self._sandbox

    def start_daemon(self, environ: Mapping[str, str], *, flower_port: int | None = None) -> None:
        """Start workers, beat and Flower; `wait_ready` then waits for them.

        Args:
            environ: the daemon's settings, EVERTOKEN_RUN_DIR among them; the rest of the environment is that of this
                process, without its own settings.
            flower_port: where Flower listens; a free port by default.

        Raises:
            StackError: that port is taken.
        """
        if flower_port is not None and not _is_free(flower_port):
            raise StackError(f"port {flower_port} is taken; name another one for Flower")
        self._environ = _plain_environ() | dict(environ)
        for name, (queues, threads) in WORKERS.items():
            options = f"-P threads -c {threads} -Q {queues} -n {name}@stack --without-mingle --without-gossip"
            self._start_celery(f"worker-{name}", "worker", *options.split())
        self._start_celery("beat", "beat", "--max-interval", "1")
        if importlib.util.find_spec("flower") is not None:
            port = flower_port or _free_port()
            # The shipped configuration asks for a password; this one is for a look at invented creators.
            options = (
                f"--conf={os.devnull} --address=127.0.0.1 --port={port} --read_only=true --purge_offline_workers=60"
            )
            self._start_celery("flower", "flower", *options.split())
            self.flower_url = f"http://127.0.0.1:{port}"

    def wait_ready(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Wait until workers, beat and Flower do their work, or `stop` says to give up.

        Raises:
            StackError: one of them ended, or was not ready in time.
        """
        waiting = {name: self._test_of(name) for name in self._daemon}
        deadline = time.monotonic() + READY_SECONDS
        while waiting and not stop():
            for child in self.died():
                raise StackError(f"{child.name} ended at its start with status {child.status}", child)
            if time.monotonic() > deadline:
                name = next(iter(waiting))
                raise StackError(f"{name} was not ready within {READY_SECONDS:g} s", self._daemon[name])
            waiting = {name: ready for name, ready in waiting.items() if not ready()}
            time.sleep(LOOK_SECONDS)

    def died(self) -> list[Child]:
        """Return the parts that ended without being asked."""
        return self._children.died()

    def queued(self) -> int:
        """Return how many messages wait for a worker."""
        return queue_length(self.redis_url, QUEUES)

    def stop_beat(self) -> None:
        """Stop beat, so that nothing new begins."""
        self._stop("beat")

    def stop_workers(self, *, seconds: float) -> list[str]:
        """Stop the workers after they have finished their work.

        Returns:
            The names of those that had to be killed.
        """
        return self._stop(*(f"worker-{name}" for name in WORKERS), seconds=seconds)

    def close(self) -> None:
        """End everything that still runs; a second call does nothing."""
        self._stop(*reversed(self._daemon))
        if self._sandbox is not None:
            self._sandbox.stop()
        if self._to_forget is not None:
            forget(self._to_forget)
            self._to_forget = None
        self._children.close(seconds=CLOSE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start_broker(self, given: str | None) -> tuple[str, str]:
        plan = plan_broker(self._private, given)
        if plan.command:
            child = self._children.start("redis", plan.command, environ=_plain_environ(), folder=self._private)
            self._wait_for_broker(plan.url, child)
        elif not answers(plan.url):
            raise StackError("the Redis-protocol server at the given address does not answer")
        elif keys := key_count(plan.url):
            raise StackError(f"the given Redis database holds {keys} keys; name an empty one, such as another number")
        else:
            self._to_forget = plan.url
        return plan.kind, plan.url

    @staticmethod
    def _wait_for_broker(url: str, child: Child) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not answers(url):
            if child.status is not None or time.monotonic() > deadline:
                raise StackError("the Redis-protocol server did not start", child)
            time.sleep(LOOK_SECONDS)

    def _start_celery(self, name: str, *arguments: str) -> None:
        command = [sys.executable, "-P", "-m", "worker.cli.console", *arguments]
        if name in YIELDING and (nice := shutil.which("nice")) is not None:
            command = [nice, "-n", str(YIELDING[name]), *command]
        self._daemon[name] = self._children.start(name, command, environ=self._environ, folder=self.folder)

    def _test_of(self, name: str) -> Callable[[], bool]:
        """Return the test for whether a part is ready: a worker's log, beat's tick file, Flower's answer."""
        if name == "flower":
            return self._flower_answers
        if name == "beat":
            return (Path(self._environ["EVERTOKEN_RUN_DIR"]) / "beat").exists
        log = self._daemon[name].log
        return lambda: b" ready." in log.read_bytes()

    def _flower_answers(self) -> bool:
        connection = http.client.HTTPConnection(str(self.flower_url).removeprefix("http://"), timeout=1)
        try:
            connection.request("GET", "/healthcheck")
            return connection.getresponse().status == HTTP_OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _stop(self, *names: str, seconds: float = CLOSE_SECONDS) -> list[str]:
        children = [self._daemon.pop(name) for name in names if name in self._daemon]
        return [child.name for child in self._children.stop(*children, seconds=seconds)]


def _plain_environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
