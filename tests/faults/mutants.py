"""Deliberate bugs, each with the tests that must turn red; `python -m tests.faults.mutants` plants them one by one.

Each is planted into a copy of the tree and only its own tests are run there, two copies at a time. A bug that no test
notices survives: then the exit status is 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.faults.workers import REPOSITORY

SEATS: Final = 2
TESTS_FAILED: Final = 1
LONGEST_SECONDS: Final = 240
KILL_POINTS: Final = "tests/faults/test_kill_points.py::test_a_kill_ends_as_the_page_says_and_loses_no_journaled_pair"
RACES: Final = "tests/faults/test_fault_races.py"
DATABASE: Final = "tests/faults/test_fault_database.py"
DOUBT: Final = "tests/worker/test_replay_doubt.py"
GROUPS: Final = "tests/faults/test_fault_groups.py"
REFRESH: Final = "tests/worker/test_refresh.py"
KEPT: Final = "tests/tiktok/test_tiktok_kept.py"


@dataclass(frozen=True)
class Mutant:
    """One deliberate bug.

    Attributes:
        name: what is wrong with it, in a few words.
        path: the module it is planted into.
        edits: texts that stand once in the module, and what takes their places.
        tests: ids of the tests that must turn red.
    """

    name: str
    path: str
    edits: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]


MUTANTS: Final = (
    Mutant(
        "no journal",
        "worker/refresh/call.py",
        (("            call.written = self._ground.journal.write(entry)\n", "            _ = entry\n"),),
        (f"{KILL_POINTS}[sqlite-pre_commit-strict]",),
    ),
    Mutant(
        "commit before journal",
        "worker/refresh/call.py",
        (
            (
                "            call.written = self._ground.journal.write(entry)\n",
                "            threading.Timer(1.0, self._ground.journal.write, [entry]).start()\n",
            ),
            ("import time\n", "import threading\nimport time\n"),
        ),
        (f"{KILL_POINTS}[sqlite-pre_commit-strict]",),
    ),
    Mutant(
        "a record that cannot be built costs the pair",
        "worker/refresh/call.py",
        (
            ("        try:\n            ids = (claim", "        ids = (claim"),
            ("            entry = JournalEntry.of(", "        entry = JournalEntry.of("),
            (
                "            call.written = self._ground.journal.write(entry)\n",
                "        try:\n            call.written = self._ground.journal.write(entry)\n",
            ),
        ),
        ("tests/worker/test_records.py",),
    ),
    Mutant(
        "a late group moves only its first permit",
        "worker/limiter/limiter.py",
        (("            later.moved(given, began)\n", "            del later, given\n"),),
        ("tests/limiter/test_limiter_shared.py::test_a_late_request_moves_the_rest_of_its_group_by_one_call",),
    ),
    Mutant(
        "journal record released before the commit",
        "worker/refresh/ending.py",
        (
            (
                '        self._ground.failpoint("pre_commit")\n',
                (
                    "        for attempt in attempts:\n"
                    "            self._release(attempt)\n"
                    '        self._ground.failpoint("pre_commit")\n'
                ),
            ),
        ),
        (f"{KILL_POINTS}[sqlite-pre_commit-strict]", f"{GROUPS}::test_a_killed_group_loses_no_pair[sqlite-pre_commit]"),
    ),
    Mutant(
        "a poison row takes its neighbours along",
        "worker/refresh/commits.py",
        (
            (
                "                    return [self._once(write) for write in alone]\n",
                "                    return [False] * len(alone)\n",
            ),
        ),
        (f"{GROUPS}::test_a_row_that_is_refused_leaves_its_group_and_the_others_are_stored[sqlite]",),
    ),
    Mutant(
        "a group's records are released although one by one is yet to be stored",
        "worker/refresh/ending.py",
        (
            (
                "            for place in places:\n                self._release(attempts[place])\n",
                "            for attempt in attempts:\n                self._release(attempt)\n",
            ),
        ),
        (f"{GROUPS}::test_a_row_that_is_refused_leaves_its_group_and_the_others_are_stored[sqlite]",),
    ),
    Mutant(
        "one grant twice in one statement",
        "worker/store/saving.py",
        (("        for places in _rounds(brought):\n", "        for places in (list(range(len(brought))),):\n"),),
        (
            "tests/store/test_store_groups.py::test_two_pairs_of_one_grant_in_a_group_leave_the_newer_one_current[postgresql]",
        ),
    ),
    Mutant(
        "the rows of a group are locked by the statement that stores them",
        "worker/store/saving.py",
        (('    connection.execute(LOCK, {"ids": [item.grant_id for item in brought]}).close()\n', ""),),
        (
            "tests/store/test_store_groups.py::test_a_group_that_has_to_wait_in_the_middle_holds_nothing_that_another_waits_for[postgresql]",
        ),
    ),
    Mutant(
        "one permit is used by two",
        "worker/refresh/refresher.py",
        (
            (
                "results, dict(zip(due, asked.given, strict=False))  # those",
                "results, dict.fromkeys(due, asked.given[0])  # those",
            ),
        ),
        ("tests/worker/test_groups.py::test_every_request_of_a_group_has_a_permit_of_its_own[sqlite]",),
    ),
    Mutant(
        "answers are read before they are synced",
        "worker/refresh/call.py",
        (
            (
                "        if call.written is not None:\n            self._sync(claim, call, call.written)\n",
                (
                    "        call.result = read_or_salvage(call.raw)\n        if call.written is not None:\n"
                    "            self._sync(claim, call, call.written)\n"
                ),
            ),
        ),
        ("tests/worker/test_groups.py::test_no_answer_is_read_before_it_is_synced[sqlite]",),
    ),
    Mutant(
        "a thread takes all of a message in hand",
        "worker/refresh/group.py",
        (
            (
                "        return max(1, min(MOST, int((LEAD_SECONDS - self.start) / self.seconds)))\n",
                "        return 1_000_000\n",
            ),
        ),
        ("tests/worker/test_groups.py::test_a_thread_has_no_more_in_hand_than_a_group[sqlite]",),
    ),
    Mutant(
        "what cannot be sent in time is kept",
        "worker/refresh/refresher.py",
        (("            if group.began and attempt.elapsed > JUST_IN_TIME_SECONDS:\n", "            if False:\n"),),
        ("tests/worker/test_groups.py::test_what_would_be_sent_late_is_given_back_and_done_in_a_later_group[sqlite]",),
    ),
    Mutant(
        "journal not synced before the answer is read",
        "worker/journal/journal.py",
        (("            segment.sync(record.number)\n", "            pass\n"),),
        ("tests/vault/test_journal.py::test_a_failed_sync_moves_the_answer_to_a_new_file",),
    ),
    Mutant(
        "an answer on its way is looked for in the database first, and in the journals after that",
        "worker/refresh/refresher.py",
        (
            (
                "        self._replayer.replay()\n",
                (
                    "        self._replayer.replay()\n"
                    "        now = self._ground.store.grant_by_id(claim.grant_id).pair_generation\n"
                ),
            ),
            (
                "        if self._ground.store.grant_by_id(claim.grant_id).pair_generation != claim.pair_generation:\n",
                "        if now != claim.pair_generation:\n",
            ),
        ),
        (f"{DOUBT}::test_an_answer_committed_while_the_journals_are_looked_through_is_not_asked_for_again[sqlite]",),
    ),
    Mutant(
        "a surprise in the journal's writing ends the attempt",
        "worker/refresh/call.py",
        (
            (
                "journal.write(entry)\n        except Exception as error:",
                "journal.write(entry)\n        except MemoryError as error:",
            ),
        ),
        (f"{DATABASE}::test_a_journal_that_fails_as_nobody_foresaw_costs_no_pair[sqlite-pre_journal]",),
    ),
    Mutant(
        "strict fencing: a pair of an older attempt is refused",
        "worker/store/saving.py",
        (
            (
                "            row.current_consent == item.consent\n",
                "            row.current_consent == item.consent and row.generation == item.generation\n",
            ),
            ("pair_generation, status FROM grants", "pair_generation, status, generation FROM grants"),
        ),
        (f"{RACES}::test_a_worker_that_stood_still_after_sending_still_stores_its_pair[sqlite-strict]",),
    ),
    Mutant(
        "last writer wins: the pointer may move back",
        "worker/store/saving.py",
        (("            and row.pair_generation < item.generation\n", ""),),
        (
            "tests/store/test_store_saving.py::test_an_older_pair_is_kept_and_never_takes_the_place_of_a_newer_one[sqlite]",
        ),
    ),
    Mutant(
        "an attempt in doubt is retried twice",
        "worker/refresh/attempt.py",
        (("may_repeat and len(self.calls) == 1:", "may_repeat and len(self.calls) <= 2:"),),
        (f"{REFRESH}::test_a_lost_answer_under_strict_rotation_keeps_the_old_access_token_in_service[sqlite]",),
    ),
    Mutant(
        "a lease shorter than the deadline is taken",
        "worker/settings.py",
        (("    if settings.lease_seconds < needed:\n", "    if settings.lease_seconds < 0 * needed:\n"),),
        ("tests/worker/test_settings.py::test_contradictions_and_bad_values_are_refused",),
    ),
    Mutant(
        "the lease is not looked at before sending",
        "worker/refresh/call.py",
        (
            (
                "        if not attempt.lasts(self._call_seconds):\n            raise",
                "        if False:\n            raise",
            ),
        ),
        (f"{RACES}::test_a_worker_that_stood_still_before_sending_sends_nothing[sqlite]",),
    ),
    Mutant(
        "a held lease is not respected",
        "worker/store/claims.py",
        (("(lease_until IS NULL OR lease_until <= {NOW[dialect]})", "(lease_until IS NULL OR 1 = 1)"),),
        ("tests/store/test_store_claims.py::test_a_held_lease_is_respected_even_by_force[sqlite]",),
    ),
    Mutant(
        "5xx counts as not sent",
        "worker/tiktok/answers.py",
        (
            (
                "    if status is None or status >= FIRST_TROUBLE or not raw.complete:\n",
                (
                    "    if status is not None and status >= FIRST_TROUBLE:\n"
                    "        from worker.errors import NotSentError\n"
                    '        raise NotSentError("not sent", call=raw.call)\n'
                    "    if status is None or status >= FIRST_TROUBLE or not raw.complete:\n"
                ),
            ),
        ),
        (f"{REFRESH}::test_an_unusable_answer_is_in_doubt_and_never_a_verdict_on_the_creator[sqlite-502]",),
    ),
    Mutant(
        "a wrong app secret marks the creator",
        "worker/policy/verdicts.py",
        (
            (
                "        return retry(AttemptOutcome.STOPPED, word, standing)",
                "        return replace(retry(AttemptOutcome.REFUSED, word, standing), action=Action.ASK)",
            ),
        ),
        (
            f"{REFRESH}::test_a_wrong_app_secret_stops_the_app_and_marks_nobody[sqlite]",
            "tests/policy/test_verdicts.py",
        ),
    ),
    Mutant(
        "one grant that TikTok takes for another app's stops ours",
        "worker/policy/verdicts.py",
        (("WRONG_APP_CODES and (evidence.app_refused or alone):", "WRONG_APP_CODES:"),),
        ("tests/worker/test_poison_grant.py::test_one_poison_grant_does_not_stop_the_others[sqlite-40113]",),
    ),
    Mutant(
        "a received refresh token that nothing came of is released",
        "worker/refresh/ending.py",
        (("            if call.record is not None and call.unread:\n", "            if False:\n"),),
        ("tests/worker/test_unread_answers.py::test_a_pair_with_an_id_that_is_none_is_kept_aside[sqlite]",),
    ),
    Mutant(
        "a mass refusal holds nobody back",
        "worker/policy/verdicts.py",
        (("    if evidence.refused >= FEWEST_REFUSALS and", "    if evidence.refused < 0 and"),),
        (
            "tests/faults/test_fault_fleet.py::test_many_creators_gone_at_once_are_held_back_and_nobody_is_asked[sqlite]",
        ),
    ),
    Mutant(
        "a creator is asked at the first refusal",
        "worker/policy/verdicts.py",
        (("    if not standing.suspect:\n", "    if False and not standing.suspect:\n"),),
        (f"{REFRESH}::test_a_revoked_creator_is_asked_exactly_once_and_after_a_second_look[sqlite]",),
    ),
    Mutant(
        "no consent check: pairs of an older consent are tried",
        "worker/store/claims.py",
        (
            (
                "PAIRS.c.grant_id == claim.grant_id, PAIRS.c.consent == claim.consent,",
                "PAIRS.c.grant_id == claim.grant_id,",
            ),
            ("k.grant_id = g.id AND k.consent = g.consent", "k.grant_id = g.id"),
        ),
        (
            "tests/store/test_store_claims.py::test_a_claim_brings_the_current_pair_and_knows_every_kept_one_of_its_consent[sqlite]",
        ),
    ),
    Mutant(
        "a verdict on an older state is carried out",
        "worker/store/verdicts.py",
        (
            (
                "    return and_(GRANTS.c.pair_generation == claim.pair_generation, ~other)",
                "    return or_(GRANTS.c.id > 0, other)",
            ),
        ),
        ("tests/store/test_store_verdicts.py::test_a_verdict_is_void_when_a_late_pair_came_during_the_attempt",),
    ),
    Mutant(
        "another creator's pair is stored",
        "worker/refresh/settlement.py",
        (("        if answer.creator_id != answered.creator_id:\n", "        if not answer.creator_id:\n"),),
        (f"{REFRESH}::test_a_pair_of_another_creator_is_never_stored[sqlite]",),
    ),
    Mutant(
        "a kept connection is not looked at before it is used",
        "worker/egress/wire.py",
        (
            (
                "        if betrayed or (found is not None and not is_quiet(found.sock)):\n",
                "        if betrayed:\n",
            ),
        ),
        (f"{KEPT}::test_a_kept_connection_is_looked_at_before_it_is_used[closed]",),
    ),
    Mutant(
        "the body follows its head onto a connection that was closed meanwhile",
        "worker/egress/sockets.py",
        (("    if is_body and call.reused and not is_quiet(source):\n", "    if False:\n"),),
        (f"{KEPT}::test_a_connection_that_is_closed_under_the_head_sends_no_body[plain]",),
    ),
    Mutant(
        "connections are used again before the server has shown that it keeps them",
        "worker/egress/wire.py",
        (
            (
                "            elif self._proofs >= WITNESSES:\n                self._ready.append(idle)\n",
                "            elif self._proofs >= 0:\n                self._ready.append(idle)\n",
            ),
        ),
        (f"{KEPT}::test_no_connection_is_used_again_before_the_server_has_kept_several",),
    ),
    Mutant(
        "a connection is kept after any answer",
        "worker/egress/wire.py",
        (("CURRENT.call.keep and CURRENT.call.is_whole:\n", "CURRENT.call.keep:\n"),),
        (f"{KEPT}::test_only_a_whole_and_clean_answer_keeps_its_connection[more-than-it-says]",),
    ),
    Mutant(
        "redirects are followed",
        "worker/tiktok/transport.py",
        (
            (
                "                status = response.status\n",
                (
                    "                if response.get_redirect_location():\n"
                    "                    response = self._begin(request, call)\n"
                    "                status = response.status\n"
                ),
            ),
        ),
        ("tests/tiktok/test_tiktok_transport.py::test_redirect_is_not_followed_and_marks_no_creator",),
    ),
    Mutant(
        "the body is logged",
        "worker/refresh/call.py",
        (
            (
                "        call.result = read_or_salvage(call.raw)\n",
                "        call.result = read_or_salvage(call.raw)\n        print(call.raw.body)\n",
            ),
        ),
        (f"{KILL_POINTS}[sqlite-pre_commit-strict]",),
    ),
    Mutant(
        "refreshes are not spread",
        "worker/policy/renewal.py",
        (("    return (number * GOLDEN_RATIO_FRACTION) % 1.0", "    return 0.5"),),
        ("tests/policy/test_renewal.py",),
    ),
    Mutant(
        "an answer in a living worker's journal is asked for again",
        "worker/journal/journal.py",
        (("        return not wanted.isdisjoint(", "        return False and not wanted.isdisjoint("),),
        (f"{DATABASE}::test_an_answer_that_a_living_worker_holds_is_not_asked_for_again[sqlite]",),
    ),
    Mutant(
        "one refused row ends the replay",
        "worker/refresh/replay.py",
        (("                self._ground.store.ping()\n", "                raise\n"),),
        (f"{DATABASE}::test_a_refused_row_does_not_hold_up_the_journals_of_the_dead[sqlite]",),
    ),
    Mutant(
        "nothing ends the attempts of the dead",
        "worker/upkeep/upkeep.py",
        (
            (
                "        stale = self._ground.store.stale_attempts(BATCH)\n",
                "        stale = self._ground.store.stale_attempts(0)\n",
            ),
        ),
        (f"{KILL_POINTS}[sqlite-post_claim-strict]",),
    ),
)


def planted(mutant: Mutant, text: str) -> str:
    """Return a module's text with the bug in it.

    Raises:
        ValueError: one of its texts does not stand exactly once in the module, which has changed.
    """
    for old, new in mutant.edits:
        if text.count(old) != 1:
            raise ValueError(f"{mutant.name}: {old.strip()!r} stands {text.count(old)} times in {mutant.path}")
        text = text.replace(old, new)
    return text


def is_killed(mutant: Mutant, folder: Path) -> tuple[bool, str]:
    """Plant a mutant into a fresh copy of the tree and run its tests there; return whether they turned red."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    for name in filter(None, tracked.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    target = folder / mutant.path
    target.write_text(planted(mutant, target.read_text(encoding="utf-8")), encoding="utf-8")
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-m",
            "",
            "-p",
            "no:cacheprovider",
            "--timeout",
            "100",
            *mutant.tests,
        ],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )
    red = run.returncode == TESTS_FAILED and "FAILED" in run.stdout
    return red, "" if red else run.stdout[-1500:] + run.stderr[-500:]


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of names; all mutants by default")
    chosen = parser.parse_args().names
    mutants = [each for each in MUTANTS if not chosen or any(part in each.name for part in chosen)]
    table = Table("bug", "planted in", "tests", "verdict")
    console, began, survivors = Console(), time.monotonic(), []
    with Progress(console=console) as progress, tempfile.TemporaryDirectory(prefix="evertoken-mutants-") as folder:
        task = progress.add_task("mutants", total=len(mutants))

        def judge(number: int) -> tuple[bool, str]:
            seat = Path(folder, str(number))
            seat.mkdir()
            verdict = is_killed(mutants[number], seat)
            shutil.rmtree(seat)
            progress.advance(task)
            return verdict

        with ThreadPoolExecutor(SEATS) as pool:
            verdicts = list(pool.map(judge, range(len(mutants))))
    for mutant, (killed, said) in zip(mutants, verdicts, strict=True):
        tests = "\n".join(test.rsplit("/", 1)[-1].split("::", 1)[0] for test in mutant.tests)
        table.add_row(mutant.name, mutant.path, tests, "killed" if killed else "[red]SURVIVED[/]")
        if not killed:
            survivors.append(said)
    console.print(table)
    console.print(f"{len(mutants)} bugs, {len(survivors)} survived, {time.monotonic() - began:.0f} s")
    for said in survivors:
        console.print(said, highlight=False, markup=False)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
