"""Each process reports its keys: the one that it seals with, and those that its host's journal needs."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
compatible_from = "0001"


def upgrade() -> None:
    """Add the columns; both may be empty, so that the version before still runs."""
    op.add_column("workers", sa.Column("sealing_key_id", sa.BigInteger()))
    op.add_column("workers", sa.Column("journal_key_ids", sa.Text()))
