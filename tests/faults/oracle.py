"""The oracle: nine checks of a run, by the sandbox's ledger and the workers' own notes (the tape).

What a worker says of itself never makes it guilty or sound alone: a check starts from what TikTok's stand-in wrote
down before its answers left, and from what the database and the files hold in the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from tests.faults.tape import Note
from worker.sandbox.ledger import LedgerEntry
from worker.sandbox.verdict import judge as judge_ledger
from worker.store import AttemptView, GrantStatus, GrantView

REFRESH_CALL: Final = "tt_user/oauth2/refresh_token/"
WHOLE: Final = "sent"


@dataclass(frozen=True)
class Evidence:
    """All that is known of a run after it healed and drained.

    Attributes:
        entries: the ledger.
        notes: the workers' tape.
        stored: fingerprints of the refresh tokens that the database holds and the keyring opens, by creator.
        kept: those that lie in the journal, set aside or waiting.
        asked: for each grant and consent, how many notices ask for a new authorization.
        away: process ids of workers that were killed, and of those that were stopped for a while.
        leaks: where a canary was found outside sealed bytes.
        healed_at: the database's time when the last fault had ended.
        revoked: creators who removed the app, or whose grant was ended here.
        per_second: requests a second that the ledger may show, burst included; None if it was not limited.
    """

    entries: Sequence[LedgerEntry] = ()
    notes: Sequence[Note] = ()
    stored: Mapping[str, Collection[str]] = field(default_factory=dict)
    kept: Collection[str] = ()
    grants: Sequence[GrantView] = ()
    attempts: Mapping[int, Sequence[AttemptView]] = field(default_factory=dict)
    asked: Mapping[tuple[int, int], int] = field(default_factory=dict)
    away: Collection[int] = ()
    leaks: Sequence[str] = ()
    healed_at: datetime | None = None
    revoked: Collection[str] = ()
    per_second: int | None = None


def lost_pairs(evidence: Evidence) -> list[str]:
    """V1: a received pair is neither stored nor in the journal, and was not wiped on purpose."""
    windows = set(window_kills(evidence))
    ended = {grant.creator_id for grant in evidence.grants if grant.status is GrantStatus.REVOKED}
    return [
        f"{creator}: the pair {fp} was received and is nowhere"
        for fp, creator in _received(evidence).items()
        if fp not in windows and fp not in evidence.stored.get(creator, ()) and fp not in evidence.kept
        if creator not in ended
    ]


def window_kills(evidence: Evidence) -> list[str]:
    """Return the pairs whose worker was killed between the last byte and the journal; no check, but counted."""
    journaled = {note.fp for note in evidence.notes if note.what == "journaled"}
    holders = {note.fp: note.pid for note in evidence.notes if note.what == "over" and note.fp}
    return [
        fp
        for fp, creator in _received(evidence).items()
        if fp not in journaled
        and holders[fp] in evidence.away
        and fp not in evidence.stored.get(creator, ())
        and fp not in evidence.kept
    ]


def double_refreshes(evidence: Evidence) -> list[str]:
    """V2: a refresh was sent while another was under way, or after its answer had reached a living worker."""
    found = []
    sends = _sends(evidence)
    used_up: dict[str, LedgerEntry] = {}
    for entry in evidence.entries:
        if entry.call != REFRESH_CALL or entry.fp_old_refresh is None:
            continue
        before, sent = used_up.get(entry.fp_old_refresh), sends.get(entry.seq)
        if entry.under_way and (sent is None or _overlapped(evidence, entry)):
            found.append(f"{entry.creator}: line {entry.seq} came while another refresh was under way")
        elif before is not None and (sent is None or sent.nth <= 1) and _received_and_alive(evidence, before, sent):
            found.append(f"{entry.creator}: line {entry.seq} sent a token again whose answer a living worker had")
        if entry.fp_new_refresh is not None and not entry.again and entry.fp_new_refresh != entry.fp_old_refresh:
            used_up.setdefault(entry.fp_old_refresh, entry)
    return found


def leaks(evidence: Evidence) -> list[str]:
    """V3: a canary stands outside sealed bytes."""
    return list(evidence.leaks)


def stuck(evidence: Evidence) -> list[str]:
    """V4: a grant was neither refreshed after the faults had ended nor its creator asked exactly once."""
    found = []
    for grant in evidence.grants:
        asked = evidence.asked.get((grant.grant_id, grant.consent), 0)
        if grant.status is GrantStatus.NEEDS_REAUTH:
            if asked != 1:
                found.append(f"{grant.creator_id}: needs a new authorization and was asked {asked} times")
        elif grant.status is GrantStatus.SUSPECT or not (
            grant.status is GrantStatus.REVOKED or evidence.healed_at is None or grant.issued_at >= evidence.healed_at
        ):
            found.append(f"{grant.creator_id}: is {grant.status} and was not refreshed ({grant.last_reason})")
        elif asked:
            found.append(f"{grant.creator_id}: is {grant.status} and still asked to authorize")
    return found


def wrong_creators(evidence: Evidence) -> list[str]:
    """V5: a pair is stored under another creator than TikTok gave it to."""
    owner = {entry.fp_new_refresh: entry.creator for entry in evidence.entries if entry.fp_new_refresh}
    return [
        f"{creator}: holds the pair {fp} of {owner[fp]}"
        for creator, held in evidence.stored.items()
        for fp in held
        if owner.get(fp, creator) != creator
    ]


def over_the_limit(evidence: Evidence) -> list[str]:
    """V6: more requests came within a second than the quota and its burst permit."""
    if evidence.per_second is None:
        return []
    times = sorted(entry.time for entry in evidence.entries if not entry.call.startswith("control"))
    most = max((_within(times, start, 1.0) for start in range(len(times))), default=0)
    return [f"{most} requests within a second, {evidence.per_second} allowed"] if most > evidence.per_second else []


def expired(evidence: Evidence) -> list[str]:
    """V7: a creator was without a valid access token, although TikTok could have given one."""
    verdict = judge_ledger(evidence.entries, evidence.stored, except_=evidence.revoked)
    return [f"{creator}: had no valid access token for a while" for creator in verdict.expired_creators]


def open_attempts(evidence: Evidence) -> list[str]:
    """V8: an attempt has no outcome, and nobody is at it any more."""
    return [
        f"grant {grant_id}: attempt {attempt.consent}.{attempt.generation} has no outcome"
        for grant_id, attempts in evidence.attempts.items()
        for attempt in attempts
        if attempt.outcome is None
    ]


def false_alarms(evidence: Evidence) -> list[str]:
    """V9: a creator was asked to authorize although the live pair is stored and TikTok takes it."""
    live: dict[str, LedgerEntry] = {}
    for entry in evidence.entries:
        if entry.creator is not None and entry.fp_new_refresh is not None:
            known = live.get(entry.creator)
            if known is None or entry.consent >= known.consent:
                live[entry.creator] = entry
    return [
        f"{grant.creator_id}: was asked to authorize although its live pair is stored"
        for grant in evidence.grants
        if grant.status is GrantStatus.NEEDS_REAUTH
        and grant.creator_id in live
        and grant.creator_id not in evidence.revoked
        and live[grant.creator_id].fp_new_refresh in evidence.stored.get(grant.creator_id, ())
    ]


CHECKS: Final[Mapping[str, Callable[[Evidence], list[str]]]] = {
    "V1 lost": lost_pairs,
    "V2 refreshed twice": double_refreshes,
    "V3 leaked": leaks,
    "V4 stuck": stuck,
    "V5 wrong creator": wrong_creators,
    "V6 over the limit": over_the_limit,
    "V7 expired": expired,
    "V8 open attempts": open_attempts,
    "V9 false alarm": false_alarms,
}


def judge(evidence: Evidence) -> dict[str, list[str]]:
    """Return what every check found; only checks that found something are in it."""
    findings = {name: check(evidence) for name, check in CHECKS.items()}
    return {name: found for name, found in findings.items() if found}


def _received(evidence: Evidence) -> dict[str, str]:
    """Return the pairs that reached a worker in a form that names their creator, with the creator TikTok gave them to.

    A cut answer without the creator's id in it is none: nothing says whose it is.
    """
    over = {note.fp for note in evidence.notes if note.what == "over" and note.fp}
    return {
        entry.fp_new_refresh: entry.creator
        for entry in evidence.entries
        if entry.fp_new_refresh in over
        and entry.fp_new_refresh is not None
        and entry.creator is not None
        and (entry.answer != "cut" or entry.salvageable)
    }


def _sends(evidence: Evidence) -> dict[int, Note]:
    """Match each refresh of the ledger with the worker's own note of sending it: both are in order for each token.

    A worker that was killed right after it had sent may have had no time to note it: if the ledger has more lines than
    the workers noted, that it was about to send counts.
    """
    noted: dict[str, list[Note]] = {}
    begun: dict[tuple[int, str], list[Note]] = {}
    for note in evidence.notes:
        if note.what == "sent":
            noted.setdefault(note.fp, []).append(note)
            begun.get((note.pid, note.fp), []).clear()
        elif note.what == "sending" and note.pid in evidence.away:
            begun.setdefault((note.pid, note.fp), []).append(note)
    lines = Counter(entry.fp_old_refresh for entry in evidence.entries if entry.call == REFRESH_CALL)
    for (_, fp), unnoted in begun.items():
        mine = noted.setdefault(fp, [])
        mine += unnoted[: max(0, lines[fp] - len(mine))]
        mine.sort(key=lambda note: note.at)
    sends = {}
    for entry in evidence.entries:
        if entry.call == REFRESH_CALL and noted.get(entry.fp_old_refresh or ""):
            sends[entry.seq] = noted[entry.fp_old_refresh or ""].pop(0)
    return sends


def _overlapped(evidence: Evidence, entry: LedgerEntry) -> bool:
    """Return whether a worker sent a refresh of this creator while one that was never away still waited for another.

    Which of the calls stand in which line does not matter: TikTok writes a line when it gets to a call, not when the
    call arrives.
    """
    used = {each.fp_old_refresh for each in evidence.entries if each.creator == entry.creator}
    waiting: dict[int, int] = {}
    for note in sorted(evidence.notes, key=lambda each: each.at):
        if note.what == "sent" and note.fp in used:
            if any(count and pid not in evidence.away for pid, count in waiting.items()):
                return True
            waiting[note.pid] = waiting.get(note.pid, 0) + 1
        elif note.what == "over" and note.old in used:
            waiting[note.pid] = waiting.get(note.pid, 0) - 1
    return False


def _received_and_alive(evidence: Evidence, entry: LedgerEntry, again: Note | None) -> bool:
    """Return whether a worker that was neither killed nor stopped had received the answer of this line by then.

    A pair under another creator's name does not count as received: it is set aside and may not be used.
    """
    if "wrong_creator" in entry.faults:
        return False
    if again is None:
        return entry.answer == WHOLE
    return any(
        note.what == "over" and note.fp == entry.fp_new_refresh and note.pid not in evidence.away and note.at < again.at
        for note in evidence.notes
    )


def _within(times: Sequence[float], start: int, seconds: float) -> int:
    return sum(1 for at in times[start:] if at - times[start] < seconds)
