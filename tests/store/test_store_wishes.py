"""Wishes: many grants are made due at once, and neither back-off nor a pause is shortened."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from worker.policy.verdicts import AttemptOutcome
from worker.store import GrantCondition, GrantFilter, GrantStatus, LeftOut

if TYPE_CHECKING:
    from tests.store.conftest import Fleet

HOUR = timedelta(hours=1)
ALL = GrantFilter()


@pytest.fixture
def crowd(fleet: Fleet) -> Fleet:
    """Three grants that are fresh, and one for each reason to be left out."""
    later: dict[str, Any] = {"next_refresh_at": fleet.soon(7200)}
    at = fleet.store.ping()
    fleet.add("in 9 h", access_expires_at=at + 9 * HOUR, reference="acme", **later)
    fleet.add("in 3 h", access_expires_at=at + 3 * HOUR, **later)
    fleet.add("in 6 h", access_expires_at=at + 6 * HOUR, reference="acme", **later)
    fleet.add("due")
    fleet.add("revoked", **later)
    fleet.store.mark_revoked("revoked")
    fleet.add("paused", **later)
    fleet.store.pause(creator_id="paused")
    fleet.claim(fleet.add("leased", **later).grant_id)
    fleet.store.release(
        fleet.claim(fleet.add("failing", **later).grant_id), outcome=AttemptOutcome.NOT_SENT,
        next_refresh_at=fleet.soon(3600), reason="no way out", failed=True,
    )  # fmt: skip
    return fleet


def _plans(fleet: Fleet) -> dict[str, datetime]:
    return {grant.creator_id: grant.next_refresh_at for grant in fleet.store.grants()}


def test_what_would_be_refreshed_later_is_made_due_and_all_else_is_left(crowd: Fleet) -> None:
    """The token that ends first goes first; each grant that is left out has its reason and keeps its time."""
    before = _plans(crowd)

    wish = crowd.store.request_refreshes(ALL, 100)

    assert [grant.creator_id for grant in wish.chosen] == ["in 3 h", "in 6 h", "in 9 h"]
    assert (wish.matching, wish.beyond_limit) == (8, 0)
    assert wish.left_out == dict.fromkeys(LeftOut, 1)
    now, after = crowd.store.ping(), _plans(crowd)
    assert {name for name, at in after.items() if at != before[name]} == {"in 3 h", "in 6 h", "in 9 h"}
    assert all(after[grant.creator_id] <= now for grant in wish.chosen)
    assert crowd.store.due_count() == 4


def test_a_limit_takes_those_whose_tokens_end_first(crowd: Fleet) -> None:
    """What is beyond it is counted and left; the same wish again takes the next ones."""
    wish = crowd.store.request_refreshes(ALL, 2)
    again = crowd.store.request_refreshes(ALL, 2)

    assert ([grant.creator_id for grant in wish.chosen], wish.beyond_limit) == (["in 3 h", "in 6 h"], 1)
    assert ([grant.creator_id for grant in again.chosen], again.beyond_limit) == (["in 9 h"], 0)


@pytest.mark.parametrize(
    ("which", "chosen"),
    [
        (GrantFilter(reference="acme"), ["in 6 h", "in 9 h"]),
        (GrantFilter(status=GrantStatus.REVOKED), []),
        (GrantFilter(condition=GrantCondition.FRESH, reference="acme"), ["in 6 h", "in 9 h"]),
        (GrantFilter(ends_within=4 * HOUR), ["in 3 h"]),
        (GrantFilter(ends_within=7 * HOUR, reference="acme"), ["in 6 h"]),
    ],
    ids=str,
)
def test_conditions_of_a_filter_hold_together(crowd: Fleet, which: GrantFilter, chosen: list[str]) -> None:
    """A grant that meets only some of them is not meant."""
    assert [grant.creator_id for grant in crowd.store.wish(which, 100).chosen] == chosen


def test_the_end_of_a_token_is_compared_with_an_instant(crowd: Fleet) -> None:
    """`ends_before` is an instant of its own, whatever the time is."""
    which = GrantFilter(ends_before=crowd.store.ping() + 7 * HOUR)

    assert [grant.creator_id for grant in crowd.store.wish(which, 100).chosen] == ["in 3 h", "in 6 h"]


def test_a_look_at_a_wish_is_the_wish_and_changes_nothing(crowd: Fleet) -> None:
    """The same grants and counts, and the table of grants is bit for bit as before."""
    before = crowd.store.grants()

    looked = crowd.store.wish(ALL, 2)

    assert crowd.store.grants() == before
    assert crowd.store.request_refreshes(ALL, 2) == looked
