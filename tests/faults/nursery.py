"""The nursery: a process that has imported the daemon once and forks workers from itself, in milliseconds each.

It reads one JSON order a line, `{"environ": ..., "job": ..., "log": path}`, and answers each with `{"born": pid}`. It
reports when a worker stopped (SIGSTOP), went on or ended, and when its own input ends it kills what is left.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any, Final

from tests.faults.driver import work
from tests.support.forks import Forks
from worker.egress import Egress

CRASHED: Final = 70


def main() -> None:
    """Serve orders until the input ends."""
    _ = Egress().context  # what every worker would make for itself
    forks, pending = Forks(), b""
    while True:
        ready, news = forks.wait(0)
        if news:
            for pid, status in forks.news(stops=True):
                _tell_of_child(pid, status)
        if ready:
            read = os.read(0, 1 << 20)
            if not read:
                break
            *orders, pending = (pending + read).split(b"\n")
            for order in orders:
                _fork(json.loads(order), forks)
    forks.kill()


def _tell(**said: Any) -> None:
    os.write(1, json.dumps(said).encode() + b"\n")


def _tell_of_child(pid: int, status: int) -> None:
    if os.WIFSTOPPED(status):
        _tell(stopped=pid)
    elif os.WIFCONTINUED(status):
        _tell(continued=pid)
    else:
        _tell(ended=pid, status=os.waitstatus_to_exitcode(status))


def _fork(order: dict[str, Any], forks: Forks) -> None:
    pid = forks.fork()
    if pid:
        _tell(born=pid)
        return
    code = CRASHED
    try:
        _become(order)
        work(order["job"])
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 1
    except BaseException:  # noqa: BLE001 - the child must never return into the nursery's loop
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _become(order: dict[str, Any]) -> None:
    """Take on the environment and the log of the worker."""
    for name in [name for name in os.environ if name.startswith("EVERTOKEN_")]:
        del os.environ[name]
    os.environ.update(order["environ"])
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)


if __name__ == "__main__":
    main()
