"""A worker as most people would write it first: the measure that Evertoken's own worker is held against.

One Celery task a creator, python-tiktok as the client, SQLModel for the row, one session and one commit a task, and a
task queued for the pull. It has no journal, no sealing, no limiter and no lease. It is not part of the product.
"""
