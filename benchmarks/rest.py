"""What a worker and beat take while nothing is due: processor time and memory, with a fleet of a given size."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from benchmarks import machine
from benchmarks.contenders import Evertoken
from benchmarks.growth import load
from benchmarks.standin import APP_ID
from worker.store import open_store


@dataclass(frozen=True)
class Rest:
    """One process at rest.

    Attributes:
        process: `worker` or `beat`.
        core: share of a core that it used.
        mebibytes: resident memory at the end.
    """

    process: str
    core: float
    mebibytes: float


def measure(contender: Evertoken, grants: int, seconds: float) -> list[Rest]:
    """Load a fleet of which nothing is due, and watch a worker and beat with their own scans for some time."""
    contender.prepare(0)
    store = open_store(contender.url, statement_seconds=600)
    load(store, grants, app=APP_ID)
    store.close()
    scan = {"EVERTOKEN_SCAN_SECONDS": "10", "EVERTOKEN_QUOTA_PER_SECOND": "50", "EVERTOKEN_QUOTA_PER_MINUTE": "3000"}
    environ = contender.environ() | scan
    contender.stage.flush()
    celery = [sys.executable, "-m", "celery", "-A", "worker"]
    with (
        contender.stage.running("rest", [[*celery, "worker", "-n", "rest@bench"]], environ) as (worker,),
        contender.stage.running("rest-beat", [[*celery, "beat"]], environ, ready=b"beat") as (beat,),
    ):
        time.sleep(seconds / 4)  # starting up is over, and the first scans have been made
        processes = {"worker": worker.pid, "beat": beat.pid}
        before = {name: machine.processor_seconds(pid) for name, pid in processes.items()}
        time.sleep(seconds)
        return [
            Rest(name, (machine.processor_seconds(pid) - before[name]) / seconds, machine.resident_mebibytes(pid))
            for name, pid in processes.items()
        ]
