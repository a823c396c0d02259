"""Upkeep: what is done from time to time."""

from __future__ import annotations

from worker.celery import app
from worker.services import shared_services


@app.task(name="tasks.upkeep.keep_house")
def keep_house() -> None:
    """End what dead processes left open, wipe superseded pairs and let old history go."""
    services = shared_services()
    services.upkeep.replay()
    services.upkeep.end_stale_attempts()
    services.brake.settle()
    services.idleness.watch()
    services.commits.retry_stuck()
    services.upkeep.wipe_superseded()
    services.upkeep.prune()
