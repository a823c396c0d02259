"""What neighbouring applications import: a valid access token for a creator.

    from worker.tokens import access_token
    token = access_token("creator-id", min_validity=60)

It reads the database alone, so it works while TikTok, Redis and the workers are away, until the tokens end.
"""

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


def access_token(creator_id: str, *, min_validity: float = 0) -> str:
    """Return the text of the creator's access token, with the settings of this process's environment.

    Args:
        creator_id: the creator, as TikTok's `open_id`.
        min_validity: seconds for which the token must still be valid.

    Raises:
        ConfigurationError: a setting is missing or wrong.
        NotFoundError, SealError, StoreUnavailableError: as for `TokenReader.access_token`.
    """
    from worker.services import shared_services  # noqa: PLC0415 - a reader that brings its own store needs no settings

    return shared_services().tokens.access_token(creator_id, min_validity=min_validity).reveal()


def _refuse_unusable(pair: CurrentPair, min_validity: float) -> None:
    if pair.status is GrantStatus.REVOKED:
        raise NotFoundError(f"the grant of creator {pair.creator_id} is revoked")
    left = pair.access_expires_at - pair.now
    if left <= timedelta(seconds=max(min_validity, 0)):
        state = (
            f"ended {-left.total_seconds():.0f} s ago"
            if left <= timedelta(0)
            else f"has {left.total_seconds():.0f} s left"
        )
        again = "; the creator must authorize again" if pair.status is GrantStatus.NEEDS_REAUTH else ""
        raise NotFoundError(
            f"the access token of creator {pair.creator_id} {state}, less than the {min_validity:g} s asked for{again}"
        )
