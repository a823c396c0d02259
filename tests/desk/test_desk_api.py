"""Tokens over HTTP: who gets which, in which words it is refused, and what it costs TikTok."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.desk import Neighbour, RunningDesk
from tests.support.world import World
from tests.worker.test_reader import at_work, near_its_end, plan_later
from worker.desk.openapi import description
from worker.telemetry.metrics import REGISTRY
from worker.vault import PairPlace

OPENAPI = Path(__file__).parents[2] / "docs" / "openapi.json"
PROBLEM = "urn:evertoken:problem:"


def problem(answer: requests.Response, status: int, kind: str) -> dict[str, Any]:
    """Check that an answer is this problem, and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    told: dict[str, Any] = answer.json()
    assert (told["type"], told["status"]) == (PROBLEM + kind, status)
    assert told["detail"]
    return told


def test_a_token_is_handed_out_with_its_end(desk: RunningDesk) -> None:
    """The token is the stored one; nobody on the way keeps it; the row and the count of the audit are there."""
    grant = desk.world.creator()
    answer = desk.consumer().token(grant.creator_id, min_validity=60)

    assert answer.status_code == 200
    got = answer.json()
    sealed = desk.world.services.store.current_pair(grant.creator_id).sealed
    stored = desk.world.services.sealer.open_access(sealed, PairPlace(grant.creator_id, 1, 1))
    assert got["access_token"] == stored.reveal()
    assert (got["creator_id"], got["consent"], got["generation"]) == (grant.creator_id, 1, 1)
    assert 0 < got["expires_in"] <= 86400
    assert got["expires_at"].endswith("Z")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["ETag"] == '"1.1"'
    (row,) = desk.services.store.hand_outs()
    assert (row.consumer, row.creator_id, row.generation) == ("shop", grant.creator_id, 1)
    assert [each.handed_out for each in desk.services.store.consumers()] == [1]


def test_a_token_that_is_still_the_same_is_not_sent_again(desk: RunningDesk) -> None:
    """With its ETag the answer is 304 without a token, and no hand-out; another generation is sent whole."""
    grant = desk.world.creator()
    shop = desk.consumer()
    first = shop.token(grant.creator_id)
    same = shop.token(grant.creator_id, headers={"If-None-Match": f'"0.0", {first.headers["ETag"]}'})

    assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert len(desk.services.store.hand_outs()) == 1
    desk.world.services.refresher.refresh(grant.grant_id)
    newer = shop.token(grant.creator_id, headers={"If-None-Match": first.headers["ETag"]})
    assert newer.status_code == 200
    assert newer.json()["generation"] == 2


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="none"),
        pytest.param({"Authorization": ""}, id="empty"),
        pytest.param({"Authorization": "Bearer"}, id="no key"),
        pytest.param({"Authorization": "Basic YTpi"}, id="another scheme"),
        pytest.param({"Authorization": "Bearer etk_" + "0" * 16 + "_" + "A" * 43}, id="nobody's"),
    ],
)
def test_without_a_key_nothing_is_told(desk: RunningDesk, headers: dict[str, str]) -> None:
    """Every address but the description asks for the key first, whatever else is wrong."""
    grant = desk.world.creator()
    for method, path in (
        ("GET", f"creators/{grant.creator_id}/token"),
        ("GET", "creators/nobody/token?min_validity=nonsense"),
        ("POST", f"creators/{grant.creator_id}/rejected"),
        ("GET", "creators"),
    ):
        answer = requests.request(method, f"{desk.url}/v1/{path}", headers=headers, timeout=30)
        problem(answer, 401, "key")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert grant.creator_id not in answer.text


def test_a_revoked_key_opens_nothing(desk: RunningDesk, wait_until: Callable[..., None]) -> None:
    """It works no more after a second."""
    grant = desk.world.creator()
    shop = desk.consumer()
    assert shop.token(grant.creator_id).status_code == 200
    desk.services.store.revoke_consumer("shop")

    wait_until(lambda: shop.token(grant.creator_id).status_code == 401)


def test_another_consumers_creator_does_not_exist(desk: RunningDesk) -> None:
    """404 in exactly the words for a creator that nobody knows, for tokens and for reports; the list leaves it out."""
    mine, others = desk.world.creators(2)
    desk.world.sql(f"UPDATE grants SET reference = 'shop7-1' WHERE id = {mine.grant_id}")  # noqa: S608 - our own number
    shop = desk.consumer(references=("shop7-*",))

    assert shop.token(mine.creator_id).status_code == 200
    assert [each["creator_id"] for each in shop.get("creators").json()["creators"]] == [mine.creator_id]
    foreign, unknown = shop.token(others.creator_id), shop.token("nobody")
    problem(foreign, 404, "unknown-creator")
    assert (foreign.status_code, foreign.content) == (unknown.status_code, unknown.content)
    assert shop.report(others.creator_id, 1).content == shop.report("nobody", 1).content == foreign.content
    assert len(desk.services.store.hand_outs()) == 1


@pytest.mark.parametrize(
    "creator_id", ["nobody", "a b", "x" * 300, "%00", "%2F", "..%2F..%2Fetc", "%F0%9F%98%80", "%FF", "'%20OR%20'1'='1"]
)
def test_an_id_that_nobody_has_is_unknown(desk: RunningDesk, creator_id: str) -> None:
    """Whatever stands there: 404, and no error of ours."""
    shop = desk.consumer()

    problem(shop.token(creator_id), 404, "unknown-creator")
    problem(shop.report(creator_id, 1), 404, "unknown-creator")


def test_a_paused_grant_is_served_and_then_told_as_such(desk: RunningDesk) -> None:
    """The token at hand goes out; one that does not do is a 503 at once, and `detail` says that no refresh comes."""
    grant = desk.world.creator()
    desk.services.store.pause(creator_id=grant.creator_id)
    shop = desk.consumer()

    assert shop.token(grant.creator_id).status_code == 200
    answer = shop.token(grant.creator_id, min_validity=90_000, wait=15)
    assert "the grant is paused since" in problem(answer, 503, "not-yet")["detail"]
    assert answer.headers["Retry-After"] == "60"
    assert answer.elapsed.total_seconds() < 10


def test_a_grant_without_a_token_says_its_verdict(desk: RunningDesk) -> None:
    """Revoked, lost, held, and to be authorized again: 409, since waiting does not help; with what is behind it."""
    revoked, lost, held, reauth = desk.world.creators(4)
    desk.services.store.mark_revoked(revoked.creator_id)
    for statement in (
        f"UPDATE pairs SET sealed_access = NULL, sealed_refresh = NULL, wiped_at = 1 WHERE grant_id = {lost.grant_id}",  # noqa: S608 - numbers of our own
        f"UPDATE grants SET belongs_to = 'another' WHERE id = {held.grant_id}",  # noqa: S608 - as above
        f"UPDATE grants SET status = 'needs_reauth', access_expires_at = 1 WHERE id = {reauth.grant_id}",  # noqa: S608 - as above
        f"UPDATE grants SET verdict = 'creator_revoked' WHERE id = {reauth.grant_id}",  # noqa: S608 - as above
    ):
        desk.world.sql(statement)
    shop = desk.consumer()

    for grant, verdict in ((revoked, "revoked"), (lost, "lost"), (held, "held"), (reauth, "reauth-needed")):
        told = problem(shop.token(grant.creator_id), 409, verdict)
        assert told["verdict"] == verdict
        assert told["cause"] == ("creator_revoked" if grant is reauth else "unknown")
        assert "celery" not in told["detail"]
        assert "another'" not in told["detail"]


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ({"min_validity": "soon"}, "parameter"),
        ({"min_validity": "-1"}, "parameter"),
        ({"min_validity": "nan"}, "parameter"),
        ({"min_validity": "inf"}, "parameter"),
        ({"min_validity": ""}, "parameter"),
        ({"min_validity": "1_000"}, "parameter"),
        ({"min_validity": ["1", "2"]}, "parameter"),
        ({"min_validty": "60"}, "parameter"),
        ({"wait": "16"}, "parameter"),
        ({"newer_than": "0"}, "parameter"),
        ({"newer_than": "1.5"}, "parameter"),
        ({"newer_than": "9" * 30}, "parameter"),
        ({"newer_than": "7"}, "generation"),
    ],
)
def test_absurd_wishes_are_refused_by_name(desk: RunningDesk, query: dict[str, Any], kind: str) -> None:
    """422 says which parameter cannot be used; nothing is handed out and nothing is refreshed."""
    grant = desk.world.creator()
    plan_later(desk.world, grant)

    problem(desk.consumer().token(grant.creator_id, **query), 422, kind)
    assert desk.services.store.hand_outs() == []
    assert desk.world.look(grant).next_refresh_at.year > 2090


def test_a_validity_that_no_token_has_is_refused(desk: RunningDesk) -> None:
    """Two days of a token that lives for one: 422, not a wait."""
    grant = desk.world.creator()
    desk.world.services.refresher.refresh(grant.grant_id)

    told = problem(desk.consumer().token(grant.creator_id, min_validity=172_800), 422, "validity")
    assert "lives 8" in told["detail"]


def test_too_little_time_left_brings_a_refresh(desk: RunningDesk) -> None:
    """Without a worker in time: 503 and when to come back; with one the newer token comes in the same answer."""
    grant = desk.world.creator()
    near_its_end(desk.world, grant, seconds=120)
    shop = desk.consumer()

    early = shop.token(grant.creator_id, min_validity=300, wait=0)
    problem(early, 503, "not-yet")
    assert int(early.headers["Retry-After"]) >= 1
    assert desk.world.look(grant).next_refresh_at <= desk.services.store.ping()
    with at_work(desk.world):
        answer = shop.token(grant.creator_id, min_validity=300)
    assert answer.status_code == 200, answer.text
    assert answer.json()["generation"] == 2


def test_five_hundred_reports_cause_one_refresh(desk: RunningDesk) -> None:
    """Reports of the current generation join; stale ones change nothing."""
    grant = desk.world.creator()
    plan_later(desk.world, grant)
    shop = desk.consumer()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: shop.report(grant.creator_id, 1), range(500)))
    assert {answer.status_code for answer in answers} == {200}
    assert sum(answer.json()["refresh_requested"] for answer in answers) == 1
    with at_work(desk.world):
        newer = shop.token(grant.creator_id, newer_than=1)
    assert newer.json()["generation"] == 2
    plan_later(desk.world, grant)

    assert not any(shop.report(grant.creator_id, 1).json()["refresh_requested"] for _ in range(20))
    assert len(desk.world.refreshes(grant)) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b'{"generation": "1"}', b'{"generation": true}', b'{"generation": 1.0}',
     b'{"generation": 0}', b'{"generation": 99999999999}', b'{"generation": 1, "x": 1}', b"[" * 9000, b"\xff"],
)  # fmt: skip
def test_an_unfit_report_is_refused(desk: RunningDesk, body: bytes) -> None:
    """422 says what the body has to be."""
    grant = desk.world.creator()
    shop = desk.consumer()
    answer = requests.post(
        f"{desk.url}/v1/creators/{grant.creator_id}/rejected",
        data=body,
        headers={"Authorization": f"Bearer {shop.key}"},
        timeout=30,
    )

    problem(answer, 422, "body")


def test_a_report_of_what_has_not_come_is_refused(desk: RunningDesk) -> None:
    """A generation from the future, and one of a grant without a token."""
    grant, revoked = desk.world.creators(2)
    desk.services.store.mark_revoked(revoked.creator_id)
    shop = desk.consumer()

    problem(shop.report(grant.creator_id, 9), 422, "generation")
    problem(shop.report(revoked.creator_id, 1), 409, "revoked")


def test_creators_are_listed_page_by_page_without_tokens(desk: RunningDesk) -> None:
    """State, ends and reference; a page names where the next begins; a filter by status."""
    first, second, third = desk.world.creators(3)
    desk.services.store.mark_revoked(second.creator_id)
    shop = desk.consumer()
    page = shop.get("creators", limit=2).json()
    rest = shop.get("creators", limit=2, after=page["next_after"]).json()

    found = page["creators"] + rest["creators"]
    assert [each["creator_id"] for each in found] == [first.creator_id, second.creator_id, third.creator_id]
    assert [each["status"] for each in found] == ["active", "revoked", "active"]
    assert rest["next_after"] is None
    assert found[1]["access_token_ends_at"] is None
    assert "CANARY" not in json.dumps(found)
    active = shop.get("creators", status="revoked").json()["creators"]
    assert [each["creator_id"] for each in active] == [second.creator_id]
    for query in ({"status": "dead"}, {"limit": 0}, {"limit": 1001}, {"after": "x"}, {"after": -1}, {"x": 1}):
        problem(shop.get("creators", **query), 422, "parameter")


def test_tokens_are_read_while_everything_else_is_away(new_world: Callable[..., World], new_desk: Any) -> None:
    """Redis and TikTok at dead addresses, and no worker: tokens, lists and reports go on."""
    world = new_world()
    grant = world.creator()
    dead = "http://127.0.0.1:9/"
    desk = new_desk(world, REDIS_URL="redis://127.0.0.1:9/0", TIKTOK_BASE_URL=dead, TIKTOK_AUTHORIZE_URL=dead)
    shop = desk.consumer()

    assert shop.token(grant.creator_id).status_code == 200
    assert shop.report(grant.creator_id, 1).status_code == 200
    assert len(shop.get("creators").json()["creators"]) == 1
    assert requests.get(f"{desk.url}/readyz", timeout=30).status_code == 200


def test_a_database_that_is_away_is_said(
    new_world: Callable[..., World], new_desk: Any, tmp_path: Path, database_kind: str
) -> None:
    """503 with when to come back; the process lives, and is not ready."""
    if database_kind == "postgresql":
        pytest.skip("the file of SQLite is what a test can take away from a store alone")
    world = new_world()
    grant = world.creator()
    desk = new_desk(world)
    shop = desk.consumer()
    assert shop.token(grant.creator_id).status_code == 200
    file = desk.services.store.path
    file.rename(file.with_suffix(".away"))
    try:
        answer = shop.token(grant.creator_id)
        problem(answer, 503, "database-away")
        assert int(answer.headers["Retry-After"]) >= 1
        assert requests.get(f"{desk.url}/readyz", timeout=30).status_code == 503
        assert requests.get(f"{desk.url}/healthz", timeout=30).status_code == 200
    finally:
        file.with_suffix(".away").rename(file)
    assert shop.token(grant.creator_id).status_code == 200


def test_only_so_many_requests_wait(desk: RunningDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds all places of waiting taken is told when to come back, and tokens at hand go on being read."""
    slow, quick = desk.world.creators(2)
    near_its_end(desk.world, slow, seconds=60)
    shop = desk.consumer()
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(shop.token, slow.creator_id, min_validity=300, wait=10) for _ in range(40)]
        reads = [shop.token(quick.creator_id) for _ in range(5)]
        answers = [each.result(60) for each in waiting]

    assert [read.status_code for read in reads] == [200] * 5
    assert max(read.elapsed.total_seconds() for read in reads) < 9
    assert {answer.status_code for answer in answers} == {503}
    at_once = sum(answer.elapsed.total_seconds() < 9 for answer in answers)
    assert at_once >= 40 - 24


def test_wrong_methods_and_addresses_are_named(desk: RunningDesk) -> None:
    """405 with what is possible, 404 for what is not there, 413 for a body that no report has."""
    shop = desk.consumer()
    bearing = {"Authorization": f"Bearer {shop.key}"}
    token = f"{desk.url}/v1/creators/ada/token"
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = requests.request(method, token, headers=bearing, timeout=30)
        problem(answer, 405, "method")
        assert answer.headers["Allow"] == "GET"
    assert requests.head(token, headers=bearing, timeout=30).status_code == 405
    problem(shop.get("nowhere"), 404, "unknown-address")
    large = requests.post(f"{desk.url}/v1/creators/a/rejected", data=b"x" * 20_000, headers=bearing, timeout=30)
    problem(large, 413, "too-large")


def test_the_description_is_served_and_in_the_docs(desk: RunningDesk) -> None:
    """One document: what the code says, what is served, and what is in the repository."""
    served = requests.get(f"{desk.url}/v1/openapi.json", timeout=30).json()

    assert served == description()
    assert json.loads(OPENAPI.read_text()) == served


def test_fifty_askers_of_the_last_minutes_share_a_refresh(desk: RunningDesk) -> None:
    """All are served, some after they came back as told; the ledger has one refresh."""
    grant = desk.world.creator()
    near_its_end(desk.world, grant, seconds=120)
    shop = desk.consumer()
    gone = threading.Event()

    def ask(_: int) -> int:
        for _ in range(20):
            answer = shop.token(grant.creator_id, min_validity=300)
            if answer.status_code == 200:
                return int(answer.json()["generation"])
            assert answer.status_code == 503
            gone.wait(0.2)
        return 0

    with ThreadPoolExecutor(50) as pool, at_work(desk.world):
        assert list(pool.map(ask, range(50))) == [2] * 50
    assert len(desk.world.refreshes(grant)) == 1


def test_an_unreadable_pair_is_our_error_and_is_logged(desk: RunningDesk) -> None:
    """Damaged bytes: 500 in words for the neighbour, and one error in the log for the operator."""
    grant = desk.world.creator()
    desk.world.sql(f"UPDATE pairs SET sealed_access = sealed_refresh WHERE grant_id = {grant.grant_id}")  # noqa: S608 - our own number

    told = problem(desk.consumer().token(grant.creator_id), 500, "unreadable")
    assert "does not open" in told["detail"]
    (fact,) = [fact for fact in desk.facts if fact.name == "token.unreadable"]
    assert fact.level == "error"


def test_guessing_keys_is_bounded_and_locks_out_nobody(desk: RunningDesk) -> None:
    """After thirty wrong keys in a minute an address gets 429 for any key but one that has worked; one line says so."""
    grant = desk.world.creator()
    shop = desk.consumer()
    assert shop.token(grant.creator_id).status_code == 200
    guesser = Neighbour(desk.url, "etk_" + "0" * 16 + "_" + "A" * 43)
    statuses = [guesser.get("creators").status_code for _ in range(32)]

    assert statuses == [401] * 30 + [429] * 2
    answer = guesser.get("creators")
    problem(answer, 429, "guessing")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert shop.token(grant.creator_id).status_code == 200
    (fact,) = [fact for fact in desk.facts if fact.name == "desk.keys_guessed"]
    assert (fact.level, fact.fields["address"]) == ("warning", "127.0.0.1")


def test_no_token_and_no_key_is_in_what_is_logged(desk: RunningDesk, caplog: pytest.LogCaptureFixture) -> None:
    """Neither facts nor lines of libraries show a token or a key."""
    caplog.set_level("DEBUG")
    grant = desk.world.creator()
    shop = desk.consumer()
    token = shop.token(grant.creator_id).json()["access_token"]
    shop.report(grant.creator_id, 1)

    told = caplog.text + repr(desk.facts) + repr(desk.services.settings)
    assert token not in told
    assert shop.key[-43:] not in told.replace(f"Bearer {shop.key}", "")


def test_requests_for_tokens_count_by_consumer_and_outcome(desk: RunningDesk) -> None:
    """Served, unchanged and refused requests of a known key count; a wrong key is nobody's."""
    grant, shop = desk.world.creator(), desk.consumer()
    names = ("served", "unchanged", "unknown-creator", "parameter")

    def counts() -> list[float]:
        series = [{"consumer": "shop", "outcome": name} for name in names]
        return [REGISTRY.get_sample_value("evertoken_token_reads_total", labels) or 0 for labels in series]

    before = counts()

    tag = shop.token(grant.creator_id).headers["ETag"]
    shop.token(grant.creator_id, headers={"If-None-Match": tag})
    shop.token("nobody-whom-we-know")
    shop.token(grant.creator_id, min_validity="soon")

    assert counts() == [number + 1 for number in before]
