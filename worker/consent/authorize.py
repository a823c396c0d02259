"""Authorizing: a consent link goes out, a pasted redirect comes back, and a creator's grant is stored; and its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

from worker.consent.exchanges import Exchanges, OtherAccountError
from worker.consent.redirect import read_redirect
from worker.consent.state import ASK_AGAIN, handle_of, new_state, problem_of
from worker.errors import (
    ConfigurationError,
    JournalError,
    NotReadyError,
    StoreUnavailableError,
    TikTokError,
    UsageError,
    WaitError,
    WrongOwnerError,
)
from worker.ground import Ground
from worker.journal import RecordId
from worker.owners import OwnerCheck
from worker.records import entry_of_exchange
from worker.store import ConsentLink, CurrentPair, GrantView
from worker.telemetry import Fact
from worker.tiktok import EXCHANGE_CALL, REVOKE_CALL, RawAnswer, bears_refresh_token
from worker.vault import PairPlace, Token

LONGEST_WAIT_SECONDS: Final = 5.0
"""How long an exchange or a revocation waits for a permit of the quota."""


class Authorizer:
    """Begins, stores and ends a creator's consent.

    Args:
        ground: what is shared.
        exchanges: stores consents.
        owners: asked before an imported pair is revoked.
        redirect_uri: where TikTok sends the browser; a pasted address must be it.
        scopes: what the link asks for; the creator may grant less.
        state_seconds: life of a link.
    """

    def __init__(
        self,
        ground: Ground,
        *,
        exchanges: Exchanges,
        owners: OwnerCheck,
        redirect_uri: str,
        scopes: Sequence[str],
        state_seconds: int,
    ) -> None:
        self._ground = ground
        self._exchanges = exchanges
        self._owners = owners
        self._redirect_uri = redirect_uri
        self._scopes = tuple(scopes)
        self._state_seconds = state_seconds

    def url(self, *, reference: str | None = None, creator_id: str | None = None) -> str:
        """Return a consent link that works once, until its end.

        Args:
            reference: the operator's own name for whom it is for; it is stored with the grant.
            creator_id: the only creator whose consent is taken; None for any.

        Raises:
            ConfigurationError: the keyring is for readers, so no answer could be stored.
            StoreUnavailableError: the database did not take the link.
        """
        self._refuse_readers_keyring()
        state = new_state()
        self._ground.store.add_link(
            handle_of(state), life_seconds=self._state_seconds, reference=reference, creator_id=creator_id
        )
        return self._ground.tiktok.authorization_url(state=state, scopes=self._scopes)

    def exchange(self, redirect_url: str) -> GrantView:
        """Turn a pasted redirect into a grant.

        The database and the journal are asked first, so that a code is not spent where its pair cannot be kept.

        Raises:
            UsageError: the redirect or its state is not as it must be, or TikTok's page refused; nothing was sent.
            OtherAccountError: another creator agreed than the one whom the link was for; the pair is set aside.
            NotReadyError: the database does not answer (nothing was sent), or it went away after the pair came.
            JournalError: the journal cannot take the answer; nothing was sent.
            TikTokError: the exchange did not succeed.
        """
        self._refuse_readers_keyring()
        redirect = read_redirect(redirect_url, expected=self._redirect_uri)
        handle = handle_of(redirect.state)
        link = self._ground.store.link(handle)
        problem = problem_of(redirect.state, link)
        if problem or link is None:
            raise UsageError(problem or ASK_AGAIN)
        self._ground.journal.ready()
        self._permit(EXCHANGE_CALL)
        if not self._ground.store.take_link(handle):
            raise UsageError(f"the link was used a moment ago, and each link works once; {ASK_AGAIN}")
        sent_at, began = self._ground.store.ping(), time.monotonic()
        try:
            raw = self._ground.tiktok.send_exchange(Token(redirect.code))
            record = self._keep(raw, handle, sent_at, time.monotonic() - began)
            return self._store_answer(raw, record, sent_at, link)
        except TikTokError:
            # No pair came. A code works once at TikTok, so pasting the redirect again does no harm.
            with suppress(StoreUnavailableError):
                self._ground.store.free_link(handle)
            raise

    def _refuse_readers_keyring(self) -> None:
        if self._ground.sealer.keyring.for_readers:
            raise ConfigurationError("a reader's keyring stores no consents; bring the keyring that workers use")

    def _store_answer(self, raw: RawAnswer, record: RecordId | None, sent_at: datetime, link: ConsentLink) -> GrantView:
        try:
            grant = self._exchanges.store(raw, sent_at=sent_at, link=link)
        except StoreUnavailableError:
            kept = "is kept in the journal, and a worker will store it" if record else "could not be kept anywhere"
            raise NotReadyError(f"the pair came, but the database did not take it; it {kept}") from None
        except OtherAccountError:
            self._let_go(record, unread=True)
            raise
        except TikTokError as error:
            self._heed(error)
            self._let_go(record, unread=bears_refresh_token(raw))
            raise
        self._let_go(record)
        return grant

    def revoke(self, creator_id: str) -> bool:
        """End a creator's consent: at TikTok first, then here, where the pairs are wiped.

        An imported pair that is another creator's is only wiped here: at TikTok it would end that creator's consent.

        Returns:
            False if TikTok was not asked for that reason.

        Raises:
            UnknownCreatorError, RevokedError: there is nothing to end.
            TikTokError: TikTok did not confirm; nothing changed here. A token that TikTok calls dead counts as ended.
        """
        pair = self._ground.store.current_pair(creator_id)
        own = self._is_own(pair)
        if own:
            access = self._ground.sealer.open_access(pair.sealed, PairPlace(creator_id, pair.consent, pair.generation))
            self.end(access)
        self._ground.store.mark_revoked(creator_id)
        self._ground.hook(
            Fact("grant.revoked", {"grant_id": pair.grant_id, "creator_id": creator_id, "at_tiktok": own})
        )
        return own

    def end(self, access: Token) -> None:
        """End the consent behind an access token at TikTok.

        Raises:
            NotReadyError: the quota is spent; nothing was sent.
            TikTokError: TikTok did not confirm. A token that TikTok calls dead counts as ended.
        """
        self._permit(REVOKE_CALL)
        try:
            self._ground.tiktok.revoke(access)
        except TikTokError as error:
            self._heed(error)
            raise

    def _is_own(self, pair: CurrentPair) -> bool:
        if not pair.unproven:
            return pair.belongs_to is None
        try:
            self._owners.prove(pair.creator_id, lane="refresh")
        except WrongOwnerError:
            return False
        except TikTokError as error:
            self._heed(error)
            raise
        return True

    def _heed(self, error: TikTokError) -> None:
        """Let the whole app wait where TikTok says that a quota is spent."""
        if isinstance(error, WaitError):
            self._ground.limiter.punish(error.scope, error.seconds)

    def _permit(self, call: str) -> None:
        """Take a permit of the quota, waiting a little for it; a person sits before the terminal."""
        wait = self._ground.limiter.admit(
            lane="refresh", call=call, account="authorize", patience_seconds=LONGEST_WAIT_SECONDS
        )
        if wait:
            raise NotReadyError(f"the quota is spent; nothing was sent, try again in {wait:.0f} s")

    def _keep(self, raw: RawAnswer, handle: str, sent_at: datetime, seconds: float) -> RecordId | None:
        """Put the answer into the journal; a journal that fails only now must not cost the pair that is in hand."""
        if not raw.body:
            return None
        try:
            return self._ground.journal.append(entry_of_exchange(raw, handle, sent_at=sent_at, seconds=seconds))
        except Exception:  # noqa: BLE001 - a pair may be in hand: the database gets it, whatever fails here
            self._ground.hook(Fact("journal.append_failed", {"owner": self._ground.owner}, level="error"))
            return None

    def _let_go(self, record: RecordId | None, *, unread: bool = False) -> None:
        """Let a record go; one that holds a refresh token of which nothing came is kept aside for a person."""
        if record is None:
            return
        if not unread:
            self._ground.journal.release(record)
            return
        with suppress(JournalError):  # then it waits in the journal, and its replay tries again
            self._ground.journal.set_aside(record)
        self._ground.hook(Fact("authorize.unread", {"owner": self._ground.owner}, level="error"))
