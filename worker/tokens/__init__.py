"""What neighbouring applications import: valid access tokens of creators.

    from worker.tokens import access_token
    token = access_token("creator-id", min_validity=60)

It reads the database alone, so it works while TikTok, Redis and the workers are away, until the tokens end. It needs
EVERTOKEN_DATABASE_URL and, as EVERTOKEN_KEYRING or EVERTOKEN_KEYRING_FILE, a keyring of `celery -A worker keys reader`,
which opens access tokens and nothing else. The errors are in `worker.errors`.

Importing this module loads next to nothing. The database's driver and the cipher are loaded with the first call, or by
`open_reader()` when an application starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from worker.reading import Reading
    from worker.tokens.reader import ServedToken, TokenReader

__all__ = ["WAIT_SECONDS", "access_token", "open_reader", "report_rejected", "served_token", "token_reader"]

WAIT_SECONDS: Final = 15.0
"""How long a read waits for a refresh: a scan for due grants every ten seconds, and the call to TikTok."""


def access_token(
    creator_id: str, *, min_validity: float = 0, newer_than: int | None = None, wait_seconds: float = WAIT_SECONDS
) -> str:
    """Return the text of the creator's access token, with the settings of this process's environment.

    Args:
        creator_id: the creator, as TikTok's `open_id`.
        min_validity: seconds for which the token must still be valid.
        newer_than: generation of a token that TikTok refused; only a later one is returned.
        wait_seconds: how long to wait for a refresh, if the token at hand does not do.

    Raises:
        ConfigurationError: a setting is missing or wrong.
        ValidityError: `min_validity` is no number of seconds, or longer than the creator's tokens live.
        UsageError: `newer_than` names a generation that has not come yet.
        UnknownCreatorError, RevokedError, LostError, HeldError, ReauthNeededError: there is no token, and waiting does
            not help; all are NotFoundError.
        ExpiredError: no token was valid for so long, and no refresh came in time; `retry_after` says when to ask again.
        PausedError: the same, and no refresh comes because a person has paused the grant.
        KeyMissingError: the keyring lacks the key of this token.
        SealError: the stored bytes are damaged.
        StoreUnavailableError: the database does not answer.
    """
    served = served_token(creator_id, min_validity=min_validity, newer_than=newer_than, wait_seconds=wait_seconds)
    return served.access_token.reveal()


def served_token(
    creator_id: str, *, min_validity: float = 0, newer_than: int | None = None, wait_seconds: float = WAIT_SECONDS
) -> ServedToken:
    """Return the creator's access token with its end and its generation; arguments and errors as for `access_token`."""
    from worker.tokens.reader import SHARED  # noqa: PLC0415 - importing this module must stay cheap

    return SHARED.get().serve(creator_id, min_validity=min_validity, newer_than=newer_than, wait_seconds=wait_seconds)


def report_rejected(creator_id: str, generation: int) -> bool:
    """Report that TikTok refused a token of this generation; see `TokenReader.report_rejected`."""
    from worker.tokens.reader import SHARED  # noqa: PLC0415 - as above

    return SHARED.get().report_rejected(creator_id, generation)


def open_reader(environ: Mapping[str, str] | None = None, *, dotenv: Path | None = None) -> TokenReader:
    """Return a reader with settings of its own.

    Args:
        environ: settings by their names; the environment of this process by default.
        dotenv: a file of `NAME=value` lines to read settings from, too; none by default, since an application's own
            `.env` is its own.

    Raises:
        ConfigurationError: a setting is missing or wrong.
    """
    from worker.tokens import reader  # noqa: PLC0415 - as above

    return reader.open_reader(environ, dotenv=dotenv)


def token_reader(reading: Reading) -> TokenReader:
    """Return the reader of access tokens that stands on the keys and the database of a process."""
    from worker.tokens.reader import TokenReader  # noqa: PLC0415 - as above

    return TokenReader(store=reading.store, sealer=reading.sealer)
