"""Attempts record since when an unread answer is kept aside for the operator."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
compatible_from = "0001"


def upgrade() -> None:
    """Add a column that may be empty, and its index; the version before runs with them and asks the creator."""
    op.add_column("attempts", sa.Column("aside_at", sa.BigInteger()))
    aside = sa.text("aside_at IS NOT NULL")
    op.create_index("ix_attempts_aside", "attempts", ["grant_id"], sqlite_where=aside, postgresql_where=aside)
