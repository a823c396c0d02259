"""A creator whose account data was pulled from the sandbox on two days, so that older days stand."""

from __future__ import annotations

from typing import Final

from tests.support.world import World
from worker.store import GrantView

SCOPE: Final = (
    "user.info.basic,user.info.username,user.info.profile,user.info.stats,user.account.type,user.insights,"
    "video.list,video.insights"
)
"""With this everything of an account and its videos is pulled; the creator, and the sandbox, must give it."""
DAY: Final = 86_400_000


def fill(world: World, grant: GrantView, *, videos: int = 12) -> None:
    """Pull a creator's account yesterday and today."""
    world.sandbox.set_account(grant.creator_id, videos=videos, video_seconds=15)
    for moved in (DAY, 0):
        world.services.store.request_pull(grant.creator_id)
        assert world.services.puller.pull(grant.grant_id).kind == "pulled"
        for table in ("account_days", "account_counters"):
            world.sql(f"UPDATE {table} SET read_at = read_at - {moved}")  # noqa: S608 - our own names
