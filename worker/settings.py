"""One frozen Settings, read from the environment, `.env` and secret files; contradictions are refused at the start.

Every name has the prefix `EVERTOKEN_`. `EVERTOKEN_X_FILE` names a file that holds the value of `EVERTOKEN_X`.
The environment takes precedence over `.env`, and a value over its file. One idea: every setting, and what refuses it.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator
from pydantic.fields import FieldInfo

from worker.addresses import (
    NoticeAddress,
    bad_authorities,
    bad_proxy,
    bad_url,
    is_ip_address,
    is_network,
    is_tiktoks,
    on_loopback,
    read_database,
    read_notice_addresses,
)
from worker.amqp_address import bad_amqp
from worker.errors import ConfigurationError
from worker.failpoints import failpoint_of
from worker.namespace import bad_namespace, key_prefix
from worker.pasted import cleaned, read_file
from worker.policy.quota import HIGHEST
from worker.redis_address import bad_redis
from worker.sources import PREFIX, in_dotenv, ours
from worker.vault.token import Token
from worker.vault.webhooks import webhook_key

TEST_SWITCHES: Final = frozenset({"EVERTOKEN_TEST_FAILPOINTS", "EVERTOKEN_TEST_RUN"})
"""Read by the fault harness, not by Settings; the worker refuses them outside tests."""
SECRETS: Final = (
    "tiktok_app_secret", "tiktok_app_secret_next", "keyring", "notice_secret", "notice_secret_next", "notice_url",
    "redis_url", "broker_url", "database_url", "egress_proxy", "desk_secret", "desk_password",
)  # fmt: skip
"""Settings that hold a secret or may hold a password."""
LINES: Final = frozenset({"keyring"})
"""Settings whose value may have several lines."""
TIKTOKS_WORD: Final = re.compile(r"[!#-&(-\[\]-~]+")
"""An app's id or secret: ASCII without blanks, quotes and backslashes."""
TIKTOKS_ADDRESSES: Final = frozenset({"tiktok_base_url", "tiktok_authorize_url"})
WRONG_WORDS: Final = frozenset({
    "float_parsing", "int_parsing", "finite_number", "greater_than", "greater_than_equal", "less_than",
    "less_than_equal", "literal_error",
})  # fmt: skip
"""Errors of pydantic that get our own words: for nan its own say that it should be less than something."""
PULLED: Final = frozenset({"videos", "comments", "mentions", "none"})
"""What can be pulled beside the account."""
CATEGORY: Final = re.compile(r"[A-Z][A-Z_]{1,39}")
MOST_NEAR: Final = 3
SHORTEST_DESK_SECRET: Final = 32
SHORTEST_DESK_PASSWORD: Final = 12
HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
RETRY_PAUSE_SHARE: Final = 1 / 9
"""Longest pause before the one quick retry of an attempt in doubt, as a part of the deadline: 5 s of 45 s."""


def _secret(value: object) -> object:
    return Token(value.strip()) if isinstance(value, str) and value.strip() else value


def _comma_list(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Secret = Annotated[Token, BeforeValidator(_secret), PlainSerializer(str)]
CommaList = Annotated[tuple[str, ...], BeforeValidator(_comma_list)]


T = TypeVar("T", bound=BaseModel)


class NamedSettings(BaseModel):
    """What every process of an installation must know: by which names it goes in Redis and in the database."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True, hide_input_in_errors=True)

    namespace: str | None = Field(
        default=None,
        description=(
            "Name of this installation, if several share one Redis or one PostgreSQL database: its keys begin with "
            "`evertoken-NAME:` and its tables are in the schema `NAME`. All of its processes need the same."
        ),
    )

    @model_validator(mode="after")
    def _refuse_other_names(self) -> Self:
        if self.namespace is not None and (problem := bad_namespace(f"{PREFIX}NAMESPACE", self.namespace)):
            raise ValueError(problem)
        return self

    @property
    def key_prefix(self) -> str:
        """What each key and channel in Redis begins with."""
        return key_prefix(self.namespace)


class MessengerSettings(NamedSettings):
    """The settings of beat, Flower and senders of messages: no secret but Redis's password."""

    redis_url: str = Field(
        repr=False,
        default="redis://127.0.0.1:6379/0",
        description=(
            "Broker and limiter: `redis://`, `rediss://` (TLS; `?ssl_ca_certs=FILE` for an authority of your own), "
            "`redis+socket://PATH`, or Sentinels, `sentinel://:password@host1:26379,host2:26379/0?service=NAME` "
            "(`sentinels://` with TLS)."
        ),
    )
    broker_url: str | None = Field(
        default=None,
        repr=False,
        description=(
            "RabbitMQ, if it is to carry the messages instead of Redis: `amqp://user:password@host:5672/vhost`, or "
            "`amqps://` (TLS; `?ssl_ca_certs=FILE` for an authority of your own). Redis then keeps the quota alone, "
            "and `EVERTOKEN_REDIS_URL` must be given."
        ),
    )
    run_dir: Path = Field(default=Path("var/run"), description="Folder of the heartbeat files.")
    scan_seconds: float = Field(default=10, gt=0, le=300, description="Time between two scans for due grants.")
    upkeep_seconds: float = Field(default=60, gt=0, le=3600, description="Time between two rounds of upkeep.")
    hang_seconds: float = Field(
        default=120,
        ge=1,
        le=3600,
        description="A worker or beat that does nothing for so long while Redis or RabbitMQ serves ends itself, to be "
        "started again. A reconnect after an outage of either can take a minute.",
    )
    log_format: Literal["json", "console"] = Field(default="json", description="One JSON object a line, or text.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="Least level logged.")

    @model_validator(mode="after")
    def _refuse_other_brokers(self) -> Self:
        if problem := bad_redis(f"{PREFIX}REDIS_URL", self.redis_url):
            raise ValueError(problem)
        if self.broker_url is not None and (problem := bad_amqp(f"{PREFIX}BROKER_URL", self.broker_url)):
            raise ValueError(problem)
        return self


class ReaderSettings(NamedSettings):
    """What a neighbouring application needs to read access tokens: the database and a reader's keyring."""

    tiktok_app_id: str = ""  # a reader's keyring names the app
    keyring: Secret = Field(description="The sealing keys as JSON; `celery -A worker keys new` makes one.")
    keyring_unwrap: str | None = Field(
        default=None, description="For a keyring with wrapped keys: the function `package.module:name` that unwraps."
    )

    database_url: str = Field(
        repr=False,
        default="sqlite:///./var/evertoken.db",
        description=(
            "SQLite (one host), `sqlite:///PATH`, or PostgreSQL, `postgresql://user:password@host/name`: also behind a "
            "pooler, with several hosts (`host1,host2`), libpq's options and `?schema=NAME`."
        ),
    )
    store_seconds: float = Field(default=5, gt=0, le=60, description="Longest time of one database statement.")

    @model_validator(mode="after")
    def _refuse_other_databases(self) -> Self:
        try:
            read_database(f"{PREFIX}DATABASE_URL", self.database_url)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return self


class Settings(MessengerSettings, ReaderSettings):
    """All settings of the daemon; frozen, and its `repr` shows no secret."""

    tiktok_app_id: str = Field(min_length=1, description="The app's id (`client_key` in the portal's link).")
    tiktok_app_secret: Secret = Field(description="The app's secret.")
    tiktok_app_secret_next: Secret | None = Field(
        default=None, description="A second app secret, tried if the first is refused, while you replace the secret."
    )
    tiktok_redirect_uri: str = Field(
        min_length=1, description="The redirect address as registered with TikTok, byte for byte."
    )
    journal_dir: Path = Field(
        default=Path("var/journal"), description="Folder of the sealed journal, on a disk that survives restarts."
    )

    tiktok_base_url: str = Field(
        default="https://business-api.tiktok.com/open_api",
        description="Base of the API; plain http is allowed only on loopback.",
    )
    egress_proxy: str | None = Field(
        default=None,
        repr=False,
        description=(
            "HTTP proxy on the way to TikTok and to the address of notices: `http://user:password@host:port`. Loopback "
            "is reached without it. `HTTPS_PROXY` is not read."
        ),
    )
    ca_file: Path | None = Field(
        default=None,
        description=(
            "PEM file of the certificate authorities to trust for TikTok and the address of notices, in place of the "
            "usual ones. `SSL_CERT_FILE` is not read."
        ),
    )
    tiktok_authorize_url: str = Field(
        default="https://www.tiktok.com/v2/auth/authorize/", description="TikTok's consent page."
    )
    tiktok_foreign_hosts: CommaList = Field(
        default=(),
        description=(
            "Hosts that are not TikTok's but are allowed in the two addresses above, such as your own gateway, "
            "separated by commas. They get the app's secret and every token."
        ),
    )
    tiktok_scopes: CommaList = Field(
        default=("user.info.basic", "user.info.username", "user.info.stats", "user.info.profile", "user.insights"),
        description="Scopes that the consent link asks for, separated by commas.",
    )

    renew_at: float = Field(
        default=2 / 3, ge=0.1, le=0.85, description="Part of the access token's life after which it is renewed."
    )
    quota_per_second: int = Field(default=10, ge=1, description="Requests that TikTok permits the app in a second.")
    quota_per_minute: int = Field(default=600, ge=1, description="Requests that TikTok permits the app in a minute.")
    quota_per_account_minute: int = Field(
        default=40, ge=1, description="Requests that TikTok permits in a minute for one account and endpoint."
    )
    in_doubt_retry: Literal["once", "never"] = Field(
        default="once", description="Whether an attempt in doubt is sent a second time at once, under the same lease."
    )

    lease_seconds: float = Field(default=120, gt=0, le=3600, description="How long a claim on a grant lasts.")
    connect_seconds: float = Field(default=5, gt=0, le=60, description="Longest time to connect to TikTok.")
    deadline_seconds: float = Field(default=45, gt=0, le=600, description="Longest time of a whole call to TikTok.")
    state_seconds: int = Field(default=600, ge=60, le=86400, description="Life of a consent link's `state`.")
    snapshots_kept: int = Field(default=30, ge=1, le=10000, description="Snapshots kept for each creator.")
    pull_seconds: float | None = Field(
        default=None,
        ge=60,
        le=2_592_000,
        description="Longest time between two pulls of a creator's account data. A pull follows each refresh, and "
        "each resource has its own schedule without this setting too.",
    )

    pull_resources: CommaList = Field(
        default=("videos",),
        description=(
            "What is pulled beside the account, where the creator's scopes allow it, separated by commas: `videos`, "
            "`comments` (with replies), `mentions`; `none` for the account alone."
        ),
    )
    benchmark_categories: CommaList = Field(
        default=(),
        description=(
            "Categories whose benchmark is pulled once a day, such as `BEAUTY,FOOD_AND_BEVERAGE`, separated by commas."
        ),
    )
    pull_budget: int = Field(
        default=200, ge=1, le=100_000, description="Most requests for one creator's account data in a UTC day."
    )
    raw_answer_days: float = Field(
        default=3,
        ge=0,
        le=365,
        description="Days for which the answers of pulls are kept as they came; 0 keeps only those with a doubt.",
    )
    comment_days: float = Field(
        default=90,
        ge=1,
        le=3650,
        description="Days for which what other people wrote, comments and mentions, is kept after it was last read.",
    )
    account_history_days: float | None = Field(
        default=None,
        ge=60,
        description="Days for which the history of account data is kept; without this setting it is kept for good.",
    )
    lost_pairs_days: float = Field(
        default=30,
        ge=1,
        le=3650,
        description="Days after which the tokens of a creator who has to authorize again are wiped.",
    )

    metrics_port: int | None = Field(default=None, ge=1, le=65535, description="Port of the Prometheus metrics.")
    metrics_address: str = Field(
        default="127.0.0.1",
        description="Address that the metrics are served on; `0.0.0.0` or `::` for all, since they have no password.",
    )
    exporter_port: int = Field(
        default=8421, ge=1, le=65535, description="Port of `evertoken exporter`; its address is that of the metrics."
    )
    notice_url: str | None = Field(
        default=None,
        repr=False,
        description=(
            "Where notices are posted as signed JSON: an address, or several separated by blanks, each followed by the "
            "kinds that it gets if those are not all: `https://a.example/hook grant.* https://b.example/hook app.*`."
        ),
    )
    notice_secret: Secret | None = Field(
        default=None,
        description="Secret of the notices' signature, `whsec_...`; `evertoken notices secret` makes one.",
    )
    notice_secret_next: Secret | None = Field(
        default=None,
        description="A second secret while the first is replaced: notices bear a signature of each.",
    )

    desk_address: str = Field(
        default="127.0.0.1",
        description="Address that the desk listens on; `0.0.0.0` or `::` for all. It speaks plain HTTP: put a proxy "
        "with TLS before it.",
    )
    desk_port: int = Field(default=8420, ge=1, le=65535, description="Port of the desk.")
    desk_url: str | None = Field(
        default=None,
        description=(
            "Where people reach the desk, such as `https://connect.example.com`. Consent links then lead to its pages; "
            "without it they lead to TikTok, and the desk is for this host alone."
        ),
    )
    desk_secret: Secret | None = Field(
        default=None,
        description="Signs the desk's sessions and forms: 32 characters or more, such as of `openssl rand -hex 32`.",
    )
    desk_password: Secret | None = Field(
        default=None, description="Password of the desk's pages for operators, 12 characters or more."
    )
    desk_operator_header: str | None = Field(
        default=None,
        description="Header in which a proxy names the operator that it has let in, such as `Remote-User`; then there "
        "is no password. It is taken from `EVERTOKEN_DESK_PROXIES` alone.",
    )
    desk_operators: CommaList = Field(
        default=(), description="Operators that such a proxy may name, separated by commas; needed with that header."
    )
    desk_proxies: CommaList = Field(
        default=(),
        description="Addresses or networks of proxies whose `X-Forwarded-For` and header of operators are taken, "
        "separated by commas, such as `10.0.0.7, 10.1.0.0/16`.",
    )

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        problems = [
            *_bad_words(self), *_bad_addresses(self), *_bad_notices(self), *_bad_places(self), *_bad_desk(self),
            *_bad_pulls(self),
            *_contradictions(self),
        ]  # fmt: skip
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def notice_addresses(self) -> list[NoticeAddress]:
        """The addresses of notices, each with the kinds that it gets."""
        return read_notice_addresses(f"{PREFIX}NOTICE_URL", self.notice_url or "")

    @property
    def notice_secrets(self) -> list[Token]:
        """The secrets that notices are signed with: one, or two while one takes the place of the other."""
        return [secret for secret in (self.notice_secret, self.notice_secret_next) if secret is not None]

    @property
    def desk_page(self) -> str | None:
        """Where people reach the desk, without a slash at the end; None if consent links lead to TikTok at once."""
        return None if self.desk_url is None else self.desk_url.rstrip("/")

    @property
    def sandboxed(self) -> bool:
        """True if the API's base is on loopback: a stand-in, whose quota may have any value."""
        return on_loopback(self.tiktok_base_url)


def load_settings(environ: Mapping[str, str] | None = None, *, dotenv: Path | None = Path(".env")) -> Settings:
    """Read all settings; see `load`."""
    return load(Settings, environ, dotenv=dotenv)


def load(kind: type[T], environ: Mapping[str, str] | None = None, *, dotenv: Path | None = Path(".env")) -> T:
    """Read the settings of a kind; quotes, blanks and marks that pasting left around a value are removed.

    Args:
        kind: the class of settings to read; names of its siblings are known and ignored.
        environ: the environment; the process's own by default.
        dotenv: a file of `NAME=value` lines, over which the environment takes precedence; None reads none.

    Raises:
        ConfigurationError: its text has every problem: the name, and what was expected; no value is echoed.
    """
    problems: list[str] = []
    given: dict[str, str] = {}
    try:
        given |= ours(in_dotenv(dotenv), problems)
    except ConfigurationError as error:
        problems.append(str(error))
    given |= ours(os.environ if environ is None else environ, problems)
    problems.extend(_unknown(given))
    values: dict[str, str] = {}
    for field in kind.model_fields:
        name, lines = PREFIX + field.upper(), field in LINES
        try:
            if name in given and (value := cleaned(given[name], name, lines=lines)):
                values[field] = value
            elif file := cleaned(given.get(f"{name}_FILE", ""), f"{name}_FILE"):
                values[field] = read_file(Path(file), f"{name}_FILE: the file", lines=lines)
        except ConfigurationError as error:
            problems.append(str(error))
    if not problems:
        try:
            read = kind.model_validate(values)
            failpoint_of(given, sandboxed=not isinstance(read, Settings) or read.sandboxed)
        except ValidationError as error:
            problems.extend(_explain(kind, error))
        else:
            return read
    raise ConfigurationError("; ".join(problems))


def secret_files() -> list[tuple[str, Path]]:
    """Return the name and path of each file that secrets are read from; `.env` counts if it holds a secret."""
    dotenv = Path(".env")
    inside, problems = dict(ours(in_dotenv(dotenv), [])), list[str]()
    outside = dict(ours(os.environ, problems))
    found = [
        (f"{PREFIX}{field.upper()}_FILE", Path(cleaned(file, "")))
        for field in SECRETS
        if PREFIX + field.upper() not in outside | inside
        and (file := (inside | outside).get(f"{PREFIX}{field.upper()}_FILE"))
    ]
    if any(PREFIX + field.upper() in inside for field in SECRETS):
        found.append((str(dotenv), dotenv))
    return found


def _unknown(given: Mapping[str, str]) -> Iterator[str]:
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    known |= {f"{name}_FILE" for name in known} | TEST_SWITCHES
    for name in sorted(set(given) - known):
        near = _near(name.removeprefix(PREFIX), sorted(each.removeprefix(PREFIX) for each in known - TEST_SWITCHES))
        similar = " or ".join(PREFIX + each for each in near)
        yield f"{name} is not a setting" + (f"; did you mean {similar}?" if near else "")


def _near(typed: str, known: list[str]) -> list[str]:
    """Return the name that is spelt nearly so, or else the few that hold all of the typed words."""
    near = difflib.get_close_matches(typed, known, n=1, cutoff=0.8)
    longer = [name for name in known if set(typed.split("_")) < set(name.split("_")) and not name.endswith("_FILE")]
    return near or (longer if len(longer) <= MOST_NEAR else [])


def _explain(kind: type[BaseModel], error: ValidationError) -> Iterator[str]:
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        if not item["loc"]:
            yield item["msg"].removeprefix("Value error, ")
            continue
        name = PREFIX + str(item["loc"][0]).upper()
        if item["type"] == "missing":
            yield f"{name} is missing (or name a file that holds it in {name}_FILE)"
        elif item["type"] in WRONG_WORDS:
            yield f"{name} must be {_expected(kind.model_fields[str(item['loc'][0])])}"
        else:
            yield f"{name}: {item['msg'].removeprefix('Value error, ')}"


def _expected(field: FieldInfo) -> str:
    """Return what a number, or a choice, may be."""
    wanted = [each for each in get_args(field.annotation) if each is not type(None)] or [field.annotation]
    if not isinstance(wanted[0], type):
        return " or ".join(map(str, wanted))
    bounds = {"gt": "more than", "ge": "at least", "le": "at most"}
    limits = ((word, getattr(limit, name, None)) for name, word in bounds.items() for limit in field.metadata)
    parts = [f"{word} {limit}" for word, limit in limits if limit is not None]
    return f"a {'whole ' if wanted[0] is int else ''}number, {' and '.join(parts)}"


def lease_needed(settings: Settings) -> float:
    """Return the shortest lease, in seconds, that outlasts what is done under it."""
    sends = 2 if settings.in_doubt_retry == "once" else 1
    pause = settings.deadline_seconds * RETRY_PAUSE_SHARE * (sends - 1)
    return sends * settings.deadline_seconds + pause + settings.store_seconds


def _contradictions(settings: Settings) -> Iterator[str]:
    needed = lease_needed(settings)
    if settings.lease_seconds < needed:
        yield (
            f"{PREFIX}LEASE_SECONDS is {settings.lease_seconds:g} and must be at least {needed:g}: it has to outlast "
            f"the calls of at most {PREFIX}DEADLINE_SECONDS={settings.deadline_seconds:g}, one retry, and the "
            f"writing of the result ({PREFIX}STORE_SECONDS={settings.store_seconds:g})"
        )
    if settings.broker_url is not None and "redis_url" not in settings.model_fields_set:
        yield (
            f"{PREFIX}REDIS_URL is missing: {PREFIX}BROKER_URL names RabbitMQ, which carries messages and cannot count "
            "the quota; name the Redis that all workers share"
        )
    if settings.connect_seconds > settings.deadline_seconds:
        yield f"{PREFIX}CONNECT_SECONDS is longer than {PREFIX}DEADLINE_SECONDS"
    if not settings.sandboxed:
        for name, value, highest in (
            ("QUOTA_PER_SECOND", settings.quota_per_second, HIGHEST.per_second),
            ("QUOTA_PER_MINUTE", settings.quota_per_minute, HIGHEST.per_minute),
        ):
            if value > highest:
                yield f"{PREFIX}{name} is {value}, above TikTok's highest tier of {highest}"


def _is_named(url: str, hosts: tuple[str, ...]) -> bool:
    return (urlsplit(url).hostname or "") in {host.lower() for host in hosts}


def _bad_words(settings: Settings) -> Iterator[str]:
    secret, other = settings.tiktok_app_secret, settings.tiktok_app_secret_next
    for field, word in (
        ("TIKTOK_APP_ID", settings.tiktok_app_id),
        ("TIKTOK_APP_SECRET", secret.reveal()),
        ("TIKTOK_APP_SECRET_NEXT", other.reveal() if other else "-"),
    ):
        if not TIKTOKS_WORD.fullmatch(word):
            yield f"{PREFIX}{field} holds a blank, a quote, a backslash or what is not ASCII: copy it from the portal"


def _bad_addresses(settings: Settings) -> Iterator[str]:
    for field in ("tiktok_base_url", "tiktok_authorize_url", "tiktok_redirect_uri"):
        name, url, tiktoks = PREFIX + field.upper(), getattr(settings, field), field in TIKTOKS_ADDRESSES
        if not url:
            continue
        if problem := bad_url(name, url, bare=tiktoks):
            yield problem
        elif tiktoks and not (is_tiktoks(url) or on_loopback(url) or _is_named(url, settings.tiktok_foreign_hosts)):
            yield (
                f"{name} leads to a host that is not TikTok's, which would get the app's secret and tokens: correct "
                f"it, or name that host in {PREFIX}TIKTOK_FOREIGN_HOSTS"
            )


def _bad_pulls(settings: Settings) -> Iterator[str]:
    unknown = sorted(set(settings.pull_resources) - PULLED)
    if unknown:
        yield f"{PREFIX}PULL_RESOURCES names {', '.join(unknown)}; there are {', '.join(sorted(PULLED))}"
    for category in settings.benchmark_categories:
        if not CATEGORY.fullmatch(category):
            yield f"{PREFIX}BENCHMARK_CATEGORIES: {category!r} is no category: TikTok's are words such as BEAUTY"


def _bad_notices(settings: Settings) -> Iterator[str]:
    if (settings.notice_url or settings.notice_secret_next) and settings.notice_secret is None:
        given = "URL" if settings.notice_url else "SECRET_NEXT"
        yield (
            f"{PREFIX}NOTICE_{given} is set and {PREFIX}NOTICE_SECRET is missing: notices are signed; "
            "`evertoken notices secret` makes a secret"
        )
    try:
        _ = settings.notice_addresses
    except ConfigurationError as error:
        yield str(error)
    for field, secret in (("SECRET", settings.notice_secret), ("SECRET_NEXT", settings.notice_secret_next)):
        try:
            _ = secret and webhook_key(secret)
        except ValueError as error:
            yield f"{PREFIX}NOTICE_{field}: {error}; copy it again, or make one with `evertoken notices secret`"


def _bad_places(settings: Settings) -> Iterator[str]:
    if not is_ip_address(settings.metrics_address):
        yield f"{PREFIX}METRICS_ADDRESS must be an IP address of this host, such as 127.0.0.1 or 0.0.0.0"
    if settings.egress_proxy and (problem := bad_proxy(f"{PREFIX}EGRESS_PROXY", settings.egress_proxy)):
        yield problem
    if settings.ca_file and (problem := bad_authorities(f"{PREFIX}CA_FILE", settings.ca_file)):
        yield problem


def _bad_desk(settings: Settings) -> Iterator[str]:
    if not is_ip_address(settings.desk_address):
        yield f"{PREFIX}DESK_ADDRESS must be an IP address of this host, such as 127.0.0.1 or 0.0.0.0"
    if settings.desk_url is not None and (problem := bad_url(f"{PREFIX}DESK_URL", settings.desk_url, bare=True)):
        yield problem
    elif settings.desk_url is not None and urlsplit(settings.desk_url).path not in {"", "/"}:
        yield f"{PREFIX}DESK_URL must be a scheme and a host: the desk has a host of its own"
    for field, secret, least in (
        ("SECRET", settings.desk_secret, SHORTEST_DESK_SECRET),
        ("PASSWORD", settings.desk_password, SHORTEST_DESK_PASSWORD),
    ):
        if secret is not None and len(secret.reveal()) < least:
            yield f"{PREFIX}DESK_{field} has fewer than {least} characters"
    if any(not is_network(each) for each in settings.desk_proxies):
        yield f"{PREFIX}DESK_PROXIES must be IP addresses or networks such as 10.1.0.0/16, separated by commas"
    if settings.desk_operator_header is not None:
        if not HEADER.fullmatch(settings.desk_operator_header):
            yield f"{PREFIX}DESK_OPERATOR_HEADER must be the name of a header, such as Remote-User"
        if not (settings.desk_proxies and settings.desk_operators):
            yield (
                f"{PREFIX}DESK_OPERATOR_HEADER needs {PREFIX}DESK_PROXIES, the proxies that may set it, and "
                f"{PREFIX}DESK_OPERATORS, the names that they may give"
            )
