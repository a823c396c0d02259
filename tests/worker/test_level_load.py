"""A fleet that was imported in one go, by the due times and jitters that are stored for it."""

from __future__ import annotations

import io
import json
from datetime import datetime, timedelta

import pytest

from worker.consent.import_lines import Source
from worker.consent.importer import Importer, ImportReport
from worker.policy.renewal import next_refresh
from worker.store import Store
from worker.vault import Sealer

CREATORS = 1000
LIFE = timedelta(days=1)
RENEW_AT = 2 / 3
SLICES = 20


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_thousand_grants_imported_in_one_go_are_level_in_their_second_life(store: Store, sealer: Sealer) -> None:
    """The busiest of twenty equal slices has at most 1.5 times the mean number of refreshes."""
    began = store.ping()
    lines = (
        json.dumps(
            {
                "creator_id": f"c{number}",
                "access_token": f"act.{number}",
                "refresh_token": f"rft.{number}",
                "expires_in": int(LIFE.total_seconds()),
                "issued_at": began.isoformat(),
                "scope": "user.info.basic",
            }
        )
        for number in range(CREATORS)
    )
    importer = Importer(store=store, sealer=sealer, renew_at=RENEW_AT)
    report = ImportReport()
    importer.run(Source(io.BytesIO("\n".join(lines).encode())), report=report)
    assert report.created == CREATORS

    counts = [0] * SLICES
    for grant in store.grants(limit=CREATORS):
        for at in refreshes(grant.next_refresh_at, grant.jitter, until=began + 2 * LIFE):
            if at >= began + LIFE:
                counts[int((at - began - LIFE) / LIFE * SLICES)] += 1

    assert sum(counts) == pytest.approx(CREATORS / RENEW_AT, rel=0.05)
    assert max(counts) <= 1.5 * sum(counts) / SLICES


def refreshes(first: datetime, jitter: float, *, until: datetime) -> list[datetime]:
    """Return when a grant is refreshed, each time when it is due."""
    times, at = [], first
    while at < until:
        times.append(at)
        at = next_refresh(issued_at=at, expires_at=at + LIFE, renew_at=RENEW_AT, jitter=jitter).at
    return times
