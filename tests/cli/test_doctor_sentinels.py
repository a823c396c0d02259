"""The doctor's line about Sentinels: which server is the master, and which of them weaken that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ServerProcess
from tests.support.certificates import new_authority, server_context
from tests.support.tls_front import TlsFront
from tests.worker.test_settings import GOOD
from worker.cli.checks_outside import sentinels
from worker.limiter.connecting import SentinelView, ask_sentinels
from worker.settings import load_settings

SETTINGS = load_settings(
    GOOD | {"EVERTOKEN_REDIS_URL": "sentinel://:canary@127.0.0.1:1,127.0.0.1:2/0?service=main"}, dotenv=None
)
NONE = "no Sentinel names a master that is up, so each worker keeps to its own share of the quota"
REPLICA = frozenset({("r", 6379)})
WELL = SentinelView("a:1", master="m:6379", replicas=REPLICA)


@pytest.mark.parametrize(
    ("views", "state", "detail"),
    [
        ([WELL, WELL], "ok", "m:6379 is the master, as 2 of 2 Sentinels say"),
        (
            [WELL, SentinelView("b:2", answers=False)],
            "warn",
            "m:6379 is the master, as 1 of 2 Sentinels say; no answer from b:2",
        ),
        (
            [WELL, SentinelView("b:2")],
            "warn",
            "m:6379 is the master, as 1 of 2 Sentinels say; the name in ?service= is not known to b:2",
        ),
        (
            [WELL, SentinelView("b:2", master="n:6379", replicas=REPLICA)],
            "warn",
            "m:6379 is the master, as 1 of 2 Sentinels say; n:6379 is the master, as 1 of 2 Sentinels say",
        ),
        (
            [SentinelView("b:2", master="m:6379")],
            "warn",
            "m:6379 is the master, as 1 of 1 Sentinel say; no replica is up for b:2",
        ),
        (
            [SentinelView("b:2", master="m:6379", down=True, replicas=REPLICA)],
            "fail",
            f"{NONE}; the master is down for b:2",
        ),
    ],
)
def test_the_doctor_says_who_is_master_and_what_weakens_it(
    views: list[SentinelView], state: str, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is not as it should be is named with its place."""
    monkeypatch.setattr("worker.limiter.connecting.ask_sentinels", lambda *_: views)
    monkeypatch.setattr("worker.limiter.connecting.try_replicas", lambda *_: {})

    found = sentinels(SETTINGS)

    assert (found.state, found.detail) == (state, detail)


def test_a_replica_that_could_not_be_the_next_master_is_named_before_it_is_one(
    redis_server: ServerProcess, free_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is known by an address that its certificate does not have, at one nothing listens, and one would do."""
    authority = new_authority(tmp_path)
    with TlsFront(redis_server.port, server_context(tmp_path, authority)) as front:
        replicas = frozenset({("127.0.0.1", front.port), ("localhost", front.port), ("127.0.0.1", free_port)})
        view = SentinelView("a:1", master=f"localhost:{front.port}", replicas=replicas)
        monkeypatch.setattr("worker.limiter.connecting.ask_sentinels", lambda *_: [view])
        url = f"sentinels://localhost:1/0?service=main&ssl_ca_certs={authority.file}"

        found = sentinels(load_settings(GOOD | {"EVERTOKEN_REDIS_URL": url}, dotenv=None))

    assert found.state == "warn"
    assert (
        f"the replica 127.0.0.1:{front.port} could not be the next master: its certificate is refused: " in found.detail
    )
    assert f"the replica 127.0.0.1:{free_port} could not be the next master: does not answer: " in found.detail
    assert f"connecting to 127.0.0.1:{free_port}. Connection refused; docs/" in found.detail
    assert f"localhost:{front.port} could not" not in found.detail


def test_sentinels_that_do_not_answer_are_a_failure_with_their_places() -> None:
    """Nothing listens there; the text shows no password, and lines that would blame something else are left out."""
    views = ask_sentinels(SETTINGS.redis_url, 0.5)
    found = sentinels(SETTINGS)

    assert [view.answers for view in views] == [False, False]
    assert found.state == "fail"
    assert found.detail.endswith("no answer from 127.0.0.1:1, 127.0.0.1:2")
    assert "canary" not in found.detail
    assert "redis" in found.hides
