"""An attempt: a claim under way, its clock, its calls so far, and what to send next."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from functools import partial
from typing import Final

from worker.errors import AskCreatorError, EvertokenError, InDoubtError, NotSentError, TikTokError
from worker.journal import RecordId, Written
from worker.store import Claim
from worker.tiktok import RawAnswer, TokenAnswer
from worker.vault import Token

MOST_TOKENS: Final = 4
"""Most different refresh tokens that one attempt sends: the current one, and the newest of its predecessors.

Each costs a permit, and a server without a grace window may take a late replay for theft (RFC 9700, section 4.14.2).
"""
elapsed_clock: Final[Callable[[], float]] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
"""Returns seconds of a clock that is never set and that goes on while the machine is suspended."""


class LeaseTooShortError(EvertokenError):
    """The rest of the lease is too short for another call: nothing was sent."""


@dataclass
class Call:
    """One request and its result.

    Attributes:
        sent_at: when it was sent, on the database's clock.
        sent: the refresh token that was sent.
        secret: the app's secret that was sent with it; None for the first one.
        raw: the bytes received, which are not read before they are on disk.
        seconds: how long the call took.
        ended_at: `elapsed_clock()` when the answer had come.
        written: the journal's record of the bytes on its way to the disk; None if nothing was received, or the journal
            failed.
        journaled: False if bytes were received and the journal could not take them.
        record: the journal's record once it is on disk, to be released when the outcome has committed.
        result: the pair, or why there is none; None until the bytes were read.
        unread: True if the bytes hold a refresh token in full and no pair came of them: they are set aside.
        earlier: the record of a call before it, with the app's other secret, which was refused.
    """

    sent_at: datetime
    sent: Token
    secret: Token | None
    raw: RawAnswer
    seconds: float
    ended_at: float
    written: Written | None = None
    journaled: bool = True
    record: RecordId | None = None
    result: TokenAnswer | TikTokError | None = None
    unread: bool = False
    earlier: RecordId | None = None


class Next(Enum):
    """What an attempt does after its last call."""

    REPEAT = auto()  # the same token once more: a server with a grace window answers it again
    OLDER = auto()  # the newest kept token that was not sent yet
    END = auto()


@dataclass
class Attempt:
    """One try to refresh a grant.

    Attributes:
        won_at: `elapsed_clock()` when the claim was asked for.
        unsent: why the last call was not sent, if it was not.
    """

    claim: Claim
    won_at: float
    calls: list[Call] = field(default_factory=list)
    unsent: NotSentError | LeaseTooShortError | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the claim was asked for."""
        return elapsed_clock() - self.won_at

    @property
    def now(self) -> datetime:
        """The database's time: that of the claim, plus the time since."""
        return self.claim.claimed_at + timedelta(seconds=self.elapsed)

    def lasts(self, seconds: float) -> bool:
        """Return True if the lease, as it was claimed, lasts for this many more seconds."""
        return self.claim.lease_until - self.claim.claimed_at >= timedelta(seconds=self.elapsed + seconds)

    @property
    def pair(self) -> TokenAnswer | None:
        """The pair that the last call brought."""
        result = self.calls[-1].result if self.calls else None
        return result if isinstance(result, TokenAnswer) else None

    @property
    def failure(self) -> TikTokError:
        """Why the last call brought no pair, or why none was sent.

        Raises:
            TypeError: it brought one, or was not read.
        """
        result = self.calls[-1].result if self.calls else self.unsent
        if not isinstance(result, TikTokError):
            raise TypeError("the attempt has not failed")
        return result

    @property
    def is_untried(self) -> bool:
        """True if nothing was sent yet, and nothing has failed to be sent."""
        return not self.calls and self.unsent is None

    @property
    def is_clean(self) -> bool:
        """True if its first call brought this creator's pair and the journal has it: it is stored with its group."""
        pair = self.pair
        return (
            pair is not None
            and len(self.calls) == 1
            and self.calls[0].journaled
            and pair.creator_id == self.claim.creator_id
        )

    @property
    def in_doubt(self) -> bool:
        """True if a call of this attempt got no complete answer."""
        return any(isinstance(call.result, InDoubtError) for call in self.calls)

    @property
    def unresolved(self) -> bool:
        """True if this attempt or an older one may have rotated the pair without our seeing it."""
        return bool(self.claim.unresolved) or self.in_doubt

    @property
    def aside(self) -> bool:
        """True if an answer of it could not be read, may hold a pair, and is kept aside."""
        return any(call.unread and call.record is not None for call in self.calls)

    def next(self, *, may_repeat: bool) -> Next:
        """Return what is done after the last call, whose answer was read.

        A call in doubt is repeated once, at once: servers with a grace window keep it open for seconds only, and
        servers without one may take a late replay for theft. A refused token is followed by the older ones.
        """
        if self.in_doubt and may_repeat and len(self.calls) == 1:
            return Next.REPEAT
        sent = {call.sent.reveal() for call in self.calls}
        refused = isinstance(self.calls[-1].result, AskCreatorError)
        return Next.OLDER if refused and len(sent) < MOST_TOKENS else Next.END
