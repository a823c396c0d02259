"""Commands added to Celery's own: look at grants and act on them; light to import, since Celery loads them always."""
