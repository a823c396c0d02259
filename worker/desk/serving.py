"""Running the desk: uvicorn with bounds on what a connection may send and how long it may take to say it."""

from __future__ import annotations

import asyncio
import math
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from worker.desk.app import build_desk
from worker.errors import EvertokenError, StoreUnavailableError
from worker.services import Services
from worker.telemetry import Fact, count_refused
from worker.watchdog import FEED_SECONDS, feed, touch

LARGEST_HEAD: Final = 65_536
"""Bytes of a request's line and headers."""
REQUEST_SECONDS: Final = 20.0
"""How long a connection may take to send a request, head and body; an idle one is closed as soon."""
MOST_CONNECTIONS: Final = 1000
FULL_AGAIN_SECONDS: Final = 60.0
"""How often it is reported that requests are refused because of too many connections."""
END_SECONDS: Final = 20
"""How long requests may go on after SIGTERM: longer than a token is waited for."""
REPLAY_SECONDS: Final = 60.0
"""Time between two looks for answers that the database did not take when they came."""


class BoundedProtocol(HttpToolsProtocol):
    """Ends connections that send an endless head, or a request too slowly.

    Args:
        full: called for each request that is refused because of too many connections.
        how: what uvicorn gives.
    """

    def __init__(self, *, full: Callable[[], None], **how: Any) -> None:
        super().__init__(**how)
        self._full = full
        self._head, self._in_head = 0, True
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Count from the beginning of a head."""
        self._head, self._in_head = 0, True
        super().on_message_begin()

    def data_received(self, data: bytes) -> None:
        """Take bytes; until a head is whole they are counted."""
        self._head += len(data)
        if self._late is None and (self.cycle is None or self.cycle.response_complete):
            self._await_request()
        super().data_received(data)
        if self._in_head and self._head > LARGEST_HEAD:
            self._give_up()

    def on_headers_complete(self) -> None:
        """Take a head that is whole; one that came in a single piece is measured here."""
        self._in_head = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > LARGEST_HEAD:
            raise ValueError("the head is too large")  # uvicorn answers 400 and closes the connection
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            self._full()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Stop waiting: the request is whole."""
        self._stop_waiting()
        super().on_message_complete()

    def _await_request(self) -> None:
        self._late = self.loop.call_later(REQUEST_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


class Desk:
    """A desk that listens; `run` ends with the process's SIGTERM or SIGINT, or with `end`."""

    def __init__(self, services: Services, *, ready: Callable[[int], None]) -> None:
        """Listen to nothing yet.

        Args:
            services: what answers stand on.
            ready: called with the port once the desk listens.

        Raises:
            ConfigurationError: the desk lacks a setting.
        """
        self._services = services
        self._ready = ready
        settings = services.settings
        config = uvicorn.Config(
            build_desk(services),
            host=settings.desk_address,
            port=settings.desk_port,
            http=partial(BoundedProtocol, full=self._report_full),  # type: ignore[arg-type]  # any callable does
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="warning",  # our own facts say when it starts and ends
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=int(REQUEST_SECONDS),
            timeout_graceful_shutdown=END_SECONDS,
            callback_notify=self._show_life,
            timeout_notify=FEED_SECONDS,
        )
        self._server = _Server(config, ready)
        self._ended = threading.Event()
        self._full_at = -math.inf

    def run(self) -> bool:
        """Answer requests until the end; return False if the address could not be had."""
        keeper = threading.Thread(target=self._keep, name="replay", daemon=True)
        keeper.start()
        try:
            self._server.run()
        except SystemExit:  # uvicorn's way to say that it cannot listen; its log has the reason
            return False
        finally:
            self._ended.set()
        return True

    def end(self) -> None:
        """Ask the desk to end."""
        self._server.should_exit = True

    def _report_full(self) -> None:
        """Count a request that is refused, and report so once a minute."""
        count_refused()
        if time.monotonic() - self._full_at >= FULL_AGAIN_SECONDS:
            self._full_at = time.monotonic()
            self._services.hook(Fact("desk.full", {"connections": MOST_CONNECTIONS}, level="warning"))

    async def _show_life(self) -> None:
        """Feed systemd's watchdog and touch a file, from the loop that answers: if it hangs, it does neither."""
        feed()
        touch(self._services.settings.run_dir, "desk")

    def _keep(self) -> None:
        """Store what the database did not take when it came: a consent whose pair is in this process's journal."""
        while not self._ended.wait(REPLAY_SECONDS):
            try:
                self._services.upkeep.replay()
            except StoreUnavailableError:
                continue  # the store reports its outages
            except EvertokenError as error:
                self._services.hook(Fact("desk.replay_failed", {"reason": str(error)}, level="warning"))


class _Server(uvicorn.Server):
    """Says when it listens, and on which port."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[int], None]) -> None:
        super().__init__(config)
        self._said = ready

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; a second Ctrl-C ends at once.

        Uvicorn would send itself the signal again at the end, before this process has left the list of living ones.
        """
        del frame
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def startup(self, sockets: Any = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.started:
            self._said(int(self.servers[0].sockets[0].getsockname()[1]))
