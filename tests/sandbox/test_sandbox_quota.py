"""The quota and its punishments, by a clock that the test moves."""

from __future__ import annotations

from worker.sandbox.options import SandboxOptions
from worker.sandbox.quota import Quota

NOON = 1_800_000_000 // 86_400 * 86_400 + 43_200.0


def _take(quota: Quota, options: SandboxOptions, now: float, creator: str | None = None, call: str = "a") -> int:
    refusal = quota.take(options, now=now, call=call, creator=creator)
    return 0 if refusal is None else refusal.code


def test_second_ends_with_the_second() -> None:
    """Over the limit of a second calls get 40100, and in the next second they pass."""
    quota, options = Quota(), SandboxOptions(quota_per_second=3)

    assert [_take(quota, options, NOON + 0.1 * step) for step in range(5)] == [0, 0, 0, 40100, 40100]
    assert _take(quota, options, NOON + 1) == 0


def test_minute_slides_and_suspends_for_five_minutes() -> None:
    """The call that breaks a minute shuts the app out for 300 s, however quiet it is in between."""
    quota, options = Quota(), SandboxOptions(quota_per_minute=3)

    assert [_take(quota, options, NOON + at) for at in (0, 30, 59, 61, 62)] == [0, 0, 0, 0, 40100]
    assert _take(quota, options, NOON + 62 + 299) == 40100
    assert _take(quota, options, NOON + 62 + 301) == 0
    assert quota.refused == {"minute": 1, "suspended": 1}


def test_punishment_can_be_scaled() -> None:
    """Tests shorten the five minutes by a factor."""
    quota, options = Quota(), SandboxOptions(quota_per_minute=1, punishment_scale=0.3)

    assert [_take(quota, options, NOON + at) for at in (0, 1, 90, 92)] == [0, 40100, 40100, 0]


def test_account_and_call_have_a_minute_of_their_own() -> None:
    """One creator's limit on one call touches neither other creators, nor other calls, nor the app."""
    quota, options = Quota(), SandboxOptions(quota_per_account_minute=2, quota_account_code=40133)

    assert [_take(quota, options, NOON, "ada") for _ in range(3)] == [0, 0, 40133]
    assert _take(quota, options, NOON, "eve") == 0
    assert _take(quota, options, NOON, "ada", "b") == 0
    assert _take(quota, options, NOON + 61, "ada") == 0


def test_day_lasts_until_midnight_utc() -> None:
    """The call that breaks the day shuts the app out until 00:00 UTC."""
    quota, options = Quota(), SandboxOptions(quota_per_day=2)

    assert [_take(quota, options, NOON + at) for at in (0, 1, 2, 43_199)] == [0, 0, 40100, 40100]
    assert _take(quota, options, NOON + 43_201) == 0
