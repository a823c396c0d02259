"""Owners of imported pairs: since when the owner is unproven, and the owner if TikTok named another creator."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
compatible_from = "0001"


def upgrade() -> None:
    """Add the columns; both may be empty, so that the version before still runs."""
    op.add_column("grants", sa.Column("unproven_since", sa.BigInteger()))
    op.add_column("grants", sa.Column("belongs_to", sa.Text()))
