"""Redis's address: what Celery and the limiter read in it, and which addresses of Sentinels are refused."""

from __future__ import annotations

from ssl import CERT_NONE, CERT_REQUIRED

import pytest

from tests.worker.test_settings import GOOD, refusal
from worker.redis_address import broker_address, broker_options, read_sentinels, redis_tls
from worker.settings import load_settings

SENTINELS = "sentinel://user:pass%2Fword@one,two:26380,[::1]:26381/3?service=main.1&sentinel_password=other%26word"


@pytest.mark.parametrize("url", ["redis://:p@host/1", "rediss://host", "redis+socket:///run/x.sock"])
def test_an_address_of_one_server_is_celerys_as_it_is(url: str) -> None:
    """Nothing changes for those who have no Sentinels."""
    assert broker_address(url) == url
    assert broker_options(url, seconds=2) == {}
    assert read_sentinels(url) is None


def test_the_sentinels_of_an_address_are_read() -> None:
    """The port that nobody wrote is that of Sentinel; each login goes to its own servers, unquoted."""
    read = read_sentinels(SENTINELS)

    assert read is not None
    assert read.hosts == (("one", 26379), ("two", 26380), ("::1", 26381))
    assert (read.service, read.database, read.tls) == ("main.1", 3, {})
    assert read.login == {"username": "user", "password": "pass/word"}
    assert read.sentinel_login == {"password": "other&word"}
    assert "word" not in repr(read)


def test_celery_gets_each_sentinel_by_itself_with_the_login_of_the_servers() -> None:
    """Its transport wants one address a Sentinel, and their own login as an option."""
    assert broker_address(SENTINELS).split(";") == [
        f"sentinel://user:pass%2Fword@{place}/3" for place in ("one:26379", "two:26380", "[::1]:26381")
    ]
    assert broker_options(SENTINELS, seconds=2) == {
        "master_name": "main.1",
        "sentinel_kwargs": {"socket_timeout": 2, "socket_connect_timeout": 2, "password": "other&word"},
    }


def test_with_tls_certificates_of_sentinels_and_servers_are_checked() -> None:
    """Only the address can ask for less."""
    url = "sentinels://one,two/0?service=main"

    assert redis_tls(url) == {"ssl_cert_reqs": CERT_REQUIRED}
    assert broker_options(url, seconds=2)["sentinel_kwargs"]["ssl"] is True
    assert broker_options(url, seconds=2)["sentinel_kwargs"]["ssl_cert_reqs"] == CERT_REQUIRED
    assert broker_address(url) == "sentinel://one:26379/0;sentinel://two:26379/0"
    assert redis_tls(f"{url}&ssl_cert_reqs=none")["ssl_cert_reqs"] == CERT_NONE


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("sentinel://:canary@one,two/0", "by which name the Sentinels know the master"),
        ("sentinel://:canary@one,two/0?service=", "by which name the Sentinels know the master"),
        ("sentinel://:canary@one,two/0?service=a b", "by which name"),
        ("sentinel://:canary@/0?service=main", "must name the Sentinels"),
        ("sentinel://:canary@one,,two/0?service=main", "must name the Sentinels"),
        ("sentinel://:canary@one:x,two/0?service=main", "cannot be read"),
        ("sentinel://:canary@one:0,two/0?service=main", "cannot be read"),
        ("sentinel://:canary@one:70000/0?service=main", "cannot be read"),
        ("sentinel://:can@ary@one/0?service=main", "cannot be read"),
        ("sentinel://:canary@one/0?service=main#x", "cannot be read"),
        ("sentinel://:canary@one/name?service=main", "ends with the number of the database"),
        ("sentinel://:canary@one/0?service=main&ssl_ca_certs=x", "the option 'ssl_ca_certs'"),
        ("sentinels://:canary@one/0?service=main&ssl_ca_certs=/none", "no file where ssl_ca_certs says"),
        ("sentinel://:canary@one/0?service=main&socket_timeout=1", "timeouts are ours to set"),
        ("redis://:canary@one,two/0?service=main", ""),
    ],
)
def test_an_address_of_sentinels_that_cannot_be_used_is_refused(url: str, complaint: str) -> None:
    """The text says what to write, and shows no password."""
    said = refusal(REDIS_URL=url)

    assert said.startswith("EVERTOKEN_REDIS_URL")
    assert complaint in said


def test_settings_take_an_address_of_sentinels() -> None:
    """Its passwords are not shown."""
    settings = load_settings(GOOD | {"EVERTOKEN_REDIS_URL": SENTINELS}, dotenv=None)

    assert settings.redis_url == SENTINELS
    assert "word" not in repr(settings).replace("password", "")
