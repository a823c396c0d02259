"""Delivering notices: each is sent in a signed POST to the address that the operator set, until it is accepted.

The signature follows the Standard Webhooks convention: headers `webhook-id`, `webhook-timestamp` and
`webhook-signature: v1,<base64 of HMAC-SHA256 over "id.timestamp.body">`. The id belongs to the notice, so a receiver
recognizes a notice that comes twice.
"""

from __future__ import annotations

import base64
import hmac
import json
import random
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from worker.egress import Egress, NotConnectedError
from worker.policy import backoff
from worker.store import NoticeView, Store
from worker.telemetry import Fact, Hook
from worker.vault import Token

BATCH: Final = 20
TIMEOUT_SECONDS: Final = 10.0
"""Total deadline of one delivery, however slowly the receiver answers."""
CONNECT_SECONDS: Final = 5.0
BATCH_SECONDS: Final = 25.0
"""Length of a round; the rest waits for the next one, because no notice may be sent by two processes at once."""
ACCEPTED: Final = range(200, 300)


class Notifier:
    """Delivers pending notices."""

    def __init__(
        self,
        *,
        store: Store,
        hook: Hook,
        url: str | None,
        secret: Token | None,
        egress: Egress | None = None,
        wall_clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Deliver nothing yet.

        Args:
            store: where notices wait.
            hook: where facts go.
            url: where they are posted; None leaves them in the database, for `doctor` to show.
            secret: key of the signature.
            egress: sends the requests; by default directly and with the usual authorities.
            wall_clock: seconds since the epoch, for the signature's timestamp.
            monotonic: seconds of a clock that is never set, for the length of a round.
        """
        self._store = store
        self._hook = hook
        self._url = url
        self._secret = secret
        self._wall_clock = wall_clock
        self._monotonic = monotonic
        self._egress = egress or Egress()
        self._round = threading.Lock()

    def deliver(self) -> int:
        """Post the pending notices; return how many were accepted.

        A process runs one round at a time, so a slow receiver occupies only one thread; a second call returns at once.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        if self._url is None or self._secret is None or not self._round.acquire(blocking=False):
            return 0
        try:
            return self._deliver(self._url, self._secret)
        finally:
            self._round.release()

    def _deliver(self, url: str, secret: Token) -> int:
        accepted, end = 0, self._monotonic() + BATCH_SECONDS
        for notice in self._store.pending_notices(BATCH):
            if self._monotonic() > end:
                break
            problem = self._post(notice, url, secret)
            if problem is None:
                self._store.notice_delivered(notice.notice_id)
                self._hook(Fact("notice.delivered", {"kind": notice.kind, "notice_id": notice.notice_id}))
                accepted += 1
                continue
            now = self._store.ping()
            wait = backoff.pull_retry_at(now=now, failures=notice.failures + 1, draw=random.random())  # noqa: S311 - spreads load
            self._store.notice_failed(notice.notice_id, wait.at)
            self._hook(Fact("notice.failed", {"kind": notice.kind, "reason": problem}, level="warning"))
        return accepted

    def _post(self, notice: NoticeView, url: str, secret: Token) -> str | None:
        """Post one notice; return what went wrong in a few words, or None."""
        body = json.dumps(
            {
                "id": notice.dedupe_key,
                "kind": notice.kind,
                "creator_id": notice.creator_id,
                "detail": notice.detail,
                "created_at": notice.created_at.isoformat(timespec="seconds"),
            }
        ).encode()
        stamp = str(int(self._wall_clock()))
        signed = b".".join((notice.dedupe_key.encode(), stamp.encode(), body))
        signature = base64.b64encode(hmac.digest(secret.reveal().encode(), signed, sha256)).decode()
        headers = {
            "Content-Type": "application/json",
            "webhook-id": notice.dedupe_key,
            "webhook-timestamp": stamp,
            "webhook-signature": f"v1,{signature}",
        }
        try:
            status = self._egress.ask(
                "POST", url, seconds=TIMEOUT_SECONDS, connect_seconds=CONNECT_SECONDS, body=body, headers=headers
            )
        except (NotConnectedError, ConnectionError) as error:
            return str(error)
        return None if status in ACCEPTED else f"HTTP {status}"
