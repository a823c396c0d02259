"""What neighbouring applications import: a valid access token for a creator.

    from worker.tokens import access_token
    token = access_token("creator-id", min_validity=60)

It reads the database alone, so it works while TikTok, Redis and the workers are away, until the tokens end. Of the
settings it needs EVERTOKEN_DATABASE_URL, EVERTOKEN_TIKTOK_APP_ID and EVERTOKEN_KEYRING, and no app secret. The keyring
should be one of `celery -A worker keys reader`, which opens access tokens and nothing else.
"""

from __future__ import annotations

from typing import Final

from worker.foundation import PerProcess, Reading
from worker.services import POOL_SIZE
from worker.settings import ReaderSettings, load
from worker.tokens.reader import TokenReader

__all__ = ["access_token", "token_reader"]


def access_token(creator_id: str, *, min_validity: float = 0) -> str:
    """Return the text of the creator's access token, with the settings of this process's environment.

    Args:
        creator_id: the creator, as TikTok's `open_id`.
        min_validity: seconds for which the token must still be valid.

    Raises:
        ConfigurationError: a setting is missing or wrong.
        UnknownCreatorError, RevokedError, ExpiredError, ReauthNeededError: there is no token that is valid for so long;
            all are NotFoundError of `worker.errors`.
        SealError: the stored bytes do not open with this keyring.
        StoreUnavailableError: the database does not answer.
    """
    return token_reader(_SHARED.get()).access_token(creator_id, min_validity=min_validity).reveal()


def token_reader(reading: Reading) -> TokenReader:
    """Return the reader of access tokens that stands on the keys and the database of a process."""
    return TokenReader(store=reading.store, sealer=reading.sealer)


_SHARED: Final = PerProcess(lambda: Reading(load(ReaderSettings), pool_size=POOL_SIZE))
