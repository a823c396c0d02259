"""`celery -A worker demo`: run the whole system on this machine, and judge it by the sandbox's ledger."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click

from worker.cli import output
from worker.errors import UsageError
from worker.signalled import SignalFlag

if TYPE_CHECKING:
    from rich.console import Console

    from worker.cli.board import Board
    from worker.cli.demo_plan import DemoPlan
    from worker.sandbox.stack import Stack

REDIS_SCHEMES: Final = frozenset({"redis", "rediss", "redis+socket"})


@click.command(cls=output.Command)
@click.option("--creators", type=click.IntRange(1, 100_000), default=200, show_default=True, help="How many creators.")
@click.option(
    "--for", "seconds", type=output.Number(5, 86_400), default=60, show_default=True, help="Seconds of the run."
)
@click.option("--dir", "folder", type=click.Path(path_type=Path, file_okay=False), help="A new folder; it is kept.")
@click.option("--redis-url", metavar="URL", help="An empty Redis database; one is started by default.")
@click.option(
    "--flower-port", "--port-flower", type=click.IntRange(1, 65_535), help="Flower's port; a free one by default."
)
@output.json_option
def demo(
    *, creators: int, seconds: float, folder: Path | None, redis_url: str | None, flower_port: int | None, as_json: bool
) -> None:
    """Run the whole system here against a stand-in for TikTok, and judge it at the end.

    Nothing else is needed: a Redis-protocol server, the stand-in, two workers, beat and Flower run as child processes
    on free local ports, with short-lived tokens. Your own settings are neither read nor touched. Ctrl-C ends it early.
    Exit status 1 if a pair was lost or a token expired.
    """
    from worker.cli.demo_plan import DemoPlan  # noqa: PLC0415 - Celery loads this module on every start
    from worker.cli.demo_run import DemoRun  # noqa: PLC0415 - as above
    from worker.cli.demo_verdict import show_verdict  # noqa: PLC0415 - as above

    _check_redis_url(redis_url)
    plan, console = DemoPlan(creators, seconds), _console(to_stderr=as_json)
    stop = SignalFlag()
    place = _place(folder)
    sound = False
    try:
        with _interruptions(stop):
            run = DemoRun(plan, place, stop)
            verdict = run.run(lambda stack: _board(console, plan, stack), redis_url=redis_url, flower_port=flower_port)
        sound = verdict.sound
        if as_json:
            output.print_json(asdict(verdict))
        else:
            show_verdict(console, verdict)
    finally:
        _leave(place, keep=folder is not None or not sound)
    sys.exit(0 if sound else output.FINDING)


def _console(*, to_stderr: bool) -> Console:
    from rich.console import Console  # noqa: PLC0415 - as above

    return Console(stderr=to_stderr)


def _board(console: Console, plan: DemoPlan, stack: Stack) -> Board:
    from worker.cli.board import LiveBoard, PlainBoard  # noqa: PLC0415 - as above

    def links() -> dict[str, str]:
        flower = stack.flower_url or "not installed (the extra `evertoken[local]` brings it)"
        return {"Flower": flower, "logs": str(stack.folder / "logs")}

    return LiveBoard(console, plan, links) if console.is_terminal else PlainBoard(console, links)


def _place(folder: Path | None) -> Path:
    """Return the folder that was named, or a temporary one."""
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="evertoken-demo-"))
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} holds files already; name a new folder")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be made: {error.strerror}") from None
    return folder.resolve()


def _check_redis_url(url: str | None) -> None:
    """Refuse an address that no Redis client can read, before anything is started."""
    try:
        parts = urlsplit(url or "redis://")
        readable = parts.scheme in REDIS_SCHEMES and parts.port != 0
    except ValueError:
        readable = False
    if not readable:
        raise UsageError("--redis-url must look like redis://HOST:PORT/NUMBER, rediss://... or redis+socket://PATH")


def _leave(place: Path, *, keep: bool) -> None:
    if keep:
        output.note(f"database, ledger and logs are in {place}")
    else:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _interruptions(stop: SignalFlag) -> Iterator[None]:
    """Make Ctrl-C and SIGTERM end the run instead of this process."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop.set) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
