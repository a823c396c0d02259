"""Redis over TLS: nothing, its password least of all, is said to a server that has not proved who it is."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.conftest import ServerProcess
from tests.support.certificates import Authority, new_authority, server_context
from tests.support.daemon import Daemon
from tests.support.tls_front import TlsFront
from worker.limiter.connecting import connect

pytestmark = pytest.mark.slow_suite

ASKED = [
    pytest.param("", id="as-it-is"),
    pytest.param("?ssl_cert_reqs=required", id="in-the-clients-word"),
    pytest.param("?ssl_cert_reqs=CERT_REQUIRED", id="in-celerys-word"),
]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Make an authority that nobody trusts without its file."""
    return new_authority(tmp_path)


@pytest.fixture
def front(redis_server: ServerProcess, authority: Authority, tmp_path: Path) -> Iterator[TlsFront]:
    """Put TLS in front of Redis, with the authority's certificate for localhost."""
    with TlsFront(redis_server.port, server_context(tmp_path, authority)) as running:
        yield running


def _call(daemon: Daemon) -> subprocess.CompletedProcess[str]:
    """Send a message as people do."""
    return daemon.run("call", "tasks.refresh.scan_due")


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("query", ASKED)
def test_a_broker_with_an_unknown_certificate_hears_nothing(
    query: str, front: TlsFront, new_daemon: Callable[..., Daemon], database_kind: str
) -> None:
    """`rediss://` checks the certificate without being asked to, and the password stays here."""
    daemon = new_daemon(REDIS_URL=f"rediss://:password@localhost:{front.port}/0{query}")

    assert _call(daemon).returncode != 0
    assert front.refused > 0
    assert not front.heard


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_broker_with_a_trusted_certificate_is_spoken_to(
    front: TlsFront, authority: Authority, new_daemon: Callable[..., Daemon], database_kind: str
) -> None:
    """An authority that the address names is enough; the broker takes the message."""
    daemon = new_daemon(REDIS_URL=f"rediss://localhost:{front.port}/0?ssl_ca_certs={authority.file}")

    done = _call(daemon)

    assert done.returncode == 0, done.stderr
    assert b"tasks.refresh.scan_due" in front.heard


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("trusted", [True, False])
def test_rabbitmq_hears_nothing_before_it_has_proved_who_it_is(
    front: TlsFront,
    authority: Authority,
    new_daemon: Callable[..., Daemon],
    redis_url: str,
    database_kind: str,
    *,
    trusted: bool,
) -> None:
    """What speaks behind the certificate here is no RabbitMQ; sender and doctor begin to talk, or do not."""
    query = f"?ssl_ca_certs={authority.file}" if trusted else ""
    daemon = new_daemon(BROKER_URL=f"amqps://u:password@localhost:{front.port}/x{query}")

    called = _call(daemon)
    by_celery = bytes(front.heard)
    looked = daemon.run("doctor", "--offline")

    assert called.returncode != 0
    assert "look at EVERTOKEN_BROKER_URL" in called.stderr
    assert b"password" not in front.heard
    assert looked.returncode == 1
    assert "RabbitMQ does not serve" in looked.stdout
    assert by_celery.startswith(b"AMQP") is trusted
    assert (len(front.heard) > len(by_celery)) is trusted
    assert (front.refused == 0) is trusted


@pytest.mark.parametrize("query", ASKED)
def test_the_limiter_says_nothing_to_an_unknown_certificate(query: str, front: TlsFront) -> None:
    """The limiter's own client is as strict, whichever word asks for it."""
    with (
        connect(f"rediss://:password@localhost:{front.port}/0{query}") as client,
        pytest.raises(redis.ConnectionError, match=r"(?i)certificate"),
    ):
        client.ping()

    assert not front.heard


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("ssl_ca_certs={file}", id="trusted"),
        pytest.param("ssl_ca_certs={file}&ssl_cert_reqs=CERT_REQUIRED&ssl_check_hostname=true", id="trusted-in-words"),
        pytest.param("ssl_cert_reqs=none", id="unchecked-as-asked"),
    ],
)
def test_the_limiter_speaks_to_a_certificate_that_it_may_trust(
    query: str, front: TlsFront, authority: Authority
) -> None:
    """What the address says about TLS reaches the limiter's client."""
    with connect(f"rediss://localhost:{front.port}/0?{query.format(file=authority.file)}") as client:
        assert client.ping()
