"""What `doctor` and `capacity` say of account data: what waits, what is odd, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.accounts.conftest import Studio
from worker.cli import capacity_report
from worker.cli.checks import accounts
from worker.planning.headroom import COST_DAYS, requests_per_day
from worker.tiktok import ReadAnswer


def look(studio: Studio, not_asked: dict[str, list[str]] | None = None) -> tuple[str, str]:
    """Return state and text of doctor's line, with the scopes that no consent link asks for."""
    needs: dict[str, str | None] = {"account": None, "videos": "video.list"}
    late = studio.store.late_resources(needs, seconds=3600)
    services: Any = SimpleNamespace(store=studio.store, late_pulls=lambda: late, scopes_not_asked=not_asked or {})
    found = accounts(services)
    return found.state, found.detail


def test_all_is_well_and_the_contested_figures_are_told(studio: Studio) -> None:
    """The daily followers are near the counter, so they read as a total; the other one equals new minus lost."""
    studio.truth.days[studio.back(9)] = {
        "likes": 1, "followers_count": 990, "daily_total_followers": 3, "daily_new_followers": 5,
        "daily_lost_followers": 2,
    }  # fmt: skip
    studio.pull()
    assert look(studio) == ("ok", "up to date, nothing odd in the last day")
    studio.pass_days()
    studio.pull()

    state, text = look(studio)

    assert state == "ok"
    assert "followers_count of a day reads as running total" in text
    assert "daily_total_followers reads as net of the day" in text


def test_what_no_consent_link_asks_for_is_named_and_no_fault(studio: Studio) -> None:
    """An imported creator may have granted the scope all the same."""
    state, text = look(studio, {"comment.list": ["comments", "replies"]})

    assert state == "ok"
    assert "; comments and replies only of creators who granted comment.list, which EVERTOKEN_TIKTOK_SCOPES" in text


def test_what_waits_and_what_is_odd_is_a_warning_with_its_place(studio: Studio) -> None:
    """A list that is late for hours, and a value in quarantine, each in words that say where to look."""
    studio.truth.faults["business/get/"] = [ReadAnswer({"display_name": 7, "followers_count": 1}, None, raw=b"{}")]
    studio.pull()
    studio.fleet.sql("UPDATE account_progress SET next_at = 1000, failures = 2 WHERE resource = 'videos'")

    state, text = look(studio)

    assert state == "warn"
    assert "videos waits for 1 creator" in text
    assert "grants show CREATOR" in text
    assert "1 kind of odd values of 1 creator" in text


def test_the_cost_of_each_resource_is_shown_and_planned_with(
    studio: Studio, capsys: pytest.CaptureFixture[str], new_studio: Callable[..., Studio]
) -> None:
    """Yesterday's requests, by resource and for one creator; the plan takes the most expensive day."""
    for each in (studio, new_studio("bob")):
        each.truth.videos = [each.video(f"{each.grant.creator_id}{number}", age=number) for number in range(1, 50)]
        each.pull()
    studio.fleet.sql("UPDATE account_requests SET day = :day", day=studio.back(1).isoformat())
    costs = studio.store.account_costs(days=COST_DAYS)

    capacity_report.show_costs(costs)

    shown = capsys.readouterr().out
    assert [line.split()[1:8:2] for line in shown.splitlines() if "videos" in line] == [["videos", "2", "6", "3.00"]]
    assert requests_per_day(costs) == 1 + 3 + 1
    assert requests_per_day([]) == 0.0
