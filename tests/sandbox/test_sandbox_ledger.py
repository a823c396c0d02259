"""The ledger and the verdict drawn from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from worker.sandbox.ledger import LedgerEntry, LedgerWriter, fingerprint, read_ledger
from worker.sandbox.process import RunningSandbox, SandboxError
from worker.sandbox.verdict import judge

REFRESH = "tt_user/oauth2/refresh_token/"


def _issued(seq: int, new: str, **more: Any) -> LedgerEntry:
    known = {"time": 100.0 + seq, "creator": "ada", "call": REFRESH, "consent": 1, "expires_in": 50}
    return LedgerEntry(seq=seq, fp_new_refresh=new, **{**known, **more})


def test_fingerprint_is_the_beginning_of_sha256() -> None:
    """Other tools can name tokens as the ledger does."""
    assert fingerprint("abc") == "ba7816bf8f01cfea"


def test_line_stands_in_the_file_before_the_answer_leaves(
    shared: RunningSandbox, ask: Callable[..., SimpleNamespace], wait_until: Callable[..., None]
) -> None:
    """While the answer still waits, its pair is in the ledger already."""
    token = shared.grants(creators=["early"])[0]["refresh_token"]
    shared.fault("slow", creator="early", seconds=1)
    asking = Thread(target=ask, args=(shared, "refresh"), kwargs={"refresh_token": token})
    asking.start()

    wait_until(lambda: shared.entries()[-1].fp_old_refresh == fingerprint(token))

    assert asking.is_alive()
    asking.join()
    assert (shared.entries()[-1].creator, shared.entries()[-1].answer) == ("early", "sent")


def test_refused_refreshes_are_in_the_ledger(shared: RunningSandbox, ask: Callable[..., SimpleNamespace]) -> None:
    """A refresh that brings no pair has a line with its code, of nobody if the token is unknown."""
    ask(shared, "refresh", refresh_token="rft.unknown")

    entry = shared.entries()[-1]
    assert (entry.creator, entry.code, entry.fp_new_refresh) == (None, 40107, None)
    assert entry.fp_old_refresh == fingerprint("rft.unknown")


@pytest.mark.parametrize(
    ("how", "after"), [({}, "sent"), ({"kind": "lost"}, "lost"), ({"kind": "cut", "at": 5}, "cut")]
)
def test_used_token_is_noted_with_the_fate_of_the_answer_that_used_it(
    shared: RunningSandbox, ask: Callable[..., SimpleNamespace], how: dict[str, Any], after: str
) -> None:
    """A retry after a lost or cut answer is distinguished from a double refresh after a whole one."""
    creator = f"used-{after}"
    token = shared.grants(creators=[creator])[0]["refresh_token"]
    if how:
        shared.fault(creator=creator, times=1, **how)

    for _ in range(3):
        ask(shared, "refresh", refresh_token=token)

    seen = [entry for entry in shared.entries() if entry.creator == creator][1:]
    assert [entry.reused_after for entry in seen] == [None, after, after]
    assert [entry.overlap for entry in seen] == [False, True, True]


def test_other_calls_are_in_it_if_asked_for(
    start: Callable[..., RunningSandbox], ask: Callable[..., SimpleNamespace]
) -> None:
    """With `ledger_all` every call has a line, without it only those of pairs and refreshes."""
    for ledger_all, lines in ((True, 2), (False, 1)):
        sandbox = start(ledger_all=ledger_all)
        ask(sandbox, "token_info", access_token=sandbox.grants()[0]["access_token"])
        assert len(sandbox.entries()) == lines


def test_ledger_of_another_run_is_not_mixed(start: Callable[..., RunningSandbox], tmp_path: Path) -> None:
    """A file that already holds a ledger is refused, as its verdict would speak of two runs."""
    path = tmp_path / "ledger.jsonl"
    path.write_text("{}\n")

    with pytest.raises(SandboxError, match="did not start"):
        start(ledger=str(path))
    assert path.read_text() == "{}\n"


def test_reader_takes_an_unfinished_line_and_late_news(tmp_path: Path) -> None:
    """The last line may be half written; an undelivered answer changes the line it belongs to."""
    path = tmp_path / "new" / "ledger.jsonl"
    writer = LedgerWriter(str(path))
    writer.write({"time": 1.0, "creator": name, "call": REFRESH} for name in ("ada", "eve"))
    writer.undelivered(1)
    writer.close()
    with path.open("a") as file:
        file.write('{"seq":3,"ti')

    entries = read_ledger(path)

    assert [(entry.seq, entry.answer) for entry in entries] == [(1, "undelivered"), (2, "sent")]


def test_stored_live_pair_is_sound() -> None:
    """A run whose last pairs are all stored and overlap in time is sound."""
    verdict = judge([_issued(1, "a"), _issued(2, "b", time=140.0)], {"ada": {"b"}}, until=180.0)

    assert verdict.sound
    assert (verdict.creators, verdict.pairs_issued, verdict.live_stored) == (1, 2, 1)


@pytest.mark.parametrize(
    ("more", "found"),
    [
        pytest.param({}, "lost", id="left whole"),
        pytest.param({"answer": "cut", "salvageable": True}, "lost_cut", id="cut behind the tokens"),
        pytest.param({"answer": "cut"}, "unreachable", id="cut before the tokens' end"),
        pytest.param({"answer": "lost"}, "unreachable", id="never left"),
        pytest.param({"answer": "undelivered"}, "unreachable", id="client had gone"),
        pytest.param({"answer": "altered"}, "unreachable", id="another creator's id"),
    ],
)
def test_unstored_live_pair_is_judged_by_how_it_left(more: dict[str, Any], found: str) -> None:
    """Only what left in a usable form can have been lost by us."""
    verdict = judge([_issued(1, "a"), _issued(2, "b", **more)], {"ada": {"a"}})

    counts = {name: getattr(verdict, name) for name in ("lost", "lost_cut", "unreachable")}
    assert counts == {"lost": (), "lost_cut": (), "unreachable": (), found: ("ada",)}
    assert verdict.sound is (found == "unreachable")


def test_repeated_pair_that_arrives_counts_as_sent() -> None:
    """A pair whose first answer was lost and whose repetition left whole must be stored."""
    entries = [_issued(1, "a"), _issued(2, "b", answer="lost"), _issued(3, "b", again=True, reused_after="lost")]

    verdict = judge(entries, {"ada": {"a"}})

    assert verdict.lost == ("ada",)
    assert verdict.pairs_issued == 2


def test_newest_consent_holds_the_live_pair() -> None:
    """A late pair of an older consent does not become the live one."""
    entries = [_issued(1, "a"), _issued(2, "b", consent=2), _issued(3, "c", consent=1)]

    assert judge(entries, {"ada": {"b"}}).lost == ()
    assert judge(entries, {"ada": {"c"}}).lost == ("ada",)


def test_double_refreshes_are_distinguished_from_doubtful_retries() -> None:
    """A used token is a double refresh after a sent answer and a doubtful retry after one that was not."""
    refused: dict[str, Any] = {"fp_new_refresh": None, "creator": "ada", "call": REFRESH, "code": 40107}
    entries = [
        _issued(1, "a"),
        LedgerEntry(seq=2, time=102.0, reused_after="sent", overlap=True, **refused),
        LedgerEntry(seq=3, time=103.0, reused_after="lost", overlap=True, **refused),
        LedgerEntry(seq=4, time=104.0, under_way=True, overlap=True, **refused),
    ]

    verdict = judge(entries, {"ada": {"a"}})

    assert (verdict.double_refreshes, verdict.doubtful_retries) == ((2, 4), (3,))
    assert verdict.refused == {40107: 3}
    assert not verdict.sound


def test_seconds_without_token_are_summed() -> None:
    """The gaps between one token's end and the next one's issue count, and the one at the end."""
    entries = [_issued(1, "a", time=0.0), _issued(2, "b", time=60.0), _issued(3, "c", time=70.0)]

    verdict = judge(entries, {"ada": {"c"}}, until=150.0)

    assert verdict.seconds_without_token == pytest.approx(10.0 + 30.0)
    assert verdict.expired_creators == ("ada",)
    assert judge(entries, {"ada": {"c"}}, until=150.0, except_={"ada"}).creators == 0
