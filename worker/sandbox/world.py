"""The state of one sandbox: options, clock, creators, faults, quota, ledger and counters."""

from __future__ import annotations

import resource
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from worker.sandbox.accounts.days import Calendar, day_of
from worker.sandbox.accounts.traits import Account, AccountBook
from worker.sandbox.faults import FaultBook
from worker.sandbox.ledger import LedgerWriter
from worker.sandbox.options import SandboxOptions
from worker.sandbox.quota import Quota
from worker.sandbox.registry import Clock, Consent, IssuedPair, Mint, Registry


@dataclass(slots=True)
class App:
    """The one app that the sandbox knows."""

    app_id: str
    secrets: set[str] = field(repr=False)
    blocked: bool = False


@dataclass(slots=True)
class Counters:
    """What happened since the start."""

    calls: dict[str, Counter[str]] = field(default_factory=dict)
    requests: int = 0
    pairs: int = 0
    errors: int = 0
    overlaps: int = 0
    peak_second: int = 0
    _second: int = 0
    _in_second: int = 0

    def request(self, now: float) -> None:
        """Count a request."""
        self.requests += 1
        if int(now) != self._second:
            self._second, self._in_second = int(now), 0
        self._in_second += 1
        self.peak_second = max(self.peak_second, self._in_second)

    def outcome(self, call: str, name: str) -> None:
        """Count how a call ended."""
        self.calls.setdefault(call, Counter())[name] += 1


class World:
    """Everything a sandbox holds.

    Args:
        options: how it behaves.

    Raises:
        OSError: the ledger cannot be opened.
    """

    def __init__(self, options: SandboxOptions) -> None:
        self.options = options
        self.clock = Clock(options.stands_at)
        self.mint = Mint(options.canary)
        self.registry = Registry(self.mint)
        self.faults = FaultBook(options.seed)
        self.quota = Quota()
        self.ledger = LedgerWriter(options.ledger)
        self.app = App(options.app_id, {text for text in (options.app_secret, options.next_secret) if text})
        self.counters = Counters()
        self.accounts = AccountBook(options.seed, day_of(self.clock.now()))

    def account(self, creator_id: str) -> Account:
        """Return the account with this id."""
        return self.accounts.find(creator_id, mixed=self.options.accounts == "mixed")

    def calendar(self) -> Calendar:
        """Return how figures come and what they mean now."""
        return Calendar(self.options.settle_days, self.options.contested)

    def token_object(self, pair: IssuedPair, now: float) -> dict[str, Any]:
        """Build the token object of a pair: lifetimes are the seconds left, and scopes have no stable order."""
        scope = pair.consent.scope
        return {
            "access_token": pair.access,
            "expires_in": max(0, round(pair.access_expires_at - now)),
            "refresh_token": pair.refresh,
            "refresh_token_expires_in": max(0, round(pair.consent.refresh_expires_at - now)),
            "open_id": pair.consent.creator.creator_id,
            "scope": ",".join(scope if pair.fp_access < "8" else reversed(scope)),
            "token_type": "Bearer",
        }

    def draft(self, call: str, pair: IssuedPair | None, consent: Consent | None, **more: Any) -> dict[str, Any]:
        """Begin a ledger line; `more` holds its further fields."""
        issued = {} if pair is None else _issued(pair)
        return {
            "time": round(self.clock.now(), 6),
            "creator": consent.creator.creator_id if consent is not None else None,
            "call": call,
            "consent": consent.number if consent is not None else 0,
            **issued,
            "rotation": self.options.rotation,
            **more,
        }

    def statistics(self) -> dict[str, Any]:
        """Sum up what happened."""
        counters, refused = self.counters, self.quota.refused
        return {
            "calls": {call: dict(names) for call, names in counters.calls.items()},
            "requests": counters.requests,
            "pairs": counters.pairs,
            "errors": counters.errors,
            "overlaps": counters.overlaps,
            "faults": self.faults.hits,
            "quota": {kind: refused[kind] for kind in ("second", "minute", "account", "day", "suspended")},
            "suspended_for": max(0.0, self.quota.shut_until - self.clock.now()),
            "creators": len(self.registry.creators),
            "peak_second": counters.peak_second,
            "cpu_seconds": time.process_time(),
            "rss_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            "now": self.clock.now(),
            "ledger_lines": self.ledger.lines,
        }


def _issued(pair: IssuedPair) -> dict[str, Any]:
    return {"fp_new_access": pair.fp_access, "fp_new_refresh": pair.fp_refresh, "expires_in": pair.expires_in}
