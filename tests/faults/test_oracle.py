"""The oracle itself: each of its nine checks is quiet on a sound run and finds what it is there to find."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.faults.leaks import find_leaks
from tests.faults.oracle import CHECKS, REFRESH_CALL, Evidence, judge, window_kills
from tests.faults.tape import Note, received_pair
from worker.policy.verdicts import AttemptOutcome
from worker.sandbox.ledger import LedgerEntry, fingerprint
from worker.store import AttemptView, GrantStatus, GrantView, Store

NOW = datetime(2026, 11, 23, tzinfo=UTC)
WORKER, OTHER = 100, 200


def line(seq: int, old: str, new: str | None, **fields: Any) -> LedgerEntry:
    """Return a refresh in the ledger."""
    values: dict[str, Any] = {
        "creator": "ada",
        "call": REFRESH_CALL,
        "consent": 1,
        "fp_old_refresh": old,
        "fp_new_refresh": new,
        "expires_in": 86_400,
        "time": NOW.timestamp() + seq,
    }
    return LedgerEntry(seq=seq, **values | fields)


def granted() -> LedgerEntry:
    """Return the ledger's line of the consent."""
    return replace(line(1, "", "first"), call="control/grants", fp_old_refresh=None)


def calls(old: str, new: str, pid: int = WORKER, at: float = 1.0, nth: int = 1) -> list[Note]:
    """Return what a worker notes of a refresh that went well."""
    return [
        Note("sent", pid, at, fp=old, nth=nth),
        Note("over", pid, at + 0.1, fp=new, old=old),
        Note("journaled", pid, at + 0.2, fp=new),
    ]


def grant(**changes: Any) -> GrantView:
    """Return ada's grant, refreshed a minute after the faults had ended."""
    values: dict[str, Any] = {
        "grant_id": 1, "creator_id": "ada",
        "reference": None, "consent": 1, "generation": 2, "pair_generation": 2,
        "status": GrantStatus.ACTIVE, "scope": "", "issued_at": NOW + timedelta(minutes=1),
        "access_expires_at": NOW + timedelta(days=1), "refresh_expires_at": None, "next_refresh_at": NOW,
        "jitter": 0.5, "failures": 0, "last_reason": None, "lease_owner": None, "lease_until": None,
        "next_pull_at": None, "pulled_at": None, "pull_failures": 0, "created_at": NOW, "updated_at": NOW,
    }  # fmt: skip
    return GrantView(**values | changes)


def attempt(outcome: AttemptOutcome | None) -> AttemptView:
    """Return an attempt."""
    return AttemptView(1, 2, "worker", NOW, None, outcome, None, None, None, None)


SOUND = Evidence(
    entries=[granted(), line(2, "first", "second")],
    notes=calls("first", "second"),
    stored={"ada": {"first", "second"}},
    grants=[grant()],
    attempts={1: [attempt(AttemptOutcome.REFRESHED)]},
    healed_at=NOW,
    per_second=2,
)
NEEDS = grant(status=GrantStatus.NEEDS_REAUTH)
STORED_FIRST: dict[str, set[str]] = {"ada": {"first"}}
REUSED = line(3, "first", None, code=40107, reused_after="sent", overlap=True)
UNDER_WAY = line(3, "first", "third", under_way=True, overlap=True)
GUILTY: dict[str, list[Evidence]] = {
    "V1 lost": [
        replace(SOUND, stored=STORED_FIRST),
        replace(SOUND, stored=STORED_FIRST, notes=SOUND.notes[:2]),
        replace(SOUND, stored={"bob": {"second"}, "ada": {"first"}}),
    ],
    "V2 refreshed twice": [
        replace(SOUND, entries=[*SOUND.entries, REUSED]),
        replace(SOUND, entries=[*SOUND.entries, REUSED], notes=[*SOUND.notes, *calls("first", "", OTHER, 2.0)]),
        replace(
            SOUND, entries=[*SOUND.entries, UNDER_WAY], notes=[*SOUND.notes, *calls("first", "third", OTHER, 1.05)]
        ),
        replace(SOUND, entries=[*SOUND.entries, UNDER_WAY], notes=[]),
    ],
    "V3 leaked": [replace(SOUND, leaks=["a secret stands in worker.log"])],
    "V4 stuck": [
        replace(SOUND, grants=[grant(issued_at=NOW - timedelta(seconds=1))]),
        replace(SOUND, grants=[grant(status=GrantStatus.SUSPECT)]),
        replace(SOUND, grants=[NEEDS], stored=STORED_FIRST, asked={(1, 1): 0}),
        replace(SOUND, grants=[NEEDS], asked={(1, 1): 2}),
        replace(SOUND, asked={(1, 1): 1}),
    ],
    "V5 wrong creator": [replace(SOUND, stored={"ada": {"second"}, "bob": {"first"}})],
    "V6 over the limit": [replace(SOUND, per_second=0)],
    "V7 expired": [replace(SOUND, entries=[granted(), line(200_000, "first", "second")])],
    "V8 open attempts": [replace(SOUND, attempts={1: [attempt(None)]})],
    "V9 false alarm": [replace(SOUND, grants=[NEEDS], asked={(1, 1): 1})],
}


def test_a_sound_run_is_found_sound() -> None:
    """No check speaks without a reason."""
    assert judge(SOUND) == {}


@pytest.mark.parametrize(("check", "number"), [(check, n) for check, runs in GUILTY.items() for n in range(len(runs))])
def test_every_check_can_fail(check: str, number: int) -> None:
    """Each fault that a check is there for is found by it."""
    assert judge(GUILTY[check][number]).get(check)


def test_every_check_is_tried() -> None:
    """A tenth check would need its guilty runs."""
    assert set(GUILTY) == set(CHECKS)


def test_a_kill_in_the_window_is_counted_and_is_no_lost_pair() -> None:
    """Received and not journaled by a process that was killed: a window; of one that lives: a loss."""
    killed = replace(SOUND, stored=STORED_FIRST, notes=SOUND.notes[:2], away={WORKER})

    assert window_kills(killed) == ["second"]
    assert "V1 lost" not in judge(killed)
    assert judge(replace(killed, notes=SOUND.notes))["V1 lost"], "a journaled pair is lost for good"


def test_a_pair_in_the_journal_is_not_lost() -> None:
    """Set aside or waiting, it is there."""
    assert "V1 lost" not in judge(replace(SOUND, stored=STORED_FIRST, kept={"second"}))


def test_a_cut_answer_without_its_creator_is_no_lost_pair() -> None:
    """Tokens that nobody can be named for are not stored under anybody."""
    cut = line(2, "first", "second", answer="cut", salvageable=False)

    assert "V1 lost" not in judge(replace(SOUND, entries=[granted(), cut], stored=STORED_FIRST))
    assert judge(replace(SOUND, entries=[granted(), replace(cut, salvageable=True)], stored=STORED_FIRST))["V1 lost"]


def test_sending_again_is_excused_if_the_answer_was_out_of_reach() -> None:
    """The holder of the answer was killed or stopped, or the call is a later rung of one attempt's ladder."""
    again = replace(SOUND, entries=[*SOUND.entries, REUSED])
    retried = [*SOUND.notes, *calls("first", "", OTHER, 2.0)]

    assert judge(replace(again, notes=retried, away={WORKER})) == {}
    assert judge(replace(again, notes=[*SOUND.notes, *calls("first", "", WORKER, 2.0, nth=2)])) == {}
    grace = [granted(), line(2, "first", "second"), line(3, "first", "second", again=True, reused_after="sent")]
    late = [SOUND.notes[0], *calls("first", "second", OTHER, 2.0)]
    assert judge(replace(SOUND, entries=grace, notes=late)) == {}, "nobody had it when it was sent again"


def test_a_send_that_a_killed_worker_had_no_time_to_note_is_its_own() -> None:
    """Killed between the last byte and the note of it, it had no answer; the next sender had not either."""
    begun = [Note("sending", WORKER, 0.9, fp="first", nth=1), *calls("first", "", OTHER, 2.0)]
    died = replace(SOUND, entries=[*SOUND.entries, REUSED], stored=STORED_FIRST, notes=begun, away={WORKER})

    assert judge(died) == {}
    assert judge(replace(died, away=()))["V2 refreshed twice"], "a living worker notes what it sends"
    assert judge(replace(died, notes=begun[1:]))["V2 refreshed twice"], "nobody was about to send"
    twice = [*begun, *calls("first", "second", OTHER, 1.5), *calls("first", "", OTHER, 2.5)]
    thrice = replace(died, entries=[*died.entries, replace(REUSED, seq=4)], notes=twice)
    assert judge(thrice)["V2 refreshed twice"], "the answer of a living worker counts as before"


def test_an_overlap_is_excused_if_the_first_sender_waited_no_more() -> None:
    """A call past its deadline may still be under way at TikTok when the retry comes."""
    late = replace(SOUND, entries=[*SOUND.entries, UNDER_WAY], stored={"ada": {"first", "second", "third"}})

    assert judge(replace(late, notes=[*SOUND.notes, *calls("first", "third", OTHER, 2.0, nth=2)])) == {}
    assert judge(replace(late, notes=[SOUND.notes[0], *calls("first", "third", OTHER, 2.0, nth=2)]))
    assert judge(replace(late, notes=[SOUND.notes[0], *calls("first", "third", OTHER, 2.0)], away={WORKER})) == {}


def test_an_overlap_is_judged_whichever_call_tiktok_got_to_first() -> None:
    """The line of a call that TikTok holds back stands behind the line of the one that was sent after it."""
    lines = [granted(), line(2, "first", "second", under_way=True), replace(REUSED, reused_after="sent")]
    first_over = [replace(SOUND.notes[0]), Note("over", WORKER, 1.5, old="first")]
    retried = [*first_over, *calls("first", "second", WORKER, 1.6, nth=2)]

    assert judge(replace(SOUND, entries=lines, notes=retried)) == {}
    both = [SOUND.notes[0], *calls("first", "second", OTHER, 1.6), Note("over", WORKER, 2.0, old="first")]
    assert judge(replace(SOUND, entries=lines, notes=both))["V2 refreshed twice"]


def test_a_pair_that_names_another_creator_does_not_count_as_received() -> None:
    """It may not be used, so the token that brought it is sent again at the next look."""
    alien = replace(line(2, "first", "second"), answer="altered", faults=("wrong_creator",))
    again = replace(SOUND, entries=[granted(), alien, REUSED], notes=[*SOUND.notes, *calls("first", "", WORKER, 2.0)])

    assert judge(again) == {}


def test_a_creator_who_removed_the_app_is_no_false_alarm() -> None:
    """The pair is stored, and TikTok takes it no more."""
    asked = replace(SOUND, grants=[NEEDS], asked={(1, 1): 1})

    assert judge(replace(asked, revoked={"ada"})) == {}


def test_a_pair_is_received_when_both_tokens_came_whole() -> None:
    """One token, or half of one, is no pair."""
    whole = b'{"data": {"access_token": "act.1", "refresh_token": "rft.1"}}'

    assert received_pair(whole) == fingerprint("rft.1")
    assert received_pair(whole[:-4]) is None
    assert received_pair(whole.replace(b"access_token", b"other")) is None


def test_leaks_are_found_in_files_rows_and_redis(store: Store, redis_url: str, tmp_path: Path) -> None:
    """Each place is really looked at."""
    import redis  # noqa: PLC0415 - the one test that writes there

    def look() -> list[str]:
        return find_leaks(["CANARY"], folders=[tmp_path / "logs"], store=store, redis_url=redis_url)

    (tmp_path / "logs").mkdir()
    assert look() == []
    (tmp_path / "logs" / "worker.log").write_text("a CANARY in a log")
    store.raise_alarm("key", "kind", "a CANARY in a row")
    with redis.Redis.from_url(redis_url) as client:
        client.rpush("queue", "a CANARY in a message")
    assert look() == [f"a secret stands in {place}" for place in ("worker.log", "the table notices", "Redis")]
