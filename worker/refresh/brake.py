"""The brake: when TikTok refuses the app itself, refreshing stops for all, one alarm goes out and no creator is marked.

The brake is a row in the database, so every worker obeys it and it outlasts them. While it is on, one probe at a time
is sent; the first that TikTok answers as it should releases the brake.

The hold is weaker: when TikTok calls an unlikely share of grants gone, all refreshing goes on, the refused grants stay
suspect, and no creator is asked until few are left or a person has decided.
"""

from __future__ import annotations

from typing import Final

from worker.errors import AskCreatorError, TikTokError
from worker.ground import Ground
from worker.policy.verdicts import BRAKE_WINDOW, FEWEST_REFUSALS, brake_reason, hold_reason
from worker.store import BrakeState
from worker.telemetry import Fact

PROBE_SECONDS: Final = 30.0


class Brake:
    """The app-wide stop, with half-open probing."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._seen_on = False

    def stops(self, state: BrakeState) -> bool:
        """Return True if the brake was on when it was read: then a refresh needs to win the next probe."""
        self._seen_on = state.reason is not None
        return self._seen_on

    def wins_probe(self) -> bool:
        """Return True if this refresh is the next probe, or the brake has been released meanwhile."""
        return self._ground.store.may_refresh(probe_seconds=PROBE_SECONDS)

    def considers(self, error: TikTokError, *, grant_id: int, failures: int) -> str | None:
        """Weigh an error together with the app's last minutes, and pull the brake or begin a hold if necessary.

        Args:
            error: what an attempt met.
            grant_id: the grant of the attempt.
            failures: its failed attempts in a row before this one.

        Returns:
            Why no creator is asked for now: the brake or the hold is on. None if both are off.
        """
        state = self._ground.store.brake()
        if state.stopped:
            self._seen_on = True
            return state.reason
        evidence = self._ground.store.evidence(window_seconds=BRAKE_WINDOW.total_seconds(), without=grant_id)
        if isinstance(error, AskCreatorError):
            return self._holds(state.held_reason, hold_reason(evidence))
        reason = brake_reason(evidence, error, failures=failures)
        if reason and self._ground.store.pull_brake(reason, probe_seconds=PROBE_SECONDS):
            self._ground.hook(Fact("app.stopped", {"reason": reason, "code": error.code}, level="error"))
        return reason

    def _holds(self, held: str | None, reason: str | None) -> str | None:
        if held is None and reason is not None and self._ground.store.begin_hold(reason):
            self._ground.hook(Fact("refusals.held", {"reason": reason}, level="error"))
        return held or reason

    def settle(self) -> None:
        """Announce the end of a stop, and end a hold when few grants are suspect: one all-clear for each alarm."""
        self._ground.store.announce_resumed(after_seconds=BRAKE_WINDOW.total_seconds())
        if self._ground.store.end_hold(fewest=FEWEST_REFUSALS):
            self._ground.hook(Fact("refusals.over", {}))

    def succeeded(self) -> bool:
        """Release the brake after a refresh that TikTok answered as it should, if it was seen to be on.

        Returns:
            True if it was released just now: what waited for it is due.
        """
        released = self._seen_on and self._ground.store.release_brake()
        if released:
            self._seen_on = False
            self._ground.hook(Fact("app.resumed", {}))
        return released
