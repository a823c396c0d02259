"""Errors to Sentry: crashes, and facts that a person must see; imported only if asked for.

An event is made here of what a log line would say, so it holds no request, no variable, and no text that was not
redacted. The library's integrations stay off. What the library adds is redacted too; if that fails, the event is
dropped.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

from sentry_sdk import Client
from sentry_sdk.transport import HttpTransport

from worker.telemetry.facts import Fact
from worker.telemetry.logs import add_handler, fact_of, remove_handler
from worker.telemetry.losses import Losses
from worker.vault.redaction import redact_event

FLUSH_SECONDS: Final = 2.0
"""How long a process that ends waits for its last events to be sent."""
CAUSES: Final = 8
"""Exceptions of a chain that are told, and frames of each."""
FRAMES: Final = 60
OTHERS: Final = ("sentry_sdk", "urllib3", "opentelemetry")
"""Loggers of what sends: a line of theirs would be sent the way that has just failed."""
LOSSES: Final = Losses(lost=Fact("errors.unsent", level="warning"))


class ReportingTransport(HttpTransport):
    """Sends from a thread of its own out of a bounded queue, and reports what was lost."""

    TIMEOUT = 10

    def record_lost_event(self, reason: str, *args: Any, **options: Any) -> None:
        """Report a lost event; the library's reasons are words such as `network_error`."""
        LOSSES.note(reason, 1)
        super().record_lost_event(reason, *args, **options)


class ErrorsToSentry(logging.Handler):
    """Sends each record of level ERROR and above."""

    def __init__(self, client: Client, about: dict[str, str]) -> None:
        super().__init__(logging.ERROR)
        self._client = client
        self._about = about

    def emit(self, record: logging.LogRecord) -> None:
        """Hand an event to the library's queue; whatever goes wrong here ends nothing."""
        if not record.name.startswith(OTHERS):
            with suppress(Exception):
                self._client.capture_event(redact_event(event_of(record) | {"tags": self._about}))  # type: ignore[arg-type]


def event_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what Sentry is told of a record, before it is redacted."""
    fact = fact_of(record)
    event: dict[str, Any] = {"level": "fatal" if record.levelno >= logging.CRITICAL else "error", "logger": record.name}
    event["logentry"] = {"message": record.getMessage()}
    if fact is not None:
        event["extra"], event["fingerprint"] = dict(fact.fields), [fact.name]
    if record.exc_info and record.exc_info[1] is not None:
        event["exception"] = {"values": list(_chain(record.exc_info[1]))[::-1]}
    return event


def _chain(error: BaseException) -> Iterator[dict[str, Any]]:
    """Yield an exception and what it came from, with stacks and without the values of variables."""
    following: BaseException | None = error
    for _ in range(CAUSES):
        if following is None:
            return
        frames = [
            {
                "filename": frame.f_code.co_filename,
                "function": frame.f_code.co_name,
                "lineno": line,
                "module": str(frame.f_globals.get("__name__")),
            }
            for frame, line in traceback.walk_tb(following.__traceback__)
        ]
        yield {
            "type": type(following).__name__,
            "module": type(following).__module__,
            "value": following,  # redaction makes a text of it, even if it cannot be printed
            "stacktrace": {"frames": frames[-FRAMES:]},
        }
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)


def scrub(event: Any, hint: Any) -> Any:
    """Return an event as it may leave this process, or None: one that cannot be redacted is not sent."""
    del hint
    try:
        return redact_event(event)
    except Exception:  # noqa: BLE001 - whatever it was, nothing unredacted leaves
        return None


def begin_errors(
    dsn: str, *, release: str, about: dict[str, str], transport: type[HttpTransport] = ReportingTransport
) -> Callable[..., None]:
    """Send errors from now on, and return what ends that.

    What is returned takes `send`: False if what waits is not to be sent, since it belongs to the process that forked
    this one.

    Args:
        dsn: where to.
        release: this version.
        about: tags of each event.
        transport: what sends.

    Raises:
        Exception: the DSN cannot be read.
    """
    # It logs each try with the address; `ReportingTransport` says that an event was lost.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    client = Client(
        dsn=dsn,
        transport=transport,
        release=release,
        before_send=scrub,
        default_integrations=False,
        auto_enabling_integrations=False,
        include_local_variables=False,
        include_source_context=False,
        attach_stacktrace=False,
        max_breadcrumbs=0,
        max_request_body_size="never",
        auto_session_tracking=False,
        send_client_reports=False,
        enable_backpressure_handling=False,
        spotlight=False,
        debug=False,
        shutdown_timeout=FLUSH_SECONDS,
    )
    handler = ErrorsToSentry(client, about)
    add_handler(handler)

    def end(*, send: bool = True) -> None:
        remove_handler(handler)
        if send:
            client.close(timeout=FLUSH_SECONDS)

    return end
