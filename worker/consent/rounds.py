"""The slow round: grants that nobody has used for hours are looked up, so that one that was taken back is found out.

TikTok's `token_info` spends nothing but a request. Only a part of what the quota has to spare is used. A token that
TikTok no longer takes proves nothing by itself: a refresh follows, and its answer is judged as any other.
"""

from __future__ import annotations

import threading
from typing import Final

from worker.errors import EvertokenError, SealError, StoreUnavailableError, TikTokError, WaitError
from worker.ground import Ground
from worker.policy import quota
from worker.store import CurrentPair
from worker.telemetry import Fact, FactValue
from worker.tiktok import DEAD_TOKEN_CODES, TOKEN_INFO_CALL
from worker.vault import PairPlace

UNUSED_SECONDS: Final = 8 * 3600.0
"""A grant is looked up if no answer of TikTok about it came for so long: once in the life of a 24-hour token."""
QUOTA_SHARE: Final = 0.1
"""Part of the quota that rounds use at most."""
STRETCH: Final = 5_000
"""Ids that one round looks at in the database, whether or not their grants are looked up."""
MOST: Final = 200
"""Look-ups of one round, however large the quota is."""


class ConsentRound:
    """Looks up grants, a stretch of ids at a time; each process goes its own way through them."""

    def __init__(self, ground: Ground, *, per_second: float, per_minute: float, upkeep_seconds: float) -> None:
        """Begin at the first grant.

        Args:
            ground: what all use cases share.
            per_second: the quota of a second.
            per_minute: the quota of a minute.
            upkeep_seconds: time between two rounds.
        """
        self._ground = ground
        usable = quota.usable_rate(per_second=per_second, per_minute=per_minute)
        self._most = min(MOST, max(1, int(usable * upkeep_seconds * QUOTA_SHARE)))
        self._after = 0
        self._turn = threading.Lock()

    def go(self) -> int:
        """Look up some grants; return how many TikTok no longer takes.

        Raises:
            StoreUnavailableError: the database went away.
        """
        if not self._turn.acquire(blocking=False):
            return 0
        try:
            return 0 if self._ground.store.brake().stopped else self._go()
        finally:
            self._turn.release()

    def _go(self) -> int:
        found, self._after = self._ground.store.unused_pairs(
            self._after, STRETCH, unused_seconds=UNUSED_SECONDS, limit=self._most
        )
        dead = 0
        for pair in found:
            wait = self._ground.limiter.admit(
                lane="pull", call=TOKEN_INFO_CALL, account=str(pair.grant_id), patience_seconds=0.0
            )
            if wait:
                self._after = pair.grant_id - 1  # the next round goes on here
                break
            try:
                dead += self._look(pair)
            except WaitError as error:
                self._ground.limiter.punish(error.scope, error.seconds)
                break
            except StoreUnavailableError:
                raise
            except EvertokenError:
                break  # TikTok has trouble; refreshes will say so
        return dead

    def _look(self, pair: CurrentPair) -> bool:
        try:
            place = PairPlace(pair.creator_id, pair.consent, pair.generation)
            access = self._ground.sealer.open_access(pair.sealed, place)
        except SealError:
            return False  # its refresh raises the alarm
        try:
            self._ground.tiktok.token_info(access)
        except TikTokError as error:
            if error.code not in DEAD_TOKEN_CODES:
                raise
            self._ground.store.note_checked(pair.grant_id)
            wished = self._ground.store.request_refresh_of(pair)
            fields: dict[str, FactValue] = {
                "grant_id": pair.grant_id,
                "creator_id": pair.creator_id,
                "code": error.code,
                "refresh": wished,
            }
            self._ground.hook(Fact("grant.token_dead", fields, level="warning"))
            return True
        self._ground.store.note_checked(pair.grant_id)
        return False
