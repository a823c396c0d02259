"""Terms of TikTok's contract: what an answer shows, and how many answers make a change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from worker.policy.contract import (
    ACCESS_LIFE,
    FIELDS,
    NO,
    REFRESH_LIFE,
    REFRESH_ROLLS,
    ROTATES,
    SCOPE,
    YES,
    Term,
    change_of,
    terms_of,
    weigh,
)

END = datetime(2027, 1, 1, tzinfo=UTC)


def shown(**changes: Any) -> dict[str, str]:
    """Return what an ordinary answer shows, with changes."""
    usual: dict[str, Any] = {
        "access_seconds": 86_400,
        "refresh_seconds": 31_000_000,
        "refresh_ended_at": END,
        "refresh_ends_at": END + timedelta(seconds=3),
        "rotated": True,
        "fields": {"open_id", "access_token"},
        "scope_before": ["user.info.basic", "user.insights"],
        "scope": ["user.info.basic"],
    }
    return terms_of(**(usual | changes))


def after(answers: list[tuple[int, str]], *, term: str = ACCESS_LIFE, known: str = "86400", fleet: int = 3) -> Term:
    """Return what is known of a term after answers to grants."""
    term_now: Term | None = Term(known)
    for grant_id, value in answers:
        term_now = weigh(term_now, term, value, grant_id, fleet=fleet)
    assert term_now is not None
    return term_now


def test_an_answer_shows_lives_rotation_fields_and_scopes() -> None:
    """The seconds that are left of a consent are no life: they are fewer each time."""
    assert shown() == {
        ACCESS_LIFE: "86400",
        ROTATES: YES,
        REFRESH_ROLLS: NO,
        FIELDS: "access_token,open_id",
        f"{SCOPE}user.info.basic": YES,
        f"{SCOPE}user.insights": NO,
    }


@pytest.mark.parametrize(
    ("changes", "terms"),
    [
        ({"refresh_ends_at": END + timedelta(days=1)}, {REFRESH_ROLLS: YES, REFRESH_LIFE: "31000000"}),
        ({"refresh_ends_at": END - timedelta(days=90)}, {REFRESH_ROLLS: YES, REFRESH_LIFE: "31000000"}),
        ({"refresh_ended_at": None}, {REFRESH_ROLLS: None, REFRESH_LIFE: None}),
        ({"refresh_seconds": None}, {REFRESH_ROLLS: None}),
        ({"access_seconds": None}, {ACCESS_LIFE: None}),
        ({"fields": ()}, {FIELDS: None}),
        ({"scope": None}, {f"{SCOPE}user.insights": None}),
        ({"scope_before": [""]}, {f"{SCOPE}": None, f"{SCOPE}user.info.basic": None}),
        ({"rotated": False}, {ROTATES: NO}),
    ],
)
def test_what_an_answer_does_not_show_is_left_out(changes: dict[str, Any], terms: dict[str, str | None]) -> None:
    """A missing life, an unread field list and a creator's first scopes say nothing about the contract."""
    found = shown(**changes)

    assert {term: found.get(term) for term in terms} == terms


def test_three_grants_in_a_row_make_a_change() -> None:
    """Whoever says the old in between begins it again; one grant that says it thrice is one."""
    assert after([(1, "7200"), (2, "7200")]).value == "86400"
    assert after([(1, "7200"), (2, "7200"), (3, "7200")]) == Term("7200")
    assert after([(1, "7200"), (2, "7200"), (4, "86400"), (3, "7200")]).value == "86400"
    assert after([(1, "7200")] * 5).value == "86400"
    assert after([(1, "7200"), (2, "3600"), (3, "7200")]).value == "86400"


def test_a_small_fleet_needs_three_answers() -> None:
    """With one grant a single odd answer, such as one that was given again, is no change."""
    assert after([(1, "7200")] * 2, fleet=1).value == "86400"
    assert after([(1, "7200")] * 3, fleet=1).value == "7200"
    assert after([(1, "7200"), (2, "7200"), (1, "7200")], fleet=2).value == "7200"


def test_lives_that_vary_a_little_are_the_same() -> None:
    """TikTok may count from its own clock, or tell what is left."""
    assert after([(number, "86_399".replace("_", "")) for number in range(9)]) == Term("86400")
    assert after([(number, "82500") for number in range(9)]) == Term("86400")


def test_a_creator_who_takes_a_scope_back_is_no_change_of_the_contract() -> None:
    """It takes three creators, also in a fleet of one, and a scope that nothing is known of was given before."""
    assert after([(1, NO)], term=f"{SCOPE}user.insights", known=YES, fleet=1).value == YES
    gone = weigh(None, f"{SCOPE}user.insights", NO, 1, fleet=1)
    assert (gone.value, gone.odd) == (YES, NO)
    assert after([(n, NO) for n in range(3)], term=f"{SCOPE}user.insights", known=YES).value == NO


@pytest.mark.parametrize(
    ("term", "before", "now", "words"),
    [
        (ACCESS_LIFE, "86400", "7200", "access tokens live 2 h, and lived 1 d"),
        (REFRESH_LIFE, "31536000", "45", "live 45 s, and lived 365 d"),
        (ROTATES, YES, NO, "no longer replaces"),
        (ROTATES, NO, YES, "brings another"),
        (REFRESH_ROLLS, YES, NO, "no longer move the end"),
        (REFRESH_ROLLS, NO, YES, "moves the end"),
        (f"{SCOPE}user.insights", YES, NO, "no longer have the scope user.insights"),
        (f"{SCOPE}user.insights", NO, YES, "given again"),
        (FIELDS, "a,b", "b,c", "gone are a; new are c"),
    ],
)
def test_every_change_has_its_sentence(term: str, before: str, now: str, words: str) -> None:
    """A person reads what holds now and what held before."""
    assert words in change_of(term, before, now).told
