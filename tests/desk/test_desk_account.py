"""The account on the desk's page of a creator: figures, gaps, what is provisional, and whatever people may write."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import pytest

from tests.desk.test_desk_attacks import NASTY
from tests.support.desk import RunningDesk
from tests.support.surfing import Person
from worker.desk.charts import HEIGHT, Chart, account_of
from worker.policy.wording import moment
from worker.store import AccountPage, GrantView, Progress

FIRST: Final = date(2026, 3, 1)


@pytest.fixture
def operator(desk: RunningDesk) -> Person:
    """An operator who is logged in."""
    person = Person(desk)
    assert person.log_in().status_code == 303
    return person


def found(views: list[int | str | None], followers: list[int | None], *, provisional: int = 0) -> dict[str, Any]:
    """Return what is known of an account.

    Args:
        views: of each day from the first; a text for a day without a row.
        followers: as read at noon of each day from the first; None for a reading without the counter.
        provisional: how many of the last days are.
    """
    days = [(FIRST + timedelta(days=number), value) for number, value in enumerate(views)]
    noon = datetime(FIRST.year, FIRST.month, FIRST.day, 12, tzinfo=UTC)
    return {
        "profile": None,
        "days": [
            {"day": day.isoformat(), "video_views": value, "settled": day < FIRST + timedelta(len(days) - provisional)}
            for day, value in days
            if not isinstance(value, str)
        ],
        "counters": [
            {"read_at": noon + timedelta(days=number), "followers_count": value, "videos_count": None}
            for number, value in enumerate(followers)
        ],
        "videos": [],
    }


def charts(known: dict[str, Any]) -> dict[str, Chart]:
    """Return the charts by name."""
    account = account_of(known)
    assert account is not None
    return {chart.name: chart for chart in account.charts}


def bars(path: str) -> dict[int, float]:
    """Return the height of each bar of a path, by the number of its day."""
    found_bars = re.findall(r"M([\d.]+) ([\d.]+)h3V", path)
    return {int(float(left) // 4): HEIGHT - float(top) for left, top in found_bars}


def test_a_day_without_a_figure_is_a_gap_and_a_zero_is_a_bar() -> None:
    """A day without a row and a day whose figure is NULL are marked and have no bar; zero has one, the lowest."""
    chart = charts(found([10, "no row", None, 0, 5], []))["views"]

    assert bars(chart.paths["bar"]) == {0: HEIGHT, 3: 1.5, 4: HEIGHT / 2}
    assert chart.paths["gap"] == "M6 0V100 M10 0V100"
    assert "between 0 and 10, 5 on 2026-03-05." in chart.words
    assert "days without a figure: 2 of 5." in chart.words
    assert bars(charts(found([0, 0], []))["views"].paths["bar"]) == {0: 1.5, 1: 1.5}


def test_a_line_is_broken_at_a_gap() -> None:
    """Followers are not drawn through days on which nothing was read; a lone day is a dot."""
    chart = charts(found([], [100, 200, None, 150, None, 300]))["followers"]

    assert chart.paths["line"] == "M2 100 L6 50 h0 M14 75 h0 M22 0 h0"
    assert chart.paths["gap"] == "M10 0V100 M18 0V100"
    assert (chart.least, chart.most) == (100, 300)
    assert "100 at first, 300 at last, between 100 and 300." in chart.words


def test_provisional_days_are_hollow_and_said() -> None:
    """They are drawn apart from those that stand, and the sentence beside the chart counts them."""
    chart = charts(found([4, 4, 4, 2], [], provisional=2))["views"]

    assert bars(chart.paths["bar"]).keys() == {0, 1}
    assert bars(chart.paths["hollow"]) == {2: HEIGHT, 3: HEIGHT / 2}
    assert "provisional figures: 2 of 4 days." in chart.words


@pytest.mark.parametrize("figures", [[0, 0], [7], [10**18, 1], [-3, 4]])
def test_any_figures_have_a_drawing_within_its_edges(figures: list[int | None]) -> None:
    """Zeros alone, one day, the largest number that is stored and one that cannot be leave no bar outside."""
    drawn = charts(found([*figures], figures))

    assert all(0 < height <= HEIGHT for height in bars(drawn["views"].paths["bar"]).values())
    numbers = [float(y) for y in re.findall(r"[ML]\d+ (\S+)", drawn["followers"].paths["line"])]
    assert len(numbers) == len(figures)
    assert all(0 <= number <= HEIGHT for number in numbers)


def test_only_the_newest_sixty_days_are_drawn() -> None:
    """A day of long ago does not squeeze those of now into a corner."""
    known = found([5] * 3, [None] * 400 + [9])
    account = account_of(known)

    assert account is not None
    assert [account.days[0].day, account.days[-1].day] == [FIRST + timedelta(days=each) for each in (341, 400)]
    assert [chart.name for chart in account.charts] == ["followers"]


def save(
    desk: RunningDesk, grant: GrantView, *, snapshot: dict[str, Any] | None = None, **rows: list[dict[str, Any]]
) -> None:
    """Store rows as a pull does, with what it keeps of the answer."""
    store = desk.services.store
    store.request_pull(grant.creator_id)
    claim = store.claim_pull(grant.grant_id, owner="a worker", lease_seconds=60)
    assert claim is not None
    page = AccountPage("business/get/", Progress("account"), rows=rows, snapshot=snapshot)
    saved = store.save_page(claim, page, lease_seconds=60)
    assert saved is not None
    store.end_pull(saved.claim, next_pull_at=None)


def test_the_page_shows_the_figures_and_the_videos(desk: RunningDesk, operator: Person) -> None:
    """Charts have their sentences, the table each day with what it stands for, and videos the most viewed first."""
    grant = desk.world.creator()
    today = desk.services.store.ping().date()
    week = [today - timedelta(days=age) for age in range(7, 1, -1)]
    save(
        desk, grant,
        account_days=[{"day": day, "video_views": 1000 * at} for at, day in enumerate(week) if at != 3],
        account_counters=[{"followers_count": 4321}],
        videos=[{"item_id": "1", "video_views": 5, "caption": "few"}, {"item_id": "2", "video_views": 9876}],
    )  # fmt: skip
    desk.world.sql(f"UPDATE account_days SET settled = (day < '{week[4]}')")  # noqa: S608 - our own day

    text = operator.get(f"/ops/grants/{grant.creator_id}").text
    assert f"Video views of each day from {week[0]} to {today}: between 0 and 5,000, 5,000 on {week[5]}." in text
    assert "Hollow bars are provisional figures: 2 of 5 days." in text
    assert "days without a figure: 3 of 8." in text
    assert f"Followers from {week[0]} to {today}: 4,321 at first, 4,321 at last" in text
    row = '<th scope="row" class="when">{}</th><td>{}</td><td>{}</td><td>{}</td>'
    for values in (
        (today, "4,321", "-", "none"), (week[5], "-", "5,000", "provisional"), (week[3], "-", "-", "none"),
        (week[0], "-", "0", "settled"),
    ):  # fmt: skip
        assert row.format(*values) in text
    assert text.index("9,876 of 9,876") < text.index("5 of 9,876")
    assert len(re.findall(r'<svg [^>]*role="img" aria-labelledby="(chart-\w+)"', text)) == 2
    for name in re.findall(r'aria-labelledby="(chart-\w+)"', text):
        assert f'<figcaption id="{name}">' in text


def head(page: str) -> dict[str, str]:
    """Return what a page says above its first heading of the second size, by name and without marks."""
    top = page.partition("<h2>")[0]
    return {name: re.sub("<[^>]*>", "", text) for name, text in re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", top)}


def test_the_head_and_the_charts_say_the_same(desk: RunningDesk, operator: Person) -> None:
    """Both are of the tables: no value that could not be read, and one that stopped coming has its own instant."""
    grant = desk.world.creator()
    path = f"/ops/grants/{grant.creator_id}"
    assert not head(operator.get(path).text).keys() & {"followers_count", "Account read"}
    profile = {"username": "ada", "is_verified": True, "followers_count": 4321}
    save(desk, grant, account_counters=[{"followers_count": 4321, "videos_count": 7}], account_profiles=[profile])
    store = desk.services.store
    read = store.profile(grant.creator_id)
    assert read is not None

    known = head(operator.get(path).text)
    named = ("username", "is_verified", "followers_count", "videos_count")
    assert [known[name] for name in named] == ["ada", "yes", "4,321", "7"]
    assert known["Account read"] == f"{moment(read.read_at)} UTC"

    # A later answer has a counter that cannot be read.
    for table in ("account_profiles", "account_counters"):
        desk.world.sql(f"UPDATE {table} SET read_at = read_at - 7200000")  # noqa: S608 - our own names
    snapshot = {"followers_count": "many", "username": "ada2"}
    later = {"username": "ada2", "videos_count": 8}
    save(desk, grant, snapshot=snapshot, account_counters=[{"videos_count": 8}], account_profiles=[later])
    page = operator.get(path).text
    known = head(page)
    old = moment(read.read_at - timedelta(hours=2))
    assert known["followers_count"] == f"4,321 (read {old} UTC)"
    assert (known["videos_count"], known["username"]) == ("8", "ada2")
    assert known["Account read"] != f"{old} UTC"
    assert "4,321 at last" in page
    assert "many" not in page


def test_an_account_of_which_nothing_was_pulled_says_so(desk: RunningDesk, operator: Person) -> None:
    """No chart is empty; one whose figures have not come is left out."""
    grant = desk.world.creator()
    page = operator.get(f"/ops/grants/{grant.creator_id}").text
    assert "Nothing of this account was pulled yet." in page
    assert "<svg" not in page

    save(desk, grant, account_profiles=[{"username": "ada"}])
    page = operator.get(f"/ops/grants/{grant.creator_id}").text
    assert "No figure of a day was pulled yet." in page
    assert "<svg" not in page


def test_what_a_creator_writes_is_shown_as_text(desk: RunningDesk, operator: Person) -> None:
    """A caption and an id of a video are escaped, and a right-to-left mark in them turns nothing around them."""
    grant = desk.world.creator()
    turned = "\u202e</bdi><svg onload=alert(1)>"
    save(desk, grant, videos=[
        {"item_id": NASTY[:60], "video_views": 7}, {"item_id": "2", "video_views": 6, "caption": turned},
        {"item_id": "3", "video_views": 5, "caption": NASTY},
    ])  # fmt: skip

    page = operator.get(f"/ops/grants/{grant.creator_id}").text
    assert "<script" not in page
    assert "onload=alert(1)>" not in page
    assert "<bdi>\u202e&lt;/bdi&gt;&lt;svg onload=alert(1)&gt;</bdi>" in page
    assert page.count("<bdi>") == 3
    assert " style=" not in page
