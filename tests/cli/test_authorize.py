"""From a consent link to a stored grant and back to its end, against the sandbox and real stores."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.ground import ground_of
from worker.consent.authorize import Authorizer
from worker.consent.exchanges import Exchanges, OtherAccountError
from worker.consent.placing import Placing
from worker.errors import (
    ConfigurationError,
    InDoubtError,
    JournalError,
    NotFoundError,
    NotReadyError,
    NotSentError,
    UsageError,
)
from worker.journal import Journal
from worker.sandbox.process import RunningSandbox
from worker.store import GrantStatus, Store, open_store
from worker.tiktok import EXCHANGE_CALL, RawAnswer
from worker.vault import Keyring, PairPlace, Sealer, Token

New = Callable[..., Authorizer]
Visit = Callable[..., str]
HeldBy = Callable[[str], tuple[Token, Token]]


def held(store: Store, sealer: Sealer, creator_id: str) -> tuple[Token, Token]:
    """Return the pair that is current for a creator."""
    pair = store.current_pair(creator_id)
    place = PairPlace(creator_id, pair.consent, pair.generation)
    return sealer.open_access(pair.sealed, place), sealer.open_refresh(pair.sealed, place)


@pytest.fixture
def held_by(store: Store, sealer: Sealer) -> HeldBy:
    """Return a look at the pair that is current for a creator."""
    return lambda creator_id: held(store, sealer, creator_id)


def exchanges_of(sandbox: RunningSandbox) -> int:
    """Return how many exchanges the sandbox has seen."""
    return sum(sandbox.stats()["calls"].get(EXCHANGE_CALL, {}).values())


def test_a_consent_becomes_a_grant(store: Store, journal: Journal, new_authorizer: New, visit: Visit) -> None:
    """Link, redirect with an encoded code, exchange: the grant serves a token that TikTok knows as this creator's."""
    authorizer = new_authorizer()
    asked = parse_qs(urlsplit(authorizer.url()).query)
    redirect = visit(authorizer.url(), "consent-1")

    grant = authorizer.exchange(redirect)

    assert "%2A" in redirect
    assert asked["scope"] == ["user.info.basic,user.info.stats"]
    assert (grant.creator_id, grant.consent, grant.status) == ("consent-1", 1, GrantStatus.ACTIVE)
    assert grant.scope == "user.info.basic,user.info.stats"
    assert grant.access_expires_at - grant.issued_at == timedelta(days=1)
    assert grant.issued_at <= grant.next_refresh_at <= grant.issued_at + timedelta(days=1) * 0.7
    assert store.due_pulls(10) == [grant.grant_id]
    assert journal.waiting() == 0


def test_a_second_consent_replaces_the_first(
    sandbox: RunningSandbox, store: Store, sealer: Sealer, new_authorizer: New, visit: Visit
) -> None:
    """A creator who authorizes again gets the next consent, and its pair is the one that is served."""
    authorizer = new_authorizer()
    authorizer.exchange(visit(authorizer.url(), "consent-2"))
    first = held(store, sealer, "consent-2")

    grant = authorizer.exchange(visit(authorizer.url(), "consent-2", sandbox_scope="user.info.basic"))

    assert grant.consent == 2
    assert grant.scope == "user.info.basic"
    assert held(store, sealer, "consent-2") != first


def test_a_link_works_once(sandbox: RunningSandbox, store: Store, new_authorizer: New, visit: Visit) -> None:
    """A redirect that is pasted twice is refused here, in a clear sentence, and nothing is sent."""
    authorizer = new_authorizer()
    redirect = visit(authorizer.url(), "once-1")
    authorizer.exchange(redirect)
    before = exchanges_of(sandbox)

    with pytest.raises(UsageError, match=r"was used at .* works once"):
        authorizer.exchange(redirect)

    assert exchanges_of(sandbox) == before
    assert store.grant("once-1").consent == 1


def test_two_who_paste_at_once_send_one_exchange(sandbox: RunningSandbox, new_authorizer: New, visit: Visit) -> None:
    """Of many processes with the same redirect one sends its code; the others say that the link was used."""
    authorizer = new_authorizer()
    redirect = visit(authorizer.url(), "once-2")
    before, refusals = exchanges_of(sandbox), []

    def paste() -> None:
        try:
            authorizer.exchange(redirect)
        except UsageError as error:
            refusals.append(str(error))

    threads = [threading.Thread(target=paste) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert exchanges_of(sandbox) == before + 1
    assert len(refusals) == 3
    assert all("used" in text for text in refusals)


def test_a_code_that_tiktok_refused_can_be_pasted_again(store: Store, new_authorizer: New, visit: Visit) -> None:
    """An exchange that brought no pair leaves the link free, so that a passing trouble costs no second consent."""
    link = new_authorizer().url()
    redirect = visit(link, "again-1")
    away = new_authorizer(base_url="http://127.0.0.1:9/open_api")

    with pytest.raises(NotSentError):
        away.exchange(redirect)

    assert new_authorizer().exchange(redirect).creator_id == "again-1"


def test_a_reference_goes_from_the_link_to_the_grant(store: Store, new_authorizer: New, visit: Visit) -> None:
    """The operator's own name is stored with the grant, found by a search, and outlives a consent without one."""
    authorizer = new_authorizer()
    authorizer.exchange(visit(authorizer.url(reference="user-42"), "referred-1"))
    authorizer.exchange(visit(authorizer.url(reference="user-43"), "referred-2"))

    grant = authorizer.exchange(visit(authorizer.url(), "referred-1"))

    assert (grant.consent, grant.reference) == (2, "user-42")
    assert [found.creator_id for found in store.grants(reference="user-42")] == ["referred-1"]


def test_another_account_than_the_invited_one_is_refused(
    store: Store, sealer: Sealer, journal: Journal, new_authorizer: New, visit: Visit
) -> None:
    """Nothing is stored under either creator, and the pair that came is set aside, with whom the link was made for."""
    authorizer = new_authorizer()
    invited = authorizer.exchange(visit(authorizer.url(), "invited-1"))

    with pytest.raises(OtherAccountError, match="stranger-1 agreed, and the link was made for creator invited-1"):
        authorizer.exchange(visit(authorizer.url(creator_id="invited-1"), "stranger-1"))

    with pytest.raises(NotFoundError):
        store.grant("stranger-1")
    assert store.grant("invited-1") == invited
    assert journal.waiting() == 0
    ground = ground_of(store=store, sealer=sealer, journal=journal)
    (pair,) = Placing(ground, exchanges=Exchanges(ground, renew_at=2 / 3)).pairs()
    assert (pair.asked_for, pair.creator_id) == ("invited-1", "stranger-1")


def test_a_readers_keyring_begins_no_consent(new_authorizer: New, visit: Visit, sandbox: RunningSandbox) -> None:
    """Neither a link nor an exchange is of use if the pair could not be sealed: nothing is sent."""
    redirect = visit(new_authorizer().url(), "reader-1")
    before, reader = exchanges_of(sandbox), new_authorizer(sealer=Sealer(Keyring.new().reader()))

    with pytest.raises(ConfigurationError, match="reader's keyring stores no consents"):
        reader.url()
    with pytest.raises(ConfigurationError, match="reader's keyring stores no consents"):
        reader.exchange(redirect)

    assert exchanges_of(sandbox) == before


def test_the_invited_account_is_taken(new_authorizer: New, visit: Visit) -> None:
    """A link for one creator works for that creator."""
    authorizer = new_authorizer()

    assert authorizer.exchange(visit(authorizer.url(creator_id="invited-2"), "invited-2")).creator_id == "invited-2"


def test_a_refusal_of_the_page_is_explained(store: Store, new_authorizer: New, visit: Visit) -> None:
    """The message says that the creator declined."""
    authorizer = new_authorizer()

    with pytest.raises(UsageError, match="did not agree"):
        authorizer.exchange(visit(authorizer.url(), "deny-1", sandbox_decision="deny"))


def test_an_old_or_foreign_state_sends_nothing(
    sandbox: RunningSandbox, store: Store, new_authorizer: New, visit: Visit
) -> None:
    """A redirect whose link has ended, or whose state is not ours or is missing, is refused before the code leaves."""
    stale = visit(new_authorizer(state_seconds=-61).url(), "state-1")
    redirect = visit(new_authorizer().url(), "state-2")
    before = exchanges_of(sandbox)

    with pytest.raises(UsageError, match=r"the link ended 6\d s ago"):
        new_authorizer().exchange(stale)
    with pytest.raises(UsageError, match="no link that this database knows"):
        new_authorizer().exchange(redirect.replace("state=", "state=A"))
    with pytest.raises(UsageError, match="no state"):
        new_authorizer().exchange(redirect.partition("&state=")[0])

    assert exchanges_of(sandbox) == before


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        pytest.param("scheme", lambda url: url.replace("https://", "http://"), id="scheme"),
        pytest.param("host", lambda url: url.replace("https://", "https://evil."), id="host"),
        pytest.param("host", lambda url: url.replace("?", ":444?", 1).replace("/callback", "/callback"), id="port"),
        pytest.param("path", lambda url: url.replace("?", "/more?", 1), id="longer-path"),
        pytest.param("path", lambda url: url.replace("?", "%2e?", 1), id="encoded-path"),
    ],
)
def test_a_redirect_to_another_address_sends_nothing(
    sandbox: RunningSandbox, new_authorizer: New, visit: Visit, part: str, wrong: Callable[[str], str]
) -> None:
    """Scheme, host and path of a pasted address are those that are registered for the app; its query alone will do."""
    redirect = visit(new_authorizer().url(), f"address-{part}")
    before = exchanges_of(sandbox)

    with pytest.raises(UsageError, match="pasted address is not that of EVERTOKEN_TIKTOK_REDIRECT_URI"):
        new_authorizer().exchange(wrong(redirect))

    assert exchanges_of(sandbox) == before
    assert new_authorizer().exchange(redirect.partition("?")[2]).creator_id == f"address-{part}"


def test_a_code_is_not_spent_if_its_pair_cannot_be_kept(
    store: Store, new_authorizer: New, visit: Visit, tmp_path: Path, free_port: int
) -> None:
    """With the journal below its floor or the database away nothing is sent, so the same redirect works later."""
    redirect = visit(new_authorizer().url(), "kept-1")
    full = Journal(tmp_path / "full", Sealer(Keyring.new()), owner="test", floor_bytes=2**62)
    away = open_store(f"postgresql://nobody@127.0.0.1:{free_port}/none")

    with closing(full), pytest.raises(JournalError):
        new_authorizer(journal=full).exchange(redirect)
    with closing(away), pytest.raises(NotReadyError):
        new_authorizer(store=away).exchange(redirect)

    assert new_authorizer().exchange(redirect).creator_id == "kept-1"


@pytest.mark.parametrize("step", ["pre_journal", "post_write", "post_fsync"])
def test_a_journal_that_fails_as_nobody_foresaw_costs_no_consent(
    store: Store, new_authorizer: New, visit: Visit, tmp_path: Path, step: str
) -> None:
    """Whatever exception its writing ends in, the code is spent and the database gets the pair."""

    def fail(name: str) -> None:
        if name == step:
            raise MemoryError

    redirect = visit(new_authorizer().url(), f"surprise-{step}")
    with closing(Journal(tmp_path / "failing", Sealer(Keyring.new()), owner="test", failpoint=fail)) as journal:
        granted = new_authorizer(journal=journal).exchange(redirect)

    assert store.grant(f"surprise-{step}").pair_generation == 1
    assert granted.creator_id == f"surprise-{step}"


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[tuple[Store, Callable[[str], None], Callable[[], None]]]:
    """Return a store, a step at which its database stops taking writes, and what heals it."""
    path = tmp_path / "failing.db"
    store = open_store(f"sqlite:///{path}", statement_seconds=0.2)
    store.upgrade()
    with closing(sqlite3.connect(path, isolation_level=None)) as blocker:

        def fail(step: str) -> None:
            if step == "post_recv":
                blocker.execute("BEGIN EXCLUSIVE")

        def heal() -> None:
            blocker.execute("COMMIT")

        yield store, fail, heal
    store.close()


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_pair_that_came_is_kept_while_the_database_is_away(
    failing: tuple[Store, Callable[[str], None], Callable[[], None]],
    sealer: Sealer,
    journal: Journal,
    new_authorizer: New,
    visit: Visit,
) -> None:
    """A pair that the database does not take stays in the journal, and its replay makes the grant, once."""
    store, fail, heal = failing
    authorizer = new_authorizer(store=store, failpoint=fail)
    redirect = visit(authorizer.url(), "journal-1")

    with pytest.raises(NotReadyError, match="kept in the journal"):
        authorizer.exchange(redirect)
    heal()
    assert journal.waiting() == 1
    with pytest.raises(NotFoundError):
        store.grant("journal-1")

    for _ in range(2):
        replay(journal, Exchanges(ground_of(store=store, sealer=sealer), renew_at=2 / 3))
    assert store.grant("journal-1").consent == 1
    assert held(store, sealer, "journal-1")[0].reveal().startswith("act.")


def replay(journal: Journal, exchanges: Exchanges) -> None:
    """Store what the journal holds, as the upkeep does, and leave it there."""
    for entry in [orphan.entry for orphan in journal.unreleased()]:
        assert entry.kind == "exchange"
        raw = RawAnswer(
            call=entry.call,
            http_status=entry.http_status,
            body=entry.body,
            complete=entry.complete,
            fault=entry.fault,
            retry_after=entry.retry_after,
        )
        exchanges.store_replayed(raw, sent_at=entry.sent_at)


def raw_answer(creator_id: str, mark: str) -> RawAnswer:
    """Return an exchange's answer as TikTok gives it."""
    body = (
        f'{{"code":0,"message":"OK","request_id":"1","data":{{"open_id":"{creator_id}","access_token":"act.{mark}",'
        f'"expires_in":86400,"refresh_token":"rft.{mark}","refresh_token_expires_in":31536000,'
        '"scope":"user.info.basic","token_type":"Bearer"}}'
    )
    return RawAnswer(call=EXCHANGE_CALL, http_status=200, body=body.encode(), complete=True)


@pytest.fixture
def exchanges(store: Store, sealer: Sealer) -> Exchanges:
    """Return what stores replayed answers."""
    return Exchanges(ground_of(store=store, sealer=sealer), renew_at=2 / 3)


@pytest.fixture
def sent_at(store: Store) -> datetime:
    """Return a time a minute ago, when an answer that is replayed now was asked for."""
    return store.ping() - timedelta(minutes=1)


def test_a_replay_of_a_later_answer_is_stored(
    store: Store, sealer: Sealer, exchanges: Exchanges, sent_at: datetime
) -> None:
    """An answer that is newer than the current consent is a new consent, also when it comes from the journal."""
    exchanges.store_replayed(raw_answer("replay-1", "old"), sent_at=sent_at)

    exchanges.store_replayed(raw_answer("replay-1", "new"), sent_at=store.ping() + timedelta(seconds=1))

    assert store.grant("replay-1").consent == 2
    assert held(store, sealer, "replay-1")[1].reveal() == "rft.new"


def test_a_replay_never_undoes_what_came_later(
    held_by: HeldBy, store: Store, new_authorizer: New, exchanges: Exchanges, visit: Visit
) -> None:
    """An older answer changes nothing after a later consent, nor after a revocation."""
    authorizer = new_authorizer()
    authorizer.exchange(visit(authorizer.url(), "replay-2"))
    current, sent_at = held_by("replay-2"), store.ping() - timedelta(minutes=1)

    exchanges.store_replayed(raw_answer("replay-2", "old"), sent_at=sent_at)
    assert held_by("replay-2") == current
    assert store.grant("replay-2").consent == 1

    store.mark_revoked("replay-2")
    exchanges.store_replayed(raw_answer("replay-2", "old"), sent_at=sent_at)
    assert store.grant("replay-2").status is GrantStatus.REVOKED


def test_a_replay_knows_its_pair_after_refreshes(store: Store, exchanges: Exchanges, sent_at: datetime) -> None:
    """A pair that is stored already is not stored again as a newer consent, whatever the clocks say."""
    exchanges.store_replayed(raw_answer("replay-3", "one"), sent_at=sent_at)
    later = store.ping() + timedelta(hours=1)

    exchanges.store_replayed(raw_answer("replay-3", "one"), sent_at=later)

    assert store.grant("replay-3").consent == 1


def test_an_answer_cut_after_both_tokens_is_used(
    sandbox: RunningSandbox, store: Store, new_authorizer: New, visit: Visit
) -> None:
    """A connection that breaks after the last token costs nothing."""
    authorizer = new_authorizer()
    sandbox.fault("cut", creator="cut-1", at=-3, part="body", framing="length", how="fin")

    grant = authorizer.exchange(visit(authorizer.url(), "cut-1"))

    assert grant.creator_id == "cut-1"


def test_a_lost_answer_is_reported(
    sandbox: RunningSandbox, store: Store, journal: Journal, new_authorizer: New, visit: Visit
) -> None:
    """If no answer comes the message says to begin again, and nothing is left behind."""
    authorizer = new_authorizer()
    sandbox.fault("lost", creator="lost-1", how="rst")

    with pytest.raises(InDoubtError, match="the code may be spent"):
        authorizer.exchange(visit(authorizer.url(), "lost-1"))

    assert journal.waiting() == 0
    assert store.grants() == []


def test_an_unreachable_tiktok_spends_no_code(store: Store, new_authorizer: New, visit: Visit, free_port: int) -> None:
    """If nothing was sent, the same redirect can be pasted again."""
    redirect = visit(new_authorizer().url(), "unsent-1")

    with pytest.raises(NotSentError):
        new_authorizer(base_url=f"http://127.0.0.1:{free_port}/open_api").exchange(redirect)

    assert new_authorizer().exchange(redirect).creator_id == "unsent-1"
