"""A crowd of worker processes that take permits as fast as they are let; each prints when it was given one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from tests.conftest import APP_ID
from worker.limiter import Limiter
from worker.limiter.limiter import Lane


@dataclass(frozen=True)
class Crowd:
    """The job of each process of a crowd."""

    url: str
    per_second: float
    per_minute: float
    second: float = 1.0
    minute: float = 60.0
    lane: Lane = "refresh"


def gather(
    crowd: Crowd, *, seconds: float, workers: int = 8, meanwhile: Callable[[], None] = lambda: None
) -> list[float]:
    """Run a crowd, and something else meanwhile.

    Args:
        crowd: the job of its processes.
        seconds: for how long they take permits, all from the same moment.
        workers: how many there are.
        meanwhile: called when they have begun.

    Returns:
        When permits were given, in order, in seconds since they began.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.crowd", json.dumps(asdict(crowd))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(workers)
    ]
    try:
        assert [process.stdout.readline() for process in processes if process.stdout] == ["ready\n"] * workers
        began = time.time()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(f"{began + seconds}\n")
            process.stdin.flush()
        meanwhile()
        times = [float(line) - began for process in processes for line in process.communicate(timeout=60)[0].split()]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert all(process.returncode == 0 for process in processes)
    return sorted(times)


def most_within(times: Sequence[float], window: float) -> int:
    """Return the largest number within any span of this many seconds."""
    within: deque[float] = deque()
    most = 0
    for at in times:
        within.append(at)
        while within[0] <= at - window:
            within.popleft()
        most = max(most, len(within))
    return most


def _take_all(crowd: Crowd) -> None:
    limiter = Limiter(
        crowd.url,
        app_id=APP_ID,
        per_second=crowd.per_second,
        per_minute=crowd.per_minute,
        per_account_minute=40,
        second=crowd.second,
        minute=crowd.minute,
    )
    print("ready", flush=True)  # noqa: T201 - its parent waits for it
    until, account = float(sys.stdin.readline()), 0
    while time.time() < until:
        account += 1
        wait = limiter.take(lane=crowd.lane, call="call", account=str(account))
        if wait == 0:
            # Redis's own time of the permit, if Redis gave it; the reply may have been held up on its way.
            permit = limiter._last.__dict__.pop("permit", None)
            stamp = permit.name.partition(":")[0] if permit else ""
            print(int(stamp) / 1e6 if stamp else time.time(), flush=True)  # noqa: T201 - this is its output
        else:
            time.sleep(min(wait, max(0.0, until - time.time())))
    limiter.close()


if __name__ == "__main__":
    _take_all(Crowd(**json.loads(sys.argv[1])))
