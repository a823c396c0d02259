"""The quota's headroom as a figure: counted from the stored fleet, and served with the metrics."""

from __future__ import annotations

import math
import socket
from datetime import timedelta
from typing import Any
from urllib.request import urlopen

import pytest

from worker.planning.headroom import LOOK_SECONDS, Headroom
from worker.store import NewConsent, Store, open_store
from worker.telemetry import Fact, metrics, serve_metrics
from worker.vault import SealedPair

LIFE = timedelta(hours=4)
HALF = LIFE.total_seconds() / 2


def keep(store: Store, count: int) -> None:
    """Store this many more grants."""
    now, known = store.ping(), store.fleet_status().total
    items = [
        NewConsent(
            creator_id=f"creator {known + number}",
            scope="user.info.basic",
            issued_at=now,
            access_expires_at=now + LIFE,
            refresh_expires_at=now + timedelta(days=365),
            next_refresh_at=now + LIFE / 2,
            jitter=0.5,
        )
        for number in range(count)
    ]
    store.save_consents(items, lambda *_: SealedPair(b"access", b"refresh", 1), replace=False)


def headroom_of(store: Store, clock: list[float]) -> Headroom:
    """Return the headroom of a quota of one request a minute, on a clock that the test sets."""
    return Headroom(store=store, renew_at=0.5, per_second=1, per_minute=1, monotonic=lambda: clock[0])


def test_the_headroom_is_the_quota_over_refreshes_and_pulls(store: Store) -> None:
    """Ten creators who are refreshed and pulled each two hours need a sixth of a request a minute."""
    headroom = headroom_of(store, [0.0])
    assert headroom.factor() == math.inf

    keep(store, 10)

    assert headroom.plan().headroom == pytest.approx(0.97 / 60 / (2 * 10 / HALF))


def test_pulls_between_refreshes_take_their_part_of_the_quota(store: Store) -> None:
    """Ten creators who are pulled every hour as well, beside each refresh of two hours, need twice as much."""
    keep(store, 10)
    headroom = Headroom(store=store, renew_at=0.5, per_second=1, per_minute=1, pull_seconds=HALF / 2)

    assert headroom.plan().headroom == pytest.approx(0.97 / 60 / (2 * 10 / HALF + 10 / (HALF / 2)))


def test_the_figure_is_counted_again_after_some_minutes(store: Store) -> None:
    """Counting reads the whole fleet, so whoever asks often gets the last count."""
    clock = [0.0]
    headroom = headroom_of(store, clock)
    keep(store, 10)
    first = headroom.factor()
    keep(store, 10)

    clock[0] += LOOK_SECONDS - 1
    assert headroom.factor() == first
    clock[0] += 2
    assert headroom.factor() == pytest.approx(first / 2)


def test_the_headroom_of_a_database_that_is_away_is_not_known(free_port: int) -> None:
    """The metrics are served all the same."""
    away = open_store(f"postgresql://nobody@127.0.0.1:{free_port}/nothing")
    assert math.isnan(headroom_of(away, [0.0]).factor())
    away.close()


def serve(port: int, **gauges: Any) -> None:
    """Serve metrics; gauges that are not given have any value."""
    usual: dict[str, Any] = {
        "address": "127.0.0.1", "namespace": None, "headroom": lambda: 1.0, "store_away": lambda: 0.0,
        "quota_paused": lambda: 0.0,
        "own_share": lambda: True, "beat_silent": lambda: 3.5, "refresh_late": lambda: 4.5,
        "notices_late": lambda: 5.5, "access_life": lambda: 6.5, "consents_ending": float,
        "journal": lambda: (7.0, 8.0, 9.5), "quota": lambda: {"refresh": (3, 2)},
        "silent": lambda: math.nan, "alive": lambda: True,
    }  # fmt: skip
    serve_metrics(port, **(usual | gauges))


def test_a_port_that_another_worker_has_costs_the_metrics_and_nothing_else(
    free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers of one host with the same setting both work; the second says so in one line."""
    reported: list[Fact] = []
    monkeypatch.setattr(metrics, "log_fact", reported.append)
    with socket.create_server(("127.0.0.1", free_port)):
        serve(free_port)

    assert [(fact.name, fact.fields["port"], fact.level) for fact in reported] == [
        ("metrics.unserved", free_port, "error")
    ]


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_the_headroom_is_served_as_a_metric(store: Store, free_port: int) -> None:
    """Prometheus reads it from each worker."""
    keep(store, 20)
    reported = headroom_of(store, [0.0])
    serve(free_port, headroom=reported.factor, store_away=lambda: 7.5, quota_paused=lambda: 30.5)

    with urlopen(f"http://127.0.0.1:{free_port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()

    assert f"evertoken_quota_headroom {reported.factor()}" in lines
    assert "evertoken_store_away_seconds 7.5" in lines
    assert "evertoken_quota_paused_seconds 30.5" in lines
    assert "evertoken_quota_own_share 1.0" in lines
    assert "evertoken_beat_silent_seconds 3.5" in lines
    assert "evertoken_refresh_late_seconds 4.5" in lines
    assert "evertoken_notices_late_seconds 5.5" in lines
    assert "evertoken_journal_records 7.0" in lines
    assert "evertoken_journal_bytes 8.0" in lines
    assert "evertoken_journal_oldest_seconds 9.5" in lines
    assert 'evertoken_quota_permits_total{lane="refresh"} 3.0' in lines
    assert 'evertoken_quota_denied_total{lane="refresh"} 2.0' in lines
