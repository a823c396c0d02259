"""When beat's last message reached a worker, so that anybody who reads the database sees whether beat runs."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
compatible_from = "0001"


def upgrade() -> None:
    """Add the table; the version before runs without it."""
    op.create_table(
        "beat",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("ticked_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name="one_row"),
        sa.PrimaryKeyConstraint("id"),
    )
