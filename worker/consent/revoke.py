"""Revoking a grant: here at once, then at TikTok, then its pairs are wiped.

The database holds what is left to do (`grants.ending_at`), so whoever comes next goes on where a process died: the same
command, or upkeep. Each step may be repeated: TikTok's word that a token is dead counts as its confirmation.
"""

from __future__ import annotations

import time
from typing import Final

from worker.errors import (
    EvertokenError,
    NotReadyError,
    StoreUnavailableError,
    WaitError,
    WrongOwnerError,
)
from worker.ground import Ground
from worker.owners import OwnerCheck
from worker.store import CurrentPair, EndingGrant
from worker.telemetry import Fact, FactValue
from worker.tiktok import REVOKE_CALL
from worker.vault import PairPlace

PERMIT_SECONDS: Final = 5.0
"""How long to wait for a permit of the quota."""
PATIENCE_SECONDS: Final = 10.0
"""How long a command waits for the refresh or pull that is under way."""
PAUSE_SECONDS: Final = 0.1
BATCH: Final = 20
ROUND_SECONDS: Final = 10.0
"""Longest round of upkeep; the rest waits for the next one."""
SHORTEST_WAIT_SECONDS: Final = 60.0
LONGEST_WAIT_SECONDS: Final = 6 * 3600.0


class Revocation:
    """Ends grants at the operator's wish."""

    def __init__(self, ground: Ground, *, owners: OwnerCheck) -> None:
        """Take what all use cases share, and the look-up of owners: an imported pair may be another creator's."""
        self._ground = ground
        self._owners = owners

    def revoke(self, creator_id: str, *, here_only: bool = False) -> bool | None:
        """Revoke a creator's grant; a second call does nothing, or finishes what the first could not.

        From the first moment the grant is no longer served, refreshed or pulled, whatever becomes of the rest.

        Args:
            creator_id: the creator.
            here_only: True to wipe the pairs without a word to TikTok, where the consent lives on.

        Returns:
            True if TikTok was told; False if not, because the pair belongs to another creator or `here_only` was
            wished; None if the grant had ended before.

        Raises:
            UnknownCreatorError: there is no grant.
            NotReadyError: the grant is revoked here, and TikTok has not confirmed; upkeep tries until it does.
        """
        grant_id = self._ground.store.mark_revoked(creator_id, wipe=here_only)
        self._ground.failpoint("end_begun")
        if not here_only:
            return self.finish_soon(grant_id)
        self._report(grant_id, creator_id, at_tiktok=False)
        return False

    def finish_soon(self, grant_id: int) -> bool | None:
        """Finish a revocation, after waiting a little for what is under way; returns and errors are `revoke`'s."""
        end = time.monotonic() + PATIENCE_SECONDS
        while (ending := self._ground.store.ending(grant_id)) is not None and ending.busy:
            if time.monotonic() >= end:
                raise NotReadyError(
                    f"creator {ending.creator_id} is revoked here; a refresh or pull is still under way, and a worker "
                    "ends the consent at TikTok when it is over"
                )
            time.sleep(PAUSE_SECONDS)
        if ending is None:
            return None
        try:
            return self._finish(ending)
        except StoreUnavailableError:
            raise
        except EvertokenError as error:
            raise NotReadyError(
                f"creator {ending.creator_id} is revoked here and no longer served or refreshed, but TikTok has not "
                f"confirmed: {error}; workers try again until it does, and so does this command"
            ) from None

    def resume(self) -> int:
        """Finish revocations that wait, for at most some seconds; return how many are complete now.

        Raises:
            StoreUnavailableError: the database went away.
        """
        finished, end = 0, time.monotonic() + ROUND_SECONDS
        for grant_id in self._ground.store.endings_due(BATCH):
            if time.monotonic() >= end:
                break
            ending = self._ground.store.ending(grant_id)
            if ending is None:
                continue
            if ending.busy:
                self._ground.store.put_off_ending(grant_id, SHORTEST_WAIT_SECONDS)
                continue
            try:
                self._finish(ending)
                finished += 1
            except StoreUnavailableError:
                raise
            except EvertokenError as error:
                # Waits grow with the time that it has taken so far.
                wait = min(max(ending.waited_seconds, SHORTEST_WAIT_SECONDS), LONGEST_WAIT_SECONDS)
                self._ground.store.put_off_ending(grant_id, wait)
                fields: dict[str, FactValue] = {
                    "grant_id": grant_id,
                    "creator_id": ending.creator_id,
                    "reason": str(error),
                }
                self._ground.hook(Fact("grant.revoke_failed", fields, level="warning"))
        return finished

    def _finish(self, ending: EndingGrant) -> bool:
        at_tiktok = ending.pair is not None and self._tell(ending.pair)
        self._ground.failpoint("end_at_tiktok")
        self._ground.store.end_revocation(ending.grant_id, ending.pair)
        self._ground.failpoint("end_wiped")
        self._report(ending.grant_id, ending.creator_id, at_tiktok=at_tiktok)
        return at_tiktok

    def _tell(self, pair: CurrentPair) -> bool:
        """End the consent behind a pair at TikTok; return False if the pair is another creator's, whose consent it is.

        Raises:
            NotReadyError: the quota is spent; nothing was sent.
            SealError: the pair does not open.
            TikTokError: TikTok did not confirm.
        """
        if pair.belongs_to is not None:
            return False
        try:
            if pair.unproven and not self._is_own(pair):
                return False
            access = self._ground.sealer.open_access(
                pair.sealed, PairPlace(pair.creator_id, pair.consent, pair.generation)
            )
            wait = self._ground.limiter.admit(
                lane="refresh", call=REVOKE_CALL, account="authorize", patience_seconds=PERMIT_SECONDS
            )
            if wait:
                raise NotReadyError(f"the quota is spent; nothing was sent, try again in {wait:.0f} s")
            self._ground.tiktok.revoke(access)
        except WaitError as error:
            self._ground.limiter.punish(error.scope, error.seconds)
            raise
        return True

    def _is_own(self, pair: CurrentPair) -> bool:
        try:
            self._owners.prove(pair.creator_id, lane="refresh")
        except WrongOwnerError:
            return False
        return True

    def _report(self, grant_id: int, creator_id: str, *, at_tiktok: bool) -> None:
        fields: dict[str, FactValue] = {"grant_id": grant_id, "creator_id": creator_id, "at_tiktok": at_tiktok}
        self._ground.hook(Fact("grant.revoked", fields))
