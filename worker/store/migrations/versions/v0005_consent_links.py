"""Consent links have rows: each works once and carries the operator's reference, which the grant keeps."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
compatible_from = "0001"


def upgrade() -> None:
    """Add a table and a column that may be empty; the version before runs with them as well."""
    op.create_table(
        "links",
        sa.Column("handle", sa.String(64), primary_key=True),
        sa.Column("reference", sa.String(255)),
        sa.Column("creator_id", sa.String(255)),
        sa.Column("made_at", sa.BigInteger, nullable=False),
        sa.Column("ends_at", sa.BigInteger, nullable=False),
        sa.Column("used_at", sa.BigInteger),
    )
    op.create_index("ix_links_ends_at", "links", ["ends_at"])
    op.add_column("grants", sa.Column("reference", sa.String(255)))
    present = sa.text("reference IS NOT NULL")
    op.create_index("ix_grants_reference", "grants", ["reference"], sqlite_where=present, postgresql_where=present)
