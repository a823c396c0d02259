"""Grants and the brake say which app of TikTok they belong to; the key of a grant is app and creator."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
compatible_from = "0001"


def upgrade() -> None:
    """Add columns that are empty by default, so that the version before still runs; the key on creators stays."""
    op.add_column("grants", sa.Column("app_id", sa.String(64), nullable=False, server_default=sa.text("''")))
    op.create_index("ix_grants_app_id_creator_id", "grants", ["app_id", "creator_id"], unique=True)
    op.add_column("brake", sa.Column("app_id", sa.String(64), nullable=False, server_default=sa.text("''")))
