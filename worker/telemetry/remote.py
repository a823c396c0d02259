"""Whether traces and errors leave this process, and where to: the usual variables of OpenTelemetry and Sentry say so.

Both libraries are extras. If one is missing, or a variable cannot be used, that is a warning: tokens are kept alive all
the same.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Self
from urllib.parse import urlsplit

from worker.telemetry.facts import Fact
from worker.telemetry.metrics import report

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
DEFAULT_ENDPOINT: Final = "http://localhost:4318"
SPOKEN: Final = "http/protobuf"
FILES: Final = tuple(
    f"OTEL_EXPORTER_OTLP_{part}{what}"
    for part in ("TRACES_", "")
    for what in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
)
PARTS: Final = ("always_on", "always_off", "traceidratio")
SAMPLERS: Final = ("", *PARTS, *(f"parentbased_{part}" for part in PARTS))
STARTED: Final = {"traces": Fact("traces.started"), "errors": Fact("errors.started")}
UNUSABLE: Final = {
    "traces": Fact("traces.unusable", level="warning"),
    "errors": Fact("errors.unusable", level="warning"),
}


@dataclass(frozen=True)
class RemotePlace:
    """Where one kind of telemetry goes.

    Attributes:
        kind: `traces` or `errors`.
        host: the host it goes to, and nothing else of an address that may hold secrets; None if it goes nowhere.
        problem: why it goes nowhere although a variable asks for it; None if all is well.
        passed_over: variables that the library cannot use and goes on without.
    """

    kind: str
    host: str | None = None
    problem: str | None = None
    passed_over: tuple[str, ...] = ()


class Complaints(logging.Handler):
    """Hears what OpenTelemetry logs while it reads its variables.

    Attributes:
        variables: those that it cannot use and goes on without; their values may be secrets.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.variables: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Note which variable is meant."""
        quoted = record.args if isinstance(record.args, tuple) else ()
        name = _variable(record.getMessage(), *map(str, quoted))
        if name not in self.variables:
            self.variables.append(name)

    def __enter__(self) -> Self:
        """Begin to hear."""
        logging.getLogger("opentelemetry").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Hear no more."""
        logging.getLogger("opentelemetry").removeHandler(self)


def remote_places(environ: Mapping[str, str] | None = None) -> tuple[RemotePlace, RemotePlace]:
    """Return where traces and errors go.

    Args:
        environ: the variables; those of this process by default.
    """
    environ = os.environ if environ is None else environ
    return _traces(environ), _errors(environ)


def _traces(environ: Mapping[str, str]) -> RemotePlace:
    address = _first(environ, ENDPOINTS)
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none"
    if off or not (address or exporter):
        return RemotePlace("traces")
    if problem := _problem_of_traces(environ):
        return RemotePlace("traces", problem=problem)
    host = _host(address or DEFAULT_ENDPOINT)
    if host is None:
        return RemotePlace("traces", problem="OTEL_EXPORTER_OTLP_ENDPOINT is no address such as http://host:4318")
    return _installed("traces", host, "opentelemetry-exporter-otlp-proto-http", "otel")


def _problem_of_traces(environ: Mapping[str, str]) -> str | None:
    """Return which variable asks for what is not offered, or would be passed over by the library."""
    if environ.get("OTEL_TRACES_EXPORTER", "").strip() not in ("", "otlp"):
        return "OTEL_TRACES_EXPORTER can be otlp or none here"
    if (_first(environ, PROTOCOLS) or SPOKEN) != SPOKEN:
        return f"OTEL_EXPORTER_OTLP_PROTOCOL can be {SPOKEN} alone here"
    if environ.get("OTEL_TRACES_SAMPLER", "").strip().lower() not in SAMPLERS:
        return f"OTEL_TRACES_SAMPLER can be {', '.join(SAMPLERS[1:])}"
    if not _is_part(environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip() or "1"):
        return "OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1"
    unreadable = (name for name in FILES if (path := environ.get(name)) and not os.access(path, os.R_OK))
    return next((f"{name} names a file that cannot be read" for name in unreadable), None)


def _is_part(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def _errors(environ: Mapping[str, str]) -> RemotePlace:
    dsn = environ.get("SENTRY_DSN", "").strip()
    if not dsn:
        return RemotePlace("errors")
    host = _host(dsn)
    if host is None or not re.search(r"//[^@/:]+(:[^@/]*)?@.*/\d+$", dsn):
        return RemotePlace("errors", problem="SENTRY_DSN is no address such as https://key@host/1")
    return _installed("errors", host, "sentry-sdk", "sentry")


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((value for name in names if (value := environ.get(name, "").strip())), "")


def _host(address: str) -> str | None:
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:
        return None
    return parts.hostname if usable else None


def _installed(kind: str, host: str, package: str, extra: str) -> RemotePlace:
    try:
        version(package)
    except PackageNotFoundError:
        return RemotePlace(kind, problem=f"{package} is not installed: install `evertoken[{extra}]`")
    return RemotePlace(kind, host)


def begin_remote(about: dict[str, str], *, namespace: str | None, traces: bool = True) -> None:
    """Send traces and errors if the variables of this process ask for it; logging must be set up before.

    Args:
        about: what tells this process from others.
        namespace: of this installation.
        traces: False for a process that has no spans.
    """
    about = about | ({"installation": namespace} if namespace else {})
    for place in remote_places():
        if place.kind == "traces" and not traces:
            continue
        problem, fields = place.problem, {"host": place.host}
        if place.host is not None:
            try:
                with Complaints() as complaints:
                    _ends.append(BEGINS[place.kind](about))
            except Exception as error:  # noqa: BLE001 - a foreign text may hold the address with its secrets
                problem = _unusable(error)
            if complaints.variables:
                fields["passed_over"] = ", ".join(complaints.variables)
        if problem is not None:
            report(replace(UNUSABLE[place.kind], fields={"reason": problem}))
        elif place.host is not None:
            report(replace(STARTED[place.kind], fields=fields))


def tried_places() -> list[RemotePlace]:
    """Return where traces and errors go, after the libraries have read their variables as in a worker; nothing is sent.

    Logging must be as it is in a command: for a moment, errors of this process would be sent.
    """
    places = list(remote_places())
    for index, place in enumerate(places):
        if place.host is not None:
            try:
                with Complaints() as complaints:
                    BEGINS[place.kind]({})()
            except Exception as error:  # noqa: BLE001 - as in `begin_remote`
                places[index] = RemotePlace(place.kind, problem=_unusable(error))
            else:
                places[index] = replace(place, passed_over=tuple(complaints.variables))
    return places


def _unusable(error: Exception) -> str:
    return f"{_variable(str(error))} cannot be used ({type(error).__name__})"


def _variable(said: str, *quoted: str) -> str:
    """Name the variable that a library does not take, if its text repeats the name, the value or a part of it."""
    ours = {name: value for name, value in os.environ.items() if name.startswith(("OTEL_", "SENTRY_")) and value}
    found = (
        [name for name in ours if name in said]
        or [name for name, value in ours.items() if value.lower() in said.lower()]
        or [name for name, value in ours.items() if any(part and part in value for part in quoted)]
    )
    return found[0] if len(found) == 1 else "a variable of it"


def end_remote(*, send: bool = True) -> None:
    """Send nothing from now on.

    Args:
        send: True to send what waits, for a few seconds at most.
    """
    while _ends:
        _ends.pop()(send=send)


def _begin_traces(about: dict[str, str]) -> Callable[..., None]:
    from worker.telemetry.otel import begin_traces  # noqa: PLC0415 - an extra, and slow to import

    return begin_traces(about={"service.version": version("evertoken"), **about})


def _begin_errors(about: dict[str, str]) -> Callable[..., None]:
    from worker.telemetry.sentry import begin_errors  # noqa: PLC0415 - as above

    release = os.environ.get("SENTRY_RELEASE") or f"evertoken@{version('evertoken')}"
    return begin_errors(os.environ["SENTRY_DSN"].strip(), release=release, about=about)


BEGINS: Final = {"traces": _begin_traces, "errors": _begin_errors}
_ends: Final[list[Callable[..., None]]] = []
atexit.register(end_remote)  # a crash is the last thing that a process says
os.register_at_fork(after_in_child=lambda: end_remote(send=False))  # a child would send what waits here once more
