"""Pulling: find creators whose account data is due, and fetch it."""

from __future__ import annotations

from collections.abc import Sequence

from worker.celery import app, publish
from worker.services import shared_services


@app.task(name="tasks.pull.scan_due")
def scan_due() -> None:
    """Publish the pulls that are due, paced as the quota permits; the next scan finds the rows of a lost message."""
    scanner = shared_services().scanner
    for message in scanner.pulls():
        publish(pull_accounts, message.ids, countdown=message.delay_seconds, expires=scanner.expires(message))


@app.task(name="tasks.pull.pull_accounts")
def pull_accounts(ids: Sequence[int]) -> None:
    """Pull creators' account data; an access token that TikTok calls dead is refreshed first."""
    batch = shared_services().puller.pull_all(ids)
    if batch.refresh_first:
        publish(app.tasks["tasks.refresh.refresh_grants"], batch.refresh_first)
    if batch.denied and batch.soon:
        publish(pull_accounts, batch.denied, countdown=batch.wait_seconds)


@app.task(name="tasks.pull.pull_account")
def pull_account(grant_id: int) -> None:
    """Pull one creator's account data; for people, who name a single grant."""
    pull_accounts.run([grant_id])
