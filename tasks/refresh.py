"""Refreshing: find what is due, and refresh it."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.pull import pull_account
from worker.celery import app, publish
from worker.services import shared_services


@app.task(name="tasks.refresh.scan_due")
def scan_due() -> None:
    """Publish the grants that are due, paced as the quota permits."""
    scanner = shared_services().scanner
    for message in scanner.refreshes():
        publish(refresh_grants, message.ids, countdown=message.delay_seconds, expires=scanner.expires(message))


@app.task(name="tasks.refresh.refresh_grants")
def refresh_grants(ids: Sequence[int]) -> None:
    """Refresh grants by id; what was refreshed is pulled, and what the quota denied comes again in a moment."""
    batch = shared_services().refresher.refresh_all(ids)
    for grant_id in batch.refreshed:
        publish(pull_account, grant_id)
    if batch.denied and batch.soon:
        publish(refresh_grants, batch.denied, countdown=batch.wait_seconds)
