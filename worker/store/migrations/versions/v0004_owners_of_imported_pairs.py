"""Whose an imported pair is: since when that is unproven, and who TikTok says it is, if it is another's."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
compatible_from = "0001"


def upgrade() -> None:
    """Add the columns; both may be empty, so that the version before still runs."""
    op.add_column("grants", sa.Column("unproven_since", sa.BigInteger()))
    op.add_column("grants", sa.Column("belongs_to", sa.Text()))
