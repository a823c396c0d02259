"""What TikTok's answers show of its contract is kept, so that a change is noticed and announced once."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
compatible_from = "0001"


def upgrade() -> None:
    """Add a table, which the version before does not know."""
    op.create_table(
        "contract_terms",
        sa.Column("app_id", sa.String(64), nullable=False),
        sa.Column("term", sa.String(160), nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("value_before", sa.Text),
        sa.Column("changed_at", sa.BigInteger),
        sa.Column("odd_value", sa.Text),
        sa.Column("odd_ids", sa.JSON),
        sa.PrimaryKeyConstraint("app_id", "term"),
    )
