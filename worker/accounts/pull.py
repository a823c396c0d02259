"""Pulling a creator's account data: claim, read each resource that is due page by page, store each page, conclude."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import ClassVar, Final

from worker.accounts import schedule
from worker.accounts.reading import (
    BudgetSpentError,
    EmptyAnswerError,
    InterruptedVisitError,
    LeaseLostError,
    ListCutOffError,
    NoPermitError,
    Visit,
)
from worker.accounts.resources import ACCOUNT, RESOURCES, Resource
from worker.errors import (
    EvertokenError,
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
from worker.telemetry import SPANS, Fact, FactValue, Span, count_pull
from worker.tiktok import ACCOUNT_CALL
from worker.vault import PairPlace

ENDPOINT_LIMIT: Final = 40016
"""The rate limit of the app on one endpoint (TikTok's error appendix)."""
SOON_SECONDS: Final = 10.0
LONGEST_WAIT_SECONDS: Final = 5.0
BEHIND_SECONDS: Final = 120.0
"""If other creators' pulls have waited for so long, only what is most important is read."""


@dataclass(frozen=True)
class _Result:
    """How a pull ended: `reason` says why, for people; `kind` is the word for logs and tables."""

    grant_id: int
    reason: str = ""
    kind: ClassVar[str]


@dataclass(frozen=True)
class Pulled(_Result):
    """What was due is stored, as far as the quota allowed; `reason` says what comes later, and why."""

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
        choice: schedule.Choice,
        keeps_answers: bool,
    ) -> None:
        """Keep the arguments.

        Args:
            ground: what all use cases share.
            owners: looks up the owners of imported pairs.
            lease_seconds: how long a claim lasts; each page extends it.
            snapshots_kept: snapshots kept for each creator.
            choice: what is pulled, and how much.
            keeps_answers: True to keep raw answers.
        """
        self._ground = ground
        self._owners = owners
        self._lease_seconds = lease_seconds
        self._snapshots_kept = snapshots_kept
        self._choice = choice
        self._keeps_answers = keeps_answers

    def pull_all(self, ids: Sequence[int]) -> PullBatch:
        """Pull the data of several creators one after the other, until the quota denies one or the process ends.

        Raises:
            StoreUnavailableError: the database went away; the rest of the ids is found by the next scan.
        """
        refresh_first: list[int] = []
        for position, grant_id in enumerate(ids):
            if self._ground.stop.is_set():
                break
            with SPANS.over(Span("pull", {"grant_id": grant_id}, keeps_calls=False)) as span:
                result = self.pull(grant_id)
                span.fields["outcome"] = result.kind
            match result:
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
        wait = self._ground.limiter.take(lane="pull", call=ACCOUNT_CALL, account=str(grant_id))
        if wait > 0:
            return NoPermit(grant_id, "no permit of the quota", wait)
        claim = self._ground.store.claim_pull(grant_id, owner=self._ground.owner, lease_seconds=self._lease_seconds)
        return nothing if claim is None else self._pull_claimed(claim)

    def _pull_claimed(self, claim: PullClaim) -> PullResult:
        if claim.pair.access_expires_at <= claim.pair.now:
            self._ground.store.defer_pull(claim, next_pull_at=None, failed=False)
            return RefreshFirst(claim.grant_id, "the access token has ended")
        try:
            visit = self._visit(claim)
        except WrongOwnerError as error:
            self._ground.store.defer_pull(claim, next_pull_at=None, failed=True)
            self._report(claim, "pull.failed", resource=ACCOUNT.name, reason="wrong_owner", level="warning")
            return NotPulled(claim.grant_id, str(error))
        except SealError as error:
            self._ground.store.defer_pull(claim, next_pull_at=_next_try(claim), failed=True)
            self._report(claim, "pull.unreadable", resource=ACCOUNT.name, reason=str(error), level="error")
            return NotPulled(claim.grant_id, str(error))
        except TikTokError as error:
            return self._give_back(claim, error)
        return self._read_due(visit)

    def _visit(self, claim: PullClaim) -> Visit:
        """Return what the reading of this creator needs; for an imported pair, look up its owner and scopes first."""
        has_permit = True
        if claim.pair.unproven:
            pair = self._owners.prove(claim.pair.creator_id, lane="pull", insist=claim.pull_failures == 0)
            claim, has_permit = replace(claim, pair=pair), False
        pair = claim.pair
        return Visit(
            self._ground,
            claim=claim,
            token=self._ground.sealer.open_access(
                pair.sealed, PairPlace(pair.creator_id, pair.consent, pair.generation)
            ),
            state=self._ground.store.account_state(pair.creator_id),
            choice=self._choice,
            lease_seconds=self._lease_seconds,
            snapshots=self._snapshots_kept,
            keeps_answers=self._keeps_answers,
            patience_seconds=LONGEST_WAIT_SECONDS,
            has_permit=has_permit,
        )

    def _read_due(self, visit: Visit) -> PullResult:
        """Read what is due, the most important first; what cannot be read now is put off, and the rest goes on."""
        allowed = schedule.allowed(RESOURCES, self._choice, scopes=visit.scopes, narrowed=visit.state.narrowed)
        for resource in schedule.due(allowed, visit.state, wanted_at=visit.claim.wanted_at):
            try:
                ended = self._read_one(visit, resource)
            except InterruptedVisitError:
                ended = self._leave(visit, resource)
            except LeaseLostError:
                self._report(visit.claim, "pull.lease_lost", resource=resource.name, level="warning")
                ended = NotWanted(visit.claim.grant_id, "another worker has it by now, or the grant was revoked")
            if ended is not None:
                return ended
        # What was refused meanwhile is not waited for.
        allowed = [resource for resource in allowed if resource.name not in visit.refused]
        again = schedule.next_pull_at(allowed, visit.progress, self._choice, now=visit.state.now)
        self._ground.store.end_pull(visit.claim, next_pull_at=again)
        self._report(
            visit.claim,
            "pull.saved",
            requests=visit.requests,
            rows=visit.rows,
            fields=visit.fields,
            doubts=visit.doubts,
            corrections=visit.corrections,
            request_id=visit.request_id,
        )
        waiting = [f"{each.resource} later: {each.problem}" for each in visit.progress.values() if each.problem]
        return Pulled(visit.claim.grant_id, "; ".join(waiting))

    def _leave(self, visit: Visit, resource: Resource) -> PullResult:
        """Leave a pull to another worker, which goes on at once, after the last page that is stored."""
        self._ground.store.defer_pull(visit.claim, next_pull_at=visit.claim.wanted_at, failed=False)
        self._report(visit.claim, "pull.interrupted", resource=resource.name)
        return NotWanted(visit.claim.grant_id, "this process ends; another goes on with the pull")

    def _read_one(self, visit: Visit, resource: Resource) -> PullResult | None:
        """Read one resource; return how the pull ended if it cannot go on with the next."""
        if visit.waits_until is not None:
            visit.put_off(resource, until=visit.waits_until, problem="something more important waits too")
            return None
        if resource is not ACCOUNT and self._ground.store.pulls_wait(BEHIND_SECONDS):
            visit.wait_for_others(resource)
            return None
        try:
            visit.read(resource)
            count_pull(resource.name)
        except NoPermitError as denied:
            visit.waits_until = visit.state.now + timedelta(seconds=denied.seconds)
            visit.put_off(resource, until=visit.waits_until, problem="the quota had no permit")
            if not visit.pages:
                self._ground.store.defer_pull(visit.claim, next_pull_at=visit.waits_until, failed=False)
                return NoPermit(visit.claim.grant_id, "no permit of the quota", denied.seconds)
        except BudgetSpentError:
            visit.wait_for_budget(resource)
            self._report(visit.claim, "pull.budget_spent", resource=resource.name, level="warning")
        except ListCutOffError as error:
            self._put_off(visit, resource, error)
        except (TikTokError, EmptyAnswerError) as error:
            if resource is ACCOUNT or isinstance(error, WaitError | RefreshFirstError):
                return self._stop(visit, resource, error)
            self._skip(visit, resource, error)
        return None

    def _skip(self, visit: Visit, resource: Resource, error: TikTokError | EmptyAnswerError) -> None:
        """Put off one resource, and go on with the next."""
        self._put_off(visit, resource, error)
        visit.refuse_if_scope_is_missing(resource, error)
        self._tell(visit.claim, error, resource=resource.name, reason="put_off")

    @staticmethod
    def _put_off(visit: Visit, resource: Resource, error: EvertokenError) -> None:
        failures = visit.failures(resource) + 1
        until = backoff.pull_retry_at(now=visit.state.now, failures=failures, draw=random.random()).at  # noqa: S311 - spreads load
        visit.put_off(resource, until=until, problem=str(error), failed=True)

    def _stop(self, visit: Visit, resource: Resource, error: TikTokError | EmptyAnswerError) -> PullResult:
        """End a pull at an error that the other resources would meet too."""
        if isinstance(error, EmptyAnswerError):
            self._ground.store.defer_pull(visit.claim, next_pull_at=_next_try(visit.claim), failed=True)
            self._tell(visit.claim, error, resource=resource.name, reason="failed")
            return NotPulled(visit.claim.grant_id, str(error))
        if isinstance(error, WaitError):
            visit.put_off(resource, seconds=error.seconds, problem=str(error))
        return self._give_back(visit.claim, error)

    def _give_back(self, claim: PullClaim, error: TikTokError) -> PullResult:
        result: PullResult = NotPulled(claim.grant_id, str(error))
        if isinstance(error, WaitError):
            if error.code != ENDPOINT_LIMIT:  # it speaks of this endpoint alone; refreshes go on
                self._ground.limiter.punish(error.scope, error.seconds)
            again = claim.pair.now + timedelta(seconds=error.seconds)
            self._ground.store.defer_pull(claim, next_pull_at=again, failed=False)
        elif isinstance(error, RefreshFirstError) and not claim.pull_failures:
            # Saving the refreshed pair makes a pull due again; a pair that is newer than this one needs no refresh. If
            # that pull fails too, another refresh would not help, and pull and refresh would follow each other forever.
            self._ground.store.defer_pull(claim, next_pull_at=None, failed=True)
            self._ground.store.request_refresh_of(claim.pair)
            result = RefreshFirst(claim.grant_id, str(error))
        else:
            self._ground.store.defer_pull(claim, next_pull_at=_next_try(claim), failed=True)
        self._tell(claim, error, resource=ACCOUNT.name, reason=result.kind)
        return result

    def _tell(self, claim: PullClaim, error: Exception, *, resource: str, reason: str) -> None:
        code = error.code if isinstance(error, TikTokError) else None
        request_id = error.request_id if isinstance(error, TikTokError) else None
        self._report(
            claim,
            "pull.empty" if isinstance(error, EmptyAnswerError) else "pull.failed",
            resource=resource,
            code=code,
            request_id=request_id,
            reason=reason,
            level="error" if isinstance(error, StopEveryoneError) else "warning",
        )

    def _report(self, claim: PullClaim, name: str, *, level: str = "info", **fields: FactValue) -> None:
        ids: dict[str, FactValue] = {"grant_id": claim.grant_id, "creator_id": claim.pair.creator_id}
        self._ground.hook(Fact(name, ids | fields, level=level))


def _next_try(claim: PullClaim) -> datetime:
    return backoff.pull_retry_at(now=claim.pair.now, failures=claim.pull_failures + 1, draw=random.random()).at  # noqa: S311 - spreads load
