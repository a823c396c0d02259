"""An index that finds old wiped pairs without reading all pairs."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
compatible_from = "0001"


def upgrade() -> None:
    """Add the index; the version before runs with it as well."""
    wiped = sa.text("wiped_at IS NOT NULL")
    op.create_index("ix_pairs_wiped", "pairs", ["wiped_at"], sqlite_where=wiped, postgresql_where=wiped)
