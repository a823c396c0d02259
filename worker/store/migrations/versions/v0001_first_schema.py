"""The first schema: grants, pairs, attempts, snapshots, notices, the brake, processes and sentinels."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
compatible_from = "0001"

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.BigInteger()


def upgrade() -> None:
    """Create every table."""
    _grants()
    _pairs()
    _attempts()
    _snapshots()
    _notices()
    _operations()


def _grants() -> None:
    op.create_table(
        "grants",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("creator_id", sa.String(255), nullable=False),
        sa.Column("consent", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("pair_generation", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("issued_at", INSTANT, nullable=False),
        sa.Column("access_expires_at", INSTANT, nullable=False),
        sa.Column("refresh_expires_at", INSTANT),
        sa.Column("next_refresh_at", INSTANT, nullable=False),
        sa.Column("jitter", sa.Double(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_reason", sa.Text()),
        sa.Column("lease_owner", sa.Text()),
        sa.Column("lease_until", INSTANT),
        sa.Column("next_pull_at", INSTANT),
        sa.Column("pull_failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("pull_lease_owner", sa.Text()),
        sa.Column("pull_lease_until", INSTANT),
        sa.Column("pulled_at", INSTANT),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.CheckConstraint("status IN ('active', 'suspect', 'needs_reauth', 'revoked')", name="status_known"),
        sa.CheckConstraint("pair_generation <= generation", name="pointer_behind_attempts"),
        sa.CheckConstraint("status <> 'suspect' OR failures > 0", name="suspect_has_failed"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("creator_id"),
    )
    healthy = "status = 'active' AND failures = 0"
    failing = "status IN ('active', 'suspect') AND failures > 0"
    _partial("ix_grants_healthy_due", "grants", ["next_refresh_at"], healthy)
    _partial("ix_grants_healthy_order", "grants", ["access_expires_at", "next_refresh_at"], healthy)
    _partial("ix_grants_failing_due", "grants", ["next_refresh_at"], failing)
    _partial("ix_grants_failing_order", "grants", ["access_expires_at", "next_refresh_at"], failing)
    _partial(
        "ix_grants_pull_wanted",
        "grants",
        ["next_pull_at"],
        "next_pull_at IS NOT NULL AND status IN ('active', 'suspect')",
    )
    op.create_index("ix_grants_status_id", "grants", ["status", "id"])


def _pairs() -> None:
    op.create_table(
        "pairs",
        sa.Column("grant_id", sa.BigInteger(), nullable=False),
        sa.Column("consent", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("generation", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sealed_access", sa.LargeBinary()),
        sa.Column("sealed_refresh", sa.LargeBinary()),
        sa.Column("key_id", sa.BigInteger(), nullable=False),
        sa.Column("issued_at", INSTANT, nullable=False),
        sa.Column("access_expires_at", INSTANT, nullable=False),
        sa.Column("refresh_expires_at", INSTANT),
        sa.Column("stored_at", INSTANT, nullable=False),
        sa.Column("superseded_at", INSTANT),
        sa.Column("wiped_at", INSTANT),
        sa.CheckConstraint(
            "wiped_at IS NOT NULL OR (sealed_access IS NOT NULL AND sealed_refresh IS NOT NULL)", name="sealed_or_wiped"
        ),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.id"]),
        sa.PrimaryKeyConstraint("grant_id", "consent", "generation"),
    )
    _partial("ix_pairs_superseded", "pairs", ["superseded_at"], "superseded_at IS NOT NULL AND wiped_at IS NULL")


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("grant_id", sa.BigInteger(), nullable=False),
        sa.Column("consent", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("generation", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("claimed_at", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT),
        sa.Column("outcome", sa.String(16)),
        sa.Column("code", sa.BigInteger()),
        sa.Column("http_status", sa.Integer()),
        sa.Column("request_id", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.CheckConstraint(
            "outcome IN ('refreshed', 'not_sent', 'in_doubt', 'refused', 'backed_off', 'stopped', 'misfit')",
            name="outcome_known",
        ),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.id"]),
        sa.PrimaryKeyConstraint("grant_id", "consent", "generation"),
    )
    _partial(
        "ix_attempts_unresolved", "attempts", ["grant_id", "generation"], "(outcome IS NULL OR outcome = 'in_doubt')"
    )
    _partial("ix_attempts_open", "attempts", ["claimed_at"], "outcome IS NULL")
    _partial("ix_attempts_finished", "attempts", ["finished_at"], "finished_at IS NOT NULL")


def _snapshots() -> None:
    op.create_table(
        "snapshots",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("grant_id", sa.BigInteger(), nullable=False),
        sa.Column("pulled_at", INSTANT, nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_snapshots_grant_id_id", "snapshots", ["grant_id", "id"])


def _notices() -> None:
    op.create_table(
        "notices",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("dedupe_key", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("grant_id", sa.BigInteger()),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("delivered_at", INSTANT),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_try_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("dedupe_key"),
    )
    _partial("ix_notices_undelivered", "notices", ["next_try_at"], "delivered_at IS NULL")


def _operations() -> None:
    op.create_table(
        "brake",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("stopped_at", INSTANT),
        sa.Column("next_probe_at", INSTANT),
        sa.CheckConstraint("id = 1", name="one_row"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "workers",
        sa.Column("instance_id", sa.String(64), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("last_seen_at", INSTANT, nullable=False),
        sa.Column("key_ids", sa.Text(), nullable=False),
        sa.Column("journal_replayed_at", INSTANT),
        sa.PrimaryKeyConstraint("instance_id"),
    )
    op.create_table(
        "sentinels",
        sa.Column("key_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key_id"),
    )


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
