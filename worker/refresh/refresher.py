"""Refreshing one grant: permit, claim, call, and the ending; nothing else decides and nothing else sends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Event
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
from worker.journal import Journal
from worker.limiter import Limiter
from worker.owners import OwnerCheck
from worker.refresh.attempt import Climb, Ladder
from worker.refresh.brake import Brake
from worker.refresh.call import elapsed_clock
from worker.refresh.commits import PatientCommits
from worker.refresh.ending import Endings, Refreshed
from worker.refresh.leases import LeaseKeeper
from worker.store import Claim, Store
from worker.telemetry import Fact, FactValue, Hook
from worker.tiktok import REFRESH_CALL
from worker.vault import PairPlace, Sealer, Token

LANE: Final = "refresh"
MOST_TOKENS: Final = 4
"""Different refresh tokens that one attempt sends at most: the current one, and the newest of those it followed.

Each costs a permit, and a server without a grace window may take a late replay for theft (RFC 9700, section 4.14.2).
"""
SOON_SECONDS: Final = 10.0
"""Up to so long a denied id waits in a delayed message; a longer wait is left to the scan."""


@dataclass(frozen=True)
class Batch:
    """What became of several refreshes.

    Attributes:
        refreshed: grants whose new pair is stored: their account data is wanted.
        denied: grants for which the quota had no permit.
        wait_seconds: when a permit is likely, in seconds.
    """

    refreshed: tuple[int, ...]
    denied: tuple[int, ...] = ()
    wait_seconds: float = 0.0

    @property
    def soon(self) -> bool:
        """True where a message with the denied ids is worth its while; otherwise the scan finds them again."""
        return 0 < self.wait_seconds <= SOON_SECONDS


class Refresher:
    """Refreshes one grant at a time; one instance a process, used by many threads."""

    def __init__(
        self,
        *,
        store: Store,
        sealer: Sealer,
        journal: Journal,
        limiter: Limiter,
        brake: Brake,
        leases: LeaseKeeper,
        ladder: Ladder,
        endings: Endings,
        commits: PatientCommits,
        owners: OwnerCheck,
        recover: Callable[[], object],
        hook: Hook,
        owner: str,
        lease_seconds: float,
        stop: Event,
        failpoint: Callable[[str], None],
    ) -> None:
        """Make one for a process.

        Args:
            recover: replays the journals of dead processes on this host.
            owner: name of this process in leases and attempts.
            lease_seconds: how long a claim lasts.
            stop: set when the process ends; what is left of a batch is found by the next scan.
            failpoint: called with the name of each step; does nothing outside the fault tests.
        """
        self._store = store
        self._sealer = sealer
        self._journal = journal
        self._limiter = limiter
        self._brake = brake
        self._leases = leases
        self._ladder = ladder
        self._endings = endings
        self._commits = commits
        self._owners = owners
        self._recover = recover
        self._hook = hook
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._stop = stop
        self._failpoint = failpoint

    def refresh_all(self, ids: Sequence[int]) -> Batch:
        """Refresh grants one after the other until the quota denies one; work that is denied does not wait here.

        Raises:
            StoreUnavailableError: the database went away; the rest of the ids is found by the next scan.
        """
        refreshed: list[int] = []
        for position, grant_id in enumerate(ids):
            if self._stop.is_set():
                break
            outcome = self.refresh(grant_id)
            if outcome.kind == "denied":
                return Batch(tuple(refreshed), tuple(ids[position:]), outcome.wait_seconds)
            if outcome.kind == "refreshed":
                refreshed.append(grant_id)
        return Batch(tuple(refreshed))

    def refresh(self, grant_id: int, *, force: bool = False, prove: bool = True) -> Refreshed:
        """Refresh a grant if it is due.

        Args:
            grant_id: the grant.
            force: True to refresh before its window; a held lease and the brake are respected all the same.
            prove: False if TikTok was just asked whose an imported pair is.

        Raises:
            StoreUnavailableError: the database did not answer, before anything was sent.
        """
        refusal = self._refusal(grant_id, force=force)
        if refusal is not None:
            return refusal
        self._failpoint("pre_claim")
        won_at = elapsed_clock()
        claim = self._store.claim(grant_id, owner=self._owner, lease_seconds=self._lease_seconds, force=force)
        if claim is None:
            return Refreshed(grant_id, "skipped", reason="not due, or under a lease")
        self._failpoint("post_claim")
        if claim.unproven and prove:
            return self._prove(claim, won_at, force=force)
        try:
            settled = self._settled_elsewhere(claim) if claim.unresolved else None
        except EvertokenError:
            with suppress(StoreUnavailableError):
                self._store.give_back([claim])
            raise
        if settled is not None:
            self._store.give_back([claim])
            return Refreshed(grant_id, "skipped", reason=settled)
        return self._attempt(claim, won_at)

    def _refusal(self, grant_id: int, *, force: bool) -> Refreshed | None:
        if not self._commits.settle():
            return Refreshed(grant_id, "not_ready", reason="earlier results wait for the database")
        try:
            self._journal.ready()
        except JournalError as error:
            self._hook(Fact("journal.not_ready", {"reason": str(error)}, level="error"))
            with suppress(EvertokenError):
                self._recover()  # it needs no room, and other hosts may be about to send the tokens again
            return Refreshed(grant_id, "not_ready", reason=str(error))
        if not force and not self._store.claimable([grant_id]).due:
            return Refreshed(grant_id, "skipped", reason="not due, or under a lease")
        stopped = not self._brake.lets_through
        wait = self._limiter.take(lane=LANE, call=REFRESH_CALL, account=str(grant_id))
        if wait > 0:
            return Refreshed(grant_id, "denied", wait_seconds=wait, reason="no permit of the quota")
        # The permit comes first: one that is denied must not cost the probe, of which there is one in half a minute.
        if stopped and not self._brake.wins_probe():
            return Refreshed(grant_id, "braked", reason="refreshing is stopped for the whole app")
        return None

    def _prove(self, claim: Claim, won_at: float, *, force: bool) -> Refreshed:
        """Ask whose an imported pair is, and refresh it only then, under a claim and a permit of its own."""
        try:
            with self._leases.hold(claim), suppress(NotFoundError):  # revoked meanwhile: the next claim is not won
                # One failure is enough: that TikTok's other endpoint has trouble must not cost the grant its life.
                self._owners.prove(claim.creator_id, lane=LANE, insist=claim.failures == 0)
        except WrongOwnerError as error:
            self._store.give_back([claim])
            return Refreshed(claim.grant_id, "failed", reason=str(error))
        except SealError as error:
            return self._endings.unreadable(Climb(claim, won_at), error)
        except TikTokError as error:
            return self._endings.fail(Climb(claim, won_at), error)
        except EvertokenError:
            with suppress(StoreUnavailableError):
                self._store.give_back([claim])
            raise
        self._store.give_back([claim])
        return self.refresh(claim.grant_id, force=force, prove=False)

    def _settled_elsewhere(self, claim: Claim) -> str | None:
        """Say why nothing is sent for attempts without an outcome: their answer is stored now, or on its way.

        Dead processes' journals are replayed here. A living one that holds an answer, because the database did not
        take it while its lease lasted, stores it itself: its token is used up, so sending it again helps nobody.
        """
        self._recover()
        # In this order: whoever holds an answer commits it before it lets its record go.
        if self._journal.holds(claim.grant_id, claim.consent, claim.unresolved):
            return "the answer to an earlier attempt waits in a journal for the database"
        if self._store.grant_by_id(claim.grant_id).pair_generation != claim.pair_generation:
            return "the answer to an earlier attempt was stored meanwhile; the grant is looked at again"
        return None

    def _attempt(self, claim: Claim, won_at: float) -> Refreshed:
        try:
            tokens = self._open(claim)
        except SealError as error:
            return self._endings.unreadable(Climb(claim, won_at), error)
        with self._leases.hold(claim):
            return self._send(claim, won_at, tokens)

    def _open(self, claim: Claim) -> list[Token]:
        """Return the refresh tokens of the newest stored versions, each once, the current one first.

        An older version that does not open is told and left out: it must not keep a healthy grant from its refresh.

        Raises:
            SealError: the current pair does not open.
        """
        tokens: list[Token] = []
        for version in self._store.kept_versions(claim):
            if len(tokens) == MOST_TOKENS:
                break
            place = PairPlace(claim.creator_id, version.consent, version.generation)
            try:
                token = self._sealer.open_refresh(version.sealed, place)
            except SealError as error:
                if version.generation == claim.pair_generation:
                    raise
                ids: dict[str, FactValue] = {"grant_id": claim.grant_id, "generation": version.generation}
                self._hook(Fact("pair.unreadable", ids | {"reason": str(error)}, level="warning"))
                continue
            if token not in tokens:
                tokens.append(token)
        return tokens

    def _send(self, claim: Claim, won_at: float, tokens: Sequence[Token]) -> Refreshed:
        climb = self._ladder.climb(claim, won_at, tokens)
        if climb.calls:
            last = climb.calls[-1]
            return self._endings.save(climb, last) if last.error is None else self._endings.fail(climb, last.error)
        if isinstance(climb.unsent, NotSentError):
            return self._endings.fail(climb, climb.unsent)
        self._store.give_back([claim])
        return Refreshed(claim.grant_id, "skipped", reason="the lease ends too soon, so nothing was sent")
