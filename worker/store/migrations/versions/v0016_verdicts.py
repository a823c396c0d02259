"""Grants and attempts say what was behind a failure, and grants when TikTok was last asked about their access token."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
compatible_from = "0001"


def upgrade() -> None:
    """Add columns that may be empty; the version before leaves them so."""
    op.add_column("attempts", sa.Column("verdict", sa.String(24)))
    op.add_column("grants", sa.Column("verdict", sa.String(24)))
    op.add_column("grants", sa.Column("checked_at", sa.BigInteger()))
