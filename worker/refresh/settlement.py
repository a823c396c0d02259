"""From a token answer to a stored pair: the one way in for refreshes, late results and replayed journals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from worker.errors import EvertokenError, NotFoundError
from worker.ground import Ground
from worker.policy import renewal
from worker.policy.verdicts import Cause
from worker.store import BroughtPair, GrantStatus, NewPair, Saved
from worker.telemetry import Fact, FactValue, one_write
from worker.tiktok import REFRESH_CALL, TokenAnswer
from worker.vault import PairPlace, Token


class MisfitError(EvertokenError):
    """An answer bears another creator's id, so its pair is not stored under this grant."""


@dataclass(frozen=True)
class Answered:
    """A token answer with the attempt that it belongs to, and what is needed to store its pair.

    Attributes:
        sent_at: when the request was sent, on the database's clock: the start of the pair's life.
        jitter: the grant's own number in [0, 1).
        scope: the scopes stored before, comma separated.
        refresh_ended_at: the end of the refresh token that was sent, if TikTok told it.
        sent: the refresh token that was sent; it is kept if the answer holds none (RFC 6749, section 6).
        seconds: how long the call took; None for an answer from a journal.
    """

    grant_id: int
    creator_id: str
    consent: int
    generation: int
    sent_at: datetime
    jitter: float
    scope: str
    sent: Token
    answer: TokenAnswer
    seconds: float | None = None
    refresh_ended_at: datetime | None = None

    @property
    def kept(self) -> bool:
        """True if the refresh token stays the one that was sent."""
        return self.answer.refresh_token is None or self.answer.refresh_token == self.sent


def narrowed_scopes(answered: Answered) -> set[str]:
    """Return the scopes that the grant had and the answer no longer has."""
    scope = answered.answer.scope
    return set() if scope is None else set(answered.scope.split(",")) - set(scope) - {""}


class Settlement:
    """Seals the pair of an answer and stores it under the creator whose id the answer bears, and no other."""

    def __init__(self, ground: Ground, *, renew_at: float) -> None:
        """Take what is shared, and the part of an access token's life at which its renewal window begins."""
        self._ground = ground
        self._renew_at = renew_at

    def seal(self, answered: Answered) -> NewPair:
        """Return the answer's pair, sealed and dated.

        Raises:
            MisfitError: the answer bears another creator's id.
        """
        answer, sent_at = answered.answer, answered.sent_at
        if answer.creator_id != answered.creator_id:
            raise MisfitError(
                f"TikTok answered for creator {answered.creator_id} with a pair of creator {answer.creator_id}"
            )
        expires_at = renewal.life_ends(issued_at=sent_at, seconds=answer.access_seconds)
        planned = renewal.next_refresh(
            issued_at=sent_at, expires_at=expires_at, renew_at=self._renew_at, jitter=answered.jitter
        )
        refresh_ends = (
            None
            if answer.refresh_seconds is None
            else renewal.life_ends(issued_at=sent_at, seconds=answer.refresh_seconds)
        )
        return NewPair(
            sealed=self._ground.sealer.seal_pair(
                answer.access_token,
                answered.sent if answer.refresh_token is None else answer.refresh_token,
                PairPlace(answered.creator_id, answered.consent, answered.generation),
            ),
            issued_at=sent_at,
            access_expires_at=expires_at,
            refresh_expires_at=refresh_ends,
            next_refresh_at=planned.at,
            scope=None if answer.scope is None else ",".join(answer.scope),
            refresh_kept=answered.kept,
        )

    def store(self, pairs: Sequence[tuple[Answered, NewPair]]) -> list[Saved]:
        """Store sealed pairs in one transaction; called again after a failure, it changes nothing the second time.

        Raises:
            NotFoundError: one of the grants is not there, and nothing is stored.
            StoreUnavailableError: the database did not commit.
        """
        try:
            saved = self._ground.store.save_group(
                [
                    BroughtPair(each.grant_id, each.consent, each.generation, pair, each.answer.request_id)
                    for each, pair in pairs
                ]
            )
        except NotFoundError:
            first = pairs[0][0]
            if len(pairs) > 1 or not self._ground.store.tombstones([first.creator_id]):
                raise
            # The creator was forgotten meanwhile.
            return [Saved(first.grant_id, moved=False, revived=False, status=GrantStatus.REVOKED)]
        with one_write():
            for (answered, pair), result in zip(pairs, saved, strict=True):
                self._report(answered, pair, result)
        return saved

    def _report(self, answered: Answered, pair: NewPair, saved: Saved) -> None:
        answer = answered.answer
        ids: dict[str, FactValue] = {
            "grant_id": answered.grant_id,
            "creator_id": answered.creator_id,
            "generation": answered.generation,
        }
        self._ground.hook(
            Fact(
                "refresh.saved",
                ids
                | {
                    "moved": saved.moved,
                    "revived": saved.revived,
                    "rotated": not pair.refresh_kept,
                    "call": REFRESH_CALL,
                    "seconds": answered.seconds,
                    "request_id": answer.request_id,
                    "life_seconds": int((pair.access_expires_at - pair.issued_at).total_seconds()),
                    "next_refresh_at": pair.next_refresh_at.isoformat(timespec="seconds"),
                },
            )
        )
        if lost := narrowed_scopes(answered):
            fields = ids | {"scopes": ",".join(sorted(lost)), "verdict": Cause.SCOPE_NARROWED}
            self._ground.hook(Fact("grant.scope_narrowed", fields, level="warning"))
        for remark in answer.remarks:
            self._ground.hook(Fact("answer.odd", ids | {"remark": remark}, level="warning"))
