"""A state machine plays workers, TikTok, time and death in every order, over the real store, journal and settlement."""

from __future__ import annotations

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.faults.aging import end_leases, milliseconds, run_sql
from tests.faults.model import LIFE_SECONDS, TikTok, Worker
from tests.support.claims import claim_one
from tests.support.ground import ground_of
from worker.consent.exchanges import Exchanges
from worker.errors import AskCreatorError, InDoubtError, TikTokError
from worker.journal import Journal, JournalEntry
from worker.policy.verdicts import Action, AttemptOutcome, Standing, judge
from worker.refresh.replay import Replayer
from worker.refresh.settlement import Answered, Settlement
from worker.store import Claim, GrantStatus, NewConsent, Store, open_store
from worker.tiktok import TokenAnswer, read_token_answer
from worker.upkeep.upkeep import ConsentReplayer, Retention, Upkeep
from worker.vault import Keyring, PairPlace, SealedPair, Sealer, Token

CREATORS = ("ada", "bob")
SOMEBODY = st.sampled_from(("ada", "ada", "ada", "bob"))
"""Workers meet more often over one grant than they would over two."""
WORKERS = 3
"""In the place of a limiter and a client, which a replay does not ask."""
IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a file system, if there is one; the folder below it is our own


class Daemon(RuleBasedStateMachine):
    """Three workers and two grants before one TikTok."""

    model: Path

    def __init__(self) -> None:
        super().__init__()
        memory = str(IN_MEMORY) if IN_MEMORY.is_dir() else None
        self.folder = Path(tempfile.mkdtemp(prefix="evertoken-model-", dir=memory))
        shutil.copyfile(self.model, self.folder / "evertoken.db")
        self.store: Store = open_store(f"sqlite:///{self.folder / 'evertoken.db'}")
        self.sealer = Sealer(Keyring.new())
        self.settlement = Settlement(ground_of(store=self.store, sealer=self.sealer), renew_at=2 / 3)
        self.workers = [Worker(self.new_journal()) for _ in range(WORKERS)]
        self.received: dict[str, set[str]] = {creator: set() for creator in CREATORS}
        self.pointers: dict[str, tuple[int, int]] = {}
        self.expired: set[int] = set()

    # --- what the rules are made of ---

    def new_journal(self) -> Journal:
        """Return the journal of a new process."""
        return Journal(self.folder / "journal", self.sealer, owner="model", segment_bytes=16_384, floor_bytes=0)

    def stored(self, creator: str) -> set[str]:
        """Return the refresh tokens that the database holds of a creator."""
        return {
            self.sealer.open_refresh(pair.sealed, PairPlace(pair.creator_id, pair.consent, pair.generation)).reveal()
            for pair in self.store.all_pairs()
            if pair.creator_id == creator
        }

    def waiting(self) -> set[tuple[int | None, int | None, int | None]]:
        """Return the attempts whose answers wait in any journal."""
        from worker.journal.dead import waiting_attempts  # noqa: PLC0415 - looks where no worker may look

        return set(waiting_attempts(self.workers[0].journal._folder, self.sealer))

    def answered(self, claim: Claim, sent_at: Any, sent: Token, answer: TokenAnswer) -> Answered:
        """Return an answer with the attempt of a claim."""
        return Answered(
            claim.grant_id, claim.creator_id, claim.consent, claim.generation, sent_at, claim.jitter, claim.scope,
            sent, answer,
        )  # fmt: skip

    def lease_is_live(self, worker: Worker) -> bool:
        """Return whether a worker's claim still gives it the right to send."""
        if worker.claim is None:
            return False
        grant = self.store.grant_by_id(worker.claim.grant_id)
        held = (grant.generation, grant.lease_owner) == (worker.claim.generation, worker.claim.owner)
        return held and grant.lease_until is not None and grant.lease_until > self.store.ping()

    def upkeep(self, journal: Journal) -> Upkeep:
        """Return the upkeep of a process."""
        ground = ground_of(store=self.store, sealer=self.sealer, journal=journal)
        usual: Any = {"settlement": self.settlement, "own_after_seconds": 3600}
        return Upkeep(
            ground,
            refreshes=Replayer(ground, **usual),
            consents=ConsentReplayer(ground, exchanges=Exchanges(ground, renew_at=2 / 3), **usual),
            retention=Retention(raw_answers=3, other_people=90, history=None, lost_pairs=1),
        )

    # --- rules ---

    @initialize(rotation=st.sampled_from(["strict", "grace", "grace_another", "same"]))
    def consents(self, rotation: Any) -> None:
        """Let both creators consent."""
        self.tiktok = TikTok(rotation)
        for creator in CREATORS:
            self.new_consent(creator)

    @rule(creator=SOMEBODY)
    def new_consent(self, creator: str) -> None:
        """Let a creator consent, for the first time or again, whatever is in flight."""
        token, now = self.tiktok.consent(creator), self.store.ping()

        def seal(item: NewConsent, consent: int, generation: int) -> SealedPair:
            place = PairPlace(item.creator_id, consent, generation)
            return self.sealer.seal_pair(Token(token.replace("rft", "act")), Token(token), place)

        item = NewConsent(
            creator_id=creator,
            scope="user.info.basic",
            issued_at=now,
            access_expires_at=now + timedelta(seconds=LIFE_SECONDS),
            refresh_expires_at=None,
            next_refresh_at=now,
            jitter=0.5,
        )
        self.store.save_consents([item], seal, replace=True)
        self.expired.discard(self.store.grant(creator).grant_id)

    @rule(number=st.integers(0, WORKERS - 1), creator=SOMEBODY, steps=st.integers(1, 4))
    def advance(self, number: int, creator: str, steps: int) -> None:
        """Let a worker go on by some steps; a free one claims this creator's grant."""
        for _ in range(steps):
            worker = self.workers[number]
            if worker.step == "claim":
                self.claim(number, worker, creator)
            elif worker.step == "send":
                self.send(worker)
            elif worker.step == "receive":
                self.receive(worker)
            else:
                self.settle(worker)

    def claim(self, number: int, worker: Worker, creator: str) -> None:
        """Let an idle worker claim a grant; an older attempt in doubt makes it replay journals first."""
        grant = self.store.grant(creator)
        claim = claim_one(self.store, grant.grant_id, owner=f"w{number}", lease_seconds=3600, force=True)
        held = [other for other in self.workers if self.lease_is_live(other) and other.claim != claim]
        if claim is None:
            return
        assert all(other.claim is None or other.claim.grant_id != claim.grant_id for other in held), "two live leases"
        if claim.unresolved:
            self.upkeep(worker.journal).replay()
            waits = worker.journal.holds(claim.grant_id, claim.consent, claim.unresolved)
            if waits or self.store.grant_by_id(claim.grant_id).pair_generation != claim.pair_generation:
                self.store.give_back([claim])
                return
        worker.claim = claim
        worker.tokens = [
            self.sealer.open_refresh(
                version.sealed, PairPlace(claim.creator_id, version.consent, version.generation)
            ).reveal()
            for version in self.store.kept_versions(claim)
        ]

    def send(self, worker: Worker) -> None:
        """Let a worker send, if its lease is still good; else it gives the claim back."""
        assert worker.claim is not None
        if not self.lease_is_live(worker):
            if not worker.in_doubt and not worker.sent:
                self.store.give_back([worker.claim])
            worker.forget()
            worker.sent = ""
            return
        worker.sent = worker.tokens.pop(0)
        worker.answer = self.tiktok.refresh(worker.claim.creator_id, worker.sent)

    def lose(self, number: int) -> None:
        """Lose an answer on its way: the attempt is in doubt, and goes back to the schedule."""
        worker = self.workers[number]
        if worker.step != "receive" or worker.claim is None:
            return
        worker.in_doubt = True
        self.end(worker, InDoubtError("no answer", call="refresh"))

    def receive(self, worker: Worker) -> None:
        """Let an answer reach its worker: it is in the journal before anything else."""
        assert worker.claim is not None
        assert worker.answer is not None
        claim, now = worker.claim, self.store.ping()
        entry = JournalEntry(
            kind="refresh", grant_id=claim.grant_id, creator_id=claim.creator_id, consent=claim.consent,
            generation=claim.generation, call=worker.answer.call, http_status=200, body=worker.answer.body,
            complete=True, fault=None, retry_after=None, sent_at=now, received_at=now,
        )  # fmt: skip
        worker.record = worker.journal.append(entry)
        try:
            refresh = read_token_answer(worker.answer).refresh_token
        except TikTokError:
            return
        assert refresh is not None
        self.received[claim.creator_id].add(refresh.reveal())

    def settle(self, worker: Worker) -> None:
        """Let a worker read what it has journaled, and store the pair, try an older token, or end with a verdict."""
        assert worker.claim is not None
        assert worker.answer is not None
        assert worker.record is not None
        try:
            answer = read_token_answer(worker.answer)
        except AskCreatorError as error:
            grant = self.store.grant_by_id(worker.claim.grant_id)
            current = (grant.consent, grant.generation) == (worker.claim.consent, worker.claim.generation)
            worker.journal.release(worker.record)
            worker.record = worker.answer = None
            if not worker.tokens or not current:
                self.end(worker, error)
            return
        answered = self.answered(worker.claim, self.store.ping(), Token(worker.sent), answer)
        self.settlement.store([(answered, self.settlement.seal(answered))])
        worker.journal.release(worker.record)
        worker.forget()
        worker.sent = ""

    def end(self, worker: Worker, error: TikTokError) -> None:
        """End an attempt without a pair."""
        claim = worker.claim
        assert claim is not None
        standing = Standing(
            now=self.store.ping(),
            access_expires_at=claim.access_expires_at,
            refresh_expires_at=None,
            failures=claim.failures,
            suspect=claim.status is GrantStatus.SUSPECT,
            unresolved=bool(claim.unresolved) or worker.in_doubt,
            draw=0.5,
        )
        verdict = judge(error, standing)
        outcome = AttemptOutcome.IN_DOUBT if worker.in_doubt else AttemptOutcome(verdict.outcome)
        if verdict.action is Action.ASK:
            self.store.ask_reauth(claim, reason=verdict.reason)
        elif verdict.action is Action.SUSPECT:
            self.store.suspect(claim, outcome=outcome, next_refresh_at=verdict.at, reason=verdict.reason)
        else:
            self.store.release(
                claim, outcome=outcome, next_refresh_at=verdict.at, reason=verdict.reason, failed=verdict.failed
            )
        worker.forget()
        worker.sent = ""

    def kill(self, number: int) -> None:
        """Kill a worker: what it had in hand is gone, and its journal is left to the living."""
        self.workers[number].journal.close()
        self.workers[number] = Worker(self.new_journal())

    @rule()
    def leases_run_out(self) -> None:
        """Let time pass until no lease holds; workers that were paused meanwhile do not know."""
        end_leases(self.store)

    @rule(number=st.integers(0, WORKERS - 1), ahead=st.integers(1, WORKERS - 1), steps=st.integers(1, 4))
    def overtake(self, number: int, ahead: int, steps: int) -> None:
        """Pause a worker past its lease, and let another one go to work on the same grant."""
        claim, other = self.workers[number].claim, (number + ahead) % WORKERS
        if claim is not None and self.workers[other].step == "claim":
            end_leases(self.store)
            self.advance(other, claim.creator_id, steps)

    @rule(number=st.integers(0, WORKERS - 1), how=st.sampled_from(("lose", "kill", "finish")))
    def end_one(self, number: int, how: str) -> None:
        """Let an attempt that is under way end, one way or another."""
        worker = self.workers[number]
        if worker.step == "claim":
            return
        if how == "finish":
            self.advance(number, CREATORS[0], 3 if worker.step == "send" else 2)
        else:
            getattr(self, how)(number)

    @rule(creator=SOMEBODY)
    def access_token_ends(self, creator: str) -> None:
        """Let the access token of a grant end."""
        past = milliseconds(self.store.ping()) - 1000
        run_sql(self.store, "UPDATE grants SET access_expires_at = :past WHERE creator_id = :id", past=past, id=creator)

    @rule(number=st.integers(0, WORKERS - 1))
    def replay(self, number: int) -> None:
        """Let a worker do upkeep."""
        upkeep = self.upkeep(self.workers[number].journal)
        upkeep.replay()
        upkeep.end_stale_attempts()

    # --- what always holds ---

    @invariant()
    def no_received_pair_is_lost(self) -> None:
        """Every pair whose bytes were journaled is stored, or waits in a journal."""
        waiting = {grant for grant, _, _ in self.waiting()}
        for creator in self.received:
            missing = self.received[creator] - self.stored(creator) if self.received[creator] else set()
            if missing:
                assert self.store.grant(creator).grant_id in waiting, f"{missing} of {creator} are nowhere"

    @invariant()
    def the_pointer_moves_only_forward(self) -> None:
        """Consent first, then generation."""
        for grant in self.store.grants():
            pointer = (grant.consent, grant.pair_generation)
            assert pointer >= self.pointers.get(grant.creator_id, (0, 0))
            self.pointers[grant.creator_id] = pointer

    @invariant()
    def nobody_is_asked_without_need_or_twice(self) -> None:
        """A creator is asked only while the live pair is not stored, and once for each consent."""
        keys = [notice.dedupe_key for notice in self.store.undelivered_notices()]
        assert len(keys) == len(set(keys))
        for grant in self.store.grants():
            asked = f"reauth:{grant.grant_id}:{grant.consent}.{grant.pair_generation}" in keys
            assert asked == (grant.status is GrantStatus.NEEDS_REAUTH)
            if asked:
                assert self.tiktok.live(grant.creator_id) not in self.stored(grant.creator_id), "a false alarm"

    def teardown(self) -> None:
        """Let everything heal: every pair that was received is stored, and a live one that we hold is served."""
        try:
            if hasattr(self, "tiktok"):
                self.heal()
        finally:
            for worker in self.workers:
                worker.journal.close()
            self.store.close()
            shutil.rmtree(self.folder)

    def heal(self) -> None:
        """Kill all, replay all, and look."""
        for number in range(WORKERS):
            self.kill(number)
        end_leases(self.store)
        self.replay(0)
        assert self.waiting() == set()
        for creator, received in self.received.items():
            held = self.stored(creator)
            assert received <= held
            grant = self.store.grant(creator)
            if self.tiktok.live(creator) in held:
                assert grant.status is not GrantStatus.NEEDS_REAUTH
        assert self.store.stale_attempts(10) == []


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file."""
    path = tmp_path_factory.mktemp("model") / "model.db"
    store = open_store(f"sqlite:///{path}")
    store.upgrade()
    store.close()
    return path


def play(migrated: Path, *, examples: int, steps: int) -> None:
    """Play the machine."""
    Daemon.model = migrated
    run_state_machine_as_test(
        Daemon,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_no_order_of_steps_loses_a_pair(migrated: Path) -> None:
    """A short look at claims, calls, losses, kills, replays, pauses and new consents in any order."""
    play(migrated, examples=30, steps=40)


@pytest.mark.slow_suite
@pytest.mark.timeout(900)
def test_no_order_of_steps_loses_a_pair_in_a_long_look(migrated: Path) -> None:
    """The same, for a night or a change of the rules."""
    play(migrated, examples=100, steps=50)
