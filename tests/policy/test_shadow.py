"""The shadow's plan: when each creator would be refreshed, at the quota's pace, and what another job did meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from worker.planning.shadow import SeenPair, compare, plan
from worker.policy.renewal import STRETCH

AT = datetime(2027, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def pair(name: str, *, age: timedelta, life: timedelta = 24 * HOUR) -> SeenPair:
    """Return a pair that was issued some time before the file was written."""
    return SeenPair(name, AT - age, AT - age + life)


def test_each_refresh_comes_at_the_renewal_windows_begin() -> None:
    """Two thirds of the life, within the band of the jitter; the reason is the policy's own."""
    (sending,) = plan([pair("ada", age=HOUR)], at=AT, renew_at=2 / 3, per_second=1)

    assert abs(sending.due_at - (AT + 15 * HOUR)) <= 24 * HOUR * STRETCH / 2
    assert sending.sent_at == sending.due_at
    assert sending.reason.startswith("renewal window begins at ")
    assert not sending.without_token


def test_a_backlog_goes_out_at_the_quotas_pace_and_the_most_urgent_first() -> None:
    """Three that are due at once take two seconds at one a second."""
    pairs = [pair("late", age=25 * HOUR), pair("soon", age=23 * HOUR), pair("later", age=22 * HOUR)]

    sendings = plan(pairs, at=AT, renew_at=2 / 3, per_second=1)

    assert [each.creator_id for each in sendings] == ["late", "soon", "later"]
    assert [each.sent_at - AT for each in sendings] == [timedelta(seconds=number) for number in range(3)]
    assert [each.without_token for each in sendings] == [HOUR, timedelta(0), timedelta(0)]


def test_who_comes_due_while_the_line_waits_takes_its_place_by_urgency() -> None:
    """A token that ends sooner is not behind those that came earlier."""
    waiting = [pair(f"waiting {number}", age=20 * HOUR) for number in range(8)]
    urgent = SeenPair("urgent", AT - 2 * timedelta(seconds=1), AT + timedelta(seconds=4))

    sendings = plan([*waiting, urgent], at=AT, renew_at=2 / 3, per_second=1)

    assert [each.creator_id for each in sendings].index("urgent") in {1, 2}


def test_what_another_job_did_is_read_from_its_newer_pairs() -> None:
    """Refreshed in time, refreshed after the end, not refreshed at all, and gone from the newer file."""
    pairs = [pair(name, age=20 * HOUR) for name in ("in time", "late", "never", "gone")]
    sendings = plan(pairs, at=AT, renew_at=2 / 3, per_second=1)
    later = {
        "in time": SeenPair("in time", AT + HOUR, AT + 25 * HOUR),
        "late": SeenPair("late", AT + 6 * HOUR, AT + 30 * HOUR),
        "never": pairs[2],
    }

    found = {each.creator_id: each for each in compare(sendings, later, until=AT + 8 * HOUR)}

    assert {name: each.theirs_at for name, each in found.items()} == {
        "in time": AT + HOUR,
        "late": AT + 6 * HOUR,
        "never": None,
    }
    assert {name: each.theirs_without / HOUR for name, each in found.items()} == {"in time": 0, "late": 2, "never": 4}
    assert not any(each.ours_without for each in found.values())
