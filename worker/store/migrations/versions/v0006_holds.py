"""The brake's row also holds back requests to authorize again, and knows when the last stop ended."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
compatible_from = "0001"


def upgrade() -> None:
    """Add columns that may be empty; the version before runs with them as well."""
    op.add_column("brake", sa.Column("released_at", sa.BigInteger()))
    op.add_column("brake", sa.Column("held_reason", sa.Text()))
    op.add_column("brake", sa.Column("held_at", sa.BigInteger()))
