"""Revocations that TikTok has not confirmed are kept as such, and creators who were forgotten leave a tombstone."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
compatible_from = "0001"


def upgrade() -> None:
    """Add a column that may be empty, a table and indexes by creator; the version before revokes as it did."""
    op.add_column("grants", sa.Column("ending_at", sa.BigInteger()))
    _partial("ix_grants_ending", "grants", ["ending_at"], "ending_at IS NOT NULL")
    _partial("ix_grants_belongs_to", "grants", ["belongs_to"], "belongs_to IS NOT NULL")
    _partial("ix_notices_grant_id", "notices", ["grant_id"], "grant_id IS NOT NULL")
    _partial("ix_links_creator_id", "links", ["creator_id"], "creator_id IS NOT NULL")
    op.create_table(
        "tombstones",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("creator_hash", sa.String(64), nullable=False),
        # No foreign key: the tombstone outlives the grant.
        sa.Column("grant_id", sa.BigInteger()),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("creator_hash"),
    )
    _partial("ix_tombstones_unfinished", "tombstones", ["grant_id"], "finished_at IS NULL")


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
