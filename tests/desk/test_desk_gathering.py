"""Reads of tokens that gather: what they share, what each keeps to itself, and that nobody sees a difference."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from tests.support.desk import Neighbour, RunningDesk
from tests.worker.test_reader import near_its_end
from worker.desk.gathering import Gathering
from worker.errors import StoreRefusedError, StoreUnavailableError
from worker.store import Store

CHANGING: Final = {"content-length", "date", "retry-after"}
"""Headers that change with time."""


class Gate:
    """Holds the first call of a method of the store up until it is let through; counts all.

    Attributes:
        came: set when a call has come.
        go: lets the first call through.
        sizes: of the calls so far, in their order.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
        self.came, self.go = threading.Event(), threading.Event()
        self.sizes: list[int] = []
        self.error: Exception | None = None
        true: Callable[..., Any] = getattr(Store, method)

        def held(store: Store, given: Sequence[Any]) -> Any:
            self.sizes.append(len(given))
            self.came.set()
            assert len(self.sizes) > 1 or self.go.wait(30)
            if self.error:
                raise self.error
            return true(store, given)

        monkeypatch.setattr(Store, method, held)


def waiting(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list that grows by each request that gathers."""
    asked: list[Any] = []
    true = Gathering.ask

    def noted(gathering: Gathering, wish: Any) -> Any:
        asked.append(wish)
        return true(gathering, wish)

    monkeypatch.setattr(Gathering, "ask", noted)
    return asked


def bare_request(asker: Neighbour, creator_id: str) -> bytes:
    """Return a request for a token as its bytes."""
    lines = (f"GET /v1/creators/{creator_id}/token HTTP/1.1", "Host: x", f"Authorization: Bearer {asker.key}")
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def test_requests_that_wait_together_share_a_read_and_a_commit(
    desk: RunningDesk, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    """While one group is read the next gathers: one statement, one commit of rows, and each gets its own token."""
    grants = desk.world.creators(5)
    shop, blog = desk.consumer("shop"), desk.consumer("blog")
    for neighbour in (shop, blog):
        assert neighbour.token(grants[0].creator_id).status_code == 200
    monkeypatch.setattr("worker.desk.gathering.PATIENCE_SECONDS", 60)
    reads, rows = Gate(monkeypatch, "served_pairs"), Gate(monkeypatch, "note_hand_outs")
    rows.go.set()
    asked = waiting(monkeypatch)
    with ThreadPoolExecutor(21) as pool:
        first = pool.submit(shop.token, grants[0].creator_id)
        assert reads.came.wait(30)
        others = [pool.submit((shop, blog)[number % 2].token, grants[number % 5].creator_id) for number in range(20)]
        wait_until(lambda: len(asked) == 21)
        reads.go.set()
        answers = [each.result(60) for each in [first, *others]]

    assert {answer.status_code for answer in answers} == {200}
    names = [grants[0].creator_id, *(grants[number % 5].creator_id for number in range(20))]
    assert [answer.json()["creator_id"] for answer in answers] == names
    assert len({answer.json()["access_token"] for answer in answers}) == 5
    assert (reads.sizes, rows.sizes) == ([1, 5], [1, 20])
    assert {each.name: each.handed_out for each in desk.services.store.consumers()} == {"shop": 12, "blog": 11}


def test_a_lone_request_waits_for_no_company(desk: RunningDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that come one after the other are answered at once, however long others would gather."""
    monkeypatch.setattr("worker.desk.gathering.GATHER_SECONDS", 60)
    monkeypatch.setattr("worker.desk.gathering.PATIENCE_SECONDS", 60)
    grant, shop = desk.world.creator(), desk.consumer()
    answers = [shop.token(grant.creator_id) for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200] * 5
    assert max(answer.elapsed.total_seconds() for answer in answers) < 30


def test_a_group_that_takes_long_holds_nobody_up(desk: RunningDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes while the database keeps one group waiting is answered by another thread."""
    grant, shop = desk.world.creator(), desk.consumer()
    assert shop.token(grant.creator_id).status_code == 200
    reads = Gate(monkeypatch, "served_pairs")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(shop.token, grant.creator_id)
        assert reads.came.wait(30)
        assert [shop.token(grant.creator_id).status_code for _ in range(3)] == [200] * 3
        assert not first.done()
        reads.go.set()
        assert first.result(60).status_code == 200


def test_no_token_leaves_before_its_row_is_committed(desk: RunningDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the database has not taken the row, the request has no answer."""
    grant, shop = desk.world.creator(), desk.consumer()
    assert shop.token(grant.creator_id).status_code == 200
    rows = Gate(monkeypatch, "note_hand_outs")
    with socket.create_connection(("127.0.0.1", desk.port), timeout=30) as connection:
        connection.sendall(bare_request(shop, grant.creator_id))
        assert rows.came.wait(30)
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)
        connection.settimeout(30)
        rows.go.set()
        assert connection.recv(12) == b"HTTP/1.1 200"
    assert len(desk.services.store.hand_outs()) == 2


def test_what_cannot_be_audited_is_handed_out(desk: RunningDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens matter more: the log has each row that the database refused."""
    grant, shop = desk.world.creator(), desk.consumer()
    assert shop.token(grant.creator_id).status_code == 200
    rows = Gate(monkeypatch, "note_hand_outs")
    rows.error = StoreRefusedError("the disk is full")
    rows.go.set()

    assert shop.token(grant.creator_id).status_code == 200
    (fact,) = [fact for fact in desk.facts if fact.name == "token.unaudited"]
    assert (fact.fields["grant_id"], fact.fields["reason"]) == (grant.grant_id, "the disk is full")


def test_a_database_that_hangs_is_waited_for_once(
    desk: RunningDesk, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    """Who came while a read hung that then failed gets the same 503, and who comes later is served."""
    grant, shop = desk.world.creator(), desk.consumer()
    assert shop.token(grant.creator_id).status_code == 200
    monkeypatch.setattr("worker.desk.gathering.PATIENCE_SECONDS", 60)
    reads, asked = Gate(monkeypatch, "served_pairs"), waiting(monkeypatch)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(shop.token, grant.creator_id)
        assert reads.came.wait(30)
        others = [pool.submit(shop.token, grant.creator_id) for _ in range(3)]
        wait_until(lambda: len(asked) == 4)
        reads.error = StoreUnavailableError("the server did not answer")
        reads.go.set()
        answers = [each.result(60) for each in [first, *others]]
    reads.error = None

    assert {(answer.status_code, answer.headers["Retry-After"]) for answer in answers} == {(503, "5")}
    assert reads.sizes == [1]
    assert shop.token(grant.creator_id).status_code == 200


def test_an_error_that_nobody_foresaw_is_answered(desk: RunningDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 for those whose read it was, and the next read is answered as ever."""
    grant, shop = desk.world.creator(), desk.consumer()
    assert shop.token(grant.creator_id).status_code == 200
    reads = Gate(monkeypatch, "served_pairs")
    reads.error = ZeroDivisionError("CANARY")
    reads.go.set()

    answer = shop.token(grant.creator_id)
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:evertoken:problem:internal")
    assert "CANARY" not in answer.text
    reads.error = None
    assert shop.token(grant.creator_id).status_code == 200


def test_a_client_that_goes_away_disturbs_nobody(
    desk: RunningDesk, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    """The others of its group get their answers."""
    grant, shop = desk.world.creator(), desk.consumer()
    assert shop.token(grant.creator_id).status_code == 200
    reads, asked = Gate(monkeypatch, "served_pairs"), waiting(monkeypatch)
    with ThreadPoolExecutor(3) as pool:
        with socket.create_connection(("127.0.0.1", desk.port), timeout=30) as connection:
            connection.sendall(bare_request(shop, grant.creator_id))
            assert reads.came.wait(30)
            stays = [pool.submit(shop.token, grant.creator_id) for _ in range(3)]
            wait_until(lambda: len(asked) == 4)
        reads.go.set()
        assert [each.result(60).status_code for each in stays] == [200] * 3
    assert shop.token(grant.creator_id).status_code == 200


def answers_to(desk: RunningDesk, askers: Sequence[Neighbour], creators: Sequence[str]) -> list[Any]:
    """Return what each asker is told about each creator in each way; what changes with time is left out."""
    told = []
    ways: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({}, {}), ({"min_validity": 3600, "wait": 0}, {}), ({"min_validity": "x"}, {}), ({"wait": 16}, {}),
        ({"newer_than": 1, "wait": 0}, {}), ({"newer_than": 9}, {}),
        ({}, {"If-None-Match": '"0.0", "1.1"'}), ({}, {"If-None-Match": '"1.2"'}),
    ]  # fmt: skip
    for asker in askers:
        for creator_id in creators:
            for query, headers in ways:
                answer = asker.get(f"creators/{creator_id}/token", headers=headers, **query)
                body = answer.json() if answer.content else {}
                body.pop("expires_in", None)
                if answer.status_code == 503:
                    body.pop("detail")
                kept = {name: value for name, value in answer.headers.items() if name not in CHANGING}
                told.append((answer.status_code, body, kept))
    return told


def test_nobody_sees_whether_a_request_gathered(desk: RunningDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each consumer gets the same answer about each creator, and the same audit rows, as from a thread of its own."""
    mine, named, short, revoked, lost, held, reauth, foreign = desk.world.creators(8)
    near_its_end(desk.world, short, seconds=900)
    desk.services.store.mark_revoked(revoked.creator_id)
    for statement in (
        f"UPDATE grants SET reference = 'shop7-1' WHERE id = {mine.grant_id}",  # noqa: S608 - numbers of our own
        f"UPDATE grants SET reference = 'Shop7-2' WHERE id = {foreign.grant_id}",  # noqa: S608 - as above
        f"UPDATE pairs SET sealed_access = NULL, sealed_refresh = NULL, wiped_at = 1 WHERE grant_id = {lost.grant_id}",  # noqa: S608 - as above
        f"UPDATE grants SET belongs_to = 'another' WHERE id = {held.grant_id}",  # noqa: S608 - as above
        f"UPDATE grants SET status = 'needs_reauth', access_expires_at = 1 WHERE id = {reauth.grant_id}",  # noqa: S608 - as above
        # Refreshes fail, so that no question changes what the next one sees.
        "UPDATE grants SET failures = 1",
    ):
        desk.world.sql(statement)
    askers = [desk.consumer("all"), desk.consumer("some", creators=(named.creator_id,), references=("shop7-*",))]
    creators = [mine, named, short, revoked, lost, held, reauth, foreign]
    names = [*(each.creator_id for each in creators), "nobody", "%20", "a%2Fb"]

    gathered = answers_to(desk, askers, names)
    rows = [(row.consumer, row.creator_id, row.generation) for row in desk.services.store.hand_outs(limit=1000)]
    monkeypatch.setattr(Gathering, "ask", _nothing)
    alone = answers_to(desk, askers, names)
    again = [(row.consumer, row.creator_id, row.generation) for row in desk.services.store.hand_outs(limit=1000)]

    assert gathered == alone
    assert again == rows + rows
    assert {status for status, _, _ in gathered} == {200, 304, 404, 409, 422, 503}


async def _nothing(gathering: Gathering, wish: Any) -> None:
    """Have nothing at hand."""


def test_a_revoked_grant_is_seen_by_the_next_request(desk: RunningDesk) -> None:
    """Nothing of a read is kept for the next one."""
    grant, shop = desk.world.creator(), desk.consumer()
    assert shop.token(grant.creator_id).status_code == 200
    desk.services.store.mark_revoked(grant.creator_id)
    assert shop.token(grant.creator_id).status_code == 409
