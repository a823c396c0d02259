"""The tasks of the home-made worker: refresh one creator, then queue the pull."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta

from celery import Celery
from pytiktok import BusinessAccountApi
from sqlmodel import Session, create_engine

from benchmarks.homemade.models import Creator

log = logging.getLogger(__name__)

app = Celery("homemade", broker=os.environ["BROKER_URL"])
app.conf.task_ignore_result = True
app.conf.task_routes = {"benchmarks.homemade.tasks.pull_creator": {"queue": "pulls"}}

database = os.environ["DATABASE_URL"]
engine = create_engine(database, pool_size=20, **({"connect_args": {"timeout": 30}} if "sqlite" in database else {}))


def client(access_token: str | None = None) -> BusinessAccountApi:
    """Return a client with the app's secrets."""
    return BusinessAccountApi(
        app_id=os.environ["TIKTOK_APP_ID"],
        app_secret=os.environ["TIKTOK_APP_SECRET"],
        base_url=os.environ["TIKTOK_BASE_URL"],
        access_token=access_token,
        timeout=30,
    )


@app.task
def refresh_creator(creator_id: int) -> None:
    """Refresh one creator's tokens and store them."""
    with Session(engine) as session:
        creator = session.get(Creator, creator_id)
        if creator is None:
            return
        tokens = client().refresh_access_token(creator.refresh_token)
        now = datetime.now(UTC)
        creator.access_token = tokens.access_token
        creator.refresh_token = tokens.refresh_token
        creator.scope = tokens.scope
        creator.expires_at = now + timedelta(seconds=tokens.expires_in)
        creator.refresh_expires_at = now + timedelta(seconds=tokens.refresh_token_expires_in)
        session.add(creator)
        session.commit()
        log.info("refreshed %s", creator_id)
    pull_creator.delay(creator_id)


@app.task
def pull_creator(creator_id: int) -> None:
    """Pull one creator's account data."""
    with Session(engine) as session:
        creator = session.get(Creator, creator_id)
        if creator is not None:
            data = client(creator.access_token).get_account_data(creator.open_id, fields=["followers_count"])
            log.info("pulled %s: %s", creator_id, data)
