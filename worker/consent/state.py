"""What is wrong with the `state` that a redirect brings back from a consent link.

TikTok returns the state beside the code. It shows that a redirect belongs to one of our links, is not stale and comes
once. The database keeps only a hash of it, so whoever reads the database cannot forge a redirect.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from worker.errors import UsageError
from worker.store import ConsentLink

ASK_AGAIN: Final = "make a new link with `authorize url` and have the creator agree again"


class LinkProblem(StrEnum):
    """Why a state is refused."""

    MISSING = "missing"
    UNKNOWN = "unknown"
    USED = "used"
    ENDED = "ended"


class LinkError(UsageError):
    """A redirect or a visit belongs to no link that works; nothing was sent.

    Attributes:
        problem: why.
    """

    def __init__(self, text: str, problem: LinkProblem) -> None:
        super().__init__(text)
        self.problem = problem


def refuse_bad_state(state: str, link: ConsentLink | None) -> ConsentLink:
    """Return the link of a state that may be used.

    Args:
        state: the state in the redirect, decoded; empty if there was none.
        link: the link that is stored for it, if any.

    Raises:
        LinkError: its text says what is wrong, and what to do.
    """
    text, problem = _problem(state, link)
    if problem is not None or link is None:
        raise LinkError(f"{text}; {ASK_AGAIN}", problem or LinkProblem.UNKNOWN)
    return link


def _problem(state: str, link: ConsentLink | None) -> tuple[str, LinkProblem | None]:
    if not state:
        return "the redirect has no state, so it did not come from a link of ours", LinkProblem.MISSING
    if link is None:
        return "the redirect's state belongs to no link that this database knows", LinkProblem.UNKNOWN
    if link.used_at is not None:
        text = f"the link was used at {link.used_at:%Y-%m-%d %H:%M:%S} UTC, and each link works once"
        return text, LinkProblem.USED
    if link.now > link.ends_at:
        return f"the link ended {(link.now - link.ends_at).total_seconds():.0f} s ago", LinkProblem.ENDED
    return "", None
