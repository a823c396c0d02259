"""What is wrong with the `state` that a redirect brings back from a consent link.

TikTok returns the state beside the code. It shows that a redirect belongs to one of our links, is not stale and comes
once. The database keeps only a hash of it, so whoever reads the database cannot forge a redirect.
"""

from __future__ import annotations

from typing import Final

from worker.store import ConsentLink

ASK_AGAIN: Final = "make a new link with `authorize url` and have the creator agree again"


def problem_of(state: str, link: ConsentLink | None) -> str | None:
    """Return what is wrong with the state of a redirect, in a sentence, or None.

    Args:
        state: the state in the redirect, decoded; empty if there was none.
        link: the link that is stored for it, if any.
    """
    if not state:
        return f"the redirect has no state, so it did not come from a link of ours; {ASK_AGAIN}"
    if link is None:
        return f"the redirect's state belongs to no link that this database knows; {ASK_AGAIN}"
    if link.used_at is not None:
        return f"the link was used at {link.used_at:%Y-%m-%d %H:%M:%S} UTC, and each link works once; {ASK_AGAIN}"
    if link.now > link.ends_at:
        return f"the link ended {(link.now - link.ends_at).total_seconds():.0f} s ago; {ASK_AGAIN}"
    return None
