"""Refreshing: find what is due, and refresh it."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.pull import pull_accounts
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
    """Refresh grants by id, then publish pulls of the refreshed ones and a later try of those without a permit."""
    services = shared_services()
    batch = services.refresher.refresh_all(ids)
    for message in services.scanner.pulls_of(batch.refreshed):
        publish(pull_accounts, message.ids, expires=services.scanner.expires(message))
    if batch.denied and batch.soon:
        publish(refresh_grants, batch.denied, countdown=batch.wait_seconds)
    if batch.resumed:
        publish(scan_due)
