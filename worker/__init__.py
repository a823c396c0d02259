"""The daemon: everything of Evertoken but the thin Celery tasks."""
