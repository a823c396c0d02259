"""Pulling: find whose account data is wanted, and fetch it."""

from __future__ import annotations

from worker.celery import app, publish
from worker.services import shared_services


@app.task(name="tasks.pull.scan_due")
def scan_due() -> None:
    """Publish the pulls that are wanted, paced as the quota permits; a lost message is found again here."""
    scanner = shared_services().scanner
    for message in scanner.pulls():
        for grant_id in message.ids:
            publish(pull_account, grant_id, countdown=message.delay_seconds, expires=scanner.expires(message))


@app.task(name="tasks.pull.pull_account")
def pull_account(grant_id: int) -> None:
    """Pull one creator's account data; an access token that TikTok calls dead is refreshed first."""
    pulled = shared_services().puller.pull(grant_id)
    if pulled.kind == "refresh_first":
        publish(app.tasks["tasks.refresh.refresh_grants"], [grant_id])
    elif pulled.soon:
        publish(pull_account, grant_id, countdown=pulled.wait_seconds)
