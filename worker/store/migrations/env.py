"""Alembic's environment: migrates over the connection that `worker.store.schema` hands in, within its transaction."""

from alembic import context

from worker.store.models import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    target_metadata=METADATA,
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()
