"""The in-doubt ladder: which stored refresh token is sent, how often, and when to stop trying."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Event

from worker.errors import AskCreatorError, InDoubtError, NotSentError, StoreUnavailableError
from worker.refresh.call import Called, LeaseTooShortError, RefreshCaller, elapsed_clock
from worker.store import Claim, Store
from worker.vault import Token


@dataclass
class Climb:
    """An attempt under way: its claim and its calls so far.

    Attributes:
        won_at: `elapsed_clock()` when the claim was asked for.
        unsent: why the last call was not sent, where it was not.
    """

    claim: Claim
    won_at: float
    calls: list[Called] = field(default_factory=list)
    unsent: NotSentError | LeaseTooShortError | None = None

    @property
    def in_doubt(self) -> bool:
        """True where a call of this attempt got no complete answer."""
        return any(isinstance(call.error, InDoubtError) for call in self.calls)

    @property
    def unresolved(self) -> bool:
        """True where this attempt or an older one may have rotated the pair without our seeing it."""
        return bool(self.claim.unresolved) or self.in_doubt

    @property
    def now(self) -> datetime:
        """The database's time, as told by the claim and the time since."""
        return self.claim.claimed_at + timedelta(seconds=elapsed_clock() - self.won_at)


class Ladder:
    """Climbs from the current refresh token to the older ones, one permit a call."""

    def __init__(
        self,
        *,
        caller: RefreshCaller,
        store: Store,
        permit: Callable[[int], float],
        may_repeat: bool,
        longest_pause_seconds: float,
        stop: Event,
    ) -> None:
        """Make one for a process.

        Args:
            caller: sends.
            store: tells whether somebody else has moved on.
            permit: gives the seconds to wait for a permit of the quota for a grant; 0 is a permit.
            may_repeat: whether a call in doubt is sent once more at once.
            longest_pause_seconds: the longest pause before that.
            stop: set when the process ends.
        """
        self._caller = caller
        self._store = store
        self._permit = permit
        self._may_repeat = may_repeat
        self._longest_pause_seconds = longest_pause_seconds
        self._stop = stop

    def climb(self, claim: Claim, won_at: float, tokens: Sequence[Token]) -> Climb:
        """Call until an answer comes or nothing is left that is worth a call.

        The current token goes first. A call in doubt is repeated once, at once: servers with a grace window keep it
        open for seconds only, and servers without one may take a late replay for theft (RFC 9700, section 4.14.2).
        A refused token is followed by the older ones, newest first.

        Args:
            claim: the claim.
            won_at: `elapsed_clock()` when the claim was asked for.
            tokens: refresh tokens to send, each once, the current one first.
        """
        climb = Climb(claim, won_at)
        try:
            for token in tokens:
                if climb.calls and self._permit(claim.grant_id) > 0:
                    break
                self._try(climb, token)
                if not isinstance(climb.calls[-1].error, AskCreatorError) or self._moved_on(claim):
                    break
        except (NotSentError, LeaseTooShortError) as error:
            climb.unsent = error
        return climb

    def _try(self, climb: Climb, token: Token) -> None:
        climb.calls.append(self._caller.call(climb.claim, climb.won_at, token))
        if not climb.in_doubt or not self._may_repeat or len(climb.calls) > 1:
            return
        self._stop.wait(self._longest_pause_seconds * random.uniform(0.2, 1))  # noqa: S311 - a pause is no secret
        if self._permit(climb.claim.grant_id) == 0:
            climb.calls.append(self._caller.call(climb.claim, climb.won_at, token))

    def _moved_on(self, claim: Claim) -> bool:
        """Return True where a newer attempt, pair or consent has come, or that cannot be known: then try no more."""
        try:
            grant = self._store.grant_by_id(claim.grant_id)
        except StoreUnavailableError:
            return True
        return (grant.consent, grant.generation) != (claim.consent, claim.generation)
