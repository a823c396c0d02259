"""Refreshing grants, from the permit to the stored pair, in the order in which things happen.

The unit of work is a group of grants, and it belongs to one thread: may we - claim - send - keep - conclude. A group is
as large as what can be sent within a moment at the pace that was measured last, so that its permits and leases are
taken just in time: one grant if TikTok takes a fifth of a second for an answer, dozens if it takes a millisecond.
A thread works on one group at a time and finishes it before it returns, so no step can run ahead of the next.

Who does what: `brake` and the limiter say whether a group may be sent, `store.claim_group` takes the leases, `call`
waits for each permit's moment, sends, and writes every answer to the journal unread; reading waits until the answer is
on disk. `ending` stores the clean pairs in one transaction and releases their journal records after the commit. If the
database goes away in between, `commits` tries again, and the journal has the answers all that time. The tasks publish
what a `Batch` names: pulls of what was refreshed, and another try of what was denied.

A grant with anything unusual leaves its group and is treated alone, after the others: an older attempt in doubt, an
unproven pair, a pair that does not open, an answer that is not clean. An answer is clean if the attempt's only call
brought this creator's pair and the journal has it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Final

from worker.errors import (
    EvertokenError,
    JournalError,
    NotFoundError,
    NotSentError,
    SealError,
    StoreUnavailableError,
    TikTokError,
    WrongOwnerError,
)
from worker.ground import Ground
from worker.limiter import Permit
from worker.owners import OwnerCheck
from worker.refresh.attempt import Attempt, LeaseTooShortError, elapsed_clock
from worker.refresh.brake import Brake
from worker.refresh.call import LANE, Caller
from worker.refresh.commits import PatientCommits
from worker.refresh.ending import Ending
from worker.refresh.group import Group, Pace, Turns, Watch
from worker.refresh.leases import LeaseKeeper
from worker.refresh.replay import Replayer
from worker.refresh.results import Braked, Denied, Failed, NotReady, Refreshed, Result, Skipped
from worker.store import Claim
from worker.telemetry import CLAIM_TIME, PERMIT_TIME, SEND_TIME, SPANS, STORE_TIME, Fact, Span, one_write
from worker.tiktok import REFRESH_CALL
from worker.vault import PairPlace, Token

SOON_SECONDS: Final = 10.0
"""A denied id waits in a delayed message for at most this time; a longer wait is left to the scan."""
WAIT_HERE_SECONDS: Final = 0.5
"""A thread waits for a permit for at most this time; for a longer wait it does other work."""
JUST_IN_TIME_SECONDS: Final = 2.0
"""A claim that was not sent within this time of its group is given back, so that another thread may have it."""
NEIGHBOURS_SECONDS: Final = 1.0
"""If one call takes longer than this, the answers of its neighbours are stored meanwhile."""
NOT_DUE: Final = "not due, or under a lease"


@dataclass(frozen=True)
class Batch:
    """The results of several refreshes.

    Attributes:
        refreshed: grants whose new pair is stored: a pull of their account data is due.
        denied: grants for which the quota had no permit.
        wait_seconds: seconds until a permit is likely.
        resumed: True if the brake was released: what waited for it is due.
    """

    refreshed: tuple[int, ...]
    denied: tuple[int, ...] = ()
    wait_seconds: float = 0.0
    resumed: bool = False

    @property
    def soon(self) -> bool:
        """True if a message with the denied ids comes before the next scan, which finds them again anyway."""
        return 0 < self.wait_seconds <= SOON_SECONDS


class Refresher:
    """Refreshes grants; each process has one instance, which many threads use."""

    def __init__(
        self,
        ground: Ground,
        *,
        brake: Brake,
        leases: LeaseKeeper,
        caller: Caller,
        ending: Ending,
        commits: PatientCommits,
        owners: OwnerCheck,
        replayer: Replayer,
        lease_seconds: float,
    ) -> None:
        """Take what is shared, the steps, and how long a claim lasts."""
        self._ground = ground
        self._brake = brake
        self._leases = leases
        self._caller = caller
        self._ending = ending
        self._commits = commits
        self._owners = owners
        self._replayer = replayer
        self._lease_seconds = lease_seconds
        self._watch = Watch(self._conclude)
        self.pace, self._turns = Pace(), Turns()

    def refresh_all(self, ids: Sequence[int]) -> Batch:
        """Refresh grants until the quota denies one; denied grants do not wait here.

        Raises:
            StoreUnavailableError: the database went away; the rest of the ids is found by the next scan.
        """
        left, results = list(dict.fromkeys(ids)), list[Result]()
        while left and not self._ground.stop.is_set():
            size = self.pace.group_size
            with self._turns.one(self.pace):
                began = time.thread_time()
                of_group, still_due = self._group(left[:size])
                self.pace.note_work(time.thread_time() - began, len(of_group))
            results += of_group
            left = still_due + left[size:]
            match of_group[-1:]:  # only a group's last result may end the whole message
                case [Denied() as denied] if denied.wait_seconds <= WAIT_HERE_SECONDS:
                    self._ground.stop.wait(denied.wait_seconds)
                case [Denied() as denied]:
                    return _batch(results, left, denied.wait_seconds)
                case [Braked() | NotReady()]:
                    break
        return _batch(results)

    def refresh(self, grant_id: int, *, force: bool = False, prove: bool = True) -> Result:
        """Refresh a grant if it is due.

        Args:
            grant_id: the grant.
            force: True to refresh before its window; a held lease and the brake are respected all the same.
            prove: False if the owner of an imported pair was just looked up.

        Raises:
            StoreUnavailableError: the database did not answer, before anything was sent.
        """
        return self._group([grant_id], force=force, prove=prove)[0][-1]

    def _group(self, ids: Sequence[int], *, force: bool = False, prove: bool = True) -> tuple[list[Result], list[int]]:
        """Refresh a group, and return its results and the ids that are still to be done.

        Only the last result may be one that ends the whole message: no permit, the brake, or not ready.
        """
        with SPANS.over(Span("refresh.group", {"asked": len(ids)})) as span:
            results, still_due = self._timed_group(ids, force=force, prove=prove)
            span.fields |= Counter(result.kind for result in results)
        return results, still_due

    def _timed_group(self, ids: Sequence[int], *, force: bool, prove: bool) -> tuple[list[Result], list[int]]:
        asked_at = elapsed_clock()
        with SPANS.over(Span("refresh.permit")), PERMIT_TIME.time():
            results, permits = self._permits(ids, force=force)
        if not permits:
            return results, _still_due(ids, results)

        self._ground.failpoint("pre_claim")
        won_at = elapsed_clock()
        with SPANS.over(Span("refresh.claim", {"grants": len(permits)})), CLAIM_TIME.time():
            claims = self._ground.store.claim_group(
                list(permits), owner=self._ground.owner, lease_seconds=self._lease_seconds, force=force
            )
        self._ground.failpoint("post_claim")
        won = {claim.grant_id for claim in claims}
        results += [Skipped(grant_id, NOT_DUE) for grant_id in permits if grant_id not in won]

        group = Group([Attempt(claim, won_at) for claim in claims])
        self.pace.note_start(elapsed_clock() - asked_at)
        with self._leases.hold(claims), self._watched(group):
            with SEND_TIME.time():
                self._send(group, permits)
            with STORE_TIME.time():
                self._conclude(group)
            for attempt in group.odd:
                permit = permits[attempt.claim.grant_id]
                group.results.append(self._alone(attempt, permit, force=force, prove=prove))
        # What came too late for its group is still due; if nothing was sent at all, the next try would end the same.
        late = [] if group.began else [attempt.claim.grant_id for attempt in group.waiting]
        results += [Skipped(grant_id, "the lease ends too soon, so nothing was sent") for grant_id in late]
        return results + group.results, _still_due(ids, results + group.results)

    def _permits(self, ids: Sequence[int], *, force: bool) -> tuple[list[Result], dict[int, Permit]]:
        """Return a permit for each of the first due grants, and the results of those that need none."""
        reason = self._unready()
        if reason is not None:
            return [NotReady(ids[0], reason)], {}
        claimable = self._ground.store.claimable(ids)
        due = list(ids) if force else list(claimable.due)
        results: list[Result] = [Skipped(grant_id, NOT_DUE) for grant_id in ids if grant_id not in due]
        if not due:
            return results, {}
        stopped = self._brake.stops(claimable.brake)
        asked = self._ground.limiter.permits(
            lane=LANE,
            call=REFRESH_CALL,
            accounts=[str(grant_id) for grant_id in (due[:1] if stopped else due)],
            start=self.pace.start,
            each=self.pace.seconds,
        )
        if not asked.given:
            return [*results, Denied(due[0], "no permit of the quota", asked.wait)], {}
        # The permit comes first: one that is denied must not cost the probe, of which there is one in half a minute.
        if stopped and not self._brake.wins_probe():
            return [*results, Braked(due[0], "refreshing is stopped for the whole app")], {}
        return results, dict(zip(due, asked.given, strict=False))  # those without a permit are still due

    def _unready(self) -> str | None:
        """Return why an answer could not be kept now, or None."""
        if not self._commits.settle():
            return "earlier results wait for the database"
        try:
            self._ground.journal.ready()
        except JournalError as error:
            self._ground.hook(Fact("journal.not_ready", {"reason": str(error)}, level="error"))
            with suppress(EvertokenError):
                self._replayer.replay()  # it needs no room, and other hosts may be about to send the tokens again
            return str(error)
        return None

    @contextmanager
    def _watched(self, group: Group) -> Iterator[None]:
        """Store answers while one call of the group takes long, and give back claims that were not sent in the end."""
        watched = self._watch.over(group, seconds=NEIGHBOURS_SECONDS) if len(group.waiting) > 1 else nullcontext()
        try:
            with watched:
                yield
        finally:
            if group.waiting:
                claims = [attempt.claim for attempt in group.waiting]
                self._leases.drop(claims)
                with suppress(StoreUnavailableError):  # then the leases run out
                    self._ground.store.give_back(claims)

    def _send(self, group: Group, permits: Mapping[int, Permit]) -> None:
        """Send the grants of a group one after the other; those that would be late stay behind."""
        worked = time.thread_time()
        while group.waiting:
            attempt, began = group.waiting[0], elapsed_clock()
            if group.began and attempt.elapsed > JUST_IN_TIME_SECONDS:
                return
            try:
                token = self._token(attempt.claim)
                call = self._caller.send(attempt, token, permits[attempt.claim.grant_id])
            except LeaseTooShortError:
                return
            except NotSentError as error:
                attempt.unsent = error
                group.set_odd()
            except SealError:
                group.set_odd()
            else:
                attempt.calls.append(call)
                group.set_answered()
                seconds, now = elapsed_clock() - began, time.thread_time()
                self.pace.note(seconds, waited=seconds - (now - worked))
                worked = now

    def _conclude(self, group: Group) -> None:
        """Read the received answers, and store the clean pairs together."""
        with group.concluding:
            attempts = group.take_answered()
            with one_write():
                for attempt in attempts:
                    self._caller.read(attempt)
            clean: list[Attempt] = []
            for attempt in attempts:
                (clean if attempt.is_clean else group.odd).append(attempt)
            if clean:
                group.results += self._ending.conclude(clean)
                self._leases.drop([attempt.claim for attempt in clean])

    def _alone(self, attempt: Attempt, permit: Permit, *, force: bool, prove: bool) -> Result:
        """Finish an attempt with something unusual."""
        claim = attempt.claim
        try:
            if attempt.is_untried:
                elsewhere = self._needs_no_call(claim, force=force, prove=prove)
                if elsewhere is not None:
                    return elsewhere
                attempt.calls.append(self._caller.send(attempt, self._token(claim), permit))
                self._caller.read(attempt)
        except SealError as error:
            return self._ending.unreadable(attempt, error)
        except LeaseTooShortError as error:
            self._ground.store.give_back([claim])
            return Skipped(claim.grant_id, str(error))
        except TikTokError as error:
            return self._ending.fail(attempt, error)
        if attempt.calls:
            self._caller.follow_up(attempt)
        if attempt.pair is not None:
            return self._ending.conclude([attempt])[0]
        return self._ending.fail(attempt, attempt.failure)

    def _needs_no_call(self, claim: Claim, *, force: bool, prove: bool) -> Result | None:
        """Return the result if nothing is to be sent under a claim, after giving the claim back; otherwise None."""
        try:
            if claim.unproven and prove:
                return self._prove(claim, force=force)
            settled = self._settled_elsewhere(claim) if claim.unresolved else None
        except (SealError, TikTokError):
            raise
        except EvertokenError:
            with suppress(StoreUnavailableError):
                self._ground.store.give_back([claim])
            raise
        if settled is None:
            return None
        self._ground.store.give_back([claim])
        return Skipped(claim.grant_id, settled)

    def _prove(self, claim: Claim, *, force: bool) -> Result:
        """Look up the owner of an imported pair, and only then refresh it, under a new claim and a new permit."""
        try:
            with suppress(NotFoundError):  # revoked meanwhile: the next claim is not won
                # One failure is enough: that TikTok's other endpoint has trouble must not cost the grant its life.
                self._owners.prove(claim.creator_id, lane=LANE, insist=claim.failures == 0)
        except WrongOwnerError as error:
            self._ground.store.give_back([claim])
            return Failed(claim.grant_id, str(error))
        self._leases.drop([claim])
        self._ground.store.give_back([claim])
        # Within the turn that this thread has: its group has nothing else to do by now.
        return self.refresh(claim.grant_id, force=force, prove=False)

    def _settled_elsewhere(self, claim: Claim) -> str | None:
        """Return why nothing is sent for attempts without an outcome: their answer is stored now, or on its way.

        This replays the journals of dead processes. A living process that holds an answer, because the database did not
        take it while the lease lasted, stores it itself: the token is used up, so sending it again does not help.
        """
        self._replayer.replay()
        # In this order: a process that holds an answer commits it before it releases the record.
        if self._ground.journal.holds(claim.grant_id, claim.consent, claim.unresolved):
            return "the answer to an earlier attempt waits in a journal for the database"
        if self._ground.store.grant_by_id(claim.grant_id).pair_generation != claim.pair_generation:
            return "the answer to an earlier attempt was stored meanwhile; the grant is checked again"
        return None

    def _token(self, claim: Claim) -> Token:
        """Open the current refresh token.

        Raises:
            SealError: it does not open, or is not there.
        """
        sealed = claim.sealed
        if sealed is None:  # it came at the very moment of the claim, or never
            versions = {each.generation: each.sealed for each in self._ground.store.kept_versions(claim)}
            sealed = versions.get(claim.pair_generation)
        if sealed is None:
            raise SealError("the current pair is missing")
        return self._ground.sealer.open_refresh(
            sealed, PairPlace(claim.creator_id, claim.consent, claim.pair_generation)
        )


def _still_due(ids: Sequence[int], results: Sequence[Result]) -> list[int]:
    """Return the ids without a result; a denied one is still to be done."""
    done = {result.grant_id for result in results if not isinstance(result, Denied)}
    return [grant_id for grant_id in ids if grant_id not in done]


def _batch(results: Sequence[Result], denied: Sequence[int] = (), wait_seconds: float = 0.0) -> Batch:
    refreshed = [result for result in results if isinstance(result, Refreshed)]
    return Batch(
        refreshed=tuple(result.grant_id for result in refreshed),
        denied=tuple(denied),
        wait_seconds=wait_seconds,
        resumed=any(result.resumed for result in refreshed),
    )
