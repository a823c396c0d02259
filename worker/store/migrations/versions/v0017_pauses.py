"""People can pause the whole app, the grants of one reference, or one creator."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
compatible_from = "0001"


def upgrade() -> None:
    """Add a table; the version before does not know it and refreshes what is paused, so end it first."""
    op.create_table(
        "pauses",
        sa.Column("app_id", sa.String(64), nullable=False),
        sa.Column("reference", sa.String(255), nullable=False),
        sa.Column("creator_id", sa.String(255), nullable=False),
        sa.Column("paused_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("app_id", "reference", "creator_id"),
    )
