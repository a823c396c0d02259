"""From a token answer to a stored pair: the one way in for refreshes, late results and replayed journals."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from worker.errors import EvertokenError
from worker.policy import renewal
from worker.store import NewPair, Saved, Store
from worker.telemetry import Fact, FactValue, Hook
from worker.tiktok import TokenAnswer
from worker.vault import PairPlace, Sealer, Token


class MisfitError(EvertokenError):
    """An answer bears another creator's id, so its pair is not stored under this grant."""


@dataclass(frozen=True)
class Attempt:
    """Which attempt an answer belongs to, and what is needed to store its pair.

    Attributes:
        sent_at: when the request was sent, on the database's clock: the start of the pair's life.
        jitter: the grant's own number in [0, 1).
        scope: the scopes stored before, comma separated.
    """

    grant_id: int
    creator_id: str
    consent: int
    generation: int
    sent_at: datetime
    jitter: float
    scope: str

    @property
    def place(self) -> PairPlace:
        """Where this attempt's pair is sealed to."""
        return PairPlace(creator_id=self.creator_id, consent=self.consent, generation=self.generation)


class Settlement:
    """Seals the pair of an answer and stores it under the creator whose id the answer bears, and no other."""

    def __init__(self, *, store: Store, sealer: Sealer, renew_at: float, hook: Hook) -> None:
        self._store = store
        self._sealer = sealer
        self._renew_at = renew_at
        self._hook = hook

    def new_pair(self, attempt: Attempt, answer: TokenAnswer, *, old_refresh: Token) -> NewPair:
        """Return the answer's pair, sealed and dated.

        Args:
            attempt: the attempt that brought the answer.
            answer: the answer.
            old_refresh: the refresh token that was sent; kept where the answer holds none (RFC 6749, section 6).

        Raises:
            MisfitError: where the answer bears another creator's id.
        """
        if answer.creator_id != attempt.creator_id:
            raise MisfitError(
                f"TikTok answered for creator {attempt.creator_id} with a pair of creator {answer.creator_id}"
            )
        expires_at = renewal.life_ends(issued_at=attempt.sent_at, seconds=answer.access_seconds)
        planned = renewal.next_refresh(
            issued_at=attempt.sent_at, expires_at=expires_at, renew_at=self._renew_at, jitter=attempt.jitter
        )
        return NewPair(
            sealed=self._sealer.seal_pair(
                answer.access_token,
                old_refresh if answer.refresh_token is None else answer.refresh_token,
                attempt.place,
            ),
            issued_at=attempt.sent_at,
            access_expires_at=expires_at,
            refresh_expires_at=None
            if answer.refresh_seconds is None
            else renewal.life_ends(issued_at=attempt.sent_at, seconds=answer.refresh_seconds),
            next_refresh_at=planned.at,
            scope=None if answer.scope is None else ",".join(answer.scope),
            refresh_kept=answer.refresh_token is None or answer.refresh_token == old_refresh,
        )

    def store_pair(self, attempt: Attempt, pair: NewPair, answer: TokenAnswer, *, old_refresh: Token) -> Saved:
        """Store a sealed pair; it may be called again after a failure, and changes nothing the second time.

        Raises:
            StoreUnavailableError: the database did not commit.
        """
        saved = self._store.save_pair(
            attempt.grant_id, attempt.consent, attempt.generation, pair, request_id=answer.request_id
        )
        self._tell(attempt, pair, answer, saved, rotated=_rotated(answer, old_refresh))
        return saved

    def _tell(self, attempt: Attempt, pair: NewPair, answer: TokenAnswer, saved: Saved, *, rotated: bool) -> None:
        ids: dict[str, FactValue] = {
            "grant_id": attempt.grant_id,
            "creator_id": attempt.creator_id,
            "generation": attempt.generation,
        }
        self._hook(
            Fact(
                "refresh.saved",
                ids
                | {
                    "moved": saved.moved,
                    "revived": saved.revived,
                    "rotated": rotated,
                    "life_seconds": int((pair.access_expires_at - pair.issued_at).total_seconds()),
                    "next_refresh_at": pair.next_refresh_at.isoformat(timespec="seconds"),
                },
            )
        )
        lost = set(attempt.scope.split(",")) - set(answer.scope or ()) - {""} if answer.scope is not None else set()
        if lost:
            self._hook(Fact("grant.scope_narrowed", ids | {"scopes": ",".join(sorted(lost))}, level="warning"))
        for remark in answer.remarks:
            self._hook(Fact("answer.odd", ids | {"remark": remark}, level="warning"))


def _rotated(answer: TokenAnswer, old_refresh: Token) -> bool:
    return answer.refresh_token is not None and answer.refresh_token != old_refresh
