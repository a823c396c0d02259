"""A shadow of the daemon beside another job: what it would have sent, when and why, by a file of that job's tokens.

Pure: the files say when each pair was issued and when it ends; the policy says the rest. The quota is played as a line
in which the grant whose token ends first goes first. TikTok's answers are not played: each refresh is taken to succeed.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from worker.policy.renewal import draw_jitter, next_refresh

UNSENT: Final = timedelta(0)


@dataclass(frozen=True)
class SeenPair:
    """When a creator's pair was issued and when it ends, as a file has it."""

    creator_id: str
    issued_at: datetime
    ends_at: datetime


@dataclass(frozen=True)
class Sending:
    """A refresh that would have been sent.

    Attributes:
        due_at: when its renewal window begins, or the file's time if that was before.
        sent_at: when the quota has room for it.
        ends_at: when the access token ends.
        reason: why then.
    """

    creator_id: str
    due_at: datetime
    sent_at: datetime
    ends_at: datetime
    reason: str

    @property
    def without_token(self) -> timedelta:
        """How long the creator has no valid access token before the refresh."""
        return max(self.sent_at - self.ends_at, UNSENT)


@dataclass(frozen=True)
class Difference:
    """What the other job did with a creator, beside what would have been sent.

    Attributes:
        theirs_at: when the newer file's pair was issued; None if the pair is the same.
        ours_at: when the refresh would have been sent.
        theirs_without: how long the creator had no valid token there, until the newer pair or the newer file.
        ours_without: the same here.
    """

    creator_id: str
    theirs_at: datetime | None
    ours_at: datetime
    theirs_without: timedelta
    ours_without: timedelta


def plan(pairs: Iterable[SeenPair], *, at: datetime, renew_at: float, per_second: float) -> list[Sending]:
    """Return the next refresh of each creator, in the order in which they would be sent.

    Args:
        pairs: one for each creator.
        at: when the file was written; nothing is sent before.
        renew_at: fraction of the life at which the renewal window begins.
        per_second: refreshes that the quota carries.
    """
    waiting: list[tuple[datetime, str, datetime, str]] = []
    coming = sorted(
        (max(decision.at, at), pair.ends_at, pair.creator_id, decision.reason)
        for number, pair in enumerate(sorted(pairs, key=lambda each: each.creator_id))
        for decision in (
            next_refresh(
                issued_at=pair.issued_at, expires_at=pair.ends_at, renew_at=renew_at, jitter=draw_jitter(number)
            ),
        )
    )
    sent, free_at, begun = list[Sending](), at, 0
    while begun < len(coming) or waiting:
        if not waiting:
            free_at = max(free_at, coming[begun][0])
        while begun < len(coming) and coming[begun][0] <= free_at:
            due_at, ends_at, creator_id, reason = coming[begun]
            heapq.heappush(waiting, (ends_at, creator_id, due_at, reason))
            begun += 1
        ends_at, creator_id, due_at, reason = heapq.heappop(waiting)
        sent.append(Sending(creator_id, due_at, free_at, ends_at, reason))
        free_at += timedelta(seconds=1 / per_second)
    return sent


def compare(sendings: Sequence[Sending], later: Mapping[str, SeenPair], *, until: datetime) -> list[Difference]:
    """Return for each creator of both files what the other job did; those without a newer pair have no `theirs_at`.

    Args:
        sendings: what would have been sent.
        later: the pairs of the newer file by creator.
        until: when the newer file was written.
    """
    found = []
    for sending in sendings:
        now = later.get(sending.creator_id)
        if now is None:
            continue
        theirs_at = None if now.ends_at == sending.ends_at else now.issued_at
        found.append(
            Difference(
                creator_id=sending.creator_id,
                theirs_at=theirs_at,
                ours_at=sending.sent_at,
                theirs_without=max((theirs_at or until) - sending.ends_at, UNSENT),
                ours_without=max(min(sending.sent_at, until) - sending.ends_at, UNSENT),
            )
        )
    return found
