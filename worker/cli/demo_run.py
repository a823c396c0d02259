"""One demo from the first process to the verdict: servers, daemon, consents, the run, drain, judgement."""

from __future__ import annotations

import io
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from worker.cli.board import Board
from worker.cli.demo_plan import ACCOUNTS, COMFORTABLE_RATE, DemoPlan
from worker.cli.demo_verdict import DemoVerdict, reach_verdict, stored_refresh_tokens
from worker.cli.demo_watch import Watch
from worker.consent.import_lines import Source
from worker.consent.importer import Importer, ImportReport
from worker.errors import NotReadyError
from worker.sandbox.children import Child
from worker.sandbox.stack import Stack, StackError
from worker.services import Services, build_services
from worker.settings import load_settings
from worker.signalled import SignalFlag
from worker.vault.redaction import redact

LOOK_SECONDS: Final = 1.0
CONSENTS_AT_ONCE: Final = 500
DRAIN_SECONDS: Final = 15.0
FINISH_SECONDS: Final = 30.0
LINE_LIMIT: Final = 200
OPTIONAL: Final = frozenset({"flower"})
"""Parts whose end is reported and does not end the demo."""


class DemoRun:
    """Runs one demo.

    Args:
        plan: its figures.
        folder: an empty folder for all its files.
        stop: set when a person wants to end the demo; the verdict is given all the same.
    """

    def __init__(self, plan: DemoPlan, folder: Path, stop: SignalFlag) -> None:
        self._plan = plan
        self._folder = folder
        self._stop = stop
        self._problems: list[str] = []
        self._reported: set[str] = set()
        self._seconds = 0.0
        self._until = 0.0

    def run(
        self, new_board: Callable[[Stack], Board], *, redis_url: str | None = None, flower_port: int | None = None
    ) -> DemoVerdict:
        """Run the demo and return its verdict.

        Args:
            new_board: makes the board that displays the run.
            redis_url: a server that runs already; by default one is found.
            flower_port: where Flower listens; a free port by default.

        Raises:
            NotReadyError: a part did not start.
        """
        before = _cpu_seconds()
        try:
            with Stack(self._folder, self._plan.sandbox(), redis_url=redis_url) as stack:
                environ = self._plan.environ(stack)
                services = build_services(load_settings(environ, dotenv=None))
                try:
                    pulls = self._run_daemon(stack, services, environ, new_board(stack), flower_port)
                    stored = stored_refresh_tokens(services.store, services.sealer)
                finally:
                    services.close()
                entries, broker = stack.sandbox.entries(), stack.broker
        except StackError as error:
            raise NotReadyError(_with_log(str(error), error.child)) from None
        return reach_verdict(
            entries,
            stored,
            seconds=self._seconds,
            until=self._until,
            pulls=pulls,
            cpu_seconds=_cpu_seconds() - before,
            interrupted=self._stop.is_set(),
            broker=broker,
            problems=self._problems,
        )

    def _run_daemon(
        self, stack: Stack, services: Services, environ: dict[str, str], board: Board, flower_port: int | None
    ) -> int:
        board.step(f"Redis: {stack.broker}. TikTok: the sandbox at {stack.sandbox.origin}. Starting the daemon ...")
        services.store.upgrade()
        stack.sandbox.set_account(**ACCOUNTS)
        stack.start_daemon(environ, flower_port=flower_port)
        stack.wait_ready(self._stop.is_set)
        if self._plan.rate > COMFORTABLE_RATE:
            board.step(f"This needs {self._plan.rate:.0f} refreshes a second, which two cores may not carry.")
        watch = Watch(services.store, stack.sandbox, self._folder / "logs")
        with board:
            self._watch(stack, services, watch, board)
        board.step("Finishing what is under way ...")
        self._drain(stack)
        watch.look()
        return watch.samples[-1].pulled if watch.samples else 0

    def _watch(self, stack: Stack, services: Services, watch: Watch, board: Board) -> None:
        """Let the creators consent, and watch the run until its time is over."""
        if not self._stop.is_set():
            self._consent(stack, services)
        while not self._stop.is_set() and watch.elapsed < self._plan.seconds:
            watch.look()
            board.show(watch)
            if self._anything_died(stack, board):
                break
            self._stop.wait(min(LOOK_SECONDS, max(0.01, self._plan.seconds - watch.elapsed)))
        self._seconds, self._until = watch.elapsed, time.time()

    def _consent(self, stack: Stack, services: Services) -> None:
        """Let the creators consent at the sandbox, and import their tokens as an operator would."""
        importer = Importer(store=services.store, sealer=services.sealer, renew_at=services.settings.renew_at)
        report = ImportReport()
        for first in range(1, self._plan.creators + 1, CONSENTS_AT_ONCE):
            count = min(CONSENTS_AT_ONCE, self._plan.creators + 1 - first)
            given = stack.sandbox.grants(count, first=first)
            lines = "\n".join(json.dumps(token) for token in given)
            importer.run(Source(io.BytesIO(lines.encode())), report=report)
        self._problems += [
            f"{count} lines of the import: {reason}" for (what, reason), count in report.counts.items() if what == "bad"
        ]

    def _anything_died(self, stack: Stack, board: Board) -> bool:
        """Report parts that ended by themselves; return True if the run cannot go on."""
        fatal = False
        for child in stack.died():
            if child.name not in self._reported:
                self._reported.add(child.name)
                self._problems.append(f"{child.name} ended by itself with status {child.status}.")
                board.step(_with_log(self._problems[-1], child))
            fatal = fatal or child.name not in OPTIONAL
        return fatal

    def _drain(self, stack: Stack) -> None:
        """Stop beat, let the workers finish what is queued, and stop them."""
        stack.stop_beat()
        deadline = time.monotonic() + DRAIN_SECONDS
        while not stack.died() and time.monotonic() < deadline and stack.queued():
            time.sleep(LOOK_SECONDS / 5)
        self._problems.extend(
            f"{name} did not end within {FINISH_SECONDS:g} s of SIGTERM and was killed."
            for name in stack.stop_workers(seconds=FINISH_SECONDS)
        )


def _with_log(sentence: str, child: Child | None) -> str:
    tail = [] if child is None else [redact(line, LINE_LIMIT) for line in child.tail().splitlines()]
    return "\n  ".join([f"{sentence} The end of its log:", *tail]) if tail else sentence


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
