"""The model: what TikTok holds, what workers know, and what has reached us, as plain sets and lists.

Workers of the model are values, not threads: a rule moves one of them by one step, so every order of
steps can be played. The database, the journals, sealing, reading, storing, replaying and judging are the real ones.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

from worker.journal import Journal, RecordId
from worker.store import Claim
from worker.tiktok import RawAnswer

Rotation = Literal["strict", "grace", "grace_another", "same"]
REFUSED = 40107
LIFE_SECONDS = 86_400


@dataclass
class Consent:
    """One consent at TikTok: the refresh tokens it gave, oldest first, and whether it still stands."""

    tokens: list[str]
    alive: bool = True


@dataclass
class TikTok:
    """TikTok, as the rotation modes have it; grace windows never close."""

    rotation: Rotation
    consents: dict[str, list[Consent]] = field(default_factory=dict)
    calls: int = 0
    made: int = 0

    def consent(self, creator: str) -> str:
        """Let a creator consent, and return the new refresh token; older consents end."""
        for consent in self.consents.setdefault(creator, []):
            consent.alive = False
        self.consents[creator].append(Consent([self._mint()]))
        return self.live(creator)

    def live(self, creator: str) -> str:
        """Return the refresh token that was given last."""
        return self.consents[creator][-1].tokens[-1]

    def refresh(self, creator: str, token: str) -> RawAnswer:
        """Answer a refresh."""
        self.calls += 1
        consent = self.consents[creator][-1]
        if not consent.alive or token not in consent.tokens:
            return answer_of(code=REFUSED)
        if token != consent.tokens[-1] and self.rotation == "strict":
            return answer_of(code=REFUSED)
        if self.rotation != "same" and (token == consent.tokens[-1] or self.rotation == "grace_another"):
            consent.tokens.append(self._mint())
        return answer_of(creator=creator, token=consent.tokens[-1])

    def _mint(self) -> str:
        self.made += 1
        return f"rft.{self.made}"


def answer_of(*, code: int = 0, creator: str = "", token: str = "") -> RawAnswer:
    """Return an answer as the client hands it on."""
    data = {
        "open_id": creator,
        "access_token": token.replace("rft", "act"),
        "refresh_token": token,
        "expires_in": LIFE_SECONDS,
        "refresh_token_expires_in": 365 * LIFE_SECONDS,
        "scope": "user.info.basic",
    }
    body = {"code": code, "message": "OK", "request_id": "r", "data": data if code == 0 else {}}
    return RawAnswer(
        call="tt_user/oauth2/refresh_token/",
        http_status=200,
        body=json.dumps(body).encode(),
        complete=True,
        fault=None,
        retry_after=None,
    )


@dataclass
class Worker:
    """One worker process: its journal, and what it has in hand.

    Attributes:
        tokens: refresh tokens that it may still send under its claim, current one first.
        answer: what TikTok answered and nobody has read yet.
        sent: the token that it sent last.
        record: the journal's record of the answer, once it is there.
        in_doubt: True if a call of this attempt got no answer.
    """

    journal: Journal
    claim: Claim | None = None
    tokens: list[str] = field(default_factory=list)
    answer: RawAnswer | None = None
    sent: str = ""
    record: RecordId | None = None
    in_doubt: bool = False

    @property
    def step(self) -> str:
        """What it does next: `claim`, `send`, `receive` or `settle`."""
        if self.claim is None:
            return "claim"
        if self.record is not None:
            return "settle"
        return "send" if self.answer is None else "receive"

    def forget(self) -> None:
        """Be done with the attempt."""
        self.claim, self.tokens, self.answer, self.record, self.in_doubt = None, [], None, None, False
