"""The kinds of notices: their names in the database and their names for receivers.

The names in the database are those that the version before writes and looks for. Receivers get dotted names, such as
`grant.reauth_needed`: the word before the dot says what it is about.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

KINDS: Final = {
    "address_disabled": "address.disabled",
    "address_enabled": "address.enabled",
    "app_resumed": "app.resumed",
    "app_stopped": "app.stopped",
    "connected": "grant.connected",
    "contract_changed": "contract.changed",
    "misfit": "grant.misfit",
    "reauth_needed": "grant.reauth_needed",
    "reauth_soon": "grant.reauth_soon",
    "recovered": "grant.recovered",
    "revoked": "grant.revoked",
    "scope_missing": "grant.scope_missing",
    "stuck": "grant.stuck",
    "unreadable": "grant.unreadable",
    "wrong_owner": "grant.wrong_owner",
    "refreshes_go_on": "refreshes.went_on",
    "refreshes_idle": "refreshes.idle",
    "refusals_held": "refusals.held",
    "refusals_over": "refusals.over",
}
"""The name for receivers of each name in the database."""
NEWS: Final = frozenset({"connected", "recovered", "revoked"})
"""Stored kinds that ask nobody to act. If no address is set, it is no trouble that they reach nobody."""
WITH_LINK: Final = frozenset({"reauth_needed", "reauth_soon"})
"""Stored kinds that bear a link by which the creator authorizes again."""


def type_of(kind: str) -> str:
    """Return the name for receivers of a stored kind; a kind of a later version keeps its stored name."""
    return KINDS.get(kind, kind)


def kinds_matching(patterns: Iterable[str]) -> frozenset[str]:
    """Return the stored kinds whose name for receivers matches a pattern, such as `app.stopped` or `grant.*`."""
    patterns = tuple(patterns)
    return frozenset(kind for kind, name in KINDS.items() if any(fnmatchcase(name, pattern) for pattern in patterns))
