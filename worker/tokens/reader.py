"""Reading the current access token of a creator: the database and the keyring are all it needs."""

from __future__ import annotations

from datetime import timedelta

from worker.errors import NotFoundError
from worker.store import CurrentPair, GrantStatus, Store
from worker.vault import PairPlace, Sealer, Token


class TokenReader:
    """Reads and opens current access tokens."""

    def __init__(self, *, store: Store, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer

    def access_token(self, creator_id: str, *, min_validity: float = 0) -> Token:
        """Return the creator's access token.

        Args:
            creator_id: the creator, as TikTok's `open_id`.
            min_validity: seconds for which the token must still be valid.

        Raises:
            NotFoundError: unknown creator, or no token that is valid for so long; the text says which.
            SealError: the stored bytes do not open with this keyring.
            StoreUnavailableError: the database does not answer.
        """
        pair = self._store.current_pair(creator_id)
        _refuse_unusable(pair, min_validity)
        place = PairPlace(creator_id=pair.creator_id, consent=pair.consent, generation=pair.generation)
        return self._sealer.open_access(pair.sealed, place)


def _refuse_unusable(pair: CurrentPair, min_validity: float) -> None:
    if pair.belongs_to is not None:
        raise NotFoundError(
            f"the pair imported for creator {pair.creator_id} is creator {pair.belongs_to}'s, as TikTok says; import "
            f"the right one with `grants import --replace`"
        )
    if pair.status is GrantStatus.REVOKED:
        raise NotFoundError(f"the grant of creator {pair.creator_id} is revoked")
    left = pair.access_expires_at - pair.now
    if left > timedelta(seconds=max(min_validity, 0)):
        return
    seconds = left.total_seconds()
    state = f"has {seconds:.0f} s left, less than the {min_validity:g} s asked for"
    if seconds <= 0:
        state = f"ended {-seconds:.0f} s ago"
    again = "; the creator must authorize again" if pair.status is GrantStatus.NEEDS_REAUTH else ""
    raise NotFoundError(f"the access token of creator {pair.creator_id} {state}{again}")
