"""Predicates of the partial indexes, and of a constraint, as SQL text that models and queries share.

Queries repeat them word for word: SQLite uses a partial index only where it finds the index's own words again.
"""

from typing import Final

REFRESHABLE: Final = "status IN ('active', 'suspect')"
HEALTHY: Final = "status = 'active' AND failures = 0"
FAILING: Final = "status IN ('active', 'suspect') AND failures > 0"
PULL_WANTED: Final = "next_pull_at IS NOT NULL AND status IN ('active', 'suspect')"
OPEN: Final = "outcome IS NULL"
FINISHED: Final = "finished_at IS NOT NULL"
UNRESOLVED: Final = "(outcome IS NULL OR outcome = 'in_doubt')"
SUPERSEDED: Final = "superseded_at IS NOT NULL AND wiped_at IS NULL"
SEALED_OR_WIPED: Final = "wiped_at IS NOT NULL OR (sealed_access IS NOT NULL AND sealed_refresh IS NOT NULL)"
WIPED: Final = "wiped_at IS NOT NULL"
REFERENCED: Final = "reference IS NOT NULL"
UNDELIVERED: Final = "delivered_at IS NULL"
