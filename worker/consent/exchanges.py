"""From an exchange's answer to a stored consent: right after the call, or from a replayed journal."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any, Final

from worker.consent.state import ASK_AGAIN
from worker.errors import (
    EvertokenError,
    GiveUpError,
    InDoubtError,
    NotFoundError,
    SealError,
    TikTokError,
    UsageError,
)
from worker.ground import Ground
from worker.policy.renewal import draw_jitter, first_refresh, life_ends
from worker.store import ConsentLink, GrantStatus, GrantView, NewConsent, whole_milliseconds
from worker.telemetry import Fact
from worker.tiktok import RawAnswer, TokenAnswer, read_token_answer, salvage
from worker.vault import PairPlace, SealedPair, Token

SPENT_CODE: Final = 40110
"""TikTok's answer to a code that is used up or too old (TikTok's error appendix)."""
MOST_VERSIONS: Final = 100
"""A replayed pair is compared with at most this many stored pairs of its grant; older ones are wiped within days."""


class OtherAccountError(EvertokenError):
    """Another creator agreed than the one the link was made for; nothing was stored under either."""


class Exchanges:
    """Reads and stores the answers to exchanges."""

    def __init__(self, ground: Ground, *, renew_at: float) -> None:
        """Take what all use cases share, and the part of an access token's life at which the renewal window begins."""
        self._ground = ground
        self._renew_at = renew_at

    def store(self, raw: RawAnswer, *, sent_at: datetime, link: ConsentLink | None = None) -> GrantView:
        """Store the consent in an answer; a known creator gets the next consent.

        Args:
            raw: the answer as received.
            sent_at: when the request was sent, on the database's clock.
            link: the link that brought the code.

        Raises:
            OtherAccountError: the link was made for another creator.
            TikTokError: the answer holds no pair; the same bytes will never hold one.
            StoreUnavailableError: the database did not take it; try again later.
        """
        answer, refresh = _read(raw)
        self._refuse_other_account(answer, link)
        return self._save(answer, refresh, sent_at, link)

    def store_replayed(self, raw: RawAnswer, *, sent_at: datetime, handle: str | None = None) -> GrantView | None:
        """Store the consent of an answer that was found in the journal, unless it is stored or outdated already.

        It may be repeated. An answer changes nothing if its pair is stored already, if the grant was revoked after it,
        if a later consent is current, or if the creator was forgotten after it: then there is no grant to return.

        Args:
            raw: the answer as received.
            sent_at: when the request was sent, on the database's clock.
            handle: name of the link that brought the code.

        Raises:
            OtherAccountError, TikTokError, StoreUnavailableError: as for `store`.
        """
        answer, refresh = _read(raw)
        link = None if handle is None else self._ground.store.link(handle)
        self._refuse_other_account(answer, link)
        try:
            grant = self._ground.store.grant(answer.creator_id)
        except NotFoundError:
            if self._forgotten(answer.creator_id, sent_at):
                return None
            return self._save(answer, refresh, sent_at, link)
        if self._outdated(grant, sent_at) or self._holds(grant, refresh):
            return grant
        return self._save(answer, refresh, sent_at, link)

    def store_placed(self, answer: TokenAnswer, *, sent_at: datetime) -> GrantView:
        """Store the pair of an answer that was set aside as its creator's consent; a second call does nothing.

        Args:
            answer: the answer, with its creator and its refresh token.
            sent_at: when the request was sent, on the database's clock.

        Raises:
            UsageError: the creator's pair is as new or newer, or the grant was revoked since; nothing is stored.
            StoreUnavailableError: the database did not take it.
        """
        if answer.refresh_token is None:
            raise ValueError("an answer without a refresh token is not placed")
        try:
            grant = self._ground.store.grant(answer.creator_id)
        except NotFoundError:
            if self._forgotten(answer.creator_id, sent_at):
                raise UsageError(f"creator {answer.creator_id} was forgotten after this pair came") from None
            return self._save(answer, answer.refresh_token, sent_at, None)
        if self._holds(grant, answer.refresh_token):
            return grant
        if grant.status is GrantStatus.REVOKED and grant.updated_at >= sent_at:
            raise UsageError(f"creator {grant.creator_id} was revoked after this pair came")
        usable = grant.status in {GrantStatus.ACTIVE, GrantStatus.SUSPECT} and grant.belongs_to is None
        if usable and grant.issued_at >= whole_milliseconds(sent_at):
            raise UsageError(f"creator {grant.creator_id} has a pair that came later, so this one is out of date")
        return self._save(answer, answer.refresh_token, sent_at, None)

    def _refuse_other_account(self, answer: TokenAnswer, link: ConsentLink | None) -> None:
        if link is None or link.creator_id in {None, answer.creator_id}:
            return
        fields = {"creator_id": answer.creator_id, "expected": link.creator_id or ""}
        self._ground.hook(Fact("authorize.other_account", fields, level="error"))
        raise OtherAccountError(
            f"creator {answer.creator_id} agreed, and the link was made for creator {link.creator_id}: nothing was "
            f"stored, and the pair is kept in the journal's folder `set-aside`; {ASK_AGAIN}"
        )

    def _save(self, answer: TokenAnswer, refresh: Token, sent_at: datetime, link: ConsentLink | None) -> GrantView:
        def seal(item: NewConsent, number: int, generation: int) -> SealedPair:
            return self._ground.sealer.seal_pair(
                answer.access_token, refresh, PairPlace(item.creator_id, number, generation)
            )

        result = self._ground.store.save_consents(
            [self._consent(answer, sent_at, link)], seal, replace=True, announce=True
        )[0]
        grant = self._ground.store.grant(answer.creator_id)
        ids: dict[str, str | int] = {
            "grant_id": grant.grant_id,
            "creator_id": grant.creator_id,
            "consent": grant.consent,
        }
        self._ground.hook(Fact("grant.authorized", ids | {"result": result.value}))
        for remark in answer.remarks:
            self._ground.hook(Fact("answer.odd", ids | {"remark": remark}, level="warning"))
        return grant

    def _consent(self, answer: TokenAnswer, sent_at: datetime, link: ConsentLink | None) -> NewConsent:
        expires_at = life_ends(issued_at=sent_at, seconds=answer.access_seconds)
        jitter = draw_jitter(secrets.randbits(32))
        first = first_refresh(
            issued_at=sent_at,
            expires_at=expires_at,
            now=self._ground.store.ping(),
            renew_at=self._renew_at,
            jitter=jitter,
        )
        refresh_life = answer.refresh_seconds
        return NewConsent(
            creator_id=answer.creator_id,
            scope=",".join(answer.scope or ()),
            issued_at=sent_at,
            access_expires_at=expires_at,
            refresh_expires_at=None if refresh_life is None else life_ends(issued_at=sent_at, seconds=refresh_life),
            next_refresh_at=first.at,
            jitter=jitter,
            reference=None if link is None else link.reference,
        )

    def _forgotten(self, creator_id: str, sent_at: datetime) -> bool:
        tombstone = self._ground.store.tombstones([creator_id]).get(creator_id)
        return tombstone is not None and tombstone.covers(sent_at)

    def _outdated(self, grant: GrantView, sent_at: datetime) -> bool:
        if grant.status is GrantStatus.REVOKED:
            return grant.updated_at > whole_milliseconds(sent_at)
        # The start of a later consent is not kept, so that of its current pair is used instead: if this pair is newer
        # than the answer, TikTok issued it after the answer, so it is the valid one.
        began_at = grant.created_at if grant.consent == 1 else grant.issued_at
        return began_at > whole_milliseconds(sent_at)

    def _holds(self, grant: GrantView, refresh: Token) -> bool:
        """Return True if one of the grant's stored pairs has this refresh token."""
        for stored in self._ground.store.all_pairs((grant.grant_id, 0, 0), MOST_VERSIONS):
            if stored.grant_id != grant.grant_id:
                break
            try:
                place = PairPlace(stored.creator_id, stored.consent, stored.generation)
                if self._ground.sealer.open_refresh(stored.sealed, place) == refresh:
                    return True
            except SealError:
                continue
        return False


def _read(raw: RawAnswer) -> tuple[TokenAnswer, Token]:
    """Return the answer and its refresh token; an answer that was cut off after both tokens counts as complete."""
    try:
        answer = read_token_answer(raw)
    except InDoubtError as error:
        rescued = salvage(raw)
        if rescued is None:
            raise InDoubtError(f"{error}; the code may be spent, so {ASK_AGAIN}", **_facts(error)) from None
        answer = rescued
    except TikTokError as error:
        if error.code == SPENT_CODE:
            text = f"TikTok says that this code was used already or is too old; {ASK_AGAIN}"
            raise GiveUpError(text, **_facts(error)) from None
        raise
    if answer.refresh_token is None:
        raise InDoubtError(f"TikTok's answer held no refresh token; {ASK_AGAIN}", call=raw.call)
    return answer, answer.refresh_token


def _facts(error: TikTokError) -> dict[str, Any]:
    return {
        "call": error.call,
        "code": error.code,
        "http_status": error.http_status,
        "request_id": error.request_id,
    }
