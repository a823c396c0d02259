"""Account data in its tables: known values stay, days settle, corrections are kept, and strangers stay out."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from tests.store.conftest import Fleet
from worker.errors import UsageError
from worker.store import AccountPage, Doubt, LabelledList, LateResource, PageSaved, Progress, PullClaim, Store

LEASE = 60.0


class Desk:
    """One creator's pull, and what it wrote."""

    def __init__(self, fleet: Fleet, creator: str = "ada", **grant: Any) -> None:
        self.fleet = fleet
        self.store: Store = fleet.store
        self.creator = creator
        added = fleet.add(creator, **grant)
        claim = self.store.claim_pull(added.grant_id, owner="a worker", lease_seconds=LEASE)
        assert claim is not None
        self.claim: PullClaim = claim
        self.today: date = self.store.ping().date()

    def save(
        self,
        rows: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        *,
        resource: str = "account",
        started_at: datetime | None = None,
        **more: Any,
    ) -> PageSaved:
        """Store a page; the claim goes on."""
        page = AccountPage("business/get/", Progress(resource, started_at=started_at), rows=rows or {}, **more)
        saved = self.store.save_page(self.claim, page, lease_seconds=LEASE)
        assert saved is not None
        self.claim = saved.claim
        return saved

    def day(self, age: int, **figures: Any) -> PageSaved:
        """Store one day."""
        return self.save({"account_days": [{"day": self.back(age), **figures}]})

    def videos(self, *rows: dict[str, Any], **more: Any) -> PageSaved:
        """Store a page of videos."""
        return self.save({"videos": rows}, resource="videos", **more)

    def back(self, age: int) -> date:
        """Return a day before today."""
        return self.today - timedelta(days=age)

    def age(self, days: int) -> None:
        """Move what was stored into the past, as if it had been read some days ago."""
        for table in ("account_days", "account_profiles", "videos"):
            column = "last_seen_at" if table == "videos" else "read_at"
            self.fleet.sql(f"UPDATE {table} SET {column} = {column} - {days * 86_400_000}")  # noqa: S608 - our own

    def rows(self, table: str) -> list[Mapping[str, Any]]:
        """Return the rows of a table."""
        found = self.store.account_rows(table, creator_id=self.creator, since=None, after=())
        return [dict(row._mapping) for row in found]


@pytest.fixture
def desk(fleet: Fleet) -> Desk:
    """One creator's pull on both databases."""
    return Desk(fleet)


def test_a_known_value_is_never_erased(desk: Desk) -> None:
    """Absent and null change nothing, in a profile, a day and a video; zero and an empty text are values."""
    desk.save({"account_profiles": [{"username": "ada", "bio_description": "hello", "followers_count": 3}]})
    desk.save({"account_profiles": [{"username": None, "bio_description": "", "followers_count": 0}]})
    desk.day(9, likes=5, shares=2)
    desk.day(9, likes=None, comments=1)
    desk.videos({"item_id": "1", "reach": 40, "likes": 9})
    desk.videos({"item_id": "1", "reach": None, "likes": 10})

    profile, day, video = desk.rows("account_profiles")[0], desk.rows("account_days")[0], desk.rows("videos")[0]
    assert (profile["username"], profile["bio_description"], profile["followers_count"]) == ("ada", "", 0)
    assert (day["likes"], day["shares"], day["comments"], day["video_views"]) == (5, 2, 1, None)
    assert (video["reach"], video["likes"], video["comments"]) == (40, 10, None)


def test_a_row_that_lacks_what_its_neighbour_has_keeps_its_own(desk: Desk) -> None:
    """One statement writes a page, and a column that only some of its rows have erases nothing in the others."""
    desk.videos({"item_id": "1", "reach": 40}, {"item_id": "2", "likes": 9})
    desk.videos({"item_id": "1", "likes": 1}, {"item_id": "2", "reach": 7})
    desk.save({"account_days": [{"day": desk.back(9), "likes": 1}, {"day": desk.back(8), "shares": 2}]})
    desk.save({"account_days": [{"day": desk.back(9), "shares": 3}, {"day": desk.back(8), "likes": 4}]})

    assert [(row["reach"], row["likes"]) for row in desk.rows("videos")] == [(40, 1), (7, 9)]
    assert [(row["likes"], row["shares"]) for row in desk.rows("account_days")] == [(1, 3), (4, 2)]


def test_a_day_stands_after_two_readings_of_different_days(desk: Desk) -> None:
    """Reading it twice on one day proves nothing; three days old and unchanged on another day does."""
    desk.day(9, likes=5)
    desk.day(9, likes=5)
    assert not desk.rows("account_days")[0]["settled"]

    desk.age(1)
    desk.day(9, likes=5)

    assert desk.rows("account_days")[0]["settled"]
    assert desk.store.account_state("ada").unsettled is None


def test_a_provisional_day_does_not_stand(desk: Desk) -> None:
    """A day of the day before yesterday may still change, however often it says the same."""
    desk.day(2, likes=5)
    desk.age(1)
    desk.day(2, likes=5)

    assert not desk.rows("account_days")[0]["settled"]
    assert desk.store.account_state("ada").unsettled is None  # it was read today
    desk.age(1)
    assert desk.store.account_state("ada").unsettled == desk.back(2)


def test_a_correction_is_kept_and_the_day_has_to_stand_again(desk: Desk) -> None:
    """The old figure, the new one, and that the day had stood, are there for whoever has reported the old one."""
    desk.day(9, likes=5, shares=1)
    desk.age(1)
    desk.day(9, likes=5, shares=1)
    desk.age(1)

    saved = desk.day(9, likes=7, shares=1)

    assert saved.corrections == 1
    (kept,) = desk.rows("account_corrections")
    assert (kept["field"], kept["old"], kept["new"], kept["was_settled"]) == ("likes", 5, 7, True)
    assert (desk.rows("account_days")[0]["likes"], desk.rows("account_days")[0]["settled"]) == (7, False)
    desk.age(1)
    desk.day(9, likes=7, shares=1)
    assert desk.rows("account_days")[0]["settled"]


def test_zeros_before_a_day_is_computed_are_not_stored(desk: Desk) -> None:
    """Missing is never zero, in its hours either; zeros of an old day are figures."""
    day = desk.back(1)
    hours = [{"day": day, "hour": 3, "active": 0}, {"day": desk.back(7), "hour": 3, "active": 4}]
    desk.save({"account_days": [{"day": day, "likes": 0, "shares": 0}], "account_hours": hours})
    assert [row["day"] for row in desk.rows("account_hours")] == [desk.back(7)]
    desk.day(8, likes=0, shares=0)

    assert [row["day"] for row in desk.rows("account_days")] == [desk.back(8)]


def test_audience_shares_have_a_history_by_day(desk: Desk) -> None:
    """The list of a day replaces that day's; another day's stays, and an empty list changes nothing."""
    desk.save(lists=[LabelledList(None, "age", (("18-24", 0.5), ("25-34", 0.5)))])
    desk.fleet.sql("UPDATE audience_shares SET pull_day = :day", day=desk.back(1).isoformat())
    desk.save(lists=[LabelledList(None, "age", (("18-24", 0.4), ("55+", 0.6)))])
    desk.save(lists=[LabelledList(None, "age", (("18-24", 1.0),)), LabelledList(None, "gender", ())])

    found = [(row["pull_day"], row["label"], row["share"]) for row in desk.rows("audience_shares")]
    yesterday = desk.back(1)
    assert found == [(yesterday, "18-24", 0.5), (yesterday, "25-34", 0.5), (desk.today, "18-24", 1.0)]


def test_a_day_does_not_stand_by_a_reading_that_was_spoilt(desk: Desk) -> None:
    """What could not be read, or did not come, was not confirmed; good figures are stored and no instant moves."""
    desk.day(9, likes=5, shares=1)
    desk.age(1)
    (first,) = desk.rows("account_days")

    for spoilt in ({"unsure": {("account_days", (desk.back(9),))}}, {"partial": True}):
        desk.save({"account_days": [{"day": desk.back(9), "likes": 5, "comments": 2}]}, **spoilt)
        (row,) = desk.rows("account_days")
        assert (row["shares"], row["comments"], row["settled"]) == (1, 2, False)
        assert (row["read_at"], desk.store.account_state("ada").unsettled) == (first["read_at"], desk.back(9))

    desk.save({"account_days": [{"day": desk.back(9), "likes": 5, "shares": 1, "comments": 2}]}, unsure={("other", ())})
    assert desk.rows("account_days")[0]["settled"]


def test_a_day_does_not_stand_by_a_reading_that_brings_a_new_figure(desk: Desk) -> None:
    """A figure that was spoilt at first was read once, so another reading has to bring the same."""
    desk.save({"account_days": [{"day": desk.back(9), "likes": 5}]}, unsure={("account_days", (desk.back(9),))})
    for settled in (False, True):
        desk.age(1)
        desk.day(9, likes=5, shares=1)
        assert desk.rows("account_days")[0]["settled"] is settled


def test_a_spoilt_profile_does_not_look_read_anew(desk: Desk) -> None:
    """What came is stored; `read_at` stays, since what did not come is of that time."""
    desk.save({"account_profiles": [{"username": "ada", "followers_count": 3}]})
    desk.age(1)
    (before,) = desk.rows("account_profiles")

    desk.save({"account_profiles": [{"username": "eve"}]}, unsure={("account_profiles", ())})

    assert desk.rows("account_profiles") == [{**before, "username": "eve"}]
    desk.save({"account_profiles": [{"username": "eve", "followers_count": 4}]})
    assert desk.rows("account_profiles")[0]["read_at"].date() == desk.today


def test_shares_with_an_unreadable_point_replace_no_whole_list(desk: Desk) -> None:
    """They are stored where that day has none of their kind; a whole list replaces them."""
    part = LabelledList(None, "age", (("18-24", 0.5),), whole=False)
    whole = LabelledList(None, "age", (("18-24", 0.4), ("55+", 0.6)))
    for lists, labels in (([part], 1), ([whole, LabelledList(None, "gender", (("Other", 1.0),))], 3), ([part], 3)):
        desk.save(lists=lists)
        assert len(desk.rows("audience_shares")) == labels

    assert [row["share"] for row in desk.rows("audience_shares") if row["kind"] == "age"] == [0.4, 0.6]


@pytest.mark.parametrize("curve", [True, False])
def test_a_videos_list_with_an_unreadable_point_replaces_no_whole_one(desk: Desk, curve: bool) -> None:
    """Before there is a whole one, the newest is kept; afterwards, the newest whole one."""

    def listed(share: float, *, whole: bool) -> LabelledList:
        return LabelledList("1", "a kind", ((1, share),), curve=curve, whole=whole)

    kept = []
    for each in (
        listed(0.1, whole=False), listed(0.2, whole=False), listed(0.3, whole=True), listed(0.4, whole=False),
        listed(0.5, whole=True),
    ):  # fmt: skip
        desk.videos({"item_id": "1", "likes": 1}, lists=[each])
        (row,) = desk.rows("video_curves" if curve else "video_shares")
        kept.append(row["points"] if curve else row["share"])

    assert kept == [f"[[1,{share}]]" if curve else share for share in (0.1, 0.2, 0.3, 0.3, 0.5)]


def test_a_reading_is_kept_only_when_a_figure_changed(desk: Desk) -> None:
    """An unchanged video costs no row; a reading has nothing that was not read that day."""
    for day, likes in ((3, 9), (2, 9), (1, 10)):
        desk.videos({"item_id": "1", "likes": likes, "reach": 40 if day == 3 else None})
        move = "UPDATE video_readings SET pull_day = :day WHERE pull_day = :today"
        desk.fleet.sql(move, day=desk.back(day).isoformat(), today=desk.today.isoformat())

    found = [(row["pull_day"], row["likes"], row["reach"]) for row in desk.rows("video_readings")]
    assert found == [(desk.back(3), 9, 40), (desk.back(1), 10, None)]
    assert desk.rows("videos")[0]["reach"] == 40


def test_a_second_reading_of_a_day_keeps_what_the_first_one_read(desk: Desk) -> None:
    """Both are readings of that day, so what only one of them brought is of that day too."""
    desk.videos({"item_id": "1", "likes": 9, "reach": 40})
    desk.videos({"item_id": "1", "likes": 10})

    (row,) = desk.rows("video_readings")
    assert (row["likes"], row["reach"]) == (10, 40)


def test_a_video_older_than_a_year_gets_no_further_reading(desk: Desk) -> None:
    """TikTok counts nothing any more; what it says still goes into the video's row."""
    old = desk.store.ping() - timedelta(days=400)
    desk.videos({"item_id": "1", "likes": 9, "created_at": old})
    desk.fleet.sql("DELETE FROM video_readings")
    desk.videos({"item_id": "1", "likes": 10, "created_at": old})

    assert desk.rows("video_readings") == []
    assert desk.rows("videos")[0]["likes"] == 10


def test_lists_of_a_video_are_written_when_they_change(desk: Desk) -> None:
    """Shares keep a history of changes, a curve its last points."""
    curve = LabelledList("1", "retention", ((0, 1.0), (1, 0.8)), curve=True)
    sources = LabelledList("1", "source", (("FYP", 0.9), ("FOLLOW", 0.1)))
    desk.videos({"item_id": "1", "likes": 1}, lists=[curve, sources])
    for table in ("video_shares", "video_curves"):
        desk.fleet.sql(f"UPDATE {table} SET pull_day = :day", day=desk.back(1).isoformat())  # noqa: S608 - our own
    desk.videos({"item_id": "1", "likes": 1}, lists=[curve, sources])
    assert {row["pull_day"] for row in desk.rows("video_shares") + desk.rows("video_curves")} == {desk.back(1)}

    desk.videos({"item_id": "1"}, lists=[LabelledList("1", "source", (("FYP", 1.0),))])

    found = [(row["pull_day"], row["label"], row["share"]) for row in desk.rows("video_shares")]
    assert found == [(desk.back(1), "FOLLOW", 0.1), (desk.back(1), "FYP", 0.9), (desk.today, "FYP", 1.0)]
    assert desk.rows("video_curves")[0]["points"] == "[[0,1.0],[1,0.8]]"


def test_only_a_whole_pass_marks_videos_as_vanished(desk: Desk) -> None:
    """What the pass did not bring is marked and kept; a video that comes back loses the mark."""
    desk.videos({"item_id": "1", "likes": 1}, {"item_id": "2", "likes": 2})
    desk.age(1)
    began = desk.store.ping()
    desk.videos({"item_id": "1"}, started_at=began)
    assert [row["vanished_at"] for row in desk.rows("videos")] == [None, None]

    assert desk.videos({"item_id": "1"}, started_at=began, vanish=True).vanished == 1

    first, second = desk.rows("videos")
    assert first["vanished_at"] is None
    assert second["vanished_at"] is not None
    assert second["likes"] == 2
    desk.videos({"item_id": "2"})
    assert desk.rows("videos")[1]["vanished_at"] is None


def test_a_video_of_another_account_is_not_stored(desk: Desk) -> None:
    """An id that is another creator's goes into quarantine, with its lists; nothing is marked as vanished then."""
    desk.videos({"item_id": "1", "likes": 1})
    other = Desk(desk.fleet, "bob")

    saved = other.videos(
        {"item_id": "1", "likes": 7},
        {"item_id": "2", "likes": 3},
        lists=[LabelledList("1", "source", (("FYP", 1.0),))],
        vanish=True,
        started_at=desk.store.ping(),
    )

    assert [row["item_id"] for row in other.rows("videos")] == ["2"]
    assert other.rows("video_shares") == []
    assert (saved.doubts, saved.vanished) == (1, 0)
    assert desk.rows("videos")[0]["likes"] == 1
    (kept,) = desk.store.quarantine_of("bob", limit=10)
    assert (kept.reason, kept.example, kept.times) == ("of another account", "1", 1)


def test_doubts_are_counted_and_keep_their_raw_answer(desk: Desk) -> None:
    """One row for each kind, with the newest example; the answer is there as it came."""
    doubts = [Doubt("data.metrics[].likes", "an absurd number", text) for text in ("1e999", "NaN")]
    desk.save(doubts=doubts, raw=b'{"code":0}', request_id="r1")
    desk.save(doubts=doubts[:1], raw=b'{"code":1}', request_id="r2")

    (kept,) = desk.store.quarantine_of("ada", limit=10)
    assert (kept.times, kept.example) == (3, "1e999")
    bodies = desk.fleet.sql("SELECT body, request_id FROM raw_answers WHERE id = :id", id=kept.raw_answer_id)
    assert [(zlib.decompress(bytes(row.body)), row.request_id) for row in bodies] == [(b'{"code":1}', "r2")]
    assert desk.store.doubts_since(seconds=60) == (1, 1)
    assert desk.store.prune_raw_answers(older_than_days=0, doubtful_days=1, limit=10) == 0
    assert desk.store.prune_raw_answers(older_than_days=0, doubtful_days=0, limit=10) == 2


def test_a_page_of_a_lost_lease_is_not_stored(desk: Desk) -> None:
    """Another worker reads by now; neither rows nor progress of the slow one get in between."""
    desk.fleet.sql("UPDATE grants SET pull_lease_owner = 'another'")
    page = AccountPage("business/get/", Progress("account"), rows={"account_profiles": [{"username": "x"}]})

    assert desk.store.save_page(desk.claim, page, lease_seconds=LEASE) is None
    assert desk.rows("account_profiles") == []
    assert desk.store.progress_of("ada") == []


def test_a_page_that_comes_after_the_revocation_is_not_stored(desk: Desk) -> None:
    """Whoever was forgotten is not written again by a pull that was under way."""
    desk.fleet.sql("UPDATE grants SET status = 'revoked'")
    page = AccountPage("business/get/", Progress("account"), rows={"account_profiles": [{"username": "x"}]})

    assert desk.store.save_page(desk.claim, page, lease_seconds=LEASE) is None


def test_texts_of_all_kinds_are_stored_and_found(desk: Desk) -> None:
    """Quotes, emoji, direction marks, SQL and very long texts are texts."""
    texts = ["'; DROP TABLE videos; --", "🎉\u202e", "a" * 20_000, "100%", 'quo"te', "\\", "\ufffd"]
    desk.videos(*({"item_id": str(number), "caption": text} for number, text in enumerate(texts)))

    assert [row["caption"] for row in desk.rows("videos")] == texts


def test_rows_of_one_key_are_one_row(desk: Desk) -> None:
    """A page that names a comment twice, as long lists do, is stored; the later value counts."""
    desk.save({"video_comments": [{"comment_id": "1", "likes": 1}, {"comment_id": "1", "likes": 2, "text": "hi"}]})

    (comment,) = desk.rows("video_comments")
    assert (comment["likes"], comment["text"]) == (2, "hi")


def test_requests_are_counted_by_day_and_resource(desk: Desk) -> None:
    """Pages and refused tries count, and yesterday's are what the plan shows."""
    desk.save(requests=3)
    desk.save(requests=1)
    assert desk.store.save_progress(desk.claim, Progress("videos"), requests=2)
    assert desk.store.account_state("ada").requests_today == 6

    desk.fleet.sql("UPDATE account_requests SET day = :day", day=desk.back(1).isoformat())

    costs = [(cost.resource, cost.creators, cost.requests) for cost in desk.store.account_costs(days=2)]
    assert costs == [("account", 1, 4), ("videos", 1, 2)]
    assert desk.store.account_state("ada").requests_today == 0


def test_what_is_read_for_all_is_taken_by_one(desk: Desk) -> None:
    """A second worker does not read the same benchmark; it becomes free again by itself."""
    lease_ends = desk.store.ping() + timedelta(seconds=60)
    assert desk.store.take_shared("benchmark:PETS", until=lease_ends)
    assert not desk.store.take_shared("benchmark:PETS", until=lease_ends)
    desk.store.save_shared(Progress("benchmark:PETS", next_at=desk.store.ping()))
    assert desk.store.take_shared("benchmark:PETS", until=lease_ends)


def test_refused_fields_are_remembered_for_each_creator(desk: Desk) -> None:
    """They are fresh until their time; a field that many are refused is a suspect for the next one."""
    later = desk.store.ping() + timedelta(days=7)
    assert desk.store.narrow(desk.claim, "videos", {"reach": "video.list"}, code=40130, again_at=later)
    for creator in ("bob", "cyd", "dan"):
        claim = Desk(desk.fleet, creator).claim
        assert desk.store.narrow(claim, "videos", {"likes": None}, code=41002, again_at=later)
        assert desk.store.narrow(claim, "videos", {"shares": None}, code=40130, again_at=later)

    (found,) = desk.store.narrowed_of("ada")
    assert (found.field, found.scope, found.fresh) == ("reach", "video.list", True)
    assert desk.store.refused_elsewhere("ada", "videos") == ["likes"]
    desk.store.widen(desk.claim, "videos", ["reach"])
    assert desk.store.narrowed_of("ada") == []


def test_rows_come_in_pages_by_their_key(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export of any length holds one page in memory; `since` is a day."""
    monkeypatch.setattr("worker.store.account_reading.PAGE", 2)
    desk.save({"account_days": [{"day": desk.back(age), "likes": age} for age in range(3, 8)]})

    found: list[Any] = []
    while batch := desk.store.account_rows(
        "account_days",
        creator_id=None,
        since=desk.back(6),
        after=(found[-1].creator_id, found[-1].day) if found else (),
    ):
        assert len(batch) <= 2
        found += batch

    assert [row.day for row in found] == [desk.back(age) for age in (6, 5, 4, 3)]
    assert desk.store.count_account_rows("account_days", creator_id="ada", since=desk.back(6)) == 4
    with pytest.raises(UsageError, match=r"there is no table 'grants'.*account_days"):
        desk.store.account_rows("grants", creator_id=None, since=None, after=())


def test_old_rows_go_by_their_own_age(desk: Desk) -> None:
    """Other people's words, history, and doubts each have a time; a creator's videos and newest days stay."""
    desk.save(
        {
            "video_comments": [{"comment_id": "1", "text": "hi"}],
            "mentions": [{"item_id": "9", "caption": "look"}],
            "account_days": [{"day": desk.back(59), "likes": 1}, {"day": desk.back(5), "likes": 1}],
        }
    )
    assert desk.store.prune_other_people(older_than_days=1, limit=10) == 0
    assert desk.store.prune_other_people(older_than_days=0, limit=10) == 2
    assert desk.store.prune_account_history(older_than_days=30, limit=10) == 1
    assert [row["day"] for row in desk.rows("account_days")] == [desk.back(5)]


def test_only_what_can_be_read_is_late(fleet: Fleet) -> None:
    """Not late: of a creator who has to authorize again, without the scope, refused for days, or no longer chosen."""
    store, long_ago, claims = fleet.store, fleet.store.ping() - timedelta(days=3), dict[str, PullClaim]()
    scopes = "user.info.basic,video.list"
    for creator in ("late", "lost", "narrowed", "scopeless"):
        claims[creator] = Desk(fleet, creator, scope="user.info.basic" if creator == "scopeless" else scopes).claim
        for resource in ("videos", "mentions"):
            store.save_progress(claims[creator], Progress(resource, next_at=long_ago))
    fleet.sql("UPDATE grants SET status = 'needs_reauth' WHERE creator_id = 'lost'")
    again_at = store.ping() + timedelta(days=7)
    store.narrow(claims["narrowed"], "videos", {"*": "video.list"}, code=40130, again_at=again_at)

    late = store.late_resources({"account": None, "videos": "video.list"}, seconds=3600)

    assert late == [LateResource("videos", 1, long_ago, 0)]
    fleet.sql("UPDATE account_narrowings SET again_at = 1")
    assert [each.creators for each in store.late_resources({"videos": "video.list"}, seconds=3600)] == [2]
    assert [each.creators for each in store.late_resources({"videos": None}, seconds=3600)] == [3]
    assert store.late_resources({"videos": None}, seconds=4 * 86_400) == []
