"""Reading the current access token of a creator: the database and the keyring are all it needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from worker.errors import ExpiredError, NotFoundError, ReauthNeededError, RevokedError
from worker.store import CurrentPair, GrantStatus, Store
from worker.vault import PairPlace, Sealer, Token


@dataclass(frozen=True)
class ServedToken:
    """An access token with what its user needs to know of it.

    Attributes:
        expires_at: when TikTok stops taking it.
        consent: number of the creator's consent.
        generation: number of the pair within the consent; a later pair has a higher one.
    """

    creator_id: str
    access_token: Token
    expires_at: datetime
    consent: int
    generation: int


class TokenReader:
    """Reads and opens current access tokens."""

    def __init__(self, *, store: Store, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer

    def serve(self, creator_id: str, *, min_validity: float = 0) -> ServedToken:
        """Return the creator's access token, with its end and its generation.

        Args:
            creator_id: the creator, as TikTok's `open_id`.
            min_validity: seconds for which the token must still be valid.

        Raises:
            ValueError: `min_validity` is not a number (NaN).
            UnknownCreatorError: no grant of this creator was ever stored.
            RevokedError: the grant was ended here.
            ReauthNeededError: the token has too little time left, and the creator has to authorize again.
            ExpiredError: the token has too little time left, and a refresh is to bring another.
            SealError: the stored bytes do not open with this keyring.
            StoreUnavailableError: the database does not answer.
        """
        if math.isnan(min_validity):
            raise ValueError("min_validity is the number of seconds for which the token must be valid, and NaN is none")
        pair = self._store.current_pair(creator_id)
        _refuse_unusable(pair, min_validity)
        place = PairPlace(creator_id=pair.creator_id, consent=pair.consent, generation=pair.generation)
        token = self._sealer.open_access(pair.sealed, place)
        return ServedToken(pair.creator_id, token, pair.access_expires_at, pair.consent, pair.generation)

    def access_token(self, creator_id: str, *, min_validity: float = 0) -> Token:
        """Return the creator's access token alone; arguments and errors are those of `serve`."""
        return self.serve(creator_id, min_validity=min_validity).access_token


def _refuse_unusable(pair: CurrentPair, min_validity: float) -> None:
    if pair.belongs_to is not None:
        raise NotFoundError(
            f"the pair imported for creator {pair.creator_id} is creator {pair.belongs_to}'s, as TikTok says; import "
            f"the right one with `grants import --replace`"
        )
    if pair.status is GrantStatus.REVOKED:
        raise RevokedError(f"the grant of creator {pair.creator_id} is revoked")
    seconds = (pair.access_expires_at - pair.now).total_seconds()
    if seconds > max(min_validity, 0):
        return
    state = f"has {seconds:.0f} s left, less than the {min_validity:g} s asked for"
    if seconds <= 0:
        state = f"ended {-seconds:.0f} s ago"
    text = f"the access token of creator {pair.creator_id} {state}"
    if pair.status is GrantStatus.NEEDS_REAUTH:
        raise ReauthNeededError(f"{text}; the creator must authorize again")
    raise ExpiredError(text)
