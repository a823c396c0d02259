"""The desk's pages: a creator's way from the invitation to the grant, and what operators see and do."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.support.desk import PASSWORD, RunningDesk, desk_settings
from tests.support.receiver import SECRET, running_receiver
from tests.support.surfing import Person
from tests.support.world import World
from worker.cli import checks_outside
from worker.errors import ConfigurationError, StoreUnavailableError, UnknownCreatorError
from worker.links import handle_of


@pytest.fixture
def operator(desk: RunningDesk) -> Person:
    """An operator who is logged in."""
    person = Person(desk)
    assert person.log_in().status_code == 303
    return person


def creator_name() -> str:
    """Return a creator's id that no other test has."""
    return f"c{secrets.token_hex(6)}"


def title(page: requests.Response) -> str:
    """Return a page's heading."""
    found = re.search(r"<h1>(.*?)</h1>", page.text, re.DOTALL)
    assert found is not None, page.text
    return found[1]


def test_an_invitation_becomes_a_grant(desk: RunningDesk, operator: Person) -> None:
    """The creator reads what is asked for, agrees at TikTok and is thanked; the grant has the operator's reference."""
    name, creator = creator_name(), Person(desk)
    link = operator.invite(reference="user-42")
    page = creator.get(link)
    assert page.status_code == 200
    assert "user.info.basic" in page.text
    assert "user-42" not in page.text
    assert creator.get(link).status_code == 200, "looking uses nothing up"

    back = creator.get(creator.tiktok(page, name))
    assert back.status_code == 303
    assert back.headers["Location"] == "/connected/connected"
    thanks = creator.get(back.headers["Location"])
    assert title(thanks) == "Your account is connected"
    grant = desk.services.store.grant(name)
    assert (grant.reference, grant.consent) == ("user-42", 1)


def test_a_used_callback_and_a_used_link_are_explained(desk: RunningDesk, operator: Person) -> None:
    """Reloading the way back changes nothing and frightens nobody."""
    name, creator = creator_name(), Person(desk)
    link = operator.invite()
    way_back = creator.tiktok(creator.get(link), name)
    creator.get(way_back)

    again = creator.get(way_back)
    assert again.headers["Location"] == "/connected/link-used"
    assert "all is well" in creator.get("/connected/link-used").text
    assert creator.get(link).status_code == 410
    assert desk.services.store.grant(name).consent == 1


def test_a_refusal_leaves_the_link_good(desk: RunningDesk, operator: Person) -> None:
    """Who did not agree may change their mind."""
    name, creator = creator_name(), Person(desk)
    link = operator.invite()
    refused = creator.get(creator.tiktok(creator.get(link), name, sandbox_decision="deny"))
    assert refused.headers["Location"] == "/connected/declined"
    assert "did not agree" in creator.get("/connected/declined").text

    assert creator.get(creator.tiktok(creator.get(link), name)).headers["Location"] == "/connected/connected"


def test_another_account_than_the_invited_one_is_not_connected(desk: RunningDesk, operator: Person) -> None:
    """Nothing is stored under either name; the page says what to do."""
    invited, other, creator = creator_name(), creator_name(), Person(desk)
    link = operator.invite(creator=invited)

    back = creator.get(creator.tiktok(creator.get(link), other))
    assert back.headers["Location"] == "/connected/other-account"
    assert creator.get("/connected/other-account").status_code == 409
    for name in (invited, other):
        with pytest.raises(UnknownCreatorError):
            desk.services.store.grant(name)


@pytest.mark.parametrize(
    ("query", "outcome"),
    [
        ("", "unreadable"),
        ("code=abc", "link-unknown"),
        ("code=abc&state=", "link-unknown"),
        ("code=abc&state=forged", "link-unknown"),
        ("code=a&code=b&state=x", "unreadable"),
        ("code=%FF&state=x", "unreadable"),
        ("error=access_denied&state=x", "declined"),
        ("error=server_error", "tiktok-trouble"),
        ("error=temporarily_unavailable", "tiktok-trouble"),
        ("error=invalid_scope", "our-mistake"),
        ("error=unauthorized_client&error_type=client_key", "our-mistake"),
        ("error=redirect_uri_mismatch", "our-mistake"),
        ("error=%3Cscript%3Ealert(1)%3C/script%3E", "our-mistake"),
        ("errCode=10003", "our-mistake"),
    ],
)
def test_every_way_back_ends_on_a_page_of_its_own(desk: RunningDesk, query: str, outcome: str) -> None:
    """No way back that lacks a link of ours sends anything to TikTok; what is our mistake is an error in the log."""
    sent = len(desk.world.sandbox.entries())
    back = Person(desk).get(f"/callback?{query}")

    assert (back.status_code, back.headers["Location"]) == (303, f"/connected/{outcome}")
    page = Person(desk).get(back.headers["Location"])
    assert page.status_code in {200, 400, 404, 500, 502}
    assert "EVERTOKEN" not in page.text
    assert len(desk.world.sandbox.entries()) == sent
    levels = [fact.level for fact in desk.facts if fact.name == "desk.consent_failed"]
    assert levels == ["error" if outcome == "our-mistake" else "info"]


def test_the_way_back_is_also_where_it_is_registered(desk: RunningDesk) -> None:
    """The path of EVERTOKEN_TIKTOK_REDIRECT_URI leads to the same handler."""
    for path in ("/callback/", "/callback"):
        assert Person(desk).get(f"{path}?error=access_denied").headers["Location"] == "/connected/declined"


def test_a_link_that_ended_is_explained(desk: RunningDesk, operator: Person) -> None:
    """The page says to ask for another, before the creator goes to TikTok for nothing."""
    link = operator.invite()
    handle = handle_of(link.rpartition("/")[2])
    desk.world.sql(f"UPDATE links SET ends_at = 1 WHERE handle = '{handle}'")  # noqa: S608 - our own hash

    page = Person(desk).get(link)
    assert (page.status_code, title(page)) == (410, "This link has ended")
    assert Person(desk).get("/connect/nonsense").status_code == 404
    assert Person(desk).get(f"/connect/{'x' * 5000}").status_code == 404


def test_links_lead_to_the_desk_if_it_has_an_address(new_world: Callable[..., World], new_desk: Any) -> None:
    """Also those of `authorize url` and of notices; without an address they lead to TikTok."""
    assert "/connect/" not in new_world().services.authorizer.url()
    world = new_world(DESK_URL="https://connect.example/")

    assert world.services.authorizer.url(life_seconds=86_400).startswith("https://connect.example/connect/")


def test_operators_see_the_fleet(desk: RunningDesk, operator: Person) -> None:
    """Counts by state, the token that ends first, what is due by hour, and consents that end by week."""
    first, second, _ = desk.world.creators(3)
    desk.services.store.mark_revoked(second.creator_id)
    ends = int(desk.services.store.ping().timestamp() * 1000) + 10 * 86_400_000
    desk.world.sql(f"UPDATE grants SET refresh_expires_at = {ends} WHERE id = {first.grant_id}")  # noqa: S608 - numbers of our own
    text = operator.get("/ops").text

    assert re.search(r'state=active">active</a> <strong>2<', text)
    assert re.search(r'state=revoked">revoked</a> <strong>1<', text)
    assert "ends in" in text
    assert re.search(r'<th scope="row">week 2</th><td>1</td>', text)
    assert re.search(r'<th scope="row">0 h</th><td>2</td>', text)
    desk.services.store.pull_brake("the secret is <refused>", probe_seconds=60)
    assert "the secret is &lt;refused&gt;" in operator.get("/ops").text


def test_operators_search_by_creator_and_by_reference(desk: RunningDesk, operator: Person) -> None:
    """The whole name, or its beginning; a state; a page that names the next."""
    ada, bob = desk.world.creators(2)
    desk.world.sql(f"UPDATE grants SET reference = 'user-42' WHERE id = {ada.grant_id}")  # noqa: S608 - our own number
    desk.services.store.mark_revoked(bob.creator_id)

    def found(query: str) -> set[str]:
        page = operator.get(f"/ops/grants?{query}")
        assert page.status_code == 200
        return {each.creator_id for each in (ada, bob) if each.creator_id in page.text}

    assert found("") == {ada.creator_id, bob.creator_id}
    assert found(f"q={ada.creator_id}") == found("q=user-42") == found("q=user-") == {ada.creator_id}
    assert found(f"q={bob.creator_id[:9]}") == {ada.creator_id, bob.creator_id}
    assert found("q=USER-42") == found("q=%25") == set()
    assert found("state=revoked") == {bob.creator_id}
    assert found("state=fresh") | found("state=due") == {ada.creator_id}
    assert found(f"after={ada.grant_id}") == {bob.creator_id}
    for query in ("state=dead", "after=x", "after=-1", f"q={'x' * 300}", "q=%00", "x=1"):
        assert operator.get(f"/ops/grants?{query}").status_code == 422, query


def test_operators_see_one_creators_timeline(desk: RunningDesk, operator: Person) -> None:
    """What happened and what comes next, as `grants explain` says it, with the tokens that were handed out."""
    grant = desk.world.creator()
    desk.world.services.refresher.refresh(grant.grant_id)
    desk.consumer("blog").token(grant.creator_id)
    text = operator.get(f"/ops/grants/{grant.creator_id}").text

    assert "TikTok gave a new pair, and it was stored" in text
    assert "the renewal window" in text or "renewal" in text
    assert "blog" in text
    assert operator.get("/ops/grants/nobody").status_code == 404
    assert operator.get("/ops/grants/%00").status_code == 404


def test_a_reconnect_link_is_for_its_creator(desk: RunningDesk, operator: Person) -> None:
    """Made from the creator's page; it keeps the reference and takes nobody else's consent."""
    grant = desk.world.creator()
    link = operator.invite(creator=grant.creator_id, reference="user-42")
    row = desk.services.store.link(handle_of(link.rpartition("/")[2]))

    assert row is not None
    assert (row.creator_id, row.reference) == (grant.creator_id, "user-42")
    assert 6 < (row.ends_at - row.now).days + 1 <= 7
    person = Person(desk)
    person.get(person.tiktok(person.get(link), grant.creator_id))
    assert desk.services.store.grant(grant.creator_id).consent == 2
    key = operator.form_key()
    for fields in ({"days": "0"}, {"days": "31"}, {"days": "x"}, {"creator": "a b"}, {"reference": "x" * 256}):
        answer = operator.post("/ops/invite", {"form_key": key, "days": "7"} | fields)
        assert answer.status_code == 422, fields


def test_operators_send_a_notice_again(new_world: Callable[..., World], new_desk: Any) -> None:
    """The worker's next round posts it under its id."""
    with running_receiver() as receiver:
        world = new_world(NOTICE_URL=receiver.url, NOTICE_SECRET=SECRET)
        desk = new_desk(world)
        operator = Person(desk)
        operator.log_in()
        desk.services.store.raise_alarm("1", "app_stopped", "the secret is <b>refused</b>")
        world.services.notifier.deliver()
        (notice,) = desk.services.store.notices()
        page = operator.get("/ops/notices").text
        assert "app.stopped" in page
        assert "&lt;b&gt;refused" in page
        sent = operator.post(f"/ops/notices/{notice.notice_id}/resend", {"form_key": operator.form_key("/ops/notices")})

        assert (sent.status_code, sent.headers["Location"]) == (303, "/ops/notices")
        world.services.notifier.deliver()
        assert [each.message_id for each in receiver.got] == [notice.message_id] * 2
        assert operator.get("/ops/notices?waiting=1").status_code == 200
        key = operator.form_key("/ops/notices")
        assert operator.post("/ops/notices/999/resend", {"form_key": key}).status_code == 404


def test_operators_see_and_revoke_consumers(desk: RunningDesk, operator: Person) -> None:
    """Names, scopes and counts, never a key; a revoked key stays listed."""
    shop = desk.consumer("shop", references=("shop7-*",))
    page = operator.get("/ops/consumers").text
    assert "shop7-*" in page
    assert shop.key not in page
    key = operator.form_key("/ops/consumers")

    assert operator.post("/ops/consumers/shop/revoke", {"form_key": key}).status_code == 303
    assert "revoked" in operator.get("/ops/consumers").text
    assert desk.services.store.consumers() == []
    assert operator.post("/ops/consumers/shop/revoke", {"form_key": key}).status_code == 404


def test_strangers_are_led_to_the_password_and_back(desk: RunningDesk) -> None:
    """Every page asks; after it the operator is where they wanted to be; forms are refused."""
    for path in (
        "/ops",
        "/ops/grants?state=active",
        "/ops/grants/ada",
        "/ops/invite",
        "/ops/notices",
        "/ops/consumers",
    ):
        stranger = Person(desk)
        led = stranger.get(path)
        assert led.status_code == 303
        assert led.headers["Location"].startswith("/ops/login?next=%2Fops")
        assert stranger.get(led.headers["Location"]).status_code == 200
        assert stranger.log_in(to=path).headers["Location"] == path
        assert stranger.get(path).status_code in {200, 404}
    for path in ("/ops/invite", "/ops/notices/1/resend", "/ops/consumers/shop/revoke", "/ops/logout"):
        assert Person(desk).post(path).status_code == 401


def test_a_session_ends_with_the_log_out(desk: RunningDesk, operator: Person) -> None:
    """Also for somebody who has kept the cookie."""
    cookies = dict(operator.session.cookies)
    operator.post("/ops/logout", {"form_key": operator.form_key()})

    assert operator.get("/ops").status_code == 303
    assert requests.get(f"{desk.url}/ops", cookies=cookies, allow_redirects=False, timeout=30).status_code == 303


def test_a_proxy_names_the_operator(new_desk: Any) -> None:
    """From a trusted address, and only names that the settings have; there is no password then."""
    trusted = {"DESK_OPERATOR_HEADER": "Remote-User", "DESK_OPERATORS": "ada, bob"}
    desk = new_desk(**trusted, DESK_PROXIES="127.0.0.1")
    person = Person(desk)
    assert person.get("/ops").status_code == 401
    assert person.get("/ops", headers={"Remote-User": "ada"}).status_code == 200
    assert person.get("/ops", headers={"Remote-User": "eve"}).status_code == 403
    assert person.log_in().status_code == 404
    key = re.findall(r'form_key" value="(\w+)"', person.get("/ops/invite", headers={"Remote-User": "ada"}).text)[0]
    bob = person.post("/ops/invite", {"form_key": key, "days": "7"}, headers={"Remote-User": "bob"})
    assert bob.status_code == 403
    elsewhere = new_desk(desk.world, **trusted, DESK_PROXIES="10.0.0.0/8")
    assert Person(elsewhere).get("/ops", headers={"Remote-User": "ada"}).status_code == 401


def test_a_consent_that_the_database_does_not_take_is_kept(desk: RunningDesk, operator: Person) -> None:
    """The creator is thanked, and the pair is stored from the journal once the database takes it."""
    name, creator = creator_name(), Person(desk)
    way_back = creator.tiktok(creator.get(operator.invite()), name)
    stored = desk.services.store

    def refuse(*_: Any, **__: Any) -> Any:
        raise StoreUnavailableError("the database went away")

    stored.save_consents = refuse  # type: ignore[method-assign]  # the outage begins after the answer came
    try:
        assert creator.get(way_back).headers["Location"] == "/connected/later"
    finally:
        del stored.save_consents
    assert "safely kept" in creator.get("/connected/later").text
    desk.services.journal.close()
    assert desk.world.services.upkeep.replay() == 1
    assert stored.grant(name).consent == 1


@pytest.mark.as_owner
def test_the_doctor_looks_at_the_desk(desk: RunningDesk, new_world: Callable[..., World], free_port: int) -> None:
    """Ready, not running, not set up, and set up by half: a line each."""
    found = checks_outside.desk(desk.services)
    assert (found.state, f"port {desk.port}: ready" in found.detail) == ("ok", True)
    away = desk.world.another(**desk_settings(free_port))
    assert checks_outside.desk(away).state == "warn"
    assert "not set up here;" in checks_outside.desk(desk.world.services).detail
    elsewhere = checks_outside.desk(desk.world.another(DESK_URL="https://connect.example"))
    assert (elsewhere.state, "lead to https://connect.example" in elsewhere.detail) == ("ok", True)
    half = desk.world.another(DESK_PASSWORD=PASSWORD)
    with pytest.raises(ConfigurationError, match="DESK_SECRET is missing"):
        checks_outside.desk(half)
    desk.world.sql("DELETE FROM evertoken_schema")
    assert checks_outside.desk(desk.services).state == "fail"
