"""Settings: their sources, and what is refused."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from worker.errors import ConfigurationError
from worker.settings import Settings, load_settings

GOOD = {
    "EVERTOKEN_TIKTOK_APP_ID": "app",
    "EVERTOKEN_TIKTOK_APP_SECRET": "s3cret-canary",
    "EVERTOKEN_TIKTOK_REDIRECT_URI": "https://app.example/callback/",
    "EVERTOKEN_KEYRING": "keyring-canary",
}


def refusal(**changes: str | None) -> str:
    """Return the text with which these settings are refused."""
    environ = {**GOOD, **{f"EVERTOKEN_{name}": value for name, value in changes.items()}}
    with pytest.raises(ConfigurationError) as caught:
        load_settings({name: value for name, value in environ.items() if value is not None}, dotenv=None)
    assert caught.value.__cause__ is None
    assert "canary" not in str(caught.value)
    return str(caught.value)


def test_defaults_are_those_of_production() -> None:
    """With only the required names, the lease outlasts its calls and the API is TikTok's own."""
    settings = load_settings(GOOD, dotenv=None)

    assert settings.tiktok_base_url == "https://business-api.tiktok.com/open_api"
    assert settings.renew_at == pytest.approx(2 / 3)
    assert settings.lease_seconds == 120
    assert not settings.sandboxed


def test_no_secret_is_shown() -> None:
    """The settings' own repr holds neither secrets nor the addresses that may hold passwords."""
    environ = GOOD | {
        "EVERTOKEN_DATABASE_URL": "postgresql://u:canary@db/x",
        "EVERTOKEN_REDIS_URL": "redis://:canary@cache/0",
    }

    assert "canary" not in repr(load_settings(environ, dotenv=None))


def test_all_missing_names_are_reported_at_once() -> None:
    """A first start names everything that is needed, and how to give it by a file."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings({}, dotenv=None)

    for name in GOOD:
        assert f"{name} is missing" in str(caught.value)
    assert "EVERTOKEN_KEYRING_FILE" in str(caught.value)


def test_an_unknown_name_is_refused_with_the_nearest_known_one() -> None:
    """A mistyped name does not silently leave the default in force."""
    assert "did you mean EVERTOKEN_RENEW_AT?" in refusal(RENEWAT="0.5")
    assert "EVERTOKEN_QQQQ is not a setting" in refusal(QQQQ="1")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("METRIC_PORT", ["METRICS_PORT"]),
        ("LEASE_SECOND", ["LEASE_SECONDS"]),
        ("KEYRING_FILES", ["KEYRING_FILE"]),
        ("REDIS", ["REDIS_URL"]),
        ("APP_ID", ["TIKTOK_APP_ID"]),
        ("NOTICE", ["NOTICE_SECRET", "NOTICE_SECRET_NEXT", "NOTICE_URL"]),
        *(
            (name, [])
            for name in ("BOGUS", "DEBUG", "USER", "WORKERS", "TOKEN", "HOST", "SECONDS", "BOGUS_FILE", "QQQQ")
        ),
    ],
)
def test_only_what_is_close_is_suggested(typed: str, meant: list[str]) -> None:
    """A name that resembles a setting by the common prefix alone leads nobody astray."""
    complaint = refusal(**{typed: "1"})

    assert f"EVERTOKEN_{typed} is not a setting" in complaint
    assert ("did you mean " + " or ".join(f"EVERTOKEN_{name}" for name in meant) + "?" in complaint) is bool(meant)
    assert ("did you mean" in complaint) is bool(meant)


@pytest.mark.parametrize(
    ("name", "values", "complaint"),
    [
        ("SCAN_SECONDS", ["nan", "inf", "-1", "0", "10s", "1,5", "x"], "a number, more than 0 and at most 300"),
        ("RENEW_AT", ["nan", "2/3", "66%", "1"], "a number, at least 0.1 and at most 0.85"),
        ("QUOTA_PER_SECOND", ["nan", "1.5", "x", "0"], "a whole number, at least 1"),
        ("METRICS_PORT", ["nan", "99999", "http"], "a whole number, at least 1 and at most 65535"),
        ("PULL_SECONDS", ["nan", "daily", "5"], "a number, at least 60 and at most 2592000"),
        ("LOG_FORMAT", ["xml", "JSON"], "json or console"),
        ("LOG_LEVEL", ["TRACE", "debug"], "DEBUG or INFO or WARNING or ERROR"),
        ("IN_DOUBT_RETRY", ["maybe"], "once or never"),
    ],
)
def test_the_error_for_a_wrong_value_names_what_fits(name: str, values: list[str], complaint: str) -> None:
    """The sentence says what may stand there, whichever way the value fails."""
    for value in values:
        assert f"EVERTOKEN_{name} must be {complaint}" in refusal(**{name: value})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"LEASE_SECONDS": "60"}, "EVERTOKEN_LEASE_SECONDS is 60 and must be at least 100"),
        ({"LEASE_SECONDS": "49", "IN_DOUBT_RETRY": "never"}, "must be at least 50"),
        ({"CONNECT_SECONDS": "50"}, "EVERTOKEN_CONNECT_SECONDS is longer"),
        ({"TIKTOK_BASE_URL": "http://business-api.tiktok.com"}, "https://"),
        ({"TIKTOK_BASE_URL": "http://127.0.0.1.canary.example"}, "https://"),
        ({"TIKTOK_BASE_URL": "https://[canary"}, "EVERTOKEN_TIKTOK_BASE_URL cannot be read"),
        ({"TIKTOK_BASE_URL": "https://u:canary@tiktok.com"}, "no password"),
        ({"TIKTOK_BASE_URL": "business-api.tiktok.com/open_api"}, "such as https://host/path"),
        ({"TIKTOK_BASE_URL": "https://business-api.tiktok.com:canary"}, "EVERTOKEN_TIKTOK_BASE_URL cannot be read"),
        ({"TIKTOK_REDIRECT_URI": "canary"}, "EVERTOKEN_TIKTOK_REDIRECT_URI must be a plain address"),
        ({"QUOTA_PER_SECOND": "51"}, "highest tier of 50"),
        ({"QUOTA_PER_MINUTE": "0"}, "EVERTOKEN_QUOTA_PER_MINUTE"),
        ({"RENEW_AT": "0.99"}, "EVERTOKEN_RENEW_AT"),
        ({"RENEW_AT": "canary"}, "EVERTOKEN_RENEW_AT"),
        ({"NOTICE_URL": "https://ops.example/hook"}, "EVERTOKEN_NOTICE_SECRET is missing"),
        ({"TIKTOK_BASE_URL": "https://business-api.tiktok.com/open_api?canary=1"}, "must end with its path"),
        ({"TIKTOK_BASE_URL": "https://business-api.tiktok.com/open_api#canary"}, "must end with its path"),
        ({"TIKTOK_AUTHORIZE_URL": "https://www.tiktok.com/a b-canary"}, "must be ASCII without blanks"),
        ({"NOTICE_URL": "https://canäry.example/", "NOTICE_SECRET": "canary"}, "must be ASCII without blanks"),
        ({"NOTICE_URL": "http://canary.example/", "NOTICE_SECRET": "canary"}, "must begin with https://"),
        ({"NOTICE_URL": "https://a.example http://b/", "NOTICE_SECRET": "canary"}, "must begin with https://"),
        ({"NOTICE_URL": "https://u:canary@a.example/", "NOTICE_SECRET": "canary"}, "no password"),
        ({"NOTICE_URL": "https://a.example canary", "NOTICE_SECRET": "canary"}, "a word behind address 1 is neither"),
        ({"NOTICE_URL": "https://a.example grant.canary", "NOTICE_SECRET": "canary"}, "a word behind address 1"),
        ({"NOTICE_URL": "https://a.example/ https://a.example/ app.*", "NOTICE_SECRET": "canary"}, "an address twice"),
        (
            {"NOTICE_URL": " ".join(f"https://a.example/{n}" for n in range(11)), "NOTICE_SECRET": "canary"},
            "holds 11 addresses, and 10 are the most",
        ),
        (
            {"NOTICE_SECRET_NEXT": "canary"},
            "EVERTOKEN_NOTICE_SECRET is missing: notices are signed; `evertoken notices secret`",
        ),
        (
            {"NOTICE_SECRET": "whsec_canary!"},
            "EVERTOKEN_NOTICE_SECRET: what follows whsec_ is not base64; copy it again",
        ),
        ({"NOTICE_SECRET": "whsec_Y2FuYXJ5"}, "is the base64 of 6 bytes, and a key has 24 to 64"),
        ({"NOTICE_SECRET": "whsec_"}, "is the base64 of 0 bytes"),
        ({"NOTICE_SECRET": f"whsec_{'Y2FuYXJ5' * 11}"}, "is the base64 of 66 bytes"),
        ({"NOTICE_SECRET": "canary", "NOTICE_SECRET_NEXT": "whsec_c"}, "NOTICE_SECRET_NEXT: what follows whsec_"),
        ({"EGRESS_PROXY": "https://proxy.canary:3128"}, "EVERTOKEN_EGRESS_PROXY must be http://host:port"),
        ({"EGRESS_PROXY": "socks5://proxy.canary:1080"}, "EVERTOKEN_EGRESS_PROXY must be http://host:port"),
        ({"EGRESS_PROXY": "http://proxy.canary"}, "EVERTOKEN_EGRESS_PROXY must be http://host:port"),
        ({"EGRESS_PROXY": "http://proxy.canary:3128/path"}, "EVERTOKEN_EGRESS_PROXY must be http://host:port"),
        ({"EGRESS_PROXY": "http://u:can/ary@proxy:3128"}, "EVERTOKEN_EGRESS_PROXY cannot be read"),
        ({"EGRESS_PROXY": "proxy.canary:3128"}, "EVERTOKEN_EGRESS_PROXY must be http://host:port"),
        ({"CA_FILE": "/nowhere/canary.pem"}, "EVERTOKEN_CA_FILE: the file cannot be read (No such file or directory)"),
        ({"CA_FILE": __file__}, "EVERTOKEN_CA_FILE: the file holds no certificate"),
        ({"CA_FILE": "/"}, "EVERTOKEN_CA_FILE"),
        ({"DATABASE_URL": "mysql://canary"}, "sqlite:/// or postgresql://"),
        ({"REDIS_URL": "canary"}, "redis://"),
        ({"LOG_FORMAT": "xml"}, "EVERTOKEN_LOG_FORMAT"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_contradictions_and_bad_values_are_refused(changes: dict[str, str], complaint: str) -> None:
    """Each problem is reported by name, with what was expected and without the value."""
    assert complaint in refusal(**changes)


@pytest.mark.parametrize("name", ["REDIS_URL", "DATABASE_URL"])
@pytest.mark.parametrize(
    "password", ["canary/x", "x/canary", "1/canary", "1?canary", "1#canary", "1@canary", "[canary"]
)
def test_a_password_with_signs_that_are_not_quoted_is_refused_and_not_shown(name: str, password: str) -> None:
    """What a library would take for a port or a host, and then show in its error, never reaches one."""
    scheme = "redis" if name == "REDIS_URL" else "postgresql"

    assert f"EVERTOKEN_{name} cannot be read" in refusal(**{name: f"{scheme}://user:{password}@127.0.0.1:6379/0"})


def test_a_way_to_check_certificates_that_does_not_exist_is_refused() -> None:
    """A mistyped word is named before a library that does not know it ends in a traceback."""
    complaint = refusal(REDIS_URL="rediss://:password@cache.example:6380/2?ssl_cert_reqs=canary")

    assert "EVERTOKEN_REDIS_URL holds an ssl_cert_reqs that is none of required, optional and none" in complaint


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        (
            "redis://canary/0?health_check_interval=5",
            "holds the option 'health_check_interval', and redis:// takes none",
        ),
        ("redis://canary/0?socket_timeout=5", "holds the option 'socket_timeout'"),
        ("redis://canary/0?db=3", "holds the option 'db'"),
        ("redis://canary/0?protocol", "holds the option 'protocol'"),
        ("redis://canary/0?ssl_cert_reqs=none", "holds the option 'ssl_cert_reqs'"),
        ("rediss://canary/0?ssl_foo=1", "holds the option 'ssl_foo', and rediss:// takes ssl_ca_certs"),
        ("rediss://canary/0?ssl_ca_certs=/nowhere/canary", "there is no file where ssl_ca_certs says"),
        ("rediss://canary/0?ssl_check_hostname=maybe", "ssl_check_hostname that is none of true and false"),
        ("redis+socket:///canary?foo=1", "holds the option 'foo', and redis+socket:// takes virtual_host"),
        ("redis+socket:///canary?virtual_host=x", "virtual_host is a number"),
        ("redis://canary/abc", "ends with the number of the database"),
        ("redis://canary/0/1", "ends with the number of the database"),
        ("redis://canary/-1", "ends with the number of the database"),
        ("redis://canary/%30", "ends with the number of the database"),
        ("memcached://canary/0", "must begin with redis://"),
        ("REDIS://canary/0", "must begin with redis://"),
    ],
)
def test_a_redis_address_with_what_a_library_would_stumble_over_is_refused(url: str, complaint: str) -> None:
    """Celery and the limiter read one address; what either does not know is a sentence and no traceback."""
    assert complaint in refusal(REDIS_URL=url)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("REDIS_URL", "rediss://:pass%2Fword%40@cache.example:6380/2?ssl_cert_reqs=required"),
        ("REDIS_URL", "redis+socket:///run/a@b/redis.sock?virtual_host=1"),
        ("REDIS_URL", "redis://[::1]:6379/0"),
        ("DATABASE_URL", "postgresql://u:a%23%40b@/name?host=/run/postgresql"),
        ("DATABASE_URL", "postgresql+psycopg://u:p@db/name?sslmode=require"),
        ("DATABASE_URL", "sqlite:////srv/a@b#c/evertoken.db"),
    ],
)
def test_an_address_whose_signs_are_quoted_is_taken(name: str, url: str) -> None:
    """Sockets, IPv6, options of the address and paths with odd names are accepted."""
    settings = load_settings(GOOD | {f"EVERTOKEN_{name}": url}, dotenv=None)

    assert getattr(settings, name.lower()) == url


def test_plain_http_and_any_quota_are_taken_on_loopback() -> None:
    """The sandbox is reached without TLS and may be given any quota."""
    settings = load_settings(
        GOOD | {"EVERTOKEN_TIKTOK_BASE_URL": "http://127.0.0.1:8080/open_api", "EVERTOKEN_QUOTA_PER_SECOND": "500"},
        dotenv=None,
    )

    assert settings.sandboxed


@pytest.mark.parametrize(
    "url",
    [
        "https://business-api.tiktok.com.canary.example/open_api",
        "https://canarytiktok.com/open_api",
        "https://tiktok.com.canary",
        "https://business-api.tikt0k.com/canary",
        "https://198.51.100.7/canary",
        "https://gateway.canary.example:8443",
    ],
)
def test_a_host_that_is_not_tiktoks_needs_a_switch_that_names_it(url: str) -> None:
    """A mistyped or foreign host gets no secret; one that the switch names does, within the quota of TikTok itself."""
    for name in ("TIKTOK_BASE_URL", "TIKTOK_AUTHORIZE_URL"):
        assert f"EVERTOKEN_{name} leads to a host that is not TikTok's" in refusal(**{name: url})
        assert "not TikTok's" in refusal(**{name: url, "TIKTOK_FOREIGN_HOSTS": "other.example"})

    host = urlsplit(url).hostname or ""
    named = GOOD | {"EVERTOKEN_TIKTOK_BASE_URL": url, "EVERTOKEN_TIKTOK_FOREIGN_HOSTS": f"a.example, {host.upper()}"}
    assert load_settings(named, dotenv=None).tiktok_base_url == url
    assert "highest tier" in refusal(TIKTOK_BASE_URL=url, TIKTOK_FOREIGN_HOSTS=host, QUOTA_PER_SECOND="51")


@pytest.mark.parametrize(
    "url",
    [
        "https://business-api.tiktok.com/open_api",
        "https://BUSINESS-API.TikTok.com/open_api/",
        "https://open.tiktokapis.com",
        "https://business-api.tiktok.com.:443/open_api",
        "http://127.0.0.1:8080/open_api",
        "http://[::1]:8080",
        "https://localhost:8443",
    ],
)
def test_tiktoks_hosts_and_loopback_need_no_switch(url: str) -> None:
    """Any host below TikTok's domains and any stand-in on this machine is taken."""
    assert load_settings(GOOD | {"EVERTOKEN_TIKTOK_BASE_URL": url}, dotenv=None).tiktok_base_url == url


def test_a_file_holds_a_secret(tmp_path: Path) -> None:
    """`..._FILE` names a file, whose trailing newline is not part of the value."""
    path = tmp_path / "secret"
    path.write_text("from-a-file\n")
    environ = {name: value for name, value in GOOD.items() if name != "EVERTOKEN_TIKTOK_APP_SECRET"}

    settings = load_settings(environ | {"EVERTOKEN_TIKTOK_APP_SECRET_FILE": str(path)}, dotenv=None)

    assert settings.tiktok_app_secret.reveal() == "from-a-file"


def test_a_file_that_cannot_be_read_is_named() -> None:
    """A wrong path of a secret's file stops the start, by the setting's name."""
    assert "EVERTOKEN_TIKTOK_APP_SECRET_FILE" in refusal(TIKTOK_APP_SECRET=None, TIKTOK_APP_SECRET_FILE="/nowhere")


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    """A secret's file that nobody has filled yet stops the start, by the setting's name."""
    path = tmp_path / "secret"
    path.write_text("\n")

    complaint = refusal(TIKTOK_APP_SECRET=None, TIKTOK_APP_SECRET_FILE=str(path))

    assert complaint == "EVERTOKEN_TIKTOK_APP_SECRET_FILE: the file is empty"


def test_the_environment_goes_before_dotenv(tmp_path: Path) -> None:
    """A `.env` file fills in what the environment does not say."""
    dotenv = tmp_path / ".env"
    dotenv.write_text("EVERTOKEN_RENEW_AT=0.5\nEVERTOKEN_SCAN_SECONDS=3\n")

    settings = load_settings(GOOD | {"EVERTOKEN_RENEW_AT": "0.6"}, dotenv=dotenv)

    assert settings.renew_at == 0.6
    assert settings.scan_seconds == 3


def test_every_setting_has_a_description() -> None:
    """The generated page says of each setting what it is for."""
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize("switches", [{"TEST_RUN": "1"}, {}, {"TEST_RUN": "1", "TIKTOK_FOREIGN_HOSTS": "a.example"}])
@pytest.mark.parametrize("url", ["https://business-api.tiktok.com/open_api", "https://a.example"])
def test_failpoints_are_refused_beside_a_real_address_whatever_else_is_set(switches: dict[str, str], url: str) -> None:
    """A switch of tests that was left in an environment stops a worker with real tokens at its start."""
    complaint = refusal(
        TEST_FAILPOINTS="post_recv:kill", TIKTOK_BASE_URL=url, **{"TIKTOK_FOREIGN_HOSTS": "a.example"} | switches
    )

    assert "EVERTOKEN_TEST_FAILPOINTS is set beside a real TikTok" in complaint


def test_the_metrics_are_on_loopback_by_default() -> None:
    """They have no password, so other hosts see them only if somebody says so."""
    assert load_settings(GOOD, dotenv=None).metrics_address == "127.0.0.1"
    assert load_settings(GOOD | {"EVERTOKEN_METRICS_ADDRESS": "::"}, dotenv=None).metrics_address == "::"
    assert "EVERTOKEN_METRICS_ADDRESS must be an IP address" in refusal(METRICS_ADDRESS="canary")
