"""Pulls of account data over a truth: what is asked for, what is stored, and how each fault ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from tests.accounts.conftest import Studio
from tests.store.conftest import Fleet
from worker.accounts import schedule
from worker.accounts.reading import SNAPSHOT_DAYS, InterruptedVisitError
from worker.accounts.resources import ACCOUNT, BENCHMARK
from worker.errors import (
    BackOffError,
    GiveUpError,
    InDoubtError,
    RefreshFirstError,
    StopEveryoneError,
    WaitError,
)
from worker.store import AccountState, Progress, clock
from worker.store.clock import as_milliseconds
from worker.store.models import METADATA, TOMBSTONES
from worker.tiktok import ReadAnswer
from worker.vault import Token

ACCOUNT_CALL = "business/get/"
VIDEO_CALL = "business/video/list/"
BENCHMARK_CALL = "business/benchmark/"
DAILY = (ACCOUNT_CALL, BENCHMARK_CALL, "business/mention/video/list/")
NewStudio = Callable[..., Studio]


class Died(BaseException):
    """A process that was killed: nothing of it goes on."""


def with_days(studio: Studio, *ages: int) -> None:
    """Give the account days with figures."""
    for age in ages:
        studio.truth.days[studio.back(age)] = {"likes": 100 + age, "video_views": age, "followers_count": 1}


def spans(studio: Studio) -> list[tuple[Any, Any]]:
    """Return the days that each request of the account asked for."""
    asked = [parameters for call, parameters in studio.truth.calls if call == ACCOUNT_CALL]
    return [(parameters["start_date"], parameters["end_date"]) for parameters in asked]


def test_a_first_pull_reaches_back_sixty_days_in_one_request(studio: Studio) -> None:
    """Every day that TikTok has is stored, yesterday is the last one asked for, and a snapshot keeps new days."""
    with_days(studio, *range(2, 61))

    assert studio.pull().kind == "pulled"

    assert spans(studio) == [(studio.back(60).isoformat(), studio.back(1).isoformat())]
    assert len(studio.rows("account_days")) == 59
    assert studio.rows("account_profiles")[0]["display_name"] == "Ada"
    assert studio.rows("account_counters")[0]["followers_count"] == 1000
    snapshot = studio.store.snapshots(studio.grant.grant_id)[0].data
    assert [day["date"] for day in snapshot["metrics"]] == [
        studio.back(age).isoformat() for age in range(SNAPSHOT_DAYS, 1, -1)
    ]


def test_later_pulls_read_again_until_the_days_stand(studio: Studio) -> None:
    """On the second day all of the first pull is read again, and stands; then only young days are asked for."""
    with_days(studio, *range(1, 61))
    studio.pull()
    studio.pass_days()
    studio.pull()
    assert spans(studio)[1][0] == studio.back(60).isoformat()
    standing = [row["settled"] for row in studio.rows("account_days")]
    assert standing == [True] * 57 + [False] * 3

    studio.pass_days()
    studio.pull()

    assert spans(studio)[2][0] == studio.back(3).isoformat()


def test_further_pulls_of_a_day_ask_for_its_last_days_alone(studio: Studio) -> None:
    """A second reading on the same day settles nothing, so it does not ask for sixty days again."""
    with_days(studio, *range(1, 61))
    studio.pull()

    studio.pull()

    assert [first for first, _ in spans(studio)] == [studio.back(60).isoformat(), studio.back(3).isoformat()]


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("first", ["00:00", "10:00", "21:58", "23:59"])
def test_no_day_is_left_out_however_late_pulls_are(
    fleet: Fleet, new_studio: NewStudio, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """For a month each UTC day has one request of whatever is read daily, though each pull is late by minutes."""
    began = as_milliseconds(datetime.fromisoformat(f"2026-03-01T{first}+00:00"))
    fleet.sql("CREATE TABLE virtual_clock (ms BIGINT)")
    fleet.sql("INSERT INTO virtual_clock VALUES (:ms)", ms=began)
    monkeypatch.setitem(clock.NOW, "sqlite", "(SELECT ms FROM virtual_clock)")
    studio = new_studio(resources=("mentions",), categories=("PETS",))
    studio.truth.benchmark = {"PETS": {"business_category": "PETS"}}
    fleet.sql("UPDATE pairs SET access_expires_at = access_expires_at * 2")
    studio.store.request_pull("ada")
    days: list[date] = []
    while len(days) < 30:
        at = studio.store.grant("ada").next_pull_at
        assert at is not None
        at += timedelta(minutes=60 + len(days))
        fleet.sql("UPDATE virtual_clock SET ms = :ms", ms=as_milliseconds(at))
        assert studio.puller.pull(studio.grant.grant_id).kind == "pulled"
        assert Counter(call for call, _ in studio.truth.calls) == dict.fromkeys(DAILY, 1)
        studio.truth.calls.clear()
        days.append(at.date())

    assert days == [days[0] + timedelta(days=number) for number in range(30)]


def test_an_outage_leaves_no_hole(studio: Studio) -> None:
    """After ten days without a pull the first one asks for the days that are missing."""
    with_days(studio, *range(11, 61))
    studio.pull()
    studio.pass_days()
    studio.pull()
    with_days(studio, *range(1, 11))
    studio.fleet.sql("UPDATE account_progress SET whole_at = :now", now=int(studio.store.ping().timestamp() * 1000))

    studio.pull()

    assert spans(studio)[-1][0] == studio.back(10).isoformat()
    assert len(studio.rows("account_days")) == 60


def test_a_late_correction_is_found_by_the_weekly_look(studio: Studio) -> None:
    """A figure that had stood changes: the new one is stored, and the old one is kept beside it."""
    with_days(studio, *range(1, 61))
    studio.pull()
    studio.pass_days()
    studio.pull()
    studio.truth.days[studio.back(40)]["likes"] = 999
    studio.pass_days(7)

    studio.pull()

    (kept,) = studio.rows("account_corrections")
    assert (kept["field"], kept["old"], kept["new"], kept["was_settled"]) == ("likes", 140, 999, True)


@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize(
    ("granted", "retired", "lost"),
    [
        pytest.param({"user.insights"}, set(), {"likes", "video_views"}, id="a scope"),
        pytest.param({"user.info.stats", "user.info.username"}, set(), {"followers_count"}, id="two scopes"),
        pytest.param(set(), {"video_views"}, {"video_views"}, id="a retired field"),
        pytest.param(set(), {"likes", "is_verified", "email_clicks"}, {"likes"}, id="three retired fields"),
    ],
)
def test_a_refused_field_costs_only_itself(
    studio: Studio, granted: set[str], retired: set[str], lost: set[str], names: bool
) -> None:
    """The rest is stored at once, the refusal is remembered, and the next pull asks once."""
    with_days(studio, 9)
    studio.truth.granted -= granted
    studio.truth.retired = retired
    studio.truth.names_the_field = names

    assert studio.pull().kind == "pulled"

    stored = {
        name for row in studio.rows("account_days") + studio.rows("account_profiles") for name in row if row[name]
    }
    assert not stored & lost
    assert {"display_name", "likes", "followers_count"} - lost <= stored
    refused = {each.field for each in studio.store.narrowed_of("ada") if each.resource == "account"}
    assert lost <= refused
    before = studio.truth.count(ACCOUNT_CALL)
    assert before <= 35  # TikTok permits 40 a minute
    studio.pull()
    assert studio.truth.count(ACCOUNT_CALL) == before + 1


def test_fields_that_no_page_names_are_the_first_suspects(studio: Studio) -> None:
    """If TikTok does not know them after all, that costs one request in a week."""
    with_days(studio, 9)
    studio.truth.retired = ACCOUNT.unofficial()
    studio.truth.names_the_field = False

    studio.pull()

    assert studio.truth.count(ACCOUNT_CALL) == 2
    assert {each.field for each in studio.store.narrowed_of("ada")} == ACCOUNT.unofficial()
    assert studio.rows("account_days")[0]["likes"] == 109


def test_a_missing_scope_is_told_once_and_tried_again_later(studio: Studio) -> None:
    """One notice for a creator and scope; after a week the field is asked for again, and comes if it is granted."""
    with_days(studio, 9)
    studio.truth.granted.discard("user.info.stats")
    studio.pull()
    studio.pull()
    assert [notice.kind for notice in studio.store.notices()].count("scope_missing") == 1
    assert {fact["scope"] for fact in studio.told("pull.scope_missing")} == {"user.info.stats"}

    studio.truth.granted.add("user.info.stats")
    studio.pass_days(8)
    studio.pull()

    assert studio.rows("account_profiles")[0]["followers_count"] == 1000
    assert studio.store.narrowed_of("ada") == []


def test_a_span_that_tiktok_refuses_is_halved_and_remembered(studio: Studio) -> None:
    """All sixty days come in shorter spans, and the next pull does not try the long one again."""
    with_days(studio, *range(1, 61))
    studio.truth.longest = 30

    studio.pull()

    assert len(studio.rows("account_days")) == 60
    assert [each.field for each in studio.store.narrowed_of("ada")] == ["days:30"]
    before = studio.truth.count(ACCOUNT_CALL)
    studio.pass_days()
    studio.pull()
    assert studio.truth.count(ACCOUNT_CALL) == before + 2


def test_videos_are_listed_to_the_end_and_then_while_they_are_young(studio: Studio) -> None:
    """The first pass reads every page; on other days it ends behind the last young video; a week later all again."""
    studio.truth.videos = [studio.video(number, age=number * 2) for number in range(1, 66)]
    studio.pull()
    assert studio.truth.count(VIDEO_CALL) == 4
    assert len(studio.rows("videos")) == len(studio.rows("video_readings")) == 65

    studio.pass_days()
    studio.pull()
    assert studio.truth.count(VIDEO_CALL) == 5

    studio.pass_days(7)
    studio.pull()
    assert studio.truth.count(VIDEO_CALL) == 9


@pytest.mark.parametrize(("young", "pages"), [(19, 1), (20, 2), (41, 3)])
def test_a_page_is_read_for_young_videos_and_no_further_one(studio: Studio, young: int, pages: int) -> None:
    """Only older ones follow a page that ends with an old video; behind a young one there may be another."""
    ages = [number / 2 for number in range(1, young + 1)] + list(range(31, 131))
    studio.truth.videos = [studio.video(number, age=age) for number, age in enumerate(ages)]
    studio.pull()
    before = studio.truth.count(VIDEO_CALL)
    studio.pass_days()

    studio.pull()

    assert studio.truth.count(VIDEO_CALL) == before + pages


def test_a_video_that_is_gone_is_marked_only_by_a_whole_pass(studio: Studio) -> None:
    """It is never deleted, and a pass that saw only young videos proves nothing."""
    studio.truth.videos = [studio.video(number, age=number * 2) for number in range(1, 66)]
    studio.pull()
    del studio.truth.videos[4], studio.truth.videos[60]
    studio.pass_days()
    studio.pull()
    assert not any(row["vanished_at"] for row in studio.rows("videos"))

    studio.pass_days(7)
    studio.pull()

    assert {row["item_id"] for row in studio.rows("videos") if row["vanished_at"]} == {"v5", "v62"}
    assert studio.told("pull.videos_vanished") == [{"grant_id": 1, "creator_id": "ada", "videos": 2}]


def test_a_short_list_that_a_daily_pass_reads_to_its_end_proves_nothing_either(studio: Studio) -> None:
    """Only the weekly pass marks what it did not see: a list that is short for a moment costs no video."""
    studio.truth.videos = [studio.video(number, age=number) for number in range(1, 6)]
    studio.pull()
    del studio.truth.videos[2]
    studio.pass_days()
    studio.pull()
    assert not any(row["vanished_at"] for row in studio.rows("videos"))

    studio.pass_days(7)
    studio.pull()

    assert {row["item_id"] for row in studio.rows("videos") if row["vanished_at"]} == {"v3"}


@pytest.mark.parametrize("page", range(4))
def test_a_pass_that_was_cut_off_goes_on_where_it_was(
    studio: Studio, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever page the process died at, no page is asked for twice, and no video is missing or twice."""
    studio.truth.videos = [studio.video(number, age=number) for number in range(1, 71)]
    read = studio.truth.read
    pages = 0

    def dying(*args: Any) -> ReadAnswer:
        nonlocal pages
        if args[1] == VIDEO_CALL:
            pages += 1
            if pages == page + 1:
                raise KeyboardInterrupt
        return read(*args)

    with monkeypatch.context() as dies:
        dies.setattr(studio.truth, "read", dying)
        with pytest.raises(KeyboardInterrupt):
            studio.pull()
    studio.fleet.sql("UPDATE grants SET pull_lease_owner = NULL, pull_lease_until = NULL")

    studio.pull()

    assert studio.truth.count(VIDEO_CALL) == 4
    assert studio.truth.count(ACCOUNT_CALL) == (1 if page else 2)  # before the first page nothing says that it goes on
    assert len(studio.rows("videos")) == 70


@pytest.mark.parametrize("page", range(4))
def test_a_process_that_ends_stops_at_the_next_page_and_another_goes_on(
    studio: Studio, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request follows the order to end; the lease is free at once, and no page is missing or asked for twice."""
    studio.truth.videos = [studio.video(number, age=number) for number in range(1, 71)]
    read, stop = studio.truth.read, studio.stop

    def read_and_stop(*args: Any) -> ReadAnswer:
        answer = read(*args)
        if studio.truth.count(VIDEO_CALL) == page:
            stop.set()
        return answer

    with monkeypatch.context() as ends:
        ends.setattr(studio.truth, "read", read_and_stop)
        studio.pull()
    assert len(studio.truth.calls) == 1 + page
    assert len(studio.told("pull.interrupted")) == 1
    assert studio.puller.pull_all([studio.grant.grant_id]).refresh_first == ()
    assert len(studio.truth.calls) == 1 + page

    stop.clear()
    assert studio.puller.pull(studio.grant.grant_id).kind == "pulled"

    assert studio.truth.count(VIDEO_CALL) == 4
    assert len(studio.rows("videos")) == 70


@pytest.mark.parametrize("cursor", [None, 10**13, 10**14])
def test_a_cursor_that_does_not_move_ends_the_pass(studio: Studio, cursor: int | None) -> None:
    """No loop without an end, no video marked as vanished, a doubt, and the next pass begins at the top."""
    studio.truth.videos = [studio.video(number, age=number) for number in range(1, 31)]
    studio.pull()
    studio.pass_days(8)
    page = [studio.video(1, age=1)]
    loop = {"videos": page, "has_more": True, "cursor": cursor}
    first = {"videos": page, "has_more": True, "cursor": 10**13}
    studio.truth.faults[VIDEO_CALL] = [ReadAnswer(first, None), *[ReadAnswer(loop, None)] * 5]

    studio.pull()

    assert len(studio.told("pull.list_cut_off")) == 1
    assert not any(row["vanished_at"] for row in studio.rows("videos"))
    assert studio.store.quarantine_of("ada", limit=5)[0].path == "data.cursor"
    studio.truth.faults.clear()
    studio.pass_days(1)
    studio.pull()
    assert not any(row["vanished_at"] for row in studio.rows("videos"))


def test_empty_pages_are_passed(studio: Studio) -> None:
    """`has_more` alone ends a list."""
    empty = [ReadAnswer({"videos": [], "has_more": True, "cursor": 10**13 - n}, None) for n in range(3)]
    studio.truth.faults[VIDEO_CALL] = list(empty)
    studio.truth.videos = [studio.video(1, age=1)]

    studio.pull()

    assert [row["item_id"] for row in studio.rows("videos")] == ["v1"]


@pytest.mark.parametrize("partial", [True, False])
def test_an_answer_without_data_is_no_pull(studio: Studio, partial: bool) -> None:
    """It stores no snapshot and erases nothing; the pull comes again, and the raw answer is kept."""
    studio.pull()
    studio.truth.faults[ACCOUNT_CALL] = [ReadAnswer({}, "r", partial=partial, raw=b'{"code":0,"data":{}}')]
    studio.pass_days()

    assert studio.pull().kind == "failed"

    assert len(studio.told("pull.empty")) == 1
    assert len(studio.store.snapshots(studio.grant.grant_id)) == 1
    assert studio.rows("account_profiles")[0]["display_name"] == "Ada"
    grant = studio.store.grant("ada")
    assert grant.pull_failures == 1
    assert grant.next_pull_at is not None
    assert studio.pull().kind == "pulled"


def test_a_partial_answer_is_stored_and_marked(studio: Studio) -> None:
    """What came with 20001 is kept, nothing is taken for vanished, and the account is read again within the hour."""
    studio.truth.videos = [studio.video(1, age=1), studio.video(2, age=2)]
    studio.pull()
    studio.pass_days(8)
    studio.truth.faults[VIDEO_CALL] = [
        ReadAnswer({"videos": [studio.video(1, age=1)], "has_more": False, "cursor": 0}, None, partial=True)
    ]

    studio.pull()

    assert len(studio.told("pull.partial")) == 1
    assert not any(row["vanished_at"] for row in studio.rows("videos"))
    videos = {each.resource: each for each in studio.store.progress_of("ada")}["videos"]
    assert videos.next_at is not None
    assert videos.next_at - studio.store.ping() <= timedelta(hours=1)


@pytest.mark.parametrize("spoilt", [{"likes": 10**60}, {"likes": "many"}, {}])
def test_a_spoilt_figure_of_a_video_is_missing_in_its_reading(studio: Studio, spoilt: dict[str, Any]) -> None:
    """The reading has no older value in its place; the video keeps what was known last, and the rest goes on."""
    studio.truth.videos = [studio.video(1, age=1, likes=7, shares=1)]
    studio.pull()
    studio.fleet.sql("UPDATE video_readings SET pull_day = :day", day=studio.back(1).isoformat())
    studio.pass_days()
    video = studio.video(1, age=2, shares=2)
    del video["likes"]
    studio.truth.videos = [video | spoilt]

    studio.pull()

    assert [(row["likes"], row["shares"]) for row in studio.rows("video_readings")] == [(7, 1), (None, 2)]
    assert [(row["likes"], row["shares"]) for row in studio.rows("videos")] == [(7, 2)]
    assert len(studio.told("pull.doubts")) == bool(spoilt)


@pytest.mark.parametrize("spoilt", [{"likes": "many"}, {"likes": None}, {}])
def test_a_spoilt_figure_lets_no_day_stand(studio: Studio, spoilt: dict[str, Any]) -> None:
    """The days beside it stand; a figure that is absent without a doubt is no longer sent, and hinders nothing."""
    with_days(studio, 9, 10)
    studio.pull()
    studio.pass_days()
    good = dict(studio.truth.days[studio.back(9)])
    studio.truth.days[studio.back(9)] = {name: value for name, value in good.items() if name != "likes"} | spoilt
    studio.pull()

    assert [row["settled"] for row in studio.rows("account_days")] == [True, spoilt.get("likes") is None]
    studio.truth.days[studio.back(9)] = good
    studio.pull()
    assert [(row["settled"], row["likes"]) for row in studio.rows("account_days")][1] == (True, good["likes"])


@pytest.mark.parametrize(
    ("hour", "minute", "again"),
    [(0, 0, "01:00"), (21, 59, "22:59"), (22, 30, "23:15"), (23, 40, "23:50"), (23, 54, "23:59"), (23, 57, "00:02")],
)
def test_a_partial_answer_is_asked_for_again_on_the_same_day(hour: int, minute: int, again: str) -> None:
    """The shares of a day are gone with it, so late in a day an hour would be too long; a storm it is not either."""
    at = datetime(2026, 11, 26, hour, minute, tzinfo=UTC)
    state = AccountState({}, (), 0, None, frozenset(), frozenset(), None, None, at)

    ended = schedule.end(ACCOUNT, Progress("account", started_at=at, clean=False), state, newest=None)

    assert ended.next_at is not None
    assert ended.next_at.strftime("%H:%M") == again


@pytest.mark.parametrize(
    "error",
    [
        GiveUpError("no", call=VIDEO_CALL, code=40007),
        BackOffError("later", call=VIDEO_CALL, code=51010),
        InDoubtError("cut off", call=VIDEO_CALL),
    ],
)
def test_trouble_with_one_resource_leaves_the_others_alone(studio: Studio, error: Exception) -> None:
    """The account and the mentions are read; the videos come again later, and go on."""
    studio.truth.mentions = [{"item_id": "m1", "create_time": "1795867200", "likes": 3}]
    studio.truth.videos = [studio.video(1, age=1)]
    studio.truth.faults[VIDEO_CALL] = [error]

    assert studio.pull().kind == "pulled"

    assert studio.rows("mentions")[0]["likes"] == 3
    videos = {each.resource: each for each in studio.store.progress_of("ada")}["videos"]
    assert videos.failures == 1
    again = studio.store.grant("ada").next_pull_at
    assert again is not None
    assert again - studio.store.ping() < timedelta(minutes=1)
    studio.fleet.sql("UPDATE account_progress SET next_at = 1 WHERE resource = 'videos'")
    studio.pull()
    assert [row["item_id"] for row in studio.rows("videos")] == ["v1"]


def test_a_scope_that_a_list_lacks_rests_it_for_a_week(studio: Studio) -> None:
    """One refused call, one notice, and no further try until the week is over."""
    studio.truth.granted -= {"video.list", "video.insights"}

    assert studio.pull().kind == "pulled"
    calls = studio.truth.count(VIDEO_CALL)
    studio.pull()
    assert studio.truth.count(VIDEO_CALL) == calls
    assert {fact["scope"] for fact in studio.told("pull.scope_missing")} == {"video.list"}

    studio.truth.granted.add("video.list")
    studio.pass_days(8)
    studio.pull()
    assert studio.truth.count(VIDEO_CALL) > calls


def test_resources_without_their_scope_are_not_asked_for(new_studio: NewStudio) -> None:
    """What the creator never granted costs no request."""
    studio = new_studio(scope="user.info.basic,user.insights")
    studio.pull()

    assert {call for call, _ in studio.truth.calls} == {ACCOUNT_CALL}


def test_comments_are_read_when_their_number_changes(studio: Studio) -> None:
    """Each page is stored; replies follow; an unchanged video costs nothing; a long list has no duplicates."""
    studio.truth.videos = [studio.video(1, age=1, comments=65), studio.video(2, age=2, comments=0)]
    studio.truth.comments["v1"] = [
        {"comment_id": f"c{n}", "video_id": "v1", "text": "hi", "create_time": "1795867200", "replies": int(n == 3)}
        for n in range(65)
    ]
    studio.truth.comments["c3"] = [{"comment_id": "r1", "video_id": "v1", "parent_comment_id": "c3", "text": "yes"}]

    studio.pull()

    assert len(studio.rows("video_comments")) == 66
    assert studio.truth.count("business/comment/list/") == 3
    assert studio.truth.count("business/comment/reply/list/") == 1
    asked = [parameters for call, parameters in studio.truth.calls if call == "business/comment/list/"]
    assert {parameters["sort_field"] for parameters in asked} == {"create_time"}
    studio.pass_days(2)
    studio.pull()
    assert studio.truth.count("business/comment/list/") == 3


@pytest.mark.parametrize(
    "spoilt",
    [
        pytest.param(ReadAnswer({}, "r", raw=b"{}"), id="empty"),
        pytest.param(ReadAnswer({"comments": []}, "r", raw=b"{}", partial=True), id="partial"),
    ],
)
def test_comments_are_read_again_after_an_answer_that_lacks_them(studio: Studio, spoilt: ReadAnswer) -> None:
    """An empty or a partial answer is not taken for the whole list: the comments come with the next pass."""
    studio.truth.videos = [studio.video(1, age=1, comments=1)]
    studio.truth.comments["v1"] = [{"comment_id": "c1", "video_id": "v1", "text": "hi", "create_time": "1795867200"}]
    studio.truth.faults["business/comment/list/"] = [spoilt]
    studio.pull()
    assert studio.rows("video_comments") == []

    studio.pass_days(1.1)
    studio.pull()

    assert [row["comment_id"] for row in studio.rows("video_comments")] == ["c1"]


def test_a_benchmark_is_read_once_for_all_creators(new_studio: NewStudio) -> None:
    """Two creators, two categories: two requests a day."""
    first, second = (new_studio(name, categories=("PETS", "BEAUTY"), resources=()) for name in ("ada", "bob"))
    for studio in (first, second):
        studio.truth.benchmark = {
            name: {"business_category": name, "average_likes": 1.5} for name in ("PETS", "BEAUTY")
        }
        studio.pull()

    assert first.truth.count("business/benchmark/") == 2
    assert second.truth.count("business/benchmark/") == 0
    assert [row["business_category"] for row in first.rows("benchmarks")] == ["BEAUTY", "PETS"]


@pytest.mark.parametrize(
    "spoilt",
    [
        pytest.param(ReadAnswer({}, None), id="nothing in it"),
        pytest.param(ReadAnswer({"business_category": "PETS"}, None, partial=True), id="in part"),
        pytest.param(ReadAnswer({"business_category": "PETS", "average_likes": "many"}, None), id="a value"),
    ],
)
def test_a_spoilt_benchmark_is_read_again_on_the_same_day(new_studio: NewStudio, spoilt: ReadAnswer) -> None:
    """TikTok gives averages of today alone: what a day lacks no later day brings."""
    studio = new_studio(categories=("PETS",), resources=())
    studio.truth.benchmark = {"PETS": {"business_category": "PETS", "average_likes": 1.5}}
    studio.truth.faults[BENCHMARK_CALL] = [spoilt]
    studio.pull()
    now = studio.store.ping()
    (progress,) = [each for each in studio.store.progress_of("ada") if each.resource == BENCHMARK.name]
    assert progress.next_at is not None
    assert progress.next_at <= max(schedule.tomorrow(now), now + schedule.LEAST)

    studio.pass_days(schedule.SOON / timedelta(days=1))
    studio.pull()

    assert [row["average_likes"] for row in studio.rows("benchmarks")] == [1.5]


def test_a_benchmark_whose_reader_died_is_read_by_the_worker_that_goes_on(new_studio: NewStudio) -> None:
    """The category is taken no longer than the lease of the pull, so that whoever comes next does not pass it by."""
    studio = new_studio(categories=("PETS",), resources=())
    studio.truth.benchmark = {"PETS": {"business_category": "PETS", "average_likes": 1.5}}
    studio.truth.faults[BENCHMARK_CALL] = [Died()]
    with pytest.raises(Died):
        studio.pull()
    studio.pass_days(timedelta(seconds=61) / timedelta(days=1))
    studio.fleet.sql("UPDATE grants SET pull_lease_until = 1")

    studio.pull()

    assert len(studio.rows("benchmarks")) == 1


@pytest.mark.parametrize("stops", [True, False])
def test_a_benchmark_is_free_again_after_a_failure(new_studio: NewStudio, stops: bool) -> None:
    """Another creator's pull reads it then, whether the request failed or the process was told to end."""
    first, second = (new_studio(name, categories=("PETS",), resources=()) for name in ("ada", "bob"))
    second.truth.benchmark = {"PETS": {"business_category": "PETS", "average_likes": 1.5}}
    first.truth.faults[BENCHMARK_CALL] = [InterruptedVisitError() if stops else BackOffError("x", call=BENCHMARK_CALL)]
    first.pull()

    second.pull()

    assert len(second.rows("benchmarks")) == 1


def test_a_spent_budget_waits_for_the_next_day(new_studio: NewStudio) -> None:
    """The account has gone first; the list goes on tomorrow where it was."""
    studio = new_studio(budget=3)
    studio.truth.videos = [studio.video(number, age=number) for number in range(1, 71)]

    assert studio.pull().kind == "pulled"

    assert len(studio.truth.calls) == 3
    assert len(studio.rows("videos")) == 40
    assert len(studio.told("pull.budget_spent")) == 1
    again = studio.store.grant("ada").next_pull_at
    assert again is not None
    assert again.hour == again.minute == 0


def test_a_short_quota_keeps_what_is_most_important(studio: Studio) -> None:
    """Without a permit for the list the account is stored all the same, and the list waits as long as it must."""
    studio.limiter.denies[VIDEO_CALL] = 30.0

    assert studio.pull().kind == "pulled"

    assert len(studio.rows("account_profiles")) == 1
    again = studio.store.grant("ada").next_pull_at
    assert again is not None
    assert timedelta(seconds=20) < again - studio.store.ping() <= timedelta(seconds=30)
    studio.limiter.denies.clear()
    studio.truth.calls.clear()
    studio.fleet.sql("UPDATE account_progress SET next_at = 5000 WHERE resource = 'videos'")
    studio.fleet.sql("UPDATE grants SET next_pull_at = 5000")
    studio.puller.pull(studio.grant.grant_id)
    assert studio.truth.count(ACCOUNT_CALL) == 0
    assert studio.truth.count(VIDEO_CALL) == 1


def test_others_accounts_go_before_ones_videos(new_studio: NewStudio) -> None:
    """While pulls of other creators wait for minutes, a pull reads the account alone."""
    studio, other = new_studio("ada"), new_studio("bob")
    other.store.request_pull("bob")
    other.fleet.sql("UPDATE grants SET next_pull_at = 1000 WHERE creator_id = 'bob'")

    studio.pull()

    assert studio.truth.count(VIDEO_CALL) == 0
    assert studio.told("pull.waits")
    assert studio.rows("account_profiles")


@pytest.mark.parametrize("call", [ACCOUNT_CALL, VIDEO_CALL])
def test_a_dead_token_is_refreshed_first(studio: Studio, call: str) -> None:
    """Whichever read meets it: the grant is due, and nothing else is asked."""
    studio.fleet.sql("UPDATE grants SET next_refresh_at = next_refresh_at + 50000000")
    studio.truth.faults[call] = [RefreshFirstError("dead", call=call, code=40105)]

    assert studio.pull().kind == "refresh_first"

    assert studio.store.claimable([studio.grant.grant_id]).due


def test_a_spent_quota_pauses_and_loses_nothing(studio: Studio) -> None:
    """The limiter is told, the pull waits, and the list goes on."""
    studio.truth.videos = [studio.video(number, age=number) for number in range(1, 31)]
    studio.truth.faults[VIDEO_CALL] = [WaitError("wait", call=VIDEO_CALL, code=40100, seconds=60, scope="minute")]

    assert studio.pull().kind == "failed"

    assert studio.limiter.punished == [("minute", 60)]
    again = studio.store.grant("ada").next_pull_at
    assert again is not None
    assert timedelta(seconds=50) < again - studio.store.ping() <= timedelta(seconds=60)
    assert studio.store.grant("ada").pull_failures == 0


def test_what_is_odd_in_one_creator_stops_nobody(new_studio: NewStudio) -> None:
    """The next creator is pulled; the doubts are counted and shown."""
    odd, good = new_studio("ada"), new_studio("bob")
    odd.truth.faults[ACCOUNT_CALL] = [ReadAnswer({"display_name": 7, "metrics": [{"likes": 1}, 5]}, None, raw=b"{}")]
    good.store.request_pull("bob")

    odd.pull()
    good.pull()

    assert odd.told("pull.doubts")[0]["doubts"] == 3
    assert {row.reason for row in odd.store.quarantine_of("ada", limit=9)} == {"not a text", "no key", "not an object"}
    assert good.rows("account_profiles")[0]["display_name"] == "Ada"


def test_a_pull_sends_as_many_requests_as_the_pages_need(studio: Studio) -> None:
    """Two hundred videos are ten pages, and the account is one request more."""
    studio.truth.videos = [studio.video(number, age=number) for number in range(1, 201)]
    with_days(studio, *range(1, 61))

    studio.pull()

    assert len(studio.truth.calls) == 11 + 1  # mentions: one page, empty


def everything_of(studio: Studio) -> dict[str, int]:
    """Return how many rows each table has under the creator's id or grant."""
    names = {
        table.name: name
        for table in METADATA.sorted_tables
        for name in ("creator_id", "grant_id")
        if name in table.c and table is not TOMBSTONES
    }
    counts = {
        table: studio.fleet.sql(f"SELECT count(*) FROM {table} WHERE CAST({column} AS text) IN (:creator, :grant)",  # noqa: S608 - our own names
                                creator="ada", grant=str(studio.grant.grant_id))[0][0]
        for table, column in names.items()
    }  # fmt: skip
    return {table: count for table, count in counts.items() if count}


LEAVING: tuple[Exception | None, ...] = (
    WaitError("later", call="c", scope="minute", seconds=30, code=40100),
    GiveUpError("offline: likes", call="c", code=41002),
    GiveUpError("scope: likes", call="c", code=40130),
    BackOffError("no", call="c", code=50000),
    StopEveryoneError("start_date: too long a span", call="c", code=40002),
    RefreshFirstError("dead", call="c", code=40105),
    None,
)


@pytest.mark.parametrize(
    ("ends", "call", "error"),
    [
        *(("forgotten", call, error) for call in (ACCOUNT_CALL, VIDEO_CALL) for error in LEAVING),
        *(("forgotten", "business/comment/list/", error) for error in (*LEAVING[:1], *LEAVING[-4:-2])),
        *(("revoked", ACCOUNT_CALL, error) for error in LEAVING[:3]),
    ],
)
def test_nothing_is_written_of_a_creator_who_leaves_during_a_pull(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, error: Exception | None, call: str, ends: str
) -> None:
    """Whatever the answer under way brings: no row comes back after a forget, and no scope is said to be taken back."""
    studio.truth.videos = [studio.video(number, age=number, comments=1) for number in range(1, 4)]
    read, left = studio.truth.read, dict[str, int]()

    def read_and_leave(token: Token, path: str, *rest: Any) -> ReadAnswer:
        if path != call or left:
            return read(token, path, *rest)
        grant_id = studio.store.begin_forgetting("ada")
        assert grant_id is not None
        if ends == "forgotten":
            while studio.store.delete_some_rows(grant_id, 500):
                pass
            assert studio.store.end_forgetting(grant_id)
        left.update(everything_of(studio) or {"nothing": 0})
        if error is not None:
            raise error
        return read(token, path, *rest)

    monkeypatch.setattr(studio.truth, "read", read_and_leave)
    result = studio.pull()

    assert left
    assert (everything_of(studio) or {"nothing": 0}) == left
    assert result.kind != "pulled"
    assert studio.told("pull.scope_missing") == []


def test_a_list_that_takes_many_days_is_read_to_its_end(new_studio: NewStudio) -> None:
    """With a small budget each day's pull goes on where the last one stopped, however long ago the pass began."""
    studio = new_studio(resources=("videos",), budget=3)
    studio.truth.videos = [studio.video(number, age=100 + number) for number in range(200)]

    for _ in range(6):
        studio.pull()
        studio.pass_days(1)

    assert len(studio.rows("videos")) == 200


ODD_ENDS: list[dict[str, Any]] = [{}, {"has_more": "true"}, {"has_more": 1}, {"has_more": None}, {"has_more": {}}]


@pytest.mark.parametrize("odd", ODD_ENDS)
def test_a_list_whose_end_is_not_told_is_read_again(studio: Studio, odd: dict[str, Any]) -> None:
    """No video counts as vanished by it; the pass is tried again from the top, and says why until then."""
    studio.truth.videos = [studio.video(number, age=number) for number in range(1, 51)]
    studio.pull()
    studio.pass_days(8)
    page = {"videos": [studio.video(number, age=number) for number in range(1, 21)], "cursor": 5, **odd}
    studio.truth.faults[VIDEO_CALL] = [ReadAnswer(page, None)]

    studio.pull()

    (videos,) = [each for each in studio.store.progress_of("ada") if each.resource == "videos"]
    assert (videos.failures, videos.is_open) == (1, True)
    assert "has_more" in str(videos.problem)
    assert len(studio.told("pull.list_cut_off")) == 1
    assert not any(row["vanished_at"] for row in studio.rows("videos"))
    del studio.truth.videos[-1]
    studio.pass_days(1)
    studio.pull()
    assert [row["item_id"] for row in studio.rows("videos") if row["vanished_at"]] == ["v50"]


@pytest.mark.parametrize("left", [0, 2, 3])
def test_most_videos_do_not_vanish_at_once(studio: Studio, left: int) -> None:
    """A list that has lost more than half is read a second time first; half of it is believed."""
    studio.truth.videos = [studio.video(number, age=number) for number in range(1, 7)]
    studio.pull()
    studio.pass_days(8)
    whole, studio.truth.videos = studio.truth.videos, studio.truth.videos[:left]

    studio.pull()

    vanished = [row for row in studio.rows("videos") if row["vanished_at"]]
    shrunk = studio.told("pull.list_shrunk")
    assert (len(vanished), len(shrunk)) == ((3, 0) if left == 3 else (0, 1))
    if left == 3:
        return
    (videos,) = [each for each in studio.store.progress_of("ada") if each.resource == "videos"]
    assert videos.next_at is not None
    assert timedelta(0) < videos.next_at - studio.store.ping() <= timedelta(hours=1)
    studio.pass_days(1)
    if left == 2:  # it was an outage
        studio.truth.videos = whole
    studio.pull()
    assert len([row for row in studio.rows("videos") if row["vanished_at"]]) == (0 if left == 2 else 6)
    assert len(studio.told("pull.list_shrunk")) == 1
    studio.pass_days(8)
    studio.pull()
    assert len(studio.told("pull.list_shrunk")) == 1


@pytest.mark.parametrize("spoilt", [{"has_more": "true"}, {"has_more": True, "cursor": None}])
def test_comments_whose_list_was_cut_off_are_asked_for_again(studio: Studio, spoilt: dict[str, Any]) -> None:
    """The video's comments do not count as read to their end."""
    studio.truth.videos = [studio.video(1, age=1, comments=40)]
    found = [{"comment_id": f"c{number}", "video_id": "v1"} for number in range(40)]
    studio.truth.comments = {"v1": found}
    page = {"comments": found[:30], "cursor": 30, "has_more": True} | spoilt
    studio.truth.faults["business/comment/list/"] = [ReadAnswer(page, None)]

    studio.pull()
    assert len(studio.rows("video_comments")) == 30
    studio.pass_days(1)
    studio.pull()

    assert len(studio.rows("video_comments")) == 40


def test_a_video_that_once_came_in_anothers_list_comes_to_its_owner(new_studio: NewStudio) -> None:
    """While both lists hold it the second is told so, with the answer; afterwards it is the owner's."""
    ada, bob = new_studio("ada", resources=("videos",)), new_studio("bob", resources=("videos",))
    theirs = [bob.video(number, age=number) for number in range(1, 4)]
    ada.truth.videos = [*theirs, *(ada.video(f"a{number}", age=number) for number in range(1, 6))]
    bob.truth.videos = theirs
    ada.pull()
    bob.pull()

    assert bob.rows("videos") == []
    assert bob.told("pull.doubts") == [
        {"grant_id": bob.grant.grant_id, "creator_id": "bob", "resource": "videos", "doubts": 3}
    ]
    (videos,) = [each for each in bob.store.progress_of("bob") if each.resource == "videos"]
    assert "another creator" in str(videos.problem)
    assert bob.fleet.sql("SELECT count(*) FROM account_quarantine WHERE raw_answer_id IS NOT NULL") == [(1,)]

    ada.truth.videos = ada.truth.videos[3:]
    ada.pass_days(8)
    ada.pull()
    bob.pull()
    assert [row["item_id"] for row in bob.rows("videos")] == ["v1", "v2", "v3"]


def test_a_list_that_nobody_reads_any_more_bars_nobody(new_studio: NewStudio) -> None:
    """An account has another id under another app: the rows of the old one stay and bar the new one for two weeks."""
    old, new = new_studio("old", resources=("videos",)), new_studio("new", resources=("videos",))
    old.truth.videos = new.truth.videos = [old.video(1, age=1)]
    old.pull()
    old.pass_days(16)
    new.pull()

    assert [row["item_id"] for row in new.rows("videos")] == ["v1"]


def test_a_pull_says_what_comes_later(studio: Studio) -> None:
    """Somebody who pulls by hand learns that a list is not whole, and why; a pull that brought all says nothing."""
    studio.truth.videos = [studio.video(1, age=1)]
    studio.limiter.denies[VIDEO_CALL] = 600.0
    assert studio.pull().reason.startswith("videos later: the quota had no permit")

    studio.limiter.denies.clear()
    studio.pass_days(1)
    assert studio.pull().reason == ""


def test_all_days_are_asked_for_until_they_come_whole(studio: Studio) -> None:
    """Two spoilt answers in a row cost the oldest day nothing: the third one of the day asks for it again."""
    oldest = studio.back(60)
    studio.truth.days[oldest] = {"likes": 9}
    odd = [{"date": oldest.isoformat(), "likes": "many"}]
    studio.truth.faults[ACCOUNT_CALL] = [
        ReadAnswer({"display_name": "Ada", "metrics": odd}, None),
        ReadAnswer({"display_name": "Ada"}, None, partial=True),
    ]
    for _ in range(3):
        studio.pull()

    assert [first for first, _ in spans(studio)] == [oldest.isoformat()] * 3
    assert [row["likes"] for row in studio.rows("account_days")] == [9]


def test_days_that_are_read_for_the_last_time_get_another_chance_to_stand(studio: Studio) -> None:
    """On the second day the oldest day of the first pull can be confirmed, and on no later one."""
    with_days(studio, *range(1, 61))
    studio.pull()
    studio.pass_days()
    oldest = studio.back(60)
    metrics = [{"date": oldest.isoformat(), "likes": 160, "video_views": "many"}]
    studio.truth.faults[ACCOUNT_CALL] = [ReadAnswer({"display_name": "Ada", "metrics": metrics}, None)]
    studio.pull()
    (progress,) = [each for each in studio.store.progress_of("ada") if each.resource == ACCOUNT.name]
    assert progress.next_at is not None
    assert progress.next_at - studio.store.ping() <= schedule.SOON

    studio.pull()

    assert spans(studio)[-1][0] == oldest.isoformat()
    assert [row["settled"] for row in studio.rows("account_days") if row["day"] == oldest] == [True]


@pytest.mark.parametrize("spoilt", [{"likes": "many"}, {"date": "some day"}, {"date": 7}])
@pytest.mark.parametrize("good_at", [2, 3, 5, None])
def test_a_day_that_is_gone_tomorrow_has_more_than_one_further_look(
    studio: Studio, good_at: int | None, spoilt: dict[str, Any]
) -> None:
    """Each look comes within the hour until the day could be read, and the fifth of a UTC day is the last."""
    oldest = studio.back(60)
    studio.truth.days[oldest] = {"likes": 9}
    odd = {"date": oldest.isoformat()} | spoilt
    studio.truth.faults[ACCOUNT_CALL] = [ReadAnswer({"display_name": "Ada", "metrics": [odd]}, None)] * (
        99 if good_at is None else good_at - 1
    )

    for look in range(1, 6):
        studio.pull()
        (progress,) = [each for each in studio.store.progress_of("ada") if each.resource == ACCOUNT.name]
        assert progress.next_at is not None
        assert progress.failures == (0 if look >= (good_at or 5) else look)
        comes_soon = progress.next_at - studio.store.ping() <= schedule.SOON
        assert comes_soon == (look < (good_at or 5))
        if look == good_at:
            break

    assert {first for first, _ in spans(studio)} == {oldest.isoformat()}
    assert [row["likes"] for row in studio.rows("account_days")] == ([] if good_at is None else [9])


def test_days_that_could_not_be_read_are_all_asked_for_on_the_next_day(studio: Studio) -> None:
    """The last day on which TikTok gives a day may be tomorrow, also of one that has no row yet."""
    studio.truth.days[studio.back(59)] = {"likes": 9}
    odd = ReadAnswer({"display_name": "Ada", "metrics": [{"date": "some day", "likes": 9}]}, None)
    studio.truth.faults[ACCOUNT_CALL] = [odd] * 6
    for _ in range(6):
        studio.pull()
    studio.pass_days()
    studio.pull()

    assert spans(studio)[-1][0] == studio.back(60).isoformat()
    assert [row["likes"] for row in studio.rows("account_days")] == [9]


@pytest.mark.parametrize(
    "spoilt",
    [
        pytest.param({"likes": "many"}, id="a value"),
        pytest.param({}, id="in part"),
    ],
)
def test_what_may_be_gone_tomorrow_is_looked_at_once_more_today(studio: Studio, spoilt: dict[str, Any]) -> None:
    """The oldest day and the list's end are read again within the hour; what stays spoilt waits for another day."""
    oldest = studio.back(60)
    studio.truth.days[oldest] = {"likes": 9}
    studio.truth.videos = [studio.video(number, age=40 + number) for number in range(30)]
    first_page = [{**studio.video(number, age=40 + number), "likes": None, **spoilt} for number in range(20)]
    cursor = int(first_page[-1]["create_time"]) * 1000
    page = ReadAnswer({"videos": first_page, "has_more": True, "cursor": cursor}, None, partial=not spoilt)
    metrics = [{"date": oldest.isoformat(), **spoilt}]
    account = ReadAnswer({"display_name": "Ada", "metrics": metrics}, None, partial=not spoilt)
    studio.truth.faults = {ACCOUNT_CALL: [account], VIDEO_CALL: [page]}
    studio.pull()

    studio.fleet.sql("UPDATE account_progress SET next_at = 1")
    studio.truth.faults = {VIDEO_CALL: [page]}
    studio.pull()

    assert spans(studio)[-1][0] == oldest.isoformat()
    assert [row["likes"] for row in studio.rows("account_days") if row["day"] == oldest] == [9]
    assert studio.truth.count(VIDEO_CALL) == 4
    before = len(studio.truth.calls)
    studio.fleet.sql("UPDATE account_progress SET next_at = 1")
    studio.pull()
    assert [call for call, _ in studio.truth.calls[before:]].count(VIDEO_CALL) <= 1


def test_a_whole_list_of_which_a_page_came_in_part_is_read_again_on_the_next_day(studio: Studio) -> None:
    """Old videos are in no daily pass, and what TikTok gives of them for some days only would be lost in a week."""
    studio.truth.videos = [studio.video(number, age=40 + number, reach=5) for number in range(3)]
    part = {"videos": [studio.video(0, age=40)], "has_more": False, "cursor": 1}
    studio.truth.faults[VIDEO_CALL] = [ReadAnswer(part, None, partial=True)]
    studio.pull()
    assert len(studio.rows("videos")) == 1

    studio.pass_days(1.1)
    studio.pull()

    assert [row["reach"] for row in studio.rows("videos")] == [5, 5, 5]


ODD_SHARES = [{"impression_source": "For You", "percentage": "many"}]


@pytest.mark.parametrize("spoilt", [{"reach": "many"}, {"impression_sources": 7}, {"impression_sources": ODD_SHARES}])
def test_an_old_video_that_could_not_be_read_is_read_on_the_next_day(studio: Studio, spoilt: dict[str, Any]) -> None:
    """Some of its figures are gone seven days after they changed last: the next weekly pass would come too late."""
    known = {"reach": 100, "impression_sources": [{"impression_source": "For You", "percentage": 0.5}]}
    studio.truth.videos = [studio.video(number, age=40 + number) | known for number in range(21)]
    studio.pull()
    studio.pass_days(8)
    new = {"reach": 150, "impression_sources": [{"impression_source": "For You", "percentage": 0.75}]}
    *others, oldest = studio.truth.videos
    studio.truth.videos = [*others, oldest | new]
    cursor = int(others[-1]["create_time"]) * 1000
    pages = [
        ReadAnswer({"videos": others, "has_more": True, "cursor": cursor}, None),
        ReadAnswer({"videos": [oldest | new | spoilt], "has_more": False, "cursor": 0}, None),
    ]
    studio.truth.faults[VIDEO_CALL] = [*pages, *pages]
    for _ in range(2):
        studio.fleet.sql("UPDATE account_progress SET next_at = 1")
        studio.pull()
    assert studio.truth.faults[VIDEO_CALL] == []

    studio.pass_days(1.1)
    studio.pull()

    assert [row["reach"] for row in studio.rows("videos") if row["item_id"] == oldest["item_id"]] == [150]
    shares = [row for row in studio.rows("video_shares") if row["item_id"] == oldest["item_id"]]
    assert max(shares, key=lambda row: row["pull_day"])["share"] == 0.75


def test_a_list_that_cannot_be_read_is_read_to_its_end_for_a_week(new_studio: NewStudio) -> None:
    """Twice a day and not more often, until what TikTok gives for seven days is gone; then it has its rest."""
    studio = new_studio(resources=("videos",))
    studio.truth.videos = [studio.video(number, age=40 + number, reach="many") for number in range(21)]
    pages = []
    for _ in range(16):
        before = studio.truth.count(VIDEO_CALL)
        for _ in range(3):
            studio.fleet.sql("UPDATE account_progress SET next_at = 1")
            studio.pull()
        pages.append(studio.truth.count(VIDEO_CALL) - before)
        studio.pass_days()

    assert pages[:7] == [2 + 2 + 1] * 7
    assert pages[8:14] == [1 + 1 + 1] * 6
    assert max(pages) == 5
