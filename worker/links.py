"""Making consent links: each bears a random `state`, whose row says what the link was made for."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from worker.store import Store
from worker.tiktok import TikTok

HANDLE_BYTES: Final = 24
CONNECT: Final = "/connect/"
"""Where the desk's pages for creators begin."""


def handle_of(state: str) -> str:
    """Return the name under which a state's link is stored: its SHA-256, in hexadecimal."""
    return sha256(state.encode("utf-8", "surrogatepass")).hexdigest()


def new_state() -> str:
    """Return a new state: 192 random bits as text that fits into an address."""
    return secrets.token_urlsafe(HANDLE_BYTES)


class ConsentLinks:
    """Makes links by which creators authorize the app.

    Args:
        store: keeps what each link was made for.
        tiktok: knows the address of the consent page.
        scopes: the scopes that a link asks for; the creator may grant fewer.
        page: the desk's address, if links lead to its page, which leads to TikTok's; None if they lead there at once.
    """

    def __init__(self, store: Store, tiktok: TikTok, *, scopes: Sequence[str], page: str | None = None) -> None:
        self._store = store
        self._tiktok = tiktok
        self._scopes = tuple(scopes)
        self._page = page

    def make(self, *, life_seconds: float, reference: str | None, creator_id: str | None) -> str:
        """Return a new link that works once, until its end.

        Args:
            life_seconds: for how long it works.
            reference: the operator's own name for whom it is for; it is stored with the grant.
            creator_id: the only creator whose consent is taken; None for any.

        Raises:
            UsageError: no scope is asked for.
            StoreUnavailableError: the database did not take the link.
        """
        state = new_state()
        consent_page = self.consent_page(state)
        url = consent_page if self._page is None else f"{self._page}{CONNECT}{state}"
        self._store.add_link(handle_of(state), life_seconds=life_seconds, reference=reference, creator_id=creator_id)
        return url

    def consent_page(self, state: str) -> str:
        """Return the address of TikTok's consent page for a link.

        Raises:
            UsageError: no scope is asked for.
        """
        return self._tiktok.authorization_url(state=state, scopes=self._scopes)
