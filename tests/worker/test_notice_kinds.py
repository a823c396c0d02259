"""Which notices are written about creators, when, and how often; and what goes out while the app is stopped."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.store.conftest import Fleet, seal_name
from tests.support.receiver import SECRET, Receiver, running_receiver
from worker.addresses import read_notice_addresses
from worker.consent.state import refuse_bad_state
from worker.egress import Egress
from worker.links import ConsentLinks, handle_of
from worker.notices import delivery
from worker.notices.delivery import LINK_SECONDS, Notifier
from worker.policy.notice_kinds import NEWS
from worker.policy.verdicts import AttemptOutcome
from worker.store import Store
from worker.telemetry import Fact
from worker.vault import Token
from worker.vault.webhooks import WebhookSigner

DAY = timedelta(days=1)


@pytest.fixture
def fleet(store: Store) -> Fleet:
    """A fleet on both databases."""
    return Fleet(store)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Run a receiver."""
    with running_receiver() as server:
        yield server


def notifier_to(store: Store, receiver: Receiver, links: ConsentLinks | None = None, **changes: Any) -> Notifier:
    """Return a notifier to one address that gets every kind."""
    values: dict[str, Any] = {"hook": lambda _: None}
    return Notifier(
        store=store,
        addresses=read_notice_addresses("EVERTOKEN_NOTICE_URL", receiver.url),
        signer=WebhookSigner([Token(SECRET)]),
        egress=Egress(),
        links=links,
        **values | changes,
    )


def kinds(store: Store) -> list[str]:
    """Return the kinds of all notices, oldest first."""
    return [notice.kind for notice in reversed(store.notices())]


def take_all(store: Store) -> None:
    """Let an address accept everything."""
    store.route_notices({"ops": None})
    for notice in store.notices():
        store.delivery_accepted(notice.notice_id, "ops")


def ends_in(fleet: Fleet, left: timedelta, *, given: timedelta = 365 * DAY) -> None:
    """Let ada's refresh token end in some time, after a life of some length; each of her pairs says the same."""
    end = int((fleet.store.ping() + left).timestamp() * 1000)
    values = {"end": end, "began": end - int(given.total_seconds() * 1000)}
    fleet.sql("UPDATE grants SET refresh_expires_at = :end, issued_at = :began", **values)
    fleet.sql("UPDATE pairs SET refresh_expires_at = :end", end=end)


def lose(fleet: Fleet, grant_id: int) -> None:
    """Let TikTok refuse a grant for good."""
    assert fleet.store.ask_reauth(fleet.claim(grant_id), reason="the grant is gone")


def connect(fleet: Fleet, *, reference: str | None = None) -> None:
    """Let ada authorize the app."""
    item = fleet.consent("ada", reference=reference, scope="user.info.basic,user.info.stats")
    fleet.store.save_consents([item], seal_name, replace=True, announce=True)


def test_each_consent_is_announced_once(fleet: Fleet) -> None:
    """Each authorization of a creator writes a notice; an import is no consent and writes none."""
    fleet.add("imported")
    assert kinds(fleet.store) == []

    connect(fleet, reference="user-42")
    connect(fleet)

    first, again = reversed(fleet.store.notices())
    assert (first.kind, first.creator_id, first.reference) == ("connected", "ada", "user-42")
    assert first.data is not None
    assert (first.data["consent"], first.data["scopes"]) == (1, ["user.info.basic", "user.info.stats"])
    assert first.data["ends_at"].endswith("Z")
    assert (again.data or {})["consent"] == 2
    assert again.detail == "the creator authorized the app again"


def test_a_consent_and_its_notice_come_in_one_transaction(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the notice cannot be written, the consent is not stored either, and its answer is tried again."""

    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("worker.store.consents._announce_connected", fail)
    with pytest.raises(RuntimeError):
        connect(fleet)
    assert fleet.store.grants() == []


@pytest.mark.parametrize(
    ("days_left", "announced"),
    [(31, None), (29.9, 30), (8, 30), (6.9, 7), (1.1, 7), (0.9, 1), (0.01, 1), (-0.01, None)],
)
def test_a_consent_that_ends_is_announced_at_30_7_and_1_days(
    fleet: Fleet, days_left: float, announced: int | None
) -> None:
    """The nearest step is written, once; TikTok's refusal reports what has ended."""
    fleet.add()
    ends_in(fleet, days_left * DAY)

    assert fleet.store.warn_of_ends(500) == (announced is not None)
    assert fleet.store.warn_of_ends(500) == 0
    assert [(notice.data or {})["days"] for notice in fleet.store.notices()] == (
        [] if announced is None else [announced]
    )


def test_each_step_is_announced_once_for_each_consent(fleet: Fleet) -> None:
    """Three notices over the last month, delivered or not; the next consent has three of its own."""
    grant = fleet.add()
    for days in (29, 20, 6, 3, 0.5, 0.1):
        ends_in(fleet, days * DAY)
        fleet.store.warn_of_ends(500)
    assert [(notice.data or {})["days"] for notice in fleet.store.notices()] == [1, 7, 30]

    connect(fleet)
    assert kinds(fleet.store) == ["connected"], "nobody is asked for what was done meanwhile"
    ends_in(fleet, 5 * DAY)
    fleet.store.warn_of_ends(500)
    assert kinds(fleet.store) == ["connected", "reauth_soon"]
    assert fleet.store.grant("ada").grant_id == grant.grant_id


def test_an_end_that_refreshes_move_ahead_is_none(fleet: Fleet) -> None:
    """A refresh token of ten days that each refresh renews never ends; when refreshes fail it does."""
    grant = fleet.add(refresh_expires_at=fleet.store.ping() + 9 * DAY)
    claim = fleet.claim(grant.grant_id)
    fleet.save(claim, "two")
    passed = 354 * 86_400_000
    fleet.sql("UPDATE grants SET refresh_expires_at = refresh_expires_at - :passed", passed=passed)

    assert fleet.store.warn_of_ends(500) == 0
    failed = fleet.claim(grant.grant_id)
    fleet.store.release(
        failed, outcome=AttemptOutcome.BACKED_OFF, next_refresh_at=fleet.soon(), reason="busy", failed=True
    )
    assert fleet.store.warn_of_ends(500) == 1


@pytest.mark.parametrize(("given", "steps"), [(1, []), (5, [1]), (20, [7, 1]), (60, [30, 7, 1])])
def test_a_short_consent_is_not_announced_for_longer_than_it_lasts(fleet: Fleet, given: int, steps: list[int]) -> None:
    """A consent for five days has no notice of seven days on the day it was given."""
    fleet.add()
    left = given * DAY
    while left > timedelta(0):
        ends_in(fleet, left, given=given * DAY)
        fleet.store.warn_of_ends(500)
        left -= DAY / 2

    assert [(notice.data or {})["days"] for notice in reversed(fleet.store.notices())] == steps


def test_nobody_is_warned_whose_grant_is_over(fleet: Fleet) -> None:
    """A lost grant has its own notice, a revoked one too, and each says enough."""
    lose(fleet, fleet.add("ada").grant_id)
    fleet.add("bob")
    fleet.store.mark_revoked("bob")
    fleet.sql("UPDATE grants SET refresh_expires_at = :end", end=int(fleet.soon(86400 * 5).timestamp() * 1000))

    assert fleet.store.warn_of_ends(500) == 0
    assert kinds(fleet.store) == ["reauth_needed", "revoked"]


@pytest.mark.parametrize("way", ["a late pair", "a new consent", "an import"])
@pytest.mark.parametrize("delivered", [True, False])
def test_a_recovery_is_announced_only_after_the_loss_was(fleet: Fleet, way: str, delivered: bool) -> None:
    """Once, whichever way the grant came back; if nobody had heard, nobody hears of either."""
    grant = fleet.add()
    late = fleet.claim(grant.grant_id)
    fleet.sql("UPDATE grants SET lease_until = 0")
    lose(fleet, grant.grant_id)
    if delivered:
        take_all(fleet.store)

    for _ in range(2):
        if way == "a late pair":
            fleet.sql("UPDATE grants SET generation = 2")  # as if the verdict had been on the first attempt
            fleet.save_pair(late, fleet.pair("late"))
        else:
            fleet.add(replace=True)

    assert fleet.store.grant("ada").status.value == "active"
    assert kinds(fleet.store) == (["reauth_needed", "recovered"] if delivered else [])


def test_a_revocation_is_announced_once(fleet: Fleet) -> None:
    """Revoking twice writes one notice, and the request to authorize is withdrawn."""
    lose(fleet, fleet.add().grant_id)
    for _ in range(2):
        fleet.store.mark_revoked("ada")

    assert kinds(fleet.store) == ["revoked"]


def test_nothing_goes_out_about_creators_while_the_app_is_stopped(fleet: Fleet, receiver: Receiver) -> None:
    """The stop itself does; when it is over all that waited comes."""
    lose(fleet, fleet.add("ada").grant_id)
    connect(fleet)
    fleet.store.pull_brake("the secret is refused", probe_seconds=60)
    notifier = notifier_to(fleet.store, receiver)

    for _ in range(3):
        notifier.deliver()
    assert receiver.types == ["app.stopped"]
    assert fleet.store.notice_waits([]) == 0, "what waits on purpose is not late"

    fleet.store.release_brake()
    notifier.deliver()
    assert receiver.types == ["app.stopped", "grant.connected"]


def test_a_stop_in_the_middle_of_a_round_holds_the_rest_back(fleet: Fleet, receiver: Receiver) -> None:
    """The brake is looked at before each notice about a creator, and what was claimed is free again."""
    for number in range(5):
        lose(fleet, fleet.add(f"creator {number}").grant_id)

    def stop(_: dict[str, Any]) -> bool:
        fleet.store.pull_brake("the secret is refused", probe_seconds=60)
        return False

    receiver.refuses = stop
    notifier = notifier_to(fleet.store, receiver)

    notifier.deliver()
    assert receiver.types == ["grant.reauth_needed"]
    receiver.refuses = lambda _: False
    notifier.deliver()
    assert receiver.types[1:] == ["app.stopped"]
    fleet.store.release_brake()
    notifier.deliver()
    assert receiver.types[2:] == ["grant.reauth_needed"] * 4


def test_a_request_bears_a_link_for_this_creator(fleet: Fleet, receiver: Receiver, links: ConsentLinks) -> None:
    """It works for a week, for nobody else, and each try has a new one; it stands in no row and no fact."""
    lose(fleet, fleet.add("ada", reference="user-42").grant_id)
    facts: list[Fact] = []
    notifier = notifier_to(fleet.store, receiver, links, hook=facts.append)
    receiver.answer = 500
    notifier.deliver()
    fleet.sql("UPDATE notice_deliveries SET next_try_at = 0")
    receiver.answer = 204
    notifier.deliver()

    urls = [posted.verified()["data"]["reconnect_url"] for posted in receiver.got]
    assert receiver.got[0].message_id == receiver.got[1].message_id
    assert len(set(urls)) == 2
    for url in urls:
        (state,) = parse_qs(urlsplit(url).query)["state"]
        link = fleet.store.link(handle_of(state))
        assert link is not None
        assert refuse_bad_state(state, link) is link
        assert (link.creator_id, link.reference) == ("ada", "user-42")
        assert LINK_SECONDS - 60 < (link.ends_at - link.now).total_seconds() <= LINK_SECONDS
        kept = (facts, fleet.store.notices(), fleet.store.deliveries([1]))
        assert state not in str(kept)


@pytest.mark.parametrize("kind", ["recovered", "connected", "app_stopped"])
def test_only_requests_bear_a_link(fleet: Fleet, receiver: Receiver, links: ConsentLinks, kind: str) -> None:
    """If nobody has to act no link is made."""
    fleet.store.raise_alarm("one", kind, "why", grant_id=fleet.add().grant_id)
    notifier_to(fleet.store, receiver, links).deliver()

    assert "reconnect_url" not in receiver.got[0].verified()["data"]
    assert fleet.sql("SELECT count(*) FROM links")[0][0] == 0


def test_news_that_reach_nobody_are_no_trouble_and_do_not_pile_up(fleet: Fleet) -> None:
    """Without an address only notices that need action are late; news are deleted with old history."""
    connect(fleet)
    fleet.sql("UPDATE notices SET created_at = 0")

    assert fleet.store.notice_waits([]) == 0
    assert fleet.store.undelivered_count(without=NEWS) == 0
    assert fleet.store.notice_waits(["ops"]) > 0
    lose(fleet, fleet.store.grant("ada").grant_id)
    fleet.sql("UPDATE notices SET created_at = 0")
    assert fleet.store.notice_waits([]) > 0
    assert fleet.store.prune_delivered(3600) == 1
    assert kinds(fleet.store) == ["reauth_needed"]


def test_warnings_are_looked_for_once_an_hour_and_until_none_is_missing(
    fleet: Fleet, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look reads every grant that ends within a month, so it is seldom; what one look did not write waits no hour."""
    monkeypatch.setattr(delivery, "WARNINGS", 2)
    for creator in ("ada", "bob", "eve"):
        fleet.add(creator)
    ends_in(fleet, 5 * DAY)
    clock, facts = [0.0], list[Fact]()
    notifier = notifier_to(fleet.store, receiver, hook=facts.append, monotonic=lambda: clock[0])

    assert (notifier.warn(), notifier.warn()) == (2, 1)
    assert [(fact.name, fact.fields["grants"]) for fact in facts] == [("grants.end_soon", 2), ("grants.end_soon", 1)]
    fleet.add("zoe")
    ends_in(fleet, 5 * DAY)
    clock[0] = delivery.WARN_SECONDS - 1
    assert notifier.warn() == 0
    clock[0] = delivery.WARN_SECONDS
    assert notifier.warn() == 1
