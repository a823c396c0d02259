"""Notices go to several addresses: each has an id for receivers, and a state of its own with every address."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
compatible_from = "0001"


def upgrade() -> None:
    """Add columns that may be empty and tables of their own; the version before still delivers to its one address."""
    op.add_column("notices", sa.Column("message_id", sa.String(64)))
    op.add_column("notices", sa.Column("data", sa.JSON))
    op.create_index("ix_notices_message_id", "notices", ["message_id"], unique=True)
    op.create_table(
        "notice_deliveries",
        sa.Column("notice_id", sa.BigInteger, nullable=False),
        sa.Column("address", sa.String(80), nullable=False),
        sa.Column("next_try_at", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.Integer, server_default="0", nullable=False),
        sa.Column("delivered_at", sa.BigInteger),
        sa.Column("problem", sa.Text),
        # The version before deletes notices and knows nothing of this table.
        sa.ForeignKeyConstraint(["notice_id"], ["notices.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("notice_id", "address"),
    )
    undelivered = sa.text("delivered_at IS NULL")
    op.create_index(
        "ix_notice_deliveries_open",
        "notice_deliveries",
        ["address", "next_try_at"],
        sqlite_where=undelivered,
        postgresql_where=undelivered,
    )
    op.create_table(
        "notice_receivers",
        sa.Column("address", sa.String(80), primary_key=True),
        sa.Column("paused_until", sa.BigInteger),
        sa.Column("disabled_at", sa.BigInteger),
    )
