"""Checks of addresses in settings, before a library reads them; no text shows a part of the address."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

from worker.errors import ConfigurationError
from worker.policy.notice_kinds import kinds_matching

DATABASE_FORMS: Final = "must begin with sqlite:/// or postgresql://"
SQLITE_DRIVERS: Final = frozenset({"", "pysqlite", "aiosqlite"})
POSTGRESQL_DRIVERS: Final = frozenset({"", "psycopg", "psycopg2", "psycopg2cffi", "asyncpg", "pg8000"})
"""Drivers that another program's address may name; Evertoken always uses its own and ignores the name."""
LIBPQ_OPTIONS: Final = re.compile(
    "application_name|channel_binding|connect_timeout|dbname|fallback_application_name|gssdelegation|gssencmode|gsslib|"
    "host|hostaddr|keepalives|keepalives_(count|idle|interval)|krbsrvname|load_balance_hosts|options|passfile|password|"
    "port|require_auth|requirepeer|service|ssl_(max|min)_protocol_version|sslcert|sslcertmode|sslcompression|sslcrl|"
    "sslcrldir|sslkey|sslmode|sslnegotiation|sslpassword|sslrootcert|sslsni|target_session_attrs|tcp_user_timeout|user"
)
"""The options of libpq that an address may hold: all but those that change the encoding or write secrets to a file."""
OTHER_OPTIONS: Final = {
    "client_encoding": "take it out: Evertoken speaks UTF-8",
    "connection_limit": "take it out: one process opens at most 20 connections",
    "currentSchema": "write schema=NAME",
    "pool_size": "take it out: one process opens at most 20 connections",
    "prepareThreshold": "take it out: Evertoken prepares no statement by name",
    "prepare_threshold": "take it out: Evertoken prepares no statement by name",
    "prepared_statement_cache_size": "take it out: Evertoken prepares no statement by name",
    "search_path": "write schema=NAME",
    "ssl": "write sslmode=require, or sslmode=verify-full with sslrootcert=FILE",
    "sslaccept": "write sslmode=require, or sslmode=verify-full with sslrootcert=FILE",
    "statement_cache_size": "take it out: Evertoken prepares no statement by name",
}
"""Options of other drivers, and what to write in their place."""
SCHEMA_NAME: Final = re.compile(r"[A-Za-z_][\w$-]{0,62}", re.ASCII)
HOST_AND_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.]+(%25\w+)?\]|[^\[\]:]*)(:(?P<port>[0-9]*))?")
BAD_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
HIGHEST_PORT: Final = 65535

MOST_NOTICE_ADDRESSES: Final = 10
HOST_LETTERS: Final = 60
"""Letters of a host in the name of a notice address, which has 80 in all."""

TIKTOK_DOMAINS: Final = ("tiktok.com", "tiktokapis.com")


def bad_server(name: str, url: str) -> str | None:
    """Return what is wrong with a server's address, or None.

    Libraries that read it later would show a part of the password.

    Args:
        name: the setting, for the text.
        url: its value.
    """
    if url.startswith("redis+socket:"):
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = None
    if parts is None or parts.fragment or parts.netloc.count("@") > 1 or "@" in parts.path + parts.query:
        return unreadable(name)
    return None


def bad_url(name: str, url: str, *, bare: bool = False) -> str | None:
    """Return what is wrong with an address of the web, or None.

    Args:
        name: the setting, for the text.
        url: its value.
        bare: True if nothing may follow the path, because we append to it.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return f"{name} cannot be read as an address: its host or port is not one"
    if "@" in parts.netloc or not parts.hostname:
        return f"{name} must be a plain address with a host and no password, such as https://host/path"
    if parts.scheme != "https" and not (parts.scheme == "http" and on_loopback(url)):
        return f"{name} must begin with https:// (plain http is taken only on loopback)"
    if not url.isascii() or not url.isprintable() or " " in url:
        return (
            f"{name} must be ASCII without blanks: other characters are written as % and two digits, a host in punycode"
        )
    if parts.fragment or (bare and parts.query):
        return f"{name} must end with its path: nothing may stand behind a {'#' if parts.fragment else '?'} in it"
    return None


def is_tiktoks(url: str) -> bool:
    """Return True if the host of an address belongs to TikTok."""
    host = (urlsplit(url).hostname or "").removesuffix(".")
    return any(host == domain or host.endswith(f".{domain}") for domain in TIKTOK_DOMAINS)


def bad_proxy(name: str, url: str) -> str | None:
    """Return what is wrong with the address of an egress proxy, or None; arguments as for `bad_server`."""
    if problem := bad_server(name, url):
        return problem
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or not parts.port or parts.path not in {"", "/"} or parts.query:
        return (
            f"{name} must be http://host:port or http://user:password@host:port: an HTTP proxy that opens tunnels "
            "(CONNECT); it sees the host's name and no more"
        )
    return None


def bad_authorities(name: str, file: Path) -> str | None:
    """Return what is wrong with a file of certificate authorities, or None.

    Args:
        name: the setting, for the text.
        file: its value.
    """
    try:
        ssl.create_default_context(cafile=str(file))
    except ssl.SSLError:
        return f"{name}: the file holds no certificate, or one that is damaged; it is in PEM form (BEGIN CERTIFICATE)"
    except OSError as error:
        return f"{name}: the file cannot be read ({error.strerror})"
    return None


def is_ip_address(text: str) -> bool:
    """Return True for an IPv4 or IPv6 address without brackets."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_network(text: str) -> bool:
    """Return True if a text is an IP address, or a network such as 10.1.0.0/16."""
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def on_loopback(url: str) -> bool:
    """Return True if the host of an address is this machine."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class NoticeAddress:
    """An address that notices are posted to.

    Attributes:
        name: the host and six hexadecimal digits of the address's hash. Logs and tables show it in the address's place,
            because a path or a query may hold a secret.
        url: the address.
        kinds: the stored kinds that it gets; None for all.
    """

    name: str
    url: str = field(repr=False)
    kinds: frozenset[str] | None = None


def read_notice_addresses(name: str, text: str) -> list[NoticeAddress]:
    """Read addresses and the kinds that each gets, such as `https://a.example/x grant.* https://b.example/y`.

    Args:
        name: the setting, for the text of an error.
        text: addresses with blanks between them, each followed by the kinds that it gets; with none it gets all.

    Raises:
        ConfigurationError: an address or a kind is wrong; the text shows no part of an address.
    """
    found: list[tuple[str, list[str]]] = []
    for word in text.split():
        if "://" in word or not found:
            found.append((word, []))
        elif not kinds_matching([word]):
            raise ConfigurationError(
                f"{name}: a word behind address {len(found)} is neither an address nor a kind of notice, such as "
                "app.stopped or grant.* (docs/notices.md lists them)"
            )
        else:
            found[-1][1].append(word)
    if len({url for url, _ in found}) < len(found):
        raise ConfigurationError(f"{name} holds an address twice: write all its kinds behind it once")
    if len(found) > MOST_NOTICE_ADDRESSES:
        raise ConfigurationError(f"{name} holds {len(found)} addresses, and {MOST_NOTICE_ADDRESSES} are the most")
    for url, _ in found:
        if problem := bad_url(name, url):
            raise ConfigurationError(problem)
    return [
        NoticeAddress(_address_name(url), url, kinds_matching(patterns) if patterns else None)
        for url, patterns in found
    ]


def _address_name(url: str) -> str:
    host = (urlsplit(url).hostname or "")[:HOST_LETTERS]
    return f"{host}-{sha256(url.encode()).hexdigest()[:6]}"


@dataclass(frozen=True)
class DatabaseAddress:
    """Where the database is.

    Attributes:
        kind: `sqlite` or `postgresql`.
        file: SQLite's file; None for PostgreSQL.
        libpq: PostgreSQL's address as libpq reads it; it may hold a password. Empty for SQLite.
        schema: the schema of PostgreSQL that holds the tables; None leaves it to the server's `search_path`.
    """

    kind: Literal["sqlite", "postgresql"]
    file: Path | None = None
    libpq: str = field(default="", repr=False)
    schema: str | None = None


def read_database(name: str, url: str) -> DatabaseAddress:
    """Read the address of the database.

    Args:
        name: what holds it, for the text of an error.
        url: `sqlite:///PATH`, or `postgresql://user:password@host/name` in any form that libpq reads.

    Raises:
        ConfigurationError: the address cannot be used; the text shows nothing of it but names of options.
    """
    scheme, _, rest = url.partition("://")
    kind, _, driver = scheme.lower().partition("+")
    if kind == "sqlite" and driver in SQLITE_DRIVERS and rest:
        return DatabaseAddress("sqlite", file=_sqlite_file(name, rest))
    if kind in {"postgresql", "postgres"} and driver in POSTGRESQL_DRIVERS and "://" in url:
        return _postgresql(name, rest)
    raise ConfigurationError(f"{name} {DATABASE_FORMS}")


def _sqlite_file(name: str, rest: str) -> Path:
    path = rest.removeprefix("/")
    if "?" in path:
        raise ConfigurationError(f"{name} holds options after ?, and SQLite's address takes none: sqlite:///PATH")
    if not rest.startswith("/") or not path or path == ":memory:" or path.startswith("file:") or path.endswith("/"):
        raise ConfigurationError(f"{name} must name a file: sqlite:///PATH, or sqlite:////PATH from the root folder")
    home, parts = path.startswith("~"), Path(path).parts
    if "~" in parts[1:] or any(part.startswith("$") for part in parts):
        raise ConfigurationError(f"{name}: only ~ at the beginning of the path is replaced, no other ~ and no variable")
    try:
        return Path(path).expanduser() if home else Path(path)
    except RuntimeError:
        raise ConfigurationError(f"{name}: the home folder that ~ stands for is not known") from None


def _postgresql(name: str, rest: str) -> DatabaseAddress:
    before, _, query = rest.partition("?")
    server, _, database = before.partition("/")
    who, _, hosts = server.rpartition("@")
    odd = any(sign.isspace() or not sign.isprintable() for sign in rest)
    if odd or "#" in rest or any(sign in who for sign in "@[]") or "@" in database + query or BAD_PERCENT.search(rest):
        raise ConfigurationError(unreadable(name))
    for host in hosts.split(","):
        match = HOST_AND_PORT.fullmatch(host)
        if match is None or int(match["port"] or 1) not in range(1, HIGHEST_PORT + 1):
            raise ConfigurationError(unreadable(name))
    kept, schema = _postgresql_options(name, query)
    if "," in hosts:
        # Only one of several servers takes writes, and which one changes.
        kept.setdefault("target_session_attrs", "read-write")
    libpq = f"postgresql://{before}?" + "&".join(f"{key}={value}" for key, value in kept.items())
    return DatabaseAddress("postgresql", libpq=libpq.removesuffix("?"), schema=schema)


def _postgresql_options(name: str, query: str) -> tuple[dict[str, str], str | None]:
    """Return libpq's options as they were written, and the schema."""
    kept: dict[str, str] = {}
    schema = None
    pairs = [pair.partition("=")[::2] for pair in query.split("&") if pair]
    keys = [key for key, _ in pairs]
    for key, value in pairs:
        if keys.count(key) > 1:
            raise ConfigurationError(
                f"{name} holds the option {shown(key)} twice; several hosts are written host1:port1,host2:port2"
            )
        if LIBPQ_OPTIONS.fullmatch(key):
            kept[key] = value
        elif key == "schema":
            schema = unquote(value)
            if SCHEMA_NAME.fullmatch(schema) is None:
                raise ConfigurationError(f"{name}: the option schema names one schema, of letters, digits, _, $ and -")
        elif key != "pgbouncer" or value not in {"true", "false"}:
            advice = OTHER_OPTIONS.get(key, "take it out; libpq's options and schema=NAME are taken")
            raise ConfigurationError(f"{name} holds the option {shown(key)}, which is not taken: {advice}")
    return kept, schema


def shown(key: str) -> str:
    """Return an option's name for a text, shortened; anything but a name may be part of a password and is not shown."""
    return key if re.fullmatch(r"\w{1,40}", key, re.ASCII) else "that is no name"


def unreadable(name: str) -> str:
    """Return the sentence for an address of which nothing may be shown."""
    return (
        f"{name} cannot be read: it is scheme://user:password@host:port/name, and in user and password each of "
        "/ ? # @ : % [ ] is written as % and two digits (%2F %3F %23 %40 %3A %25 %5B %5D)"
    )
