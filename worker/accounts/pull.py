"""Pulling a creator's account data: claim, read with the stored access token, keep a snapshot."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import ClassVar, Final

from worker.errors import (
    GiveUpError,
    RefreshFirstError,
    SealError,
    StopEveryoneError,
    TikTokError,
    WaitError,
    WrongOwnerError,
)
from worker.ground import Ground
from worker.owners import OwnerCheck
from worker.policy import backoff
from worker.store import PullClaim
from worker.telemetry import Fact, FactValue
from worker.tiktok import ACCOUNT_CALL, AccountData, fields_for_scope
from worker.vault import PairPlace, Token

ENDPOINT_LIMIT: Final = 40016
"""The rate limit of the app on one endpoint (TikTok's error appendix)."""
SCOPE_NOT_GRANTED: Final = 40130
BASIC_SCOPE: Final = ("user.info.basic",)
SOON_SECONDS: Final = 10.0
LONGEST_WAIT_SECONDS: Final = 5.0


@dataclass(frozen=True)
class _Result:
    """How a pull ended: `reason` says why, for people; `kind` is the word for logs and tables."""

    grant_id: int
    reason: str = ""
    kind: ClassVar[str]


@dataclass(frozen=True)
class Pulled(_Result):
    """A snapshot is stored."""

    kind = "pulled"


@dataclass(frozen=True)
class NotWanted(_Result):
    """There was nothing to do."""

    kind = "skipped"


@dataclass(frozen=True)
class NoPermit(_Result):
    """The quota had no permit; one is likely after `wait_seconds`."""

    kind = "denied"
    wait_seconds: float = 0.0


@dataclass(frozen=True)
class RefreshFirst(_Result):
    """The access token is dead; the next pair wants a pull again."""

    kind = "refresh_first"


@dataclass(frozen=True)
class NotPulled(_Result):
    """No data came; the row has the time of the next try."""

    kind = "failed"


PullResult = Pulled | NotWanted | NoPermit | RefreshFirst | NotPulled


@dataclass(frozen=True)
class PullBatch:
    """The results of several pulls.

    Attributes:
        refresh_first: grants whose access token is dead.
        denied: grants for which the quota had no permit.
        wait_seconds: seconds until a permit is likely.
    """

    refresh_first: tuple[int, ...]
    denied: tuple[int, ...] = ()
    wait_seconds: float = 0.0

    @property
    def soon(self) -> bool:
        """True if a message with the denied ids comes before the next scan, which finds the rows again anyway."""
        return 0 < self.wait_seconds <= SOON_SECONDS


class Puller:
    """Pulls creators' account data; each process has one instance, which many threads use."""

    def __init__(
        self,
        ground: Ground,
        *,
        owners: OwnerCheck,
        lease_seconds: float,
        snapshots_kept: int,
        pull_seconds: float | None,
    ) -> None:
        self._ground = ground
        self._owners = owners
        self._lease_seconds = lease_seconds
        self._snapshots_kept = snapshots_kept
        self._pull_seconds = pull_seconds

    def pull_all(self, ids: Sequence[int]) -> PullBatch:
        """Pull the data of several creators one after the other, until the quota denies one.

        Raises:
            StoreUnavailableError: the database went away; the rest of the ids is found by the next scan.
        """
        refresh_first: list[int] = []
        for position, grant_id in enumerate(ids):
            match self.pull(grant_id):
                case NoPermit(wait_seconds=seconds):
                    return PullBatch(tuple(refresh_first), tuple(ids[position:]), seconds)
                case RefreshFirst():
                    refresh_first.append(grant_id)
        return PullBatch(tuple(refresh_first))

    def pull(self, grant_id: int) -> PullResult:
        """Pull a creator's account data if a pull is wanted.

        If the access token has ended, the pull waits for the refresh that is due: storing a pair makes a pull due.

        Raises:
            StoreUnavailableError: the database did not answer; nothing is lost, the next scan finds the row.
        """
        nothing = NotWanted(grant_id, "no pull is wanted, or another worker has it")
        if not self._ground.store.is_pull_due(grant_id):
            return nothing
        wait = self._permit(grant_id)
        if wait > 0:
            return NoPermit(grant_id, "no permit of the quota", wait)
        claim = self._ground.store.claim_pull(grant_id, owner=self._ground.owner, lease_seconds=self._lease_seconds)
        return nothing if claim is None else self._pull_claimed(claim)

    def _permit(self, grant_id: int) -> float:
        return self._ground.limiter.take(lane="pull", call=ACCOUNT_CALL, account=str(grant_id))

    def _wait_for_permit(self, grant_id: int) -> None:
        """Wait a little for the permit of a second call; giving up at once would waste the first call each time.

        Raises:
            WaitError: no permit will come soon; other accounts need not wait.
        """
        end = time.monotonic() + LONGEST_WAIT_SECONDS
        while (wait := self._permit(grant_id)) > 0:
            if time.monotonic() + wait > end:
                text = "no permit for the second call of a pull"
                raise WaitError(text, call=ACCOUNT_CALL, scope="account", seconds=wait)
            time.sleep(wait)

    def _pull_claimed(self, claim: PullClaim) -> PullResult:
        if claim.pair.access_expires_at <= claim.pair.now:
            self._ground.store.defer_pull(claim, next_pull_at=None, failed=False)
            return RefreshFirst(claim.grant_id, "the access token has ended")
        try:
            data = self._read(self._proven(claim))
        except WrongOwnerError as error:
            self._ground.store.defer_pull(claim, next_pull_at=None, failed=True)
            self._report(claim, "pull.failed", reason="wrong_owner", level="warning")
            return NotPulled(claim.grant_id, str(error))
        except SealError as error:
            self._ground.store.defer_pull(claim, next_pull_at=_next_try(claim), failed=True)
            self._report(claim, "pull.unreadable", reason=str(error), level="error")
            return NotPulled(claim.grant_id, str(error))
        except TikTokError as error:
            return self._put_off(claim, error)
        self._ground.store.save_snapshot(claim, data.data, keep=self._snapshots_kept, again_seconds=self._pull_seconds)
        self._report(claim, "pull.saved", fields=len(data.data), request_id=data.request_id)
        return Pulled(claim.grant_id)

    def _proven(self, claim: PullClaim) -> PullClaim:
        """Return the claim with its pair; for an imported pair, look up its owner and scopes at TikTok first."""
        if not claim.pair.unproven:
            return claim
        pair = self._owners.prove(claim.pair.creator_id, lane="pull", insist=claim.pull_failures == 0)
        self._wait_for_permit(claim.grant_id)
        return replace(claim, pair=pair)

    def _read(self, claim: PullClaim) -> AccountData:
        pair = claim.pair
        token = self._ground.sealer.open_access(pair.sealed, PairPlace(pair.creator_id, pair.consent, pair.generation))
        fields = fields_for_scope([scope for scope in pair.scope.split(",") if scope])
        try:
            return self._fetch(token, pair.creator_id, fields or fields_for_scope(BASIC_SCOPE))
        except GiveUpError as error:
            # One field without its scope fails the whole call, and the owner may have narrowed the scopes since.
            if error.code != SCOPE_NOT_GRANTED:
                raise
            self._report(claim, "pull.scope_missing", level="warning")
            self._wait_for_permit(claim.grant_id)
            return self._fetch(token, pair.creator_id, fields_for_scope(BASIC_SCOPE))

    def _fetch(self, token: Token, creator_id: str, fields: tuple[str, ...]) -> AccountData:
        while wait := self._ground.limiter.depart():
            time.sleep(wait)
        return self._ground.tiktok.account_data(token, creator_id, fields=fields)

    def _put_off(self, claim: PullClaim, error: TikTokError) -> PullResult:
        result: PullResult = NotPulled(claim.grant_id, str(error))
        if isinstance(error, WaitError):
            if error.code != ENDPOINT_LIMIT:  # it speaks of this endpoint alone; refreshes go on
                self._ground.limiter.punish(error.scope, error.seconds)
            self._ground.store.defer_pull(claim, next_pull_at=self._after(claim, error.seconds), failed=False)
        elif isinstance(error, RefreshFirstError) and not claim.pull_failures:
            # Saving the refreshed pair makes a pull due again; a pair that is newer than this one needs no refresh. If
            # that pull fails too, another refresh would not help, and pull and refresh would follow each other forever.
            self._ground.store.defer_pull(claim, next_pull_at=None, failed=True)
            self._ground.store.request_refresh_of(claim.pair)
            result = RefreshFirst(claim.grant_id, str(error))
        else:
            self._ground.store.defer_pull(claim, next_pull_at=_next_try(claim), failed=True)
        level = "error" if isinstance(error, StopEveryoneError) else "warning"
        self._report(
            claim, "pull.failed", code=error.code, request_id=error.request_id, reason=result.kind, level=level
        )
        return result

    @staticmethod
    def _after(claim: PullClaim, seconds: float) -> datetime:
        return claim.pair.now + timedelta(seconds=seconds)

    def _report(self, claim: PullClaim, name: str, *, level: str = "info", **fields: FactValue) -> None:
        ids: dict[str, FactValue] = {"grant_id": claim.grant_id, "creator_id": claim.pair.creator_id}
        self._ground.hook(Fact(name, ids | fields, level=level))


def _next_try(claim: PullClaim) -> datetime:
    return backoff.pull_retry_at(now=claim.pair.now, failures=claim.pull_failures + 1, draw=random.random()).at  # noqa: S311 - spreads load
