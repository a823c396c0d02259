"""The doctor's line about Sentinels: which server is the master, and which of them weaken that."""

from __future__ import annotations

import pytest

from tests.worker.test_settings import GOOD
from worker.cli.checks_outside import sentinels
from worker.limiter.connecting import SentinelView, ask_sentinels
from worker.settings import load_settings

SETTINGS = load_settings(
    GOOD | {"EVERTOKEN_REDIS_URL": "sentinel://:canary@127.0.0.1:1,127.0.0.1:2/0?service=main"}, dotenv=None
)
NONE = "no Sentinel names a master that is up, so each worker keeps to its own share of the quota"
WELL = SentinelView("a:1", master="m:6379", replicas=1)


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
            [WELL, SentinelView("b:2", master="n:6379", replicas=1)],
            "warn",
            "m:6379 is the master, as 1 of 2 Sentinels say; n:6379 is the master, as 1 of 2 Sentinels say",
        ),
        (
            [SentinelView("b:2", master="m:6379")],
            "warn",
            "m:6379 is the master, as 1 of 1 Sentinel say; no replica is up for b:2",
        ),
        (
            [SentinelView("b:2", master="m:6379", down=True, replicas=1)],
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

    found = sentinels(SETTINGS)

    assert (found.state, found.detail) == (state, detail)


def test_sentinels_that_do_not_answer_are_a_failure_with_their_places() -> None:
    """Nothing listens there; the text shows no password, and lines that would blame something else are left out."""
    views = ask_sentinels(SETTINGS.redis_url, 0.5)
    found = sentinels(SETTINGS)

    assert [view.answers for view in views] == [False, False]
    assert found.state == "fail"
    assert found.detail.endswith("no answer from 127.0.0.1:1, 127.0.0.1:2")
    assert "canary" not in found.detail
    assert "redis" in found.hides
