"""Delivering notices: signed POSTs to each address that the operator named, until the address accepts.

Form and signature are those of the Standard Webhooks specification. A notice keeps its id over all tries, so a receiver
recognizes one that it gets twice; a status of 200 to 299 accepts it.
"""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

from worker.addresses import NoticeAddress
from worker.egress import Egress, Head, NotConnectedError
from worker.links import ConsentLinks
from worker.policy import backoff
from worker.policy.notice_kinds import WITH_LINK, type_of
from worker.store import NoticeView, Store
from worker.telemetry import SPANS, Fact, Hook, Span
from worker.vault.webhooks import WebhookSigner

BATCH: Final = 20
TIMEOUT_SECONDS: Final = 10.0
"""Total deadline of one delivery, however slowly the receiver answers."""
CONNECT_SECONDS: Final = 5.0
BATCH_SECONDS: Final = 25.0
"""Length of a round; the rest waits for the next one, because no notice may be sent by two processes at once."""
ACCEPTED: Final = range(200, 300)
GONE: Final = 410
ASKS_TO_WAIT: Final = frozenset({429, 503})
LINK_SECONDS: Final = 7 * 86400
"""Life of the link in a notice: a person has to read a mail and act."""
WARNINGS: Final = 500
"""Warnings of ends that one transaction writes."""
WARN_SECONDS: Final = 3600.0
"""Time between two searches for consents that end soon: a search reads every grant that ends within a month."""
LONGEST_PAUSE_SECONDS: Final = 3600.0
"""Longest `Retry-After` that is followed: one header must not delay an alarm by a day."""


class Notifier:
    """Delivers pending notices."""

    def __init__(
        self,
        *,
        store: Store,
        hook: Hook,
        addresses: Sequence[NoticeAddress],
        signer: WebhookSigner,
        egress: Egress,
        links: ConsentLinks | None,
        wall_clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what delivery needs; nothing is posted yet.

        Args:
            store: where notices wait.
            hook: where facts go.
            addresses: where notices are posted; with none they stay in the database, for `doctor` to show.
            signer: signs them.
            egress: the way there.
            links: makes the links by which creators authorize again; None for none.
            wall_clock: seconds since the epoch, for the signature's timestamp.
            monotonic: seconds of a clock that is never set, for the length of a round.
        """
        self._store = store
        self._hook = hook
        self._addresses = tuple(addresses)
        self._signer = signer
        self._wall_clock = wall_clock
        self._monotonic = monotonic
        self._egress = egress
        self._links = links
        self._round = threading.Lock()
        self._warns_at = -math.inf

    def deliver(self) -> int:
        """Post what is pending; return how many times a notice was accepted.

        A process runs one round at a time, so a slow receiver occupies only one thread; a second call returns at once.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        if not self._addresses or not self._round.acquire(blocking=False):
            return 0
        try:
            return self._deliver()
        finally:
            self._round.release()

    def warn(self) -> int:
        """Write notices of consents that end soon, once an hour or until none is missing; return how many.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        if self._monotonic() < self._warns_at:
            return 0
        written = self._store.warn_of_ends(WARNINGS)
        self._warns_at = self._monotonic() + (WARN_SECONDS if written < WARNINGS else 0.0)
        if written:
            self._hook(Fact("grants.end_soon", {"grants": written}))
        return written

    def _deliver(self) -> int:
        accepted, end = 0, self._monotonic() + BATCH_SECONDS
        self._store.route_notices({address.name: address.kinds for address in self._addresses})
        closed = self._store.closed_receivers()
        # In random order: an address that is away can use up a round, but not each time before the same addresses.
        for address in random.sample(self._addresses, len(self._addresses)):
            if address.name not in closed:
                accepted += self._serve(address, end)
        return accepted

    def _serve(self, address: NoticeAddress, end: float) -> int:
        """Post to one address until nothing is due, the address does not accept a notice, or the time is up."""
        accepted, goes_on = 0, True
        while goes_on and self._monotonic() <= end and (due := self._store.claim_deliveries(address.name, BATCH)):
            left = {notice.notice_id for notice, _ in due}
            for notice, failures in due:
                if self._monotonic() > end or (notice.grant_id is not None and self._store.brake().stopped):
                    goes_on = False
                    break
                left.remove(notice.notice_id)
                posted = Span("notice.delivery", {"kind": type_of(notice.kind), "address": address.name})
                with SPANS.over(posted):
                    goes_on = posted.fields["accepted"] = self._try(notice, failures, address)
                accepted += goes_on
                if not goes_on:
                    break
            if left:
                self._store.release_deliveries(address.name, left)
        return accepted

    def _try(self, notice: NoticeView, failures: int, address: NoticeAddress) -> bool:
        """Post one notice, record the result, and return whether it was accepted."""
        fields = {"kind": type_of(notice.kind), "message_id": notice.message_id, "address": address.name}
        head = None
        try:
            head = self._post(notice, address)
            problem = f"HTTP {head.status}"
        except (NotConnectedError, ConnectionError) as error:
            problem = str(error)
        if head is not None and head.status in ACCEPTED:
            self._store.delivery_accepted(notice.notice_id, address.name)
            self._hook(Fact("notice.delivered", fields))
            return True
        now = self._store.ping()
        next_try_at = backoff.notice_retry_at(now=now, failures=failures + 1, draw=random.random()).at  # noqa: S311 - spreads load
        if head is not None and head.status == GONE:
            next_try_at = now  # due as soon as the address is enabled again
            self._disable(address)
        elif head is not None and head.status in ASKS_TO_WAIT and (pause := self._pause(head.retry_after)):
            next_try_at = now + timedelta(seconds=pause)
            self._store.pause_receiver(address.name, next_try_at)
            problem += f", and asks to wait for {pause:.0f} s"
        self._store.delivery_failed(notice.notice_id, address.name, problem=problem, next_try_at=next_try_at)
        self._hook(Fact("notice.failed", fields | {"reason": problem}, level="warning"))
        return False

    def _disable(self, address: NoticeAddress) -> None:
        detail = (
            f"the address {address.name} answered 410 Gone, so nothing is posted to it: take it out of "
            f"EVERTOKEN_NOTICE_URL, or run `evertoken notices enable {address.name}` when it is there again"
        )
        if self._store.disable_receiver(address.name, detail):
            self._hook(Fact("notice.address_disabled", {"address": address.name}, level="error"))

    def _pause(self, retry_after: str | None) -> float:
        """Return how many seconds a receiver asks to wait, at most an hour; 0 if it does not say."""
        seconds = 0.0
        text = (retry_after or "").strip()
        if text.isascii() and text.isdigit():
            seconds = float(text[:9])
        elif text:
            with suppress(ValueError):
                at = parsedate_to_datetime(text)
                seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - self._wall_clock()
        return min(max(seconds, 0.0), LONGEST_PAUSE_SECONDS)

    def _post(self, notice: NoticeView, address: NoticeAddress) -> Head:
        posted = content(notice)
        if self._links is not None and notice.kind in WITH_LINK:
            # Each try has a new link: the database stores no link that could be posted again.
            posted["data"]["reconnect_url"] = self._links.make(
                life_seconds=LINK_SECONDS, reference=notice.reference, creator_id=notice.creator_id
            )
        body = json.dumps(posted).encode()
        headers = self._signer.headers(notice.message_id or "", int(self._wall_clock()), body)
        return self._egress.ask(
            "POST",
            address.url,
            seconds=TIMEOUT_SECONDS,
            connect_seconds=CONNECT_SECONDS,
            body=body,
            headers={"Content-Type": "application/json", **headers},
        )


def content(notice: NoticeView) -> dict[str, Any]:
    """Return what is posted of a notice, except its link, which each try makes; docs/notices.schema.json defines it."""
    about: dict[str, Any] = {"detail": notice.detail}
    if notice.grant_id is not None:
        about |= {"creator_id": notice.creator_id, "reference": notice.reference}
    return {
        "type": type_of(notice.kind),
        "timestamp": notice.created_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "data": about | (notice.data or {}),
    }
