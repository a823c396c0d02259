"""The error tree, by what the caller must do.

Every text of this tree is safe to print: it holds no token, no secret, no code and no body of an answer.

    EvertokenError
    ├── UsageError              the person asked for something that cannot be taken: exit 2
    │   └── ValidityError           no token of this creator is ever valid for so long
    ├── NotFoundError           what was asked for is not there: exit 1
    │   ├── UnknownCreatorError     no grant of this creator was ever stored
    │   ├── RevokedError            the grant was ended here, and its tokens are wiped
    │   ├── LostError               the grant has no pair in the database, and nothing says why
    │   ├── HeldError               the pair is another creator's, as TikTok says
    │   ├── ExpiredError            the access token has too little time left; a refresh brings another
    │   │   └── PausedError             a person has paused the grant, so no refresh comes before that ends
    │   └── ReauthNeededError       the access token has ended, and only the creator can bring another
    ├── ConfigurationError      a setting is missing or contradicts another: the process does not start
    ├── NotReadyError           database, Redis or keyring are not as needed: nothing is sent to TikTok
    │   ├── BrokerUnavailableError  the broker does not answer or takes no messages: the next scan publishes again
    │   └── StoreUnavailableError   the database did not answer or did not commit: try again, claim nothing new
    │       └── StoreRefusedError       it answered, and refused the transaction or kept it waiting too long
    ├── SealError               sealed bytes do not open under this key and place
    │   └── KeyMissingError         the keyring does not hold the key that sealed them
    ├── JournalError            the journal cannot be written or read
    ├── WrongOwnerError         an imported pair is another creator's: it is held back, and nothing is spent
    └── TikTokError             a call to TikTok did not succeed
        ├── NotSentError        the request never left: retry with the same token
        │   └── ShortageError       because this host had no descriptor or memory left
        ├── InDoubtError        it was sent and no complete answer came
        ├── WaitError           the quota is spent: wait this long
        ├── BackOffError        TikTok answered with trouble of its own: back off and retry
        ├── StopEveryoneError   our app, secret or request is wrong: stop the whole app, mark no creator
        ├── AskCreatorError     the grant is gone: the creator must be asked to authorize again
        ├── RefreshFirstError   a read met a dead access token: refresh once, then repeat the read
        └── GiveUpError         this one item cannot be had: leave it, touch nothing else
"""

from __future__ import annotations

from typing import Literal

QuotaScope = Literal["second", "minute", "day", "account"]
"""Which limit was broken: the app's per second, per minute or per day, or one account's on one endpoint."""

PAUSED_RETRY_SECONDS = 60.0
"""When it is worth asking again for a token of a grant that is paused: the end of a pause is not known."""


class EvertokenError(Exception):
    """Base of all our errors; `str()` is one sentence for a person and holds no secret."""


class UsageError(EvertokenError):
    """The person asked for something impossible; commands exit 2."""


class ValidityError(UsageError):
    """The validity that was asked for is no number of seconds, or is longer than the creator's tokens live."""


class NotFoundError(EvertokenError):
    """What was requested does not exist; commands exit 1."""


class UnknownCreatorError(NotFoundError):
    """No grant of this creator was ever stored here."""


class RevokedError(NotFoundError):
    """The grant was ended on our side and its tokens are wiped; only a new authorization brings it back."""


class LostError(NotFoundError):
    """The grant has no pair in the database: a backup or a new authorization brings one."""


class HeldError(NotFoundError):
    """TikTok says that the imported pair is another creator's: it is not handed out."""


class ExpiredError(NotFoundError):
    """The access token has too little time left, or was refused; a refresh is to bring another.

    Attributes:
        retry_after: seconds after which it is worth asking again.
    """

    def __init__(self, text: str, *, retry_after: float) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class PausedError(ExpiredError):
    """A person has paused the grant: it is neither refreshed nor pulled until a person ends that."""

    def __init__(self, text: str) -> None:
        super().__init__(text, retry_after=PAUSED_RETRY_SECONDS)


class ReauthNeededError(NotFoundError):
    """The access token has ended and cannot be refreshed: the creator has to authorize again."""


class ConfigurationError(EvertokenError):
    """A setting is missing, malformed or contradicts another; the process does not start."""


class NotReadyError(EvertokenError):
    """Something the daemon stands on is not as needed; nothing is sent to TikTok."""


class BrokerUnavailableError(NotReadyError):
    """The broker does not answer, does not let us in or takes no messages."""


class StoreUnavailableError(NotReadyError):
    """The database did not answer or did not commit; try again and claim nothing new meanwhile."""


class StoreRefusedError(StoreUnavailableError):
    """The database answered, and refused the transaction (no table, no right, an unfit value) or kept it waiting."""


class SealError(EvertokenError):
    """Sealed bytes do not open under this keyring and place; the text never holds the bytes."""


class KeyMissingError(SealError):
    """The keyring does not hold the key that sealed these bytes; the text names the key's id and what to do."""


class JournalError(EvertokenError):
    """The journal cannot be written or read."""


class WrongOwnerError(EvertokenError):
    """TikTok says that an imported pair is another creator's than the one it was imported for."""


class TikTokError(EvertokenError):
    """A call to TikTok did not succeed.

    Attributes:
        call: the path of the call, such as `tt_user/oauth2/refresh_token/`.
        code: TikTok's application code, or None if no envelope was read.
        http_status: the HTTP status, or None if no status line came.
        request_id: TikTok's `request_id`, or None.
    """

    def __init__(
        self,
        text: str,
        *,
        call: str,
        code: int | None = None,
        http_status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(text)
        self.call = call
        self.code = code
        self.http_status = http_status
        self.request_id = request_id


class NotSentError(TikTokError):
    """The request never left this process: DNS, refused connection or TLS; the same token may be sent again."""


class ShortageError(NotSentError):
    """The request never left this process, which had no file descriptor or no memory left: no fault of TikTok's."""


class InDoubtError(TikTokError):
    """The request was sent and no complete answer came: TikTok may or may not have acted on it."""


class WaitError(TikTokError):
    """TikTok said that a quota is spent.

    Attributes:
        seconds: how long to wait, in seconds, already clamped to sane bounds.
        scope: which limit was broken.
    """

    def __init__(
        self,
        text: str,
        *,
        seconds: float,
        scope: QuotaScope,
        call: str,
        code: int | None = None,
        http_status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(text, call=call, code=code, http_status=http_status, request_id=request_id)
        self.seconds = seconds
        self.scope: QuotaScope = scope


class BackOffError(TikTokError):
    """TikTok answered, completely, that it has trouble of its own: back off and retry."""


class StopEveryoneError(TikTokError):
    """Our app, its secret or our request is wrong: stop for the whole app, alarm, and mark no creator."""


class AskCreatorError(TikTokError):
    """TikTok says that this grant is gone."""


class RefreshFirstError(TikTokError):
    """A read met an expired or revoked access token: refresh once, then repeat the read."""


class GiveUpError(TikTokError):
    """This one item cannot be had; leave it and touch nothing else."""
