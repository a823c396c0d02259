"""Migrations of the schema; `worker.store.schema` runs them."""
