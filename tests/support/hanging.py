"""Workers and beats that hang on purpose, and what their pages say."""

from __future__ import annotations

from typing import Final
from urllib.error import HTTPError
from urllib.request import urlopen

from tests.support.daemon import Daemon
from worker.sandbox.children import Child

START: Final = """
import sys
sys.argv = ["celery", "-A", "worker", *{arguments!r}]
import os, threading, kombu
from pathlib import Path
from worker import celeryconfig
celeryconfig.broker_transport_options |= {options!r}
connect = kombu.Connection.ensure_connection
def ensure_connection(self, *args, **given):  # without Celery's pauses, which grow to half a minute
    return connect(self, *args, **({{"interval_start": 0.1, "interval_step": 0, "interval_max": 0.1}} | given))
kombu.Connection.ensure_connection = ensure_connection
{change}
from celery.__main__ import main
main()
"""
QUICK: Final[dict[str, float | None]] = {"socket_timeout": 1, "socket_connect_timeout": 1, "health_check_interval": 1}
FOR_EVER: Final[dict[str, float | None]] = {
    "socket_timeout": None,
    "socket_connect_timeout": None,
    "health_check_interval": 0,
}
WORKER: Final = "worker -c 2 -Q refresh,pull,default -n worker@test --without-mingle --without-gossip"
BEAT: Final = "beat --max-interval 1"

FORGETS: Final = """
from worker.channels import CheckedChannel
ask = CheckedChannel._brpop_start
def forget(self, *args, **options):
    if not Path("hang").exists():
        ask(self, *args, **options)
CheckedChannel._brpop_start = forget
"""
"""The loop runs, and Redis is never asked for messages again: what Celery's users see most often."""
STANDS: Final = """
from worker.channels import CheckedChannel
read = CheckedChannel._brpop_read
def stand(self, **options):
    if Path("hang").exists():
        threading.Event().wait()
    return read(self, **options)
CheckedChannel._brpop_read = stand
"""
"""The loop itself waits for what never comes."""
BEAT_STANDS: Final = """
from worker.beat import TickingScheduler
publish = TickingScheduler.apply_entry
def stand(self, *args, **options):
    if Path("hang").exists():
        threading.Event().wait()
    return publish(self, *args, **options)
TickingScheduler.apply_entry = stand
"""
BEAT_FAILS: Final = """
from celery.beat import Scheduler, SchedulingError
publish = Scheduler.apply_async
def fail(self, *args, **options):
    if Path("hang").exists():
        raise SchedulingError("its producer is spoilt")
    return publish(self, *args, **options)
Scheduler.apply_async = fail
"""


def start(daemon: Daemon, name: str, arguments: str, options: dict[str, float | None], change: str = "") -> Child:
    """Start a worker or beat with other timeouts of its connections, or with a fault that a file begins."""
    return daemon.script(name, START.format(arguments=arguments.split(), options=options, change=change))


def ask(port: int, path: str) -> tuple[int, str]:
    """Return status and text of a page of the worker; status 0 if it does not answer."""
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, ""
    except OSError:
        return 0, ""


def silent(port: int) -> float:
    """Return for how long the worker has heard nothing from Redis."""
    lines = ask(port, "/metrics")[1].splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith("evertoken_worker_silent_seconds ")), 0.0)
