"""Neighbours ask for tokens over HTTP: each has a key, kept as a hash, and every token that it got has an audit row."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
compatible_from = "0001"


def upgrade() -> None:
    """Add two tables of their own, which the version before does not know."""
    op.create_table(
        "consumers",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("app_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("handle", sa.String(16), nullable=False),
        sa.Column("key_hash", sa.String(64), nullable=False),
        sa.Column("scope", sa.JSON),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("last_used_at", sa.BigInteger),
        sa.Column("handed_out", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("revoked_at", sa.BigInteger),
    )
    op.create_index("ix_consumers_handle", "consumers", ["handle"], unique=True)
    working = sa.text("revoked_at IS NULL")
    op.create_index(
        "ix_consumers_working",
        "consumers",
        ["app_id", "name"],
        unique=True,
        sqlite_where=working,
        postgresql_where=working,
    )
    op.create_table(
        "hand_outs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("consumer_id", sa.BigInteger, sa.ForeignKey("consumers.id"), nullable=False),
        sa.Column("grant_id", sa.BigInteger, nullable=False),
        sa.Column("consent", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_hand_outs_at", "hand_outs", ["at"])
    op.create_index("ix_hand_outs_grant_id_id", "hand_outs", ["grant_id", "id"])
