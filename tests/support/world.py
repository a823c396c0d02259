"""A whole daemon in one process: real services over a real database, a real Redis-protocol server and the sandbox."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any

from worker.sandbox.ledger import LedgerEntry, fingerprint
from worker.sandbox.process import RunningSandbox
from worker.sandbox.verdict import LedgerVerdict, judge
from worker.services import Services, build_services
from worker.settings import load_settings
from worker.store import GrantView, NewConsent
from worker.vault import PairPlace, SealedPair, Token

SCOPE = "user.info.basic,user.info.stats"


class World:
    """One process's services and the TikTok they speak to."""

    def __init__(self, sandbox: RunningSandbox, environ: dict[str, str]) -> None:
        self.sandbox = sandbox
        self.environ = environ
        self._opened: list[Services] = []
        self.services = self.another()

    def another(self, **changes: str) -> Services:
        """Return the services of another process with the same database and TikTok."""
        environ = self.environ | {f"EVERTOKEN_{name}": value for name, value in changes.items()}
        self._opened.append(build_services(load_settings(environ, dotenv=None)))
        return self._opened[-1]

    def creators(self, count: int = 1, scope: str = SCOPE, prefix: str | None = None, **how: Any) -> list[GrantView]:
        """Let creators consent at the sandbox and store their pairs; they are due at once."""
        given = self.sandbox.grants(count, prefix=prefix or f"c{secrets.token_hex(4)}-", scope=scope, **how)
        by_creator = {token["open_id"]: token for token in given}
        now = self.services.store.ping()

        def seal(item: NewConsent, consent: int, generation: int) -> SealedPair:
            token = by_creator[item.creator_id]
            return self.services.sealer.seal_pair(
                Token(token["access_token"]),
                Token(token["refresh_token"]),
                PairPlace(item.creator_id, consent, generation),
            )

        items = [
            NewConsent(
                creator_id=token["open_id"],
                scope=scope,
                issued_at=now,
                access_expires_at=now + timedelta(seconds=token["expires_in"]),
                refresh_expires_at=now + timedelta(seconds=token["refresh_token_expires_in"]),
                next_refresh_at=now - timedelta(seconds=1),
                jitter=0.5,
            )
            for token in given
        ]
        self.services.store.save_consents(items, seal, replace=False)
        grants = [self.services.store.grant(item.creator_id) for item in items]
        listed = ", ".join(str(grant.grant_id) for grant in grants)
        self.sql(f"UPDATE grants SET next_pull_at = NULL WHERE id IN ({listed})")  # noqa: S608 - numbers of our own
        return grants

    def creator(self, **how: Any) -> GrantView:
        """Let one creator consent; see `creators`."""
        return self.creators(1, **how)[0]

    def refreshes(self, grant: GrantView) -> list[LedgerEntry]:
        """Return the ledger's lines of refreshes of this creator."""
        return [entry for entry in self._entries(grant) if entry.call.endswith("refresh_token/")]

    def _entries(self, grant: GrantView) -> list[LedgerEntry]:
        return [entry for entry in self.sandbox.entries() if entry.creator == grant.creator_id]

    def look(self, grant: GrantView) -> GrantView:
        """Return the grant as it is now."""
        return self.services.store.grant(grant.creator_id)

    def make_due(self, grant: GrantView) -> None:
        """Make a grant due now."""
        self.services.store.request_refresh(grant.creator_id)

    def stored(self) -> dict[str, set[str]]:
        """Return the fingerprints of all stored refresh tokens, by creator."""
        kept: dict[str, set[str]] = {}
        for pair in self.services.store.all_pairs(limit=10_000):
            place = PairPlace(pair.creator_id, pair.consent, pair.generation)
            token = self.services.sealer.open_refresh(pair.sealed, place)
            kept.setdefault(pair.creator_id, set()).add(fingerprint(token.reveal()))
        return kept

    def verdict(self, *grants: GrantView) -> LedgerVerdict:
        """Return what the ledger says of these creators."""
        names = {grant.creator_id for grant in grants}
        return judge([entry for entry in self.sandbox.entries() if entry.creator in names], self.stored())

    def sql(self, statement: str) -> None:
        """Run one statement, such as to age a row."""
        self.services.store.transact(lambda connection: connection.exec_driver_sql(statement), writes=True)

    def close(self) -> None:
        """End every process: it leaves the list of living ones, if it is on it, and its services are closed."""
        for services in self._opened:
            services.presence.leave()
            services.close()
