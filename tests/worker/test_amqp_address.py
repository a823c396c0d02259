"""RabbitMQ's address: what Celery and our own look read in it, and which addresses are refused."""

from __future__ import annotations

from pathlib import Path
from ssl import CERT_NONE, CERT_REQUIRED

import pytest

from tests.worker.test_settings import GOOD, refusal
from worker.amqp_address import amqp_url, read_amqp
from worker.settings import MessengerSettings, load, load_settings

REDIS = {"EVERTOKEN_REDIS_URL": "redis://cache/1"}


def test_the_parts_of_an_address_are_read_unquoted() -> None:
    """The port that nobody wrote is RabbitMQ's, and no password is shown."""
    read = read_amqp("amqp://ever%40token:pass%2Fword@rabbit.example/our%2Fhost")

    assert (read.host, read.port, read.vhost, read.user) == ("rabbit.example", 5672, "our/host", "ever@token")
    assert read.password == "pass/word"
    assert read.tls == {}
    assert "word" not in repr(read)


@pytest.mark.parametrize("path", ["", "/", "//", "/%2F"])
def test_without_a_name_the_virtual_host_is_rabbitmqs_own(path: str) -> None:
    """All the ways in which people write it, for Celery as for us."""
    from kombu.utils.url import parse_url  # noqa: PLC0415 - here alone

    url = f"amqp://u:p@[::1]:5673{path}"

    assert (read_amqp(url).host, read_amqp(url).port, read_amqp(url).vhost) == ("::1", 5673, "/")
    assert parse_url(amqp_url(url))["virtual_host"] in {None, "", "/"}


def test_with_tls_certificate_and_host_are_checked_unless_the_address_asks_for_less(tmp_path: Path) -> None:
    """As for Redis; py-amqp itself would check neither."""
    file = tmp_path / "ca.pem"
    file.touch()
    url = "amqps://u:p@rabbit.example/"

    assert read_amqp(url).port == 5671
    assert read_amqp(url).tls == {"cert_reqs": CERT_REQUIRED, "server_hostname": "rabbit.example"}
    assert read_amqp(f"{url}?ssl_ca_certs={file}").tls["ca_certs"] == str(file)
    assert read_amqp(f"{url}?ssl_check_hostname=false").tls == {"cert_reqs": CERT_REQUIRED}
    assert read_amqp(f"{url}?ssl_cert_reqs=none").tls == {"cert_reqs": CERT_NONE}
    assert amqp_url(f"{url}?ssl_cert_reqs=none") == url


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("redis://canary/0", "EVERTOKEN_BROKER_URL must begin with amqp:// or amqps://"),
        ("pyamqp://canary", "must begin with amqp:// or amqps://"),
        ("amqp:canary", "must begin with amqp:// or amqps://"),
        ("amqp://", "must name one host"),
        ("amqp://u:canary@/x", "must name one host"),
        ("amqp://u:canary@one,two/x", "EVERTOKEN_BROKER_URL"),
        ("amqp://u:canary@one;amqp://u:canary@two", "EVERTOKEN_BROKER_URL"),
        ("amqp://u:can/ary@host/x", "cannot be read"),
        ("amqp://u:can#ary@host/x", "cannot be read"),
        ("amqp://u:p@host:canary/x", "cannot be read"),
        ("amqp://u:p@host/canary/x", "a / in its name is written %2F"),
        ("amqp://u:p@host/canary?heartbeat=5", "holds the option 'heartbeat', and amqp:// takes none"),
        ("amqp://u:p@host/canary?ssl_ca_certs=x", "holds the option 'ssl_ca_certs', and amqp:// takes none"),
        ("amqps://u:p@host/canary?ssl_ca_certs=/nowhere/canary", "there is no file where ssl_ca_certs says"),
        ("amqps://u:p@host/canary?ssl_cert_reqs=maybe", "none of required, optional and none"),
    ],
)
def test_an_address_that_a_library_would_stumble_over_is_refused(url: str, complaint: str) -> None:
    """A sentence says what is wrong, and shows no part of the address."""
    said = refusal(BROKER_URL=url, REDIS_URL="redis://cache/1")

    assert complaint in said
    assert "canary" not in said


def test_rabbitmq_needs_a_redis_for_the_quota() -> None:
    """Nobody counts the quota on an address that nobody wrote; beat, which counts nothing, needs the broker alone."""
    rabbit = {"EVERTOKEN_BROKER_URL": "amqp://u:p@rabbit/x"}

    assert "EVERTOKEN_REDIS_URL is missing: EVERTOKEN_BROKER_URL names RabbitMQ" in refusal(
        BROKER_URL="amqp://u:p@rabbit/x", REDIS_URL=None
    )
    assert load_settings(GOOD | REDIS | rabbit, dotenv=None).broker_url == "amqp://u:p@rabbit/x"
    assert load(MessengerSettings, rabbit, dotenv=None).broker_url == "amqp://u:p@rabbit/x"
    assert "u:p" not in repr(load_settings(GOOD | REDIS | rabbit, dotenv=None))
