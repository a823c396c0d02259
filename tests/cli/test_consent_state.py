"""The state of a consent link, and the row behind it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from worker.consent.state import LinkError, LinkProblem, refuse_bad_state
from worker.links import handle_of, new_state
from worker.store import ConsentLink

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LINK = ConsentLink(reference=None, creator_id=None, ends_at=NOW + timedelta(minutes=10), used_at=None, now=NOW)


@pytest.mark.parametrize("seconds", [0, 1, 599, 600])
def test_a_link_is_good_until_its_end(seconds: int) -> None:
    """A link is taken until its life ends."""
    link = replace(LINK, now=NOW + timedelta(seconds=seconds))

    assert refuse_bad_state("state", link) is link


@pytest.mark.parametrize(
    ("state", "link", "sentence", "problem"),
    [
        pytest.param("", LINK, "no state", LinkProblem.MISSING, id="none"),
        pytest.param("state", None, "no link that this database knows", LinkProblem.UNKNOWN, id="unknown"),
        pytest.param("state", replace(LINK, used_at=NOW), "was used at 2026-11-23 12", LinkProblem.USED, id="used"),
        pytest.param(
            "state", replace(LINK, now=NOW + timedelta(0, 601)), "ended 1 s ago", LinkProblem.ENDED, id="too old"
        ),
    ],
)
def test_a_wrong_state_is_explained(state: str, link: ConsentLink | None, sentence: str, problem: LinkProblem) -> None:
    """Each way to be wrong has its own sentence, which says what to do."""
    with pytest.raises(LinkError, match=sentence) as raised:
        refuse_bad_state(state, link)

    assert raised.value.problem is problem
    assert "make a new link" in str(raised.value)


def test_states_are_random_and_stored_as_a_hash() -> None:
    """No two links have the same state, and what is stored does not show it."""
    states = {new_state() for _ in range(100)}

    assert len(states) == 100
    assert all(len(state) >= 32 and state not in handle_of(state) for state in states)


@pytest.mark.parametrize("state", ["\x00", "\ud800", "é" * 5000, "' OR 1=1 --", " "])
def test_any_text_has_a_handle(state: str) -> None:
    """A state that came back as odd text is looked up like any other."""
    assert len(handle_of(state)) == 64
