"""Notices: messages to people and systems."""

from __future__ import annotations

from worker.celery import app
from worker.services import shared_services


@app.task(name="tasks.notify.deliver")
def deliver() -> None:
    """Deliver the notices that are pending."""
    shared_services().notifier.deliver()
