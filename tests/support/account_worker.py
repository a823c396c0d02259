"""A worker that pulls account data, in a process of its own: its database's clock is moved, and it can be killed.

It reads one JSON object a line: first its environment and the bug that is planted in it, then orders. The order
`{"kill": null}` pulls all that is due; with a number it dies at that request, and with `"answered": true` when the
answer has come and is not stored yet.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from worker.policy import readings
from worker.services import Services, build_services
from worker.settings import load_settings
from worker.store import account_saving, clock
from worker.store.account_models import DAY_FIGURES, FIGURES
from worker.tiktok import ReadAnswer, TikTok
from worker.vault import Token

MOST_AT_ONCE: Final = 100
TABLE: Final = "virtual_clock"
"""A table of one row: what the database's clock shows, in milliseconds since 1970; it stands until it is moved."""


@dataclass
class AccountWorker:
    """The process as a test holds it: started when it is wanted, and again after it died.

    Attributes:
        environ: the settings of the worker.
        seed: of its random waits.
        log: the file for what it logs.
        bug: a name of `BUGS` that is planted into it.
        deaths: how often it was killed.
    """

    environ: dict[str, str]
    seed: int
    log: Path
    bug: str | None = None
    deaths: int = 0
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def pull(self, *, kill: int | None = None, answered: bool = False) -> int | None:
        """Pull all that is due, and return how many pulls that were; None if it died.

        Args:
            kill: at which request it dies; None for not at all.
            answered: whether it dies after the answer instead of before the request.
        """
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"kill": kill, "answered": answered}) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if line:
            return int(line)
        assert process.wait() == -signal.SIGKILL
        self.deaths += 1
        self.close()
        return None

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        root = Path(__file__).parents[2]
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=root,
            )
        assert self._process.stdin is not None
        self._process.stdin.write(
            json.dumps({"environ": self.environ, "bug": self.bug, "seed": f"{self.seed} {self.deaths}"}) + "\n"
        )
        return self._process


def set_clock() -> None:
    """Let every statement of this process take the test's clock for the database's."""
    for dialect in clock.NOW:
        clock.NOW[dialect] = f"(SELECT ms FROM {TABLE})"  # noqa: S608 - our own words


def _null_erases() -> None:
    """Let a figure that TikTok no longer sends erase what is known of a video."""
    merge = account_saving._merge

    def erasing(connection: Any, table: Any, rows: Any, **how: Any) -> None:
        if table.name == "videos":
            rows, how = [{**dict.fromkeys(FIGURES), **row} for row in rows], {**how, "exact": True}
        merge(connection, table, rows, **how)

    account_saving._merge = erasing


def _missing_is_zero() -> None:
    """Store a figure of a day that TikTok did not send as 0."""
    merge = account_saving._merge

    def filling(connection: Any, table: Any, rows: Any, **how: Any) -> None:
        if table.name == "account_days":
            rows = [{**dict.fromkeys(DAY_FIGURES, 0), **row} for row in rows]
        merge(connection, table, rows, **how)

    account_saving._merge = filling


def _corrections_lost() -> None:
    """Correct figures without keeping what they were."""
    merge = account_saving._merge

    def forgetting(connection: Any, table: Any, rows: Any, **how: Any) -> None:
        merge(connection, table, [] if table.name == "account_corrections" else rows, **how)

    account_saving._merge = forgetting


def _read_once() -> None:
    """Ask for the newest days alone, whatever is missing or not settled."""
    readings.first_day = lambda *, today, **_: today - timedelta(days=2)


def _short_page_ends() -> None:
    """Take a page that is not full for the last one."""
    read = TikTok.read

    def trusting(self: TikTok, access_token: Token, call: str, creator_id: str, parameters: Any) -> ReadAnswer:
        found = read(self, access_token, call, creator_id, parameters)
        if len(found.data.get("videos", range(20))) < parameters.get("max_count", 0):
            found.data["has_more"] = False
        return found

    TikTok.read = trusting  # type: ignore[method-assign]  # the bug that is planted


BUGS: Final[dict[str, Callable[[], None]]] = {
    "null erases": _null_erases,
    "missing is zero": _missing_is_zero,
    "corrections lost": _corrections_lost,
    "read once": _read_once,
    "short page ends": _short_page_ends,
}
"""Bugs that can be planted into the worker, so that the oracle is seen to find them."""


def _die_at(services: Services, request: int, *, answered: bool) -> None:
    read, count = services.tiktok.read, 0

    def counted(*given: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count == request and not answered:
            os.kill(os.getpid(), signal.SIGKILL)
        found = read(*given, **named)
        if count == request:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    services.tiktok.read = counted  # type: ignore[method-assign]  # put in front of the real one


def _main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what is logged is no answer
    set_clock()
    began = json.loads(sys.stdin.readline())
    random.seed(began["seed"])
    if began["bug"] is not None:
        BUGS[began["bug"]]()
    services = build_services(load_settings(began["environ"], dotenv=None))
    read = services.tiktok.read
    for line in sys.stdin:
        order = json.loads(line)
        services.tiktok.read = read  # type: ignore[method-assign]  # the real one again
        if order["kill"] is not None:
            _die_at(services, order["kill"], answered=order["answered"])
        pulls = 0
        while due := services.store.due_pulls(MOST_AT_ONCE):
            before = pulls
            for grant_id in due:
                pulls += services.puller.pull(grant_id).kind != "skipped"
            if pulls == before:
                break
        answers.write(f"{pulls}\n")
        answers.flush()
    services.close()


if __name__ == "__main__":
    _main()
