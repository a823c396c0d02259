"""Predicates of the partial indexes, as SQL text that models and queries share.

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
UNDELIVERED: Final = "delivered_at IS NULL"
