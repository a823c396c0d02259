"""Tokens over HTTP: version 1 of the API, for neighbours with a key.

The rules are those of `worker.tokens`, whose reader it asks; it needs the database and nothing else. What a consumer
may not ask about does not exist for it: 404, in the same words as for a creator that nobody knows.
"""

from __future__ import annotations

import json
import math
import threading
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from starlette.responses import Response
from starlette.routing import BaseRoute

from worker.desk.gathering import Gathering, Given, Wish, row_of, tag_of
from worker.desk.guesses import Guesses
from worker.desk.openapi import description
from worker.desk.web import Asked, ProblemError, Ways, json_answer
from worker.errors import (
    EvertokenError,
    ExpiredError,
    HeldError,
    LostError,
    NotFoundError,
    ReauthNeededError,
    RevokedError,
    SealError,
    UnknownCreatorError,
    UsageError,
    ValidityError,
)
from worker.policy.creator_id import is_creator_id
from worker.policy.verdicts import Cause
from worker.store import ConsumerView, GrantStatus, GrantView, Store
from worker.telemetry import Fact, FactValue, Hook, count_token_read
from worker.tokens.audit import Audit
from worker.tokens.consumers import ConsumerKeys
from worker.tokens.reader import ServedToken, TokenReader

WAIT_SECONDS: Final = 15.0
"""How long a request waits for a refresh at most, and if it does not say."""
WAITERS: Final = 24
"""Requests that wait at the same time; the others are told when to come back. Threads are left for tokens at hand."""
WRONG_KEYS: Final = 30
"""Wrong keys of one address in a minute."""
MOST_LISTED: Final = 1000
LISTED: Final = 100
LARGEST_ID: Final = 2**63 - 1
LARGEST_GENERATION: Final = 2**31 - 1
UNAUTHORIZED: Final = {"WWW-Authenticate": 'Bearer realm="evertoken"'}
ENDED: Final[dict[type[NotFoundError], str]] = {
    RevokedError: "revoked",
    LostError: "lost",
    HeldError: "held",
    ReauthNeededError: "reauth-needed",
}
"""Why a grant has no token and waiting does not help: the verdict."""
SAID: Final = {
    "revoked": "the grant was ended here and its tokens are wiped; a new authorization brings it back",
    "lost": "the pair of this creator is not in the database; a backup or a new authorization brings one",
    "held": "the stored pair belongs to another creator, as TikTok says, and is not handed out",
    "reauth-needed": "TikTok refuses to refresh this grant; the creator has to authorize again",
}


class Api:
    """Version 1 of the API.

    Args:
        store: the database.
        reader: reads tokens.
        hook: where facts go.
    """

    def __init__(self, *, store: Store, reader: TokenReader, hook: Hook) -> None:
        self._store = store
        self._reader = reader
        self._hook = hook
        self._keys = ConsumerKeys(store)
        self._audit = Audit(store, hook)
        self._gathering = Gathering(store=store, reader=reader, keys=self._keys, audit=self._audit)
        self._guesses = Guesses(WRONG_KEYS)
        self._waiters = threading.BoundedSemaphore(WAITERS)

    def close(self) -> None:
        """End the threads that read tokens, when no request waits any more."""
        self._gathering.close()

    def routes(self, ways: Ways) -> list[BaseRoute]:
        """Return the API's routes."""
        return [
            ways.route("/v1/openapi.json", "openapi", {"GET": self.describe}),
            ways.route("/v1/creators", "creators", {"GET": self.creators}),
            ways.route(
                "/v1/creators/{creator_id:path}/token",
                "token",
                {"GET": self.token},
                at_once={"GET": self.token_at_hand},
            ),
            ways.route("/v1/creators/{creator_id:path}/rejected", "rejected", {"POST": self.rejected}),
            ways.route("/v1/{rest:path}", "unknown", dict.fromkeys(("GET", "POST"), self.unknown)),
        ]

    def describe(self, asked: Asked) -> Response:
        """Answer with the description of the API."""
        del asked
        return json_answer(description())

    def unknown(self, asked: Asked) -> Response:
        """Answer that there is nothing at this address."""
        del asked
        raise ProblemError(404, "unknown-address", "there is nothing at this address; /v1/openapi.json lists what is")

    async def token_at_hand(self, asked: Asked) -> Response | None:
        """Hand out a token at hand, read together with those of other requests; None if `token` has to look closer."""
        key = _key_of(asked)
        consumer = self._keys.seen(key)
        if consumer is None:
            return None
        try:
            wish, _ = _wish(asked, key)
        except ProblemError:
            return None
        try:
            given = await self._gathering.ask(wish)
        except Exception:
            count_token_read(consumer.name, "failed")
            raise
        return None if given is None else _handed(given)

    def token(self, asked: Asked) -> Response:
        """Hand out a creator's access token, also one that has to be waited for."""
        consumer = self._consumer_of(asked)
        try:
            wish, wait = _wish(asked, _key_of(asked))
            self._refuse_foreign(consumer, wish.creator_id)
            served = self._serve(wish, wait)
            given = Given(consumer, served, tag_of(served) in wish.has)
            if not given.is_known:
                self._audit.note([row_of(given)])
        except Exception as error:
            count_token_read(consumer.name, error.kind if isinstance(error, ProblemError) else "failed")
            raise
        return _handed(given)

    def rejected(self, asked: Asked) -> Response:
        """Take the report that TikTok refused a token."""
        consumer, creator_id = self._consumer_of(asked), asked.part("creator_id")
        asked.query(())
        generation = _generation(asked.body)
        self._refuse_foreign(consumer, creator_id)
        try:
            requested = self._reader.report_rejected(creator_id, generation)
        except EvertokenError as error:
            raise self._problem(error, creator_id) from None
        return json_answer({"creator_id": creator_id, "refresh_requested": requested})

    def creators(self, asked: Asked) -> Response:
        """List the creators that the consumer may ask about, without tokens."""
        consumer = self._consumer_of(asked)
        given = asked.query(("status", "after", "limit"))
        statuses = [status.value for status in GrantStatus]
        if given.get("status", statuses[0]) not in statuses:
            raise ProblemError(422, "parameter", f"status is one of {', '.join(statuses)}")
        limit = _whole(given, "limit", LISTED, 1, MOST_LISTED) or LISTED
        found = self._store.grants_in_scope(
            consumer.scope,
            status=GrantStatus(given["status"]) if "status" in given else None,
            after_id=_whole(given, "after", 0, 0, LARGEST_ID) or 0,
            limit=limit,
        )
        more = found[-1].grant_id if len(found) == limit else None
        return json_answer({"creators": [_shown(grant) for grant in found], "next_after": more})

    def _consumer_of(self, asked: Asked) -> ConsumerView:
        """Return whose key a request bears.

        A key that has worked in this process is looked up even if its address has guessed too often: behind one proxy
        a stranger's guesses do not lock out a neighbour.

        Raises:
            ProblemError: nobody's, or this address guesses.
        """
        key = _key_of(asked)
        wait = self._guesses.wait(asked.address)
        if wait and not self._keys.seen(key):
            raise ProblemError(
                429, "guessing", "too many wrong keys came from this address", headers={"Retry-After": str(wait)}
            )
        consumer = self._keys.find(key)
        if consumer is not None:
            return consumer
        if self._guesses.wrong(asked.address):
            told: dict[str, FactValue] = {"address": asked.address, "seconds": self._guesses.wait(asked.address)}
            self._hook(Fact("desk.keys_guessed", told, level="warning"))
        raise ProblemError(
            401,
            "key",
            "the request needs the header Authorization: Bearer KEY, with a key of `evertoken consumers add`",
            headers=UNAUTHORIZED,
        )

    def _refuse_foreign(self, consumer: ConsumerView, creator_id: str) -> None:
        """Refuse what cannot be a creator's id, and creators that the consumer may not ask about.

        Raises:
            ProblemError: 404, in the words for a creator that nobody knows.
        """
        if not is_creator_id(creator_id):
            raise _unknown()
        if not consumer.scope.everyone and self._store.grant_in_scope(creator_id, consumer.scope) is None:
            raise _unknown()

    def _serve(self, wish: Wish, wait: float) -> ServedToken:
        """Return a token; wait for one only if too few others do.

        Raises:
            ProblemError: there is none.
        """
        read = partial(self._reader.serve, wish.creator_id, min_validity=wish.min_validity, newer_than=wish.newer_than)
        try:
            try:
                return read(wait_seconds=0)
            except ExpiredError:
                if wait == 0 or not self._waiters.acquire(blocking=False):
                    raise
            try:
                return read(wait_seconds=wait)
            finally:
                self._waiters.release()
        except EvertokenError as error:
            raise self._problem(error, wish.creator_id) from None

    def _problem(self, error: EvertokenError, creator_id: str) -> ProblemError:
        """Return what a consumer is told of an error."""
        match error:
            case UnknownCreatorError():
                return _unknown()
            case ExpiredError():
                seconds = str(math.ceil(error.retry_after))
                return ProblemError(503, "not-yet", str(error), headers={"Retry-After": seconds})
            case NotFoundError() if type(error) in ENDED:
                return self._ended(creator_id, ENDED[type(error)])
            case ValidityError():
                return ProblemError(422, "validity", str(error))
            case UsageError():
                return ProblemError(422, "generation", str(error))
            case SealError():
                self._hook(Fact("token.unreadable", {"reason": str(error)}, level="error"))
                return ProblemError(500, "unreadable", "the stored token does not open; the operator has to look")
        raise error

    def _ended(self, creator_id: str, verdict: str) -> ProblemError:
        try:
            cause = self._store.grant(creator_id).verdict or Cause.UNKNOWN.value
        except UnknownCreatorError:  # forgotten a moment ago
            return _unknown()
        return ProblemError(409, verdict, SAID[verdict], more={"verdict": verdict, "cause": cause})


def _unknown() -> ProblemError:
    return ProblemError(404, "unknown-creator", "there is no grant of this creator")


def _key_of(asked: Asked) -> str:
    scheme, _, key = asked.request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _wish(asked: Asked, key: str) -> tuple[Wish, float]:
    """Return what a request wishes, and for how many seconds it would wait.

    Raises:
        ProblemError: a parameter cannot be used, or nobody can have this id.
    """
    given = asked.query(("min_validity", "newer_than", "wait"))
    validity = _number(given, "min_validity", 0.0)
    newer_than = _whole(given, "newer_than", None, 1, LARGEST_GENERATION)
    wait = _number(given, "wait", WAIT_SECONDS)
    if wait > WAIT_SECONDS:
        raise ProblemError(422, "parameter", f"wait is at most {WAIT_SECONDS:g} seconds")
    has = tuple(each.strip() for each in asked.request.headers.get("if-none-match", "").split(","))
    creator_id = asked.part("creator_id")
    if not is_creator_id(creator_id):
        raise _unknown()
    return Wish(key, creator_id, validity, newer_than, has), wait


def _handed(given: Given) -> Response:
    """Return the answer with a token, or that the consumer has it already; and count it."""
    served, tag = given.served, {"ETag": tag_of(given.served)}
    count_token_read(given.consumer.name, "unchanged" if given.is_known else "served")
    if given.is_known:
        return Response(status_code=304, headers=tag)
    return json_answer(
        {
            "creator_id": served.creator_id,
            "access_token": served.access_token.reveal(),
            "expires_at": _instant(served.expires_at),
            "expires_in": math.floor(served.seconds_left),
            "consent": served.consent,
            "generation": served.generation,
        },
        headers=tag,
    )


def _shown(grant: GrantView) -> dict[str, Any]:
    return {
        "creator_id": grant.creator_id,
        "reference": grant.reference,
        "status": grant.status.value,
        "access_token_ends_at": None if grant.status is GrantStatus.REVOKED else _instant(grant.access_expires_at),
        "refresh_token_ends_at": None if grant.refresh_expires_at is None else _instant(grant.refresh_expires_at),
        "scopes": sorted(filter(None, grant.scope.split(","))),
        "consent": grant.consent,
        "generation": grant.pair_generation,
    }


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _number(given: dict[str, str], name: str, default: float) -> float:
    text = given.get(name)
    if text is None:
        return default
    try:
        number = float(text) if text.isascii() and text == text.strip() and "_" not in text else math.nan
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ProblemError(422, "parameter", f"{name} is a number of seconds, 0 or more")
    return number


def _whole(given: dict[str, str], name: str, default: int | None, least: int, most: int) -> int | None:
    text = given.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and least <= int(text) <= most):
        raise ProblemError(422, "parameter", f"{name} is a whole number from {least} to {most}")
    return int(text)


def _generation(body: bytes) -> int:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or set(document) != {"generation"}:
        raise ProblemError(422, "body", 'the body is JSON: {"generation": 3}, the generation of the refused token')
    generation = document["generation"]
    if type(generation) is not int or not 1 <= generation <= LARGEST_GENERATION:
        raise ProblemError(422, "body", f"generation is a whole number from 1 to {LARGEST_GENERATION}")
    return generation
