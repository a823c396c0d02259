"""The signed state of a consent link."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from worker.consent import state as consent_state

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEY = consent_state.derive_key(b"k" * 32)
LIFE = timedelta(minutes=10)
STATE = consent_state.sign(key=KEY, now=NOW, nonce=b"n" * consent_state.NONCE_BYTES)


def problem(state: str, *, key: bytes = KEY, after: timedelta = timedelta(0)) -> str | None:
    """Return what is wrong with a state some time after it was made."""
    return consent_state.problem_of(state, key=key, now=NOW + after, life=LIFE)


@pytest.mark.parametrize("seconds", [-60, 0, 1, 599, 600])
def test_a_state_is_good_within_its_life(seconds: int) -> None:
    """A state of ours is taken until its life ends, and a minute early where clocks differ."""
    assert problem(STATE, after=timedelta(seconds=seconds)) is None


@pytest.mark.parametrize(
    ("state", "key", "seconds", "sentence"),
    [
        pytest.param("", KEY, 0, "no state", id="none"),
        pytest.param("nonsense", KEY, 0, "not signed with this keyring", id="nonsense"),
        pytest.param("é" * 75, KEY, 0, "not signed with this keyring", id="not ASCII"),
        pytest.param(STATE[:-1], KEY, 0, "not signed with this keyring", id="cut"),
        pytest.param(STATE + "A", KEY, 0, "not signed with this keyring", id="lengthened"),
        pytest.param(
            STATE, consent_state.derive_key(b"x" * 32), 0, "not signed with this keyring", id="another keyring"
        ),
        pytest.param(STATE, KEY, 601, "601 s old and was good for 600 s", id="too old"),
        pytest.param(STATE, KEY, -61, "a clock is wrong", id="from the future"),
    ],
)
def test_a_wrong_state_is_explained(state: str, key: bytes, seconds: int, sentence: str) -> None:
    """Each way to be wrong has its own sentence."""
    found = problem(state, key=key, after=timedelta(seconds=seconds))

    assert found is not None
    assert sentence in found


def test_every_changed_character_is_noticed() -> None:
    """No character of a state can be exchanged: time, nonce and signature are all bound."""
    changed = [STATE[:at] + ("A" if char != "A" else "B") + STATE[at + 1 :] for at, char in enumerate(STATE[:-1])]

    assert all(problem(state) is not None for state in changed)


def test_the_key_is_not_the_secret_itself() -> None:
    """The signing key is derived, so a leaked state key opens nothing."""
    assert consent_state.derive_key(b"k" * 32) != b"k" * 32
