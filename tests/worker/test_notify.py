"""Delivering notices to the operator's addresses."""

from __future__ import annotations

import base64
import contextlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from threading import Barrier, Event, Thread
from typing import Any

import pytest
from sqlalchemy import text
from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.receiver import SECRET, Receiver, running_receiver
from worker.addresses import NoticeAddress, read_notice_addresses
from worker.egress import Egress
from worker.notices.delivery import BATCH, BATCH_SECONDS, LONGEST_PAUSE_SECONDS, TIMEOUT_SECONDS, Notifier
from worker.store import Store, open_store
from worker.store.deliveries import HOLD_SECONDS
from worker.telemetry import Fact
from worker.vault import Token
from worker.vault.webhooks import WebhookSigner, new_webhook_secret

HOUR = 3600.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Run a receiver."""
    with running_receiver() as server:
        yield server


@pytest.fixture
def second() -> Iterator[Receiver]:
    """Run another receiver."""
    with running_receiver() as server:
        yield server


def addresses(*words: str) -> list[NoticeAddress]:
    """Return the addresses of a setting."""
    return read_notice_addresses("EVERTOKEN_NOTICE_URL", " ".join(words))


def notifier_of(store: Store, *words: str, facts: list[Fact] | None = None, **changes: Any) -> Notifier:
    """Return a notifier to addresses, each followed by its kinds."""
    values: dict[str, Any] = {
        "store": store,
        "hook": (facts if facts is not None else []).append,
        "addresses": addresses(*words),
        "signer": WebhookSigner([Token(SECRET)]),
        "egress": Egress(),
        "links": None,
    }
    return Notifier(**values | changes)


def alarm(store: Store, key: str = "alarm:1", kind: str = "app_stopped") -> None:
    """Write a notice about the app."""
    assert store.raise_alarm(key, kind, "the secret is refused")


def sql(store: Store, statement: str, **values: int) -> None:
    """Run a statement beside the store's own."""
    store.transact(lambda connection: connection.execute(text(statement), values), writes=True)


def pass_time(store: Store, seconds: float) -> None:
    """Let time go by for what waits."""
    passed = int(seconds * 1000)
    sql(store, "UPDATE notice_deliveries SET next_try_at = next_try_at - :passed", passed=passed)
    sql(store, "UPDATE notice_receivers SET paused_until = paused_until - :passed", passed=passed)


def problems(store: Store) -> list[str | None]:
    """Return what is written down of each delivery."""
    ids = [notice.notice_id for notice in store.notices()]
    return [delivery.problem for delivery in store.deliveries(ids)]


def test_a_notice_is_delivered_once_and_verifies(store: Store, receiver: Receiver) -> None:
    """The reference library takes its signature; type, time and content have the specification's form."""
    alarm(store)
    written_at = store.notices()[0].created_at
    facts: list[Fact] = []
    notifier = notifier_of(store, receiver.url, facts=facts)

    assert (notifier.deliver(), notifier.deliver()) == (1, 0)

    (posted,) = receiver.got
    assert posted.verified() == {
        "type": "app.stopped",
        "timestamp": written_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "data": {"detail": "the secret is refused"},
    }
    assert posted.message_id.startswith("msg_")
    assert "." not in posted.message_id
    assert posted.headers["content-type"] == "application/json"
    assert "CANARY" not in f"{posted.headers}{posted.body!r}{facts}"
    assert [fact.name for fact in facts] == ["notice.delivered"]


def test_ids_are_random_and_none_is_given_twice(store: Store, receiver: Receiver) -> None:
    """Neither the row nor the time can be read off an id."""
    for number in range(30):
        alarm(store, f"alarm:{number}")

    notifier_of(store, receiver.url).deliver()

    ids = [posted.message_id for posted in receiver.got]
    assert len(set(ids)) == 30
    assert all(len(message_id) == len("msg_") + 24 for message_id in ids)


def test_the_signature_is_over_what_was_sent(store: Store, receiver: Receiver) -> None:
    """Another body, id or time, or another secret, does not verify."""
    alarm(store)
    notifier_of(store, receiver.url).deliver()
    (posted,) = receiver.got
    hook, later = Webhook(SECRET), str(int(posted.headers["webhook-timestamp"]) + 1)

    for body, headers in (
        (posted.body.replace(b"stopped", b"resumed"), posted.headers),
        (posted.body, posted.headers | {"webhook-id": "msg_other"}),
        (posted.body, posted.headers | {"webhook-timestamp": later}),
    ):
        with pytest.raises(WebhookVerificationError):
            hook.verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        posted.verified(new_webhook_secret())


def test_an_old_request_does_not_verify_when_it_is_replayed(store: Store, receiver: Receiver) -> None:
    """The time is signed, and the reference library takes five minutes of it."""
    alarm(store)
    notifier_of(store, receiver.url, wall_clock=lambda: time.time() - 600).deliver()

    with pytest.raises(WebhookVerificationError, match="too old"):
        receiver.got[0].verified()


def test_each_try_is_signed_with_its_own_time(store: Store, receiver: Receiver) -> None:
    """A notice that waited for hours still verifies, under the id of its first try."""
    alarm(store)
    receiver.answer = 500
    notifier_of(store, receiver.url, wall_clock=lambda: time.time() - 2 * HOUR).deliver()
    pass_time(store, HOUR)
    receiver.answer = 204

    assert notifier_of(store, receiver.url).deliver() == 1

    first, then = receiver.got
    assert first.message_id == then.message_id
    assert then.verified()["type"] == "app.stopped"


def test_while_a_secret_is_replaced_either_verifies(store: Store, receiver: Receiver) -> None:
    """Receivers may change over at any moment; a third secret does not verify."""
    old, new = new_webhook_secret(), new_webhook_secret()
    alarm(store)

    notifier_of(store, receiver.url, signer=WebhookSigner([Token(old), Token(new)])).deliver()

    (posted,) = receiver.got
    assert len(posted.headers["webhook-signature"].split(" ")) == 2
    assert posted.verified(old) == posted.verified(new)
    with pytest.raises(WebhookVerificationError):
        posted.verified(new_webhook_secret())


def test_a_text_of_the_operators_own_is_the_key_as_before(store: Store, receiver: Receiver) -> None:
    """A secret without the prefix is no base64: its bytes are the key, and the library takes it as bytes."""
    alarm(store)

    notifier_of(store, receiver.url, signer=WebhookSigner([Token("a long text, not base64")])).deliver()

    (posted,) = receiver.got
    assert posted.verified(b"a long text, not base64")["type"] == "app.stopped"
    assert posted.verified(base64.b64encode(b"a long text, not base64").decode())["type"] == "app.stopped"


@pytest.mark.parametrize("answer", [301, 302, 307, 308, 400, 404, 500, 502, 429, 503])
def test_a_notice_that_is_not_accepted_is_tried_again_later(store: Store, receiver: Receiver, answer: int) -> None:
    """It stays pending with a later time; a redirect is not followed."""
    alarm(store)
    receiver.answer = answer
    facts: list[Fact] = []

    assert notifier_of(store, receiver.url, facts=facts).deliver() == 0

    assert [posted.path for posted in receiver.got] == ["/hook"]
    assert [fact.fields["reason"] for fact in facts] == [f"HTTP {answer}"]
    assert problems(store) == [f"HTTP {answer}"]
    assert notifier_of(store, receiver.url).deliver() == 0, "not before its time"
    assert store.undelivered_count() == 1
    assert len(receiver.got) == 1


@pytest.mark.parametrize("answer", [200, 201, 202, 204, 299])
def test_every_status_from_200_to_299_accepts(store: Store, receiver: Receiver, answer: int) -> None:
    """A receiver may answer as its framework does."""
    alarm(store)
    receiver.answer = answer

    assert notifier_of(store, receiver.url).deliver() == 1


@pytest.mark.parametrize("answer", [429, 503])
@pytest.mark.parametrize(
    ("header", "wait"),
    [("120", 120), ("999999999999999999999999", LONGEST_PAUSE_SECONDS), ("a date in ten minutes", 600)],
)
def test_a_receiver_that_asks_to_wait_is_left_alone(
    store: Store, receiver: Receiver, answer: int, header: str, wait: float
) -> None:
    """The whole address waits as long as `Retry-After` says, an hour at most, and then everything comes."""
    for number in range(3):
        alarm(store, f"alarm:{number}")
    receiver.answer, receiver.retry_after = answer, header
    if header.startswith("a date"):
        receiver.retry_after = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
    notifier = notifier_of(store, receiver.url)

    notifier.deliver()
    receiver.answer, receiver.retry_after = 204, None

    (name,) = (address.name for address in addresses(receiver.url))
    paused_until = store.receivers([name])[name].paused_until
    assert paused_until is not None
    assert wait - 20 < (paused_until - store.ping()).total_seconds() < wait + 1
    pass_time(store, wait - 25)
    assert notifier.deliver() == 0
    assert len(receiver.got) == 1
    pass_time(store, 30)
    assert notifier.deliver() == 3


@pytest.mark.parametrize("header", ["", "soon", "-5", "1.5.2", "Wed, 99 Nov 2026 99:00:00 GMT", "0", "½"])
def test_a_retry_after_that_says_nothing_is_passed_over(store: Store, receiver: Receiver, header: str) -> None:
    """The notice is tried again as after any other answer."""
    alarm(store)
    receiver.answer, receiver.retry_after = 503, header.encode().decode("latin-1")
    notifier = notifier_of(store, receiver.url)

    notifier.deliver()
    receiver.answer, receiver.retry_after = 204, None
    pass_time(store, 10)

    assert notifier.deliver() == 1


def test_an_address_that_is_gone_gets_nothing_until_it_is_enabled(store: Store, receiver: Receiver) -> None:
    """One alarm is written and one fact logged, nothing is lost, and what waited comes once the address is enabled."""
    alarm(store)
    receiver.answer = 410
    facts: list[Fact] = []
    notifier = notifier_of(store, receiver.url, facts=facts)
    notifier.deliver()
    alarm(store, "alarm:2")
    pass_time(store, 10 * HOUR)
    assert [notifier.deliver() for _ in range(3)] == [0, 0, 0]
    assert len(receiver.got) == 1
    assert [fact.name for fact in facts] == ["notice.address_disabled", "notice.failed"]
    assert [notice.kind for notice in store.undelivered_notices()].count("address_disabled") == 1

    receiver.answer = 204
    (name,) = (address.name for address in addresses(receiver.url))
    assert store.enable_receiver(name, "again")
    assert not store.enable_receiver(name, "again"), "a second time nothing happens"
    notifier.deliver()

    assert sorted(receiver.types[1:]) == ["address.disabled", "address.enabled", "app.stopped", "app.stopped"]


def test_the_other_addresses_hear_of_one_that_is_gone(store: Store, receiver: Receiver, second: Receiver) -> None:
    """Each address has a state of its own, and the alarm reaches those that are there."""
    alarm(store)
    receiver.answer = 410
    notifier = notifier_of(store, receiver.url, second.url)

    notifier.deliver()
    notifier.deliver()

    assert receiver.types == ["app.stopped"]
    assert second.types == ["app.stopped", "address.disabled"]


def test_each_address_gets_its_kinds(store: Store, receiver: Receiver, second: Receiver) -> None:
    """One gets all, the other what it asks for; a kind that nobody asks for goes to nobody and waits for nobody."""
    for kind in ("app_stopped", "app_resumed", "refreshes_idle", "misfit"):
        alarm(store, kind, kind)

    notifier_of(store, f"{receiver.url}?all", second.url, "app.*", "grant.misfit").deliver()
    alarm(store, "idle again", "refreshes_idle")
    notifier_of(store, second.url, "app.*", "grant.misfit").deliver()

    assert receiver.types == ["app.stopped", "app.resumed", "refreshes.idle", "grant.misfit"]
    assert second.types == ["app.stopped", "app.resumed", "grant.misfit"]
    assert store.undelivered_count() == 0


def test_an_address_that_is_away_delays_no_other(store: Store, receiver: Receiver, second: Receiver) -> None:
    """Each of twenty notices reaches the one that is there in one round, and the other one later."""
    for number in range(20):
        alarm(store, f"alarm:{number}")
    receiver.answer = 500
    notifier = notifier_of(store, receiver.url, second.url)

    assert notifier.deliver() == 20
    assert (len(receiver.got), len(second.got)) == (1, 20)
    receiver.answer = 204
    pass_time(store, HOUR)
    assert notifier.deliver() == 20

    failed, *accepted = receiver.got
    assert {posted.message_id for posted in accepted} == {posted.message_id for posted in second.got}
    assert failed.message_id in {posted.message_id for posted in accepted}
    assert len(second.got) == 20


def test_a_receiver_that_fails_for_an_hour_gets_each_notice_once_by_its_id(store: Store, receiver: Receiver) -> None:
    """Round after round for an hour and then until all came: each id is accepted once, and no round asks often."""
    for number in range(50):
        alarm(store, f"alarm:{number}")
    receiver.answer = 503
    notifier = notifier_of(store, receiver.url)
    for minute in range(60):
        if minute % 10 == 0:
            alarm(store, f"later:{minute}")
        notifier.deliver()
        pass_time(store, 60)
    tries = len(receiver.got)
    receiver.got.clear()

    receiver.answer = 204
    rounds = 0
    while store.notices(waiting=True):
        notifier.deliver()
        pass_time(store, 60)
        rounds += 1
        assert rounds < 30, "the wait between two tries is bounded"

    assert tries <= 60
    accepted = [posted.message_id for posted in receiver.got]
    assert len(accepted) == len(set(accepted)) == 56
    assert all(posted.verified() for posted in receiver.got)


def test_a_notice_that_a_receiver_never_takes_delays_no_other(store: Store, receiver: Receiver) -> None:
    """The others come in the rounds after it, however long one is refused."""
    for kind in ("misfit", "app_stopped", "app_resumed"):
        alarm(store, kind, kind)
    receiver.refuses = lambda content: content["type"] == "grant.misfit"
    notifier = notifier_of(store, receiver.url)

    for _ in range(3):
        notifier.deliver()
        pass_time(store, HOLD_SECONDS)

    assert {"app.stopped", "app.resumed"} <= set(receiver.types)
    assert [notice.kind for notice in store.undelivered_notices()] == ["misfit"]


def test_a_slow_receiver_does_not_hold_a_round_for_longer_than_its_notices_are_held(
    store: Store, receiver: Receiver
) -> None:
    """What is left of a round waits for the next one, so that no second process posts the same notices."""
    for number in range(3):
        alarm(store, f"alarm:{number}")
    seconds = iter((0.0, 1.0, 5.0, 26.0))

    assert notifier_of(store, receiver.url, monotonic=lambda: next(seconds)).deliver() == 1
    assert len(receiver.got) == 1
    assert store.undelivered_count() == 2


def test_a_receiver_that_is_away_costs_nothing_but_time(store: Store) -> None:
    """A refused connection is a failed try and no exception."""
    alarm(store)

    assert notifier_of(store, "http://127.0.0.1:9/").deliver() == 0
    assert problems(store) == ["the connection was refused"]


def test_without_an_address_notices_wait_in_the_database(store: Store, receiver: Receiver) -> None:
    """Nothing is lost if no address is set: `doctor` shows what waits, and an address that is set gets it."""
    alarm(store)

    assert notifier_of(store).deliver() == 0
    assert store.undelivered_count() == 1
    assert notifier_of(store, receiver.url).deliver() == 1


def test_a_receiver_that_drips_is_left_at_the_deadline(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that comes a byte at a time holds no thread for longer than one delivery may take."""
    monkeypatch.setattr("worker.notices.delivery.TIMEOUT_SECONDS", 0.5)
    alarm(store)
    closing_time = Event()

    def drip(door: socket.socket) -> None:
        connection, _ = door.accept()
        with connection, contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 204 No Content\r\n" + b"X: y\r\n" * 1000:
                connection.sendall(bytes([byte]))
                if closing_time.wait(0.02):
                    return

    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = Thread(target=drip, args=(door,))
        thread.start()
        began = time.monotonic()
        assert notifier_of(store, f"http://127.0.0.1:{door.getsockname()[1]}/").deliver() == 0
        assert time.monotonic() - began < 5
        closing_time.set()
        thread.join()

    assert problems(store) == ["it did not answer in time"]
    assert store.undelivered_count() == 1


def test_one_round_of_deliveries_runs_at_a_time(store: Store) -> None:
    """While a receiver keeps a round waiting, the next one is over at once and holds no second thread."""
    alarm(store)
    facts: list[Fact] = []
    with socket.create_server(("127.0.0.1", 0)) as door:
        notifier = notifier_of(store, f"http://127.0.0.1:{door.getsockname()[1]}/", facts=facts)
        accepted: list[int] = []
        first = Thread(target=lambda: accepted.append(notifier.deliver()))
        first.start()
        connection, _ = door.accept()
        alarm(store, "alarm:2")
        began = time.monotonic()

        assert notifier.deliver() == 0
        assert time.monotonic() - began < 2

        with connection:
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            first.join()
    assert accepted == [1]
    notifier.deliver()
    assert [fact.name for fact in facts] == ["notice.delivered", "notice.failed"], "the next round went out"


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_two_workers_at_once_post_each_notice_once(store_url: str, receiver: Receiver, database_kind: str) -> None:
    """A round claims its notices for longer than it may last, so the rounds of other processes find others or none."""
    with ExitStack() as opened:
        stores = [opened.enter_context(closing(open_store(store_url))) for _ in range(4)]
        for number in range(3 * BATCH):
            alarm(stores[0], f"alarm:{number}")
        together = Barrier(len(stores))

        def work(store: Store) -> int:
            together.wait(10)
            return notifier_of(store, receiver.url).deliver()

        with ThreadPoolExecutor(len(stores)) as workers:
            accepted = sum(workers.map(work, stores))

    posted = [posted.message_id for posted in receiver.got]
    assert len(posted) == len(set(posted)) == accepted == 3 * BATCH


def test_a_round_ends_before_its_claim_does() -> None:
    """The last delivery of a round may begin at its end and take its whole time."""
    assert BATCH_SECONDS + TIMEOUT_SECONDS < HOLD_SECONDS


def test_a_notice_of_the_version_before_gets_an_id_that_stays(store: Store, receiver: Receiver) -> None:
    """That version writes none; the id is given at the first try, and two addresses get the same."""
    sql(
        store,
        "INSERT INTO notices (dedupe_key, kind, detail, created_at, next_try_at)"
        " VALUES ('reauth:1:2.3', 'app_stopped', 'old', 0, 0)",
    )
    receiver.answer = 500
    notifier = notifier_of(store, receiver.url, f"{receiver.url}/two")
    notifier.deliver()
    receiver.answer = 204
    pass_time(store, HOUR)
    notifier.deliver()

    ids = {posted.message_id for posted in receiver.got}
    assert len(receiver.got) == 4
    assert len(ids) == 1
    assert ids.pop().startswith("msg_")
