"""What `doctor` checks of this host: the route of calls, heartbeat files, and who could read secrets or traffic."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from ssl import CERT_REQUIRED
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from worker.addresses import on_loopback, read_database
from worker.cli import output
from worker.cli.checks import Finding
from worker.redis_address import TLS_SCHEME, Sentinels, read_sentinels, redis_tls
from worker.settings import secret_files

if TYPE_CHECKING:
    from worker.services import Services

IGNORED_PROXIES: Final = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
IGNORED_AUTHORITIES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

LEAST_LETTERS: Final = 16
LEAST_DIFFERENT: Final = 6
CHECKED_MODES: Final = frozenset({"verify-ca", "verify-full"})
CONTAINER_MARKS: Final = ("/.dockerenv", "/run/.containerenv")
"""Files that Docker and Podman put into each container."""


def place_checks(services: Services) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """Yield the name and function of each check; the caller runs them."""
    yield "egress", lambda: egress(services)
    yield "secrets", lambda: secrets(services)
    yield "traffic", lambda: traffic(services)
    yield "run", lambda: run(services)
    yield "telemetry", telemetry


def egress(services: Services) -> Finding:
    """Say which route calls take, and which variables of other programs do not change it."""
    settings, proxy = services.settings, services.egress.proxy
    way = "directly" if proxy is None else f"through the proxy {proxy.host}:{proxy.port}"
    trust = "the usual authorities" if settings.ca_file is None else f"the authorities in {settings.ca_file}"
    text = f"calls go out {way} and trust {trust}"
    ignored = [
        f"{name} is set, but Evertoken does not read it: set {setting} if it should apply"
        for names, setting, given in (
            (IGNORED_PROXIES, "EVERTOKEN_EGRESS_PROXY", settings.egress_proxy),
            (IGNORED_AUTHORITIES, "EVERTOKEN_CA_FILE", settings.ca_file),
        )
        if given is None
        for name in [next((name for name in names if os.environ.get(name)), None)]
        if name is not None
    ]
    return Finding("egress", "warn" if ignored else "ok", "; ".join([text, *ignored]))


def secrets(services: Services) -> Finding:
    """Look for secret files that every user of this host may read, and for a weak key of the notices' signature."""
    files = secret_files()
    found = [
        f"{name} is a file that every user of this host may read: chmod 600" for name, path in files if _is_open(path)
    ]
    for name, key in (
        ("SECRET", services.settings.notice_secret),
        ("SECRET_NEXT", services.settings.notice_secret_next),
    ):
        if key is not None and (len(key.reveal()) < LEAST_LETTERS or len(set(key.reveal())) < LEAST_DIFFERENT):
            found.append(
                f"EVERTOKEN_NOTICE_{name} can be guessed, and with it a signature: `evertoken notices secret` makes one"
            )
    rest = "who may read them was not judged: this is a container" if _in_container() else "none open to others"
    text = f"{output.counted(len(files), 'file')} of secrets, {rest}"
    return Finding("secrets", "warn" if found else "ok", "; ".join(found) or text)


def traffic(services: Services) -> Finding:
    """Check whether traffic to Redis or PostgreSQL on other hosts is in the clear or without a password."""
    settings = services.settings
    found = [*_redis_risks(settings.redis_url), *_database_risks(settings.database_url)]
    text = "nobody between the hosts reads or changes what we say to Redis and the database"
    return Finding("traffic", "warn" if found else "ok", "; ".join(found) or text)


def run(services: Services) -> Finding:
    """Check whether heartbeat files can be made: by writing one without a name, which leaves nothing."""
    folder = services.settings.run_dir
    repair = "without its heartbeat file a sound process looks as if it hangs: repair EVERTOKEN_RUN_DIR"
    try:
        if not folder.exists():
            if not os.access(next(each for each in folder.absolute().parents if each.exists()), os.W_OK | os.X_OK):
                return Finding("run", "fail", f"{folder} is not there and cannot be made; {repair}")
            return Finding("run", "ok", f"{folder} is not there yet, and the first process on this host makes it")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding("run", "fail", f"{folder} takes no files: {error.strerror or type(error).__name__}; {repair}")
    return Finding("run", "ok", f"{folder} takes heartbeat files")


def telemetry() -> Finding:
    """Say whether traces and errors leave this host, and where to; of an address only the host is shown."""
    from worker.telemetry import tried_places  # noqa: PLC0415 - Celery loads the doctor on every start

    places = tried_places()
    text = "; ".join(
        f"{place.kind} go to {place.host}"
        + "".join(f", without {name}: it cannot be used" for name in place.passed_over)
        if place.host
        else f"{place.kind} go nowhere: {place.problem or 'not asked for'}"
        for place in places
    )
    return Finding("telemetry", "warn" if any(place.problem or place.passed_over for place in places) else "ok", text)


def _redis_risks(url: str) -> Iterator[str]:
    sentinels = read_sentinels(url)
    if sentinels is not None:
        yield from _sentinel_risks(sentinels)
        return
    parts = urlsplit(url)
    if url.startswith("redis+socket:") or on_loopback(url) or not parts.hostname:
        return
    if not parts.password:
        yield "EVERTOKEN_REDIS_URL holds no password: whoever reaches Redis on its host can stop the workers"
    if parts.scheme != TLS_SCHEME and "." in parts.hostname:
        yield f"traffic to Redis on {parts.hostname} is in the clear: use rediss://"
    elif redis_tls(url).get("ssl_cert_reqs") not in {None, CERT_REQUIRED}:
        yield f"the certificate of Redis on {parts.hostname} is not checked: take ssl_cert_reqs out of the address"


def _sentinel_risks(sentinels: Sentinels) -> Iterator[str]:
    away = [host for host, _ in sentinels.hosts if not on_loopback(f"//[{host}]" if ":" in host else f"//{host}")]
    if not away:
        return
    if not sentinels.login.get("password"):
        yield "EVERTOKEN_REDIS_URL holds no password: whoever reaches Redis on its host can stop the workers"
    far = [host for host in away if "." in host or ":" in host]
    if far and not sentinels.tls:
        yield f"traffic to the Sentinels on {', '.join(far)} and to their master is in the clear: use sentinels://"
    elif sentinels.tls.get("ssl_cert_reqs") not in {None, CERT_REQUIRED}:
        yield "the certificates of Sentinels and master are not checked: take ssl_cert_reqs out of the address"


def _database_risks(url: str) -> Iterator[str]:
    address = read_database("EVERTOKEN_DATABASE_URL", url)
    if address.kind == "sqlite":
        return
    parts = urlsplit(address.libpq)
    options = dict(parse_qsl(parts.query))
    mode = options.get("sslmode") or os.environ.get("PGSSLMODE", "prefer")
    hosts = (options.get("host") or parts.netloc.rpartition("@")[2]).split(",")
    for host in (unquote(each).rpartition(":")[0] or unquote(each) for each in hosts):
        if "." in host and not host.startswith("/") and not on_loopback(f"//{host}") and mode not in CHECKED_MODES:
            yield f"PostgreSQL on {host} may be somebody else or in the clear (sslmode={mode}): use sslmode=verify-full"


def _in_container() -> bool:
    return any(Path(mark).exists() for mark in CONTAINER_MARKS) or "KUBERNETES_SERVICE_HOST" in os.environ


def _is_open(path: Path) -> bool:
    """Return True if every user may read a file; inside a container there is nobody else."""
    if _in_container():
        return False
    try:
        resolved = path.resolve()
        folders = all(folder.stat().st_mode & stat.S_IXOTH for folder in resolved.parents)
        return folders and bool(resolved.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False
