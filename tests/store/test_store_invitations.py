"""The coming ends of consents: counted by week, and creators of a crowded week invited early, each on its own day."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.store.conftest import Fleet
from worker.planning.reauthorizations import LOOK_SECONDS, Reauthorizations, busiest
from worker.policy.invitations import EARLIEST_DAYS, USUAL_DAYS

DAY = timedelta(days=1)


def crowd(fleet: Fleet, count: int, days: float, *, prefix: str = "crowd", age_days: float = 70) -> None:
    """Store grants whose consents end together in a number of days, with jitters from 0 to 1."""
    at = fleet.store.ping()
    given = at - age_days * DAY
    fleet.keep(
        [
            fleet.consent(
                f"{prefix}-{number}", jitter=number / count, issued_at=given, refresh_expires_at=at + days * DAY
            )
            for number in range(count)
        ]
    )
    fleet.sql(
        "UPDATE grants SET created_at = :given WHERE creator_id LIKE :who",
        given=int(given.timestamp() * 1000), who=f"{prefix}-%",
    )  # fmt: skip


def invited(fleet: Fleet) -> dict[str, int]:
    """Return who was invited, and within how many days the consent ends by the notice."""
    fleet.store.warn_of_ends(500)
    notices = fleet.store.undelivered_notices(500)
    return {str(each.creator_id): each.data["days"] for each in notices if each.kind == "reauth_soon" and each.data}


def test_ends_are_counted_by_week(fleet: Fleet) -> None:
    """Weeks begin now; what has ended, was revoked or has no end is left out."""
    crowd(fleet, 3, 8)
    crowd(fleet, 2, 363, prefix="late")
    for name, days in (("over", -1), ("revoked", 8)):
        fleet.add(name, refresh_expires_at=fleet.store.ping() + days * DAY)
    fleet.add("endless", refresh_expires_at=None)
    fleet.store.mark_revoked("revoked")

    weeks = fleet.store.ends_by_week()

    assert [(week.week, week.grants) for week in weeks] == [(1, 3), (51, 2)]
    assert busiest(weeks)[0].grants == 3


def test_ends_that_each_refresh_moves_are_not_counted(fleet: Fleet) -> None:
    """If TikTok's answers show that, nobody has to authorize again while refreshes succeed."""
    crowd(fleet, 3, 8)
    fleet.store.note_terms([(1, {"refresh_end_moves": "yes"})])

    assert fleet.store.ends_by_week() == []


def test_the_figures_of_the_metrics_are_counted_once_in_a_while(fleet: Fleet) -> None:
    """Whole weeks, and the same figure for some minutes."""
    clock = [0.0]
    coming = Reauthorizations(store=fleet.store, monotonic=lambda: clock[0])
    crowd(fleet, 3, 8)
    assert [coming.within(days) for days in (7, 28, 91, 364)] == [0, 3, 3, 3]

    crowd(fleet, 2, 50, prefix="more")

    assert coming.within(91) == 3
    clock[0] += LOOK_SECONDS
    assert coming.within(91) == 5


@pytest.mark.parametrize("left", [88.0, 60.0, 45.0, 29.0])
def test_a_crowd_is_invited_early_each_creator_on_a_day_of_its_own(fleet: Fleet, left: float) -> None:
    """The nearer the end, the more were invited, by the number that was drawn; from 30 days on all are."""
    crowd(fleet, 40, left)

    found = invited(fleet)

    days = [USUAL_DAYS + (EARLIEST_DAYS - USUAL_DAYS) * n / 40 for n in range(40)]
    expected = {f"crowd-{n}" for n in range(40) if left <= days[n]}
    assert set(found) == expected
    assert set(found.values()) <= {30 if left <= 30 else 60 if left <= 60 else 90}
    assert invited(fleet) == found


def test_a_few_creators_and_young_consents_are_not_invited_early(fleet: Fleet) -> None:
    """Nineteen make no crowd; a consent for three months that was just given is not asked for again at once."""
    crowd(fleet, 19, 60)
    assert invited(fleet) == {}

    crowd(fleet, 40, 60, prefix="young", age_days=1)

    assert not any(name.startswith("young") for name in invited(fleet))


def test_an_early_invitation_is_the_first_of_three(fleet: Fleet) -> None:
    """Nothing more comes at 30 days; 7 days and a day before the end do."""
    crowd(fleet, 40, 88)
    early = set(invited(fleet))
    assert early

    for days in (25, 6, 0.5):
        fleet.sql(
            "UPDATE grants SET refresh_expires_at = :ends",
            ends=int((fleet.store.ping() + days * DAY).timestamp() * 1000),
        )
        fleet.store.warn_of_ends(500)

    one = next(iter(early))
    grant = fleet.store.grant(one)
    told = [n.data["days"] for n in fleet.store.undelivered_notices(500) if n.grant_id == grant.grant_id and n.data]
    assert told == [90, 7, 1]
