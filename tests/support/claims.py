"""Claims and pairs one by one, as tests want them; the product takes them in groups."""

from __future__ import annotations

from worker.store import BroughtPair, Claim, NewPair, Saved, Store


def claim_one(
    store: Store, grant_id: int, *, owner: str, lease_seconds: float = 60, force: bool = False
) -> Claim | None:
    """Claim one grant; return None if the claim is not won."""
    claims = store.claim_group([grant_id], owner=owner, lease_seconds=lease_seconds, force=force)
    return claims[0] if claims else None


def save_one(store: Store, claim: Claim, pair: NewPair, *, request_id: str | None = None) -> Saved:
    """Store one pair that a claim's attempt brought."""
    return store.save_group([BroughtPair(claim.grant_id, claim.consent, claim.generation, pair, request_id)])[0]
