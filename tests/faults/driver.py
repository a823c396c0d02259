"""A lean worker process: the daemon's own services, without Celery, doing what a job says until a signal ends it.

A job is a list of steps, each a mapping with `do`: `enter` (as a worker starts), `refresh` (`ids`, `force`, `threads`,
`times`), `group` (`ids`), `replay`, `settle`, `pull` (`ids`), `revoke` and `forget` (`creator`), `keep_house`, `hold`,
`limit`, `shift_clock`, `drain` (`since`), or `serve`: find what is due and refresh it, over and over, until SIGTERM or
for `seconds`.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from tests.faults.aging import end_leases, end_tokens_of_suspects, make_due
from tests.faults.tape import Tape, TapedServices
from worker.errors import EvertokenError
from worker.refresh.group import Pace
from worker.settings import load_settings
from worker.telemetry import configure_logging

SCAN_PAUSE_SECONDS: Final = 0.02
UPKEEP_EVERY: Final = 5
PATIENT_ROUNDS: Final = 3
PATIENCE: Final = 20
DENIED_PAUSE_SECONDS: Final = 0.1
QUICK_SECONDS: Final = 0.001


class Driver:
    """Runs one job."""

    def __init__(self, services: TapedServices, tape: Tape) -> None:
        self._services = services
        self._tape = tape

    def run(self, steps: list[dict[str, Any]]) -> None:
        """Run the steps one after the other."""
        for step in steps:
            getattr(self, f"_{step.pop('do')}")(**step)

    def _refresh(self, ids: list[int], *, force: bool = False, threads: int = 1, times: int = 1) -> None:
        if not threads:  # in this thread, if another could not be started
            for grant_id in ids * times:
                self._one(grant_id, force=force)
            return
        with ThreadPoolExecutor(threads) as pool:
            for grant_id in ids * times:
                pool.submit(self._one, grant_id, force=force)

    def _group(self, ids: list[int]) -> None:
        """Refresh grants as one message hands them out, in groups that are large from the first."""
        self._services.refresher.pace = Pace(QUICK_SECONDS)

        def refresh() -> tuple[str, str]:
            batch = self._services.refresher.refresh_all(ids)
            return f"refreshed {len(batch.refreshed)} of {len(ids)}", ""

        self._try(refresh, 0)

    def _one(self, grant_id: int, *, force: bool = False) -> str:
        def refresh() -> tuple[str, str]:
            refreshed = self._services.refresher.refresh(grant_id, force=force)
            return refreshed.kind, refreshed.reason

        return self._try(refresh, grant_id)

    def _enter(self) -> None:
        def enter() -> tuple[str, str]:
            self._services.preflight.enter()
            return "entered", ""

        self._try(enter, 0)

    def _replay(self) -> None:
        self._try(lambda: ("replayed", str(self._services.upkeep.replay())), 0)

    def _revoke(self, creator: str) -> None:
        self._try(lambda: ("revoked", str(self._services.revocation.revoke(creator))), 0)

    def _forget(self, creator: str) -> None:
        self._try(lambda: ("forgotten", str(self._services.forgetting.forget(creator))), 0)

    def _settle(self) -> None:
        self._try(lambda: ("settled", str(self._services.commits.settle())), 0)

    def _pull(self, ids: list[int]) -> None:
        for grant_id in ids:
            self._try(partial(self._pull_one, grant_id), grant_id)

    def _pull_one(self, grant_id: int) -> tuple[str, str]:
        return self._services.puller.pull(grant_id).kind, "pull"

    def _drain(self, *, since: float, rounds: int = 6) -> None:
        """Let time pass for rows until every grant was refreshed since then, or its creator was asked."""
        store, healed_at = self._services.store, datetime.fromtimestamp(since, UTC)
        for number in range(rounds):
            end_leases(store)
            self._try(self._keep_house, 0, quiet=True)
            if number >= PATIENT_ROUNDS:
                end_tokens_of_suspects(store)
            due = make_due(store, healed_at)
            if not due:
                return
            for grant_id in due:
                for _ in range(PATIENCE):
                    if self._one(grant_id) != "denied":
                        break
                    time.sleep(DENIED_PAUSE_SECONDS)

    def _hold(self, seconds: float = 60.0) -> None:
        """Stay alive and idle, as a worker without work."""
        self._services.stop.wait(seconds)

    def _limit(self, *, what: str, number: int) -> None:
        """Limit a resource of this process, as `setrlimit` names it."""
        kind = getattr(resource, what)
        resource.setrlimit(kind, (number, resource.getrlimit(kind)[1]))

    def _shift_clock(self, *, seconds: float) -> None:
        """Set this process's wall clock wrong."""
        real, ahead = time.time, timedelta(seconds=seconds)
        time.time = lambda: real() + seconds

        class Wrong(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Self:
                return super().now(tz) + ahead

        for name, module in list(sys.modules.items()):
            if name.startswith("worker.") and getattr(module, "datetime", None) is datetime:
                module.datetime = Wrong  # type: ignore[attr-defined]  # it has one, as just seen

    def _serve(self, *, threads: int = 2, seconds: float = 60.0) -> None:
        ends_at, services = time.monotonic() + seconds, self._services
        rounds = 0
        with ThreadPoolExecutor(threads) as pool:
            while not services.stop.is_set() and time.monotonic() < ends_at:
                if rounds % UPKEEP_EVERY == 0:
                    self._try(self._keep_house, 0, quiet=True)
                rounds += 1
                due: list[int] = []
                self._try(partial(self._scan, due), 0, quiet=True)
                list(pool.map(self._one, due))
                services.stop.wait(SCAN_PAUSE_SECONDS)

    def _scan(self, found: list[int]) -> tuple[str, str]:
        found.extend(grant.grant_id for grant in self._services.store.due(100))
        return "scanned", ""

    def _keep_house(self) -> tuple[str, str]:
        self._services.upkeep.replay()
        self._services.upkeep.end_stale_attempts()
        self._services.commits.retry_stuck()
        self._services.commits.settle()
        self._services.revocation.resume()
        self._services.forgetting.resume()
        self._services.forgetting.sweep()
        return "kept", ""

    def _try(self, work: Callable[[], tuple[str, str]], grant_id: int, *, quiet: bool = False) -> str:
        try:
            kind, reason = work()
        except EvertokenError as error:
            kind, reason, quiet = type(error).__name__, str(error), False
        except Exception as error:  # noqa: BLE001 - a thread of a worker dies of it; the process goes on
            kind, reason, quiet = "crashed", type(error).__name__, False
        if not quiet:
            self._tape.write("done", grant_id=grant_id, kind=kind, reason=reason)
        return kind


def work(job: dict[str, Any]) -> None:
    """Be a worker process for a job, in an environment that is already this process's own."""
    configure_logging(log_format="json", level="DEBUG")
    faulthandler.register(signal.SIGUSR2)
    tape = Tape(Path(job["tape"]))
    tape.write("born")
    services = TapedServices(load_settings(os.environ, dotenv=None), tape)
    # Set by a thread: the handler interrupts the main thread, which may hold the event's own lock.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=services.stop.set).start())
    try:
        Driver(services, tape).run(job["steps"])
    finally:
        services.close()


if __name__ == "__main__":
    work(json.loads(sys.stdin.readline()))
