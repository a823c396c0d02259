"""What speaks for pulling the brake, and what does not."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from worker.store import AttemptOutcome

if TYPE_CHECKING:
    from tests.store.conftest import Fleet


def test_consents_that_have_ended_do_not_speak_for_the_brake(fleet: Fleet) -> None:
    """Creators who agreed in one campaign are refused together a year later; that stops nobody else."""
    now = fleet.store.ping()
    for name, end in (("ended", now - timedelta(seconds=1)), ("living", now + timedelta(days=9)), ("untold", None)):
        claim = fleet.claim(fleet.add(name, refresh_expires_at=end).grant_id)
        fleet.store.suspect(claim, outcome=AttemptOutcome.REFUSED, next_refresh_at=fleet.soon(), reason="refused 40103")

    assert fleet.store.evidence(window_seconds=300).refused == 2
