"""What a creator is told, by what became of the consent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ASK: Final = "Ask the people who invited you for a new link."


@dataclass(frozen=True)
class Outcome:
    """A page for a creator.

    Attributes:
        again: a last sentence that says what the creator can do; None if there is nothing to do.
        status: HTTP's.
    """

    title: str
    lines: tuple[str, ...]
    again: str | None = None
    status: int = 200


OUTCOMES: Final = {
    "connected": Outcome(
        "Your account is connected",
        ("Thank you. You can close this page.", "You can end the connection at any time in TikTok's settings."),
    ),
    "later": Outcome(
        "Your consent has arrived",
        ("Thank you. It is safely kept, and your account will be connected within some minutes.",),
        "There is nothing more to do. You can close this page.",
    ),
    "declined": Outcome(
        "Your account was not connected",
        ("You did not agree on TikTok's page, so nothing was connected.",),
        "If that was a mistake, open the link in your invitation again.",
    ),
    "link-used": Outcome(
        "This link was used before",
        ("Each link works once.", "If you have just connected your account, all is well: there is nothing more to do."),
        f"If you have not: {ASK}",
        410,
    ),
    "link-ended": Outcome("This link has ended", ("A link works for a limited time.",), ASK, 410),
    "link-unknown": Outcome(
        "This link does not work",
        ("It may have been copied in part.",),
        f"Open it again from your invitation. If that does not help: {ASK}",
        404,
    ),
    "unreadable": Outcome(
        "This address does not work",
        ("TikTok's answer did not arrive whole.",),
        "Open the link in your invitation again, and do not copy addresses by hand.",
        400,
    ),
    "other-account": Outcome(
        "That was another account",
        ("The invitation is for one TikTok account, and you agreed with another one. Nothing was connected.",),
        f"Log in to TikTok with the account that was invited. {ASK}",
        409,
    ),
    "tiktok-trouble": Outcome(
        "TikTok did not answer as usual",
        ("Nothing was connected. This is not your mistake.",),
        f"Open the link in your invitation again in a while. If it no longer works: {ASK}",
        502,
    ),
    "not-ready": Outcome(
        "We cannot take your consent right now",
        ("Nothing was connected, and your link was not used up.",),
        "Open the link in your invitation again in some minutes.",
        503,
    ),
    "our-mistake": Outcome(
        "Something is wrong on our side",
        ("Nothing was connected. You cannot change this, and you did nothing wrong.",),
        "The people who invited you have been told in their log. Please let them know, too.",
        500,
    ),
}
OURS: Final = frozenset({"our-mistake", "not-ready"})
"""What the operator has to look at."""
