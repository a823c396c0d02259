"""Processes note the namespace of their installation, so that two on the same tables are noticed."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
compatible_from = "0001"


def upgrade() -> None:
    """Add a column; processes of the version before leave it NULL, those without a namespace write an empty text."""
    op.add_column("workers", sa.Column("namespace", sa.Text()))
