"""Which attempts count as evidence for pulling the brake."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from worker.policy.verdicts import AttemptOutcome

if TYPE_CHECKING:
    from tests.store.conftest import Fleet


def test_consents_that_have_ended_do_not_speak_for_the_brake(fleet: Fleet) -> None:
    """Creators who agreed in one campaign are refused together a year later; that stops nobody else."""
    now = fleet.store.ping()
    for name, end in (("ended", now - timedelta(seconds=1)), ("living", now + timedelta(days=9)), ("unknown", None)):
        claim = fleet.claim(fleet.add(name, refresh_expires_at=end).grant_id)
        fleet.store.suspect(claim, outcome=AttemptOutcome.REFUSED, next_refresh_at=fleet.soon(), reason="refused 40103")

    assert fleet.store.evidence(window_seconds=300).refused == 2


def test_only_what_refused_the_app_since_the_last_pair_speaks_of_a_wrong_secret(fleet: Fleet) -> None:
    """A pair that came in between shows that the secret is right, and other codes say nothing of it."""

    def stop(name: str, code: int) -> None:
        claim, at = fleet.claim(fleet.add(name).grant_id), fleet.soon()
        outcome = AttemptOutcome.STOPPED
        fleet.store.release(claim, outcome=outcome, next_refresh_at=at, reason="r", failed=True, code=code)
        fleet.sql("UPDATE attempts SET finished_at = finished_at - 1000")

    stop("one", 40113)
    stop("two", 40109)
    assert fleet.store.evidence(window_seconds=300).app_refused == 1
    fleet.save(fleet.claim(fleet.add("well").grant_id), "new")
    fleet.sql("UPDATE attempts SET finished_at = finished_at - 1000")
    assert fleet.store.evidence(window_seconds=300).app_refused == 0
    stop("three", 40101)

    evidence = fleet.store.evidence(window_seconds=300)
    assert (evidence.app_refused, evidence.stopped) == (1, 3)
