"""Builders for the store's tests: consents, sealed stand-ins and pairs, on the database's own clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from tests.support.claims import claim_one, save_one
from worker.store import Claim, ConsentResult, GrantView, Likeness, NewConsent, NewPair, Saved, Store
from worker.vault.sealing import SealedPair

DAY = timedelta(days=1)
LEASE_SECONDS = 60.0


def sealed(word: str, key_id: int = 1) -> SealedPair:
    """Return bytes that stand in for a sealed pair; the store never looks into them."""
    return SealedPair(f"access {word}".encode(), f"refresh {word}".encode(), key_id)


def seal_name(item: NewConsent, consent: int, generation: int) -> SealedPair:
    """Seal by naming the place."""
    return sealed(f"{item.creator_id}/{consent}/{generation}")


@dataclass
class Fleet:
    """A store with what tests do to it, in a word each."""

    store: Store

    def consent(self, creator_id: str, **changes: Any) -> NewConsent:
        """Return a consent that is due now and lives for a day."""
        at = self.store.ping()
        values: dict[str, Any] = {
            "creator_id": creator_id,
            "scope": "user.info.basic",
            "issued_at": at,
            "access_expires_at": at + DAY,
            "refresh_expires_at": at + 365 * DAY,
            "next_refresh_at": at,
            "jitter": 0.5,
        }
        return NewConsent(**values | changes)

    def add(self, creator_id: str = "ada", *, replace: bool = False, **changes: Any) -> GrantView:
        """Store a consent and return its grant."""
        self.keep([self.consent(creator_id, **changes)], replace=replace)
        return self.store.grant(creator_id)

    def keep(
        self, items: Sequence[NewConsent], *, replace: bool = False, likeness: Likeness | None = None
    ) -> list[ConsentResult]:
        """Store consents, each pair sealed by naming its place; a likeness is what each pair is found to have."""
        compare = None if likeness is None else lambda *_: likeness
        return self.store.save_consents(items, seal_name, replace=replace, compare=compare)

    def pair(self, word: str, *, scope: str | None = None) -> NewPair:
        """Return a fresh pair that is not due for most of a day."""
        at = self.store.ping()
        return NewPair(sealed(word), at, at + DAY, at + 364 * DAY, at + timedelta(hours=16), scope)

    def claim(self, grant_id: int, *, seconds: float = LEASE_SECONDS, force: bool = True) -> Claim:
        """Win a claim that must be won."""
        claim = claim_one(self.store, grant_id, owner="a worker", lease_seconds=seconds, force=force)
        assert claim is not None
        return claim

    def save(self, claim: Claim, word: str) -> bool:
        """Store a pair for a claim and return whether it is current."""
        return self.save_pair(claim, self.pair(word)).moved

    def save_pair(self, claim: Claim, pair: NewPair, *, request_id: str | None = None) -> Saved:
        """Store a pair for a claim."""
        return save_one(self.store, claim, pair, request_id=request_id)

    def lease_left(self, claim: Claim) -> float:
        """Return for how many seconds a claim still holds; 0 if it is lost."""
        grant = self.store.grant_by_id(claim.grant_id)
        if (grant.generation, grant.lease_owner) != (claim.generation, claim.owner) or grant.lease_until is None:
            return 0.0
        return max(0.0, (grant.lease_until - self.store.ping()).total_seconds())

    def soon(self, seconds: float = 60) -> datetime:
        """Return an instant a little ahead."""
        return self.store.ping() + timedelta(seconds=seconds)

    def current(self, creator_id: str = "ada") -> bytes:
        """Return the sealed access token that is served."""
        return self.store.current_pair(creator_id).sealed.sealed_access

    def sql(self, statement: str, **values: Any) -> list[Any]:
        """Run a statement beside the store's own, to age rows and to look beneath."""

        def work(connection: Any) -> list[Any]:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

        return self.store.transact(work, writes=True)


@pytest.fixture
def fleet(store: Store) -> Fleet:
    """A fleet on both databases."""
    return Fleet(store)
