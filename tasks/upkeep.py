"""Upkeep: periodic work."""

from __future__ import annotations

from worker.celery import app
from worker.services import shared_services


@app.task(name="tasks.upkeep.keep_house")
def keep_house() -> None:
    """Settle what dead processes left open, wipe superseded pairs and delete old history."""
    services = shared_services()
    services.upkeep.replay()
    services.upkeep.end_stale_attempts()
    services.brake.settle()
    services.idleness.watch()
    services.notifier.warn()
    services.commits.retry_stuck()
    services.revocation.resume()
    services.forgetting.resume()
    services.upkeep.wipe_superseded()
    services.upkeep.wipe_lost()
    services.consent_round.go()
    services.upkeep.prune()
    services.upkeep.prune_account_data()
